"""Conditions that GX asks of rows, judged batch by batch: which rows are unexpected, how many, and the first of them.

Where a condition's answer can be read off numbers it is (with pandas' own rules of comparison). Everywhere else GX's
own condition is asked, but of as little as proves the rest: of the distinct values of a batch, or of its least and
greatest value where the condition is an interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tsguard.expect import stock
from tsguard.expect.columns import (
    EXACT_IN_FLOAT,
    Array,
    Batch,
    ColumnSlice,
    Kind,
    array_of,
    as_frame,
    as_series,
    kind_of,
)
from tsguard.expect.spill import Budget, KeyStore

NOTHING: Array = np.empty(0, dtype=np.int64)
REMEMBERED = 1 << 16
"""Distinct values whose verdict is kept from batch to batch; beyond that GX is asked anew, which is only slower."""
ONE_BY_ONE = 16
"""Members up to which comparing with each in turn beats sorting (floats), and a look-up beats encoding (strings)."""


class Accumulator(Protocol):
    """Something that one pass feeds with every batch."""

    columns: tuple[str, ...]

    def update(self, batch: Batch) -> None: ...


@dataclass(frozen=True)
class Wanted:
    """A GX map condition: its metric, its domain and its values, as the metric configuration states them."""

    metric: str
    domain: dict[str, Any]
    values: dict[str, Any]

    @property
    def columns(self) -> tuple[str, ...]:
        if "column" in self.domain:
            return (self.domain["column"],)
        if "column_A" in self.domain:
            return (self.domain["column_A"], self.domain["column_B"])
        return tuple(self.domain["column_list"])

    def ask(self, frame: pd.DataFrame) -> tuple[Array, int]:
        """Index labels of the unexpected rows of a small frame, and how many rows were considered: GX's own answer."""
        from great_expectations.validator.metric_configuration import MetricConfiguration

        keys = ("column", "column_A", "column_B", "column_list", "ignore_row_if")
        domain = {key: self.domain[key] for key in keys if key in self.domain}
        mask = stock.metric_on(frame, MetricConfiguration(f"{self.metric}.condition", domain, dict(self.values)))[0]
        if not isinstance(mask, pd.Series):
            return NOTHING, len(mask)
        unexpected: Array = mask.index.to_numpy()[mask.to_numpy(dtype=bool)]
        return unexpected, len(mask)


class Condition:
    """Counts unexpected rows; keeps the first `keep` of them whole, and all their row numbers if they are wanted."""

    def __init__(self, wanted: Wanted, *, keep: int, every_row: bool) -> None:
        self.wanted, self.columns = wanted, wanted.columns
        self.keep, self.every_row = keep, every_row
        self.unexpected = 0
        self.considered = 0
        self.rows: list[Array] = []
        self._sample: list[pa.RecordBatch] = []
        self._sampled = 0

    def find(self, batch: Batch) -> Array:
        """Rows of the batch that are unexpected; adds to `considered`."""
        raise NotImplementedError

    def update(self, batch: Batch) -> None:
        found = self.find(batch)
        if not len(found):
            return
        self.unexpected += len(found)
        if self.every_row or self._sampled < self.keep:
            self.rows.append(batch.start + (found if self.every_row else found[: self.keep - self._sampled]))
        if self._sampled < self.keep:
            first = found[: self.keep - self._sampled]
            # GX may be given only some columns of a record, and a copy keeps the batch itself from staying alive
            self._sample.append(batch.records.select(list(dict.fromkeys(self.columns))).take(pa.array(first)))
            self._sampled += len(first)

    def row_numbers(self) -> list[int]:
        return [int(row) for rows in self.rows for row in rows]

    def sample(self, column: str, *, had_nulls: bool) -> pd.Series[Any]:
        """The first unexpected values of a column, as pandas would show them."""
        if not self._sample:
            return pd.Series([], dtype=object)
        chunks = [records.column(column) for records in self._sample]
        return as_series(pa.chunked_array(chunks), had_nulls=had_nulls)


class Missing(Condition):
    """`column_values.null` and `column_values.nonnull`: the only conditions that look at missing values."""

    def find(self, batch: Batch) -> Array:
        column = batch.column(self.columns[0])
        self.considered += len(column)
        want_null = self.wanted.metric.endswith(".null")
        mask = column.present_mask
        if mask is None:
            return np.arange(len(column)) if want_null else NOTHING
        return np.flatnonzero(mask if want_null else ~mask)


