"""The pages: self-contained files, drawn from Reports alone, by templates that escape everything.

What is marked safe in a template is SVG that `drawing` made and escaped itself; every word of a user stays text.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tsguard.comparison import Comparison, compare
from tsguard.findings import Finding, Role, Status
from tsguard.render import metrics, tables, words
from tsguard.render.cards import TROUBLED, cards, explained, reproduction
from tsguard.render.comparing import compared
from tsguard.render.words import MARKS, STATUS_WORDS, VERDICT_WORDS, sentence
from tsguard.report import Report, dumps, fields_of

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
POINT_MIN = 8
"""Characters of JSON that a recorded point takes at least: two numbers and what parts them."""
EMBEDDED_MAX = 400_000
"""Characters of JSON that go into the page; a larger document stays beside it: pages must open on phones."""


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
    env.filters.update(
        number=words.number, brief=words.brief, prose=words.prose, moment=words.moment, sentence=sentence,
        span=words.span, title_of=words.title,
    )  # fmt: skip
    env.globals.update(
        stops=words.STOPS, status_words=STATUS_WORDS, marks=MARKS, verdict_words=VERDICT_WORDS, kinds=words.KINDS,
        outcomes=words.OUTCOMES,
    )  # fmt: skip
    return env


def page(report: Report, *, earlier: Mapping[str, Report] | None = None) -> str:
    """The whole page of one report. `earlier` are reports to hold it against, by what they are ("the run before")."""
    from tsguard.render import figures

    found = cards(report.findings)
    suites = tables.suites(report, found)
    told = {id(card) for suite in suites for card in suite.cards}
    differences = [(title, compared(_against(title, other, report))) for title, other in (earlier or {}).items()]
    return environment().get_template("report.html").render(
        **_first(report, {id(card.finding): card.anchor for card in found}),
        cards=[card for card in found if id(card) not in told],
        troubled=len(found),
        figures=figures.of_report(report),
        note=report.figures.get("snapshots_note") or "",
        columns=tables.columns(report),
        confusion=tables.confusion(report),
        learned=metrics.learned(report),
        taken=metrics.taken(report),
        differences=differences,
        passed=tables.by_group([f for f in report.findings if f.status is Status.PASS]),
        not_run=tables.by_reason([f for f in report.findings if f.status is Status.NOT_RUN]),
        asked=tables.asked(report.findings),
        suites=suites,
        expectations=report.figures.get("expectations") or [],
        repairs=report.figures.get("repairs") or [],
        embedded=embedded(report),
    )  # fmt: skip


def _against(title: str, other: Report, report: Report) -> Comparison:
    """What differs from an earlier report; metrics that are equal or only here are in the table of metrics already."""
    found = compare(other, report)
    shared = tuple(row for row in found.metrics if None not in row.values and len(set(map(repr, row.values))) > 1)
    return replace(found, names=(title, "this one"), metrics=shared)


def first_screen(report: Report) -> str:
    """What a notebook shows: the verdict, why, and what to do, in a style that stays inside."""
    return environment().get_template("notebook.html").render(**_first(report, {}))


@dataclass(frozen=True, slots=True)
class Reason:
    """Why the verdict is what it is, beside the first cause: a finding by its title, or words of the gate."""

    text: str
    finding: Finding | None = None
    anchor: str = ""
    times: int = 1
    """How many findings of this code there are."""


def _first(report: Report, anchors: Mapping[int, str]) -> dict[str, Any]:
    title, lead = headline(report)
    first = report.causes[0] if report.causes else None
    troubled = [finding for finding in report.findings if finding.status in TROUBLED]
    counts = Counter(finding.status.value for finding in report.findings)
    beneath = explained(troubled)
    failed = [finding for finding in troubled if finding.status is Status.FAIL and id(finding) not in beneath]
    below = sum(finding.status is Status.FAIL and id(finding) in beneath for finding in troubled)
    return {
        "report": report,
        "headline": title,
        "sentence": lead,
        "first": first,
        "reasons": _reasons(report, troubled, first, anchors),
        "price": metrics.price(report),
        "timeline": tables.timeline(report.timeline),
        "phases": tables.phases(report.timeline),
        "tally": {status: counts[status] for status in STATUS_WORDS if counts[status]},
        "causes": sum(f.role is Role.CAUSE for f in failed),
        "symptoms": below + sum(f.role is Role.SYMPTOM for f in failed),
        "reproduction": "" if first is None else reproduction(first),
    }


UNENFORCED = "not enforced: "


def _reasons(
    report: Report, troubled: Sequence[Finding], first: Finding | None, anchors: Mapping[int, str]
) -> list[Reason]:
    """The verdict's reasons but for the first cause, which is told above, and symptoms that a cause explains."""
    beneath = explained(troubled)
    made: list[Reason] = []
    headed = report.verdict.status not in (Status.PASS, Status.WARN)  # then the first reason stands above
    told = {first.message} if first is not None else set(report.verdict.reasons[:1] if headed else ())
    for words_of in report.verdict.reasons:
        text = words_of.removeprefix(UNENFORCED)
        finding = next((f for f in troubled if f.message and text.endswith(f.message)), None)
        if any(text.endswith(message) for message in told if message):
            continue
        if finding is None:
            made.append(Reason(text))
        elif id(finding) not in beneath:
            same = sum(one.code == finding.code and id(one) not in beneath for one in troubled)
            if finding.code not in (one.finding.code for one in made if one.finding is not None):
                made.append(Reason(finding.message, finding, anchors.get(id(finding), ""), same))
        told.add(text if finding is None else finding.message)
    return made


def headline(report: Report) -> tuple[str, str]:
    """The verdict in one line, and the sentence below it: the first cause, else the first reason, else what came."""
    blocked = report.verdict.status is not Status.PASS
    if report.causes and blocked:
        first = report.causes[0]
        return words.title(first.code), sentence(words.gist(first.message))
    if report.verdict.reasons and report.verdict.status not in (Status.PASS, Status.WARN):
        return sentence(report.verdict.reasons[0]), ""
    what = {"train": "run", "check": "run", "audit": "data", "suite": "suite"}.get(report.kind, "run")
    waived = [finding for finding in report.findings if finding.status is Status.FAIL]
    if waived and not blocked:
        count = f"{len(waived)} failure{'s' * (len(waived) > 1)} waived"
        return f"{report.name}: nothing blocks this {what}, with {count}", sentence(words.gist(waived[0].message))
    warned = [finding for finding in report.findings if finding.status is Status.WARN]
    if warned:
        count = f"{len(warned)} warning{'s' * (len(warned) > 1)}"
        first = report.causes[0] if report.causes else warned[0]
        return f"{report.name}: nothing blocks this {what}, with {count}", sentence(words.gist(first.message))
    return f"{report.name}: nothing stands against this {what}", metrics.result(report)


REASON_MAX = 240
"""Characters of the first reason in the list of runs; the run's own page has the rest."""


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
        "skill": _finite(report.metrics.get("skill_vs_baseline")),
        "minutes": _finite(report.metrics.get("duration_min")),
        "reason": words.gist((report.verdict.reasons or ("",))[0].removeprefix(UNENFORCED))[:REASON_MAX],
        "spark": spark(report.series["loss"].y) if "loss" in report.series else "",
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


UNTOLD = {
    "href": "", "name": "", "verdict": "NOT_RUN", "kind": "", "started": "", "loss": None, "val_loss": None,
    "skill": None, "minutes": None, "reason": "", "spark": "",
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

    return (
        environment()
        .get_template("comparison.html")
        .render(found=compared(found), figures=figures.of_comparison(found))
    )


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
