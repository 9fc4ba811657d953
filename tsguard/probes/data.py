"""What can be measured of raw arrays: holes, codes for missing, scale, stuck pixels, order in time. No judgement.

Arrays have samples on axis 0 and features on the last one; what lies between is time, or time and space.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

STATISTICS_ROWS = 20_000
"""Rows that means and quantiles are taken from, evenly spaced. Holes and bounds are looked for in every row."""

FIRST_SHOWN = 5
"""Places of one kind that are kept: the first ones are enough to find the fault."""

_CHUNK_CELLS = 4_000_000


def as_array(leaf: Any) -> Array:
    """A numpy view of an array, tensor or frame, wherever it lies."""
    if hasattr(leaf, "detach"):
        leaf = leaf.detach().cpu()
    return np.asarray(leaf)


def is_number(array: Array) -> bool:
    """Whether arithmetic with it means something."""
    return array.dtype.kind in "fiu"


def chunks(array: Array) -> Iterator[tuple[int, Array]]:
    """(first row, rows) in pieces of a few million cells, so that no temporary is as large as the data."""
    rows = max(1, _CHUNK_CELLS // max(1, int(np.prod(array.shape[1:], dtype=np.int64))))
    for start in range(0, len(array), rows):
        yield start, array[start : start + rows]


def thinned(array: Array, rows: int = STATISTICS_ROWS) -> Array:
    """At most `rows` rows, evenly spaced; in order."""
    if len(array) <= rows:
        return array
    return array[np.linspace(0, len(array) - 1, rows).astype(np.int64)]


def by_feature(array: Array) -> Array:
    """(cells, features): everything but the last axis flattened. A vector is one feature."""
    return array.reshape(-1, 1) if array.ndim < 2 else array.reshape(-1, array.shape[-1])


@dataclass(frozen=True, slots=True)
class Places:
    """How often something was seen, and where first: full indices into the array, with the values there."""

    count: int
    total: int
    first: tuple[tuple[int, ...], ...]
    values: tuple[float, ...]

    @property
    def share(self) -> float:
        """Share of all cells."""
        return self.count / self.total if self.total else 0.0


def nonfinite(array: Array, *, valid: Array | None = None) -> Places:
    """NaN and infinities, but for places where `valid` (broadcast over features) is False."""
    if array.dtype.kind != "f":
        return Places(0, array.size, (), ())
    count = 0
    first: list[tuple[int, ...]] = []
    values: list[float] = []
    for start, rows in chunks(array):
        bad = ~np.isfinite(rows)
        if valid is not None:
            allowed = valid[start : start + len(rows)]
            bad &= allowed.reshape(allowed.shape + (1,) * (bad.ndim - allowed.ndim))
        found = int(bad.sum())
        if found and len(first) < FIRST_SHOWN:
            for place in np.argwhere(bad)[: FIRST_SHOWN - len(first)]:
                first.append((int(place[0]) + start, *(int(axis) for axis in place[1:])))
                values.append(float(rows[tuple(place)]))
        count += found
    return Places(count, array.size, tuple(first), tuple(values))


@dataclass(frozen=True, slots=True)
class Sentinel:
    """A value that repeats exactly, far outside the rest of its column."""

    feature: int
    value: float
    count: int
    rows: tuple[int, ...]
    nearest: float
    """The nearest value of the rest."""


SENTINEL_REPEATS = 3
"""An exact value that comes at least this often is no accident in data with many distinct values."""
SENTINEL_DISTINCT = 20
"""The rest must have this many distinct values: among a few codes every value is far from the next."""
SENTINEL_GAP = 3.0
"""The gap between code and data, in units of the data's own tail (its last 5 %) on that side: nearer, it is a tail."""
_LIMITS = {
    float(limit) for bits in (15, 16, 31, 32, 63, 64) for limit in (2**bits, 2**bits - 1, -(2**bits), 1 - 2**bits)
}


def looks_like_code(value: float) -> bool:
    """A number that people choose to mean "nothing": −200, −999, 9999, 1e20, the end of an integer type."""
    if not np.isfinite(value):
        return False
    if value in _LIMITS or abs(value) >= 1e20:
        return True
    if value != int(value) or abs(value) < 50:
        return False
    digits = str(abs(int(value)))
    return set(digits) == {"9"} or (len(digits) > 2 and set(digits[1:]) == {"0"}) or digits == "8" * len(digits)


