"""Do x and y belong together? Accused only with a proof: the same predictor fails on the pairs as they are and succeeds
on the pairs as they should be (shifted back, or as the validation part has them).

The predictor is closed-form: ridge regression on simple views of a sample, judged on samples that it has not seen.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from tsguard import catalogue
from tsguard.checks.arrays import Named, answer_columns, inputs, named_leaves, targets
from tsguard.checks.gathered import as_they_stand
from tsguard.checks.registry import Context, check
from tsguard.evidence import Curve, Evidence, Proof
from tsguard.findings import Finding
from tsguard.probes.data import correlations
from tsguard.probes.orders import promising
from tsguard.probes.patches import patch_columns

Floats = npt.NDArray[np.float64]

LEAST_PAIRS = 100
"""Fewer pairs cannot carry a proof: half of them test, and 50 leave R² uncertain by more than a tenth."""

UNRELATED = 0.1
"""Out-of-sample R² up to which x says nothing about y for this predictor."""

RELATED = 0.35
"""Out-of-sample R² from which x plainly tells of y. Between the two nothing is claimed. On 50 test pairs an R² of 0.35
by chance is out of the question, also as the best of a dozen tries."""

SHIFTS = tuple(k for k in range(-5, 6) if k)
MOST_COMPONENTS = 64
"""Components of a target that pairs are looked for by."""

MOST_PAIRS = 3_000
VIEW = 256
"""Widest view of a sample; wider ones are projected at random, from a fixed seed."""
SERIAL = 0.2
"""Autocorrelation from which rows are a series: there the past predicts the future, and a shift proves nothing."""


@check(
    "inputs and targets that do not belong together", codes=("data-mispaired",), needs=("data", "arrays", "y"), cost=3
)
def inputs_and_targets_apart(context: Context) -> Iterable[Finding]:
    """Shifted, reversed, sorted or shuffled against each other."""
    told = [one for one in inputs(context) if not one.mask]
    for target in targets(context):
        y = answer_columns(target.array, target, most=MOST_COMPONENTS)
        if y is None or not told or len(y) < LEAST_PAIRS or any(len(one.array) != len(y) for one in told):
            continue
        y = y[:MOST_PAIRS]
        view = view_of([one.array[:MOST_PAIRS] for one in told])
        line = Line(view)
        now = line.skill(y)
        if now > UNRELATED:
            continue
        finding = _shifted(view, line, y, now, target) or _against_validation(context, told, target, now)
        finding = finding or _sorted_apart(view, y, now, target) or _reordered(context, now, target)
        if finding is not None:
            yield finding


BLOCKS = 4
"""Stretches of rows that are held against each other: each still has rows enough to teach, and half a file is two."""

AS_VARIED = 0.5
"""Variance of the targets within a stretch, over that of all: rows sorted by their target vary little within one."""


@check("rows that teach beside rows that do not", codes=("data-mispaired",), needs=("data", "arrays", "y"), cost=3)
def stretches_apart(context: Context) -> Iterable[Finding]:
    """Stretches of rows in which x says nothing about y, beside others in which it plainly does."""
    told = [one for one in inputs(context) if not one.mask]
    for target in targets(context):
        y = answer_columns(target.array, target, most=MOST_COMPONENTS)
        if y is None or not told or len(y) < BLOCKS * LEAST_PAIRS or any(len(one.array) != len(y) for one in told):
            continue
        y = y[:MOST_PAIRS]
        view = view_of([one.array[:MOST_PAIRS] for one in told])
        if _serial(view) or _serial(y):
            continue
        places = np.array_split(np.arange(len(y)), BLOCKS)
        if any(y[rows].var(axis=0).sum() < AS_VARIED * y.var(axis=0).sum() for rows in places):
            continue
        skills = [skill(view[rows], y[rows]) for rows in places]
        empty = [place for place, known in enumerate(skills) if known < UNRELATED]
        full = [place for place, known in enumerate(skills) if known >= RELATED]
        if not empty or not full or len(empty) + len(full) < BLOCKS:
            continue
        words = ", ".join(f"{places[k][0]:,}–{places[k][-1]:,}: {known:.2f}" for k, known in enumerate(skills))
        yield catalogue.finding(
            "data-mispaired",
            f"target {target.name!r}: x tells of y in some stretches of rows and says nothing in others (R² within "
            f"rows {words}). Expected the same relation all along: part of the targets was shuffled, shifted or "
            "overwritten.",
            where=target.where(row=int(places[empty[0]][0])),
            proof=Proof("same predictor on stretches of rows", words, effect=1.0, certainty=1.0),
            score=0.9,
        )


def _shifted(view: Floats, line: Line, y: Floats, now: float, target: Named) -> Finding | None:
    if _serial(view) or _serial(y):
        return None
    tried = {k: line.skill(np.roll(y, k, axis=0)) for k in SHIFTS}
    tried_words = {k: f"moved by {k} rows" for k in tried}
    tried[len(y)], tried_words[len(y)] = line.skill(y[::-1]), "reversed"
    best = max(tried, key=lambda k: tried[k])
    if tried[best] < RELATED or _neighbours_tell(view, np.roll(y, best, axis=0), abs(best)):
        return None
    x_values = tuple(float(k) for k in sorted(SHIFTS))
    curve = Curve("R² of the targets moved by k rows", x_values, tuple(tried[int(k)] for k in x_values))
    summary = f"R² {now:.2f} as they are, {tried[best]:.2f} with the targets {tried_words[best]}"
    proof = Proof("re-pair", summary, after=curve, effect=1.0, certainty=1.0, facts={"shift": best})
    message = (
        f"target {target.name!r}: x says nothing about y as they are paired ({summary}). "
        "Expected row i of y to belong to row i of x."
    )
    return catalogue.finding("data-mispaired", message, where=target.where(), proof=proof, score=1.0)


FEW = 24
"""Cells of a row by which another order is looked for, before the whole row is asked."""

MOST_CELLS = 64
"""Cells of a row among which these are, and of which its mean and its spread are taken."""

MOST_ORDERED = 50_000
"""Rows of which all orders are tried in a second or two."""


def _reordered(context: Context, now: float, target: Named) -> Finding | None:
    """Parts joined the other way round, names sorted as text, a table read by columns: over all rows, as they stand."""
    kept = as_they_stand(context)
    told = [one for one in inputs(kept) if not one.mask]
    answers = [answer_columns(one.array, one, most=MOST_COMPONENTS) for one in targets(kept) if one.name == target.name]
    y = answers[0] if len(answers) == 1 else None
    if y is None or not told or len(y) > MOST_ORDERED or any(len(one.array) != len(y) for one in told):
        return None
    rows = np.unique(np.linspace(0, len(y) - 1, min(len(y), MOST_PAIRS)).astype(int))
    head = view_of([one.array[:MOST_PAIRS] for one in told])
    if _serial(head) or _serial(y[:MOST_PAIRS]):
        return None
    cells = np.concatenate([_cells(one.array) for one in told], axis=1)
    some = np.random.default_rng(3).permutation(cells.shape[1])[:FEW]
    columns = np.concatenate([cells[:, some], cells[:, some] ** 2], axis=1)
    listed = promising(columns, y)
    if not listed:
        return None
    view = view_of([one.array[rows] for one in told])
    line = Line(view)
    for words, order in listed:
        moved = y[order]
        then = line.skill(moved[rows])
        if then < RELATED or _held_within(view, moved[rows]) or _neighbours_tell(head, moved[:MOST_PAIRS], 1):
            continue
        summary = f"R² {now:.2f} as they are, {then:.2f} with the targets {words}"
        return catalogue.finding(
            "data-mispaired",
            f"target {target.name!r}: x says nothing about y as they are paired ({summary}). Expected row i of y to "
            "belong to row i of x.",
            where=target.where(),
            proof=Proof("re-pair", summary, effect=1.0, certainty=1.0),
            remedy="Join the two by a key, or sort both by one.",
            score=1.0,
        )
    return None


def _cells(array: Any) -> Floats:
    """The values of each row and what they come to, as columns in standard units."""
    flat = array.reshape(len(array), -1)
    flat = flat[:, :: flat.shape[1] // MOST_CELLS + 1].astype(np.float64)
    flat = np.nan_to_num(flat, nan=0.0, posinf=0.0, neginf=0.0)
    flat = np.concatenate([flat, flat.mean(axis=1, keepdims=True), flat.std(axis=1, keepdims=True)], axis=1)
    return np.asarray((flat - flat.mean(axis=0)) / np.maximum(flat.std(axis=0), 1e-12))


def _held_within(view: Floats, moved: Floats) -> bool:
    """Whether a cell is the moved target itself: a lag feature, not a relation."""
    return bool(np.abs(correlations(view, moved)).max() > LAGGED)


def _neighbours_tell(view: Floats, moved: Floats, shift: int) -> bool:
    """Whether rows hold their neighbours' content: overlapping windows, or the target of an earlier row as a feature.
    Then predicting another row's target is no proof of anything."""
    if _held_within(view, moved):
        return True
    if shift >= len(view) // 2:
        return False
    some = np.random.default_rng(2).permutation(view.shape[1])[:COMPARED]
    return any(skill(view[:-k], view[k:][:, some]) > UNRELATED for k in {1, shift})


