"""What the data look like, for the page before the run: distributions of inputs and targets, and what is missing where.

Measured on rows spread over the data, never on all of a large set; nothing is judged here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tsguard.checks.registry import Context
from tsguard.dataset import Data, leaves
from tsguard.probes.data import distribution, missing_over_time

ROWS = 4096
VALUES = 200_000
"""Rows and values that are looked at for one array: the shape of a distribution needs no more."""

COLUMNS_MAX = 24
"""Distributions on one page."""

NAMELESS_MAX = 8
"""Features without names that are shown one by one; more of them are shown together."""


def of_data(context: Context) -> dict[str, Any]:
    """Figures of the arrays at hand; none of data that can be read only once."""
    data = context.data
    if data is None or not data.is_arrays:
        return {}
    columns = dict(_first(_columns(data), COLUMNS_MAX))
    if not columns:
        return {}
    found: dict[str, Any] = {
        "distributions": {name: distribution(_thinned(column)) for name, column in columns.items()}
    }
    flat = {
        name: column.reshape(len(column), -1).mean(1) for name, column in columns.items() if column.dtype.kind == "f"
    }
    if any(np.isnan(column).any() for column in flat.values()):
        found["missing"] = missing_over_time(flat)
    return found


def _columns(data: Data) -> Iterator[tuple[str, Any]]:
    """Features of the inputs by name or number, then the targets; each with its rows first."""
    rows = np.unique(np.linspace(0, len(data) - 1, min(len(data), ROWS)).astype(int))
    for part, structure in (("input", data.x), ("target", data.y)):
        named = dict(structure) if isinstance(structure, dict) else None
        arrays = list(named.items()) if named is not None else [(None, leaf) for leaf in leaves(structure)]
        for number, (name, leaf) in enumerate(arrays):
            array = _numbers(leaf, rows)
            if array is None:
                continue
            label = str(name) if name is not None else part if len(arrays) == 1 else f"{part} {number}"
            names = data.names if part == "input" and len(arrays) == 1 else ()
            yield from _features(label, array, names)


def _features(label: str, array: Any, names: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """One column a feature where the last axis holds few of them, else the whole array as one."""
    width = array.shape[-1] if array.ndim > 1 else 1
    if array.ndim < 2 or width == 1:
        yield label, array
    elif len(names) == width or width <= NAMELESS_MAX:
        for at in range(width):
            yield (names[at] if len(names) == width else f"{label}, feature {at}"), array[..., at]
    else:
        yield label, array


def _numbers(leaf: Any, rows: Any) -> Any:
    """The chosen rows as numbers on the host; None where they are none."""
    try:
        chosen = leaf[rows]
        array = chosen.detach().cpu().numpy() if hasattr(chosen, "detach") else np.asarray(chosen)
    except (TypeError, ValueError, IndexError, RuntimeError):
        return None
    return array if array.dtype.kind in "fiub" and array.size else None


def _thinned(column: Any) -> Any:
    values = column.reshape(-1)
    return values[:: max(1, len(values) // VALUES)]


def _first(pairs: Iterator[tuple[str, Any]], count: int) -> Iterator[tuple[str, Any]]:
    for number, pair in enumerate(pairs):
        if number >= count:
            return
        yield pair
