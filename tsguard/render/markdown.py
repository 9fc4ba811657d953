"""A report as a GitHub step summary and annotations.

GitHub drops a summary over 1,024 kB whole and shows ten annotations a step: what comes first must be what matters, and
what does not fit is counted instead of cut off in the middle of a line.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tsguard.findings import Finding, Status
from tsguard.render.cards import TROUBLED, explained
from tsguard.render.metrics import price, result
from tsguard.render.words import gist
from tsguard.report import Report

MOST_BYTES = 900_000
"""GitHub's limit is 1,024 kB for all steps of a job that write to one file; this leaves room for the others."""
MOST_ANNOTATIONS = 10
"""What GitHub shows of one kind in one step."""
LONGEST_CELL = 600
"""Characters of a message in a table: the page and report.json have the whole of it."""

REASONS_MAX = 20
METRICS_MAX = 200

_SIGNS = {Status.PASS: "✅", Status.WARN: "⚠️", Status.FAIL: "❌", Status.ERROR: "💥", Status.NOT_RUN: "⏭️"}


def summary(report: Report, *, limit: int = MOST_BYTES) -> str:
    """Verdict, reasons, causes and findings, metrics; never longer than `limit` bytes."""
    verdict = report.verdict
    head = [
        f"## tsguard {_escaped(report.kind)} · {_escaped(report.name)}: {_SIGNS[verdict.status]} {verdict.status}",
        "",
    ]
    loud = [finding for finding in report.findings if finding.status in TROUBLED]
    beneath = explained(loud)
    # A reason that a row of the table tells in full is not told twice.
    reasons = [words for words in verdict.reasons if not any(f.message and words.endswith(f.message) for f in loud)]
    head += [f"- {_cell(reason)}" for reason in reasons[:REASONS_MAX]]
    if len(reasons) > REASONS_MAX:
        head.append(f"- … and {len(reasons) - REASONS_MAX} more reasons")
    head += [words for words in (_escaped(result(report)), _escaped(price(report))) if words]
    metrics = _metrics(report)
    quiet = len(report.findings) - len(loud)
    tail = ["", f"{quiet} other answers: passed or not asked.", "", *metrics]
    room = limit - _size([*head, *tail]) - 400
    table: list[str] = []
    for finding in loud:
        status = f"{_SIGNS[finding.status]} {finding.status}"
        cause = beneath.get(id(finding))
        role = str(finding.role) if cause is None or cause.code == finding.code else f"symptom of `{cause.code}`"
        words = gist(finding.message) if cause is not None else _words(finding)
        row = f"| {status} | `{finding.code}` | {role} | {_cell(words)} |"
        if room - _size([row]) < 0:
            table.append(f"| | | | … and {len(loud) - len(table)} more; see the page |")
            break
        room -= _size([row])
        table.append(row)
    titles = ["", "| status | code | role | what and what to do |", "| --- | --- | --- | --- |"] if table else []
    text = "\n".join([*head, *titles, *table, *tail]) + "\n"
    return (
        text if len(text.encode()) <= limit else text.encode()[:limit].decode(errors="ignore").rsplit("\n", 1)[0] + "\n"
    )


def workflow_commands(report: Report) -> list[str]:
    """Workflow commands for the first findings that matter: failures first, and no symptom that a cause explains."""
    loud = [finding for finding in report.findings if finding.status in TROUBLED]
    beneath = explained(loud)
    told = [finding for finding in loud if id(finding) not in beneath]
    wanted = [f for f in told if f.status is not Status.WARN] + [f for f in told if f.status is Status.WARN]
    return [_annotation(finding) for finding in wanted[:MOST_ANNOTATIONS]]


def _annotation(finding: Finding) -> str:
    level = "warning" if finding.status is Status.WARN else "error"
    where = {
        "file": _in_repository(finding.where.get("file")),
        "line": finding.where.get("line"),
        "title": f"tsguard {finding.code}",
    }
    shown = ",".join(f"{key}={_property(str(value))}" for key, value in where.items() if value is not None)
    return f"::{level} {shown}::{_data(finding.message)}"


def _in_repository(file: object) -> str | None:
    """A file as GitHub finds it: relative to where the command runs, which is the checkout."""
    if not isinstance(file, str):
        return None
    path = Path(file)
    return path.relative_to(Path.cwd()).as_posix() if path.is_relative_to(Path.cwd()) else file


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _metrics(report: Report) -> list[str]:
    if not report.metrics:
        return []
    # A bare name repeats what the validation part (or the only part) says.
    own = {name: value for name, value in report.metrics.items() if f"val/{name}" not in report.metrics}
    rows = [f"| {_escaped(name)} | {value:.6g} |" for name, value in sorted(own.items())[:METRICS_MAX]]
    return ["<details><summary>Metrics</summary>", "", "| metric | value |", "| --- | --- |", *rows, "", "</details>"]


def _words(finding: Finding) -> str:
    return f"{finding.message} {finding.remedy}".strip()


def _cell(text: str) -> str:
    short = text if len(text) <= LONGEST_CELL else text[: LONGEST_CELL - 1] + "…"
    return _escaped(short)


def _escaped(text: str) -> str:
    """Text of a message, never markup: a name from the data must not draw a table, a link or an image."""
    safe = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for sign in ("\\", "|", "`", "[", "]", "!", "*", "_"):
        safe = safe.replace(sign, f"\\{sign}")
    return safe


def _size(lines: Iterable[str]) -> int:
    return sum(len(line.encode()) + 1 for line in lines)
