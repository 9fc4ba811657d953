"""Checks of the data itself: what an array may hold before any model sees it. Questions of value, scale and order.

Every threshold below says where it comes from. A healthy data set is never accused: where a number is only unusual the
answer is WARN, and FAIL is kept for what no training can survive or what is certainly not what was meant.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from tsguard import catalogue
from tsguard.checks import (
    data_apart,
    data_classes,
    data_copies,
    data_crossed,
    data_fitted_apart,
    data_hung,
    data_ids,
    data_nearly,
    data_order,
    data_pairs,
    data_parts,
    data_reshaped,
    data_steps,
    data_weights,
)
from tsguard.checks.arrays import (
    Named,
    arrivals,
    classes_of,
    embedding_calls,
    inputs,
    measured_inputs,
    targets,
)
from tsguard.checks.dealt import answers_as_large, left_out_by_the_loss, survives
from tsguard.checks.registry import Context, check
from tsguard.evidence import Evidence
from tsguard.findings import Finding, Status
from tsguard.padding import Padding
from tsguard.probes.data import Scale, by_feature, is_binary, nonfinite, scales, sentinels, thinned
from tsguard.probes.levels import ROWS, has_a_level
from tsguard.probes.score import sample

LARGE = 30.0
"""Root mean square from which saturating units are off: with the usual initial weights a unit's input is about as large
as the rms, and of normal values with deviation 30 nine in ten lie beyond ±4, where tanh and sigmoid are flat."""

HUGE = 1_000.0
"""Root mean square from which a first step of any usual learning rate is wrong by orders of magnitude: gradients of a
first layer grow with it, and 1e-3 × 1000 is one."""

TINY = 1e-4
"""Root mean square below which a feature is drowned by biases and by Adam's epsilon before it is heard."""

UNEQUAL = 1e4
"""Ratio of two features' spreads from which the smaller adds less to a unit than float32 rounding adds over a batch."""

HUGE_TARGET = 10_000.0
"""Targets of this size are further from an untrained output (about one) than a run of usual length and rate walks:
10,000 steps of Adam at 1e-3 move a bias by ten."""

LEAST_STEPS = 6
"""Six steps that all rise by chance: one sample in 720, so that a whole set of them is no chance."""

ALSO = (
    data_parts,
    data_copies,
    data_pairs,
    data_apart,
    data_order,
    data_steps,
    data_weights,
    data_classes,
    data_crossed,
    data_hung,
    data_ids,
    data_fitted_apart,
    data_nearly,
    data_reshaped,
)
"""Modules whose checks are declared with these."""

NOTED_FEATURES = 5  # features of one kind that get a finding of their own; the rest are counted in one


@check("values that are not finite", codes=("data-nonfinite",), needs=("data", "arrays"), cost=0)
def values_not_finite(context: Context) -> Iterable[Finding]:
    """NaN or infinity in inputs or targets, but for padded places that a mask declares."""
    for one in [*inputs(context), *targets(context)]:
        found = nonfinite(one.array, valid=one.valid)
        if not found.count:
            continue
        place = found.first[0]
        shown = ", ".join(f"{value:g} at {list(index)}" for index, value in zip(found.first, found.values, strict=True))
        message = (
            f"{one.role} {one.name!r} holds {found.count:,} values that are not finite ({found.share:.2%} of its "
            f"cells); first: {shown}. Expected finite numbers only."
        )
        evidence = [Evidence("value", {"places": [list(p) for p in found.first], "count": found.count}, name=one.name)]
        where = one.where(**one.position(place))
        if survives(context, sorted({index[0] for index in found.first})):
            said = f"{message} Loss and gradients of these rows are finite all the same: the program deals with them."
            yield catalogue.finding("data-nonfinite", said, where=where, status="WARN", role="note", evidence=evidence)
            continue
        yield catalogue.finding("data-nonfinite", message, where=where, evidence=evidence, score=1.0)


