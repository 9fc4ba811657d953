"""What a page shows as tables: classes with their recall, the course of the run, columns of data, suites of tests."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from tsguard.catalogue import GROUPS
from tsguard.findings import Finding, Status
from tsguard.render.cards import Card
from tsguard.render.words import group
from tsguard.report import Moment, Report

CLASSES_MAX = 24
"""More classes than this are a wall of numbers; the rest is in the JSON."""


@dataclass(frozen=True, slots=True)
class ClassRow:
    """One true class: how often each answer was given, and the share of right ones."""

    name: str
    counts: tuple[float, ...]
    total: float
    recall: float | None


@dataclass(frozen=True, slots=True)
class Confusion:
    """The table of true against predicted classes."""

    rows: tuple[ClassRow, ...]
    majority: str
    """The most frequent true class: what a rule without any input would answer."""
    share: float
    """Its share: what that rule would be right for."""
    right: float
    """The share of right answers."""
    never: tuple[str, ...]
    """Classes that are never answered."""
    more: int


def confusion(report: Report) -> Confusion | None:
    """The table from its counts; None where there are none or they make no square."""
    found = report.figures.get("confusion")
    grid = found.get("counts") if isinstance(found, Mapping) else found
    if not isinstance(grid, Sequence) or not grid or any(len(row) != len(grid) for row in grid):
        return None
    names = [str(name) for name in (found.get("classes") or () if isinstance(found, Mapping) else ())]
    names = names if len(names) == len(grid) else [str(number) for number in range(len(grid))]
    rows = []
    for number, counts in enumerate(grid):
        total = sum(counts)
        rows.append(
            ClassRow(names[number], tuple(counts[:CLASSES_MAX]), total, counts[number] / total if total else None)
        )
    never = tuple(names[number] for number in range(len(grid)) if not any(row[number] for row in grid))
    most = max(rows, key=lambda row: row.total)
    whole = sum(row.total for row in rows) or 1
    right = sum(grid[number][number] for number in range(len(grid))) / whole
    left = max(0, len(rows) - CLASSES_MAX)
    return Confusion(tuple(rows[:CLASSES_MAX]), most.name, most.total / whole, right, never, left)


@dataclass(frozen=True, slots=True)
class Stretch:
    """One stop on the timeline: a moment, or a run of checks told as one."""

    kind: str
    text: str
    at: float
    """Seconds since the start at which it was done."""
    step: int | None = None
    within: tuple[Moment, ...] = ()


FOLDED = 3
"""Checks, epochs or trips in a row from this many on are one stop."""

FOLDS = {"check": "{} checks", "epoch": "{} epochs", "trip": "{} trips", "recovery": "{} recoveries"}


def timeline(moments: Sequence[Moment]) -> tuple[Stretch, ...]:
    """The course of the run with its checks and epochs folded, so that gate, trips and end are seen at once."""
    found: list[Stretch] = []
    for kind, stretch in groupby(moments, key=lambda moment: moment.kind):
        same = tuple(stretch)
        if kind in FOLDS and len(same) >= FOLDED:
            step = same[0].step if kind == "trip" else None
            found.append(Stretch(kind, FOLDS[kind].format(len(same)), same[-1].at, step, same))
        else:
            # Of an epoch its number is enough here; the whole of it is in the list of moments.
            found += [
                Stretch(one.kind, one.text.split(":")[0] if kind == "epoch" else one.text, one.at, one.step)
                for one in same
            ]
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of the time that passed, as a share of all of it."""

    name: str
    share: float
    seconds: float


def phases(moments: Sequence[Moment]) -> tuple[Phase, ...]:
    """Where the time went: before training, in training, and on the answer afterwards."""
    at = {moment.kind: moment.at for moment in moments if moment.kind in ("start", "train", "end")}
    if "train" not in at or "end" not in at or at["end"] <= 0:
        return ()
    last = max((m.at for m in moments if m.kind in ("epoch", "trip", "recovery", "best")), default=at["train"])
    ends = [("preflight", at["train"]), ("training", max(last, at["train"])), ("judgement", at["end"])]
    found, before = [], 0.0
    for name, end in ends:
        found.append(Phase(name, (end - before) / at["end"], end - before))
        before = end
    return tuple(phase for phase in found if phase.seconds > 0)


GRAVITY = (Status.FAIL, Status.ERROR, Status.WARN, Status.NOT_RUN, Status.PASS)


