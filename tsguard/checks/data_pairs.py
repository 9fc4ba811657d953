"""Do x and y belong together? Accused only with a proof: the same predictor fails on the pairs as they are and succeeds
on the pairs as they should be (shifted back, or as the validation part has them).

The predictor is closed-form: ridge regression on simple views of a sample, judged on samples that it has not seen.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tsguard import catalogue
from tsguard.checks.arrays import Named, answer_columns, inputs, named_leaves, targets
from tsguard.checks.data_reordered import in_another_order
from tsguard.checks.registry import Context, check
from tsguard.evidence import Curve, Evidence, Proof
from tsguard.findings import Finding
from tsguard.probes.data import ranks
from tsguard.probes.pairing import (
    LEAST_PAIRS,
    MOST_COMPONENTS,
    MOST_PAIRS,
    RELATED,
    UNRELATED,
    Floats,
    Line,
    neighbours_tell,
    serial,
    skill,
    view_of,
)

SHIFTS = tuple(k for k in range(-5, 6) if k)


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
        # A few giants among the targets hide what x tells of the others from squares, and not from ranks.
        if now > UNRELATED or line.skill(ranks(y)) > UNRELATED:
            continue
        finding = _shifted(view, line, y, now, target) or _against_validation(context, told, target, now)
        finding = finding or _sorted_apart(view, y, now, target) or in_another_order(context, now, target)
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
        if serial(view) or serial(y):
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
    if serial(view) or serial(y):
        return None
    tried = {k: line.skill(np.roll(y, k, axis=0)) for k in SHIFTS}
    tried_words = {k: f"moved by {k} rows" for k in tried}
    tried[len(y)], tried_words[len(y)] = line.skill(y[::-1]), "reversed"
    best = max(tried, key=lambda k: tried[k])
    if tried[best] < RELATED or neighbours_tell(view, np.roll(y, best, axis=0), abs(best)):
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
    if y.shape[1] != 1 or len(np.unique(column)) < LEAST_PAIRS // 2 or not ordered or serial(view):
        return None
    message = (
        f"target {target.name!r} is sorted from its first row to its last while the inputs are in no order and say "
        f"nothing about it (R² {now:.2f}). Expected y in the order of x: one was sorted without the other."
    )
    evidence = [Evidence("value", {"first": float(column[0]), "last": float(column[-1])}, name=target.name)]
    return catalogue.finding("data-mispaired", message, where=target.where(), evidence=evidence, score=0.9)
