"""Windows cut by index: the data is held once, a window is two numbers, and only a batch is ever copied.

A window ends where its target begins. Windows never straddle two entities or a gap: rows are first divided into
segments, and anchors are laid inside each. Time stays int64 or float64; only differences of it become float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tsguard.errors import DataError

Array = npt.NDArray[Any]
Index = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """What a batch of windows holds. Axes: B windows, L steps, F features, H horizon, T targets."""

    x: Array
    """(B, L, F)"""
    y: Array
    """(B, H, T)"""
    mask: npt.NDArray[np.bool_]
    """(B, L); False where a window shorter than L was padded."""
    rows: Index
    """(B,) row of the data set at which each window's targets begin."""
    time: Array | None = None
    """(B, L) int64 or float64 as given; padded steps repeat their neighbour, so that their Δt is 0."""
    delta: npt.NDArray[np.float32] | None = None
    """(B, L) time to the next step, the last one up to the first target; taken in full precision, then float32."""


def segments(
    num_rows: int, *, entities: Array | None = None, time: Array | None = None, max_gap: float | None = None
) -> Index:
    """(S, 2) first and past-the-end rows of what no window may straddle: one entity, without a gap in time."""
    if num_rows == 0:
        return np.zeros((0, 2), np.int64)
    cut = np.zeros(num_rows - 1, bool)
    if entities is not None:
        entities = np.asarray(entities)
        cut |= entities[1:] != entities[:-1]
    if max_gap is not None:
        if time is None:
            raise DataError("segments: received max_gap without time. Expected time to measure gaps in. Pass time=.")
        steps = np.diff(as_time(time))
        cut |= (steps > max_gap) | (steps < 0)
    edges = np.concatenate([[0], np.flatnonzero(cut) + 1, [num_rows]])
    return np.stack([edges[:-1], edges[1:]], axis=1).astype(np.int64)


def as_time(time: Any) -> Array:
    """Time as int64 (integers, datetime64) or float64; a narrower float is refused because it has lost the seconds."""
    array = np.asarray(time)
    if array.dtype.kind == "M":
        return array.astype("datetime64[ns]").astype(np.int64)
    if array.dtype.kind in "iu":
        return array.astype(np.int64)
    if array.dtype == np.float64:
        return array
    raise DataError(
        f"time: received {array.dtype}. Expected int64, float64 or datetime64: one step of float32 at today's epoch "
        "seconds is 128 s. Keep time wide until differences are taken."
    )


