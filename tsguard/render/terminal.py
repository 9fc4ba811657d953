"""The same report in a terminal: verdict, causes with place, remedy and proof, then the rest in one line each.

Every word of a user is a `Text`, never markup: a layer named `[red]` is printed as such. On a terminal findings are
framed; in a pipe or a CI log they are indented lines, because frames of another width cannot be read or searched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tsguard.comparison import Comparison
from tsguard.findings import Finding, Role, Status
from tsguard.render.cards import TROUBLED, explained
from tsguard.render.comparing import compared
from tsguard.render.metrics import price, result
from tsguard.render.tables import asked
from tsguard.render.words import gist, span
from tsguard.report import Report

if TYPE_CHECKING:
    from rich.console import Console, Group

_STYLE = {"PASS": "green", "WARN": "yellow", "FAIL": "red", "ERROR": "red", "NOT_RUN": "dim"}
_MARK = {"PASS": "✓", "WARN": "▲", "FAIL": "✕", "ERROR": "‼", "NOT_RUN": "○"}
_WORDS = {"PASS": "passed", "WARN": "not enforced", "FAIL": "blocked", "ERROR": "could not be evaluated"}

LONGEST = 3
"""Checks whose time is told in the terminal; the page has them all."""

NARROW = 48
"""Columns below which a frame costs more than it shows."""


def show(report: Report, console: Console, *, shown: int = 6) -> None:
    """Print the report, causes first."""
    from rich.text import Text

    verdict = report.verdict.status.value
    words = _WORDS.get(verdict, "could not be evaluated")
    console.print(Text(f"{_MARK[verdict]} {_line(report.name)}: {words}", f"{_STYLE[verdict]} bold"))
    listed = [finding for finding in report.findings if finding.status in TROUBLED]
    beneath = explained(listed)
    troubled = [finding for finding in listed if id(finding) not in beneath]
    for finding in troubled[:shown]:
        _show_finding(finding, [one for one in listed if beneath.get(id(one)) is finding], console)
    if len(troubled) > shown:
        console.print(Text(f"  … and {len(troubled) - shown} more in the page"))
    if not troubled:
        passed = sum(f.status is Status.PASS for f in report.findings)
        console.print(Text(f"  {passed} answers, nothing found"))
        if came := result(report):
            console.print(Text(f"  {came}"))
    for reason in report.verdict.reasons:
        if not any(finding.message in reason for finding in listed):
            console.print(Text(f"  {reason}"))
    took = asked(report.findings)
    if report.kind == "check" and took:
        longest = ", ".join(f"{_line(one.name)} {span(one.seconds)}" for one in took[:LONGEST])
        console.print(
            Text(f"  {len(took)} checks took {span(sum(one.seconds for one in took))}; the longest: {longest}")
        )
    cost = price(report)
    if cost:
        console.print(Text(f"  {cost}"))
    if report.path is not None:
        console.print(Text(f"  page: {report.path}"), soft_wrap=True)


def _show_finding(finding: Finding, symptoms: Sequence[Finding], console: Console) -> None:
    from rich.padding import Padding
    from rich.panel import Panel
    from rich.text import Text

    status = finding.status.value
    head = Text.assemble(
        (f"{_MARK[status]} {status}", _STYLE[status]), " ", (_line(finding.code), "bold"), f" ({finding.role})"
    )
    if console.is_terminal and console.width >= NARROW:
        console.print(
            Panel(_body(finding, symptoms), title=head, title_align="left", border_style=_STYLE[status], padding=(0, 1))
        )
    else:
        console.print(Padding(head, (0, 0, 0, 2)))
        console.print(Padding(_body(finding, symptoms), (0, 0, 0, 4)))


def _body(finding: Finding, symptoms: Sequence[Finding]) -> Group:
    from rich.console import Group
    from rich.text import Text

    lines = [Text(finding.message)]
    place = ", ".join(f"{key} {_line(str(value))}" for key, value in finding.where.items())
    proof = "" if finding.proof is None else finding.proof.summary
    # What mends a symptom is told where its cause is.
    remedy = "" if finding.role is Role.SYMPTOM else finding.remedy
    files = [
        fact.file for fact in finding.evidence if fact.kind == "file" and fact.name == "reproduction" and fact.file
    ]
    for name, words in (
        ("where", place), ("proof", proof), ("remedy", remedy), ("reproduction", ", ".join(files)),
    ):  # fmt: skip
        if words:
            lines.append(Text.assemble((f"{name}: ", "dim"), words))
    lines += [
        Text.assemble(
            ("also: " if one.code == finding.code else "shows as: ", "dim"),
            f"{_line(one.code)}: {gist(one.message)}",
        )
        for one in symptoms
    ]
    return Group(*lines)


def _line(words: str) -> str:
    """Words on one line, without the control characters that move a terminal's cursor."""
    return "".join(char if char.isprintable() else " " for char in words)


def show_comparison(found: Comparison, console: Console) -> None:
    """Runs side by side; the better value of each metric is marked."""
    from rich.table import Table
    from rich.text import Text

    ordered = compared(found)
    for title, rows in ordered.tables:
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
    for words in filter(None, (ordered.wins, ordered.likely.replace("`", ""))):
        console.print(Text(words))


def _cell(value: object) -> str:
    return "–" if value in (None, "") else f"{value:.4g}" if isinstance(value, float) else _line(str(value))


def show_runs(rows: Sequence[Mapping[str, Any]], console: Console) -> None:
    """A line or two for every run: verdict, folder, and the first reason cut to the width that is left."""
    from rich.text import Text

    for row in rows:
        verdict = str(row["verdict"])
        head = Text.assemble(
            (f"{_MARK.get(verdict, '○')} {verdict:<8}", _STYLE.get(verdict, "dim")), _line(str(row["folder"])),
            (" (pinned)" if row["pinned"] else "", "dim"),
        )  # fmt: skip
        console.print(head, soft_wrap=True)
        reason = _line(str(row["reason"])).removeprefix("not enforced: ")
        if reason:
            console.print(Text(f"  {reason}", "dim"), overflow="ellipsis", no_wrap=True)