@check("codes for missing", codes=("data-sentinel",), needs=("data", "arrays"), cost=1)
def codes_for_missing(context: Context) -> Iterable[Finding]:
    """A round number, far from the rest, that repeats exactly; the declared pad value is no such code."""
    pad = context.padding.pad_value if context.padding is not None else None
    for one in [*measured_inputs(context), *targets(context)]:
        if one.role == "target" and classes_of(one) is not None:
            continue
        for code in sentinels(one.array):
            if code.value == pad:
                continue
            if one.role == "target" and left_out_by_the_loss(context, code.value, code.rows):
                continue
            name = one.feature(code.feature)
            message = (
                f"{one.role} {one.name!r}, feature {name!r}: {code.value:g} stands in {code.count:,} places, and the "
                f"nearest other value is {code.nearest:g}. It looks like a code for a missing value."
            )
            evidence = [
                Evidence("value", {"value": code.value, "count": code.count, "rows": code.rows}, name=str(name))
            ]
            where = one.where(feature=name, row=code.rows[0])
            yield catalogue.finding("data-sentinel", message, where=where, evidence=evidence, score=0.9)


@check("values out of scale", codes=("data-scale",), needs=("data", "arrays"), cost=1)
def values_out_of_scale(context: Context) -> Iterable[Finding]:
    """Inputs or targets far from unit size, unless the model's first layers bring them there."""
    coded = {(one.name, code.feature) for one in measured_inputs(context) for code in sentinels(one.array)}
    clocks = [one for one in inputs(context) if one.clock and one.array.dtype.kind == "f"]
    met = arrivals(context)
    largest = max((arrival.rms for arrival in met), default=0.0) if met is not None else None
    for one in [*measured_inputs(context), *clocks]:
        for finding in _input_scale(one, coded):
            if largest is None and context.model is not None:
                yield replace(finding, status=Status.WARN)  # its layers are its own: what arrives there is not known
            elif largest is None or largest >= LARGE or finding.evidence[0].value["rms"] < LARGE:
                yield finding  # what is large is accused where it meets weights; what is small meets them as it is
    for one in targets(context):
        if classes_of(one) is None and one.array.dtype.kind != "b":
            yield from (f for f in _target_scale(one) if not answers_as_large(context, f.evidence[0].value["rms"]))


def _input_scale(one: Named, coded: set[tuple[str, int]]) -> Iterator[Finding]:
    moving = [m for m in scales(one.array) if not m.constant and (one.name, m.feature) not in coded]
    huge = [m for m in moving if m.rms >= HUGE]
    large = [m for m in moving if LARGE <= m.rms < HUGE and not _runs_like_time(one, m.feature)]
    tiny = [m for m in moving if m.rms < TINY]
    for status, chosen, word in (("FAIL", huge, "huge"), ("WARN", large, "large"), ("WARN", tiny, "tiny")):
        if not chosen:
            continue
        worst = max(chosen, key=lambda m: m.rms) if word != "tiny" else min(chosen, key=lambda m: m.rms)
        yield _scale_finding(one, worst, len(chosen), status, f"{word} for a network that starts at unit scale")
    spread = sorted((m for m in moving if m.std > 0), key=lambda m: m.std)
    if not (huge or large) and len(spread) > 1 and spread[-1].std > 1 and spread[-1].std >= UNEQUAL * spread[0].std:
        ratio = spread[-1].std / spread[0].std
        why = f"{ratio:.0e} times as wide as feature {one.feature(spread[0].feature)!r}, which is drowned"
        yield _scale_finding(one, spread[-1], 1, "WARN", why)


def _runs_like_time(one: Named, feature: int) -> bool:
    """A column that never falls within a sample counts something: models take its differences, not its level."""
    if one.array.ndim != 3 or one.array.shape[1] < LEAST_STEPS:
        return False
    series = thinned(one.array)[..., feature]
    return bool((np.diff(series, axis=1) >= 0).mean() > 0.99)


def _target_scale(one: Named) -> Iterator[Finding]:
    for measured in scales(one.array):
        if measured.constant or measured.rms < HUGE:
            continue
        status = "FAIL" if measured.rms >= HUGE_TARGET else "WARN"
        yield _scale_finding(one, measured, 1, status, "far from the output of an untrained network")
        return


def _scale_finding(one: Named, measured: Scale, count: int, status: str, why: str) -> Finding:
    name = one.feature(measured.feature)
    others = f" (and {count - 1} more features)" if count > 1 else ""
    message = (
        f"{one.role} {one.name!r}, feature {name!r}{others}: mean {measured.mean:.4g}, deviation {measured.std:.4g}, "
        f"range {measured.low:.4g} … {measured.high:.4g}. Expected about unit scale; this is {why}."
    )
    facts = {"mean": measured.mean, "std": measured.std, "rms": measured.rms}
    where = one.where(feature=name)
    evidence = [Evidence("value", facts, name=str(name))]
    score = min(1.0, 0.3 + np.log10(max(measured.rms, 1.0)) / 6)
    return catalogue.finding("data-scale", message, where=where, status=status, evidence=evidence, score=float(score))