class Finite(Condition):
    """Our own `finite`: null, NaN and the infinities are unexpected, and all rows are considered."""

    def find(self, batch: Batch) -> Array:
        column = batch.column(self.columns[0])
        self.considered += len(column)
        if not column.missing and np.isfinite(column.total):
            return NOTHING
        whole = column.array.to_numpy(zero_copy_only=False).astype(np.float64, copy=False)
        return np.flatnonzero(~np.isfinite(whole))


class NumberBetween(Condition):
    """An interval of numbers. Without nulls 64-bit integers meet a float bound as floats, as they do in pandas; with
    nulls (`exact`) they are compared as the integers that they are."""

    def __init__(self, wanted: Wanted, *, keep: int, every_row: bool, exact: bool = False) -> None:
        super().__init__(wanted, keep=keep, every_row=every_row)
        values = wanted.values
        self._strict_low, self._strict_high = bool(values.get("strict_min")), bool(values.get("strict_max"))
        self._low, self._high = values.get("min_value"), values.get("max_value")
        if exact:
            self._low = _whole(self._low, up=not self._strict_low)
            self._high = _whole(self._high, up=self._strict_high)

    def _below(self, values: Any) -> Any:
        return values <= self._low if self._strict_low else values < self._low

    def _above(self, values: Any) -> Any:
        return values >= self._high if self._strict_high else values > self._high

    def find(self, batch: Batch) -> Array:
        column = batch.column(self.columns[0])
        self.considered += len(column) - column.missing
        if column.low is None:
            return NOTHING
        wide = np.float64 if column.kind is Kind.FLOAT else column.low.dtype.type
        low_fails = self._low is not None and self._below(wide(column.low))
        high_fails = self._high is not None and self._above(wide(column.high))
        if not low_fails and not high_fails:
            return NOTHING
        values = column.values.astype(np.float64, copy=False) if column.kind is Kind.FLOAT else column.values
        if low_fails and high_fails:
            fails = self._below(values) | self._above(values)
        else:
            fails = self._below(values) if low_fails else self._above(values)
        return column.rows(np.flatnonzero(fails))


class ValueBetween(Condition):
    """An interval of other things that have an order: GX is asked of the least and the greatest value, and of the rest
    only when one of these is refused."""

    def __init__(self, wanted: Wanted, *, keep: int, every_row: bool) -> None:
        super().__init__(wanted, keep=keep, every_row=every_row)
        self._accepted: tuple[Any, Any] | None = None
        self._by_value = ValueWise(wanted, keep=0, every_row=False)

    def find(self, batch: Batch) -> Array:
        column = batch.column(self.columns[0])
        self.considered += len(column) - column.missing
        if column.low is None:
            return NOTHING
        low, high = _scalar(column, column.low), _scalar(column, column.high)
        if self._accepted is not None and self._accepted[0] <= low and high <= self._accepted[1]:
            return NOTHING
        ends = pa.table({self.columns[0]: array_of([column.low, column.high], column.array.type)})
        if not len(self.wanted.ask(ends.to_pandas())[0]):
            known = self._accepted or (low, high)
            self._accepted = (min(low, known[0]), max(high, known[1]))
            return NOTHING
        return self._by_value.judge(column)


