"""Listens at the seam, step by step: records, watches, trips, and has trips looked into.

The order in one step: clean state if due, batch recorded; loss heard; gradients looked at before the update (on the
CPU; on another device the numbers are read together every `sync_every` steps); then time and numbers kept.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any

import torch

from tsguard.findings import Finding
from tsguard.guard import answer, hiding, inquest, memory, moved, trips
from tsguard.guard.activations import ActivationWatch, Wanted
from tsguard.guard.clips import clipped_part
from tsguard.guard.compiled import CompiledSteps
from tsguard.guard.investigate import Verdict, weights_finite
from tsguard.guard.loose import LooseCalls
from tsguard.guard.names import Names
from tsguard.guard.norms import all_finite
from tsguard.guard.outcome import Origin, Trip
from tsguard.guard.recorder import WINDOW_SECONDS, WINDOW_STEPS_MAX, WINDOW_STEPS_MIN, Recorder, StepRecord
from tsguard.guard.recovery import BUDGET
from tsguard.guard.replay import Replay
from tsguard.guard.seam import StepSeam
from tsguard.guard.state import StateBuffer
from tsguard.guard.terms import extra_loss_name
from tsguard.guard.watch import Reading, Step, Watch, is_finite, now, told

FLUSH_SECONDS = 1.0
"""What is known is on the disk after this long at the latest, or after one step where a step takes longer."""

CAPTURE_SHARE = 0.005
"""Copying the clean state may take this share of the time: where a copy is slow against a step, windows get longer."""


class Watcher:
    """The observer of one run."""

    def __init__(
        self,
        model: Any,
        *,
        policy: str,
        sync_every: int | str = "auto",
        inspect_steps: tuple[int, ...] = (),
        copies: bool = True,
        adapter: Any = None,
        budget: int = BUDGET,
        first_step: int = 0,
        note: Callable[[dict[str, Any]], None] = lambda event: None,
        activations: Wanted = False,
        names: Names | None = None,
    ) -> None:
        self.model = model
        self.policy = policy
        self.sync_every = sync_every
        self.inspect_steps = frozenset(inspect_steps)
        self.adapter = adapter
        self.budget = budget
        self.note = note
        self.watch = Watch()
        self.seam = StepSeam(model, self)
        self.recorder = Recorder(model, copies=copies or self.seam.own_step)  # an own step may write into its batch
        self.findings: list[Finding] = []
        self.trips: list[Trip] = []
        self.origins: list[Origin] = []
        self.verdict: Verdict | None = None
        self.replay: Replay | None = None
        self.step = self.first_step = first_step
        self.epoch = self.batch = 0
        self.stopped = False
        self.recoveries = 0
        self.answer_seconds: float | None = None
        self.rise = trips.JointRise()
        self.rises: list[tuple[trips.Rise, Trip]] = []
        self.amp = trips.AmpSkips()
        self.on_cpu = not any(variable.value.device.type != "cpu" for variable in model.variables[:1])
        self._current: Step | None = None
        self._record: StepRecord | None = None
        self._tripped: Trip | None = None
        self._window = WINDOW_STEPS_MIN
        self._since = 0
        self.force_window = True
        self._ended: float | None = None
        self._began = 0.0
        self._flushed = now()
        self._hidden_steps = CompiledSteps(model)
        self.loose: LooseCalls | None = None
        """The calls of the model in a loop of one's own."""
        self.callbacks: tuple[Any, ...] = ()
        """The other callbacks of the fit, which may save what is not finite yet unnoticed."""
        self.leave: Callable[[], None] = lambda: None
        """Called between the steps of a loop of one's own: where the end of the process was asked for, it comes now."""
        self.done: Callable[[], None] = lambda: None
        """Called when a step is over."""
        self.usual_seconds = 0.0
        self._activations = ActivationWatch(model, activations) if activations else None
        self.names = names if names is not None else Names()
        self.names.learn(adapter)
        self._capture_seconds = 0.0
        self.question: hiding.QuestionWatch | None = hiding.QuestionWatch()
        self.first_bits: moved.FirstBits | None = None
        self._extra_names: dict[str, str] = {}
        self.zero_gradients = 0
        self.final: StateBuffer | None = None

    # -- the seam speaks --------------------------------------------------------------------------------------------

    def before_step(self, data: Any) -> contextlib.AbstractContextManager[Any] | None:
        """Clean state if due, then the batch."""
        start = now()
        waited = start - self._ended if self._ended is not None else 0.0
        if self.force_window or self._since >= self._window or self.recorder.full or self._grown():
            self._open_window()
        self._record = self.recorder.record(data, step=self.step, epoch=self.epoch, batch=self.batch)
        self._current = Step(self.step, waited=waited)
        self._tripped = None
        self._since += 1
        self._began = now()
        question = self._questions()
        if self._activations is None or self._since != 1 or self.seam.compiled:
            return question
        both = contextlib.ExitStack()
        if question is not None:
            both.enter_context(question)
        both.enter_context(self._activations.listening(self._current))
        return both

    def _questions(self) -> hiding.QuestionWatch | None:
        if self.question is None or not self.on_cpu:
            return None
        if self.watched >= hiding.SCOUT_STEPS and not self.question.asked:
            self.question = None
            return None
        return self.question

    def on_loss(self, loss: torch.Tensor) -> None:
        """The step's own loss."""
        if self._current is None:
            self._current = Step(self.step)
        self._current.losses.append(loss)
        if self.question is not None:
            self.question.mute()

    def on_root(self, root: torch.Tensor) -> None:
        """Backward starts here, in a loop of one's own."""
        if self.loose is not None and self.on_cpu:
            self.loose.on_root(root, self.step)

    def on_term(self, name: str, value: torch.Tensor) -> None:
        """A named part of it."""
        if self._current is not None:
            if name.startswith("add_loss/"):
                if name not in self._extra_names:
                    self._extra_names[name] = extra_loss_name(self.model, name)
                name = self._extra_names[name]
            self._current.terms[name] = value

    def before_update(self, gradients: list[Any], variables: list[Any]) -> bool:
        """On the CPU: is everything finite? Elsewhere the answer comes with the next read."""
        if self.stopped:
            return False
        step = self._current if self._current is not None else Step(self.step)
        self._current = step
        optimizer = self.seam.updating
        if not optimizer.built:
            _build_as_apply_would(optimizer, variables)
            optimizer.built = True
            if self.recorder.clean is not None and self.seam.in_step:
                self.recorder.clean.extend()
        if self.scaled:
            scale = self.seam._scale()
            step.scale = scale.clone() if isinstance(scale, torch.Tensor) else scale
        total = self.watch.gradients(step, gradients)
        step.clipped = clipped_part(optimizer, gradients, variables, step)
        if not self.watch.paths:
            self.watch.paths = tuple(v.path for v, g in zip(variables, gradients, strict=False) if g is not None)
        if not self.on_cpu:
            return True
        finite = is_finite(total, gradients)
        loss = told(_numbers(step.losses))
        bad_loss = loss is not None and not math.isfinite(loss)
        if self.scaled:
            if self.amp.add(skipped=not finite) and not bad_loss:
                self._tripped = self._skips()
            finite = True
        if finite and not bad_loss:
            return True
        if not self.seam.in_step:
            self._loose_step(step, self._nonfinite("loss" if bad_loss else "backward", step, gradients, variables))
            return False
        self._tripped = self._nonfinite("loss" if bad_loss else "backward", step, gradients, variables)
        if self._record is not None:
            self._record.applied = False
        return False

    def _skips(self) -> Trip:
        return self._trip(
            "amp-steps-skipped",
            f"The loss scaler has skipped {self.amp.skipped} of {self.amp.steps} steps ({self.amp.in_a_row} in a row): "
            f"{'gradients in float16 are not finite' if self.scaled else 'the scaled loss is not finite'}, and the "
            "weights do not move.",
            phase="backward",
            nonfinite=False,
            facts={"skipped": self.amp.skipped, "steps": self.amp.steps},
        )

    def after_update(self, gradients: list[Any], variables: list[Any]) -> None:
        """Once per window, against the clean state that was copied right before: how far one update moves the
        weights."""
        if not self.seam.in_step:
            self._loose_step(self._current or Step(self.step), None)
            return
        clean = self.recorder.clean
        if self._since == 1 and clean is not None and self.recorder.clean_step == self.step and clean.seems_to_fit():
            for name, value in moved.sizes(clean, variables).items():
                self.watch.point(name, self.step, value)

    def _without_update(self, step: Step, logs: Any) -> Trip | None:
        """A step in which no optimizer of Keras was heard: its loss at least is looked at.

        Where earlier steps were heard and the loss that is told is finite, an own step scales its loss by hand, saw the
        overflow and left its update out: what a scaler is for, until it does so again and again.
        """
        loss = told(_numbers(step.losses))
        if self.seam.compiled or loss is None or math.isfinite(loss):
            return None
        if self.watch.paths and _tells_a_finite_loss(logs):
            return self._skips() if self.amp.add(skipped=True) else None
        return self._trip_at(self.step, "loss", loss)

    def _loose_step(self, step: Step, trip: Trip | None) -> None:
        """A loop of one's own: each update is a step. There is no step function; the model's calls can be run again."""
        ended = now()
        step.seconds = ended - self._ended if self._ended is not None else 0.0
        self._ended, self._current = ended, None
        self.watch.keep(step)
        self.step += 1
        self.done()
        self.leave()
        if trip is not None:
            inquest.handle(self, trip)
        if self.loose is not None:
            self.loose.forget()
        if trip is None and (len(self.watch.pending) >= WINDOW_STEPS_MAX or ended - self._flushed >= FLUSH_SECONDS):
            self.sync()

    def after_step(self, logs: Any) -> Any:
        """Keep the numbers; look into what tripped."""
        step, record = self._current, self._record
        self._ended = now()
        if step is not None:
            step.seconds = self._ended - self._began
            if self.seam.compiled:
                self._hidden_steps.hear(step, first=self.batch == 0)
            if self.on_cpu and record is not None:
                record.loss = told(_numbers(step.losses))
                record.grad_norm = step.total.item() if step.total is not None else None
            self.watch.keep(step)
        self._current = None
        if self._tripped is None and self.on_cpu and step is not None and not self.scaled:
            if step.total is None:
                self._tripped = self._without_update(step, logs)
            elif self.amp.steps:
                self.amp.add(skipped=False)
        if self._tripped is None and self.question is not None and self.question.met:
            inquest.look_for_hidden(self)
        if self._tripped is None and record is not None and record.grad_norm == 0.0 and record.loss is not None:
            inquest.look_behind_zero(self)
        if self._tripped is None and self.seam.compiled and not self._compiled_is_finite():
            self._tripped = self._trip(
                "nonfinite-update",
                f"Gradients or weights are not finite after step {self.step}.",
                phase=None,
                nonfinite=True,
            )
        if self.step in self.inspect_steps and self._tripped is None:
            inquest.look_into(self, self.step)
        tripped, self._tripped = self._tripped, None
        if self.stopped and self.final is not None:  # the step ran only because fit does not stop in the middle of one
            self.final.restore()
            return logs
        self.step += 1
        self.batch += 1
        if tripped is not None:
            self._ended = None
            inquest.handle(self, tripped)
        elif now() - self._flushed >= FLUSH_SECONDS:
            self.sync()
        if self._ended is not None:  # what we did ourselves is no waiting for data
            self._ended = now()
        self.done()
        return logs

    def crashed(self, error: Exception) -> None:
        """Our own mistake: an ERROR finding, and training goes on."""
        self.findings.append(answer.crash(error, f"watching step {self.step}"))
        self.note({"kind": "guard-error", "step": self.step, "error": repr(error)})

    @property
    def watched(self) -> int:
        """Steps that were seen here: of a run that was resumed, those since then."""
        return self.step - self.first_step

    def _compiled_is_finite(self) -> bool:
        gradients, self.watch.paths = self._hidden_steps.gradients()
        total = self.watch.gradients(self.watch.pending[-1], gradients)
        if self._record is not None and total is not None and self.on_cpu:
            self._record.grad_norm = total.item()
        return not self.on_cpu or self.scaled or (is_finite(total, gradients) and weights_finite(self.model))

    # -- windows ----------------------------------------------------------------------------------------------------

    @property
    def scaled(self) -> bool:
        return hasattr(self.model.optimizer, "dynamic_scale")

    def _grown(self) -> bool:
        return self.recorder.clean is not None and not self.recorder.clean.seems_to_fit()

    def _over(self) -> bool:
        return self.stopped

    def _open_window(self) -> None:
        """Read what is pending; where all of it is finite, what stands now is the new clean state."""
        healthy = self.sync()
        if not healthy or self.stopped:
            return
        start = now()
        if self.recorder.room is None:
            self.recorder.make_room()  # what is laid out for copies is judged at once
        if not self._weights_finite():
            inquest.handle(self, self._update_trip())
            if self._over():
                return
        if self.first_bits is None and self.watched == 0:
            self.first_bits = moved.FirstBits(self.model.trainable_variables)
        self.recorder.capture(self.step)
        self._capture_seconds = now() - start
        self._since, self.force_window = 0, False
        self._window = self._window_length()
        held = memory.now_mb()
        if held is not None:
            self.watch.point("memory_mb", self.step, held)
        if self.recorder.note:
            self.note({"kind": "recorder", "step": self.step, "text": self.recorder.note})

    def _window_length(self) -> int:
        steps = [seconds for _, seconds in self.watch.series.get("step_seconds", [])[-8:]]
        if not steps:
            return self.sync_every if isinstance(self.sync_every, int) else WINDOW_STEPS_MIN
        typical = self.usual_seconds = sorted(steps)[len(steps) // 2]
        if isinstance(self.sync_every, int):
            return max(self.sync_every, 1)
        wanted = max(WINDOW_SECONDS / max(typical, 1e-5), self._capture_seconds / (CAPTURE_SHARE * max(typical, 1e-5)))
        return int(min(max(wanted, WINDOW_STEPS_MIN), WINDOW_STEPS_MAX))

    def sync(self) -> bool:
        """Bring the window's numbers to the host and judge them. False where something was not finite."""
        readings = self.watch.read()
        self._flushed = now()
        if not readings:
            return True
        by_step = {record.step: record for record in self.recorder.records}
        bad: Reading | None = None
        for reading in readings:
            record = by_step.get(reading.step)
            if record is not None:
                record.loss, record.grad_norm = reading.loss, reading.grad_norm
            self.judge(reading)
            if bad is None and not self.on_cpu and self._reading_is_bad(reading):
                bad = reading
        self.note_steps(readings)
        if bad is not None:
            phase = "loss" if bad.loss is not None and not math.isfinite(bad.loss) else "backward"
            inquest.handle(self, self._trip_at(bad.step, phase, bad.loss))
            return False
        return True

    def note_steps(self, readings: list[Reading]) -> None:
        if readings:
            self.note(
                {
                    "kind": "steps",
                    "first": readings[0].step,
                    "epoch": self.epoch,
                    "loss": [reading.loss for reading in readings],
                    "grad_norm": [reading.grad_norm for reading in readings],
                }
            )

    def _reading_is_bad(self, reading: Reading) -> bool:
        if reading.loss is not None and not math.isfinite(reading.loss):
            return True
        return not self.scaled and reading.grad_norm is not None and not math.isfinite(reading.grad_norm)

    def judge(self, reading: Reading) -> None:
        rise = self.rise.add(reading.step, reading.loss, reading.grad_norm)
        if rise is None:
            return
        grown = f", the gradient norm by {rise.gradient_factor:.3g}" if rise.gradient_factor is not None else ""
        kind = "The loss rose and stayed up" if rise.lasting else "The loss jumped for one step"
        trip = self._trip(
            "divergence" if rise.lasting else "loss-spike",
            f"{kind} at step {reading.step}: {reading.loss:.4g}, {rise.factor:.3g} times the median of the steps before"
            f"{grown}.",
            step=reading.step,
            nonfinite=False,
            facts={"factor": rise.factor, "gradient_factor": rise.gradient_factor},
        )
        self.rises.append((rise, trip))

    def check_weights(self) -> None:
        """Between epochs and at the end: nothing that is saved now may be poisoned."""
        if self.stopped or not self.sync() or self.stopped or not self.watched:
            return
        if not self._weights_finite():
            inquest.handle(self, self._update_trip())

    def _weights_finite(self) -> bool:
        room = self.recorder.room
        return room.source_finite() if room is not None and room.seems_to_fit() else weights_finite(self.model)

    # -- trips ------------------------------------------------------------------------------------------------------

    def _trip(
        self, code: str, message: str, *, nonfinite: bool, step: int | None = None, phase: str | None = None,
        facts: dict[str, Any] | None = None,
    ) -> Trip:  # fmt: skip
        at = self.step if step is None else step
        record = next((r for r in self.recorder.records if r.step == at), None)
        epoch, batch = (record.epoch, record.batch) if record is not None else (self.epoch, self.batch)
        trip = Trip(code, at, epoch, batch, message, nonfinite=nonfinite, phase=phase, facts=facts or {})
        self.trips.append(trip)
        self.note({"kind": "trip", "code": code, "step": at, "epoch": epoch, "batch": batch, "text": message})
        return trip

    def _nonfinite(self, phase: str, step: Step, gradients: list[Any], variables: list[Any]) -> Trip:
        bad = [v.path for v, g in zip(variables, gradients, strict=False) if not all_finite([g])]
        return self._trip_at(self.step, phase, told(_numbers(step.losses)), bad)

    def _trip_at(self, step: int, phase: str, loss: float | None, bad: list[str] | None = None) -> Trip:
        what = (
            f"The loss of step {step} is {loss}"
            if phase == "loss"
            else f"The loss of step {step} is {loss}, but gradients are not finite"
        )
        which = f" (first of {len(bad)}: `{bad[0]}`)" if bad and phase == "backward" else ""
        facts: dict[str, Any] = {"loss": loss}
        if bad and phase == "backward":
            facts["parameter"] = bad[0]
        return self._trip(
            answer.PHASE_CODES[phase], what + which + ".", step=step, nonfinite=True, phase=phase, facts=facts
        )

    def _update_trip(self) -> Trip:
        at = max(self.step - 1, 0)
        return self._trip(
            "nonfinite-update",
            f"Weights or optimizer variables are not finite after step {at}, though no gradient was seen that is not.",
            step=at,
            phase="update",
            nonfinite=True,
        )


def _numbers(losses: list[torch.Tensor]) -> list[float]:
    return [loss.item() for loss in losses if loss.numel() == 1]


def _build_as_apply_would(optimizer: Any, variables: list[Any]) -> None:
    """`apply` builds an optimizer on its first call; doing it one line earlier lets the recorder keep its first
    state."""
    from keras.src import backend

    with backend.name_scope(optimizer.name, caller=optimizer):
        optimizer.build(list(variables))
    optimizer.built = True


def _tells_a_finite_loss(logs: Any) -> bool:
    value = logs.get("loss") if isinstance(logs, dict) else None
    try:
        return value is not None and math.isfinite(float(value))
    except (TypeError, ValueError):
        return False
