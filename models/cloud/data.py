"""Frames made ready: what a simple model gets of them, sequences and what lies ahead, and a seeded maker. In numpy."""

from typing import Any

import numpy as np


def simple_features(frames, mask=None, grid: int = 4) -> np.ndarray:
    """What boosted trees or a ridge get: of each frame, newest first, mean, spread, extremes and a coarse grid.

    Absent frames repeat the oldest valid one.
    """
    frames = np.asarray(frames, np.float64)[..., 0]
    count, time = frames.shape[:2]
    mask = np.ones((count, time), bool) if mask is None else np.asarray(mask, bool)
    order = np.argsort(~mask[:, ::-1], axis=1, kind="stable")
    last = np.maximum(mask.sum(axis=1), 1) - 1
    order = np.take_along_axis(order, np.minimum(np.arange(time), last[:, None]), axis=1)
    frames = np.take_along_axis(frames[:, ::-1], order[..., None, None], axis=1)
    rows = [np.array_split(part, grid, axis=-1) for part in np.array_split(frames, grid, axis=-2)]
    cells = [cell.mean(axis=(-2, -1)) for row in rows for cell in row]
    whole = [getattr(frames, name)(axis=(-2, -1)) for name in ("mean", "std", "min", "max")]
    return np.stack(whole + cells, axis=-1).reshape(count, -1)


def sequences(fields, *, num_frames: int, ahead: int) -> tuple[np.ndarray, np.ndarray]:
    """Every run of `num_frames` consecutive fields, and the index of the field that lies `ahead` steps after its last
    one."""
    starts = np.arange(len(fields) - num_frames - ahead + 1)
    return np.asarray(fields)[starts[:, None] + np.arange(num_frames)], starts + num_frames - 1 + ahead


def synthetic(
    *, num_samples: int = 320, size: int = 16, num_frames: int = 5, short_share: float = 0.3, seed: int = 0
) -> dict[str, Any]:
    """Clouds that drift, grow and fade over a field; the target is the cover over its middle two steps later,
    standardised.

    Drift differs from sample to sample, so one frame is not enough. A share of the samples has fewer frames, down to
    one, padded on the right. `aux` holds sine and cosine of the hour, on which the growth depends.
    """
    rng = np.random.default_rng(seed)
    axis = np.arange(size)
    moments = np.arange(num_frames + 2)
    place = rng.uniform(-0.3 * size, 1.3 * size, (num_samples, 6, 2))
    drift = rng.normal(0, 0.06 * size, (num_samples, 1, 2)) + rng.normal(0, 0.01 * size, (num_samples, 6, 2))
    width = rng.uniform(0.08, 0.2, (num_samples, 6)) * size
    hour = rng.uniform(0, 2 * np.pi, num_samples)
    centre = place[:, None] + drift[:, None] * moments[:, None, None]
    growth = np.exp(0.12 * np.sin(hour)[:, None] * moments)
    squared = (axis[:, None] - centre[..., 0][..., None, None]) ** 2 + (axis - centre[..., 1][..., None, None]) ** 2
    blobs = np.exp(-squared / (2 * width[:, None, :, None, None] ** 2)).sum(axis=2)
    cover = np.tanh(blobs * growth[..., None, None])
    middle = slice(size // 4, size - size // 4)
    target = cover[:, -1, middle, middle].mean(axis=(1, 2))
    frames = cover[:, :num_frames, ..., None] + rng.normal(0, 0.02, (num_samples, num_frames, size, size, 1))
    count = np.where(rng.random(num_samples) < short_share, rng.integers(1, num_frames, num_samples), num_frames)
    mask = np.arange(num_frames) < count[:, None]
    source = np.minimum(np.arange(num_frames) + (num_frames - count)[:, None], num_frames - 1)
    frames = np.take_along_axis(frames, source[..., None, None, None], axis=1) * mask[..., None, None, None]
    split = int(0.8 * num_samples)
    y = ((target - target[:split].mean()) / target[:split].std()).astype("float32")[:, None]
    x = {
        "frames": ((frames - 0.3) * mask[..., None, None, None]).astype("float32"),
        "mask": mask,
        "aux": np.stack([np.sin(hour), np.cos(hour)], axis=-1).astype("float32"),
    }
    return {
        "x": {k: v[:split] for k, v in x.items()},
        "y": y[:split],
        "validation_data": ({k: v[split:] for k, v in x.items()}, y[split:]),
        "names": {"frames": ["cover"], "aux": ["hour_sin", "hour_cos"], "targets": ["cover ahead"]},
    }
