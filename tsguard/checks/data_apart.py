"""Training rows against validation rows: the same columns must be told in the same units and mean the same thing.

A column that was sorted or shuffled on its own looks like any other; only its relation to the target is gone. Where the
validation part still has that relation, and has it plainly, the two parts cannot both be right.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from tsguard import catalogue
from tsguard.checks.arrays import (
    MOST_CLASSES,
    Named,
    answer_columns,
    classes_of,
    inputs,
    measured_inputs,
    named_leaves,
    targets,
)
from tsguard.checks.registry import Context, check
from tsguard.evidence import Evidence, Proof
from tsguard.findings import Finding
from tsguard.probes.data import by_feature, correlations, ranks, thinned
from tsguard.probes.pairing import skill, view_of

Floats = npt.NDArray[np.float64]

ROWS = 3_000
"""Rows of a part that are looked at."""

LEAST_ROWS = 100
"""Fewer rows leave a correlation uncertain by more than a tenth."""

RELATED = 0.25
"""Correlation of a column with the target, in validation, that can be missing in training at all."""

LOST = 2.5
"""Standard errors of no correlation that training may show: what is larger is a relation, if a weaker one."""

CERTAIN = 6.0
"""Standard errors between the two parts (Fisher's z) from which no draw explains the difference, also as the most
different of hundreds of columns."""

MOST_COLUMNS = 256
"""Columns that are asked one by one: beyond it the last digits of a picture are no columns."""

MOST_COMPONENTS = 16
"""Components of a target that a column is held against."""

SERIAL = 0.2
"""Autocorrelation of the target over rows from which rows are no independent draws, and the errors above too small."""


@check("column whose meaning is lost", codes=("data-mispaired",), needs=("data", "arrays", "y", "validation"), cost=2)
def column_out_of_row(context: Context) -> Iterable[Finding]:
    """A column that tells of the target in the validation part and says nothing in the training part."""
    for target, y, held_y in _target_pairs(context):
        if _serial(y) or _serial(held_y):
            continue
        found = []
        for one, held in input_pairs(context):
            columns, theirs = _columns(one.array), _columns(held)
            if columns is None or theirs is None or columns.shape[1] != theirs.shape[1] or len(columns) != len(y):
                continue
            here, there = _correlations(columns, y), _correlations(theirs, held_y)
            apart = np.abs(np.arctanh(np.clip(there, -0.999, 0.999)) - np.arctanh(np.clip(here, -0.999, 0.999)))
            error = np.sqrt(1.0 / (len(y) - 3) + 1.0 / (len(held_y) - 3))
            # A few giants hide a relation from squares, and not from ranks.
            missing = np.maximum(np.abs(here), np.abs(_correlations(ranks(columns), ranks(y)))) <= LOST / np.sqrt(
                len(y)
            )
            lost = (np.abs(there) >= RELATED) & missing & (apart >= CERTAIN * error)
            worst = int(np.argmax(np.where(lost, apart, 0.0)))
            if lost.any():
                found.append((float(apart[worst]), one, worst, float(here[worst]), float(there[worst])))
        if found:
            _, one, column, train, validation = max(found, key=lambda row: row[0])
            yield _out_of_row(one, column, target, train, validation)


def _out_of_row(one: Named, column: int, target: Named, here: float, there: float) -> Finding:
    shape = one.array.shape[1:] or (1,)
    place = tuple(int(axis) for axis in np.unravel_index(column, shape))
    where = one.position((0, *place)) if one.array.ndim > 1 else {}
    where.pop("row", None)
    return catalogue.finding(
        "data-mispaired",
        f"input {one.name!r}, cell {list(place)}: its correlation with target {target.name!r} is {there:.2f} in the "
        f"validation part and {here:.2f} in the training part, which no draw of rows explains. Expected the same "
        "relation "
        "in both: this column was sorted, shuffled or joined apart from the others in one of them.",
        where=one.where(**where, split="train"),
        evidence=[Evidence("value", {"train": here, "validation": there}, name="correlation with the target")],
        proof=Proof(
            "the same column in both parts",
            f"correlation {there:.2f} within validation, {here:.2f} within training",
            effect=1.0,
            certainty=1.0,
        ),
        remedy="Join the parts of a row by key, and sort or shuffle all of them by one index.",
        score=1.0,
    )


def _correlations(columns: Floats, y: Floats) -> Floats:
    """The correlation of every column with the target component that it tells most of."""
    each = correlations(columns, y)
    return np.asarray(each[np.arange(len(each)), np.abs(each).argmax(axis=1)])


def _columns(array: Any) -> Floats | None:
    flat = array[:ROWS].reshape(min(len(array), ROWS), -1)
    if flat.shape[1] > MOST_COLUMNS or len(flat) < LEAST_ROWS:
        return None
    made = flat.astype(np.float64)
    return made if np.isfinite(made).all() else None


def _target_pairs(context: Context) -> Iterator[tuple[Named, Floats, Floats]]:
    data = context.data
    held = dict(named_leaves(data.validation[1], "y")) if data is not None and _pairs_of(data.validation) else {}
    for target in targets(context):
        theirs = held.get(target.name)
        if theirs is None or theirs.shape[1:] != target.array.shape[1:]:
            continue
        ours, other = (answer_columns(part[:ROWS], target, most=MOST_COMPONENTS) for part in (target.array, theirs))
        if ours is None or other is None or min(len(ours), len(other)) < LEAST_ROWS or ours.shape[1] != other.shape[1]:
            continue
        yield target, ours, other


def input_pairs(context: Context, *, among: list[Named] | None = None) -> list[tuple[Named, Any]]:
    """Each input of the training part (of those `among` which it is asked) with that of the validation part."""
    data = context.data
    if data is None or not _pairs_of(data.validation):
        return []
    held = dict(named_leaves(data.validation[0], "x"))
    pairs = [(one, held[one.name]) for one in among or measured_inputs(context) if one.name in held]
    return [(one, other) for one, other in pairs if one.array.shape[1:] == other.shape[1:]]


def _pairs_of(validation: Any) -> bool:
    return isinstance(validation, tuple | list) and len(validation) >= 2


def _serial(columns: Floats) -> bool:
    a = columns - columns.mean(axis=0)
    power = np.maximum((a**2).sum(axis=0), np.finfo(np.float64).tiny)
    return bool((np.abs((a[1:] * a[:-1]).sum(axis=0)) / power).max() > SERIAL)


TOLD = 0.35
"""R² on rows held back, within a part, from which inputs plainly tell of targets there."""

FOREIGN = 0.1
"""Correlation up to which what one part teaches says nothing about the other."""

VIEWED, MOST_CELLS = 1_000, 4_096
"""Rows of each part, and numbers of a row, of which a wider view is made: it is fitted in a tenth of a second."""

RENUMBERED = 0.25
"""Share of validation rows that are right under other numbers of the classes and wrong under their own, beyond those
that are the other way round. The other numbers are read off one half of the rows and counted on the other half, where a
map by chance gains nothing."""


@check(
    "parts that teach different things",
    codes=("data-labels", "data-mispaired", "input-encoding"),
    needs=("data", "arrays", "y", "validation"),
    cost=2,
)
def different_lessons(context: Context) -> Iterable[Finding]:
    """Each part explains its own targets, and what is learned on one is wrong on the other: codes or columns differ."""
    for target, y, held_y in _lessons(context):
        if _serial(y) or _serial(held_y):
            continue
        for ours, theirs, ids in _views(context):
            if len(y) < len(ours) or len(held_y) < len(theirs):
                continue
            wanted, held = y[: len(ours)], held_y[: len(theirs)]
            here, there = skill(ours, wanted), skill(theirs, held)
            if min(here, there) < TOLD:
                continue
            guess = _guess(ours, wanted, theirs)
            across = _agreement(guess, held)
            classes = classes_of(target) is not None
            gained = _right_under_other_numbers(guess, held) if classes else 0.0
            if gained >= RENUMBERED or across <= FOREIGN:
                yield _different(target, (here, there, across), renumbered=gained >= RENUMBERED, ids=ids)
            break  # what one view tells plainly the next need not be asked


def _different(target: Named, told: tuple[float, float, float], *, renumbered: bool, ids: bool) -> Finding:
    here, there, across = told
    code = "data-labels" if renumbered else "input-encoding" if ids else "data-mispaired"
    what = "number their classes" if renumbered else "number their ids" if ids else "order their columns"
    return catalogue.finding(
        code,
        f"target {target.name!r}: a line explains {here:.0%} of it within training and {there:.0%} within validation, "
        f"and the line of the training part is wrong about the validation part (correlation {across:.2f}"
        f"{', and right once its classes are numbered otherwise' if renumbered else ''}). The two parts {what} "
        "differently, or belong to different tasks.",
        where=target.where(split="validation"),
        evidence=[Evidence("value", {"train": here, "validation": there, "across": across}, name="explained")],
        proof=Proof(
            "the same line on both parts",
            f"R² {here:.2f} and {there:.2f} each by itself, correlation {across:.2f} across",
            effect=1.0,
            certainty=1.0,
        ),
        status="FAIL",
        role="cause",
        remedy="Number labels and ids and order columns by one table, made once, that both parts are read with.",
        score=1.0,
    )


def _lessons(context: Context) -> Iterator[tuple[Named, Floats, Floats]]:
    """Targets of both parts as columns; classes as indicators of every class that either part has."""
    data = context.data
    held = dict(named_leaves(data.validation[1], "y")) if data is not None and _pairs_of(data.validation) else {}
    for target in targets(context):
        theirs = held.get(target.name)
        if theirs is None or theirs.shape[1:] != target.array.shape[1:]:
            continue
        numbers = [classes_of(Named(target.name, part[:ROWS], "target")) for part in (target.array, theirs)]
        lengths = [min(len(part), ROWS) for part in (target.array, theirs)]
        if min(lengths) < LEAST_ROWS:
            continue
        classes = [n for n, length in zip(numbers, lengths, strict=True) if n is not None and len(n) == length]
        if len(classes) == 2:
            kinds = np.unique(np.concatenate(classes))
            if 2 <= len(kinds) <= MOST_CLASSES:
                ours, other = ((n[:, None] == kinds[None]).astype(np.float64) for n in classes)
                yield target, ours, other
            continue
        columns = [answer_columns(part[:ROWS], target, most=MOST_COMPONENTS) for part in (target.array, theirs)]
        if columns[0] is not None and columns[1] is not None and columns[0].shape[1] == columns[1].shape[1]:
            yield target, columns[0], columns[1]


def _views(context: Context) -> Iterator[tuple[Floats, Floats, bool]]:
    """Inputs of both parts: every cell a column; then what a closed form sees of courses, pictures and ids."""
    pairs = [(a, b) for a, b in ((_columns(o.array), _columns(h)) for o, h in input_pairs(context)) if a is not None]
    if pairs and all(other is not None and other.shape[1] == ours.shape[1] for ours, other in pairs):
        ours, theirs = (np.concatenate(list(part), axis=1) for part in zip(*pairs, strict=True))
        if ours.shape[1] <= MOST_COLUMNS:
            yield ours, theirs, False
    told = input_pairs(context, among=[one for one in inputs(context) if not (one.mask or one.clock)])
    lengths = {(len(one.array), len(other)) for one, other in told}
    if len(lengths) != 1 or sum(one.array[0].size for one, _ in told) > MOST_CELLS:
        return
    count = min(len(told[0][0].array), VIEWED)
    both = view_of([np.concatenate([one.array[:VIEWED], other[:VIEWED]]) for one, other in told])
    yield both[:count], both[count:], any(one.ids for one, _ in told)


def _right_under_other_numbers(guess: Floats, held_y: Floats) -> float:
    """What share of the rows is right once each guessed class is read as the class that it mostly meets, beyond those
    that are right as they are; every class may be met once."""
    guessed, given = guess.argmax(axis=1), held_y.argmax(axis=1)
    kinds = guess.shape[1]
    met = np.bincount(guessed[::2] * kinds + given[::2], minlength=kinds * kinds)
    place, taken = np.full(kinds, -1), set()
    for pair in np.argsort(-met, kind="stable"):
        one, other = divmod(int(pair), kinds)
        if place[one] < 0 and other not in taken:
            place[one] = other
            taken.add(other)
    return float((place[guessed[1::2]] == given[1::2]).mean() - (guessed[1::2] == given[1::2]).mean())


def _guess(x: Floats, y: Floats, other: Floats) -> Floats:
    """What ridge regression on one part answers to the other."""
    mean, spread = x.mean(axis=0), np.where(x.std(axis=0) > 0, x.std(axis=0), 1.0)
    a = (x - mean) / spread
    weights = np.linalg.solve(a.T @ a + 1e-2 * len(a) * np.eye(a.shape[1]), a.T @ (y - y.mean(axis=0)))
    return np.asarray((other - mean) / spread @ weights)


def _agreement(guess: Floats, y: Floats) -> float:
    """One correlation over all target components together."""
    a, b = guess - guess.mean(axis=0), y - y.mean(axis=0)
    size = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum()) / size if size > 0 else 0.0


OTHER_UNITS = 10.0
"""Ratio of a feature's spread in the two parts, or distance of their medians in spreads, from which the world has not
changed but the unit: parts of one process stay within a factor of two or three."""

MOST_FEATURES = 0.5
"""Share of the features that must be so: one sensor may well have been replaced."""


@check("parts in different units", codes=("data-drift",), needs=("data", "arrays", "validation"), cost=1)
def parts_in_different_units(context: Context) -> Iterable[Finding]:
    """Inputs or targets of the validation part that were not scaled as those of the training part."""
    data = context.data
    if data is None or not isinstance(data.validation, tuple | list):
        return
    pairs = list(input_pairs(context)) if _pairs_of(data.validation) else []
    if _pairs_of(data.validation):
        held = dict(named_leaves(data.validation[1], "y"))
        pairs += [(one, held[one.name]) for one in targets(context) if one.name in held and classes_of(one) is None]
    for one, other in pairs:
        if (
            one.array.dtype.kind != "f"
            or other.shape[1:] != one.array.shape[1:]
            or min(len(one.array), len(other)) < 10
        ):
            continue
        ours, theirs = (_moments(part) for part in (one.array, other))
        moving = (ours[1] > 0) & (theirs[1] > 0)
        if not moving.any():
            continue
        ratio = np.where(moving, theirs[1] / np.where(moving, ours[1], 1.0), 1.0)
        away = np.where(moving, np.abs(theirs[0] - ours[0]) / np.where(moving, ours[1], 1.0), 0.0)
        strange = (ratio > OTHER_UNITS) | (ratio < 1.0 / OTHER_UNITS) | (away > OTHER_UNITS)
        if strange[moving].mean() <= MOST_FEATURES:
            continue
        worst = int(
            np.argmax(np.where(strange, np.maximum(np.abs(np.log(np.maximum(ratio, 1e-30))), np.log1p(away)), 0))
        )
        yield catalogue.finding(
            "data-drift",
            f"{one.role} {one.name!r}, feature {one.feature(worst)!r}: median {ours[0][worst]:.4g} and middle half "
            f"{ours[1][worst]:.4g} in training, {theirs[0][worst]:.4g} and {theirs[1][worst]:.4g} in validation, "
            "and so "
            f"in {strange[moving].mean():.0%} of the features: the two parts are in different units. Expected "
            "both scaled "
            "with the moments of the training part.",
            where=one.where(feature=one.feature(worst), split="validation"),
            role="cause",
            remedy="Fit the scaler on the training part, and apply that same scaler to both.",
            score=0.95,
        )


def _moments(array: Any) -> tuple[Floats, Floats]:
    """Median and middle half of every feature: tails of one part say nothing about its unit."""
    columns = by_feature(thinned(array)).astype(np.float64)
    columns = np.where(np.isfinite(columns), columns, np.nan)
    low, middle, high = np.nanquantile(columns, [0.25, 0.5, 0.75], axis=0)
    return middle, high - low
