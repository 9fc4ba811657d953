"""The commonest expectations as a few lines of Python, which set `wrong` from the lists in `columns`.

A script of such an expectation needs nothing but Python. As in Great Expectations, NaN counts as missing and only
`values_to_not_be_null` and `values_to_be_finite` look at what is missing. Whatever says more than these lines is asked
through `tsguard.expect`.
"""

from __future__ import annotations

import datetime
import itertools
import re
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa

from tsguard.repro.code.arrays import plain

Form = Callable[[dict[str, Any]], list[str]]
"""Takes the arguments that it has understood out of what it is given."""

WHOLE = ("values_to_not_be_null", "values_to_be_finite")
"""Those that look at what is missing."""

MODULES = {"itertools": itertools, "re": re, "statistics": statistics}
"""What the lines may use."""

_TIMES = "times"
"""Argument of ours, not of an expectation: whether the column holds times, whose differences are counted in seconds."""


def lines_of(expectation: Mapping[str, Any], table: pa.Table) -> list[str] | None:
    """Lines that judge as the expectation does; None where there are none, or they do not find this table wrong."""
    told, name = dict(expectation["kwargs"]), str(expectation["type"]).removeprefix("expect_").removeprefix("column_")
    column, mostly, form = told.get("column"), told.pop("mostly", 1.0), FORMS.get(name)
    if form is None:
        return None
    columns = table.to_pydict()
    space: dict[str, Any] = {"columns": columns, **MODULES}
    try:
        lines = []
        if column is not None and "entity" not in told:
            whole = f"columns[{plain(told.pop('column'))}]"
            lines.append(f"known = {whole if name in WHOLE else f'[v for v in {whole} if v is not None and v == v]'}")
        told[_TIMES] = any(isinstance(v, datetime.date) for v in columns.get(column, ()))
        lines += form(told)
        if mostly < 1:
            lines.append(f"wrong = wrong if len(wrong) > {1 - mostly:g} * len(known) else []")
        exec("\n".join(lines), space)
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError):
        return None
    told.pop(_TIMES, None)
    # An argument that is left over says more than the lines do.
    return lines if space["wrong"] and not told else None


def imports_of(lines: list[str]) -> set[str]:
    """Import lines that the lines need."""
    return {f"import {name}" for name in MODULES if any(re.search(rf"\b{name}\.", line) for line in lines)}


def _range(told: dict[str, Any], what: str) -> str:
    """`low <= what <= high`, as far as there are bounds."""
    low, high = told.pop("min_value", None), told.pop("max_value", None)
    signs = ["<" if told.pop(f"strict_{side}", False) else "<=" for side in ("min", "max")]
    if low is None and high is None:
        raise ValueError("no bounds")
    left = "" if low is None else f"{plain(low)} {signs[0]} "
    return left + what + ("" if high is None else f" {signs[1]} {plain(high)}")


def _each(wrong: Callable[[dict[str, Any]], str]) -> Form:
    return lambda told: [f"wrong = [v for v in known if {wrong(told)}]"]


def _pairs(sign: str, strict: str) -> Form:
    def lines(told: dict[str, Any]) -> list[str]:
        rises = strict if told.pop("strictly", False) else sign
        return [f"wrong = [(a, b) for a, b in zip(known, known[1:]) if not a {rises} b]"]

    return lines


def _whole(value: str) -> Form:
    return lambda told: [f"value = {value}", f"wrong = [] if {_range(told, 'value')} else [value]"]


def _steps(wrong: Callable[[dict[str, Any], str], str]) -> Form:
    """From one row to the next; with `entity`, to the next of the same entity."""

    def lines(told: dict[str, Any]) -> list[str]:
        if (entity := told.pop("entity", None)) is None:
            return [f"wrong = [(a, b) for a, b in itertools.pairwise(known) if {wrong(told, 'b - a')}]"]
        own = f"list(zip(columns[{plain(entity)}], columns[{plain(told.pop('column'))}]))"
        pairs = "for (one, a), (two, b) in itertools.pairwise(rows)"
        return [
            f"rows = sorted({own}, key=lambda row: str(row[0]))",
            f"wrong = [(one, a, b) {pairs} if one == two and {wrong(told, 'b - a')}]",
        ]

    return lines


