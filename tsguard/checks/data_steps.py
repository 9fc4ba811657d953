"""What stands along time inside windows: nothing that moves, or a channel that knows what comes after the window.

All of it is read off the arrays. A closed-form fit says which steps of one channel another one was made from, and
whether the last step needed more than the window holds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from tsguard import catalogue
from tsguard.checks.arrays import Named, classes_of, inputs, measured_inputs, targets
from tsguard.checks.registry import Context, check
from tsguard.evidence import Evidence
from tsguard.findings import Finding
from tsguard.probes.data import thinned

Floats = npt.NDArray[np.float64]

LEAST_STEPS = 4
"""Windows of fewer steps have no course that could be missing."""

STILL = 0.9
"""Share of windows in which nothing moves, from which that is how they were made and not how the world was."""

VARIED = 20
"""Different windows that there must be: a handful of levels may well stand still."""


@check("windows in which nothing moves", codes=("data-constant",), needs=("data", "arrays"), cost=1)
def still_windows(context: Context) -> Iterable[Finding]:
    """Windows that hold one value from their first step to their last, while they differ from each other.

    What is known once for a row is often repeated along time: only where nothing beside it moves is it a fault.
    """
    windows = [one for one in measured_inputs(context) if one.array.ndim == 3 and one.array.shape[1] >= LEAST_STEPS]
    if not windows or any(one.array.dtype.kind != "f" for one in windows):
        return
    still = None
    for one in windows:
        rows = thinned(one.array)
        same = (rows == rows[:, :1]).all(axis=(1, 2))
        still = same if still is None else still & same
    assert still is not None
    share, first = float(still.mean()), thinned(windows[0].array)[still][:, 0]
    if share < STILL or len(np.unique(first, axis=0)) < VARIED:
        return
    steps = windows[0].array.shape[1]
    yield catalogue.finding(
        "data-constant",
        f"input {windows[0].name!r}: in {share:.0%} of the windows all {steps} steps hold the same values, and windows "
        "differ from each other: time says nothing in them. Expected readings that change along time; a fill that ran "
        "over the readings, or a row repeated in place of its past, looks like this.",
        where=windows[0].where(),
        status="FAIL" if share == 1.0 else "WARN",
        evidence=[Evidence("value", share, name="share of windows that stand still")],
        remedy="Look at one window before and after each step of the preparation; fill only what is missing.",
        score=0.9,
    )


REACH = 3
"""Steps on either side that a centred window is looked for in: smoothing over seven steps and less."""

MADE_OF = 1.0 - 1e-6
"""Share of a channel that a fit on its neighbours explains where it was computed from them: rounding is far smaller."""

NOT_WITHOUT = 1.0 - 1e-3
"""… and the share up to which the fit needs the steps ahead, or fails at the end of the window."""

MOST_CHANNELS = 12
"""Channels that are held against each other."""

LEAST_ROWS = 60
"""Rows from which a fit of a dozen numbers is far from being determined."""


@check("channels that know the next step", codes=("data-leak",), needs=("data", "arrays"), cost=2)
def channels_from_the_future(context: Context) -> Iterable[Finding]:
    """A channel that is computed from another's steps on both sides, also at the last step of the window.

    Inside the window it is a fit of the other channel that needs the steps ahead. At the end the steps ahead are not in
    the window any more; where the channel goes on as if they were, it holds what comes next.
    """
    if all(classes_of(one) is not None for one in targets(context)):
        return  # nothing ahead is asked for: to know a step more of a recording tells no label
    for one in measured_inputs(context):
        array = one.array
        if array.ndim != 3 or not 2 <= array.shape[2] <= MOST_CHANNELS or array.shape[1] < 3 * REACH + 2:
            continue
        rows = thinned(array, 600).astype(np.float64)
        if len(rows) < LEAST_ROWS or not np.isfinite(rows).all():
            continue
        found = _ahead_of(one, rows)
        if found is not None:
            yield found


def _ahead_of(one: Named, rows: Floats) -> Finding | None:
    steps, channels = rows.shape[1], rows.shape[2]
    middle = steps // 2
    for made in range(channels):
        for source in range(channels):
            if made == source:
                continue
            other = rows[:, :, source]
            around = other[:, middle - REACH : middle + REACH + 1]
            if _explained(around, rows[:, middle, made]) < MADE_OF:
                continue
            if _explained(other[:, : middle + 1], rows[:, middle, made]) > NOT_WITHOUT:
                continue  # what stands behind is enough: a mean of the past, a difference, a copy in other units
            last = _explained(other[:, -2 * REACH - 1 :], rows[:, -1, made])
            if last > NOT_WITHOUT:
                continue  # at its end the window was cut short, as it should be
            if _explained(rows[:, middle - REACH : middle + 1, made], other[:, middle]) >= MADE_OF:
                continue  # the other way round it is a lag, made of the past alone
            yours = one.feature(made), one.feature(source)
            return catalogue.finding(
                "data-leak",
                f"input {one.name!r}: feature {yours[0]!r} is computed from feature {yours[1]!r} over steps on both "
                "sides, and at the last step of the window it goes on so: what stands in the window explains "
                f"{last:.0%} "
                "of it there, in the middle all of it. The rest comes from after the window, which is what is to be "
                "forecast. Expected features made from the past alone.",
                where=one.where(feature=yours[0], timestep=steps - 1),
                remedy="Smooth with a window that ends at its step: `rolling(k)` without `center=True`.",
                evidence=[Evidence("value", last, name="share of the last step that the window explains")],
                score=0.9,
            )
    return None


def _explained(columns: Floats, y: Floats) -> float:
    """R² of a straight line through all rows; 1 where y does not vary."""
    centred, wanted = columns - columns.mean(axis=0), y - y.mean()
    power = float(wanted @ wanted)
    if power <= 0:
        return 1.0
    solution: Any = np.linalg.lstsq(centred, wanted, rcond=1e-9)[0]
    rest = wanted - centred @ solution
    return 1.0 - float(rest @ rest) / power


STRAIGHT = 1e-4
"""Bend at a step, over the spread of the channel, up to which the step lies on the line between its neighbours:
float32 of values of unit size bends by a thousandth of that."""


@check("steps drawn towards the next reading", codes=("data-leak",), needs=("data", "arrays", "y"), cost=2)
def interpolated_ahead(context: Context) -> Iterable[Finding]:
    """Windows that were filled in by straight lines between readings, and end on the line to the one that is asked for.

    Inside the window some steps lie on the line through their neighbours, in every row, and others do not: those are
    the readings. Where the target lies on the line through the last two steps, in every row, it is the next reading.
    """
    asked = [one for one in targets(context) if one.array.dtype.kind == "f" and classes_of(one) is None]
    for one in measured_inputs(context):
        if one.array.ndim != 3 or one.array.dtype.kind != "f" or one.array.shape[1] < 2 * LEAST_STEPS:
            continue
        rows = thinned(one.array, 600).astype(np.float64)
        if len(rows) < LEAST_ROWS or not np.isfinite(rows).all():
            continue
        bends = np.abs(np.diff(rows, n=2, axis=1))
        on_a_line = (bends <= STRAIGHT * np.maximum(rows.std(axis=(0, 1)), 1e-30)).all(axis=0)
        for channel in np.flatnonzero(on_a_line.any(axis=0) & ~on_a_line.all(axis=0)):
            for target in asked:
                y = thinned(target.array.reshape(len(target.array), -1)[:, 0], 600).astype(np.float64)
                if len(y) == len(rows) and np.isfinite(y).all() and y.std() > 0:
                    ends = rows[:, -2:, channel]
                    if _explained(ends, y) >= MADE_OF and _runs_on(ends, y):
                        yield _drawn_ahead(one, int(channel), target, on_a_line[:, channel])
                        return


def _runs_on(ends: Floats, y: Floats) -> bool:
    """Whether the target, in whatever unit, rises with the last step as it falls with the one before it."""
    centred = ends - ends.mean(axis=0)
    before, last = np.linalg.lstsq(centred, y - y.mean(), rcond=1e-9)[0]
    return bool(before * last < 0 and abs(last) > abs(before) * (1 + STRAIGHT))


def _drawn_ahead(one: Named, channel: int, target: Named, on_a_line: npt.NDArray[np.bool_]) -> Finding:
    name = one.feature(channel)
    steps = (np.flatnonzero(on_a_line) + 1).tolist()
    return catalogue.finding(
        "data-leak",
        f"input {one.name!r}, feature {name!r}: in every row, steps {', '.join(map(str, steps[:6]))} … lie on the line "
        f"through their neighbours, as interpolation makes them, and target {target.name!r} lies on the line through "
        "the last two steps: the line was drawn towards it. Expected steps filled in from the past alone.",
        where=one.where(feature=name, timestep=one.array.shape[1] - 1),
        status="FAIL",
        role="cause",
        remedy="Hold the last reading (ffill) where steps are filled in, or cut windows before interpolating.",
        score=0.95,
    )


ALIKE, UNLIKE = 0.7, 0.2
"""Correlation of neighbours along the axis that looks like time, and at most along the one that is read as time."""

LONG_AXIS = 8
"""Places along an axis from which a course can be seen."""


@check("course along the other axis", codes=("input-encoding",), needs=("model", "data", "arrays"), cost=2)
def course_along_features(context: Context) -> Iterable[Finding]:
    """Windows whose neighbours are alike along the features and not along time, in a model that reads along time."""
    if not _reads_along_time(context.model):
        return
    for one in measured_inputs(context):
        shape = one.array.shape
        if len(shape) != 3 or one.array.dtype.kind != "f" or shape[2] < LONG_AXIS or not 2 <= shape[1] < shape[2]:
            continue
        rows = thinned(one.array, 500).astype(np.float64)
        if not np.isfinite(rows).all():
            continue
        along_time, along_features = _alike(rows.transpose(0, 2, 1)), _alike(rows)
        if along_features > ALIKE and abs(along_time) < UNLIKE:
            yield catalogue.finding(
                "input-encoding",
                f"input {one.name!r} of shape {shape}: along axis 2, which is read as features, neighbours are alike "
                f"(correlation {along_features:.2f}); along axis 1, which is read as time, they are not "
                f"({along_time:.2f}). It looks like {shape[2]} steps of {shape[1]} features with the two axes swapped.",
                where=one.where(),
                status="WARN",
                remedy="Transpose it: x.transpose(0, 2, 1).",
                score=0.8,
            )


def _reads_along_time(model: Any) -> bool:
    import keras

    kinds = (
        *(keras.layers.RNN, keras.layers.Conv1D, keras.layers.SeparableConv1D, keras.layers.DepthwiseConv1D),
        *(keras.layers.MultiHeadAttention, keras.layers.Attention, keras.layers.GlobalAveragePooling1D),
    )
    return any(isinstance(layer, kinds) for layer in model._flatten_layers(include_self=False, recursive=True))


def _alike(rows: Floats) -> float:
    """Correlation of neighbours along the last axis, every place freed of its own level over the samples."""
    centred = rows - rows.mean(axis=0)
    power = float((centred**2).sum())
    pairs = rows.shape[2] - 1
    return float((centred[..., 1:] * centred[..., :-1]).sum()) / power * rows.shape[2] / pairs if power > 0 else 0.0


LEAST_REPEATED = 2
"""Steps that an input must run along to be said to repeat others: a last value alone is often handed on its own."""

COMPARED_ROWS = 32
"""Rows on which a place in another input is looked for; where all of them agree, all rows are asked."""


@check("steps ahead that are steps behind", codes=("data-mispaired",), needs=("data", "arrays", "y"), cost=1)
def ahead_repeats_behind(context: Context) -> Iterable[Finding]:
    """An input as long as what is forecast, that holds nothing but steps of another, longer input.

    What is known of the days ahead (plans, calendars, promotions) is not what the past already holds: the window was
    cut at the wrong place. An input of another length may well be a closer look at the same past.
    """
    ahead = {one.array.shape[1] for one in targets(context) if one.array.ndim >= 2}
    windows = [one for one in inputs(context) if not one.mask and one.array.ndim in (2, 3)]
    for one in windows:
        steps = one.array.shape[1]
        if steps not in ahead or steps < LEAST_REPEATED or one.array.dtype.kind not in "fiu":
            continue
        for other in windows:
            if other is one or other.array.shape[1] <= steps or len(other.array) != len(one.array):
                continue
            start = _place_in(one.array, other.array)
            if start is None:
                continue
            yield catalogue.finding(
                "data-mispaired",
                f"input {one.name!r} holds {steps} steps, as many as are forecast, and in every row they are steps "
                f"{start} … {start + steps - 1} of input {other.name!r}, cell by cell: what it says of the steps ahead "
                "is of steps behind, and the model knows them already. Expected the steps that are forecast.",
                where=one.where(),
                status="WARN",
                role="cause",
                remedy="Cut what is known ahead from the end of the past on, and not before it.",
                score=0.9,
            )
            break


def _place_in(array: Any, other: Any) -> int | None:
    """The step of `other` from which on it holds all channels of `array` in every row; None where there is none."""
    short, long = (part.reshape(*part.shape[:2], -1) for part in (array, other))
    steps = short.shape[1]
    if (short == short[:1]).all() or (short == short[:, :1]).all():
        return None  # nothing moves: it could stand anywhere
    for start in range(long.shape[1] - steps + 1):
        window = long[:, start : start + steps]
        if all(_held(short[..., channel], window) for channel in range(short.shape[2])):
            return start
    return None


def _held(course: Any, window: Any) -> bool:
    """Whether a channel of the window is this course, in every row."""
    return any(
        np.array_equal(course[:COMPARED_ROWS], window[:COMPARED_ROWS, :, channel])
        and np.array_equal(course, window[..., channel])
        for channel in range(window.shape[2])
    )
