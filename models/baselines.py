"""What any model must beat: forecasts, classes and rankings that need no training loop (`below-baseline`).

Plain numpy. A forecast takes windows (samples, steps, features) and returns (samples, horizon, features).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


def last_value(x, horizon, mask=None):
    """Every step ahead is the last valid value of its feature; 0 where a sample has none."""
    x = np.asarray(x)
    cells = np.ones(x.shape, bool) if mask is None else _cells(mask, x.shape)
    steps = np.arange(x.shape[1])[None, :, None]
    last = np.where(cells, steps, -1).max(axis=1)
    values = np.take_along_axis(x, np.maximum(last, 0)[:, None], axis=1)
    return np.repeat(np.where(last[:, None] >= 0, values, 0.0), horizon, axis=1)


def seasonal_naive(x, horizon, period=24):
    """Every step ahead is the value one or more whole periods before; needs windows of at least one period."""
    x = np.asarray(x)
    if x.shape[1] < period:
        raise ValueError(f"seasonal_naive: windows of {x.shape[1]} steps are shorter than the period of {period}.")
    ahead = np.arange(horizon) % period
    return x[:, x.shape[1] - period :][:, ahead]


def train_mean(train, samples, horizon):
    """The mean of the training rows (rows, features), NaN left out, for every sample and step."""
    mean = np.nanmean(np.asarray(train, "float64"), axis=0)
    return np.broadcast_to(mean, (samples, horizon, mean.shape[-1]))


@dataclass(frozen=True)
class LeastSquares:
    """Linear map from the last-value-normalised past to the last-value-normalised future, one for all features."""

    weight: np.ndarray
    """(steps + 1, horizon); the last row is the intercept."""

    @classmethod
    def fit(cls, series, steps, horizon, ridge=0.0, block=1024):
        """The closed-form solution over every window (stride 1) of the rows (rows, features), accumulated in float64.

        `ridge` is added to the diagonal; without it the minimum-norm solution is taken, so that constant windows and
        short series have an answer too.
        """
        windows = sliding_windows(np.asarray(series, "float64"), steps + horizon)
        gram, moment = np.zeros((steps + 1, steps + 1)), np.zeros((steps + 1, horizon))
        for start in range(0, len(windows), block):
            part = windows[start : start + block].transpose(0, 2, 1).reshape(-1, steps + horizon)
            past, last = part[:, :steps], part[:, steps - 1 : steps]
            design = np.concatenate([past - last, np.ones_like(last)], axis=1)
            gram += design.T @ design
            moment += design.T @ (part[:, steps:] - last)
        gram[np.diag_indices(steps)] += ridge
        return cls(np.linalg.lstsq(gram, moment, rcond=None)[0])

    def predict(self, x):
        """(samples, steps, features) to (samples, horizon, features)."""
        x = np.asarray(x, "float64")
        last = x[:, -1:]
        ahead = np.einsum("ntf,th->nhf", x - last, self.weight[:-1], optimize=True)
        return ahead + self.weight[-1][None, :, None] + last


def majority_class(y_train, samples):
    """The most frequent class (the smallest of equals), for every sample."""
    classes, counts = np.unique(np.asarray(y_train), return_counts=True)
    return np.full(samples, classes[np.argmax(counts)])


def popularity(train_items, items, samples=None):
    """Scores of all `items` ids, the same for every user: how often each occurs in training (id 0 is padding: −inf)."""
    counts = np.bincount(np.asarray(train_items, "int64").ravel(), minlength=items + 1)[: items + 1].astype("float64")
    counts[0] = -np.inf
    return counts if samples is None else np.broadcast_to(counts, (samples, items + 1))


def sliding_windows(series, length, stride=1):
    """(windows, length, features) as a view of (rows, features); none where the series is too short."""
    series = np.asarray(series)
    if len(series) < length:
        return np.empty((0, length, series.shape[1]), series.dtype)
    return np.lib.stride_tricks.sliding_window_view(series, length, axis=0)[::stride].transpose(0, 2, 1)


def _cells(mask, shape):
    mask = np.asarray(mask, bool)
    return np.broadcast_to(mask if mask.ndim == 3 else mask[:, :, None], shape)