def _seconds(told: dict[str, Any], step: str) -> str:
    return f"({step}).total_seconds()" if told.pop(_TIMES) else f"({step})"


def _not_after(told: dict[str, Any], step: str) -> str:
    return f"not a {'<' if told.pop('strictly', True) else '<='} b"


def _irregular(told: dict[str, Any], step: str) -> str:
    interval = float(told.pop("interval"))
    return f"abs({_seconds(told, step)} - {plain(interval)}) > {plain(told.pop('tolerance', 0.0) * interval)}"


def _too_far(told: dict[str, Any], step: str) -> str:
    return f"{_seconds(told, step)} > {plain(told.pop('longest'))}"


def _stuck(told: dict[str, Any]) -> list[str]:
    return [
        "runs = [list(run) for _, run in itertools.groupby(known)]",
        f"wrong = [run for run in runs if len(run) >= {int(told.pop('longest'))}]",
    ]


def _shares(told: dict[str, Any]) -> list[str]:
    low, high = told.pop("min_share", 0.0), told.pop("max_share", 1.0)
    return [
        "shares = {v: known.count(v) / len(known) for v in known}",
        f"wrong = [v for v, share in shares.items() if not {plain(low)} <= share <= {plain(high)}]",
    ]


def _first_greater(told: dict[str, Any]) -> list[str]:
    one, two = (f"columns[{plain(told.pop(f'column_{side}'))}]" for side in "AB")
    sign = ">=" if told.pop("or_equal", False) else ">"
    return [f"wrong = [(a, b) for a, b in zip({one}, {two}) if None not in (a, b) and not a {sign} b]"]


def _together_unique(told: dict[str, Any]) -> list[str]:
    columns = ", ".join(f"columns[{plain(name)}]" for name in told.pop("column_list"))
    return [f"rows = list(zip({columns}))", "wrong = [row for row in rows if rows.count(row) > 1]"]


FORMS: Mapping[str, Form] = {
    "values_to_not_be_null": _each(lambda told: "v is None or v != v"),
    "values_to_be_finite": _each(lambda told: 'v is None or v != v or abs(v) == float("inf")'),
    "values_to_be_between": _each(lambda told: f"not {_range(told, 'v')}"),
    "value_lengths_to_be_between": _each(lambda told: f"not {_range(told, 'len(v)')}"),
    "values_to_be_in_set": _each(lambda told: f"v not in {plain(list(told.pop('value_set')))}"),
    "values_to_not_be_in_set": _each(lambda told: f"v in {plain(list(told.pop('value_set')))}"),
    "sentinel_values_to_be_absent": _each(lambda told: f"v in {plain(list(told.pop('sentinels')))}"),
    "values_to_match_regex": _each(lambda told: f"not re.match({plain(told.pop('regex'))}, v)"),
    "values_to_not_match_regex": _each(lambda told: f"re.match({plain(told.pop('regex'))}, v)"),
    "values_to_be_unique": _each(lambda told: "known.count(v) > 1"),
    "values_to_be_increasing": _pairs("<=", "<"),
    "values_to_be_decreasing": _pairs(">=", ">"),
    "min_to_be_between": _whole("min(known)"),
    "max_to_be_between": _whole("max(known)"),
    "sum_to_be_between": _whole("sum(known)"),
    "mean_to_be_between": _whole("sum(known) / len(known)"),
    "median_to_be_between": _whole("statistics.median(known)"),
    "stdev_to_be_between": _whole("statistics.stdev(known)"),
    "unique_value_count_to_be_between": _whole("len(set(known))"),
    "time_to_increase_per_entity": _steps(_not_after),
    "interval_to_be_regular": _steps(_irregular),
    "gaps_to_be_shorter_than": _steps(_too_far),
    "stuck_runs_to_be_shorter_than": _stuck,
    "class_shares_to_be_between": _shares,
    "pair_values_a_to_be_greater_than_b": _first_greater,
    "compound_columns_to_be_unique": _together_unique,
}
"""By the expectation's name without its prefix."""
