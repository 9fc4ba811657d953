"""Checks between the parts: does validation know what training knows, is there as much data as was declared?

Samples are compared by a hash of their bytes, and steps by a hash of two neighbours; both only where they hold enough
distinct numbers that meeting by chance is out of the question.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from tsguard import catalogue
from tsguard.checks.arrays import Named, classes_of, inputs, measured_inputs, named_leaves, targets
from tsguard.checks.outturn import within
from tsguard.checks.registry import Context, check
from tsguard.dataset import leaves
from tsguard.evidence import Evidence
from tsguard.findings import Finding
from tsguard.probes.data import correlations, digests, thinned

SHARED_SAMPLES = 0.01
"""Share of validation samples that also train from which the score is wrong in its second digit."""

REPEATING = 2.0
"""Validation must share this many times as much with training as training with itself: less is how the data is."""

OWN_VALUES = 0.9
"""Share of the different rows that have a value of their own in a column, from which it is a measurement: kinds, counts
and whole years come again."""

LEAST_STEPS = 4
"""Windows shorter than this have no steps to tell apart from each other."""

SHARED_STEPS = 0.5
"""Share of validation steps that also stand in training windows. Parts that follow each other in time may share a
border of one window's length; more than half is a split that dealt out overlapping windows."""

BY_CHANCE = 1e-3
"""Training rows expected to equal a validation row by chance, above which equality says nothing: counts that are nearly
always zero make equal windows of different parts."""

MOST_POOLED = 200_000
"""Numbers of the training part from which it is known how common each is."""

MOST_HASHED = 50_000
"""Samples of a part that are hashed: the share is known to half a per cent then."""


@check("parts that share samples", codes=("data-leak",), needs=("data", "arrays", "validation"), cost=1)
def parts_share_samples(context: Context) -> Iterable[Finding]:
    """Validation samples, or the steps of validation windows, that training has seen."""
    held = _validation_inputs(context)
    ours = [one for one in inputs(context) if not one.mask]
    pairs = [(one, held[one.name]) for one in ours if one.name in held]
    if not pairs or any(one.array.shape[1:] != other.shape[1:] for one, other in pairs):
        return
    train = _sample_hashes([one.array for one, _ in pairs])
    check_hashes = _sample_hashes([other for _, other in pairs])
    told_apart = [value for value in train if value is not None]
    known = set(told_apart)
    comparable = [value for value in check_hashes if value is not None]
    shared = [row for row, value in enumerate(check_hashes) if value is not None and value in known]
    repeats = 1 - len(known) / len(told_apart) if told_apart else 1.0
    if len(shared) <= REPEATING * repeats * len(comparable) and not _measured_rows(ours):
        shared = []  # it repeats itself as often: a periodic series without noise, a handful of patterns
    if comparable and len(shared) >= SHARED_SAMPLES * len(comparable):
        shared = _beyond_chance(shared, pairs)
    if comparable and len(shared) >= SHARED_SAMPLES * len(comparable):
        share = len(shared) / len(comparable)
        message = (
            f"{len(shared):,} of {len(comparable):,} validation samples ({share:.1%}) are training samples too, byte "
            f"for byte; the first is validation row {shared[0]}. Expected none: the score is memory, not skill."
        )
        evidence = [Evidence("value", {"rows": shared[:20], "share": share}, name="shared samples")]
        where = {"phase": "data", "split": "validation", "row": shared[0]}
        yield catalogue.finding("data-leak", message, where=where, evidence=evidence, score=0.9)
        return
    yield from _shared_steps(pairs)


def _measured_rows(told: list[Named]) -> bool:
    """Whether rows are measurements that do not come twice: no windows of a series, and two columns of which nearly
    every different row has a value of its own. Then equal rows are copies, however many of them training holds."""
    if any(one.array.ndim != 2 or one.array.dtype.kind != "f" or _overlapping(one.array) for one in told):
        return False
    rows = np.unique(np.concatenate([thinned(one.array, MOST_HASHED) for one in told], axis=1), axis=0)
    return sum(len(np.unique(column)) > OWN_VALUES * len(rows) for column in rows.T) >= 2


