"""Windows that were reshaped where they should have been transposed: in the arrays, or in a layer of the model.

A reshape keeps the order of the numbers. Where they are courses laid end to end, it fills each step with a piece of one
course in place of one number of each.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from tsguard import catalogue
from tsguard.checks.arrays import EMBEDDING_ROWS, measured_inputs
from tsguard.checks.registry import Context, check
from tsguard.findings import Finding
from tsguard.probes.data import as_array, thinned

Floats = npt.NDArray[np.float64]

LONG_AXIS = 8
"""Places along an axis from which a course can be seen."""

LEAST_ROWS = 60
"""Rows from which what is said of neighbours is no accident of a few."""

JUMP = 2.0
"""Jump between two courses that were laid end to end, over the steps within them (all but the largest tenth)."""

SMOOTH = 0.75
"""Step of a course over its own deviation: neighbours then correlate by 0.7 and more."""

LEAST_COURSES = 3
"""Courses laid end to end: of two there is one jump, which an event in the middle of every window makes as well."""


@check("windows reshaped in place of transposed", codes=("input-encoding",), needs=("data", "arrays"), cost=2)
def reshaped_windows(context: Context) -> Iterable[Finding]:
    """Numbers that run on from feature to feature and step to step, and break where each course of a window ended.

    `(samples, features, time)` that is reshaped to `(samples, time, features)` keeps the order of its numbers: read one
    after another they are the course of the first feature, then that of the second. A long course that was cut into
    patches runs on over their borders and does not break there.
    """
    for one in measured_inputs(context):
        shape = one.array.shape
        if len(shape) != 3 or one.array.dtype.kind != "f" or shape[1] == shape[2]:
            continue
        steps, courses = shape[1], shape[2]
        if courses < LEAST_COURSES or steps < LONG_AXIS:
            continue
        rows = thinned(one.array, 500).astype(np.float64).reshape(-1, steps * courses)
        if len(rows) < LEAST_ROWS or not np.isfinite(rows).all():
            continue
        jumps = np.sqrt((np.diff(rows, axis=1) ** 2).mean(axis=0))
        ends = np.arange(1, courses) * steps - 1
        within = np.delete(jumps, ends)
        spread = float(np.median(rows.reshape(len(rows), courses, steps).std(axis=2)))
        usual = float(np.quantile(within, 0.9))
        if usual < SMOOTH * spread and jumps[ends].min() > JUMP * usual:
            yield catalogue.finding(
                "input-encoding",
                f"input {one.name!r} of shape {shape}: read one after another, the numbers of a window run on from "
                f"feature to feature and step to step (a step of {usual:.2g}), and jump after every {steps} numbers "
                f"(by {jumps[ends].min():.2g}): they are {courses} courses of {steps} steps laid end to end. Expected "
                "the features of one step beside each other: the axes were reshaped and not transposed.",
                where=one.where(),
                status="FAIL",
                role="cause",
                remedy=f"x.reshape(-1, {courses}, {steps}).transpose(0, 2, 1)",
                score=0.95,
            )
            return


COURSE = 0.3
"""Correlation of neighbours along an axis from which it has a course at all, noise and quick swings included."""

FARTHER = 1.25
"""How much less alike (one minus their correlation) numbers must be that lie across the end of a course, or as many
places apart as the new axis is wide, than neighbours. A random walk gives the number of places, smooth courses more."""

TORN = 0.8
"""Correlation of neighbours that the reshape puts into two steps, over that of those it leaves in one: where steps of
features stand one after another, a neighbour is another feature, and these two differ."""


@check("reshape in place of a transposition", codes=("input-encoding",), needs=("model", "data", "arrays"), cost=2)
def reshaped_inside(context: Context) -> Iterable[Finding]:
    """A Reshape layer that exchanges the sizes of two axes, where the numbers run along the last one."""
    for layer, given in _reshapes(context):
        channels, steps = given.shape[1:]
        if steps < LONG_AXIS or channels < 2 or len(given) < LEAST_ROWS or not np.isfinite(given).all():
            continue
        course = _courses(given)
        if course is None:
            continue
        path = str(layer.path or layer.name)
        yield catalogue.finding(
            "input-encoding",
            f"layer {path!r} reshapes (samples, {channels}, {steps}) to (samples, {steps}, {channels}), which keeps "
            f"the order of the numbers: they run along the last axis that it is given (neighbours correlate by "
            f"{course:.2f}), and each new step holds {channels} neighbours of one course in place of one number of "
            "each course. Expected the two axes exchanged.",
            where={"layer": path, "phase": "forward"},
            status="FAIL",
            role="cause",
            remedy="keras.layers.Permute((2, 1)) in place of Reshape.",
            score=0.95,
        )


def _courses(given: Floats) -> float | None:
    """How alike neighbours along the last axis are, where it has a course and the reshaped order has none."""
    channels, steps = given.shape[1:]
    flat = given.reshape(len(given), -1)
    flat = flat - flat.mean(axis=0)
    flat = flat / np.maximum(flat.std(axis=0), 1e-30)
    near, apart = ((flat[:, k:] * flat[:, :-k]).mean(axis=0) for k in (1, channels))
    place = np.arange(steps * channels)
    inside = place[:-1] % steps < steps - 1
    splits = place[:-1] % channels == channels - 1
    far = apart[place[:-channels] % steps < steps - channels] if steps > channels else apart[:0]
    torn, kept, ends = near[inside & splits], near[inside & ~splits], near[~inside]
    if not len(torn) or not len(kept) or not len(far):
        return None
    alike = float(near[inside].mean())
    told = (
        alike >= COURSE
        and torn.mean() >= TORN * kept.mean()
        and 1.0 - far.mean() >= FARTHER * (1.0 - torn.mean())
        and 1.0 - ends.mean() >= FARTHER * (1.0 - alike)
    )
    return alike if told else None


def _reshapes(context: Context) -> list[tuple[Any, Floats]]:
    """(layer, what it was given) for every Reshape that exchanges two sizes, from a pass of the first rows."""
    import keras

    model, data = context.model, context.data
    if model is None or data is None or not any(isinstance(one, keras.layers.Reshape) for one in _layers(model)):
        return []
    import torch

    seen: list[tuple[Any, Any]] = []
    x, _, _ = data.take(slice(0, EMBEDDING_ROWS))
    with _listening(seen), torch.no_grad(), contextlib.suppress(Exception):  # a model that fails says so elsewhere
        model(x, training=False)
    found: dict[int, tuple[Any, Floats]] = {}
    for layer, given in seen:
        _, *sizes = (int(size) for size in given.shape)
        wanted = [int(size) for size in layer.target_shape]
        exchanged = len(sizes) == 2 and sizes[0] != sizes[1] and _filled(wanted, sizes) == sizes[::-1]
        if exchanged and given.is_floating_point():
            found.setdefault(id(layer), (layer, as_array(given).astype(np.float64)))
    return list(found.values())


def _filled(wanted: list[int], sizes: list[int]) -> list[int]:
    """A target shape with its -1 worked out."""
    known = int(np.prod([size for size in wanted if size != -1]))
    return [int(np.prod(sizes)) // known if size == -1 else size for size in wanted]


def _layers(model: Any) -> Iterator[Any]:
    yield from model._flatten_layers(include_self=False, recursive=True)


@contextlib.contextmanager
def _listening(seen: list[tuple[Any, Any]]) -> Iterator[None]:
    """While open, every call of a Reshape notes its layer and its input."""
    import keras

    kind = keras.layers.Reshape
    original = kind.call

    def call(self: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if getattr(getattr(inputs, "device", None), "type", "meta") != "meta":
            seen.append((self, inputs))
        return original(self, inputs, *args, **kwargs)

    kind.call = call
    try:
        yield
    finally:
        kind.call = original
