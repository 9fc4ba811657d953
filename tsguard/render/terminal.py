"""The same report in a terminal: verdict, causes with place and remedy, then the rest in one line each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tsguard.comparison import Comparison
from tsguard.findings import Finding, Status
from tsguard.report import Report

if TYPE_CHECKING:
    from rich.console import Console

_STYLE = {"PASS": "green", "WARN": "yellow", "FAIL": "red", "ERROR": "red", "NOT_RUN": "dim"}
_MARK = {"PASS": "✓", "WARN": "▲", "FAIL": "✕", "ERROR": "‼", "NOT_RUN": "○"}
_WORDS = {"PASS": "passed", "WARN": "not enforced", "FAIL": "blocked", "ERROR": "could not be evaluated"}


def show(report: Report, console: Console, *, shown: int = 6) -> None:
    """Print the report, causes first."""
    from rich.markup import escape

    verdict = report.verdict.status.value
    words = _WORDS.get(verdict, "could not be evaluated")
    console.print(f"[{_STYLE[verdict]} bold]{_MARK[verdict]} {escape(report.name)}: {words}[/]")
    troubled = [f for f in report.findings if f.status in (Status.FAIL, Status.WARN, Status.ERROR)]
    for finding in troubled[:shown]:
        _show_finding(finding, console)
    if len(troubled) > shown:
        console.print(f"  … and {len(troubled) - shown} more in the page")
    if not troubled:
        passed = sum(f.status is Status.PASS for f in report.findings)
        console.print(f"  {passed} answers, nothing found")
    for reason in report.verdict.reasons:
        if not any(finding.message in reason for finding in troubled[:shown]):
            console.print(f"  {escape(reason)}", highlight=False)
    if report.path is not None:
        console.print(f"  page: {escape(str(report.path))}", highlight=False, soft_wrap=True)


def _show_finding(finding: Finding, console: Console) -> None:
    from rich.markup import escape

    status = finding.status.value
    console.print(
        f"  [{_STYLE[status]}]{_MARK[status]} {status}[/] [bold]{finding.code}[/] ({finding.role})", highlight=False
    )
    console.print(f"    {escape(finding.message)}", highlight=False)
    if finding.where:
        place = ", ".join(f"{key} {value}" for key, value in finding.where.items())
        console.print(f"    where: {escape(place)}", highlight=False)
    if finding.proof is not None:
        console.print(f"    proof: {escape(finding.proof.summary)}", highlight=False)
    if finding.remedy:
        console.print(f"    remedy: {escape(finding.remedy)}", highlight=False)


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
        table.add_column("")
        for name in found.names:
            table.add_column(Text(name))
        for row in rows:
            cells = [Text(_cell(value), "bold green" if row.best == i else "") for i, value in enumerate(row.values)]
            table.add_row(
                Text(row.name), *(cell if row.best != i else cell.append(" ★") for i, cell in enumerate(cells))
            )
        console.print(table)
    console.print(found.likely, markup=False, highlight=False)


def _cell(value: object) -> str:
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