def _beyond_chance(rows: list[int], pairs: list[tuple[Named, Any]]) -> list[int]:
    """Of these validation rows those that no draw of the values, each as common as in training, would repeat."""
    chance = np.full(len(rows), np.log(len(pairs[0][0].array)))
    for one, other in pairs:
        chance += _log_chance(_comparable(other[rows]).reshape(len(rows), -1), _comparable(one.array))
    return [row for row, expected in zip(rows, chance, strict=True) if expected < np.log(BY_CHANCE)]


def _log_chance(rows: Any, pool: Any) -> npt.NDArray[np.float64]:
    """The logarithm of how likely each row is when every number in it is drawn from the pool alone."""
    values, counts = np.unique(thinned(pool.reshape(-1), MOST_POOLED), return_counts=True)
    place = np.searchsorted(values, rows).clip(0, len(values) - 1)
    times = np.where(values[place] == rows, counts[place], 1)
    logs: npt.NDArray[np.float64] = np.log(times / counts.sum()).sum(axis=1)
    return logs


def _validation_inputs(context: Context) -> dict[str, Any]:
    data = context.data
    if data is None or not isinstance(data.validation, tuple | list) or not data.validation:
        return {}
    x = data.validation[0]
    if not all(hasattr(leaf, "shape") for leaf in leaves(x)):
        return {}
    return dict(named_leaves(x, "x"))


def _sample_hashes(arrays: list[Any]) -> list[bytes | None]:
    """One hash for each sample over all of its inputs; None where all of them are too plain to be told apart."""
    columns = [digests(thinned(_comparable(array), MOST_HASHED)) for array in arrays]
    joined: list[bytes | None] = []
    for parts in zip(*columns, strict=True):
        known = [part for part in parts if part is not None]
        joined.append(b"".join(part or b"-" for part in parts) if known else None)
    return joined


def _comparable(array: Any) -> Any:
    """Floats as float32: a copy that went through another dtype is still a copy."""
    return array.astype(np.float32) if array.dtype.kind == "f" else array.astype(np.int64)


def _shared_steps(pairs: list[tuple[Named, Any]]) -> Iterator[Finding]:
    """Steps are compared over all inputs that run along time together: the hour of the day alone comes every day."""
    running = [(one, other) for one, other in pairs if one.array.ndim == 3 and one.array.dtype.kind == "f"]
    running = [(one, other) for one, other in running if one.array.shape[1] == running[0][0].array.shape[1]]
    if not running or running[0][0].array.shape[1] < LEAST_STEPS:
        return
    rows = MOST_HASHED // running[0][0].array.shape[1] + 1
    train, held = (
        np.concatenate([_comparable(part[:most]) for part in parts], axis=2)
        for parts, most in (([one.array for one, _ in running], 4 * rows), ([other for _, other in running], rows))
    )
    wanted = _step_hashes(held)
    begins = [value for window in train for value in _step_hashes(window[None, :LEAST_STEPS])][: len(train)]
    if len(wanted) < LEAST_STEPS or not begins or len(set(begins)) < (1 - SHARED_STEPS) * len(begins):
        return  # windows begin alike at different times: the series repeats itself
    share = len(wanted & _step_hashes(train)) / len(wanted)
    if share >= SHARED_STEPS and not _steps_are_common(held, train):
        message = (
            f"{share:.1%} of the steps of validation windows also stand in training windows: overlapping windows were "
            "dealt out to both parts. Expected parts that share at most one window's length at their border."
        )
        where = running[0][0].where(split="validation")
        yield catalogue.finding("data-leak", message, where=where, score=0.85)


def _step_hashes(array: npt.NDArray[Any]) -> set[bytes]:
    """Hashes of pairs of neighbouring steps (of four, for a single feature), where they are not plain."""
    return {hashlib.blake2b(row.tobytes(), digest_size=12).digest() for row in _telling_steps(array)}


