"""What is done about a trip: go back, find the origin, tell it, and put the run right as its policy says.

Functions over a `Watcher`, which says what the step was; nothing here listens to a step itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tsguard.findings import Finding, Status
from tsguard.guard import answer
from tsguard.guard.investigate import Verdict, inspect, investigate, weights_finite
from tsguard.guard.outcome import Trip
from tsguard.guard.recovery import recover
from tsguard.guard.replay import Replay
from tsguard.guard.rows import find_row
from tsguard.guard.seam import GuardStop
from tsguard.guard.watch import now
from tsguard.guard.written import files_since
from tsguard.report import fields_of

if TYPE_CHECKING:
    from tsguard.guard.watcher import Watcher


class NonFiniteTraining(GuardStop):
    """Policy "raise": training met a value that is not finite. `finding` says where it came from."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(f"{finding.code}: {finding.message}")
        self.finding = finding


def look_for_hidden(watcher: Watcher) -> None:
    """A question about NaN was answered with yes, and yet loss and gradients look fine."""
    trip = Trip("nan-hidden", watcher.step, watcher.epoch, watcher.batch, "", phase="hidden")
    verdict = _investigated(watcher, trip)
    watcher.question = None  # told once; a model that handles missing data on purpose is not asked again either
    if verdict is None or verdict.origin is None or verdict.origin.code != "nan-hidden":
        return
    watcher.trips.append(trip)
    _tell(watcher, verdict, trip)


def look_behind_zero(watcher: Watcher) -> None:
    """A gradient that is exactly zero everywhere: a loss replaced by a constant looks like that."""
    watcher.zero_gradients += 1
    if watcher.zero_gradients != 1:
        return
    trip = Trip("nan-hidden", watcher.step, watcher.epoch, watcher.batch, "", phase="hidden")
    verdict = _investigated(watcher, trip)
    if verdict is not None and verdict.origin is not None:
        watcher.trips.append(trip)
        _tell(watcher, verdict, trip)


def _investigated(watcher: Watcher, trip: Trip) -> Verdict | None:
    if watcher.loose is not None and watcher.loose.calls and not watcher.seam.in_step and not watcher.recorder.records:
        return _investigated_loosely(watcher)
    clean = watcher.recorder.clean
    if not watcher.recorder.ready or clean is None or not clean.fits() or not watcher.recorder.records:
        return None
    replay = Replay(watcher.model, clean, watcher.recorder.records, first_step=watcher.recorder.clean_step)
    replay.spare = watcher.recorder.spare
    start = now()
    try:
        return investigate(replay, trip, scaled=watcher.scaled)
    finally:
        watcher.answer_seconds = now() - start
        watcher.seam.retake()


def _investigated_loosely(watcher: Watcher) -> Verdict | None:
    assert watcher.loose is not None
    start = now()
    origin, record = watcher.loose.origin(watcher.step - 1)
    watcher.answer_seconds = now() - start
    watcher.seam.retake()
    return None if origin is None else Verdict(origin=origin, record=record)


def handle(watcher: Watcher, trip: Trip) -> None:
    """Go back, find the origin, answer, and do what the policy says."""
    if watcher.stopped:
        return
    readings = watcher.watch.read()
    for reading in readings:
        watcher.judge(reading)
    watcher.note_steps(readings)
    verdict = _investigated(watcher, trip)
    watcher.verdict = verdict if verdict is not None else watcher.verdict
    recovery = None
    poisoned = _poisoned(watcher, trip, verdict)
    if trip.nonfinite:
        recovery = recover(watcher.model, watcher.policy, watcher.recoveries, watcher.budget, watcher.recorder, verdict)
        _forced_facts(watcher, verdict)
    goes_on = recovery.goes_on if recovery is not None else True
    status = Status.FAIL if trip.nonfinite and not goes_on else (Status.WARN if recovery is not None else None)
    finding = _tell(
        watcher, verdict, trip, status=status, cost=(recovery.words if recovery is not None else "") + poisoned
    )
    if recovery is None:
        return
    watcher.note({"kind": "recovery", "step": trip.step, "text": recovery.words})
    if goes_on:
        watcher.recoveries += 1
        watcher.force_window = True
        bad = verdict.record if verdict is not None else None
        healthy = [record.data for record in watcher.recorder.records if record is not bad]
        watcher.recorder.spare = healthy[0] if healthy else watcher.recorder.spare
        watcher.recorder.records = []
        watcher.watch.pending = []
        return
    watcher.stopped = True
    watcher.final = verdict.before if verdict is not None and verdict.before is not None else watcher.recorder.clean
    watcher.model.stop_training = True
    if watcher.policy == "raise":
        raise NonFiniteTraining(finding)


