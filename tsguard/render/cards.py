"""Findings as cards: a cause with the symptoms that it explains beneath it, so that one failure is told once.

Figures, grids and facts end where their share of the page ends; the JSON beside the page has all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from tsguard.findings import Finding, Role, Status
from tsguard.render.grids import Grid, grids
from tsguard.render.words import brief

if TYPE_CHECKING:
    from tsguard.render.drawing import Figure

PROOFS_MAX = 6
"""Proofs drawn on one page, the likeliest causes first: each costs a twentieth of a second and ten kilobytes."""
GRIDS_MAX = 12
"""Counterexamples drawn on one page."""
FACTS_MAX = 120_000
"""Characters of recorded facts on one page, over all findings."""

TROUBLED = (Status.FAIL, Status.WARN, Status.ERROR)


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
    symptoms: tuple[Card, ...] = ()

    @property
    def text(self) -> str:
        """What the page's filter looks at."""
        own = f"{self.finding.code} {self.finding.message} {' '.join(map(str, self.finding.where.values()))}"
        return " ".join([own, *(symptom.text for symptom in self.symptoms)])


def cards(findings: Iterable[Finding]) -> list[Card]:
    """Cards in the order given, of what failed, warned or crashed."""
    from tsguard.render import figures

    troubled = [finding for finding in findings if finding.status in TROUBLED]
    beneath = explained(troubled)
    taken: set[str] = set()
    shares = {"proofs": PROOFS_MAX, "grids": GRIDS_MAX, "facts": FACTS_MAX}

    def made(finding: Finding) -> Card:
        anchor = _anchor(finding, taken)
        figure = None
        if finding.proof is not None and shares["proofs"] > 0:
            figure = figures.of_proof(finding.proof, f"proof-{PROOFS_MAX - shares['proofs']}")
            shares["proofs"] -= figure is not None
        own = grids(finding) if shares["grids"] > 0 else ()
        shares["grids"] -= bool(own)
        facts, test = _facts(finding, shares, drawn=bool(own))
        mine = [made(one) for one in troubled if beneath.get(id(one)) is finding]
        return Card(finding, anchor, figure, own, facts, reproduction(finding), test, tuple(mine))

    return [made(finding) for finding in troubled if id(finding) not in beneath]


def explained(findings: Sequence[Finding]) -> dict[int, Finding]:
    """Findings (by identity) and what they stand beneath: the first cause that explains them, else their like."""
    causes = [one for one in findings if one.role is Role.CAUSE and one.explains and one.status is not Status.ERROR]
    found: dict[int, Finding] = {}
    for finding in findings:
        if finding.role is Role.SYMPTOM:
            cause = next((one for one in causes if finding.code in one.explains), None)
            if cause is not None:
                found[id(finding)] = cause
    # What two checks tell of one symptom, or of one line of code, is one failure.
    first: dict[tuple[object, ...], Finding] = {}
    for finding in findings:
        line = (finding.where.get("file"), finding.where.get("line"))
        if id(finding) in found or (finding.role is not Role.SYMPTOM and None in line):
            continue
        key = (finding.code,) if finding.role is Role.SYMPTOM else (finding.code, *line)
        earlier = first.setdefault(key, finding)
        if earlier is not finding:
            found[id(finding)] = earlier
    return found


def _anchor(finding: Finding, taken: set[str]) -> str:
    anchor, number = finding.anchor, 1
    while anchor in taken:
        number += 1
        anchor = f"{finding.anchor}-{number}"
    taken.add(anchor)
    return anchor


def _facts(finding: Finding, shares: dict[str, int], *, drawn: bool) -> tuple[tuple[tuple[str, str], ...], str]:
    facts, test = [], ""
    for fact in finding.evidence:
        if fact.kind == "file":
            continue
        if fact.kind == "source" and fact.name == "pytest":
            test = brief(fact.value)
        elif not (drawn and fact.kind == "batch"):
            text = brief(fact.value)
            shares["facts"] -= len(text)
            title = (fact.name or fact.kind) + ("" if fact.step is None else f", step {fact.step}")
            facts.append((title, text if shares["facts"] >= 0 else "in report.json"))
    return tuple(facts), test


def reproduction(finding: Finding) -> str:
    """Where the script that reproduces a finding lies, as a link from the page."""
    files = (fact.file for fact in finding.evidence if fact.kind == "file" and fact.name == "reproduction")
    return next((link for file in files if (link := _inside(file))), "")


def _inside(file: str | None) -> str:
    """A link that stays in the run's folder, or none."""
    path = Path(file or "")
    return "" if not file or path.is_absolute() or ".." in path.parts else quote(path.as_posix())
