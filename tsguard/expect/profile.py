"""One streaming pass over the data, and the metrics that it can supply.

`Profile.supply` takes a GX metric configuration and answers with a promise (a function to call after the pass) or with
the reason why pandas must be asked instead. Equal questions share one accumulator, and all of them share each batch.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pandas as pd
import pyarrow as pa

from tsguard.expect import stock
from tsguard.expect.aggregates import Distinct, Extremes, Gathered, Moments, Nulls, Presence, Ranks
from tsguard.expect.columns import Batch, Kind, as_frame, kind_of
from tsguard.expect.conditions import (
    Condition,
    Either,
    Finite,
    Keys,
    Missing,
    NumberBetween,
    NumberMembership,
    Ordered,
    RowWise,
    Unique,
    ValueBetween,
    ValueWise,
    Wanted,
    beyond_float,
    plain_number,
)
from tsguard.expect.source import Source
from tsguard.expect.spill import Budget
from tsguard.expect.timeseries import MEASURED, measured

MAX_RECORDS = 200
"""GX's own limit on unexpected values in a result (MAX_RESULT_RECORDS); a test compares the two."""

NUMBERS = (Kind.INTEGER, Kind.FLOAT)
TEXT_CONDITIONS = frozenset(
    f"column_values.{name}"
    for name in (
        "value_length.between",
        "value_length.equals",
        "match_regex",
        "not_match_regex",
        "match_regex_list",
        "not_match_regex_list",
        "match_strftime_format",
        "dateutil_parseable",
        "json_parseable",
        "match_json_schema",
    )
)
SET_METRICS = frozenset(
    f"column.distinct_values.{name}"
    for name in ("not_in_set.count", "not_in_set", "missing_from_column.count", "missing_from_column")
)
ROW_CONDITIONS = frozenset(
    {
        "column_pair_values.equal",
        "column_pair_values.a_greater_than_b",
        "column_pair_values.in_set",
        "multicolumn_sum.equal",
        "multicolumn_values.equal",
        "select_column_values.unique.within_record",
    }
)
PLAIN_KINDS = (Kind.INTEGER, Kind.FLOAT, Kind.STRING, Kind.TIMESTAMP)
SUFFIXES = (
    "unexpected_count",
    "unexpected_values",
    "unexpected_index_list",
    "unexpected_index_query",
    "filtered_row_count",
)

Promise = Callable[[], Any]


class NotServedError(Exception):
    """The pass cannot supply a metric; the text says why."""


@dataclass
class Crash:
    """An accumulator that raised: the error, and the frame of the batch in which it did."""

    error: BaseException
    trace: str
    frame: pd.DataFrame


