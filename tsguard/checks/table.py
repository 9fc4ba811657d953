"""What holds of every sound table, asked of each column where no suite says more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tsguard import catalogue
from tsguard.evidence import Evidence
from tsguard.expect import measures
from tsguard.findings import Finding, Role, Status
from tsguard.probes.data import nonfinite, scales, sentinels

CHECK = "the table"

FEW = 2
"""Rows below which nothing can be said to repeat."""

MOSTLY_NUMBERS = 0.9
"""A column of text of which this share reads as numbers was meant as numbers."""
TRIED = 1_000
"""Cells of text that are tried as numbers."""

CODES = ("data-nonfinite", "data-sentinel", "data-constant", "data-order", "data-format")


def judge_table(table: pa.Table, numbers: Mapping[str, Any]) -> tuple[Finding, ...]:
    """Findings with column and row; a code of which every column was free passes once.

    Args:
        table: the whole table.
        numbers: its columns of numbers as numpy, missing as NaN.
    """
    found: list[Finding] = []
    for name, column in numbers.items():
        found += _of_numbers(name, column)
    for name in table.column_names:
        kind = table.schema.field(name).type
        if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
            found += _of_time(name, table)
        elif name not in numbers:
            found += _of_holes(name, table.column(name))
            if pa.types.is_list(kind) or pa.types.is_large_list(kind):
                found += _of_series(name, table.column(name))
            if pa.types.is_string(kind) or pa.types.is_large_string(kind):
                found += _of_text(name, table.column(name))
    spoken = {finding.code for finding in found}
    some = bool(table.num_rows and table.num_columns)
    status = Status.PASS if some else Status.NOT_RUN
    words = "every column was looked at" if some else "the table has no rows" if table.num_columns else "no columns"
    sound = [Finding(code, status, Role.NOTE, words, check=CHECK) for code in CODES if code not in spoken]
    return (*found, *sound)


def _found(code: str, column: str, message: str, row: int | None = None, **facts: Any) -> Finding:
    where = {"phase": "data", "column": column, "row": row}
    evidence = [Evidence("value", facts, name=column)] if facts else []
    return catalogue.finding(code, f"column {column!r}: {message}", where=where, evidence=evidence, check=CHECK)


def _of_numbers(name: str, column: Any) -> Iterator[Finding]:
    holes = nonfinite(column)
    if holes.count == len(column) and holes.count:
        yield _found(
            "data-nonfinite", name, f"not one of {len(column):,} values is a finite number.", 0, count=len(column)
        )
        return
    if holes.count:
        rows = [place[0] for place in holes.first]
        shown = ", ".join(f"{value:g} in row {row}" for row, value in zip(rows, holes.values, strict=True))
        words = "value is" if holes.count == 1 else "values are"
        message = (
            f"{holes.count:,} {words} missing or not finite ({holes.share:.2%}); first: {shown}. Expected finite "
            "numbers only."
        )
        yield _found("data-nonfinite", name, message, rows[0], count=holes.count, rows=rows)
    for code in sentinels(column):
        message = (
            f"{code.value:g} stands in {code.count:,} rows, and the nearest other value is {code.nearest:g}. It looks "
            "like a code for a missing value."
        )
        facts = {"value": code.value, "count": code.count, "rows": list(code.rows)}
        yield _found("data-sentinel", name, message, code.rows[0], **facts)
    for one in scales(column):
        if one.constant and len(column) - holes.count > FEW:
            where = "in every row" if not holes.count else "in every row that has a value"
            yield _found("data-constant", name, f"{one.high:g} {where}: it carries nothing.", value=one.high)


def _of_holes(name: str, column: pa.ChunkedArray) -> Iterator[Finding]:
    """Cells without a value in a column that holds no numbers. Words may be left out on purpose: that is a warning."""
    missing = column.null_count
    if not missing:
        return
    row = int(pc.index(pc.is_null(column), True).as_py())
    if missing == len(column):
        yield _found("data-nonfinite", name, f"not one of {missing:,} cells has a value.", row, count=missing)
        return
    cells = "cell has" if missing == 1 else "cells have"
    message = f"{missing:,} {cells} no value ({missing / len(column):.2%}); first in row {row}."
    finding = _found("data-nonfinite", name, message, row, count=missing)
    yield replace(finding, status=Status.WARN, role=Role.NOTE)


def _of_series(name: str, column: pa.ChunkedArray) -> Iterator[Finding]:
    """A series in every cell, as a `.ts` file has: its numbers are looked at one by one."""
    inside = pc.list_flatten(column)
    if not (pa.types.is_floating(inside.type) or pa.types.is_integer(inside.type)):
        return
    holes = nonfinite(inside.to_numpy())
    if holes.count:
        place = holes.first[0][0]
        row = int(pc.list_parent_indices(column)[place].as_py())
        words = "value is" if holes.count == 1 else "values are"
        message = (
            f"{holes.count:,} {words} missing or not finite ({holes.share:.2%}) inside its series; first in row {row}."
        )
        yield _found("data-nonfinite", name, message, row, count=holes.count)


def _of_time(name: str, table: pa.Table) -> Iterator[Finding]:
    column = table.column(name)
    if column.null_count:
        row = int(pc.index(pc.is_null(column), True).as_py())
        rows = "row has" if column.null_count == 1 else "rows have"
        message = f"{column.null_count:,} {rows} no time; first in row {row}. Expected a time in every row."
        yield _found("data-nonfinite", name, message, row, count=column.null_count)
        return
    whole = column.cast(pa.timestamp("ms")) if pa.types.is_date(column.type) else column
    times = whole.cast(pa.int64()).to_numpy()
    late, entity = _late(times, table)
    if len(late):
        row = int(late[0])
        per = f" within one {entity!r}" if entity else ""
        rows = "1 row" if len(late) == 1 else f"{len(late):,} rows"
        message = (
            f"time falls in {rows}{per}; first in row {row}, to {column[row].as_py()}. Expected time that never falls."
        )
        yield _found("data-order", name, message, row, count=len(late))


def _late(times: Any, table: pa.Table) -> tuple[Any, str | None]:
    """Rows at which time falls, and within which entity: that column's under which time runs best."""
    late, entity = measures.out_of_order(times, strictly=False), None
    for name in table.column_names if len(late) else ():
        owners = _owners(table.column(name))
        if owners is None:
            continue
        within = measures.out_of_order(times, owners, strictly=False)
        if len(within) * 2 <= len(late):
            late, entity = within, name
    return late, entity