def sentinels(array: Array) -> list[Sentinel]:
    """Codes for missing among numbers, feature by feature."""
    found = []
    columns = by_feature(array)
    per_row = max(1, len(columns) // max(1, len(array)))
    for feature in range(columns.shape[1]):
        column = columns[:, feature]
        held = column[np.isfinite(column)] if column.dtype.kind == "f" else column
        if len(held) <= SENTINEL_DISTINCT:
            continue
        for extreme in (held.min(), held.max()):  # kept as they are: float64 would make others of large integers
            value = float(extreme)
            if not looks_like_code(value):
                continue
            rest = held[held != extreme]
            count = len(held) - len(rest)
            if count < SENTINEL_REPEATS or len(rest) < SENTINEL_DISTINCT:
                continue
            sample = thinned(rest).astype(np.float64)
            if len(np.unique(sample)) < SENTINEL_DISTINCT:
                continue
            below = value < float(rest.min())
            nearest = float(rest.min() if below else rest.max())
            tail = abs(float(np.quantile(sample, 0.05 if below else 0.95)) - nearest)
            if abs(nearest - value) > SENTINEL_GAP * tail:
                rows = np.flatnonzero(column == extreme)[:FIRST_SHOWN] // per_row
                found.append(Sentinel(feature, value, count, tuple(int(row) for row in rows), nearest))
    return found


@dataclass(frozen=True, slots=True)
class Scale:
    """Size and spread of one feature."""

    feature: int
    mean: float
    std: float
    rms: float
    low: float
    high: float
    constant: bool
    """No spread at all; judged before rounding, for integers beyond 2⁵³ that are different look alike as floats."""


def scales(array: Array) -> list[Scale]:
    """Of every feature, over finite values; a feature without any is left out."""
    columns = by_feature(thinned(array)).astype(np.float64)
    full = by_feature(array)
    measured = []
    for feature in range(columns.shape[1]):
        held = columns[:, feature][np.isfinite(columns[:, feature])]
        if not len(held):
            continue
        every = full[:, feature]
        every = every[np.isfinite(every)] if every.dtype.kind == "f" else every
        low, high = every.min(), every.max()
        unit = _unit(held)
        held = held / unit
        mean, std, rms = (unit * float(one) for one in (held.mean(), held.std(), np.sqrt(np.mean(np.square(held)))))
        measured.append(Scale(feature, mean, std, rms, float(low), float(high), bool(low == high)))
    return measured


def _unit(held: Array) -> float:
    """A power of two about as large as the largest number: divided by it, even numbers near the end of float64 have
    finite differences and squares, and no digit changes on the way there and back."""
    return float(np.ldexp(1.0, min(int(np.frexp(np.abs(held).max())[1]), 1023)))


def is_binary(array: Array) -> bool:
    """Masks and flags: nothing but 0 and 1."""
    if array.dtype.kind == "b":
        return True
    return bool(is_number(array) and all(((rows == 0) | (rows == 1)).all() for _, rows in chunks(array)))


def correlations(a: Array, b: Array) -> npt.NDArray[np.float64]:
    """The correlation of every column of a with every column of b; 0 where one of them does not vary."""
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    size = np.sqrt((a**2).sum(axis=0))[:, None] * np.sqrt((b**2).sum(axis=0))[None]
    found: npt.NDArray[np.float64] = np.divide(a.T @ b, size, out=np.zeros(size.shape), where=size > 0)
    return found


def ranks(columns: Array) -> npt.NDArray[np.float64]:
    """Each column's values as places in rising order, equal ones sharing theirs: giants count for no more there."""
    found = np.empty(columns.shape)
    for place in range(columns.shape[1]):
        _, kind, count = np.unique(columns[:, place], return_inverse=True, return_counts=True)
        found[:, place] = (np.cumsum(count) - (count + 1) / 2)[kind]
    return found


def digests(array: Array, *, least_distinct: int = 4) -> list[bytes | None]:
    """A hash of each sample; None where a sample has too few distinct values to be told from another by chance."""
    flat = np.ascontiguousarray(array).reshape(len(array), -1)
    if flat.shape[1] == 0:
        return [None] * len(array)
    ordered = np.sort(flat, axis=1)
    distinct = 1 + (np.diff(ordered, axis=1) != 0).sum(axis=1)
    return [
        hashlib.blake2b(row.tobytes(), digest_size=16).digest() if many >= least_distinct else None
        for row, many in zip(flat, distinct, strict=True)
    ]


# --- image-like fields (N, T, H, W) or (T, H, W), and windows (N, T, F) ----------------------------------------------


@dataclass(frozen=True)
class FieldMeasures:
    """What is wrong with the positions and frames of an array. Positions are indices behind the frame axes."""

    positions: int
    frames: int
    dead: tuple[tuple[int, ...], ...]
    """Positions that never change while others do."""
    constant_frames: tuple[int, ...]
    """Frames (or windows) in which every finite value is the same."""
    saturated: tuple[tuple[float, int], ...]
    """Bounds at which values pile up: (value, count)."""
    holes: Array
    """Number of non-finite values at each position."""


SATURATED_SHARE = 0.01
"""Share of all values that lie exactly at the minimum or maximum before that counts as clipping. A continuous
measurement reaches its extreme once or twice, not in one value of a hundred."""
DISTINCT_FOR_SATURATION = 50
"""Coarser data than this reaches its extremes often by itself."""


def field_measures(array: Array, *, frame_axes: int = 1) -> FieldMeasures:
    """Measure `array` whose first `frame_axes` axes count frames, and whose other axes are positions."""
    shape = array.shape[frame_axes:]
    flat = array.reshape(-1, int(np.prod(shape, dtype=np.int64)))
    finite = np.isfinite(flat) if flat.dtype.kind == "f" else np.ones(flat.shape, bool)
    low = np.where(finite, flat, np.inf).min(axis=0) if len(flat) else np.zeros(flat.shape[1])
    high = np.where(finite, flat, -np.inf).max(axis=0) if len(flat) else np.zeros(flat.shape[1])
    seen = finite.any(axis=0)
    still = seen & (low == high)
    dead = [np.unravel_index(i, shape) for i in np.flatnonzero(still)] if not still[seen].all() else []
    row_low = np.where(finite, flat, np.inf).min(axis=1)
    row_high = np.where(finite, flat, -np.inf).max(axis=1)
    same = finite.any(axis=1) & (row_low == row_high)
    constant = np.flatnonzero(same) if flat.shape[1] > 1 and not same.all() else np.zeros(0, int)
    return FieldMeasures(
        positions=flat.shape[1],
        frames=len(flat),
        dead=tuple(tuple(int(axis) for axis in place) for place in dead),
        constant_frames=tuple(int(frame) for frame in constant),
        saturated=tuple(_saturated(np.delete(flat[~same], np.flatnonzero(still), axis=1))),
        holes=(~finite).sum(axis=0).reshape(shape),
    )


def _saturated(flat: Array) -> list[tuple[float, int]]:
    """Bounds of what still lives at which the values pile up."""
    held = flat[np.isfinite(flat)] if flat.dtype.kind == "f" else flat.ravel()
    if not len(held):
        return []
    sample = thinned(held.ravel())
    if len(np.unique(sample)) < DISTINCT_FOR_SATURATION:
        return []
    found = []
    for bound in (held.min(), held.max()):
        count = int((held == bound).sum())
        if count >= SATURATED_SHARE * held.size:
            found.append((float(bound), count))
    return found


# --- figures for a page ----------------------------------------------------------------------------------------------


def distribution(values: Any, *, bins: int = 40) -> dict[str, Any]:
    """Counts, quantiles and a histogram of one column, as JSON values. Outermost bins hold what lies beyond 0.1 %."""
    column = as_array(values).ravel()
    column = column.astype(np.float64)
    held = column[np.isfinite(column)]
    made: dict[str, Any] = {
        "count": len(column),
        "missing": int(np.isnan(column).sum()),
        "infinite": int(np.isinf(column).sum()),
    }
    if not len(held):
        return made
    zeros, distinct = int((held == 0).sum()), len(np.unique(held))
    unit = _unit(held)
    held = held / unit
    quantiles = np.quantile(held, [0.0, 0.001, 0.05, 0.25, 0.5, 0.75, 0.95, 0.999, 1.0])
    edges = np.linspace(quantiles[1], quantiles[7], bins + 1)
    made.update(
        mean=unit * float(held.mean()),
        std=unit * float(held.std()),
        zeros=zeros,
        distinct=distinct,
        quantiles=[unit * float(q) for q in quantiles],
    )
    if (np.diff(edges) > 0).all():  # a column that varies by its last bits has no room for bins
        counts, _ = np.histogram(np.clip(held, edges[0], edges[-1]), bins=edges)
        made.update(edges=[unit * float(edge) for edge in edges], counts=counts.tolist())
    return made


def missing_over_time(columns: dict[str, Array], *, bins: int = 100) -> dict[str, Any]:
    """Share of missing values per column in `bins` equal stretches of rows."""
    size = max((len(column) for column in columns.values()), default=0)
    edges = np.unique(np.linspace(0, size, min(bins, size) + 1).astype(int))
    shares: dict[str, list[float]] = {}
    for name, column in columns.items():
        absent = np.isnan(column) if column.dtype.kind == "f" else np.zeros(len(column), bool)
        shares[name] = [
            round(float(absent[a:b].mean()), 6) for a, b in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
        ]
    return {"rows": edges.tolist(), "share": shares}


def stuck_runs(series: Sequence[Any] | Array, *, least: int) -> list[tuple[int, int]]:
    """(first row, rows) of every stretch of `least` or more equal values."""
    column = np.asarray(series)
    if not len(column):
        return []
    edges = np.concatenate([[0], np.flatnonzero(column[1:] != column[:-1]) + 1, [len(column)]])
    sizes = np.diff(edges)
    return [(int(edges[i]), int(sizes[i])) for i in np.flatnonzero(sizes >= least)]
