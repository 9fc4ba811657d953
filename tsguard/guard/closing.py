"""What a run amounts to when it is over: the outcome with its findings, series and metrics."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from tsguard import catalogue
from tsguard.findings import Finding, Role, Status, ranked
from tsguard.guard import memory, verdicts
from tsguard.guard.outcome import GuardOutcome
from tsguard.guard.replay import Replay
from tsguard.report import Series

if TYPE_CHECKING:
    from tsguard.guard.callback import Guard
    from tsguard.guard.watcher import Watcher


def outcome_of(guard: Guard, watcher: Watcher) -> GuardOutcome:
    """The whole of a run as a value."""
    findings = [*watcher.findings, *guard._errors, *guard._found]
    if watcher.seam.compiled:
        findings.append(verdicts.unseen())
    if watcher.watched and not any(f.status >= Status.FAIL for f in findings):
        findings.append(
            catalogue.finding(
                "nonfinite-loss",
                f"{watcher.watched} steps were watched: every loss, gradient and weight was finite.",
                status=Status.PASS,
                role=Role.NOTE,
                remedy="",
                check="guard",
            )
            if not watcher.recoveries
            else _survived(watcher)
        )
    series = dict(watcher.watch.series)
    for name, values in guard._logs.items():
        series[f"epoch/{name}"] = list(zip(guard._log_epochs[name], values, strict=True))
    clean = watcher.recorder.clean
    replay = watcher.replay
    if replay is None and watcher.recorder.ready and clean is not None and clean.fits():
        replay = Replay(watcher.model, clean, watcher.recorder.records, first_step=watcher.recorder.clean_step)
    return GuardOutcome(
        model=watcher.model,
        findings=list(ranked(findings)),
        series=series,
        metrics=_metrics(guard, watcher),
        trip=next((trip for trip in watcher.trips if trip.nonfinite), watcher.trips[0] if watcher.trips else None),
        origin=watcher.origins[0] if watcher.origins else None,
        trips=list(watcher.trips),
        replay=replay,
        steps=watcher.watched,
        epochs=guard._epochs,
        policy=guard.policy,
        stopped=watcher.stopped,
        recoveries=watcher.recoveries,
        data=watcher.adapter,
        folder=guard.folder.path if guard.folder is not None else None,
        facts=_facts(guard, watcher),
    )


def _facts(guard: Guard, watcher: Watcher) -> dict[str, Any]:
    verdict = watcher.verdict
    return {
        "diagnose": guard.diagnose,
        "repro": guard.repro,
        "budget_s": guard.budget_s,
        "binding": verdict.binding if verdict is not None else None,
        "weight_growth": verdict.weight_growth if verdict is not None else None,
        "answer_seconds": watcher.answer_seconds,
        "recorder_note": watcher.recorder.note,
        "recorder_budget": watcher.recorder.budget,
    }


def _metrics(guard: Guard, watcher: Watcher) -> dict[str, float]:
    seconds = time.perf_counter() - guard._started
    found = {"duration_min": seconds / 60, "steps_per_s": watcher.watched / seconds if seconds > 0 else 0.0}
    if watcher.watch.data_wait_share is not None:
        found["data_wait_share"] = watcher.watch.data_wait_share
    for name in ("loss", "val_loss"):
        if guard._logs.get(name):
            found[name] = guard._logs[name][-1]
    losses = [value for value in watcher.watch.values("loss") if np.isfinite(value)]
    if losses and ("loss" not in found or found["loss"] == 0.0 < min(losses)):
        # Keras logs 0 where an own train_step leaves the compiled loss tracker untouched.
        found["loss"] = losses[-1]
    found["peak_mb"] = memory.peak_mb()
    found["gpu_used"] = 0.0 if watcher.on_cpu else 1.0
    return found


def _survived(watcher: Watcher) -> Finding:
    return catalogue.finding(
        "nonfinite-loss",
        f"{watcher.watched} steps were watched; {watcher.recoveries} of them were not finite and were left out by "
        f"policy {watcher.policy!r}. User callbacks were not rewound.",
        status=Status.WARN,
        role=Role.NOTE,
        check="guard",
    )


def series_of(outcome: GuardOutcome) -> dict[str, Series]:
    """What was measured on the way, as a report holds it."""
    return {
        name: Series(
            tuple(value for _, value in points),
            tuple(float(at) for at, _ in points),
            "epoch" if name.startswith("epoch/") else "step",
        )
        for name, points in outcome.series.items()
    }
