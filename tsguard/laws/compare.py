"""Two results of a model compared where they count: at valid steps, and at valid features of outputs that have them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tsguard.laws import tolerance

Flags = NDArray[np.bool_]
Arrays = Sequence[NDArray[np.float64]]


@dataclass(frozen=True)
class Moved:
    """The farthest that an output which should have stayed has moved."""

    by: float
    tolerance: float
    output: str
    sample: int
    timestep: int | None


@dataclass(frozen=True)
class Counting:
    """What counts of a batch's outputs."""

    valid: Flags
    features: Flags | None = None
    """Which features count, where some of them are padded."""


def feature_axis(
    one: NDArray[np.float64], other: NDArray[np.float64], time: int | None, counts: tuple[Counting, Counting]
) -> int | None:
    """The last axis of an output that is as long as the batch has features, in both of its results.

    An axis that has this length by chance does no harm: a leak moves what stands at valid features there too.
    """
    left, right = (c.features.shape[1] if c.features is not None else -1 for c in counts)
    axes = [a for a in range(1, one.ndim) if a != time and one.shape[a] == left and other.shape[a] == right]
    return axes[-1] if axes and one.ndim == other.ndim else None


def farthest(
    before: Arrays,
    after: Arrays,
    counts: tuple[Counting, Counting],
    *,
    times: Sequence[int | None],
    names: Sequence[str],
    allowance: float,
    floors: Sequence[float],
) -> Moved | None:
    """The farthest move where it counts, if it is more than the allowance, relative to the size of the output, and than
    the floor of this output."""
    worst: Moved | None = None
    valid = counts[0].valid
    for one, two, time, name, floor in zip(before, after, times, names, floors, strict=True):
        along = feature_axis(one, two, time, counts)
        left, right = (_counting(array, count, time, along) for array, count in zip((one, two), counts, strict=True))
        limit = max(allowance * tolerance.scale_of(*left, *right), floor)
        for sample, (a, b) in enumerate(zip(left, right, strict=True)):
            if not a.size or a.shape != b.shape:
                continue
            move = tolerance.movement(a, b)
            by = float(move.max())
            if by > limit and (worst is None or by > worst.by):
                # The first step that moved, not the one that moved most: that is where a reader starts.
                step = None
                if time is not None:
                    over = (np.moveaxis(move, time - 1, 0).reshape(move.shape[time - 1], -1) > limit).any(axis=1)
                    step = int(np.flatnonzero(valid[sample])[int(np.flatnonzero(over)[0])])
                worst = Moved(by, limit, name, sample, step)
    return worst


def _counting(
    array: NDArray[np.float64], count: Counting, time: int | None, along: int | None
) -> list[NDArray[np.float64]]:
    """Per sample the part of an output that counts."""
    if array.ndim == 0 or len(array) != len(count.valid):
        return [np.zeros(0)] * len(count.valid)
    parts = []
    for sample, (part, keep) in enumerate(zip(array, count.valid, strict=True)):
        if time is None:
            part = part if keep.any() else np.zeros(0)
        else:
            part = np.compress(keep, part, axis=time - 1)
        if along is not None and count.features is not None and part.ndim >= along:
            part = np.compress(count.features[sample], part, axis=along - 1)
        parts.append(part)
    return parts
