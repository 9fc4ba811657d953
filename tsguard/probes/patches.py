"""What a small convolution could read off pictures and windows, without training one: answers to patches of the data.

Patches cut from the data itself serve as filters, and the strongest and the mean answer of each over all places are the
features (Coates and Ng 2012 found random patches to be nearly as good as learned ones). A straight line on these is a
closed-form fit that does not care where in a picture something stands, which a fit on its cells cannot do.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

FILTERS = 64
"""Patches: a line on twice as many features is determined by a few hundred rows."""

SIDES = (3, 5)
"""Widths of patches: a step of a stroke, and a stroke."""

PLACES = 400
"""Places of a sample that are looked at; a larger one is looked at in coarser steps."""

ROWS_AT_ONCE = 64
"""Rows whose places are held at a time."""


def patch_columns(array: Any) -> Floats | None:
    """(rows, features) of (rows, height, width, channels) or (rows, steps, channels); None for other shapes."""
    if array.ndim not in (3, 4) or array.dtype.kind not in "fiu" or min(array.shape[1:-1]) < 4:
        return None
    pictures = array[:, :, None] if array.ndim == 3 else array
    rng = np.random.default_rng(3)
    parts = []
    for side in SIDES:
        height, width = min(side, pictures.shape[1]), min(side, pictures.shape[2])
        filters = _drawn(pictures, height, width, rng)
        if filters is not None:
            parts.append(_answers(pictures, height, width, filters))
    return np.concatenate(parts, axis=1) if parts else None


def _drawn(pictures: Any, height: int, width: int, rng: np.random.Generator) -> Any:
    """Patches of the data, centred and of length one; flat ones are no filters."""
    kept = []
    for _ in range(8 * FILTERS):
        row = rng.integers(len(pictures))
        top = rng.integers(pictures.shape[1] - height + 1)
        left = rng.integers(pictures.shape[2] - width + 1)
        patch = pictures[row, top : top + height, left : left + width].astype(np.float32).ravel()
        patch = patch - patch.mean()
        size = float(np.linalg.norm(patch))
        if np.isfinite(size) and size > 0:
            kept.append(patch / size)
        if len(kept) == FILTERS // len(SIDES):
            break
    return np.stack(kept, axis=1) if len(kept) >= 4 else None


def _answers(pictures: Any, height: int, width: int, filters: Any) -> Floats:
    places = (pictures.shape[1] - height + 1) * (pictures.shape[2] - width + 1)
    step = int(np.ceil(np.sqrt(places / PLACES))) if pictures.shape[2] > 1 else int(np.ceil(places / PLACES))
    made = []
    for first in range(0, len(pictures), ROWS_AT_ONCE):
        rows = np.nan_to_num(pictures[first : first + ROWS_AT_ONCE].astype(np.float32))
        view = np.lib.stride_tricks.sliding_window_view(rows, (height, width), axis=(1, 2))
        view = view[:, ::step, :: step if pictures.shape[2] > width else 1]
        # Patches were cut as (height, width, channels); the view puts channels first.
        cells = np.moveaxis(view, 3, -1).reshape(len(rows), view.shape[1] * view.shape[2], -1)
        answers = cells @ filters
        made.append(np.concatenate([answers.max(axis=1), np.maximum(answers, 0.0).mean(axis=1)], axis=1))
    return np.concatenate(made).astype(np.float64)
