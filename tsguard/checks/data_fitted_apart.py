"""Parts that were scaled each by itself: every part has the very moments, or the very ends, that a scaler gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from tsguard import catalogue
from tsguard.checks.arrays import Named, inputs
from tsguard.checks.data_apart import input_pairs
from tsguard.checks.registry import Context, check
from tsguard.evidence import Evidence
from tsguard.findings import Finding
from tsguard.probes.data import by_feature

Floats = npt.NDArray[np.float64]

LEAST_ROWS = 30
"""Rows of a part from which its mean is zero by nothing but a scaler."""

DISTINCT = 20
"""Different values of a feature that has a scale at all; flags and kinds have ends of their own."""

EXACT = 1e-4
"""Distance from 0 or 1 that rounding in float32 leaves; a mean over rows of another part lies off by one over the root
of their number."""

WINDOWS = 16
"""Windows that are asked whether each of them was scaled by itself."""

ENDS = ((0.0, 1.0), (-1.0, 1.0))
"""Where a scaler to a range puts the lowest and the highest value."""


@check("parts scaled each by itself", codes=("data-drift",), needs=("data", "arrays", "validation"), cost=1)
def fitted_apart(context: Context) -> Iterable[Finding]:
    """Training and validation part both have mean 0 and deviation 1, or both run exactly from 0 to 1."""
    for one, other in input_pairs(context, among=[one for one in inputs(context) if not one.mask]):
        if one.array.dtype.kind != "f" or min(len(one.array), len(other)) < LEAST_ROWS:
            continue
        steps = one.array.shape[1] if one.array.ndim == 3 else 1
        ours, theirs = (by_feature(part).astype(np.float64) for part in (one.array, other))
        moving = [k for k in range(ours.shape[1]) if _varies(ours[:, k]) and _varies(theirs[:, k])]
        for how, fits in (("mean 0 and deviation 1", _standardised), ("the ends of a range", _stretched)):
            alike = [k for k in moving if fits(ours[:, k], steps) and fits(theirs[:, k], steps)]
            alike = [k for k in alike if not _each_window_by_itself(one.array, k, fits)]
            if moving and len(alike) == len(moving):
                yield _told(one, alike[0], len(alike), how, ours, theirs)
                break


def _varies(column: Floats) -> bool:
    return bool(np.isfinite(column).all()) and len(np.unique(column[:5_000])) >= DISTINCT


def _standardised(column: Floats, steps: int) -> bool:
    return abs(float(column.mean())) < EXACT and abs(float(column.std()) - 1.0) < EXACT


def _stretched(column: Floats, steps: int) -> bool:
    """The lowest and the highest value lie exactly at the ends, and each is one reading: in windows it comes once for
    each step. What is cut off at a bound stands there more often."""
    low, high = float(column.min()), float(column.max())
    at = [k for k, (bottom, top) in enumerate(ENDS) if abs(low - bottom) < EXACT**2 and abs(high - top) < EXACT**2]
    return bool(at) and max(int((column == low).sum()), int((column == high).sum())) <= steps


def _each_window_by_itself(array: Any, feature: int, fits: Callable[[Floats, int], bool]) -> bool:
    """Whether every window has the moments by itself: its unit is its own on purpose, and no part has one."""
    if array.ndim != 3:
        return False
    windows = array[:WINDOWS, :, feature].astype(np.float64)
    # A window whose deviation was kept from 0 by an epsilon misses 1 by more than rounding does.
    return all(abs(float(one.mean())) < 100 * EXACT for one in windows) or all(fits(one, 1) for one in windows)


def _told(one: Named, feature: int, count: int, how: str, ours: Floats, theirs: Floats) -> Finding:
    shown: dict[str, Any] = {
        part: {name: float(getattr(columns[:, feature], name)()) for name in ("min", "max", "mean", "std")}
        for part, columns in (("train", ours), ("validation", theirs))
    }
    return catalogue.finding(
        "data-drift",
        f"input {one.name!r}: {count} feature(s) of both parts have {how}, exactly, first {one.feature(feature)!r}: a "
        "scaler was fitted on each part by itself, so that equal readings are unequal numbers in the two. Expected the "
        "validation part scaled by what was fitted on the training part.",
        where=one.where(feature=one.feature(feature), split="validation"),
        status="WARN",
        role="cause",
        evidence=[Evidence("value", shown, name="of both parts")],
        remedy="scaler.fit(train) once, then scaler.transform of every part.",
        score=0.8,
    )
