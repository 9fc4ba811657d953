"""What a page shows as tables: numbers beside the plan, classes with their recall, the course of the run."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from tsguard.report import Moment, Report

FORECASTS = {"duration_min": "forecast_min", "peak_mb": "forecast_peak_mb", "artifact_mb": "forecast_artifact_mb"}
"""Metrics and the name under which a preflight foretold them."""

PARTS = ("val", "train")

RUN_METRICS = frozenset(
    "artifact_mb duration_min steps_per_s data_wait_share peak_mb gpu_used epochs steps recoveries".split()
)
"""What the run cost; the other metrics say what it learned."""

SORTS = ("What was learned", "What it took", "Planned and not measured")

CLASSES_MAX = 24
"""More classes than this are a wall of numbers; the rest is in the JSON."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One metric: as gates know it, of each part, and as planned."""

    name: str
    value: float | None
    parts: tuple[float | None, ...]
    planned: Any


@dataclass(frozen=True, slots=True)
class Metrics:
    """Metrics of one sort under one heading."""

    title: str
    parts: tuple[str, ...]
    measured: bool
    planned: bool
    rows: tuple[Measured, ...]


def metrics(report: Report) -> tuple[Metrics, ...]:
    """What was learned, then what it cost; of both, what was declared or foretold."""
    parts = tuple(part for part in PARTS if any(name.startswith(f"{part}/") for name in report.metrics))
    names: dict[str, None] = {}
    for name in report.metrics:
        head, _, rest = name.partition("/")
        names[rest if head in parts and rest else name] = None
    names.update(
        dict.fromkeys(name for name in report.plan if report.plan[name] is not None and name not in _foretold())
    )
    rows = [
        Measured(
            name,
            report.metrics.get(name),
            tuple(report.metrics.get(f"{part}/{name}") for part in parts),
            report.plan.get(name, report.plan.get(FORECASTS.get(name, ""))),
        )
        for name in names
    ]
    made = []
    for title in SORTS:
        chosen = [row for row in rows if _sort(row) == title]
        if chosen:
            own = parts if any(value is not None for row in chosen for value in row.parts) else ()
            shown = tuple(row if own else Measured(row.name, row.value, (), row.planned) for row in chosen)
            made.append(Metrics(title, own, title != SORTS[2], any(row.planned is not None for row in chosen), shown))
    return tuple(made)


def _sort(row: Measured) -> str:
    if row.value is None and all(value is None for value in row.parts):
        return SORTS[2]
    return SORTS[1] if row.name.rsplit("/", 1)[-1] in RUN_METRICS else SORTS[0]


def _foretold() -> frozenset[str]:
    return frozenset(FORECASTS.values()) | {"forecast_cost"}


@dataclass(frozen=True, slots=True)
class ClassRow:
    """One true class: how often each answer was given, and the share of right ones."""

    name: int
    counts: tuple[float, ...]
    total: float
    recall: float | None


@dataclass(frozen=True, slots=True)
class Confusion:
    """The table of true against predicted classes."""

    rows: tuple[ClassRow, ...]
    majority: int
    """The most frequent true class: what a rule without any input would answer."""
    never: tuple[int, ...]
    """Classes that are never answered."""
    more: int


def confusion(report: Report) -> Confusion | None:
    """The table from its counts; None where there are none or they make no square."""
    grid = report.figures.get("confusion")
    if not isinstance(grid, Sequence) or not grid or any(len(row) != len(grid) for row in grid):
        return None
    rows = []
    for name, counts in enumerate(grid):
        total = sum(counts)
        rows.append(ClassRow(name, tuple(counts[:CLASSES_MAX]), total, counts[name] / total if total else None))
    never = tuple(name for name in range(len(grid)) if not any(row[name] for row in grid))
    majority = max(rows, key=lambda row: row.total).name
    return Confusion(tuple(rows[:CLASSES_MAX]), majority, never, max(0, len(rows) - CLASSES_MAX))


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
"""Checks in a row from this many on are one stop."""


def timeline(moments: Sequence[Moment]) -> tuple[Stretch, ...]:
    """The course of the run with its checks folded, so that gate, trips and end are seen at once."""
    found: list[Stretch] = []
    for kind, group in groupby(moments, key=lambda moment: moment.kind):
        same = tuple(group)
        if kind == "check" and len(same) >= FOLDED:
            found.append(Stretch(kind, f"{len(same)} checks", same[-1].at, None, same))
        else:
            found += [Stretch(moment.kind, moment.text, moment.at, moment.step) for moment in same]
    return tuple(found)


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
    """The tests of one file."""

    name: str
    outcomes: Mapping[str, int]
    seconds: float


def suites(report: Report) -> tuple[Suite, ...]:
    """Tests by file, the slowest first, with how they ended."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for test in report.figures.get("tests") or ():
        found.setdefault(str(test["test"]).split("::", 1)[0], []).append(test)
    made = [
        Suite(name, dict(Counter(str(test["outcome"]) for test in tests)), sum(test["seconds"] for test in tests))
        for name, tests in found.items()
    ]
    return tuple(sorted(made, key=lambda suite: -suite.seconds))
