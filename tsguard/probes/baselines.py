"""Trivial rules that any model must beat: the mean, the last value seen, the majority; and a closed-form line."""

from __future__ import annotations

from typing import Any

import numpy as np

from tsguard.dataset import Data, leaves
from tsguard.probes.learnable import curved_columns, ridge_r2, table
from tsguard.probes.patches import patch_columns
from tsguard.probes.signal import arrays


def regression_baselines(data: Data) -> dict[str, float]:
    """R² of each rule that fits the shapes; the mean scores 0 by definition."""
    found = {"mean": 0.0}
    made = arrays(data)
    if made is None:
        return found
    inputs, targets = made
    y = targets[0].reshape(len(targets[0]), -1).astype("float64")
    x = inputs[0]
    if x.ndim == 3 and np.isfinite(y).all() and y.var() > 0:
        for feature in range(min(x.shape[2], 8)):
            last = x[:, -1, feature].astype("float64")[:, None]
            score = 1 - float(np.mean((last - y) ** 2) / y.var())
            if np.isfinite(score):
                found["last value"] = max(found.get("last value", -np.inf), score)
    return found


def learnable_share(data: Data) -> float:
    """R² (of indicator columns, for classes) that a closed-form fit reaches on rows held back: what is there to
    find."""
    made = table(_not_handed_over(data))
    if made is None:
        return 0.0
    x, y = made
    x = x[:, :: x.shape[1] // 1000 + 1]
    straight = ridge_r2(x, y)
    if straight > 0.5:
        return float(straight)
    curved = ridge_r2(np.concatenate([x, curved_columns(x)], axis=1), y)
    return float(max(straight, curved, by_patches(data, y), 0.0))


SOME_ROWS = 512
"""Rows that say whether it is so."""

SAME_COURSE = 0.9999
"""Correlation of the targets with the inputs one step ahead from which the one is the other, in whatever unit."""


def foretells_its_inputs(x: Any, y: Any) -> bool:
    """Whether the target of each step is the input of the next one."""
    x, y = np.asarray(x), np.asarray(y)
    if min(x.ndim, y.ndim) < 2 or x.shape[:2] != y.shape[:2] or x.shape[1] < 3 or x[0].size != y[0].size:
        return False
    if x.dtype.kind not in "fiu" or y.dtype.kind not in "fiu":
        return False
    ahead, told = (a.astype("float64").reshape(-1) for a in (x[:SOME_ROWS, 1:], y[:SOME_ROWS, :-1]))
    return bool(ahead.std() > 0 and told.std() > 0 and np.corrcoef(ahead, told)[0, 1] > SAME_COURSE)


def _not_handed_over(data: Data) -> Data:
    """Where the target of each step is the input of the next one, the last step alone: the others stand in the very
    inputs, and are not to be found by reading on."""
    listed = list(leaves(data.y))
    if not data.is_arrays or len(listed) != 1:
        return data
    if any(foretells_its_inputs(x, listed[0]) for x in leaves(data.x)):
        return Data(data.x, np.asarray(listed[0])[:, -1:], batch_size=data.batch_size)
    return data


def by_patches(data: Data, y: Any) -> float:
    """R² of a line on what patches of the data answer, the best input alone; 0 without pictures and windows."""
    made = arrays(data, limit=2048)
    best = 0.0
    for x in made[0] if made is not None else ():
        columns = patch_columns(x) if len(x) == len(y) else None
        if columns is not None and np.isfinite(columns).all():
            best = max(best, ridge_r2(columns, y))
    return best


def majority_share(labels: Any) -> float:
    """The share of the most frequent class."""
    _, counts = np.unique(np.asarray(labels).reshape(-1), return_counts=True)
    return float(counts.max() / counts.sum())
