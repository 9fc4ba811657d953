"""Sets of different width made into one batch, and a seeded maker with the look of the four real ones. Numpy alone.

Each set is scaled by itself, from its training rows; a missing value becomes a masked cell, never a number to predict.
"""

from __future__ import annotations

import numpy as np

WIDTHS = {"transformer": 7, "activity": 6, "air": 10, "market": 12}
"""Number of features of the four sets."""


def standardise(series, train_rows):
    """(rows, features) in units of its training rows' mean and deviation, NaN left as it is; a constant becomes 0."""
    series = np.asarray(series, "float64")
    mean, deviation = np.nanmean(series[:train_rows], axis=0), np.nanstd(series[:train_rows], axis=0)
    return ((series - mean) / np.where(deviation > 0, deviation, 1.0)).astype("float32")


def windows(series, context, horizon, stride=1):
    """Dict of x (samples, context, features) and y (samples, horizon, features); NaN stays NaN."""
    length = context + horizon
    starts = np.arange(0, len(series) - length + 1, stride)
    cut = np.asarray(series, "float32")[starts[:, None] + np.arange(length)[None, :]]
    return {"x": cut[:, :context], "y": cut[:, context:]}


def unify(sets, how="pad"):
    """One batch from {name: windows(...)} of different width.

    `how="pad"`: every feature is kept; the narrow sets get masked features. `how="truncate"`: the first features that
    all sets have; simpler, and loses the rest. Returns dict(x, y): x with values, mask (batch, time, features),
    feature_mask and domain; a y that is missing is masked through x's features only, so rows with a NaN in y are left out.
    """
    if how not in ("pad", "truncate"):
        raise ValueError(f"unify: received how={how!r}, expected 'pad' or 'truncate'.")
    widths = [part["x"].shape[2] for part in sets.values()]
    width = max(widths) if how == "pad" else min(widths)
    rows = {"values": [], "mask": [], "feature_mask": [], "domain": [], "y": []}
    for domain, part in enumerate(sets.values()):
        whole = np.isfinite(part["y"][..., :width]).all(axis=(1, 2))
        x, y = part["x"][whole][..., :width], part["y"][whole][..., :width]
        fill = ((0, 0), (0, 0), (0, width - x.shape[2]))
        real = np.isfinite(x)
        rows["values"].append(np.pad(np.where(real, x, 0.0), fill))
        rows["mask"].append(np.pad(real, fill))
        rows["feature_mask"].append(np.pad(np.ones((len(x), x.shape[2]), bool), (fill[0], fill[2])))
        rows["domain"].append(np.full(len(x), domain, "int32"))
        rows["y"].append(np.pad(y, fill))
    joined = {name: np.concatenate(parts) for name, parts in rows.items()}
    return {"y": joined.pop("y").astype("float32"), "x": {**joined, "values": joined["values"].astype("float32")}}


def take(x, index):
    """Samples of an input array or dict."""
    return {name: part[index] for name, part in x.items()} if isinstance(x, dict) else x[index]


def make_series(name, rows, seed=0):
    """(rows, WIDTHS[name]) in the look of the real set: scales, seasons, noise, stuck runs and missing values."""
    rng = np.random.default_rng([seed, list(WIDTHS).index(name)])
    width, time = WIDTHS[name], np.arange(rows)[:, None]
    if name == "activity":
        regime = rng.integers(0, 7, rows // 60 + 1).repeat(60)[:rows]
        level = rng.uniform(5, 45, (7, width))[regime]
        return level + rng.gamma(1.5, 1.0, (rows, width)) * (1 + regime[:, None] / 3)
    if name == "market":
        price = 20 * np.exp(np.cumsum(rng.standard_t(4, (rows, 1)) * 0.01, axis=0))
        spread = np.abs(rng.normal(0, 0.02, (rows, width)))
        return price * (1 + spread * np.where(np.arange(width) % 2, 1, -1))
    season = np.sin(2 * np.pi * (time / 24 + rng.uniform(0, 1, width))) * rng.uniform(0.5, 2, width)
    week = np.sin(2 * np.pi * (time / 168 + rng.uniform(0, 1, width))) * 0.5
    wander = np.cumsum(rng.normal(0, 0.05, (rows, width)), axis=0)
    series = 10 + 4 * (season + week) + wander + rng.normal(0, 0.5, (rows, width))
    if name == "air":
        scale = 10.0 ** rng.integers(0, 4, width)
        gone = rng.random((rows // 12 + 1, width)).repeat(12, axis=0)[:rows] < 0.04
        series = np.where(gone, np.nan, series * scale)
    else:
        start = rng.integers(0, max(1, rows - 100))
        series[start : start + 40, rng.integers(width)] = series[start, 0]
    return series


def synthetic(samples=256, context=96, horizon=24, sets=tuple(WIDTHS), how="pad", labels=True, seed=0):
    """x, y, validation_data and names of an embedded set: windows of the named sets in one batch, split in time.

    One name gives that set alone, with its own width. The first half of `samples` per set comes before the cut, the
    validation windows after it; none crosses it. `labels=False` leaves y out, for self-supervised training.
    """
    each, held = max(1, samples // len(sets)), max(1, samples // len(sets) // 4)
    stride = 4
    train, validation = {}, {}
    for name in sets:
        cut = context + horizon + (each + 2 * held) * stride
        series = make_series(name, cut + context + horizon + 2 * held * stride, seed)
        series = standardise(series, cut)
        train[name] = windows(series[:cut], context, horizon, stride)
        validation[name] = windows(series[cut:], context, horizon, stride)
    rng = np.random.default_rng(seed)
    parts = []
    for half, count in ((train, each * len(sets)), (validation, held * len(sets))):
        joined = unify(half, how)
        order = rng.permutation(len(joined["y"]))[:count]
        x, y = take(joined["x"], order), joined["y"][order]
        parts.append((x, y if labels else None))
    width = parts[0][0]["values"].shape[2]
    return {"x": parts[0][0], "y": parts[0][1], "validation_data": parts[1] if labels else (parts[1][0],),
            "names": tuple(f"feature_{i}" for i in range(width))}  # fmt: skip
