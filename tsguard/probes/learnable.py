"""What can be learned from the data at all, by small closed-form fits: no network, no seed, a second at most.

Scores are R² (or its like for indicator columns) on rows that were held back. They are a lower bound of what can be
learned: a fit of this kind that fails says nothing, one that succeeds says that there is something to find.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tsguard.dataset import Data
from tsguard.probes.signal import arrays, target_columns

RIDGES = (1e-3, 1e-1, 1e1, 1e3)
"""Penalties tried, for standardised columns."""


def table(data: Data) -> tuple[Any, Any] | None:
    """Inputs and targets as two matrices (samples in their order); None where they are not numbers."""
    made = arrays(data, limit=2048)
    if made is None:
        return None
    inputs, targets = made
    if any(a.dtype.kind not in "fiub" for a in (*inputs, *targets)):
        return None
    rows = len(inputs[0])
    x = np.concatenate([a.reshape(rows, -1).astype("float64") for a in inputs], axis=1)
    y = np.concatenate([target_columns(a) for a in targets if len(a) == rows], axis=1)
    if rows < 20 or not np.isfinite(x).all() or not np.isfinite(y).all():
        return None
    return x, y


def counted(ids: Any, *, kinds: int = 499) -> Any:
    """How often each id stands in a row; of very many ids, some share a column."""
    flat = np.asarray(ids).reshape(len(ids), -1).astype(np.int64) % kinds
    counts = np.zeros((len(flat), int(flat.max(initial=0)) + 1))
    np.add.at(counts, (np.arange(len(flat))[:, None], flat), 1.0)
    return counts[:, counts.std(0) > 0]


def halves(rows: int) -> tuple[Any, Any]:
    """Interleaved blocks: neighbours in time stay together, both halves see every part of the data."""
    block = max(1, rows // 20)
    odd = (np.arange(rows) // block) % 2 == 1
    return np.flatnonzero(~odd), np.flatnonzero(odd)


def ridge_r2(x: Any, y: Any) -> float:
    """R² on the half held back, of the ridge penalty that does best there."""
    train, held = halves(len(x))
    mean, deviation = x[train].mean(0), x[train].std(0)
    a = np.where(deviation > 0, (x - mean) / np.where(deviation > 0, deviation, 1), 0.0)
    centre = y[train].mean(0)
    total = float(((y[held] - centre) ** 2).sum())
    if total <= 0:
        return 0.0
    u, s, vt = np.linalg.svd(a[train], full_matrices=False)
    coordinates = u.T @ (y[train] - centre)
    best = -np.inf
    for penalty in RIDGES:
        weight = vt.T @ ((s / (s**2 + penalty * len(train)))[:, None] * coordinates)
        best = max(best, 1 - float(((y[held] - centre - a[held] @ weight) ** 2).sum()) / total)
    return best


def curved_columns(x: Any, *, limit: int = 24) -> Any:
    """The columns, their squares and their products; of many columns, the leading principal components."""
    deviation = x.std(0)
    a = np.where(deviation > 0, (x - x.mean(0)) / np.where(deviation > 0, deviation, 1), 0.0)
    if a.shape[1] > limit:
        _, _, vt = np.linalg.svd(a, full_matrices=False)
        a = a @ vt[:limit].T
        a = a / np.maximum(a.std(0), 1e-12)
    first, second = np.triu_indices(a.shape[1])
    return np.concatenate([a, a[:, first] * a[:, second]], axis=1)


def straight_and_curved(data: Data) -> tuple[float, float] | None:
    """R² of a straight and of a curved fit on rows held back."""
    made = table(data)
    if made is None:
        return None
    x, y = made
    if x.shape[1] > 2000:
        x = x[:, :: x.shape[1] // 2000 + 1]
    return ridge_r2(x, y), ridge_r2(np.concatenate([x, curved_columns(x)], axis=1), y)


def explained_by_steps(data: Data, heard: list[bool], *, x_index: int = 0) -> tuple[float, float] | None:
    """R² of a curved fit on some timesteps of one input, and on all of them; None where targets are not numbers."""
    made = arrays(data, limit=1024)
    if made is None:
        return None
    inputs, targets = made
    x = inputs[x_index].astype("float64")
    if x.ndim != 3 or len(heard) != x.shape[1] or not np.isfinite(x).all():
        return None
    y = np.concatenate([target_columns(t) for t in targets if len(t) == len(x)], axis=1)
    if len(x) < 20 or not np.isfinite(y).all():
        return None

    def fit(part: Any) -> float:
        columns = part.reshape(len(x), -1)
        if columns.shape[1] == 0:
            return 0.0
        columns = columns[:, :: columns.shape[1] // 300 + 1]
        return max(ridge_r2(columns, y), ridge_r2(np.concatenate([columns, curved_columns(columns)], axis=1), y))

    return fit(x[:, np.asarray(heard)]), fit(x)