@dataclass(frozen=True, slots=True)
class Asked:
    """One check: how long it took, and what came of it."""

    name: str
    seconds: float
    status: str


def asked(findings: Sequence[Finding]) -> tuple[Asked, ...]:
    """Every check that was asked and timed, the longest first; its gravest answer stands for all."""
    took: dict[str, list[Finding]] = {}
    for finding in findings:
        if finding.check and finding.seconds is not None:
            took.setdefault(finding.check, []).append(finding)
    made = [
        Asked(
            name,
            max(one.seconds or 0.0 for one in found),
            min((one.status for one in found), key=GRAVITY.index).value,
        )
        for name, found in took.items()
    ]
    return tuple(sorted(made, key=lambda one: -one.seconds))


@dataclass(frozen=True, slots=True)
class Column:
    """One column's distribution, drawn as bars of a hundred by forty."""

    name: str
    bars: tuple[tuple[float, float, float], ...]
    """Left edge, height and width of each bar."""
    low: float
    high: float
    words: str


COLUMNS_MAX = 48


def columns(report: Report) -> tuple[Column, ...]:
    """The distributions of an audit."""
    found = report.figures.get("distributions")
    if not isinstance(found, Mapping):
        return ()
    made = []
    for name, facts in list(found.items())[:COLUMNS_MAX]:
        edges, counts = facts.get("edges"), facts.get("counts")
        words = []
        if isinstance(facts.get("mean"), int | float):
            words.append(f"mean {facts['mean']:.4g} ± {facts.get('std', math.nan):.4g}")
        count, missing = facts.get("count"), facts.get("missing") or 0
        if missing:
            words.append(f"{100 * missing / count:.3g} % missing" if count else f"{missing} missing")
        if not edges or not counts or len(edges) != len(counts) + 1 or max(counts) <= 0:
            made.append(Column(str(name), (), math.nan, math.nan, ", ".join([*words, "nothing to draw"])))
            continue
        width = 100 / len(counts)
        bars = tuple(
            (round(at * width, 2), round(38 * value / max(counts), 2), round(width, 2))
            for at, value in enumerate(counts)
            if value
        )
        made.append(Column(str(name), bars, edges[0], edges[-1], ", ".join(words)))
    return tuple(made)


@dataclass(frozen=True, slots=True)
class Suite:
    """The tests of one file, with what they found."""

    name: str
    outcomes: Mapping[str, int]
    seconds: float
    tests: tuple[Mapping[str, Any], ...]
    """What did not pass first, then the slowest."""
    cards: tuple[Card, ...]

    @property
    def status(self) -> str:
        """The worst outcome."""
        return next((status for status in ("failed", "skipped", "passed") if self.outcomes.get(status)), "failed")


ORDER = {"failed": 0, "skipped": 1, "passed": 2}


def suites(report: Report, cards: Sequence[Card]) -> tuple[Suite, ...]:
    """Tests by file, files in which something failed first; each finding with the file whose test told it."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for test in report.figures.get("tests") or ():
        found.setdefault(str(test["test"]).split("::", 1)[0], []).append(test)
    made = []
    for name, tests in found.items():
        listed = sorted(tests, key=lambda test: (ORDER.get(str(test["outcome"]), 0), -float(test["seconds"])))
        own = tuple(card for card in cards if card.finding.check.split("::", 1)[0] == name)
        outcomes = dict(Counter(str(test["outcome"]) for test in listed))
        made.append(Suite(name, outcomes, sum(float(test["seconds"]) for test in tests), tuple(listed), own))
    return tuple(sorted(made, key=lambda suite: (ORDER.get(suite.status, 0), not suite.cards, -suite.seconds)))


def by_group(findings: Sequence[Finding]) -> list[tuple[str, list[Finding]]]:
    """Findings under the part of the catalogue that they belong to, in the catalogue's order."""
    found: dict[str, list[Finding]] = {}
    for finding in findings:
        found.setdefault(group(finding.code), []).append(finding)
    order = (*GROUPS, "own")
    return sorted(found.items(), key=lambda item: order.index(item[0]))


def by_reason(findings: Sequence[Finding]) -> list[tuple[str, list[Finding]]]:
    """What did not run, by why: a reason that holds for ten questions is told once."""
    found: dict[str, list[Finding]] = {}
    for finding in findings:
        found.setdefault(finding.message, []).append(finding)
    return sorted(found.items(), key=lambda item: -len(item[1]))
