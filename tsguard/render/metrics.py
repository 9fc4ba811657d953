"""Metrics as tables: what was learned, on each part of the data, and what it took, beside what was foretold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tsguard.render.words import number, span
from tsguard.report import Report

PARTS = {"val": "validation", "train": "training"}

COSTS = {
    "duration_min": "duration", "steps_per_s": "steps a second", "data_wait_share": "waiting for data",
    "peak_mb": "peak memory", "artifact_mb": "saved model", "weights_mb": "weights", "gpu_used": "on a GPU",
    "batches_per_epoch": "batches", "cost": "price", "price_per_hour": "price an hour", "epochs": "epochs",
    "steps": "steps", "recoveries": "recoveries",
}  # fmt: skip
"""What a run takes, in words; the other metrics say what it learned."""


@dataclass(frozen=True, slots=True)
class Learned:
    """One metric on each part of the data."""

    name: str
    values: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class LearnedTable:
    """What was learned. `gated` says which column the bare names mean."""

    columns: tuple[str, ...]
    rows: tuple[Learned, ...]
    gated: str
    own_loss: bool = False


def learned(report: Report) -> LearnedTable | None:
    """Every metric that is no cost: of the validation and training part where they are told apart."""
    measured = [part for part in PARTS if any(name.startswith(f"{part}/") for name in report.metrics)]
    measured += _named_sets(report, measured)
    both = any(name.startswith("val_") and name.removeprefix("val_") in report.metrics for name in report.metrics)
    parts = list(dict.fromkeys([*PARTS, *measured])) if measured and both else measured
    bare = {name: value for name, value in report.metrics.items() if name.split("/", 1)[0] not in parts}
    bare = {name: value for name, value in bare.items() if name.rsplit("/", 1)[-1] not in COSTS}
    rows: dict[str, dict[str, float]] = {}
    for part in parts:
        for name, value in report.metrics.items():
            head, _, rest = name.partition("/")
            if head == part:
                rows.setdefault(rest, {})[part] = value
    for name, value in bare.items():
        base = name.removeprefix("val_")
        if parts and name.startswith("val_") and base in bare and "val" in parts:
            rows.setdefault(base, {})["val"] = value
        elif parts and f"val_{name}" in bare:
            rows.setdefault(name, {})["train"] = value
        elif name not in rows:
            rows.setdefault(name, {})[""] = value
    if not rows:
        return None
    # Loss first: it is what every reader looks for.
    order = sorted(rows, key=lambda name: name != "loss")
    columns = [*parts, *([""] if any("" in values for values in rows.values()) else [])]
    named = tuple(PARTS.get(column, column or "measured") for column in columns)
    table = tuple(Learned(name, tuple(rows[name].get(column) for column in columns)) for name in order)
    return LearnedTable(named, table, PARTS[measured[0]] if measured else "", own_loss(report))


def _named_sets(report: Report, parts: list[str]) -> list[str]:
    """Further validation sets: they have the metrics that the parts have, and are no output of the model."""
    told = {name.split("/", 1)[1] for name in report.metrics if name.split("/", 1)[0] in parts}
    outputs = {rest.split("/", 1)[0] for rest in told if "/" in rest}
    pairs = [name.split("/", 1) for name in report.metrics if "/" in name]
    heads = dict.fromkeys(head for head, rest in pairs if rest in told)
    return [head for head in heads if head not in parts and head not in outputs]


@dataclass(frozen=True, slots=True)
class Taken:
    """One thing that a run takes: as measured, as foretold by the preflight, as declared."""

    name: str
    words: str
    measured: str
    foretold: str
    declared: str
    against: str
    """How the measured value stands to the forecast."""


@dataclass(frozen=True, slots=True)
class TakenTable:
    """What the run takes; columns that would be empty are left out."""

    rows: tuple[Taken, ...]
    measured: bool
    foretold: bool
    declared: bool


def taken(report: Report) -> TakenTable | None:
    """Costs of the run beside forecast and declaration."""
    forecast = forecast_of(report)
    declared = {name: value for name, value in report.plan.items() if name != "forecast" and value is not None}
    measured = {name: value for name, value in report.metrics.items() if name in COSTS}
    names = [name for name in COSTS if name in measured or name in forecast or name in declared]
    names += [name for name in declared if name not in COSTS]
    rows = tuple(
        Taken(
            name, COSTS.get(name, name), quantity(name, measured.get(name)), quantity(name, forecast.get(name)),
            quantity(name, declared.get(name)), _against(measured.get(name), forecast.get(name)),
        )
        for name in names
    )  # fmt: skip
    return TakenTable(rows, bool(measured), bool(forecast), bool(declared)) if rows else None


def forecast_of(report: Report) -> Mapping[str, Any]:
    """What the preflight foretold."""
    found = report.plan.get("forecast")
    return found if isinstance(found, Mapping) else {}


def quantity(name: str, value: Any) -> str:
    """A cost in its unit; what is no number (a range, a bound) as it was written."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if not math.isfinite(value):
        return number(value)
    if name == "duration_min":
        return span(60 * value)
    if name.endswith("_mb"):
        return f"{value:,.0f} MB" if value >= 10 else f"{value:.2g} MB"
    if name.endswith("_share"):
        return f"{100 * value:.3g} %"
    if name == "gpu_used":
        return "yes" if value else "no"
    return number(value)


ALIKE = 0.05
"""Closer than this to its forecast, a value is as foretold."""


def _against(value: Any, foretold: Any) -> str:
    numbers = isinstance(value, int | float) and isinstance(foretold, int | float)
    if not numbers or not foretold or foretold < 0 or not math.isfinite(value / foretold):
        return ""
    ratio = value / foretold
    if abs(ratio - 1) <= ALIKE:
        return "as foretold"
    return f"{ratio:.3g} ×"


def own_loss(report: Report) -> bool:
    """Whether the run minimises a loss of its own, which may ask for something else than its targets."""
    points = report.figures.get("predicted_true")
    return isinstance(points, Mapping) and bool(points.get("own_loss"))


def result(report: Report) -> str:
    """What came of a run in one sentence: the loss, how good, after how much."""
    told = [f"{name} {number(report.metrics[name])}" for name in ("val_loss", "loss") if name in report.metrics][:1]
    # Of a loss of one's own nobody knows whether it asks for the targets at all.
    named = () if own_loss(report) else (("accuracy", "accuracy"), ("r2", "R²"))
    told += [f"{words} {report.metrics[name]:.3g}" for name, words in named if name in report.metrics]
    epochs, steps = len(report.series.get("epoch/loss", ())), len(report.series.get("loss", ()))
    after = [f"{count:,} {what}{'s' * (count != 1)}" for count, what in ((epochs, "epoch"), (steps, "step")) if count]
    if not told:
        return ""
    return ", ".join(told) + (f" after {' and '.join(after)}" if after else "") + "."


def price(report: Report) -> str:
    """What the run would take, or took, in one sentence."""
    foretold, minutes = forecast_of(report), report.metrics.get("duration_min")
    guess = foretold.get("duration_min")
    if report.kind == "check" and isinstance(guess, int | float):
        money = foretold.get("cost")
        cost = f" and cost about {money:.2f} at the declared price" if isinstance(money, int | float) else ""
        if report.verdict:
            return f"The run is forecast to take about {span(60 * guess)}{cost}."
        return f"The run would have taken about {span(60 * guess)}{cost}."
    if report.kind == "train" and isinstance(minutes, int | float):
        before = f"; about {span(60 * guess)} was forecast" if isinstance(guess, int | float) else ""
        return f"Training took {span(60 * minutes)}{before}."
    return ""