def _telling_steps(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    size = 4 if array.shape[2] == 1 else 2
    if array.shape[1] < size:
        return np.empty((0, size), array.dtype)
    view = np.lib.stride_tricks.sliding_window_view(array, size, axis=1)
    flat = np.ascontiguousarray(view).reshape(-1, array.shape[2] * size)
    ordered = np.sort(flat, axis=1)
    telling: npt.NDArray[Any] = flat[1 + (np.diff(ordered, axis=1) != 0).sum(axis=1) >= min(4, flat.shape[1])]
    return telling


def _steps_are_common(held: npt.NDArray[Any], train: npt.NDArray[Any]) -> bool:
    """Whether as many training steps would hold most of these steps by chance."""
    expected = np.log(train.shape[0] * train.shape[1]) + _log_chance(_telling_steps(held), train)
    return float(np.mean(expected >= np.log(BY_CHANCE))) >= SHARED_STEPS


DETERMINED = 1.0 - 1e-6
"""Squared correlation of one column with the target from which the column is the target in other units: measurement
noise of one part in a thousand would already show."""

LEAST_SAMPLES = 30
"""Fewer samples can agree with a column by chance or by construction of a toy."""


@check("target among the inputs", codes=("data-leak",), needs=("data", "arrays", "y"), cost=1)
def target_among_inputs(context: Context) -> Iterable[Finding]:
    """One single input cell that is the target (up to unit and offset) in every sample, beside others that are not."""
    columns: list[tuple[Named, tuple[int, ...], Any]] = []
    for one in measured_inputs(context):
        columns.extend(_cells(one))
    if len(columns) < 2:
        return  # a function of one number is a task, not a leak
    for target in targets(context):
        array = target.array
        labels = classes_of(target)
        if labels is not None:
            yield from _label_among(columns, target, labels)
            continue
        if array.dtype.kind != "f" or len(array) < LEAST_SAMPLES or array[0].size > 64 or _follows(context, array):
            continue
        flat = array.reshape(len(array), -1)
        for k in range(flat.shape[1]):
            y = flat[:, k].astype(np.float64)
            if len(np.unique(y)) < LEAST_SAMPLES // 2 or not np.isfinite(y).all():
                continue
            same = [(one, index, column) for one, index, column in columns if _same_up_to_units(column, y)]
            for one, index, column in same:
                if not _is_readout(one, index, column, y) and _beyond_the_trend(one, column, y):
                    yield _among(one, index, target, k)
                    return


OWN_SHARE = 1e-3
"""What a cell that holds the target leaves unexplained, over what the cells beside it leave: where all of them follow
one trend, the best of them is not that much better than the rest."""

WRITTEN = 3.0
"""Gap between two classes in one column, over the width of the classes there, from which the column is the label
written in numbers: classes that nature separates have tails."""

LEAST_LABELS = 100
"""Rows from which a column that agrees with every label does not do so by chance."""


def _label_among(columns: list[tuple[Named, tuple[int, ...], Any]], target: Named, labels: Any) -> Iterator[Finding]:
    """A single column in which every class has values of its own, far from those of the others."""
    kinds, counts = np.unique(labels, return_counts=True)
    if len(labels) != len(target.array) or len(labels) < LEAST_LABELS or not 2 <= len(kinds) <= 20 or counts.min() < 2:
        return
    for one, index, column in columns:
        # To remember what came first is a task; what stands at the last step of a window is read off.
        within = one.array.ndim == 3 and index[0] < one.array.shape[1] - 1
        if one.array.ndim > 3 or within or len(column) != len(labels):
            continue
        values = column.astype(np.float64)
        if not np.isfinite(values).all():
            continue
        ends = sorted((float(values[labels == kind].min()), float(values[labels == kind].max())) for kind in kinds)
        width = max(high - low for low, high in ends)
        gaps = [after[0] - before[1] for before, after in itertools.pairwise(ends)]
        if min(gaps) > WRITTEN * width or _filled_in_for_one(one, values, labels, counts):
            yield _among(one, index, target, 0)
            return


LEAST_OF_A_CLASS = 20
"""Rows of a class that all hold one and the same value, which no other row holds, from which that is no accident."""


def _filled_in_for_one(one: Named, values: Any, labels: Any, counts: Any) -> bool:
    """Of two classes one has the same value in every row of a column, and the other measured values around another.

    What is only there for one answer was written down after it: a number of reminders, the cost of a repair.
    """
    if one.array.ndim != 2 or len(counts) != 2 or counts.min() < LEAST_OF_A_CLASS:
        return False
    parts = [values[labels == kind] for kind in np.unique(labels)]
    still = [part for part in parts if np.ptp(part) == 0]
    moving = [part for part in parts if len(np.unique(part)) > OWN_VALUES * len(part)]
    if len(still) != 1 or len(moving) != 1:
        return False
    low, high = float(moving[0].min()), float(moving[0].max())
    return not low <= float(still[0][0]) <= high


MANY_KINDS = 3
"""Different ids at the same place in the rows of the other classes, from which the one id of a class is a mark."""


@check("a mark of a class at the end of its rows", codes=("data-leak",), needs=("data", "arrays", "y"), cost=1)
def mark_of_a_class(context: Context) -> Iterable[Finding]:
    """One id that ends every row of one class, and no row of another: an entry that the answer itself has written."""
    for target in targets(context):
        labels = classes_of(target)
        if labels is None or len(labels) != len(target.array) or len(labels) < LEAST_LABELS:
            continue
        for one in inputs(context):
            if one.mask or one.array.dtype.kind not in "iu" or one.array.ndim != 2 or len(one.array) != len(labels):
                continue
            if one.array.shape[1] < LEAST_STEPS:
                continue
            ends = _last_ids(one.array)
            if _ends_tell_most_classes(ends, labels):
                continue  # what comes next hangs on what came last: that is the task
            for kind in np.unique(labels):
                mine, others = ends[labels == kind], ends[labels != kind]
                alike = len(mine) >= LEAST_OF_A_CLASS and len(others) >= LEAST_OF_A_CLASS and (mine == mine[0]).all()
                if alike and not (others == mine[0]).any() and len(np.unique(others)) >= MANY_KINDS:
                    yield catalogue.finding(
                        "data-leak",
                        f"input {one.name!r}: every one of the {len(mine):,} rows of class {kind} ends with id "
                        f"{mine[0]}, and no row of another class does: the answer can be read off an entry that was "
                        "written after it. Expected rows that end before the answer is known.",
                        where=one.where(),
                        status="WARN",
                        evidence=(Evidence("value", {"class": int(kind), "id": int(mine[0])}, name="mark"),),
                        remedy="End the rows before that entry. If reading it off is the task, this is no fault.",
                        score=0.85,
                    )
                    return


TOLD = 0.5
"""Share of a class that ends with one and the same id, from which the class can mostly be read off the end."""


def _ends_tell_most_classes(ends: Any, labels: Any) -> bool:
    """Whether of more than two classes the common one is known by its last id: no mark of one, but a relation."""
    kinds = np.unique(labels)
    shares = [
        float(np.unique(ends[labels == kind], return_counts=True)[1].max() / (labels == kind).sum()) for kind in kinds
    ]
    return len(kinds) > 2 and float(np.median(shares)) >= TOLD


def _last_ids(ids: Any) -> Any:
    """The last id of each row; where rows are filled up with zeros at their end, the last one before these."""
    filled = (ids != 0).cumsum(axis=1).argmax(axis=1)
    return ids[np.arange(len(ids)), filled]


def _cells(one: Named) -> list[tuple[Named, tuple[int, ...], Any]]:
    if one.array[0].size > 4096:
        return []
    flat = one.array.reshape(len(one.array), -1)
    return [
        (one, tuple(int(axis) for axis in np.unravel_index(i, one.array.shape[1:])), flat[:, i])
        for i in range(flat.shape[1])
    ]


def _follows(context: Context, target: Any) -> bool:
    """Targets shaped like an input: reconstruction and next-step tasks hold their inputs on purpose."""
    for one in inputs(context):
        if one.array[0].size == 1:
            continue
        if one.array.shape == target.shape or (target.ndim >= 2 and one.array.ndim >= 3 and len(target.shape) >= 3):
            return True
    return False


def _is_readout(one: Named, index: tuple[int, ...], column: Any, y: Any) -> bool:
    """Independent sequences or images of which one cell, unchanged, is the target: a task that was made so.

    In overlapping windows of one series the same thing is a window that ends too late, unless the series repeats
    itself exactly: then the target is also what stood there one period before.
    """
    if one.array.ndim < 3 or not np.allclose(column, y, rtol=1e-6):
        return False
    late = one.array.shape[1] - index[0]
    pairs = _one_step_on(one.array)
    if not _overlapping(one.array) and not pairs:
        # What stands at the last step of a window is what the next one is compared with, and no riddle to be read.
        return one.array.ndim > 3 or late > 1
    if late == one.array.shape[1]:  # what follows the window is the last step of the window one step on
        follows = [(one.array[row][0], one.array[on][-1]) for row, on in pairs]
        return not follows or all(np.allclose(here, there, rtol=1e-6, equal_nan=True) for here, there in follows)
    return np.allclose(one.array[:, late:], one.array[:, :-late], rtol=1e-6, equal_nan=True)


def _overlapping(array: Any) -> bool:
    """Whether a sample goes on where the one before it stood, some steps later."""
    first, second = array[: LEAST_SAMPLES - 1], array[1:LEAST_SAMPLES]
    return any(np.array_equal(first[:, k:], second[:, :-k], equal_nan=True) for k in range(1, array.shape[1]))


MOST_PAIRED = 2_048
"""Windows among which the one that begins a step later is looked for, in whatever order they stand."""


def _one_step_on(array: Any) -> list[tuple[int, int]]:
    """Pairs of windows of which the second begins a step after the first: cut from one series, in any order."""
    rows = [np.ascontiguousarray(row) for row in array[:MOST_PAIRED]]
    starts = {row[:-1].tobytes(): place for place, row in enumerate(rows) if len(np.unique(row)) > 3}
    found = ((place, starts.get(row[1:].tobytes())) for place, row in enumerate(rows))
    return [(place, on) for place, on in found if on is not None and on != place]


def _beyond_the_trend(one: Named, column: Any, y: Any) -> bool:
    """Whether this cell knows the target far better than the cells beside it do."""
    left = [1.0 - _squared_correlation(c.astype(np.float64), y) for _, _, c in _cells(one) if np.isfinite(c).all()]
    own = 1.0 - _squared_correlation(column.astype(np.float64), y)
    return len(left) < 3 or own <= OWN_SHARE * float(np.median(left))


def _same_up_to_units(column: Any, y: Any) -> bool:
    head = slice(0, 8)
    x = column.astype(np.float64)
    if not np.isfinite(x[head]).all() or x[head].std() == 0:
        return False
    if _squared_correlation(x[head], y[head]) < 0.999 or not np.isfinite(x).all() or x.std() == 0:
        return False
    return _squared_correlation(x, y) >= DETERMINED


def _squared_correlation(a: Any, b: Any) -> float:
    return float(correlations(a[:, None], b[:, None])[0, 0]) ** 2


def _among(one: Named, index: tuple[int, ...], target: Named, k: int) -> Finding:
    position = one.position((0, *index))
    position.pop("row")
    words = ", ".join(f"{key} {value!r}" for key, value in position.items() if key != "column")
    message = (
        f"target {target.name!r} (component {k}) can be read off input {one.name!r} ({words or 'its value'}), "
        "in every sample. Expected features known before the target is."
    )
    remedy = "Drop that column, or end the window before the target. If reading it off is the task, this is no fault."
    return catalogue.finding("data-leak", message, where=one.where(**position), status="WARN", remedy=remedy, score=0.8)


@check("another amount of data than declared", codes=("data-volume",), needs=("data", "declared"), cost=0)
def another_amount(context: Context) -> Iterable[Finding]:
    """The number of samples and of batches per epoch against the plan."""
    if context.data is None:
        return
    for key, found in (("samples", context.training_rows), ("batches_per_epoch", context.batches_per_epoch)):
        if found is None:
            continue
        wanted = context.declared.get(key)
        if wanted is None or within(key, wanted, found):
            continue
        message = f"{key}: received {found:,}. Declared {wanted}. This is probably another file, subset or batch size."
        where = {"phase": "data", "config_key": f"plan.{key}"}
        yield catalogue.finding("data-volume", message, where=where, score=0.95)