@check("columns that say nothing", codes=("data-constant",), needs=("data", "arrays"), cost=1)
def columns_that_say_nothing(context: Context) -> Iterable[Finding]:
    """Samples that are all the same (FAIL), features that never change or repeat another (WARN)."""
    told = [one for one in inputs(context) if not one.mask]
    same = [one for one in told if len(one.array) > 1 and _rows_are_equal(one.array)]
    if told and len(same) == len(told):
        message = (
            f"every one of the {len(told[0].array):,} samples is the same: there is nothing to tell them apart by."
        )
        yield catalogue.finding("data-constant", message, where=told[0].where(), status="FAIL", score=1.0)
        return
    for one in measured_inputs(context):
        yield from _constant_features(one, context.padding)
        yield from _copied_features(one)
    yield from _copied_inputs(measured_inputs(context))
    for one in targets(context):
        column = one.array
        if column.dtype.kind in "fiu" and column.size > 1 and (column == column.flat[0]).all() and _is_asked(context):
            if not _has_a_level(context):
                continue
            message = f"target {one.name!r} is {column.flat[0]:g} in every sample: there is nothing to learn."
            yield catalogue.finding("data-constant", message, where=one.where(), score=0.8)


def _rows_are_equal(array: Any) -> bool:
    first = array[:1]
    return bool((array[: len(array) // 2 + 1] == first).all() and (array == first).all())


def _is_asked(context: Context) -> bool:
    """Whether a loss compares the target at all: models with `add_loss` alone take a dummy."""
    model = context.model
    return model is None or getattr(model, "loss", None) is not None


def _has_a_level(context: Context) -> bool:
    """Whether the model could answer one value to all rows without reading them; taken as so where it cannot be
    asked."""
    if context.model is None or context.data is None:
        return True
    try:
        rows = sample(context.data, ROWS)
        return rows is None or has_a_level(context.model, rows)
    except Exception:  # a model that fails on its own data says so elsewhere
        return True


def _constant_features(one: Named, padding: Padding | None) -> Iterator[Finding]:
    if one.array.ndim < 2 or one.array.shape[-1] < 2 or is_binary(one.array):
        return
    still = [m for m in scales(one.array) if m.constant]
    if padding is not None and padding.features is not None:
        still = [m for m in still if m.high != padding.pad_value]  # features that are padded by declaration
    if len(still) * 2 > one.array.shape[-1] and all(m.high == 0 for m in still):
        return  # mostly empty on purpose: padded features, the margin of an image
    pixels = one.array.ndim > 3 or one.array.shape[-1] > 64
    still = [m for m in still if not (pixels and m.high == 0)]  # the margin of flattened images is black
    if _indicators(one) > len(still):
        still = [m for m in still if m.high != 0]  # a kind among others that did not come up
    if any(m.high == 1 for m in still) and _tells_presence(one):
        still = [m for m in still if m.high != 1]  # what is marked as there beside what is not always there
    for measured in still[:NOTED_FEATURES]:
        name = one.feature(measured.feature)
        others = f" (and {len(still) - 1} more)" if len(still) > 1 else ""
        message = f"input {one.name!r}, feature {name!r}{others} is {measured.high:g} everywhere: it carries nothing."
        yield catalogue.finding("data-constant", message, where=one.where(feature=name), score=0.3)
        return


def _indicators(one: Named) -> int:
    """Columns that hold nothing but 0 and 1."""
    columns = by_feature(thinned(one.array))
    return int(((columns == 0) | (columns == 1)).all(axis=0).sum())


def _tells_presence(one: Named) -> bool:
    """Whether a column of 0 and 1 says where another one is missing: that one is 0 wherever the flag is, and moves
    elsewhere.
    """
    columns = by_feature(thinned(one.array))
    varies = (columns != columns[:1]).any(axis=0)
    flags = ((columns == 0) | (columns == 1)).all(axis=0)
    values = columns[:, varies & ~flags]
    return any(
        bool((values[flag == 0] == 0).all(axis=0).any()) for flag in columns[:, varies & flags].T if values.shape[1]
    )


def _copied_features(one: Named) -> Iterator[Finding]:
    if one.array.ndim < 2 or not 2 <= one.array.shape[-1] <= 64 or one.array.ndim > 3:
        return
    columns = by_feature(thinned(one.array))
    seen: dict[bytes, int] = {}
    copies: dict[int, list[int]] = {}
    for feature in range(columns.shape[1]):
        column = np.ascontiguousarray(columns[:, feature])
        if len(np.unique(column)) < 3:
            continue  # flags may well agree
        key = column.tobytes()
        if key in seen:
            copies.setdefault(seen[key], []).append(feature)
        seen.setdefault(key, feature)
    for original, others in copies.items():
        names = ", ".join(repr(one.feature(feature)) for feature in others)
        message = f"input {one.name!r}: features {names} are copies of feature {one.feature(original)!r}, cell by cell."
        remedy = "Check the column index that the features were cut by; a copied column adds nothing."
        where = one.where(feature=one.feature(others[0]))
        yield catalogue.finding("data-constant", message, where=where, remedy=remedy, score=0.7)


def _copied_inputs(listed: list[Named]) -> Iterator[Finding]:
    """Inputs of their own names that hold one and the same array: one of them was loaded in place of the other."""
    for place, one in enumerate(listed):
        for other in listed[place + 1 :]:
            if (
                one.array.shape != other.array.shape
                or one.array.dtype.kind != "f"
                or len(np.unique(one.array[:64])) < 3
            ):
                continue
            if not np.array_equal(one.array, other.array, equal_nan=True):
                continue
            message = (
                f"inputs {one.name!r} and {other.name!r} of shape {one.array.shape} hold the same numbers, cell by "
                "cell. Expected two recordings: one was loaded, or cut, in place of the other."
            )
            remedy = "Look at where the second one is read. What is meant twice needs one Input, used twice."
            yield catalogue.finding("data-constant", message, where=other.where(), remedy=remedy, score=0.7)
            return


@check("time that does not run forward", codes=("data-order",), needs=("data", "arrays"), cost=1)
def time_not_forward(context: Context) -> Iterable[Finding]:
    """Clocks that run backwards within a sample; rows sorted by class where nothing will shuffle them."""
    for one in inputs(context):
        steps = _clock(one)
        if one.clock and steps is not None:
            yield from _backward(one, steps, context.padding)
    if context.fit.get("shuffle") is False:
        yield from _sorted_by_class(context)


def _clock(one: Named) -> Any:
    """(samples, time) of a clock input, or None where it is none."""
    array = one.array[..., 0] if one.array.ndim == 3 and one.array.shape[-1] == 1 else one.array
    return array if array.ndim == 2 and array.shape[1] > 1 and array.dtype.kind in "fiu" else None


def _backward(one: Named, clock: Any, padding: Padding | None) -> Iterator[Finding]:
    valid = one.valid if one.valid is not None else _not_trailing(clock, 0.0 if padding is None else padding.pad_value)
    back = (clock[:, 1:] < clock[:, :-1]) & valid[:, 1:] & valid[:, :-1]
    if not back.any():
        return
    sample, step = (int(axis) for axis in np.argwhere(back)[0])
    before, after = clock[sample, step], clock[sample, step + 1]
    message = (
        f"input {one.name!r}: time runs backwards in {int(back.any(axis=1).sum()):,} of {len(clock):,} samples; first "
        f"in row {sample} at step {step + 1}, from {before:.10g} to {after:.10g}. Expected time that never falls."
    )
    yield catalogue.finding("data-order", message, where=one.where(row=sample, timestep=step + 1), score=0.9)


def _not_trailing(clock: Any, pad: float) -> Any:
    """Without a mask: the steps before and after which there is only padding do not count."""
    real = clock != pad
    after = np.logical_or.accumulate(real[:, ::-1], axis=1)[:, ::-1]
    before = np.logical_or.accumulate(real, axis=1)
    return after & before


def _sorted_by_class(context: Context) -> Iterator[Finding]:
    for one in targets(context):
        labels = classes_of(one)
        if labels is None or len(labels) != len(one.array):
            continue
        changes = int((np.diff(labels) != 0).sum())
        kinds = len(np.unique(labels))
        batch = context.batch_size
        if kinds > 1 and changes == kinds - 1 and len(labels) >= 2 * batch * kinds:
            message = (
                f"target {one.name!r}: rows are sorted by class, and shuffle=False leaves them so: with batches of "
                f"{batch} nearly every batch holds one class. Expected classes mixed within a batch."
            )
            remedy = "Shuffle (`shuffle=True`, or once before training); for series, shuffle windows and not steps."
            yield catalogue.finding("data-order", message, where=one.where(), remedy=remedy, score=0.9)


@check("a dtype that loses the information", codes=("data-precision",), needs=("data", "arrays"), cost=1)
def dtype_loses_information(context: Context) -> Iterable[Finding]:
    """Points in time that float32 (to which Keras casts float64 too) cannot tell apart, windows that float16 cannot."""
    for one in inputs(context):
        yield from _lost_to_half(one)
        if one.array.dtype.kind != "f" or one.mask or one.array.ndim < 2 or one.array.shape[1] < 2:
            continue
        columns = one.array.shape[-1] if one.array.ndim == 3 else 1
        for feature in range(columns) if one.array.ndim <= 3 else ():
            series = one.array[..., feature] if one.array.ndim == 3 else one.array
            if one.array.ndim == 2 and not one.clock:
                continue  # (samples, features): no time to run along
            loss = _lost_steps(thinned(series), one.valid)
            if loss is not None:
                name = one.feature(feature)
                message = (
                    f"input {one.name!r}, feature {name!r} counts time up to {loss[0]:.4g}, where one step of float32 "
                    f"is {loss[1]:g}; its own steps are about {loss[2]:.4g}, and {loss[3]:.1%} of them are 0."
                )
                facts = {"largest": loss[0], "float32_step": loss[1], "median_step": loss[2], "zero_share": loss[3]}
                evidence = [Evidence("value", facts, name=str(name))]
                where = one.where(feature=name)
                yield catalogue.finding("data-precision", message, where=where, evidence=evidence, score=0.95)


HALF_STEPS = 2.0
"""Steps of float16 within which a window moves: what is left of its course is a jump or none."""

LOST_WINDOWS = 0.5
"""Share, of the windows that move at all, of those that move by no more than that, from which the numbers no longer
hold what happened in them."""


def _lost_to_half(one: Named) -> Iterator[Finding]:
    """Windows stored as float16 at a level where one step of float16 is as large as all that happens in them."""
    if one.array.dtype != np.float16 or one.array.ndim != 3 or one.mask:
        return
    held = thinned(one.array)
    for feature in range(held.shape[-1]):
        course = held[..., feature].astype(np.float64)
        if not np.isfinite(course).all() or np.ptp(course) == 0:
            continue
        step = np.spacing(np.abs(held[..., feature]).max(axis=1)).astype(np.float64)
        moves = np.ptp(course, axis=1)
        lost = float(np.mean((moves <= HALF_STEPS * step)[moves > 0]))  # what stands still does so in any dtype
        if lost >= LOST_WINDOWS and float(np.median(step)) > np.finfo(np.float16).eps:
            name = one.feature(feature)
            yield catalogue.finding(
                "data-precision",
                f"input {one.name!r}, feature {name!r} is stored as float16, whose step is {np.median(step):g} at "
                f"{np.abs(course).max():.4g}: {lost:.0%} of those that move do so by no more than {HALF_STEPS:g} "
                "steps. Expected numbers that hold the moves: float32, or the level taken off first.",
                where=one.where(feature=name),
                score=0.95,
            )


FLOAT32_WHOLE = 2.0**24
"""Above this float32 skips whole numbers: seconds and ids begin to fall together."""


def _lost_steps(series: Any, valid: Any) -> tuple[float, float, float, float] | None:
    """(largest, one float32 step there, median own step, share of zero steps) where time is lost, else None."""
    held = series[np.isfinite(series)]
    if not held.size or float(np.abs(held).max()) < FLOAT32_WHOLE:
        return None
    steps = np.diff(series.astype(np.float64), axis=1)
    if valid is not None and len(valid) == len(series):
        steps = np.where(valid[:, 1:] & valid[:, :-1], steps, np.nan)
    steps = steps[np.isfinite(steps)]
    forward = (steps >= 0).mean() if steps.size else 0.0
    if forward < 0.99:
        return None  # it does not run like time (padding may fall back once a sample); size alone is a matter of scale
    largest = float(np.abs(held).max())
    ulp = float(np.spacing(np.float32(largest)))
    moved = steps[steps > 0]
    typical = float(np.median(moved)) if moved.size else 0.0
    narrow = np.diff(series.astype(np.float32), axis=1)
    zero = float((narrow == 0).mean())
    return (largest, ulp, typical, zero) if typical < 16 * ulp else None


@check("inputs not as the first layer reads them", codes=("input-encoding",), needs=("data", "arrays"), cost=2)
def inputs_not_as_read(context: Context) -> Iterable[Finding]:
    """What embeddings are given, and whether axes are where the model or the plan says."""
    told = set()
    ids = {one.name: one.array for one in inputs(context) if one.ids or one.array.dtype.kind in "iu"}
    for layer, values in embedding_calls(context):
        finding = _embedding_finding(layer, values, ids)
        if finding is not None and layer.name not in told:
            told.add(layer.name)
            yield finding
    yield from _axes(context)


def _embedding_finding(layer: Any, values: Any, ids: dict[str, Any]) -> Finding | None:
    rows, path = int(layer.input_dim), str(layer.path or layer.name)
    where = {"layer": path, "phase": "data"}
    if values.dtype.kind == "f" and not (values == np.floor(values)).all():
        share = float((values != np.floor(values)).mean())
        message = (
            f"embedding {path!r} is given numbers that are not whole ({share:.1%} of them, for example "
            f"{values[values != np.floor(values)].flat[0]:.4g}); it cuts them down. Expected ids 0 … {rows - 1}."
        )
        return catalogue.finding("input-encoding", message, where=where, score=1.0)
    for name, array in ids.items():  # the whole column, where the embedding reads an input as it is
        head = array[: len(values)]
        if head.shape == values.shape and np.array_equal(head.astype(values.dtype), values):
            values, where = array, {**where, "input": name}
    low, high = float(values.min()), float(values.max())
    if low < 0 or high >= rows:
        row = int(np.argwhere((values < 0) | (values >= rows))[0][0])
        message = (
            f"embedding {path!r} has {rows} rows and is given ids {low:g} … {high:g}. Expected 0 … {rows - 1}: "
            "count the vocabulary with its padding and unknown ids."
        )
        return catalogue.finding("input-encoding", message, where={**where, "row": row}, score=1.0)
    if _is_clipped(values, rows, ids):
        name = max(ids, key=lambda one: float(ids[one].max()))
        message = (
            f"embedding {path!r} has {rows} rows, input {name!r} holds ids up to {float(ids[name].max()):g}, and "
            f"what arrives at the table is cut off at {high:g}: different ids share its last row."
        )
        return catalogue.finding("input-encoding", message, where={**where, "input": name}, score=1.0)
    return None


def _is_clipped(values: Any, rows: int, ids: dict[str, Any]) -> bool:
    """Ids that are beyond the table in the data and pile up on its last row on arrival."""
    beyond = [
        array[: len(values)]
        for array in ids.values()
        if array[: len(values)].shape == values.shape and array.max() >= rows
    ]
    return any(
        bool((values[over] == rows - 1).all() and np.array_equal(array[~over], values[~over].astype(array.dtype)))
        for array in beyond
        for over in [array >= rows]
        if over.any() and len(np.unique(array[over])) > 1
    )


STEPS_AND_FEATURES = "expected steps and features"
"""Name of that evidence: a reproduction compares shapes with it."""


def _axes(context: Context) -> Iterator[Finding]:
    declared = context.declared
    steps, features = declared.get("timesteps"), declared.get("features")
    for one in measured_inputs(context):
        shape = one.array.shape
        if len(shape) != 3 or shape[1] == shape[2]:
            continue
        wanted = _wanted_shape(context.model)
        told = (steps, features) if isinstance(steps, int) and isinstance(features, int) else wanted
        if told is None or told[0] is None or told[1] is None:
            continue
        if shape[1:] == (told[1], told[0]):
            message = (
                f"input {one.name!r} has shape {shape}: {told[1]} along time and {told[0]} along features. "
                f"Expected (samples, {told[0]}, {told[1]}): the two axes are swapped."
            )
            remedy = "Transpose it: x.transpose(0, 2, 1)."
            expected = [Evidence("value", list(told), name=STEPS_AND_FEATURES)]
            yield catalogue.finding(
                "input-encoding", message, where=one.where(), evidence=expected, remedy=remedy, score=1.0
            )


def _wanted_shape(model: Any) -> tuple[Any, Any] | None:
    shape = getattr(model, "input_shape", None) if getattr(model, "built", False) else None
    return (shape[1], shape[2]) if isinstance(shape, tuple) and len(shape) == 3 else None
