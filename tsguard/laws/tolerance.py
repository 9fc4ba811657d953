"""How far two results may be apart before the difference is a dependence: derived from dtype and scale, not chosen.

*Same program.* Two runs of one model on arrays of the same shapes perform the same operations in the same order. An
output that does not depend on what was changed is therefore equal to the last bit; SAME_PROGRAM_ULPS allows for kernels
whose threads may round differently. In float32 at outputs of 1e3 that is 4 · 1.2e-7 · 1e3 = 4.8e-4, so a leak of
1e-3 shows.

*Another shape.* With another width or batch size the sums are blocked and ordered differently. By backward error
analysis (Higham, Accuracy and Stability of Numerical Algorithms, ch. 3 and 4) each order of a sum of n terms gives the
exact result for terms that are moved by a relative sqrt(n) · u (u the unit roundoff, half of eps; sqrt rather than n
because rounding errors are independent in sign). So the model itself is asked: weights and inputs are moved by that
much, and how far the outputs go is what a change of order may do. It is asked once, relative to the size of the
outputs; and again on the very batch where that is exceeded, because an output that is a small difference of large
numbers rounds like the large ones. Two orders are two such draws and a few draws underestimate the tail: NOISE_MARGIN.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

SAME_PROGRAM_ULPS = 4.0
"""Units in the last place that equal programs may differ by; the least that still forgives one differently rounded
step."""

NOISE_MARGIN = 4.0
"""2 for two orders of summation that differ from the exact result in opposite directions, 2 for the tail of three
draws."""

NOISE_DRAWS = 3
"""Draws of the model's own rounding noise. Each costs one forward pass; the margin covers what three of them miss."""

_EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}


def eps_of(dtypes: Iterable[str]) -> float:
    """The distance from 1 to the next number in the coarsest of the dtypes in which a model computes."""
    return max((_EPS[dtype] for dtype in dtypes if dtype in _EPS), default=_EPS["float32"])


def jitter(eps: float, terms: int) -> float:
    """The relative move of each term that a change of the order of a sum of so many terms can amount to."""
    return 0.5 * eps * math.sqrt(max(terms, 1))


def scale_of(*arrays: NDArray[np.float64]) -> float:
    """The largest finite magnitude: what one unit in the last place is relative to."""
    return max((float(np.abs(a[np.isfinite(a)]).max()) for a in arrays if np.isfinite(a).any()), default=0.0)


def movement(before: NDArray[np.float64], after: NDArray[np.float64]) -> NDArray[np.float64]:
    """Element by element how far a result moved; from finite to non-finite, or from one non-finite kind to another,
    is inf."""
    with np.errstate(invalid="ignore"):
        moved = np.abs(before - after)
    same = (before == after) | (np.isnan(before) & np.isnan(after))
    moved = np.where(same, 0.0, moved)
    return np.where(np.isnan(moved), np.inf, moved)


def apart(one: float, other: float) -> float:
    """How far two numbers are apart; inf where only one is finite."""
    return float(movement(np.array(one), np.array(other)))


def close(a: NDArray[np.float64], b: NDArray[np.float64], allowance: float, floor: float = 0.0) -> bool:
    """Whether two arrays of one shape agree to an allowance relative to their size, or to the floor."""
    limit = max(allowance * max(scale_of(a, b), float(np.finfo(float).tiny)), floor)
    return float(movement(a, b).max(initial=0.0)) <= limit
