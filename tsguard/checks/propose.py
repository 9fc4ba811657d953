"""A suite learned from a sample, for a person to edit: what holds of this data, written as expectations.

Bounds are given air (half of the range on either side), because a sample has not seen the extremes. What the sample
itself breaks is proposed with the share that holds today, so that a person sees it and decides.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from tsguard.data.readers import read
from tsguard.data.reading import Reading

AIR = 0.5
"""Air above and below the range of the sample, as a share of it."""
FEW_WORDS = 50
"""Columns of text with at most this many different values are expected to stay within them."""
LONGEST_FACTOR = 3
"""A stuck run three times as long as any of the sample's is no longer the same sensor."""
LEAST_RUN = 12
REGULAR_SHARE = 0.95
"""Share of equal steps from which a clock is meant to be regular."""
DIGITS = 6


def propose(data: Any, *, name: str = "proposed") -> Any:
    """A genuine `great_expectations.ExpectationSuite` that the sample meets."""
    from tsguard.expect.suites import load_suite

    table = (data if isinstance(data, Reading) else read(data)).table
    return load_suite({"name": name, "expectations": [*_of_table(table), *_of_columns(table)], "meta": _META})


_META = {"proposed": "learned from a sample: read every line and change what you know better"}


def _of_table(table: pa.Table) -> list[dict[str, Any]]:
    return [
        {
            "type": "expect_table_columns_to_match_set",
            "kwargs": {"column_set": table.column_names, "exact_match": True},
        },
        {"type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": max(1, table.num_rows // 2)}},
    ]


def _of_columns(table: pa.Table) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    entity = _entity(table)
    for column in table.column_names:
        kind, values = table.schema.field(column).type, table.column(column)
        if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
            made += _of_time(column, values, table, entity)
        elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
            made += _of_numbers(column, values, integer=pa.types.is_integer(kind))
        elif pa.types.is_string(kind) or pa.types.is_dictionary(kind):
            made += _of_words(column, values)
    return made


def _entity(table: pa.Table) -> str | None:
    return "file" if "file" in table.column_names else None


def _of_time(column: str, values: Any, table: pa.Table, entity: str | None) -> list[dict[str, Any]]:
    from tsguard.expect import measures

    seconds = values.cast(pa.timestamp("s")).cast(pa.int64()).to_numpy()
    if seconds.dtype.kind == "f" or len(seconds) < 3:
        return []
    owners = None if entity is None else np.asarray(table.column(entity).to_pylist(), dtype=object)
    asked = {"column": column, **({} if entity is None else {"entity": entity})}
    made: list[dict[str, Any]] = []
    for strictly in (True, False):
        if not len(measures.out_of_order(seconds, owners, strictly=strictly)):
            made.append(
                {"type": "expect_column_time_to_increase_per_entity", "kwargs": {**asked, "strictly": strictly}}
            )
            break
    usual = measures.usual_interval(seconds, owners)
    irregular = len(measures.irregular(seconds, usual, owners, tolerance=0.0)) / max(1, len(seconds) - 1)
    if usual > 0 and 1 - irregular >= REGULAR_SHARE:
        mostly = {} if irregular == 0 else {"mostly": round(1 - irregular - 1e-6, DIGITS)}
        kwargs = {**asked, "interval": float(usual), **mostly}
        made.append({"type": "expect_column_interval_to_be_regular", "kwargs": kwargs})
    return made


def _of_numbers(column: str, values: Any, *, integer: bool) -> list[dict[str, Any]]:
    from tsguard.expect import measures

    numbers = np.asarray(values.to_numpy(), np.float64)
    held = numbers[np.isfinite(numbers)]
    if not len(held):
        return []
    missing = 1.0 - len(held) / len(numbers)
    mostly = {} if missing == 0 else {"mostly": _floor(1.0 - missing)}
    made: list[dict[str, Any]] = [{"type": "expect_column_values_to_be_finite", "kwargs": {"column": column, **mostly}}]
    codes = [float(code.value) for code in measures.sentinels(held)]
    body = held[~np.isin(held, codes)] if codes else held
    low, high = float(body.min()), float(body.max())
    air = AIR * (high - low)
    bounds = {"min_value": _round(0.0 if low >= 0 else low - air), "max_value": _round(high + air)}
    outside = len(held) - len(body)
    share = {} if not outside else {"mostly": _floor(len(body) / len(held))}
    made.append({"type": "expect_column_values_to_be_between", "kwargs": {"column": column, **bounds, **share}})
    if codes:
        notes = {"tsguard": {"says": f"codes for missing: {codes}; declare them, then tighten this"}}
        made[-1]["meta"] = notes
    elif not integer:
        made.append({"type": "expect_column_sentinel_values_to_be_absent", "kwargs": {"column": column}})
        longest = measures.stuck_runs(numbers, at_least=1).longest
        if longest < len(numbers):
            limit = max(LEAST_RUN, LONGEST_FACTOR * longest)
            kwargs = {"column": column, "longest": limit}
            made.append({"type": "expect_column_stuck_runs_to_be_shorter_than", "kwargs": kwargs})
    return made


def _of_words(column: str, values: Any) -> list[dict[str, Any]]:
    words = sorted({str(word) for word in values.unique().to_pylist() if word is not None})
    made: list[dict[str, Any]] = []
    if values.null_count == 0:
        made.append({"type": "expect_column_values_to_not_be_null", "kwargs": {"column": column}})
    if 0 < len(words) <= FEW_WORDS:
        made.append({"type": "expect_column_values_to_be_in_set", "kwargs": {"column": column, "value_set": words}})
    return made


def _floor(share: float) -> float:
    return float(np.floor(share * 10**DIGITS) / 10**DIGITS)


def _round(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
