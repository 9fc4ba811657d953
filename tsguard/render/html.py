"""The pages: self-contained files, drawn from Reports alone, by templates that escape everything.

What is marked safe in a template is SVG that `figures` drew and escaped itself; every word of a user stays text.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tsguard import catalogue
from tsguard.comparison import Comparison
from tsguard.findings import Status
from tsguard.report import Report, dumps, fields_of

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
BRIEF_MAX = 4000
"""Characters of one recorded fact that the page shows; the JSON beside it has the rest."""
EMBEDDED_MAX = 400_000
"""Characters of JSON that go into the page; a larger document stays beside it: pages must open on phones."""

MARKS = {"PASS": "✓", "WARN": "▲", "FAIL": "✕", "ERROR": "‼", "NOT_RUN": "○", "ENDED": "○"}
VERDICT_WORDS = {
    "PASS": "Passed",
    "WARN": "Not enforced",
    "FAIL": "Blocked",
    "ERROR": "Could not be evaluated",
    "NOT_RUN": "Could not be evaluated",
}
KINDS = {"check": "before the run", "train": "after the run", "audit": "data audit", "suite": "suite"}
OUTCOMES = {"passed": "PASS", "failed": "FAIL", "skipped": "NOT_RUN"}


@cache
def environment() -> Environment:
    """The templates, with everything escaped and unknown names an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    env = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters.update(number=number, entry=catalogue.entry, brief=brief)
    env.globals.update(marks=MARKS, verdict_words=VERDICT_WORDS, kinds=KINDS, outcomes=OUTCOMES)
    return env


def page(report: Report) -> str:
    """The whole page of one report."""
    from tsguard.render import figures

    troubled = [f for f in report.findings if f.status in (Status.FAIL, Status.WARN, Status.ERROR)]
    proofs = {
        index: figure
        for index, finding in enumerate(troubled)
        if finding.proof is not None and (figure := figures.of_proof(finding.proof, f"proof-{index}")) is not None
    }
    return environment().get_template("report.html").render(
        **_first(report),
        troubled=troubled,
        proofs=proofs,
        figures=figures.of_report(report),
        passed=[f for f in report.findings if f.status is Status.PASS],
        not_run=[f for f in report.findings if f.status is Status.NOT_RUN],
        tests=report.figures.get("tests") or [],
        expectations=report.figures.get("expectations") or [],
        embedded=embedded(report),
    )  # fmt: skip


def first_screen(report: Report) -> str:
    """What a notebook shows: the verdict, why, and what to do."""
    return environment().get_template("first_screen.html").render(**_first(report))


def _first(report: Report) -> dict[str, Any]:
    told = {report.causes[0].message} if report.causes else set()
    reasons = [reason for reason in report.verdict.reasons if not any(reason.endswith(words) for words in told)]
    title, sentence = headline(report)
    return {"report": report, "headline": title, "sentence": sentence, "reasons": reasons, "saved": _saved(report)}


def headline(report: Report) -> tuple[str, str]:
    """The verdict in one line, and the sentence below it: the first cause, else the first reason, else nothing."""
    if report.causes:
        first = report.causes[0]
        return catalogue.entry(first.code).title, _sentence(first.message)
    if report.verdict.reasons and report.verdict.status not in (Status.PASS, Status.WARN):
        return _sentence(report.verdict.reasons[0]), ""
    what = {"train": "run", "check": "run", "audit": "data", "suite": "suite"}.get(report.kind, "run")
    return f"{report.name}: nothing stands against this {what}", ""


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:]


def _saved(report: Report) -> str:
    """What the blocked run would have cost, where a forecast was made."""
    minutes, cost = report.plan.get("forecast_min"), report.plan.get("forecast_cost")
    if report.kind != "check" or report.verdict or not isinstance(minutes, int | float):
        return ""
    price = f" and {cost:.2f} of whatever the price is in" if isinstance(cost, int | float) else ""
    return f"The run would have taken about {minutes:.1f} minutes{price}."


def summary(report: Report, href: str) -> dict[str, Any]:
    """What the list of runs shows of one run."""
    return {
        "href": href,
        "name": report.name,
        "verdict": report.verdict.status.value,
        "kind": report.kind,
        "started": report.provenance.started,
        "loss": _finite(report.metrics.get("loss")),
        "val_loss": _finite(report.metrics.get("val_loss")),
        "reason": (report.verdict.reasons or ("",))[0][:240],
        "spark": spark(report.series["loss"].y) if "loss" in report.series else "",
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def index(rows: Iterable[Mapping[str, Any]]) -> str:
    """The list of all runs from their summaries, the newest first."""
    newest = sorted(rows, key=lambda row: str(row["started"]), reverse=True)
    return environment().get_template("index.html").render(rows=newest)


def comparison(found: Comparison) -> str:
    """Runs side by side."""
    from tsguard.render import figures

    return environment().get_template("comparison.html").render(found=found, figures=figures.of_comparison(found))


def spark(values: Sequence[float]) -> str:
    """A curve of at most fifty points as the coordinates of a line, 100 wide and 24 high."""
    from tsguard.render.decimate import decimate

    _, y = decimate(list(range(len(values))), list(values), points=50)
    y = [value for value in y if math.isfinite(value)]
    if len(y) < 2:
        return ""
    low, high = min(y), max(y)
    span = (high - low) or 1.0
    return " ".join(f"{100 * i / (len(y) - 1):.1f},{22 - 20 * (value - low) / span:.1f}" for i, value in enumerate(y))


def embedded(report: Report) -> Any:
    """The document as JSON that cannot end its script element; of a very long one, all but the series and figures."""
    from markupsafe import Markup

    text = report.to_json()
    if len(text) > EMBEDDED_MAX:
        text = dumps(fields_of(report.with_(series={}, figures={}), leave_out=("desk", "path", "source")))
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(text)


def number(value: Any) -> str:
    """A number as a person writes it."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}"


def brief(value: Any) -> str:
    """A recorded fact as text of bounded length."""
    if isinstance(value, str):
        text = value
    elif isinstance(value, Mapping | list | tuple):
        text = json.dumps(json.loads(dumps(value)), indent=1, ensure_ascii=False)
        text = text if text.count("\n") < 60 else json.dumps(json.loads(dumps(value)), ensure_ascii=False)
    else:
        text = number(value)
    return (
        text if len(text) <= BRIEF_MAX else f"{text[:BRIEF_MAX]} … ({len(text):,} characters in all, see report.json)"
    )
