"""The data as numpy, spread over its rows, for probes that ask it without any model."""

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
