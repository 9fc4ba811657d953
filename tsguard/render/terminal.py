"""The same report in a terminal: verdict, causes with place, remedy and proof, then the rest in one line each.

Every word of a user is a `Text`, never markup: a layer named `[red]` is printed as such. On a terminal findings are
framed; in a pipe or a CI log they are indented lines, because frames of another width cannot be read or searched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tsguard.comparison import Comparison
from tsguard.findings import Finding, Status
from tsguard.report import Report

if TYPE_CHECKING:
    from rich.console import Console, Group

_STYLE = {"PASS": "green", "WARN": "yellow", "FAIL": "red", "ERROR": "red", "NOT_RUN": "dim"}
_MARK = {"PASS": "✓", "WARN": "▲", "FAIL": "✕", "ERROR": "‼", "NOT_RUN": "○"}
_WORDS = {"PASS": "passed", "WARN": "not enforced", "FAIL": "blocked", "ERROR": "could not be evaluated"}

NARROW = 48
"""Columns below which a frame costs more than it shows."""


def show(report: Report, console: Console, *, shown: int = 6) -> None:
    """Print the report, causes first."""
    from rich.text import Text

    verdict = report.verdict.status.value
    words = _WORDS.get(verdict, "could not be evaluated")
    console.print(Text(f"{_MARK[verdict]} {_line(report.name)}: {words}", f"{_STYLE[verdict]} bold"))
    troubled = [f for f in report.findings if f.status in (Status.FAIL, Status.WARN, Status.ERROR)]
    for finding in troubled[:shown]:
        _show_finding(finding, console)
    if len(troubled) > shown:
        console.print(Text(f"  … and {len(troubled) - shown} more in the page"))
    if not troubled:
        passed = sum(f.status is Status.PASS for f in report.findings)
        console.print(Text(f"  {passed} answers, nothing found"))
    for reason in report.verdict.reasons:
        if not any(finding.message in reason for finding in troubled[:shown]):
            console.print(Text(f"  {reason}"))
    if report.path is not None:
        console.print(Text(f"  page: {report.path}"), soft_wrap=True)


def _show_finding(finding: Finding, console: Console) -> None:
    from rich.padding import Padding
    from rich.panel import Panel
    from rich.text import Text

    status = finding.status.value
    head = Text.assemble(
        (f"{_MARK[status]} {status}", _STYLE[status]), " ", (_line(finding.code), "bold"), f" ({finding.role})"
    )
    if console.is_terminal and console.width >= NARROW:
        console.print(
            Panel(_body(finding), title=head, title_align="left", border_style=_STYLE[status], padding=(0, 1))
        )
    else:
        console.print(Padding(head, (0, 0, 0, 2)))
        console.print(Padding(_body(finding), (0, 0, 0, 4)))


def _body(finding: Finding) -> Group:
    from rich.console import Group
    from rich.text import Text

    lines = [Text(finding.message)]
    place = ", ".join(f"{key} {_line(str(value))}" for key, value in finding.where.items())
    proof = "" if finding.proof is None else finding.proof.summary
    files = [
        fact.file for fact in finding.evidence if fact.kind == "file" and fact.name == "reproduction" and fact.file
    ]
    for name, words in (
        ("where", place), ("proof", proof), ("remedy", finding.remedy), ("reproduction", ", ".join(files)),
    ):  # fmt: skip
        if words:
            lines.append(Text.assemble((f"{name}: ", "dim"), words))
    return Group(*lines)


def _line(words: str) -> str:
    """Words on one line, without the control characters that move a terminal's cursor."""
    return "".join(char if char.isprintable() else " " for char in words)


def show_comparison(found: Comparison, console: Console) -> None:
    """Runs side by side; the better value of each metric is marked."""
    from rich.table import Table
    from rich.text import Text

    for title, rows in (
        ("metrics", found.metrics),
        ("settings that differ", found.config),
        ("environment that differs", found.environment),
        ("findings that differ", found.findings),
    ):
        if not rows:
            continue
        table = Table(title=title, title_justify="left")
        table.add_column("", overflow="fold")
        for name in found.names:
            table.add_column(Text(_line(name)), overflow="fold")
        for row in rows:
            cells = [
                Text(f"{_cell(value)} ★", "bold green") if row.best == at else Text(_cell(value))
                for at, value in enumerate(row.values)
            ]
            table.add_row(Text(_line(row.name)), *cells)
        console.print(table)
    console.print(Text(found.likely))


def _cell(value: object) -> str:
    return "–" if value in (None, "") else f"{value:.4g}" if isinstance(value, float) else _line(str(value))
