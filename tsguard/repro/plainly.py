"""The commonest expectations as a few lines of Python, which set `wrong` from the lists in `columns`.

A script of such an expectation needs nothing but Python. As in Great Expectations, NaN counts as missing and only
`values_to_not_be_null` looks at what is missing. Whatever says more than these lines is asked through `tsguard.expect`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa

from tsguard.repro.code.arrays import plain

Form = Callable[[dict[str, Any]], list[str]]
"""Takes the arguments that it has understood out of what it is given."""

NULL = "values_to_not_be_null"


def lines_of(expectation: Mapping[str, Any], table: pa.Table) -> list[str] | None:
    """Lines that judge as the expectation does; None where there are none, or they do not find this table wrong."""
    told, name = dict(expectation["kwargs"]), str(expectation["type"]).removeprefix("expect_column_")
    column, mostly, form = told.pop("column", None), told.pop("mostly", 1.0), FORMS.get(name)
    if form is None or not isinstance(column, str):
        return None
    whole = f"columns[{plain(column)}]"
    known = whole if name == NULL else f"[v for v in {whole} if v is not None and v == v]"
    space: dict[str, Any] = {"columns": table.to_pydict()}
    try:
        lines = [f"known = {known}", *form(told)]
        if mostly < 1:
            lines.append(f"wrong = wrong if len(wrong) > {1 - mostly:g} * len(known) else []")
        exec("\n".join(lines), space)
    except (KeyError, TypeError, ValueError, ArithmeticError):
        return None
    # An argument that is left over says more than the lines do.
    return lines if space["wrong"] and not told else None


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


FORMS: Mapping[str, Form] = {
    NULL: _each(lambda told: "v is None or v != v"),
    "values_to_be_between": _each(lambda told: f"not {_range(told, 'v')}"),
    "value_lengths_to_be_between": _each(lambda told: f"not {_range(told, 'len(v)')}"),
    "values_to_be_in_set": _each(lambda told: f"v not in {plain(list(told.pop('value_set')))}"),
    "values_to_not_be_in_set": _each(lambda told: f"v in {plain(list(told.pop('value_set')))}"),
    "values_to_be_unique": _each(lambda told: "known.count(v) > 1"),
    "values_to_be_increasing": _pairs("<=", "<"),
    "values_to_be_decreasing": _pairs(">=", ">"),
    "min_to_be_between": _whole("min(known)"),
    "max_to_be_between": _whole("max(known)"),
    "sum_to_be_between": _whole("sum(known)"),
    "mean_to_be_between": _whole("sum(known) / len(known)"),
}
"""By the expectation's name without its prefix."""
