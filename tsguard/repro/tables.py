"""Data that breaks an expectation, as a case: the fewest columns and rows of which the expectation still is not met.

The script holds a few values of the columns at fault and nothing else of the data. The commonest expectations are
asked in plain Python, all others through `tsguard.expect`; without a suite the question is that of the audit itself.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from tsguard.data.readers import read
from tsguard.errors import TsguardError
from tsguard.findings import Finding, Status
from tsguard.repro import script as scripts
from tsguard.repro.budget import Clock, stopwatch
from tsguard.repro.code.arrays import plain
from tsguard.repro.code.lines import Lines
from tsguard.repro.found import FoundCase
from tsguard.repro.passes.subset import smallest
from tsguard.repro.plainly import imports_of, lines_of
from tsguard.repro.reduce import OutOfTime

SHOWN = 48
"""Values that a reader still takes in at a glance; more lie beside the script."""

ROWS_MAX = 200_000
"""Rows that are asked again and again; of more, the part around the first row at fault is taken."""


@dataclass(frozen=True)
class Question:
    """What is asked of the data, in process and in the script."""

    code: str
    column: str | None
    expectation: Mapping[str, Any] | None = None
    """Type and arguments; None: the audit without a suite."""

    def fails(self, table: pa.Table) -> bool:
        """Whether the answer is still no; a table that cannot be judged is no answer."""
        try:
            return bool(broken(table, self.code, self.column, self.expectation))
        except (TsguardError, KeyError, ValueError, TypeError, IndexError, pa.ArrowException):
            return False


def broken(table: pa.Table, code: str, column: str | None = None, expectation: Mapping[str, Any] | None = None) -> str:
    """What is not met, in words; empty where all is well."""
    if expectation is not None:
        from tsguard.expect.validation import validate

        [answer] = validate({"expectations": [dict(expectation)]}, table).results
        if answer.success or _raised(answer.exception_info):
            return ""
        return f"{expectation['type']} is not met"
    from tsguard.checks.audit import audit_data

    found = audit_data(table).findings
    return next((f.message for f in found if _same(f, code, column) and f.status is Status.FAIL), "")


def _raised(told: Any) -> bool:
    """Whether the expectation could not be judged: said for the whole, or for each metric that it wants."""
    if not isinstance(told, Mapping):
        return False
    return bool(told.get("raised_exception")) or any(_raised(each) for each in told.values())


def _same(finding: Finding, code: str, column: str | None) -> bool:
    return finding.code == code and finding.where.get("column") == column


def table_case(
    data: Any,
    suite: Any,
    findings: Sequence[Finding],
    *,
    name: str,
    budget_s: float,
    synthetic: bool = False,
    clock: Clock | None = None,
    progress: Callable[[str], None] = lambda words: None,
) -> FoundCase | None:
    """The first unmet expectation of an audit, on as little of the table as breaks it; None where that cannot be."""
    clock = clock or stopwatch()
    try:
        table = data if isinstance(data, pa.Table) else read(data).table
    except (TsguardError, TypeError, ValueError):  # arrays and windows are no table
        return None
    for finding in findings:
        if finding.status is not Status.FAIL:
            continue
        for question in _questions(finding, suite):
            start = _near(table, finding)
            if start is None or not question.fails(start):
                start = table if table.num_rows <= ROWS_MAX and question.fails(table) else None
            if start is not None:
                search = _Search(question, clock() + budget_s, clock, progress)
                small = search.run(start)
                made = search.made(small) if synthetic else small
                return _case(finding, question, table, made, name, search.exhausted, synthetic, made is not small)
    return None


def _near(table: pa.Table, finding: Finding) -> pa.Table | None:
    """The rows around the first one at fault, where there are too many."""
    row = finding.where.get("row")
    if table.num_rows <= ROWS_MAX or not isinstance(row, int):
        return table if table.num_rows <= ROWS_MAX else None
    return table.slice(max(0, row - ROWS_MAX // 2), ROWS_MAX)


def _questions(finding: Finding, suite: Any) -> list[Question]:
    column = finding.where.get("column")
    name = str(column) if column is not None else None
    if suite is None:
        return [Question(finding.code, name)]
    from tsguard.expect.suites import load_suite

    found = []
    for one in load_suite(suite).expectations:
        config = one.configuration
        kwargs = {key: value for key, value in config.kwargs.items() if value is not None and key != "batch_id"}
        stands = kwargs.get("column") or kwargs.get("column_A") or ", ".join(kwargs.get("column_list") or ()) or None
        if config.type == finding.where.get("expectation") and stands == column:
            found.append(Question(finding.code, name, {"type": config.type, "kwargs": _without_usual(one, kwargs)}))
    return found


def _without_usual(expectation: Any, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    usual = {key: field.default for key, field in type(expectation).__fields__.items()}
    return {key: value for key, value in kwargs.items() if usual.get(key, ...) != value}


class _Search:
    """Columns, then rows; the best so far when the time is over."""

    def __init__(self, question: Question, deadline: float, clock: Clock, progress: Callable[[str], None]) -> None:
        self.question, self.deadline, self.clock, self.progress = question, deadline, clock, progress
        self.exhausted = False
        self.best: pa.Table | None = None

    def run(self, table: pa.Table) -> pa.Table:
        """The smallest part that still fails."""
        self.best = table
        try:
            columns = smallest(range(table.num_columns), lambda some: self._fails(table.select(list(some))))
            narrow = table.select(columns)
            rows = smallest(range(table.num_rows), lambda some: self._fails(narrow.take(pa.array(some))))
            return narrow.take(pa.array(rows))
        except (OutOfTime, KeyboardInterrupt):
            self.exhausted = True
            return self.best

    def _fails(self, table: pa.Table) -> bool:
        if self.clock() > self.deadline:
            raise OutOfTime
        fails = self.question.fails(table)
        if fails and (self.best is None or _size(table) < _size(self.best)):
            self.best = table
            self.progress(f"reducing: {table.num_rows:,} rows of {table.num_columns} columns left")
        return fails

    def made(self, table: pa.Table) -> pa.Table:
        """The same with made values wherever the question does not hang on the measured ones."""
        for position, field in enumerate(table.schema):
            if pa.types.is_floating(field.type) or pa.types.is_integer(field.type):
                for values in _made_values(table.column(position)):
                    other = table.set_column(position, field, pa.chunked_array([pa.array(values, field.type)]))
                    if self.question.fails(other):
                        table = other
                        break
        return table


def _made_values(column: Any) -> list[list[Any]]:
    """Ranks in place of values, then round numbers; what is missing stays missing."""
    values = column.to_pylist()
    known = sorted({value for value in values if value is not None and value == value})
    ranks = {value: rank for rank, value in enumerate(known)}
    return [
        [None if value is None else 0 if value == value else value for value in values],
        [ranks.get(value, value) for value in values],
        [float(f"{value:.1g}") if value is not None and value == value else value for value in values],
    ]


def _size(table: pa.Table) -> int:
    return int(table.num_rows * max(table.num_columns, 1))


def _case(
    finding: Finding, question: Question, whole: pa.Table, small: pa.Table, name: str,
    exhausted: bool, synthetic: bool, changed: bool,  # noqa: FBT001 - private
) -> FoundCase:  # fmt: skip
    words = ""
    if synthetic:
        words = (
            "made, wherever the failure does not hang on the measured ones"
            if changed
            else "measured: made ones do not fail"
        )
    return FoundCase(
        finding,
        name,
        (lambda: _script(finding, question, small),),
        size=_size(small),
        original_size=_size(whole),
        prints=_printed(finding, question, small),
        exhausted=exhausted,
        synthetic=words,
    )


def _plain_lines(question: Question, table: pa.Table) -> list[str] | None:
    """The question without us; None where it is more than a few lines, or the table more than can be read."""
    if question.expectation is None or table.num_rows > SHOWN:
        return None
    return lines_of(question.expectation, table)


def _printed(finding: Finding, question: Question, table: pa.Table) -> str:
    if question.expectation is None:
        return scripts.one_line(finding.message)
    return "wrong: …" if _plain_lines(question, table) else "… is not met"


def _script(finding: Finding, question: Question, table: pa.Table) -> scripts.Script:
    script, lines, beside = scripts.Script(), Lines(), dict[str, Any]()
    columns, plainly = [], _plain_lines(question, table)
    for field in table.schema:
        values = table.column(field.name).to_pylist()
        if plainly:
            columns.append(f"{plain(field.name)}: {_listed(values, lines)}")
        elif len(values) <= SHOWN:
            columns.append(f"{plain(field.name)}: pa.array({_listed(values, lines)}, {_type(field.type)})")
        else:
            key = re.sub(r"\W+", "_", field.name)
            beside[key] = table.column(field.name).to_numpy()
            columns.append(f'{plain(field.name)}: stored["{key}"]')
    asked = [plain(question.code)]
    if question.expectation is None:
        asked.append(plain(question.column))
    else:
        asked.append(f"expectation={plain(dict(question.expectation))}")
    lines.imports |= (
        imports_of(plainly) if plainly else {"import pyarrow as pa", "from tsguard.repro.tables import broken"}
    )
    title = scripts.one_line(f"{finding.code}: {finding.message}", scripts.SAID)
    shared = {"title": title, "fingerprint": finding.code, "slug": re.sub(r"\W+", "_", finding.code)}
    scripts.render(
        script, "table.py.j2", shared, lines, beside, arrays=[], columns=columns, seed=0, seeded=False,
        asked=", ".join(asked), plainly=plainly,
    )  # fmt: skip
    return script


def _listed(values: Sequence[Any], lines: Lines) -> str:
    if any(isinstance(value, datetime.date | datetime.time | datetime.timedelta) for value in values):
        lines.imports.add("import datetime")
    return "[" + ", ".join(plain(_plain_time(value)) for value in values) + "]"


def _plain_time(value: Any) -> Any:
    """A time as Python writes it: without nanoseconds, and in UTC where it has a zone."""
    value = value.to_pydatetime(warn=False) if hasattr(value, "to_pydatetime") else value
    zoned = isinstance(value, datetime.datetime) and value.tzinfo is not None
    return value.astimezone(datetime.UTC) if zoned else value


def _type(kind: pa.DataType) -> str:
    if pa.types.is_timestamp(kind):
        zone = f", {plain(kind.tz)}" if kind.tz else ""
        return f'pa.timestamp("{kind.unit}"{zone})'
    return (
        f"pa.{kind}()"
        if hasattr(pa, str(kind))
        else {"double": "pa.float64()", "float": "pa.float32()"}.get(str(kind), f'pa.type_for_alias("{kind}")')
    )
