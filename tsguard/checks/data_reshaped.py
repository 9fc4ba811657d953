"""Windows that were reshaped where they should have been transposed: in the arrays, or in a layer of the model.

A reshape keeps the order of the numbers. Where they are courses laid end to end, it fills each step with a piece of one
course in place of one number of each.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tsguard import catalogue
from tsguard.checks.arrays import EMBEDDING_ROWS, measured_inputs
from tsguard.checks.registry import Context, check
from tsguard.findings import Finding
from tsguard.probes.data import as_array, thinned
from tsguard.probes.dispatch import is_users_own

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
    """A reshape, as a layer or in an own call, that exchanges two sizes where the numbers run along the last axis."""
    for place, given in _reshapes(context):
        channels, steps = given.shape[1:]
        if steps < LONG_AXIS or channels < 2 or len(given) < LEAST_ROWS or not np.isfinite(given).all():
            continue
        course = _courses(given)
        if course is None:
            continue
        who = f"layer {place.layer!r}" if place.layer else "the model"
        line = f" in line {place.line} of {Path(place.file).name}" if place.file else ""
        yield catalogue.finding(
            "input-encoding",
            f"{who} reshapes (samples, {channels}, {steps}) to (samples, {steps}, {channels}){line}, which keeps "
            f"the order of the numbers: they run along the last axis that it is given (neighbours correlate by "
            f"{course:.2f}), and each new step holds {channels} neighbours of one course in place of one number of "
            "each course. Expected the two axes exchanged.",
            where={**place.where(), "phase": "forward"},
            status="FAIL",
            role="cause",
            remedy="keras.ops.transpose(x, (0, 2, 1)) in place of the reshape."
            if place.file
            else "keras.layers.Permute((2, 1)) in place of Reshape.",
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


@dataclass(frozen=True, slots=True)
class _Place:
    """Who reshapes: a layer, and for code of the user's own the line."""

    layer: str | None
    file: str | None = None
    line: int | None = None

    def where(self) -> dict[str, Any]:
        told = {"layer": self.layer, "file": self.file, "line": self.line}
        return {key: value for key, value in told.items() if value is not None}


def _reshapes(context: Context) -> list[tuple[_Place, Floats]]:
    """(who, what was given) for every reshape that exchanges two sizes, from a pass of the first rows."""
    import torch

    model, data = context.model, context.data
    if model is None or data is None:
        return []
    seen: dict[_Place, Any] = {}
    x, _, _ = data.take(slice(0, EMBEDDING_ROWS))
    with _listening(seen), torch.no_grad(), contextlib.suppress(Exception):  # a model that fails says so elsewhere
        model(x, training=False)
    return [(place, as_array(given).astype(np.float64)) for place, given in seen.items()]


def _listening(seen: dict[_Place, Any]) -> Any:
    """While open, every reshape that exchanges the last two of three axes notes its place and what it was given."""
    import torch
    from torch.overrides import TorchFunctionMode

    doors = {torch.reshape, torch.Tensor.reshape, torch.Tensor.view}

    class Listening(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            if func in doors and _exchanged(args[0], result):
                place = _place()
                if place is not None:
                    seen.setdefault(place, args[0].detach().clone())
            return result

    return Listening()


def _exchanged(given: Any, result: Any) -> bool:
    sizes = tuple(given.shape)
    return (
        len(sizes) == 3
        and sizes[1] != sizes[2]
        and tuple(result.shape) == (sizes[0], sizes[2], sizes[1])
        and given.is_floating_point()
        and given.device.type != "meta"
    )


def _place() -> _Place | None:
    """Keras' own Reshape, or the user's line in the call of a layer; None for what a layer of Keras does inside."""
    import keras

    line: tuple[str, int] | None = None
    frame: Any = sys._getframe(2)
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, keras.Operation):
            name = str(getattr(owner, "path", None) or owner.name)
            if line is not None:
                return _Place(None if isinstance(owner, keras.Model) else name, *line)
            return _Place(name) if type(owner).__name__ == "Reshape" else None
        file = frame.f_code.co_filename
        if line is None and is_users_own(file):
            line = (file, frame.f_lineno)
        frame = frame.f_back
    return None
