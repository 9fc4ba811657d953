"""From a trip to its origin: rewind, replay plainly to the first bad step, instrument that one, tell what kind of
fault it is.

A fault that comes again with the same batch and goes away with another is bound to the data; one that comes with any
batch sits in the state of the model; one that does not come again is transient.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from tsguard.backend import outer_optimizers_of
from tsguard.guard import norms
from tsguard.guard.origin import find
from tsguard.guard.outcome import Origin, Trip
from tsguard.guard.recorder import StepRecord
from tsguard.guard.replay import Listener, Replay, Replayed, as_recorded
from tsguard.guard.state import StateBuffer
from tsguard.guard.trace import Trace


@dataclass
class Verdict:
    """What going back showed."""

    origin: Origin | None = None
    record: StepRecord | None = None
    """The first bad step."""
    before: StateBuffer | None = None
    """The state right before it."""
    diverged_at: int | None = None
    """The step at which the replay stopped being the run that was seen."""
    binding: str | None = None
    """transient, persistent or data-bound."""
    replayed: list[Replayed] = field(default_factory=list)
    weight_growth: float | None = None
    """Norm of the weights right before the bad step over that of the clean state."""
    gone_in_eager: bool = False


def all_finite(gradients: list[Any], variables: list[Any]) -> bool:
    """Whether an update may happen: every gradient is finite."""
    return norms.all_finite(gradients)


def weights_finite(model: Any) -> bool:
    """Whether weights and optimizer variables are all finite."""
    variables = [*model.variables, *(v for optimizer in outer_optimizers_of(model) for v in optimizer.variables)]
    return norms.all_finite([variable.value for variable in variables])


def investigate(replay: Replay, trip: Trip, *, scaled: bool = False) -> Verdict:
    """Find the first bad step among the recorded ones and where it went wrong. The model is left as it was found.

    `scaled`: a loss scaler is at work, to which gradients that are not finite are nothing special.
    """
    verdict = Verdict()
    with replay.session():
        bad = _first_bad(replay, trip, verdict, scaled=scaled)
        verdict.record = bad
        if bad is None:
            return verdict
        verdict.before = StateBuffer(replay.model)
        verdict.before.capture()
        verdict.weight_growth = _growth(replay)
        verdict.origin = _instrumented(replay, bad)
        verdict.gone_in_eager = verdict.origin is None and bool(replay.model.jit_compile)
        verdict.binding = _binding(replay, bad, verdict.before, scaled=scaled)
    return verdict


def inspect(replay: Replay, record: StepRecord) -> tuple[Trace, Origin | None]:
    """One recorded step under full instrumentation, healthy or not."""
    with replay.session():
        replay.until(record.step)
        trace = Trace(replay.model, record.data, margins=True)
        _, heard = replay.run(record, allow=all_finite, eager=True, around=trace.listening)
        return trace, find(trace, heard, record, replay.model)


def _first_bad(replay: Replay, trip: Trip, verdict: Verdict, *, scaled: bool) -> StepRecord | None:
    """Replay up to the step that tripped, looking at the weights after each; leaves the model right before the bad
    one."""
    replay.rewind()
    records = [record for record in replay.records if record.step <= trip.step]
    for record in records:
        if record.step == trip.step and (trip.phase != "update"):
            return record
        done, heard = replay.run(record, allow=as_recorded(record))
        verdict.replayed.append(done)
        if done.same is False and verdict.diverged_at is None:
            verdict.diverged_at = record.step
        if _step_is_bad(done, heard, scaled=scaled) or not weights_finite(replay.model):
            replay.until(record.step)
            return record
    return None


def _step_is_bad(done: Replayed, heard: Listener, *, scaled: bool) -> bool:
    if done.loss is not None and not math.isfinite(done.loss):
        return True
    return not scaled and not all_finite(heard.gradients, heard.variables)


def _instrumented(replay: Replay, record: StepRecord) -> Origin | None:
    trace = Trace(replay.model, record.data)
    _, heard = replay.run(record, allow=all_finite, eager=True, around=trace.listening)
    return find(trace, heard, record, replay.model)


def _binding(replay: Replay, bad: StepRecord, before: StateBuffer, *, scaled: bool) -> str | None:
    def fails(data: Any) -> bool:
        before.restore()
        done, heard = replay.run(bad, data=data, allow=all_finite, eager=True)
        return _step_is_bad(done, heard, scaled=scaled) or (done.applied and not weights_finite(replay.model))

    others = [record.data for record in replay.records if record.step != bad.step]
    if not fails(None):
        return "transient"
    others = others or ([] if replay.spare is None else [replay.spare])
    if not others:
        return None
    return "persistent" if fails(others[-1]) else "data-bound"


def _growth(replay: Replay) -> float | None:
    trainable = {id(variable) for variable in replay.model.trainable_variables}
    pairs = [
        (buffer, variable.value.detach())
        for variable, buffer in zip(replay.clean.variables, replay.clean.buffers, strict=True)
        if id(variable) in trainable
    ]
    if not pairs:
        return None
    was = float(sum(float(buffer.double().square().sum()) for buffer, _ in pairs)) ** 0.5
    now = float(sum(float(value.double().square().sum()) for _, value in pairs)) ** 0.5
    return now / was if was > 0 else None
