"""Features made from a series: lags, rolling statistics, interactions, cyclical time. All causal by construction.

Every maker sees, at row t, rows up to t of the same segment and nothing else. `first_leak` is the law that shows it:
change everything after t and no feature at t or before may change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tsguard.data.windows import as_time, segments
from tsguard.errors import DataError

Array = npt.NDArray[Any]
Statistic = Literal["mean", "std", "min", "max", "sum"]

_STATISTICS: Mapping[str, Callable[..., Array]] = {
    "mean": np.mean,
    "std": np.std,
    "min": np.min,
    "max": np.max,
    "sum": np.sum,
}

PERIODS = {"hour": 3_600.0, "day": 86_400.0, "week": 604_800.0, "year": 31_556_952.0}
"""Seconds in a period; the year is the mean Gregorian one."""

_CHUNK_ROWS = 65_536  # rolling windows are reduced in pieces of this many rows, so that memory stays flat


@dataclass(frozen=True)
class FeatureMaker:
    """Which features to add. All are options; the columns that were there come first and unchanged."""

    lags: Sequence[int] = ()
    rolling: Sequence[int] = ()
    statistics: Sequence[Statistic] = ("mean", "std")
    interactions: Sequence[tuple[str, str]] = ()
    cycles: Sequence[str] = ()
    columns: Sequence[str] | None = None
    """Columns that lags and rolling statistics are made of; default: all."""
    seconds_per_unit: float = 1.0
    """Seconds in one unit of `time` (1e-9 for nanoseconds)."""

    def __post_init__(self) -> None:
        wrong = {
            "lags": [lag for lag in self.lags if lag < 1],
            "rolling": [size for size in self.rolling if size < 1],
            "statistics": [name for name in self.statistics if name not in _STATISTICS],
            "cycles": [name for name in self.cycles if name not in PERIODS],
        }
        wrong = {option: values for option, values in wrong.items() if values}
        if wrong:
            expected = f"lags and windows of 1 or more, statistics of {list(_STATISTICS)}, cycles of {list(PERIODS)}"
            raise DataError(f"features: received {wrong}. Expected {expected}. A lag below 1 would look ahead.")

    def names(self, given: Sequence[str]) -> tuple[str, ...]:
        """The columns that `make` returns."""
        return tuple(self._build(np.zeros((1, len(given))), given, np.zeros(1, np.int64), None))

    def make(
        self, values: Any, names: Sequence[str], *, time: Any = None, entities: Array | None = None
    ) -> tuple[Array, tuple[str, ...]]:
        """(N, F + more) and the names. Rows before the first lag repeat the first value of their entity."""
        array = np.asarray(values, np.float64)
        if array.ndim != 2 or array.shape[1] != len(names):
            raise DataError(
                f"features: received shape {array.shape}. Expected (rows, {len(names)}). Name every column."
            )
        if self.cycles and time is None:
            raise DataError(f"features: received cycles {list(self.cycles)} without time. Expected time=. Pass it.")
        built = self._build(array, names, None if time is None else as_time(time), entities)
        return np.stack(list(built.values()), axis=1), tuple(built)

    def _build(
        self, array: Array, names: Sequence[str], time: Array | None, entities: Array | None
    ) -> dict[str, Array]:
        built: dict[str, Array] = {name: array[:, i] for i, name in enumerate(names)}
        chosen = list(self.columns) if self.columns is not None else list(names)
        asked = {*chosen, *(name for pair in self.interactions for name in pair)}
        unknown = sorted(asked - set(names))
        if unknown:
            raise DataError(f"features: received columns {unknown}. Expected some of {list(names)}. Mend the names.")
        spans = segments(len(array), entities=entities)
        first = np.repeat(spans[:, 0], spans[:, 1] - spans[:, 0])
        for name in chosen:
            for lag in self.lags:
                built[f"{name}_lag{lag}"] = built[name][np.maximum(np.arange(len(array)) - lag, first)]
            for size in self.rolling:
                for statistic in self.statistics:
                    built[f"{name}_{statistic}{size}"] = _rolling(built[name], size, statistic, spans)
        for left, right in self.interactions:
            built[f"{left}_x_{right}"] = built[left] * built[right]
        for cycle in self.cycles:
            assert time is not None
            # the remainder is taken before anything is rounded: epoch nanoseconds do not fit in float64
            period = PERIODS[cycle] / self.seconds_per_unit
            turn = 2 * np.pi * np.mod(time, int(period) if time.dtype.kind == "i" else period) / period
            built[f"sin_{cycle}"], built[f"cos_{cycle}"] = np.sin(turn), np.cos(turn)
        return built


def _rolling(series: Array, size: int, statistic: str, spans: Array) -> Array:
    """Statistic of the last `size` rows, of fewer at the beginning of a segment."""
    reduce = _STATISTICS[statistic]
    made = np.empty(len(series))
    for first, end in spans:
        part = series[first:end]
        head = min(size - 1, len(part))
        for row in range(head):
            made[first + row] = reduce(part[: row + 1])
        if len(part) >= size:
            view = np.lib.stride_tricks.sliding_window_view(part, size)
            for start in range(0, len(view), _CHUNK_ROWS):
                piece = view[start : start + _CHUNK_ROWS]
                made[first + head + start : first + head + start + len(piece)] = reduce(piece, axis=1)
    return made


def first_leak(
    make: Callable[[Array], Array], values: Array, at: int, *, rng: np.random.Generator
) -> tuple[int, int] | None:
    """The law of causal features: (row, column) of the first feature at or before row `at` that the future changes."""
    changed = np.array(values, np.float64)
    changed[at + 1 :] = rng.standard_normal(changed[at + 1 :].shape) * 10.0 + 3.0
    before, after = make(np.asarray(values, np.float64))[: at + 1], make(changed)[: at + 1]
    differs = ~((before == after) | (np.isnan(before) & np.isnan(after)))
    if not differs.any():
        return None
    row, column = np.argwhere(differs)[0]
    return int(row), int(column)