def _owners(column: pa.ChunkedArray) -> Any:
    """The column as names of entities, each with many rows; None for what is none.

    Whole numbers count only where the rows of each stand together: an hour of the day is no entity.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)):
        return None
    codes = column.combine_chunks().dictionary_encode(null_encoding="encode").indices.to_numpy()
    distinct = int(codes.max()) + 1 if len(codes) else 0
    if not FEW <= distinct <= len(codes) // FEW:
        return None
    blocks = 1 + int(np.count_nonzero(np.diff(codes)))
    return None if pa.types.is_integer(kind) and blocks != distinct else codes


def _of_text(name: str, column: pa.ChunkedArray) -> Iterator[Finding]:
    cells = [cell for cell in column.slice(0, TRIED).to_pylist() if cell]
    others = [cell for cell in cells if not _reads_as_number(cell)]
    if len(cells) > FEW and len(others) <= (1 - MOSTLY_NUMBERS) * len(cells):
        but = f", but for {others[0][:40]!r}" if others else ""
        message = f"it holds numbers written as text, as {cells[0][:40]!r}{but}. Expected a column of numbers."
        yield _found("data-format", name, message, example=cells[0][:40])


def _reads_as_number(cell: str) -> bool:
    try:
        float(cell.replace(",", ".", 1))
    except ValueError:
        return False
    return True
