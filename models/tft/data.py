"""Series made ready for the network: a scale for each target, windows, the hour, and a seeded maker. Numpy alone."""

from typing import Any

import numpy as np

# A series whose spread is below this share of its own size is constant for every practical purpose: it is only centred.
CONSTANT_SPREAD = 1e-8


class TargetNormalizer:
    """Mean and spread of every target by itself, and by group where groups (hosts, series) are given.

    Fit it on the training rows only. A group of one row, or a constant one, has no spread: it takes the spread over
    all groups, and 1 where there is none at all, so that nothing is ever divided by zero or NaN. Missing values are
    left out. `log` names the targets (one bool each) that are taken as log(1 + y): counts and rates with heavy tails.
    Quantiles pass through any rising function unharmed, so this costs a quantile forecast nothing.
    """

    def __init__(self, log=()) -> None:
        self.log = np.asarray(log, bool)

    def fit(self, y, groups=None) -> "TargetNormalizer":
        y = self._compressed(np.asarray(y, np.float64).reshape(-1, np.shape(y)[-1]))
        self.mean, self.scale = _moments(y, np.zeros(y.shape[1]), np.ones(y.shape[1]))
        self.by_group = {}
        if groups is not None:
            groups = np.asarray(groups)
            self.by_group = {g: _moments(y[groups == g], self.mean, self.scale) for g in np.unique(groups).tolist()}
        return self

    def transform(self, y, group=None) -> np.ndarray:
        mean, scale = self.by_group.get(group, (self.mean, self.scale))
        return (self._compressed(np.asarray(y, np.float64)) - mean) / scale

    def inverse(self, y, group=None, *, quantiles: bool = False) -> np.ndarray:
        """Back to the units of the target; `quantiles=True` where a quantile axis follows the targets."""
        mean, scale = self.by_group.get(group, (self.mean, self.scale))
        log = self.log if self.log.size else np.zeros(mean.shape, bool)
        if quantiles:
            mean, scale, log = mean[:, None], scale[:, None], log[:, None]
        y = np.asarray(y, np.float64) * scale + mean
        return np.where(log, np.expm1(np.where(log, y, 0.0)), y)

    def _compressed(self, y: np.ndarray) -> np.ndarray:
        if not self.log.any():
            return y
        if np.nanmin(y[..., self.log]) <= -1:
            raise ValueError(f"log=True needs targets above -1; received {np.nanmin(y[..., self.log]):g}.")
        return np.where(self.log, np.log1p(np.where(self.log, y, 0.0)), y)


