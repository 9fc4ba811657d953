"""What a finished run amounts to: metrics with the contract's names, symptoms, and causes proven by experiment."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tsguard.checks.registry import Context
from tsguard.dataset import Batches, Data, Once, held_out
from tsguard.diagnosis import Record, Start, diagnose, settled
from tsguard.findings import Finding
from tsguard.guard.outcome import GuardOutcome
from tsguard.probes.baselines import regression_baselines
from tsguard.probes.score import JUDGED_ROWS, Judged, every_row, sample
from tsguard.probes.score import judge as judged_on
from tsguard.probes.stage import Batch
from tsguard.train.pictures import of_answers


@dataclass(frozen=True)
class Judgement:
    """What was found out beside what the guard saw."""

    findings: tuple[Finding, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)
    earlier: tuple[Finding, ...] | None = None
    """What was found before, as it stands after the run; None where nothing was looked at."""
    seconds: float = 0.0
    """What looking for causes took."""


def judge_run(
    context: Context,
    outcome: GuardOutcome,
    findings: Sequence[Finding],
    *,
    start: Start | None,
    budget_s: float,
    progress: Callable[[str], None] = lambda name: None,
) -> Judgement:
    """Measure the model as it stands, then look for what made it so. A budget of 0 leaves the search out."""
    data, model = context.data, outcome.model
    if data is None:
        return Judgement()
    fit = context.fit
    data = held_out(data, float(fit.get("validation_split") or 0.0))
    metrics, figures = measured(model, data)
    found: tuple[Finding, ...] = ()
    earlier: tuple[Finding, ...] | None = None
    seconds = 0.0
    if budget_s > 0 and start is not None and not proven(outcome, findings):
        if isinstance(data.x, Once):
            data = dataclasses.replace(data, x=Batches([]))  # its first batch is no data to try anything on
        record = Record(
            model=model,
            data=data,
            start=start,
            series=curves(outcome),
            fit=fit,
            padding=context.padding,
        )
        earlier = tuple(settled(record, findings))
        began = time.monotonic()
        found = diagnose(record, earlier, budget_s=budget_s, progress=progress)
        seconds = time.monotonic() - began
    return Judgement(found, metrics, figures, earlier, seconds)


def proven(outcome: GuardOutcome, findings: Sequence[Finding]) -> bool:
    """Whether replay has shown the cause already: which operation, on which element, from which values."""
    tripped = outcome.trip is not None and outcome.trip.nonfinite
    return tripped and any(f.check == "guard" and f.role == "cause" and f.status == "FAIL" for f in findings)


def measured(model: Any, data: Data) -> tuple[dict[str, float], dict[str, Any]]:
    """Metrics of the validation part where there is one, else of the training part; "val/…", "train/…" say which."""
    held = data.held_back()
    parts = {"train": data} if held is None else {"val": held, "train": data}
    named = {name: Data(*pair) for name, pair in data.validation_sets.items() if isinstance(pair, tuple | list)}
    parts |= {
        name: dataclasses.replace(one, names=data.names, batch_size=data.batch_size) for name, one in named.items()
    }
    metrics: dict[str, float] = {}
    figures: dict[str, Any] = {}
    for part, rows_of in parts.items():
        rows = sample(rows_of, JUDGED_ROWS)
        whole = not metrics and (rows_of.is_arrays or part != "train")  # a loader of training data is not read again
        judged = None if rows is None else _judged(model, rows_of, rows, whole=whole)
        if rows is None or judged is None:
            continue
        values = _with_skill(judged, data)
        metrics.update({f"{part}/{name}": value for name, value in values.items()})
        for name, value in values.items():
            if part in ("val", "train"):
                metrics.setdefault(name, value)
        if not figures:
            figures = of_answers(model, rows)
    return metrics, figures


def _judged(model: Any, data: Data, rows: Batch, *, whole: bool) -> Judged | None:
    """The part that bears the plain names is measured on every row, the training part beside it on some of them."""
    every = every_row(data) if whole else None
    judged = None if every is None or every.rows <= rows.rows else judged_on(model, every)
    return judged or judged_on(model, rows)


def _with_skill(judged: Judged, data: Data) -> dict[str, float]:
    """The metrics and, of a single output, how much of what a trivial rule leaves over is explained."""
    values = dict(judged.metrics)
    if "accuracy" in values and "majority_share" in values:
        rest = 1 - values["majority_share"]
        values["skill_vs_baseline"] = (values["accuracy"] - values["majority_share"]) / rest if rest > 0 else 0.0
    elif "r2" in values:
        best = max(regression_baselines(data).values(), default=0.0)
        values["skill_vs_baseline"] = 1 - (1 - values["r2"]) / max(1 - best, 1e-12)
    return values


def curves(outcome: GuardOutcome) -> dict[str, list[float]]:
    """The guard's points as plain curves: "loss" per step, "epoch/loss", "val_loss" and metrics per epoch."""
    plain: dict[str, list[float]] = {}
    for name, points in outcome.series.items():
        values = [float(value) for _, value in points]
        plain[name] = values
        if name.startswith("epoch/") and name != "epoch/loss":
            plain.setdefault(name.removeprefix("epoch/"), values)
    return plain
