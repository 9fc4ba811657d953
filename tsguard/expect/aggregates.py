"""Numbers about a whole column, gathered batch by batch: sums, spread, extremes, ranks, distinct values.

Integers are summed exactly and floats batch by batch; the spread is merged by Chan's formula, so that neither a large
mean nor a long stream costs digits. Extremes, medians and set questions end in GX's own metric, asked of a frame of the
few values that decide it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from tsguard.expect.columns import EXACT_IN_FLOAT, Array, Batch, Kind, array_of, as_series, kind_of
from tsguard.expect.spill import Budget, KeyStore, OrderStore

_HALF = 1 << 63


class Presence:
    """How many values of a column are missing, and how many are null (NaN is missing but not null)."""

    def __init__(self, column: str) -> None:
        self.columns = (column,)
        self.rows = self.missing = self.nulls = 0

    def update(self, batch: Batch) -> None:
        column = batch.column(self.columns[0])
        self.rows += len(column)
        self.missing += column.missing
        self.nulls += int(column.array.null_count)


class Nulls:
    """The nulls alone, which costs no look at the values: they decide the dtype in pandas."""

    def __init__(self, column: str) -> None:
        self.columns = (column,)
        self.nulls = 0

    def update(self, batch: Batch) -> None:
        self.nulls += int(batch.records.column(self.columns[0]).null_count)


class Gathered:
    """A column as a whole, for measures that need every value in order."""

    def __init__(self, column: str) -> None:
        self.columns = (column,)
        self._chunks: list[pa.Array] = []

    def update(self, batch: Batch) -> None:
        self._chunks.append(batch.records.column(self.columns[0]))

    def series(self) -> pd.Series[Any]:
        result: pd.Series[Any] = pa.chunked_array(self._chunks).to_pandas()
        return result


class Moments:
    """Count, sum, mean and squared deviations of a column of numbers."""

    def __init__(self, column: str, datatype: pa.DataType) -> None:
        self.columns = (column,)
        self.integer = kind_of(datatype) is Kind.INTEGER
        self.signed = not pa.types.is_unsigned_integer(datatype)
        self.single = pa.types.is_float32(datatype)
        self.count = 0
        self.nulls = 0
        self.total: Any = 0
        self._rounded = 0.0
        self._mean = self._squares = 0.0

    def update(self, batch: Batch) -> None:
        column = batch.column(self.columns[0])
        self.nulls += int(column.array.null_count)
        values = column.values
        if not len(values):
            return
        with np.errstate(all="ignore"):
            mean = float(column.total) / len(values)
            self.total = self.total + (_exact_sum(values, column.low, column.high) if self.integer else column.total)
            apart = values - np.float64(mean)
            squares = float(np.dot(apart, apart))
            count = self.count + len(values)
            shift = mean - self._mean
            self._rounded += float(column.total)
            self._squares += squares + shift * shift * (self.count * len(values) / count)
            self._mean += shift * len(values) / count
            self.count = count

    def _narrowed(self, value: float) -> Any:
        with np.errstate(all="ignore"):
            return np.float32(value) if self.single else np.float64(value)

    @property
    def sum(self) -> Any:
        if not self.integer:
            return self._narrowed(float(self.total))
        if self.nulls:
            return presented(self.total)
        if self.signed:  # pandas adds int64 with wrap-around
            return (self.total + _HALF) % (2 * _HALF) - _HALF
        return self.total % (2 * _HALF)

    @property
    def mean(self) -> Any:
        if not self.count:
            return self._narrowed(math.nan)
        exact = self.integer and self.nulls  # without nulls pandas adds integers as floats, and so must the answer
        return self._narrowed(float(self.total / self.count) if exact else self._rounded / self.count)

    @property
    def standard_deviation(self) -> Any:
        with np.errstate(all="ignore"):
            return np.sqrt(self._narrowed(self._squares / (self.count - 1) if self.count > 1 else math.nan))


class Extremes:
    """Least and greatest value."""

    def __init__(self, column: str, datatype: pa.DataType) -> None:
        self.columns = (column,)
        self.datatype = datatype
        self.nulls = 0
        self._low: Any = None
        self._high: Any = None

    def update(self, batch: Batch) -> None:
        column = batch.column(self.columns[0])
        self.nulls += int(column.array.null_count)
        if column.low is None:
            return
        low, high = array_of([column.low, column.high], self.datatype)
        if self._low is None or _less(low, self._low):
            self._low = low
        if self._high is None or _less(self._high, high):
            self._high = high

    def frame(self) -> pd.DataFrame:
        """Two rows that have the minimum and the maximum of the whole (or one missing value if that is all there
        is)."""
        if self._low is None:
            return pd.DataFrame({self.columns[0]: pa.nulls(1, self.datatype).to_pandas()})
        ends = pa.array([self._low.as_py(), self._high.as_py()], self.datatype)
        if pa.types.is_timestamp(self.datatype):
            ends = array_of([self._low.value, self._high.value], self.datatype)
        return pd.DataFrame({self.columns[0]: as_series(ends, had_nulls=bool(self.nulls))})


class Ranks:
    """Order statistics of a column of numbers."""

    def __init__(self, column: str, datatype: pa.DataType, budget: Budget, *, resident: bool) -> None:
        self.columns = (column,)
        self.datatype = datatype
        self.nulls = 0
        self.store = OrderStore(budget, resident=resident)

    def update(self, batch: Batch) -> None:
        column = batch.column(self.columns[0])
        self.nulls += int(column.array.null_count)
        if len(column.values):
            self.store.add(column.values)

    def _series(self, ranks: list[int]) -> pd.Series[Any]:
        return as_series(array_of(list(self.store.at(ranks)), self.datatype), had_nulls=bool(self.nulls))

    def middle(self) -> pd.DataFrame:
        """The one or two values in the middle, whose median is that of the whole."""
        count = self.store.count
        if not count:
            return pd.DataFrame({self.columns[0]: pa.nulls(1, self.datatype).to_pandas()})
        return pd.DataFrame({self.columns[0]: self._series([(count - 1) // 2, count // 2])})

    def quantiles(self, shares: list[float], method: str) -> list[Any]:
        if not self.store.count:
            return [math.nan] * len(shares)
        result: list[Any] = self._series([quantile_rank(share, self.store.count, method) for share in shares]).tolist()
        return result


class Distinct:
    """What the gathered keys of one column say of its distinct values."""

    def __init__(self, column: str, datatype: pa.DataType, store: KeyStore) -> None:
        self.columns = (column,)
        self.datatype = datatype
        self.nulls = 0
        self.store = store

    def update(self, batch: Batch) -> None:
        self.nulls += int(batch.records.column(self.columns[0]).null_count)

    def _frame(self, values: pa.Array) -> pd.DataFrame:
        if not len(values):
            return pd.DataFrame({self.columns[0]: pa.nulls(1, self.store.types[0]).to_pandas()})
        return pd.DataFrame({self.columns[0]: as_series(values, had_nulls=bool(self.nulls))})

    def frame(self) -> pd.DataFrame:
        """Each distinct value once: set questions have the same answer there."""
        return self._frame(self.store.distinct()[0])

    def modes(self) -> pd.DataFrame:
        """The most common values, each once: they are their own modes."""
        values, counts = self.store.distinct()
        return self._frame(values.filter(pa.array(counts == counts.max())) if len(counts) else values)


def presented(value: int) -> Any:
    """An integer of a column with nulls: the float that pandas would show, unless a float cannot hold it."""
    return float(value) if abs(value) <= EXACT_IN_FLOAT or int(float(value)) == value else value


def quantile_rank(share: float, count: int, method: str) -> int:
    """The 0-based rank that numpy's quantile method picks; pandas passes it percentages, rounding included."""
    virtual = (count - 1) * float(np.true_divide(np.asarray(share, dtype=np.float64) * 100, 100))
    below = math.floor(virtual)
    beyond = virtual - below
    if method == "lower" or not beyond:
        return below
    if method == "higher":
        return below + 1
    if beyond == 0.5:
        return below + below % 2
    return below + (beyond > 0.5)


def _exact_sum(values: Array, low: Any, high: Any) -> int:
    """The sum of integers without wrap-around: in halves of 32 bits where 64 might not hold it."""
    if max(abs(int(low)), abs(int(high))) * len(values) < _HALF:
        return int(values.sum(dtype=np.int64))
    wide = values.astype(np.int64)
    return (int((wide >> 32).sum()) << 32) + int((wide & 0xFFFFFFFF).sum())


def _less(left: pa.Scalar, right: pa.Scalar) -> bool:
    if isinstance(left, pa.TimestampScalar):
        return bool(left.value < right.value)
    return bool(left.as_py() < right.as_py())