class ValueWise(Condition):
    """A condition on the value alone: each distinct value is judged once, by GX."""

    def __init__(self, wanted: Wanted, *, keep: int, every_row: bool) -> None:
        super().__init__(wanted, keep=keep, every_row=every_row)
        self._known: dict[Any, bool] = {}
        self._fine: pa.Array | None = None  # all that was ever seen, while it is little and nothing was refused

    def find(self, batch: Batch) -> Array:
        column = batch.column(self.columns[0])
        self.considered += len(column) - column.missing
        if self._fine is not None and not column.is_encoded:  # a look-up costs half of telling the values apart
            if pc.all(pc.is_in(column.known, value_set=self._fine)).as_py():
                return NOTHING
            self._fine = None
        found = self.judge(column)
        if column.kind is Kind.STRING and not len(found) and 0 < len(self._known) <= ONE_BY_ONE:
            accepted = not any(self._known.values())
            self._fine = pa.array(list(self._known), column.array.type) if accepted else None
        return found

    def judge(self, column: ColumnSlice) -> Array:
        if len(column) == column.missing:
            return NOTHING
        distinct, codes = column.encoded
        refused = self._refused(distinct, categorical=column.kind is Kind.CATEGORY)
        if not refused.any():
            return NOTHING
        return column.rows(np.flatnonzero(refused[codes]))

    def _refused(self, distinct: pa.Array, *, categorical: bool) -> Array:
        if len(distinct) > REMEMBERED:
            return self._ask(distinct, categorical=categorical)
        values = (
            distinct.to_pylist()
            if kind_of(distinct.type) is not Kind.TIMESTAMP
            else distinct.view(pa.int64()).to_pylist()
        )
        fresh = [number for number, value in enumerate(values) if value not in self._known]
        if fresh:
            answers = self._ask(distinct.take(pa.array(fresh, pa.int64())), categorical=categorical)
            if len(self._known) + len(fresh) > REMEMBERED:
                self._known.clear()
                answers, fresh = self._ask(distinct, categorical=categorical), list(range(len(values)))
            self._known.update((values[number], bool(answer)) for number, answer in zip(fresh, answers, strict=True))
        return np.fromiter((self._known[value] for value in values), dtype=bool, count=len(values))

    def _ask(self, distinct: pa.Array, *, categorical: bool) -> Array:
        column = distinct.dictionary_encode() if categorical else distinct
        refused = np.zeros(len(distinct), dtype=bool)
        refused[self.wanted.ask(pa.table({self.columns[0]: column}).to_pandas())[0]] = True
        return refused


class NumberMembership(Condition):
    """`in_set` and `not_in_set` of numbers against numbers."""

    def __init__(self, wanted: Wanted, *, keep: int, every_row: bool) -> None:
        super().__init__(wanted, keep=keep, every_row=every_row)
        self._members = np.array(sorted(set(wanted.values["value_set"])))
        self._inside_is_bad = wanted.metric.endswith("not_in_set")

    def find(self, batch: Batch) -> Array:
        column = batch.column(self.columns[0])
        self.considered += len(column) - column.missing
        if column.low is None:
            return NOTHING
        near = self._members[(self._members >= column.low) & (self._members <= column.high)]
        if not len(near):
            return NOTHING if self._inside_is_bad else column.rows(np.arange(len(column.values)))
        if column.kind is Kind.FLOAT and len(near) <= ONE_BY_ONE:
            inside = column.values == near[0]
            for member in near[1:]:
                inside |= column.values == member
        else:
            inside = np.isin(column.values, near)
        return column.rows(np.flatnonzero(inside if self._inside_is_bad else ~inside))


class Ordered(Condition):
    """`increasing` and `decreasing` among the values that are not missing, across the seams of batches. Differences of
    integers wrap around as pandas' do (of unsigned ones they are never negative there), unless `exact`."""

    def __init__(self, wanted: Wanted, *, keep: int, every_row: bool, exact: bool = False) -> None:
        super().__init__(wanted, keep=keep, every_row=every_row)
        self._last: Array | None = None
        self._exact = exact
        self._strictly = bool(wanted.values.get("strictly"))
        self._rising = wanted.metric.endswith("increasing")

    def find(self, batch: Batch) -> Array:
        column = batch.column(self.columns[0])
        values = column.values
        self.considered += len(values)
        if not len(values):
            return NOTHING
        joined = values if self._last is None else np.concatenate([self._last, values])
        skipped = 1 if self._last is None else 0
        self._last = values[-1:].copy()
        if self._exact or column.kind is Kind.TIMESTAMP:
            after, before = (joined[1:], joined[:-1]) if self._rising else (joined[:-1], joined[1:])
            fails = after <= before if self._strictly else after < before
        else:
            with np.errstate(all="ignore"):
                steps = np.diff(joined)  # NaN (inf after inf) fails no comparison, and GX lets it pass too
            if self._rising:
                fails = steps <= 0 if self._strictly else steps < 0
            else:
                fails = steps >= 0 if self._strictly else steps > 0
        return column.rows(np.flatnonzero(fails) + skipped)


class RowWise(Condition):
    """Conditions on several columns of a row, judged by GX batch by batch (of distinct rows where GX loops in
    Python)."""

    def find(self, batch: Batch) -> Array:
        frame = as_frame(batch.records, list(dict.fromkeys(self.columns)))
        if self.wanted.metric == "column_pair_values.in_set" and len(frame):
            groups = frame.groupby(list(frame.columns), dropna=False, sort=False).ngroup().to_numpy()
            first = np.unique(groups, return_index=True)[1]
            refused = np.zeros(len(first), dtype=bool)
            seen = np.zeros(len(first), dtype=bool)
            distinct = frame.iloc[first]
            unexpected, _ = self.wanted.ask(distinct)
            refused[groups[unexpected]] = True
            seen[groups[_considered(distinct, self.wanted)]] = True
            self.considered += int(np.count_nonzero(seen[groups]))
            return np.flatnonzero(refused[groups])
        unexpected, considered = self.wanted.ask(frame)
        self.considered += considered
        return unexpected


