"""Random small tables and, for each column, every expectation that could be asked of it."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

FLOATS = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, 1.5, 2.0, -3.0, float("nan"), float("inf"), float("-inf")]),
    st.floats(-100, 100, width=32),
)
SMALL = st.integers(-5, 5)
EDGES = st.one_of(SMALL, st.sampled_from([2**63 - 1, -(2**63), 2**53, 2**53 + 1, 2**62]))
TEXTS = st.sampled_from(["", "a", "b", "ab", "2020-01-01", "7", "Ä", '{"a": 1}', "abc", "B"])
MOMENTS = st.integers(-(10**9), 10**9)

# kind: (Arrow type, values); a column of 64-bit edges never has nulls, because pandas rounds it then and we do not
COLUMNS: dict[str, tuple[pa.DataType, Any]] = {
    "float64": (pa.float64(), FLOATS),
    "float32": (pa.float32(), FLOATS),
    "int64": (pa.int64(), SMALL),
    "edges": (pa.int64(), EDGES),
    "int32": (pa.int32(), SMALL),
    "uint8": (pa.uint8(), st.integers(0, 255)),
    "uint64": (pa.uint64(), st.integers(0, 2**64 - 1)),
    "bool": (pa.bool_(), st.booleans()),
    "string": (pa.string(), TEXTS),
    "large_string": (pa.large_string(), TEXTS),
    "dictionary": (pa.dictionary(pa.int32(), pa.string()), TEXTS),
    "stamp": (pa.timestamp("us"), MOMENTS),
    "nanostamp": (pa.timestamp("ns"), MOMENTS),
    "zoned": (pa.timestamp("ms", tz="Europe/Berlin"), MOMENTS),
    "decimal": (pa.decimal128(10, 2), st.sampled_from([Decimal("1.50"), Decimal("-2.25"), Decimal("0.00")])),
    "date": (pa.date32(), st.sampled_from([date(2020, 1, 1), date(2021, 6, 1)])),
    "nothing": (pa.null(), st.none()),
}


@st.composite
def tables(draw: Any, kinds: tuple[str, ...] = tuple(COLUMNS), columns: int = 3) -> pa.Table:
    rows = draw(st.sampled_from([0, 1, 2, 3, 5, 9]))
    chosen = draw(st.lists(st.sampled_from(kinds), min_size=2, max_size=columns))
    parts = {}
    for number, kind in enumerate(chosen):
        datatype, values = COLUMNS[kind]
        cell = values if kind == "edges" or draw(st.booleans()) else st.one_of(st.none(), values)
        cells = draw(st.lists(cell, min_size=rows, max_size=rows))
        if kind in ("string", "int64", "float64") and draw(st.integers(0, 9)) == 0:
            cells = [None] * rows
        parts[f"{kind}_{number}"] = pa.array(cells, datatype)
    return pa.table(parts)


@st.composite
def cut(draw: Any, table: pa.Table) -> list[pa.RecordBatch]:
    """The table as batches, cut where Hypothesis likes."""
    places = sorted(draw(st.sets(st.integers(0, table.num_rows), max_size=3)) | {0, table.num_rows})
    pieces = [table.slice(low, high - low) for low, high in pairwise(places)] or [table]
    return [batch for piece in pieces for batch in piece.to_batches()] or [empty(table)]


def empty(table: pa.Table) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array([], entry.type) for entry in table.schema], schema=table.schema)


def column_expectations(column: str, kind: str) -> Any:
    """Strategies of expectations on one column, as (type, kwargs)."""
    numbers = st.sampled_from([-3, 0, 1, 1.5, 2, 2**53, 2**63 - 1])
    stamps = st.sampled_from([datetime(1970, 1, 1, tzinfo=UTC if kind == "zoned" else None), "1970-01-01"])
    words = st.sampled_from(["2020-01-01", "7", 1])
    bounds = {
        "string": words,
        "large_string": words,
        "dictionary": words,
        "stamp": stamps,
        "nanostamp": stamps,
        "zoned": stamps,
    }.get(kind, numbers)
    values = st.lists(
        COLUMNS[kind][1].filter(lambda value: value is not None and value == value) if kind != "nothing" else SMALL,
        min_size=1,
        max_size=4,
    )
    mixed = st.one_of(values, values, st.just([1, 2.5, 0]), st.just(["a", "b"]))
    mostly = st.sampled_from([1.0, 1.0, 0.5, 0.9])
    some = st.booleans()

    def made(name: str, **kwargs: Any) -> Any:
        return st.fixed_dictionaries(kwargs).map(lambda drawn: (name, {"column": column} | drawn))

    interval = {"min_value": bounds, "strict_min": some, "strict_max": some, "max_value": st.none()}
    ends = [interval, interval | {"min_value": st.none(), "max_value": bounds}]
    between = [made("expect_column_values_to_be_between", mostly=mostly, **end) for end in ends]
    aggregates = [
        made(f"expect_column_{name}_to_be_between", min_value=numbers)
        for name in ("mean", "median", "stdev", "sum", "unique_value_count")
        if kind != "edges"
        or name in ("median", "sum", "unique_value_count")  # sums that cancel depend on the order of adding
    ]
    extremes = [made(f"expect_column_{name}_to_be_between", min_value=bounds) for name in ("min", "max")]
    sets = [made(f"expect_column_values_to_{name}_in_set", value_set=mixed, mostly=mostly) for name in ("be", "not_be")]
    distinct = [
        made(f"expect_column_distinct_values_to_{name}_set", value_set=mixed) for name in ("be_in", "contain", "equal")
    ]
    regex = st.sampled_from(["a", "^a+b?$", r"\d", "[A-Z]", "(?=a)a", "ä"])
    text = [
        made("expect_column_values_to_match_regex", regex=regex, mostly=mostly),
        made("expect_column_values_to_not_match_regex", regex=regex),
        made(
            "expect_column_values_to_match_regex_list",
            regex_list=st.lists(regex, min_size=1, max_size=2),
            match_on=st.sampled_from(["any", "all"]),
        ),
        made("expect_column_values_to_not_match_regex_list", regex_list=st.lists(regex, min_size=1, max_size=2)),
        made("expect_column_value_lengths_to_be_between", min_value=st.integers(0, 3), max_value=st.integers(3, 4)),
        made("expect_column_value_lengths_to_equal", value=st.integers(0, 3)),
        made("expect_column_values_to_match_strftime_format", strftime_format=st.just("%Y-%m-%d")),
        made("expect_column_values_to_be_dateutil_parseable"),
        made("expect_column_values_to_be_json_parseable"),
    ]
    order = [made(f"expect_column_values_to_be_{name}", strictly=some) for name in ("increasing", "decreasing")]
    typed = st.sampled_from(["int64", "float64", "str", "object", "datetime64", "bool"])
    others = [
        made("expect_column_values_to_be_null", mostly=mostly),
        made("expect_column_values_to_not_be_null", mostly=mostly),
        made("expect_column_values_to_be_unique", mostly=mostly),
        made("expect_column_proportion_of_unique_values_to_be_between", min_value=st.just(0.5)),
        made("expect_column_proportion_of_non_null_values_to_be_between", min_value=st.just(0.5)),
        made("expect_column_most_common_value_to_be_in_set", value_set=values, ties_okay=some),
        made("expect_column_values_to_be_of_type", type_=typed),
        made("expect_column_values_to_be_in_type_list", type_list=st.lists(typed, min_size=1, max_size=2)),
        made("expect_column_to_exist"),
        made(
            "expect_column_quantile_values_to_be_between",
            quantile_ranges=st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]), min_size=1, max_size=3).map(
                lambda shares: {"quantiles": shares, "value_ranges": [[0, None]] * len(shares)}
            ),
            allow_relative_error=st.sampled_from([False, "lower", "higher", "linear"]),
        ),
    ]
    return st.one_of(*between, *aggregates, *extremes, *sets, *distinct, *text, *order, *others)


def table_expectations(names: list[str]) -> Any:
    two = st.permutations(names).map(lambda order: order[:2])
    ignore_pair = st.sampled_from(["both_values_are_missing", "either_value_is_missing", "neither"])
    ignore_list = st.sampled_from(["all_values_are_missing", "any_value_is_missing", "never"])

    def pair(name: str, **kwargs: Any) -> Any:
        return st.tuples(two, ignore_pair, st.fixed_dictionaries(kwargs)).map(
            lambda drawn: (
                name,
                {"column_A": drawn[0][0], "column_B": drawn[0][1], "ignore_row_if": drawn[1]} | drawn[2],
            )
        )

    def many(name: str, **kwargs: Any) -> Any:
        return st.tuples(two, ignore_list, st.fixed_dictionaries(kwargs)).map(
            lambda drawn: (name, {"column_list": drawn[0], "ignore_row_if": drawn[1]} | drawn[2])
        )

    return st.one_of(
        pair("expect_column_pair_values_to_be_equal"),
        pair("expect_column_pair_values_a_to_be_greater_than_b", or_equal=st.booleans()),
        pair(
            "expect_column_pair_values_to_be_in_set", value_pairs_set=st.just([(1, 1), ("a", "b"), (0, "a"), (None, 1)])
        ),
        many("expect_compound_columns_to_be_unique"),
        many("expect_select_column_values_to_be_unique_within_record"),
        many("expect_multicolumn_sum_to_equal", sum_total=SMALL),
        many("expect_multicolumn_values_to_be_equal"),
        st.just(("expect_table_row_count_to_equal", {"value": 3})),
        st.just(("expect_table_row_count_to_be_between", {"min_value": 1, "max_value": 4})),
        st.just(("expect_table_column_count_to_equal", {"value": 2})),
        st.just(("expect_table_column_count_to_be_between", {"min_value": 3})),
        st.just(("expect_table_columns_to_match_set", {"column_set": names[:1], "exact_match": False})),
        two.map(lambda order: ("expect_table_columns_to_match_ordered_list", {"column_list": order})),
        st.just(("expect_column_values_to_be_between", {"column": "absent", "min_value": 0})),
        st.just(("expect_column_to_exist", {"column": "absent"})),
        st.sampled_from(names).map(
            lambda name: (
                "expect_column_values_to_not_be_null",
                {"column": name, "row_condition": f"`{names[0]}`.notnull()", "condition_parser": "pandas"},
            )
        ),
    )


@st.composite
def suites(draw: Any, table: pa.Table, size: int = 12) -> dict[str, Any]:
    one = st.one_of(*[column_expectations(name, name.rpartition("_")[0]) for name in table.column_names])
    drawn = draw(
        st.lists(
            st.one_of(one, one, one, table_expectations(table.column_names)),
            min_size=size // 2,
            max_size=size,
            unique_by=repr,
        )
    )
    return {"name": "random", "expectations": [{"type": kind, "kwargs": kwargs} for kind, kwargs in drawn]}