LAGGED = 0.999
"""Correlation with one cell from which that cell is the (moved) target itself: a lag feature, not a relation."""
COMPARED = 32
"""Cells of a row that its neighbour is asked about."""


def _against_validation(context: Context, told: list[Named], target: Named, now: float) -> Finding | None:
    """What the pairs of the validation part can teach, the pairs of the training part deny."""
    data = context.data
    if data is None or not isinstance(data.validation, tuple | list) or len(data.validation) < 2:
        return None
    held_x = dict(named_leaves(data.validation[0], "x"))
    held_y = dict(named_leaves(data.validation[1], "y")).get(target.name)
    if held_y is None or any(one.name not in held_x for one in told):
        return None
    arrays = [held_x[one.name][:MOST_PAIRS] for one in told]
    y = answer_columns(held_y, target, most=MOST_COMPONENTS)
    if (
        y is None
        or len(y) < LEAST_PAIRS
        or any(a.shape[1:] != o.array.shape[1:] for a, o in zip(arrays, told, strict=True))
    ):
        return None
    there = skill(view_of(arrays), y[:MOST_PAIRS])
    if there < RELATED:
        return None
    summary = f"R² {there:.2f} within validation, {now:.2f} within training, by the same predictor"
    proof = Proof("same predictor on both parts", summary, effect=1.0, certainty=1.0)
    message = (
        f"target {target.name!r}: x tells of y in the validation part and says nothing about it in the training part "
        f"({summary}). Expected the same relation in both: one of the two was shuffled or sorted on its own."
    )
    return catalogue.finding("data-mispaired", message, where=target.where(split="train"), proof=proof, score=1.0)