class Keys:
    """The keys of some columns, gathered once for all that ask about them: duplicates and distinct values."""

    def __init__(
        self,
        columns: Sequence[str],
        types: Sequence[pa.DataType],
        ignore: str | None,
        budget: Budget,
        *,
        resident: bool,
    ) -> None:
        self.columns = tuple(columns)
        self.store = KeyStore(types, budget, resident=resident)
        self._ignore = ignore

    def update(self, batch: Batch) -> None:
        self.store.add(*_considered_keys(batch, self.columns, self._ignore))


class Unique(Condition):
    """`column_values.unique` and `compound_columns.unique`: the rows are known only when all keys have been seen."""

    def __init__(self, wanted: Wanted, *, keep: int, every_row: bool, keys: Keys) -> None:
        super().__init__(wanted, keep=keep, every_row=every_row)
        self._gathered = keys
        self._keys: list[pa.Array] | None = None

    def update(self, batch: Batch) -> None:
        """Nothing: the keys are fed by themselves."""

    def finish(self) -> None:
        duplicates = self._gathered.store.duplicates(None if self.every_row else self.keep)
        self.considered = self._gathered.store.count
        self.unexpected, self.rows, self._keys = duplicates.count, [duplicates.rows], duplicates.keys

    def sample(self, column: str, *, had_nulls: bool) -> pd.Series[Any]:
        assert self._keys is not None
        return as_series(self._keys[self.columns.index(column)].slice(0, self.keep), had_nulls=had_nulls)


class Either:
    """Two readings of one condition on integers, as pandas has it without nulls and as it is; which one holds is known
    when all nulls have been counted."""

    def __init__(self, column: str, make: Callable[[bool], Condition]) -> None:
        self.columns = (column,)
        self.exact, self.rounded = make(True), make(False)  # noqa: FBT003
        self._nulls = False

    def update(self, batch: Batch) -> None:
        self._nulls = self._nulls or bool(batch.column(self.columns[0]).array.null_count)
        self.exact.update(batch)
        self.rounded.update(batch)

    @property
    def chosen(self) -> Condition:
        return self.exact if self._nulls else self.rounded


def _considered_keys(
    batch: Batch, columns: Sequence[str], ignore: str | None
) -> tuple[list[pa.Array], int, Array | None]:
    """The keys of a batch, the row at which it starts, and the rows within it (None: all)."""
    if len(columns) == 1 and ignore is None:
        column = batch.column(columns[0])
        return [column.known], batch.start, column.positions
    slices = [batch.column(name) for name in columns]
    masks = [column.present_mask for column in slices]
    present = [np.ones(len(batch), dtype=bool) if mask is None else mask for mask in masks]
    if ignore == "never" or all(mask is None for mask in masks):
        return [column.array for column in slices], batch.start, None
    mask = np.logical_and.reduce(present) if ignore == "any_value_is_missing" else np.logical_or.reduce(present)
    if mask.all():
        return [column.array for column in slices], batch.start, None
    chosen = pa.array(mask)
    return [column.array.filter(chosen) for column in slices], batch.start, np.flatnonzero(mask)


def _considered(frame: pd.DataFrame, wanted: Wanted) -> Array:
    """Labels of the rows that `ignore_row_if` leaves."""
    how = {"both_values_are_missing": "all", "either_value_is_missing": "any"}.get(
        wanted.domain.get("ignore_row_if", "")
    )
    left: Array = (frame if how is None else frame.dropna(how=how, subset=list(wanted.columns))).index.to_numpy()
    return left


def _scalar(column: ColumnSlice, value: Any) -> Any:
    return int(value) if column.kind is Kind.TIMESTAMP else value.as_py()


def _whole(bound: Any, *, up: bool) -> Any:
    if bound is None or isinstance(bound, int) or math.isinf(bound):
        return bound
    return math.ceil(bound) if up else math.floor(bound)


def plain_number(value: Any) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and not (isinstance(value, float) and math.isnan(value))
    )


def beyond_float(bound: Any) -> bool:
    return bound is not None and abs(bound) >= EXACT_IN_FLOAT