def _poisoned(watcher: Watcher, trip: Trip, verdict: Verdict | None) -> str:
    """Where the weights have been bad for a while, what callbacks saved meanwhile."""
    if not trip.nonfinite or weights_finite(watcher.model):
        return ""
    bad = verdict.record if verdict is not None else None
    since = bad if bad is not None else next(iter(watcher.recorder.records), None)
    files = files_since(watcher.callbacks, since.at) if since is not None else []
    if not files:
        return ""
    return (
        f" Callbacks saved {len(files)} file(s) after step {since.step if since else trip.step} began and before "
        f"this was noticed; they may hold weights that are not finite: {', '.join(files[:8])}."
    )


def _forced_facts(watcher: Watcher, verdict: Verdict | None) -> None:
    """Keep what reproduction and diagnosis need: the window up to the bad step."""
    clean = watcher.recorder.clean
    if clean is None or not watcher.recorder.ready:
        return
    last = verdict.record.step if verdict is not None and verdict.record is not None else watcher.step
    records = [record for record in watcher.recorder.records if record.step <= last]
    if watcher.replay is None:
        watcher.replay = Replay(watcher.model, clean, records, first_step=watcher.recorder.clean_step)


def _tell(
    watcher: Watcher, verdict: Verdict | None, trip: Trip, *, status: Status | None = None, cost: str = ""
) -> Finding:
    if verdict is not None and verdict.origin is not None and trip.code != "amp-steps-skipped":
        verdict.origin = watcher.names.told(find_row(verdict.origin, verdict.record, watcher.adapter))
        watcher.origins.append(verdict.origin)
        finding = answer.of_origin(verdict.origin, trip, verdict, status=status or Status.FAIL, cost=cost)
    else:
        finding = answer.of_trip(trip, verdict, status=status, cost=cost)
        watcher.findings.append(finding)
        if verdict is not None and verdict.origin is not None:
            verdict.origin = watcher.names.told(find_row(verdict.origin, verdict.record, watcher.adapter))
            watcher.origins.append(verdict.origin)
            watcher.findings.append(answer.of_origin(verdict.origin, trip, verdict))
        _note_finding(watcher, finding, trip)
        if verdict is not None and verdict.diverged_at is not None:
            watcher.findings.append(answer.diverged(verdict.diverged_at, trip))
        return finding
    watcher.findings.append(finding)
    _note_finding(watcher, finding, trip)
    if verdict.diverged_at is not None:
        watcher.findings.append(answer.diverged(verdict.diverged_at, trip))
    return finding


def _note_finding(watcher: Watcher, finding: Finding, trip: Trip) -> None:
    event = {"kind": "finding", "code": finding.code, "step": trip.step, "text": finding.message}
    watcher.note(event | {"finding": fields_of(finding)})


def look_into(watcher: Watcher, step: int) -> None:
    """Asked for: this step again, with every instrument on."""
    clean = watcher.recorder.clean
    record = next((r for r in watcher.recorder.records if r.step == step), None)
    if record is None or clean is None or not watcher.recorder.ready:
        return
    replay = Replay(watcher.model, clean, watcher.recorder.records, first_step=watcher.recorder.clean_step)
    trace, origin = inspect(replay, record)
    watcher.seam.retake()
    watcher.findings.append(answer.inspected(step, trace, origin))
    if origin is not None:
        watcher.origins.append(origin)
