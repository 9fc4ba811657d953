"""Where in the data the answer lies, asked without any model: dependence of targets on inputs, per timestep or
feature."""

from __future__ import annotations

from typing import Any

import numpy as np

from tsguard.dataset import Data, leaves

MAX_ROWS = 1024
"""Rows looked at: the null level of a squared correlation is about 1/rows."""


def arrays(data: Data, *, limit: int = MAX_ROWS) -> tuple[list[Any], list[Any]] | None:
    """Input and target leaves as numpy, over rows spread over the data; None where there are no targets."""
    if data.is_arrays:
        total = len(data)
        index = np.unique(np.linspace(0, total - 1, min(total, limit)).astype(int))
        x, y, _ = data.take(index)
        inputs, targets = [_numpy(v) for v in leaves(x)], [_numpy(v) for v in leaves(y)]
    else:
        rows = list(data.batches(8))
        if not rows or rows[0][1] is None:
            return None
        inputs = [
            np.concatenate([_numpy(v) for v in column]) for column in zip(*(leaves(r[0]) for r in rows), strict=True)
        ]
        targets = [
            np.concatenate([_numpy(v) for v in column]) for column in zip(*(leaves(r[1]) for r in rows), strict=True)
        ]
    return (inputs, targets) if targets else None


def _numpy(leaf: Any) -> Any:
    if hasattr(leaf, "detach"):
        leaf = leaf.detach().cpu().numpy()
    return np.asarray(leaf)


def target_columns(target: Any) -> Any:
    """A target as columns of numbers: few whole numbers become indicator columns."""
    flat = target.reshape(len(target), -1).astype("float64")
    values = np.unique(flat)
    if flat.shape[1] == 1 and 3 <= len(values) <= 20 and np.array_equal(values, values.round()):
        return (flat == values).astype("float64")
    return flat[:, :8]


def signal_per_timestep(data: Data, *, x_index: int = 0) -> list[float] | None:
    """Per timestep, the greatest squared correlation of any feature with any target column, above its null level."""
    made = arrays(data)
    if made is None:
        return None
    inputs, targets = made
    x = inputs[x_index].astype("float64")
    if x.ndim != 3:
        return None
    y = np.concatenate([target_columns(t) for t in targets], axis=1)
    y = _unit(y)
    null = 6.0 / len(x)
    found = []
    for t in range(x.shape[1]):
        correlation = _unit(x[:, t]).T @ y / len(x)
        best = float(np.nanmax(correlation**2)) if correlation.size else 0.0
        found.append(max(0.0, best - null))
    return found


def _unit(columns: Any) -> Any:
    centred = columns - columns.mean(0)
    deviation = centred.std(0)
    return np.where(deviation > 0, centred / np.where(deviation > 0, deviation, 1), 0.0)
