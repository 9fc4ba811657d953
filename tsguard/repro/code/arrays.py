"""Code for numbers and arrays: the fewest digits that give the same value back."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

INLINE_MAX = 48
"""Scalars of an array that a reader still takes in at a glance; larger ones go to a file beside the script."""

TAKEN_BY_DEFAULT = {"f": "float32", "i": "int32", "b": "bool"}
"""The dtypes that `keras.ops.array` gives to Python's numbers."""


def array(value: Any, *, home: str = "keras.ops") -> str | None:
    """Code for a tensor (or for an array of NumPy, with `home="np"`); None where it is too large to be read."""
    leaf = np.asarray(value)
    if leaf.dtype.kind not in "fiub":
        return None
    spelled = f', "{leaf.dtype}"'
    dtype = "" if home == "keras.ops" and TAKEN_BY_DEFAULT.get(leaf.dtype.kind) == str(leaf.dtype) else spelled
    if leaf.size != 1 and (leaf == leaf.flat[:1]).all():
        first = leaf.flat[0].item() if leaf.size else 0
        if first in (0, 1) and math.copysign(1, first) > 0 and leaf.dtype.kind != "b":
            name = "ones" if first else "zeros"
            return f"{home}.{name}({leaf.shape}{dtype if leaf.dtype.kind == 'f' else spelled})"
        return f"{home}.full({leaf.shape}, {number(leaf.flat[0])}{dtype})"
    return f"{home}.array({_nested(leaf)}{dtype})" if leaf.size <= INLINE_MAX else None


def _nested(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return "[" + ", ".join(map(_nested, value)) + "]" if value.ndim else number(value[()])
    return number(value)


def number(value: Any) -> str:
    """The fewest digits that give the same number in its own precision."""
    if isinstance(value, float | np.floating):
        if math.isnan(value):
            return 'float("nan")'
        if math.isinf(value):
            return 'float("inf")' if value > 0 else '-float("inf")'
    short = str(np.float32(value)) if isinstance(value, float) and float(np.float32(value)) == value else ""
    # A rate that was kept in float32 and read back has digits that nobody gave.
    return (
        short
        if short and len(short) < len(str(value))
        else str(value.item() if isinstance(value, np.float64) else value)
    )


def plain(value: Any) -> str:
    """A plain value as people write it in code."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{plain(key)}: {plain(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(plain, value)) + "]"
    if isinstance(value, tuple):
        return "(" + ", ".join(map(plain, value)) + ("," if len(value) == 1 else "") + ")"
    return number(value) if isinstance(value, float | np.generic) else repr(value)