def _sorted_apart(view: Floats, y: Floats, now: float, target: Named) -> Finding | None:
    """Continuous targets in ascending order beside inputs that have no order at all."""
    column = y[:, 0]
    rises = np.diff(column)
    ordered = bool((rises >= 0).all() or (rises <= 0).all())
    if y.shape[1] != 1 or len(np.unique(column)) < LEAST_PAIRS // 2 or not ordered or _serial(view):
        return None
    message = (
        f"target {target.name!r} is sorted from its first row to its last while the inputs are in no order and say "
        f"nothing about it (R² {now:.2f}). Expected y in the order of x: one was sorted without the other."
    )
    evidence = [Evidence("value", {"first": float(column[0]), "last": float(column[-1])}, name=target.name)]
    return catalogue.finding("data-mispaired", message, where=target.where(), evidence=evidence, score=0.9)


class Line:
    """Ridge regression on a view: half of the rows teach, the other half judge. What is of the view alone is worked out
    once, so that many targets can be asked."""

    def __init__(self, view: Floats) -> None:
        order = np.random.default_rng(0).permutation(len(view))
        self.fit, self.test = order[: len(order) // 2], order[len(order) // 2 :]
        spread = view[self.fit].std(axis=0)
        kept = spread > 1e-9 * max(1.0, float(np.abs(view[self.fit]).max(initial=0.0)))
        x = (view[:, kept] - view[self.fit][:, kept].mean(axis=0)) / spread[kept]
        self.known = bool(kept.any())
        if self.known:
            self.left, self.values, right = np.linalg.svd(x[self.fit], full_matrices=False)
            self.asked = x[self.test] @ right.T

    def skill(self, y: Floats) -> float:
        """Out-of-sample R², the best of a few strengths; 0 where y does not vary."""
        answers = y - y[self.fit].mean(axis=0)
        power = float((answers[self.test] ** 2).sum())
        if not self.known or power <= 0 or float((answers[self.fit] ** 2).sum()) <= 0:
            return 0.0
        projected = self.left.T @ answers[self.fit]
        best = -np.inf
        for strength in (1e-2, 1e-1, 1.0, 10.0):
            damp = self.values / (self.values**2 + strength * len(self.fit))
            guess = self.asked @ (damp[:, None] * projected)
            best = max(best, 1.0 - float(((answers[self.test] - guess) ** 2).sum()) / power)
        return float(best)


def skill(view: Floats, y: Floats) -> float:
    """Out-of-sample R² of ridge regression: see `Line`."""
    return Line(view).skill(y)


def view_of(arrays: list[Any]) -> Floats:
    """Simple views of a sample side by side: values, squares, patches, its spectrum, and counts of its ids."""
    views: list[Floats] = []
    for array in arrays:
        if array.dtype.kind in "iu" and array.ndim >= 2 and array.max(initial=0) > 1:
            bins = np.asarray(array.reshape(len(array), -1), np.int64) % VIEW
            counts = np.zeros((len(array), VIEW))
            np.add.at(counts, (np.repeat(np.arange(len(array)), bins.shape[1]), bins.ravel()), 1.0)
            views.append(counts)
            continue
        values = np.nan_to_num(array.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
        answers = patch_columns(array) if values.ndim == 4 else None
        if answers is not None:  # pictures: what is in them, wherever it stands, and how bright they are
            views += [answers, values.mean(axis=(1, 2)), values.std(axis=(1, 2))]
            continue
        flat = _narrow(values.reshape(len(values), -1))
        centred = (flat - flat.mean(axis=0)) / np.maximum(flat.std(axis=0), 1e-12)
        views += [centred, centred**2]
        if values.ndim == 3 and values.shape[1] >= 8:
            spectrum = np.abs(np.fft.rfft(values - values.mean(axis=1, keepdims=True), axis=1))
            views.append(_narrow(spectrum.reshape(len(values), -1)))
    return np.concatenate(views, axis=1)


def _narrow(flat: Floats) -> Floats:
    if flat.shape[1] <= VIEW:
        return flat
    mix = np.random.default_rng(1).standard_normal((flat.shape[1], VIEW)) / np.sqrt(flat.shape[1])
    return np.asarray(flat @ mix)


def _serial(columns: Floats) -> bool:
    """Whether neighbouring rows resemble each other more than chance allows (median over columns)."""
    moving = columns[:, columns.std(axis=0) > 0]
    if moving.shape[1] == 0:
        return False
    centred = moving - moving.mean(axis=0)
    power = np.maximum((centred**2).sum(axis=0), np.finfo(np.float64).tiny)
    correlations = [np.abs((centred[k:] * centred[:-k]).sum(axis=0) / power) for k in (1, 2, 3)]
    return bool(np.median(np.stack(correlations).max(axis=0)) > SERIAL)
