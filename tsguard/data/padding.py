"""Batches of unequal sequences: lengths padded over time, widths padded over features, both with masks.

Padded time stamps repeat their valid neighbour, so that every padded Δt is 0: under zero-order hold a step of no time
changes no state. Zeros there would be a step of decades into the past.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tsguard.data.windows import as_time
from tsguard.errors import DataError

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Padded:
    """(B, T, F) values with what is real in them."""

    values: npt.NDArray[Any]
    mask: Mask
    """(B, T)"""
    feature_mask: Mask
    """(B, F)"""
    lengths: npt.NDArray[np.int64]
    time: npt.NDArray[Any] | None = None
    """(B, T) int64 or float64."""
    origin: npt.NDArray[np.int64] | None = None
    """(B,) which data set each sequence is from."""

    def deltas(self, until: Any = None) -> npt.NDArray[np.float32]:
        """Time to the next step; the last real step reaches to `until` (B,), or 0 without it. Padded steps are 0."""
        if self.time is None:
            raise DataError("deltas: received a batch without time. Expected time stamps. Pass time= to pad_batch.")
        return time_steps(self.time, self.mask, until=until)


def pad_batch(
    sequences: Sequence[Any],
    *,
    time: Sequence[Any] | None = None,
    origin: Sequence[int] | None = None,
    length: int | None = None,
    width: int | None = None,
    side: Literal["right", "left"] = "right",
    pad_value: float = 0.0,
    dtype: npt.DTypeLike = np.float32,
) -> Padded:
    """Sequences (T,) or (T, F) of any length and width as one batch.

    `length` and `width` default to the longest and widest; a sequence longer or wider than asked is an error, because
    cutting it is a decision. Feature k stays feature k; features are padded behind.
    """
    arrays = [np.asarray(one) for one in sequences]
    arrays = [one[:, None] if one.ndim == 1 else one for one in arrays]
    if not arrays:
        raise DataError("pad_batch: received no sequence. Expected one or more. Mind the selection before it.")
    wrong = [f"{i}: {one.shape}" for i, one in enumerate(arrays) if one.ndim != 2]
    if wrong:
        raise DataError(f"pad_batch: received sequences of shape {wrong}. Expected (time, features). Reshape them.")
    lengths = np.array([len(one) for one in arrays], np.int64)
    widths = np.array([one.shape[1] for one in arrays], np.int64)
    length = int(lengths.max()) if length is None else length
    width = int(widths.max()) if width is None else width
    if lengths.max() > length or widths.max() > width:
        received = f"a sequence of {lengths.max()} steps and {widths.max()} features at most"
        raise DataError(f"pad_batch: received {received}. Expected up to {length} and {width}. Cut it or ask for more.")
    if side not in ("right", "left"):
        raise DataError(f"pad_batch: received side={side!r}. Expected 'right' or 'left'. Choose one.")
    values = np.full((len(arrays), length, width), pad_value, dtype)
    mask = np.zeros((len(arrays), length), bool)
    for row, one in enumerate(arrays):
        first = length - len(one) if side == "left" else 0
        values[row, first : first + len(one), : one.shape[1]] = one
        mask[row, first : first + len(one)] = True
    feature_mask = np.arange(width)[None, :] < widths[:, None]
    padded_time = None if time is None else _pad_time(time, lengths, length, side)
    origins = None if origin is None else np.asarray(origin, np.int64)
    return Padded(values, mask, feature_mask, lengths, padded_time, origins)


def _pad_time(time: Sequence[Any], lengths: npt.NDArray[np.int64], length: int, side: str) -> npt.NDArray[Any]:
    arrays = [as_time(one) for one in time]
    unequal = [i for i, one in enumerate(arrays) if len(one) != lengths[i]]
    if len(arrays) != len(lengths) or unequal:
        raise DataError(f"pad_batch: received time of other lengths than values (sequences {unequal}). Align them.")
    kind = np.float64 if any(one.dtype == np.float64 for one in arrays) else np.int64
    padded = np.zeros((len(arrays), length), kind)
    for row, one in enumerate(arrays):
        if len(one):
            padding = (length - len(one), 0) if side == "left" else (0, length - len(one))
            padded[row] = np.pad(one, padding, mode="edge")
    return padded


def time_steps(time: npt.NDArray[Any], mask: Mask, *, until: Any = None) -> npt.NDArray[np.float32]:
    """Forward differences in full precision, 0 wherever a step is padded, float32 only at the end."""
    steps = np.zeros(time.shape, np.float64)
    steps[:, :-1] = np.where(mask[:, 1:] & mask[:, :-1], np.diff(time, axis=1), 0)
    if until is not None and mask.shape[1]:
        some = mask.any(axis=1)
        last = mask.shape[1] - 1 - np.argmax(mask[:, ::-1], axis=1)
        each = np.arange(len(time))
        reach = as_time(until) - time[each, last]
        steps[each[some], last[some]] = reach[some]
    return np.where(mask, steps, 0.0).astype(np.float32)
