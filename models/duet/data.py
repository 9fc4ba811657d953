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


def unify(sets, how="pad", cells=True):
    """One batch from {name: windows(...)} of different width: dict(x, y).

    `how="pad"`: every feature is kept; the narrow sets get masked features. `how="truncate"`: the first features that
    all sets have; simpler, and loses the rest. x holds values, mask, feature_mask and domain. With `cells` the mask is
    (batch, time, features) and a missing value is masked; without, it is (batch, time) and a missing value repeats the
    last one. Windows with a missing value in y are left out.
    """
    if how not in ("pad", "truncate"):
        raise ValueError(f"unify: received how={how!r}, expected 'pad' or 'truncate'.")
    widths = [part["x"].shape[2] for part in sets.values()]
    width = max(widths) if how == "pad" else min(widths)
    rows = {"values": [], "mask": [], "feature_mask": [], "domain": [], "y": []}
    for domain, part in enumerate(sets.values()):
        whole = np.isfinite(part["y"][..., :width]).all(axis=(1, 2))
        x, y = part["x"][whole][..., :width], part["y"][whole][..., :width]
        x = x if cells else repeat_last(x)
        fill = ((0, 0), (0, 0), (0, width - x.shape[2]))
        real = np.isfinite(x)
        rows["values"].append(np.pad(np.where(real, x, 0.0), fill))
        rows["mask"].append(np.pad(real, fill) if cells else np.ones(x.shape[:2], bool))
        rows["feature_mask"].append(np.pad(np.ones((len(x), x.shape[2]), bool), (fill[0], fill[2])))
        rows["domain"].append(np.full(len(x), domain, "int32"))
        rows["y"].append(np.pad(y, fill))
    joined = {name: np.concatenate(parts) for name, parts in rows.items()}
    return {"y": joined.pop("y").astype("float32"), "x": {**joined, "values": joined["values"].astype("float32")}}


def repeat_last(x):
    """(samples, steps, features), each NaN replaced by the value before it, or by 0, the set's mean."""
    place = np.where(np.isfinite(x), np.arange(x.shape[1])[None, :, None], -1)
    last = np.maximum.accumulate(place, axis=1)
    return np.where(last >= 0, np.take_along_axis(x, np.maximum(last, 0), axis=1), 0.0)


def shorten(x, lengths):
    """Windows cut to their last `lengths` steps, moved to the left and padded with zeros on the right."""
    steps = x["values"].shape[1]
    real = np.arange(steps)[None, :] < np.asarray(lengths)[:, None]
    index = np.minimum(np.arange(steps)[None, :] + steps - np.asarray(lengths)[:, None], steps - 1)
    index = index.reshape(*index.shape, 1)
    values = np.where(real[..., None], np.take_along_axis(x["values"], index, axis=1), 0.0)
    mask = x["mask"] if x["mask"].ndim == 3 else x["mask"][..., None]
    mask = np.logical_and(np.take_along_axis(mask, index, axis=1), real[..., None])
    return {**x, "values": values, "mask": mask if x["mask"].ndim == 3 else mask[..., 0]}


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


def synthetic(
    samples=256,
    context=96,
    horizon=24,
    sets=tuple(WIDTHS),
    how="pad",
    cells=False,
    domain=False,
    labels=True,
    seed=0,
):
    """x, y, validation_data and names of an embedded set: windows of the named sets in one batch, split in time.

    One name gives that set alone, with its own width. A quarter of the windows are shorter than the context, padded on
    the right. The validation windows lie after the cut in time; none crosses it. `domain=True` adds the set of each
    window (for the objective "cross_domain"); `labels=False` leaves y out, for self-supervised training.
    """
    each, held, stride = max(1, samples // len(sets)), max(1, samples // len(sets) // 4), 4
    cut = context + horizon + (each + 2 * held) * stride
    rng = np.random.default_rng(seed)
    before, after = {}, {}
    for name in sets:
        series = standardise(make_series(name, cut + context + horizon + 2 * held * stride, seed), cut)
        before[name], after[name] = (windows(part, context, horizon, stride) for part in (series[:cut], series[cut:]))
    parts = []
    for half, count in ((before, each * len(sets)), (after, held * len(sets))):
        joined = unify(half, how, cells)
        order = rng.permutation(len(joined["y"]))[:count]
        lengths = np.where(rng.random(len(order)) < 0.25, rng.integers(context // 2, context, len(order)), context)
        x, y = shorten(take(joined["x"], order), lengths), joined["y"][order]
        if not domain:
            del x["domain"]
        parts.append((x, y) if labels else (x, None))
    width = parts[0][0]["values"].shape[2]
    names = tuple(f"feature_{i}" for i in range(width))
    validation = parts[1] if labels else parts[1][:1]
    return {"x": parts[0][0], "y": parts[0][1], "validation_data": validation, "names": names}
