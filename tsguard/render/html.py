"""The pages: self-contained files, drawn from Reports alone, by templates that escape everything.

What is marked safe in a template is SVG that `figures` drew and escaped itself; every word of a user stays text.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tsguard import catalogue
from tsguard.comparison import Comparison, compare
from tsguard.findings import Finding, Status
from tsguard.render import tables
from tsguard.render.grids import Grid, grids
from tsguard.report import Report, dumps, fields_of

if TYPE_CHECKING:
    from jinja2 import Environment

    from tsguard.render.figures import Figure

TEMPLATES = Path(__file__).parent / "templates"
BRIEF_MAX = 4000
"""Characters of one recorded fact that the page shows; the JSON beside it has the rest."""
POINT_MIN = 8
"""Characters of JSON that a recorded point takes at least: two numbers, each on a line of its own."""
EMBEDDED_MAX = 400_000
"""Characters of JSON that go into the page; a larger document stays beside it: pages must open on phones."""
PROOFS_MAX = 6
"""Proofs drawn on one page, the likeliest causes first: each costs a tenth of a second and ten kilobytes."""
GRIDS_MAX = 12
"""Counterexamples drawn on one page."""
FACTS_MAX = 120_000
"""Characters of recorded facts on one page, over all findings."""

MARKS = {"PASS": "✓", "WARN": "▲", "FAIL": "✕", "ERROR": "‼", "NOT_RUN": "○", "ENDED": "○"}
STOPS = {
    "start": "●", "check": "✓", "gate": "◆", "train": "▶", "trip": "✕", "recovery": "↺", "resume": "↻", "end": "■"
}  # fmt: skip
VERDICT_WORDS = {
    "PASS": "Passed",
    "WARN": "Not enforced",
    "FAIL": "Blocked",
    "ERROR": "Could not be evaluated",
    "NOT_RUN": "Could not be evaluated",
}
TALLY_WORDS = {
    "ERROR": "crashed", "FAIL": "failed", "WARN": "warned", "PASS": "passed", "NOT_RUN": "did not run"
}  # fmt: skip
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
    env.filters.update(number=number, entry=catalogue.entry, brief=brief, prose=prose, moment=moment, sentence=sentence)
    env.globals.update(
        stops=STOPS, tally_words=TALLY_WORDS, marks=MARKS, verdict_words=VERDICT_WORDS, kinds=KINDS, outcomes=OUTCOMES
    )
    return env


def page(report: Report, *, earlier: Mapping[str, Report] | None = None) -> str:
    """The whole page of one report. `earlier` are reports to hold it against, by what they are ("the run before")."""
    from tsguard.render import figures

    troubled = [f for f in report.findings if f.status in (Status.FAIL, Status.WARN, Status.ERROR)]
    return environment().get_template("report.html").render(
        **_first(report),
        cards=_cards(troubled),
        figures=figures.of_report(report),
        columns=tables.columns(report),
        confusion=tables.confusion(report),
        metrics=tables.metrics(report),
        differences=[(title, _against(title, other, report)) for title, other in (earlier or {}).items()],
        passed=[f for f in report.findings if f.status is Status.PASS],
        not_run=[f for f in report.findings if f.status is Status.NOT_RUN],
        tests=report.figures.get("tests") or [],
        suites=tables.suites(report),
        expectations=report.figures.get("expectations") or [],
        repairs=report.figures.get("repairs") or [],
        embedded=embedded(report),
    )  # fmt: skip


def _against(title: str, other: Report, report: Report) -> Comparison:
    """What differs from an earlier report; metrics that are equal or only here are in the table of metrics already."""
    found = compare(other, report)
    shared = tuple(row for row in found.metrics if None not in row.values and len(set(map(repr, row.values))) > 1)
    return replace(found, names=(title, "this one"), metrics=shared)


@dataclass(frozen=True, slots=True)
class Card:
    """A finding with everything that is drawn on its card."""

    finding: Finding
    anchor: str
    figure: Figure | None
    grids: tuple[Grid, ...]
    facts: tuple[tuple[str, str], ...]
    reproduction: str
    test: str


def _cards(findings: Sequence[Finding]) -> list[Card]:
    """Cards in the order given; figures and facts end where their share of the page ends."""
    from tsguard.render import figures

    cards: list[Card] = []
    drawn, left, taken = 0, FACTS_MAX, set[str]()
    for finding in findings:
        figure = None
        if finding.proof is not None and drawn < PROOFS_MAX:
            figure = figures.of_proof(finding.proof, f"proof-{len(cards)}")
            drawn += figure is not None
        own = grids(finding) if len(cards) < GRIDS_MAX else ()
        facts, test = [], ""
        for fact in finding.evidence:
            if fact.kind == "file":
                continue
            elif fact.kind == "source" and fact.name == "pytest":
                test = brief(fact.value)
            elif not (own and fact.kind == "batch"):
                text = brief(fact.value)
                left -= len(text)
                title = (fact.name or fact.kind) + ("" if fact.step is None else f", step {fact.step}")
                facts.append((title, text if left >= 0 else "in report.json"))
        anchor, number = finding.anchor, 1
        while anchor in taken:
            number += 1
            anchor = f"{finding.anchor}-{number}"
        taken.add(anchor)
        cards.append(Card(finding, anchor, figure, own, tuple(facts), _reproduction(finding), test))
    return cards


def _reproduction(finding: Finding) -> str:
    """Where the script that reproduces a finding lies, as a link from the page."""
    files = (fact.file for fact in finding.evidence if fact.kind == "file" and fact.name == "reproduction")
    return next((link for file in files if (link := _inside(file))), "")


def _inside(file: str | None) -> str:
    """A link that stays in the run's folder, or none."""
    path = Path(file or "")
    return "" if not file or path.is_absolute() or ".." in path.parts else quote(path.as_posix())