class Windows:
    """A sequence of windows over an array of rows. `len(windows)`, `windows[i]`, and `take(indices)` for a batch."""

    def __init__(
        self,
        values: Array,
        *,
        length: int,
        horizon: int = 1,
        stride: int = 1,
        targets: Sequence[int] | Array | None = None,
        min_length: int | None = None,
        offset: int = 0,
        time: Any = None,
        entities: Array | None = None,
        max_gap: float | None = None,
        rows: slice | tuple[int, int] | None = None,
        side: str = "right",
        pad_value: float = 0.0,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        """Cut `values` (N,) or (N, F) into windows of `length` rows with targets in the `horizon` rows that follow.

        `targets` are columns of `values`, or an array (N,) or (N, T) of its own; default: every column. `offset` rows
        lie between a window and its targets. With `min_length` the first windows of a segment may be shorter; they are
        padded on `side`. `rows` restricts windows *and* targets to a range of rows.
        """
        values = np.asarray(values)
        values = values[:, None] if values.ndim == 1 else values
        if values.ndim != 2:
            raise DataError(
                f"windows: received shape {values.shape}. Expected (rows, features). Cut one array at a time."
            )
        for word, number, least in (("length", length, 1), ("horizon", horizon, 0), ("stride", stride, 1)):
            if number < least:
                raise DataError(f"windows: received {word}={number}. Expected {least} or more. Mend the configuration.")
        if side not in ("right", "left"):
            raise DataError(f"windows: received side={side!r}. Expected 'right' or 'left'. Choose one.")
        self.values = np.ascontiguousarray(values, dtype=dtype)
        self.length, self.horizon, self.stride, self.offset = length, horizon, stride, offset
        self.side, self.pad_value = side, pad_value
        self.min_length = length if min_length is None else min(min_length, length)
        self.time = None if time is None else np.ascontiguousarray(as_time(time))
        self.target_values = self._targets(values, targets, dtype)
        first, last = _range(rows, len(values))
        spans = segments(len(values), entities=entities, time=self.time, max_gap=max_gap)
        spans = np.clip(spans, first, last)
        self.starts, self.anchors = self._anchors(spans[spans[:, 1] > spans[:, 0]])
        self._all_full = bool((self.anchors - self.starts == length).all())
        self._x_view = _sliding(self.values, length)
        self._y_view = _sliding(self.target_values, horizon) if horizon else None
        self._time_view = None if self.time is None else _sliding(self.time[:, None], length)

    def _targets(self, values: Array, targets: Sequence[int] | Array | None, dtype: npt.DTypeLike) -> Array:
        if targets is None:
            return self.values
        if isinstance(targets, np.ndarray) and (targets.ndim == 2 or len(targets) == len(values)):
            own = targets[:, None] if targets.ndim == 1 else targets
            if len(own) != len(values):
                raise DataError(f"windows: received {len(own)} rows of targets. Expected {len(values)}. Align them.")
            kept = own.dtype if own.dtype.kind in "iub" else np.dtype(dtype)  # class labels stay whole numbers
            return np.ascontiguousarray(own, dtype=kept)
        columns = [int(column) for column in targets]
        beyond = [column for column in columns if not -values.shape[1] <= column < values.shape[1]]
        if beyond:
            raise DataError(f"windows: received target columns {beyond}. Expected below {values.shape[1]}. Mend them.")
        return np.ascontiguousarray(values[:, columns], dtype=dtype)

    def _anchors(self, spans: Index) -> tuple[Index, Index]:
        """First row of each window, and the row at which its past ends (its targets begin `offset` rows later)."""
        starts, anchors = [], []
        for first, end in spans:
            anchor = np.arange(first + self.min_length, end - self.offset - self.horizon + 1, self.stride)
            anchors.append(anchor)
            starts.append(np.maximum(first, anchor - self.length))
        if not anchors:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        return np.concatenate(starts).astype(np.int64), np.concatenate(anchors).astype(np.int64)

    def __len__(self) -> int:
        return len(self.anchors)

    def __getitem__(self, index: int) -> Batch:
        if not -len(self) <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        return self.take(np.array([index % len(self)]))

    @property
    def span(self) -> int:
        """Rows that one window touches with its targets: what a split must be purged by."""
        return self.length + self.offset + self.horizon

    def take(self, indices: Any) -> Batch:
        """The windows with these indices as one batch. This is the only place where values are copied."""
        indices = np.asarray(indices, np.int64)
        starts, anchors = self.starts[indices], self.anchors[indices]
        lengths = anchors - starts
        rows = anchors + self.offset
        full = self._all_full or bool((lengths == self.length).all())
        if full:
            x = self._x_view[starts].reshape(len(starts), self.length, self.values.shape[1])
            mask = np.ones((len(indices), self.length), bool)
        else:
            positions, mask = self._positions(starts, lengths)
            x = self.values[positions]
            x[~mask] = self.pad_value
        if self._y_view is None:
            y: Array = np.zeros((len(indices), 0, self.target_values.shape[1]), self.target_values.dtype)
        else:
            y = self._y_view[rows].reshape(len(rows), self.horizon, self.target_values.shape[1])
        if self.time is None or self._time_view is None:
            return Batch(x, y, mask, rows)
        if full:
            time = self._time_view[starts]
        else:
            time = self.time[positions]  # positions repeat the neighbour where padded
        return Batch(x, y, mask, rows, time, self._delta(time, mask, rows))

    def _positions(self, starts: Index, lengths: Index) -> tuple[Index, npt.NDArray[np.bool_]]:
        """Row of every step; padded steps point at their valid neighbour."""
        steps = np.arange(self.length)[None, :]
        shift = (self.length - lengths)[:, None] if self.side == "left" else 0
        relative = steps - shift
        mask = (relative >= 0) & (relative < lengths[:, None])
        return starts[:, None] + np.clip(relative, 0, lengths[:, None] - 1), mask

    def _delta(self, time: Array, mask: npt.NDArray[np.bool_], rows: Index) -> npt.NDArray[np.float32]:
        assert self.time is not None
        delta = np.zeros(time.shape, np.float64)
        delta[:, :-1] = np.diff(time, axis=1)
        last = self.length - 1 - np.argmax(mask[:, ::-1], axis=1)
        until = self.time[np.minimum(rows, len(self.time) - 1)]
        each = np.arange(len(time))
        delta[each, last] = until - time[each, last]
        return np.where(mask, delta, 0.0).astype(np.float32)


def _range(rows: slice | tuple[int, int] | None, num_rows: int) -> tuple[int, int]:
    if rows is None:
        return 0, num_rows
    if isinstance(rows, tuple):
        rows = slice(*rows)
    first, last, step = rows.indices(num_rows)
    if step != 1:
        raise DataError(f"windows: received rows with step {step}. Expected every row. Use stride= for the windows.")
    return first, last


def _sliding(values: Array, length: int) -> Array:
    """(N − length + 1, length · F): a view in which every window is one contiguous stretch, copied as one block."""
    count = max(0, len(values) - length + 1)
    row, cell = values.strides[0], values.itemsize
    width = length * values.shape[1]
    return np.lib.stride_tricks.as_strided(values, (count, width), (row, cell), writeable=False)