def _moments(y: np.ndarray, default_mean: np.ndarray, default_scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    present = np.isfinite(y)
    count = present.sum(axis=0)
    filled = np.where(present, y, 0.0)
    mean = np.where(count > 0, filled.sum(axis=0) / np.maximum(count, 1), default_mean)
    spread = np.sqrt((np.where(present, y - mean, 0.0) ** 2).sum(axis=0) / np.maximum(count, 1))
    varies = spread > CONSTANT_SPREAD * np.maximum(np.abs(mean), 1.0)
    return mean, np.where(varies, spread, default_scale)


def windows(series, *, past: int, horizon: int, stride: int = 1, known=None) -> dict[str, np.ndarray]:
    """Cuts rows (time, variables) into `values`, `target` and, from covariates (time, known), the `known` of the
    horizon."""
    series = np.asarray(series)
    starts = np.arange(0, len(series) - past - horizon + 1, stride)
    cut = {
        "values": series[starts[:, None] + np.arange(past)],
        "target": series[starts[:, None] + past + np.arange(horizon)],
        "origin": starts + past - 1,
    }
    if known is not None:
        cut["known"] = np.asarray(known)[starts[:, None] + past + np.arange(horizon)]
    return cut


def hour_of_day(hours) -> np.ndarray:
    """Sine and cosine of the hour, for `known`."""
    angle = 2 * np.pi * np.asarray(hours, np.float64) / 24
    return np.stack([np.sin(angle), np.cos(angle)], axis=-1).astype(np.float32)


def synthetic(
    *, num_windows: int = 256, past: int = 48, horizon: int = 12, short_share: float = 0.25, seed: int = 0
) -> dict[str, Any]:
    """Server metrics of three kinds of host: a daily load that drives cpu, memory, disk and request load, with bursts.

    Five-minute steps; disk follows memory late, load has heavy tails. A share of the windows is younger than `past`
    steps and padded on the right. Windows of the last fifth of the time are for validation.
    """
    rng = np.random.default_rng(seed)
    steps_per_day, kinds = 288, 3
    length = 6 * steps_per_day
    hours = np.arange(length) * 24 / steps_per_day
    every = [_host(rng, kind, length, steps_per_day) for kind in range(kinds)]
    rows = {key: [] for key in ("values", "known", "static", "mask", "target", "origin")}
    for kind, series in enumerate(every):
        normalizer = TargetNormalizer().fit(series[: int(0.8 * length)])
        cut = windows(normalizer.transform(series), past=past, horizon=horizon, known=hour_of_day(hours))
        pick = np.sort(rng.choice(len(cut["origin"]), num_windows // kinds + 1, replace=False))
        valid = np.where(rng.random(len(pick)) < short_share, rng.integers(past // 4, past, len(pick)), past)
        mask = np.arange(past) < valid[:, None]
        source = np.minimum(np.arange(past) + (past - valid)[:, None], past - 1)  # the newest steps, moved to the left
        values = np.take_along_axis(cut["values"][pick], source[..., None], axis=1)
        rows["values"].append(np.where(mask[..., None], values, 0.0))
        rows["mask"].append(mask)
        rows["static"].append(np.tile(np.eye(kinds)[kind], (len(pick), 1)))
        for key in ("known", "target", "origin"):
            rows[key].append(cut[key][pick])
    data = {key: np.concatenate(parts) for key, parts in rows.items()}
    order = np.argsort(data.pop("origin"), kind="stable")[:num_windows]
    data = {k: v[order] if v.dtype == bool else v[order].astype("float32") for k, v in data.items()}
    y, split = data.pop("target"), int(0.8 * num_windows)
    names = {
        "values": ["cpu", "memory", "disk", "load"],
        "known": ["hour_sin", "hour_cos"],
        "static": ["web", "database", "batch"],
        "targets": ["cpu", "memory", "disk", "load"],
    }
    return {
        "x": {k: v[:split] for k, v in data.items()},
        "y": y[:split],
        "validation_data": ({k: v[split:] for k, v in data.items()}, y[split:]),
        "names": names,
    }


def _host(rng: np.random.Generator, kind: int, length: int, steps_per_day: int) -> np.ndarray:
    time = np.arange(length)
    daily = np.sin(2 * np.pi * (time / steps_per_day - 0.3 - 0.1 * kind))
    drive = 0.6 * daily + _autoregressive(rng, length, 0.95, 0.15)
    bursts = np.convolve((rng.random(length) < 0.01) * rng.exponential(2.0, length), 0.8 ** np.arange(12))[:length]
    cpu = 35 + 10 * kind + 15 * drive + 8 * bursts + rng.normal(0, 1.5, length)
    memory = 60 + 6 * _autoregressive(rng, length, 0.99, 0.1) + 5 * drive
    disk = 200 + 40 * np.roll(memory - 60, 3) / 6 + rng.normal(0, 6, length)
    load = np.exp(2 + 0.5 * drive + 0.3 * bursts + rng.normal(0, 0.15, length))
    return np.stack([cpu, memory, disk, load], axis=-1)


def _autoregressive(rng: np.random.Generator, length: int, coefficient: float, scale: float) -> np.ndarray:
    out = np.zeros(length)
    for i, noise in enumerate(rng.normal(0, scale, length - 1)):
        out[i + 1] = coefficient * out[i] + noise
    return out