def first_screen(report: Report) -> str:
    """What a notebook shows: the verdict, why, and what to do."""
    return environment().get_template("first_screen.html").render(**_first(report))


def _first(report: Report) -> dict[str, Any]:
    told = {report.causes[0].message} if report.causes else set()
    reasons = [reason for reason in report.verdict.reasons if not any(reason.endswith(words) for words in told)]
    title, sentence = headline(report)
    counts = Counter(finding.status.value for finding in report.findings)
    return {
        "report": report, "headline": title, "sentence": sentence, "reasons": reasons, "saved": _saved(report),
        "timeline": tables.timeline(report.timeline),
        "tally": {status: counts[status] for status in TALLY_WORDS if counts[status]},
        "reproduction": next(filter(None, map(_reproduction, report.causes[:1])), ""),
    }  # fmt: skip


def headline(report: Report) -> tuple[str, str]:
    """The verdict in one line, and the sentence below it: the first cause, else the first reason, else nothing."""
    if report.causes:
        first = report.causes[0]
        return catalogue.entry(first.code).title, sentence(first.message)
    if report.verdict.reasons and report.verdict.status not in (Status.PASS, Status.WARN):
        return sentence(report.verdict.reasons[0]), ""
    what = {"train": "run", "check": "run", "audit": "data", "suite": "suite"}.get(report.kind, "run")
    return f"{report.name}: nothing stands against this {what}", ""


def _saved(report: Report) -> str:
    """What the blocked run would have cost, where a forecast was made."""
    minutes, cost = report.plan.get("forecast_min"), report.plan.get("forecast_cost")
    if report.kind != "check" or report.verdict or not isinstance(minutes, int | float):
        return ""
    price = f" and cost about {cost:.2f} at the declared price" if isinstance(cost, int | float) else ""
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


UNTOLD = {
    "href": "", "name": "", "verdict": "NOT_RUN", "kind": "", "started": "", "loss": None, "val_loss": None,
    "reason": "", "spark": "",
}  # fmt: skip
"""What a summary of another version may lack: one odd folder must not cost the list of all runs."""


def index(rows: Iterable[Any]) -> str:
    """The list of all runs from their summaries, the newest first."""
    told = [{**UNTOLD, **row} for row in rows if isinstance(row, Mapping)]
    newest = sorted(told, key=lambda row: str(row["started"]), reverse=True)
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

    points = sum(map(len, report.series.values()))
    text = report.to_json() if points * POINT_MIN <= EMBEDDED_MAX else ""
    if not 0 < len(text) <= EMBEDDED_MAX:
        text = _text(report.with_(series={}, figures={}))
    if len(text) > EMBEDDED_MAX:
        text = _text(report.with_(series={}, figures={}, findings=tuple(map(_without_curves, report.findings))))
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(text)


def _text(report: Report) -> str:
    return dumps(fields_of(report, leave_out=("desk", "path", "source")), indent=None)


def _without_curves(finding: Finding) -> Finding:
    proof = None if finding.proof is None else replace(finding.proof, before=None, after=None)
    return replace(finding, proof=proof, evidence=())


def prose(text: Any) -> Any:
    """A message with what stands between backticks as code."""
    from markupsafe import Markup, escape

    parts = str(text).split("`")
    if len(parts) % 2 == 0:
        return escape(text)
    marked = [Markup("<code>{}</code>").format(part) if at % 2 else escape(part) for at, part in enumerate(parts)]
    return Markup("").join(marked)


def moment(started: str) -> str:
    """A time as people read it; what is no time is left as it is."""
    try:
        return datetime.fromisoformat(started).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    except ValueError:
        return started


def sentence(words: str) -> str:
    """The first letter raised."""
    return words[:1].upper() + words[1:]


def number(value: Any) -> str:
    """A number as a person writes it."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or (math.isfinite(value) and 1e4 <= abs(value) < 1e15):
        return f"{value:,.0f}"
    return f"{value:.4g}"


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
