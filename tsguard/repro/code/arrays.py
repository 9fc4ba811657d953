"""Code for numbers and arrays: the fewest digits that give the same value back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

INLINE_MAX = 48
"""Scalars of an array that a reader still takes in at a glance; larger ones go to a file beside the script."""


def array(value: Any) -> str | None:
    """Code for an array; None where it is too large to be read."""
    leaf = np.asarray(value)
    dtype = f'"{leaf.dtype}"'
    if leaf.size and (leaf == leaf.flat[0]).all():
        first = leaf.flat[0].item()
        for constant, name in ((0, "zeros"), (1, "ones")):
            if first == constant and not isinstance(first, bool):
                return f"np.{name}({leaf.shape}, {dtype})"
        return f"np.full({leaf.shape}, {number(leaf.flat[0])}, {dtype})"
    if leaf.size > INLINE_MAX or leaf.dtype.kind not in "fiub":
        return None
    return f"np.array({_nested(leaf)}, {dtype})"


def _nested(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return "[" + ", ".join(map(_nested, value)) + "]"
    return number(value)


def number(value: Any) -> str:
    """The fewest digits that give the same number in its own precision."""
    if isinstance(value, float | np.floating):
        if math.isnan(value):
            return "np.nan"
        if math.isinf(value):
            return "np.inf" if value > 0 else "-np.inf"
    return str(value.item() if isinstance(value, np.float64) else value)