@dataclass
class Profile:
    source: Source
    budget: Budget
    rows: int = 0
    keep_columns: frozenset[str] = frozenset()  # read along for pandas when the source cannot be read twice
    kept: list[pa.RecordBatch] = field(default_factory=list)
    crashes: dict[Hashable, Crash] = field(default_factory=dict)
    _accumulators: dict[Hashable, Any] = field(default_factory=dict)

    # --- before the pass

    def need(self, key: Hashable, make: Callable[[], Any]) -> Any:
        if key not in self._accumulators:
            before, self._asked = self._asked, set()
            self._accumulators[key] = make()
            self._behind[key] = self._asked | {key}  # what it is made of
            self._asked |= before
        self._asked |= self._behind[key]
        return self._accumulators[key]

    _behind: dict[Hashable, set[Hashable]] = field(default_factory=dict)

    _asked: set[Hashable] = field(default_factory=set)

    def asked(self) -> frozenset[Hashable]:
        """The accumulators asked for since the last call: those an expectation depends on."""
        asked, self._asked = frozenset(self._asked), set()
        return asked

    def forget(self, keys: frozenset[Hashable], still_wanted: frozenset[Hashable]) -> None:
        for key in keys - still_wanted:
            self._accumulators.pop(key, None)

    def datatype(self, column: Any) -> pa.DataType:
        if not isinstance(column, str) or column not in self.source.schema.names:
            raise NotServedError("no such column")
        if column in self.source.unfaithful:
            raise NotServedError("its pandas type has no Arrow equal")
        return self.source.schema.field(column).type

    def presence(self, column: str) -> Presence:
        self.datatype(column)
        if pa.types.is_float16(self.source.schema.field(column).type):
            raise NotServedError("half precision")
        presence: Presence = self.need(("presence", column), lambda: Presence(column))
        return presence

    def supply(self, configuration: Any, result_format: dict[str, Any]) -> Promise:
        """A promise of the metric, or NotServedError."""
        name, domain = configuration.metric_name, dict(configuration.metric_domain_kwargs)
        if domain.get("row_condition") or domain.get("condition_parser") or domain.get("table"):
            raise NotServedError("a row condition")
        values = dict(configuration.metric_value_kwargs)
        for suffix in SUFFIXES:
            if name.endswith("." + suffix):
                return self._condition(name.removesuffix("." + suffix), suffix, domain, values, result_format)
        if name == MEASURED:
            return self._measured(tuple(values["columns"]))
        if name.startswith("table."):
            return self._table(name)
        if name.startswith("column."):
            return self._column(name, domain["column"], values, configuration)
        raise NotServedError(f"the metric {name}")

    def _measured(self, columns: tuple[str, ...]) -> Promise:
        """Whole columns for the expectations of time series: gathered in Arrow, and only those that are named."""
        for column in columns:
            self.datatype(column)
        gathered: list[Gathered] = [self.need(("gathered", column), partial(Gathered, column)) for column in columns]
        return lambda: ({each.columns[0]: measured(each.series()) for each in gathered}, self.rows)

    def _table(self, name: str) -> Promise:
        if name == "table.row_count":
            return lambda: self.rows
        names = self.source.schema.names
        if name == "table.columns":
            return lambda: list(names)
        if name == "table.column_count":
            return lambda: len(names)
        if name == "table.column_types":
            for column in names:
                self.need(("nulls", column), partial(Nulls, column))
            return self._column_types
        raise NotServedError(f"the metric {name}")

    def _column_types(self) -> list[dict[str, Any]]:
        frame = self.shadow()
        return [{"name": name, "type": dtype} for name, dtype in zip(frame.columns, frame.dtypes, strict=True)]

    def _column(self, name: str, column: str, values: dict[str, Any], configuration: Any) -> Promise:
        datatype = self.datatype(column)
        kind = kind_of(datatype)
        if name in ("column.mean", "column.sum", "column.standard_deviation") and kind in NUMBERS:
            moments: Moments = self.need(("moments", column), lambda: Moments(column, datatype))
            return lambda: getattr(moments, name.removeprefix("column."))
        if name in ("column.min", "column.max") and kind in PLAIN_KINDS:
            extremes: Extremes = self.need(("extremes", column), lambda: Extremes(column, datatype))
            return lambda: self._ask(extremes.frame(), configuration)
        if name == "column.median" and kind in NUMBERS:
            middle = self._ranks(column, datatype)
            return lambda: self._ask(middle.middle(), configuration)
        if name == "column.quantile_values" and kind in NUMBERS:
            method = values.get("allow_relative_error") or "nearest"
            if method not in ("nearest", "lower", "higher"):
                raise NotServedError("interpolated quantiles")
            ranks = self._ranks(column, datatype)
            return lambda: ranks.quantiles(list(values["quantiles"]), method)
        if name == "column.non_null_proportion":
            presence = self.presence(column)
            return lambda: (self.rows - presence.missing) / self.rows if self.rows else 0
        if kind in PLAIN_KINDS:
            return self._distinct(name, column, datatype, configuration)
        raise NotServedError(f"{name} of {datatype}")

    def _ranks(self, column: str, datatype: pa.DataType) -> Ranks:
        ranks: Ranks = self.need(
            ("ranks", column), lambda: Ranks(column, datatype, self.budget, resident=self.source.resident)
        )
        return ranks

    def _keys(self, columns: tuple[str, ...], ignore: str | None) -> Keys:
        types = [self.datatype(column) for column in columns]
        keys: Keys = self.need(
            ("keys", columns, ignore), lambda: Keys(columns, types, ignore, self.budget, resident=self.source.resident)
        )
        return keys

    def _distinct(self, name: str, column: str, datatype: pa.DataType, configuration: Any) -> Promise:
        if name not in {
            "column.distinct_values.count",
            "column.unique_proportion",
            "column.most_common_value",
            *SET_METRICS,
        }:
            raise NotServedError(f"the metric {name}")
        distinct: Distinct = self.need(
            ("distinct", column), lambda: Distinct(column, datatype, self._keys((column,), None).store)
        )
        if name == "column.distinct_values.count":
            return lambda: distinct.store.distinct_count
        if name == "column.unique_proportion":
            return lambda: distinct.store.distinct_count / distinct.store.count if distinct.store.count else 0
        if name == "column.most_common_value":
            return lambda: self._ask(distinct.modes(), configuration)
        return lambda: self._ask(distinct.frame(), configuration)

    @staticmethod
    def _ask(frame: pd.DataFrame, configuration: Any) -> Any:
        return stock.metric_on(frame, configuration)

    def _condition(
        self, metric: str, suffix: str, domain: dict[str, Any], values: dict[str, Any], result_format: dict[str, Any]
    ) -> Promise:
        complete = result_format["result_format"] == "COMPLETE"
        if result_format.get("unexpected_index_column_names") or result_format.get("include_unexpected_rows"):
            raise NotServedError("whole rows or named index columns in the result")
        if metric == "column_values.nonnull" and suffix == "unexpected_count":
            presence = self.presence(domain["column"])
            return lambda: presence.missing
        every_row = complete or bool(result_format.get("return_unexpected_index_query"))
        shown = result_format.get("partial_unexpected_count") or 0
        limit = MAX_RECORDS if complete else min(shown, MAX_RECORDS)
        keep = max(shown, limit) if result_format["result_format"] != "BOOLEAN_ONLY" else 0
        wanted = Wanted(metric, domain, {key: value for key, value in values.items() if key != "result_format"})
        key = ("condition", metric, repr(sorted(domain.items())), repr(sorted(wanted.values.items())), keep, every_row)
        accumulator = self.need(key, lambda: self._make(wanted, keep, every_row=every_row))
        for column in wanted.columns:
            self.need(("nulls", column), partial(Nulls, column))
        return lambda: self._answer(accumulator, suffix, limit, shown, complete=complete)

    def _make(self, wanted: Wanted, keep: int, *, every_row: bool) -> Condition | Either:
        metric, columns = wanted.metric, wanted.columns
        types = [self.datatype(column) for column in columns]
        kinds = [kind_of(datatype) for datatype in types]
        options: dict[str, Any] = {"keep": keep, "every_row": every_row}
        kind = kinds[0]
        wide = pa.types.is_int64(types[0])
        if metric in ("column_values.null", "column_values.nonnull"):
            self.presence(columns[0])
            return Missing(wanted, **options)
        if metric in ("column_values.unique", "compound_columns.unique"):
            if not all(
                each in PLAIN_KINDS or each is Kind.CATEGORY or _hashable(datatype)
                for each, datatype in zip(kinds, types, strict=True)
            ):
                raise NotServedError("keys of a type that only pandas compares")
            return Unique(wanted, keys=self._keys(columns, wanted.domain.get("ignore_row_if")), **options)
        if metric == "column_values.between" and kind in PLAIN_KINDS:
            bounds = [wanted.values.get("min_value"), wanted.values.get("max_value")]
            if kind not in NUMBERS:
                return ValueBetween(wanted, **options)
            if not _plain_interval(bounds):
                return ValueWise(wanted, **options)
            if wide and any(beyond_float(bound) for bound in bounds):
                return Either(columns[0], lambda exact: NumberBetween(wanted, exact=exact, **options))
            return NumberBetween(wanted, **options)
        if metric in ("column_values.in_set", "column_values.not_in_set") and kind is not Kind.OTHER:
            if _plain_members(wanted.values.get("value_set"), types[0]):
                return NumberMembership(wanted, **options)
            return ValueWise(wanted, **options)
        if metric in ("column_values.increasing", "column_values.decreasing") and kind in (*NUMBERS, Kind.TIMESTAMP):
            if kind is Kind.INTEGER and not (pa.types.is_int8(types[0]) or pa.types.is_int16(types[0])):
                return Either(columns[0], lambda exact: Ordered(wanted, exact=exact, **options))
            return Ordered(wanted, exact=kind is Kind.INTEGER, **options)  # pandas widens the small ones
        if metric == "column_values.tsguard_finite" and kind in NUMBERS:
            return Finite(wanted, **options)
        if metric in TEXT_CONDITIONS and kind in (Kind.STRING, Kind.CATEGORY):
            return ValueWise(wanted, **options)
        if metric in ROW_CONDITIONS and all(each in PLAIN_KINDS for each in kinds):
            return RowWise(wanted, **options)
        raise NotServedError(f"{metric} of {', '.join(str(datatype) for datatype in types)}")

    def _answer(self, accumulator: Condition | Either, suffix: str, limit: int, listed: int, *, complete: bool) -> Any:
        condition = accumulator.chosen if isinstance(accumulator, Either) else accumulator
        if suffix == "unexpected_count":
            return condition.unexpected
        if suffix == "filtered_row_count":
            return condition.considered
        if suffix == "unexpected_index_query":
            return f"df.filter(items={condition.row_numbers()}, axis=0)" if condition.every_row else None
        if suffix == "unexpected_index_list":
            return condition.row_numbers() if complete else condition.row_numbers()[:listed]
        names = list(dict.fromkeys(condition.columns))
        shown = {
            name: condition.sample(name, had_nulls=self.had_nulls(name)).iloc[:limit].reset_index(drop=True)
            for name in names
        }
        if "column" in condition.wanted.domain:
            return list(shown[names[0]])
        if "column_A" in condition.wanted.domain:
            first, second = condition.columns
            return list(zip(shown[first].values, shown[second].values, strict=True))
        return pd.DataFrame(shown)[list(condition.columns)].to_dict("records")

    # --- the pass

    def run(self) -> None:
        """Feed every batch to every accumulator; one that raises is set aside with the batch at which it did."""
        wanted = {
            column for accumulator in self._accumulators.values() for column in accumulator.columns
        } | self.keep_columns
        names = [name for name in self.source.schema.names if name in wanted]
        names = names or self.source.schema.names[:1]  # rows are counted even if no column is asked about
        living = dict(self._accumulators)
        for records in self.source.batches(names):
            batch = Batch(records, self.rows)
            for key, accumulator in list(living.items()):
                try:
                    accumulator.update(batch)
                except Exception as error:
                    self._set_aside(key, error, batch)
                    del living[key]
            if self.keep_columns:
                self.kept.append(records.select([name for name in names if name in self.keep_columns]))
            self.rows += len(batch)
        for key, accumulator in living.items():
            if isinstance(accumulator, Unique):
                try:
                    accumulator.finish()
                except Exception as error:
                    self.crashes[key] = Crash(error, traceback.format_exc(), self.shadow())

    def _set_aside(self, key: Hashable, error: Exception, batch: Batch) -> None:
        columns = list(dict.fromkeys(self._accumulators[key].columns))
        self.crashes[key] = Crash(error, traceback.format_exc(), as_frame(batch.records, columns, start=batch.start))

    # --- after the pass

    def had_nulls(self, column: str) -> bool:
        nulls = self._accumulators.get(("nulls", column))
        return isinstance(nulls, Nulls) and nulls.nulls > 0

    def considered_nothing(self, keys: frozenset[Hashable]) -> bool:
        """Whether one of the conditions found no row to judge, though there are rows."""
        conditions = (self._accumulators.get(key) for key in keys)
        chosen = (each.chosen if isinstance(each, Either) else each for each in conditions)
        return any(isinstance(each, Condition) and not each.considered for each in chosen)

    def blank(self) -> pd.DataFrame:
        """A single row in which everything is missing."""
        if self.source.frame is not None:
            return self.source.frame.iloc[:1]
        return pa.table({entry.name: pa.nulls(1, entry.type) for entry in self.source.schema}).to_pandas()

    def shadow(self) -> pd.DataFrame:
        """A frame without rows that has the columns and types that the whole would have in pandas."""
        if self.source.frame is not None:
            return self.source.frame.iloc[:0]
        schema = self.source.schema
        columns = {
            entry.name: pa.nulls(int(self.had_nulls(entry.name)), entry.type).to_pandas().iloc[:0] for entry in schema
        }
        return pd.DataFrame(columns, columns=schema.names)


def _hashable(datatype: pa.DataType) -> bool:
    return bool(pa.types.is_boolean(datatype) or pa.types.is_date32(datatype) or pa.types.is_decimal128(datatype))


def _plain_interval(bounds: list[Any]) -> bool:
    given = [bound for bound in bounds if bound is not None]
    return bool(given) and all(plain_number(bound) for bound in given) and (len(given) == 1 or given[0] <= given[1])


def _plain_members(members: Any, datatype: pa.DataType) -> bool:
    """Whether membership is a matter of numbers alone, without pandas' rules for mixed sets."""
    if (
        not isinstance(members, list | tuple | set | frozenset)
        or not members
        or not all(plain_number(each) for each in members)
    ):
        return False
    if kind_of(datatype) is Kind.INTEGER:
        return all(isinstance(each, int) and -(1 << 63) <= each < 1 << 63 for each in members)
    return bool(pa.types.is_float64(datatype)) and all(
        isinstance(each, float) or abs(each) <= 1 << 53 for each in members
    )
