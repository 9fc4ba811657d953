"""Going back: the clean state again, and the recorded steps once more, exactly as they were.

A replay runs the model's own step function, with nobody listening, from the recorded batch, generators and learning
rate. On the CPU it gives the same bits; where the loss of a replayed step is not the one that was seen, the replay
has diverged, and says at which step.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tsguard.backend import restore_rng, rng_state
from tsguard.guard.norms import total_norm
from tsguard.guard.recorder import StepRecord, _map, _private
from tsguard.guard.state import StateBuffer


@dataclass(frozen=True)
class Replayed:
    """One step, run again."""

    step: int
    loss: float | None
    grad_norm: float | None
    applied: bool
    same: bool | None
    """Whether loss and gradient norm have the recorded bits. None: nothing was recorded to compare with."""


class Listener:
    """A quiet observer: takes loss, terms and gradients of one step; blocks the update where told to."""

    def __init__(self, allow: Callable[[list[Any], list[Any]], bool] | None = None) -> None:
        self.losses: list[torch.Tensor] = []
        self.outputs: list[torch.Tensor] = []
        """Outputs of the model that are not finite, where there is no loss to start from."""
        self.terms: dict[str, torch.Tensor] = {}
        self.gradients: list[Any] = []
        self.variables: list[Any] = []
        self.applied = False
        self.error: Exception | None = None
        self._allow = allow

    @property
    def loss(self) -> torch.Tensor | None:
        """The step's loss: of several (two optimizers) the first that is not finite, else the last."""
        scalars = [loss for loss in self.losses if loss.numel() == 1]
        return next((loss for loss in scalars if not bool(torch.isfinite(loss))), scalars[-1]) if scalars else None

    def before_step(self, data: Any) -> None:
        """Nothing to prepare."""
        return None

    def on_loss(self, loss: torch.Tensor) -> None:
        """Keep the losses of the step."""
        self.losses.append(loss)

    def on_term(self, name: str, value: torch.Tensor) -> None:
        """Keep the term."""
        self.terms[name] = value

    def before_update(self, gradients: list[Any], variables: list[Any]) -> bool:
        """Keep the gradients, and ask whether the update may happen."""
        self.gradients, self.variables = gradients, variables
        return self._allow(gradients, variables) if self._allow is not None else True

    def after_update(self, gradients: list[Any], variables: list[Any]) -> None:
        """The update happened."""
        self.applied = True

    def after_step(self, logs: Any) -> Any:
        """Logs are not needed."""
        return logs

    def crashed(self, error: Exception) -> None:
        """Kept, so that whoever replays can raise it."""
        self.error = error


class Replay:
    """The recorded window of one model, to be run again as often as one likes. The model is left as it was found."""

    def __init__(self, model: Any, clean: StateBuffer, records: Sequence[StepRecord], *, first_step: int) -> None:
        self.model = model
        self.clean = clean
        self.records = list(records)
        self.first_step = first_step
        self.spare: Any = None
        """A batch of an earlier window, where there is one."""

    @contextlib.contextmanager
    def session(self) -> Iterator[Replay]:
        """Everything inside works on the live model; weights, optimizer, metrics and generators are put back after."""
        present = StateBuffer(self.model)
        present.capture()
        grads = [(variable, variable.value.grad) for variable in self.model.trainable_variables]
        stop = self.model.stop_training if hasattr(self.model, "stop_training") else None
        mode = self.model.training if hasattr(self.model, "training") else None
        rng = rng_state()
        try:
            yield self
        finally:
            present.restore()
            for variable, grad in grads:
                variable.value.grad = grad
            if stop is not None:
                self.model.stop_training = stop
            if mode is not None:
                self.model.train(mode)
            restore_rng(rng)

    def rewind(self) -> None:
        """The clean state, as it was."""
        self.clean.restore()
        for variable in self.model.trainable_variables:
            variable.value.grad = None

    def run(
        self,
        record: StepRecord,
        *,
        data: Any = None,
        allow: Callable[[list[Any], list[Any]], bool] | None = None,
        eager: bool = False,
        around: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
    ) -> tuple[Replayed, Listener]:
        """One step again, from wherever the model stands. `data` replaces the batch, `allow` may refuse the update.

        `eager` leaves torch.compile out: instruments see nothing inside a compiled step.
        """
        from tsguard.guard.seam import StepSeam

        listener = Listener(allow)
        seam = StepSeam(self.model, listener)
        restore_rng(record.rng)
        self._set_rate(record)
        self.model.train()
        if record.batch == 0:  # as fit does when an epoch begins
            self.model.reset_metrics()
        batch = _map(record.data if data is None else data, _private)
        before, jit = self.model.__dict__.get("train_function"), self.model.jit_compile
        if eager and jit:
            self.model.jit_compile, self.model.__dict__["train_function"] = False, None
        seam.arm(free_running=True)
        try:
            with around():
                self.model.train_function(batch)
        finally:
            seam.disarm()
            self.model.jit_compile, self.model.__dict__["train_function"] = jit, before
        if listener.error is not None:
            raise listener.error
        loss = None if listener.loss is None else float(listener.loss)
        norm = total_norm(listener.gradients)
        grad_norm = None if norm is None else float(norm)
        return Replayed(record.step, loss, grad_norm, listener.applied, _same(record, loss, grad_norm)), listener

    def _set_rate(self, record: StepRecord) -> None:
        optimizer = getattr(self.model, "optimizer", None)
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)
        if record.learning_rate is not None and optimizer is not None:
            with torch.no_grad():
                optimizer._learning_rate.value.copy_(record.learning_rate)

    def until(self, step: int) -> list[Replayed]:
        """Rewind and run every recorded step before `step`. Afterwards the model stands right before it."""
        self.rewind()
        return [self.run(record, allow=as_recorded(record))[0] for record in self.records if record.step < step]


def as_recorded(record: StepRecord) -> Callable[[list[Any], list[Any]], bool]:
    """Let the update happen where it happened then."""
    return lambda gradients, variables: record.applied


def _same(record: StepRecord, loss: float | None, grad_norm: float | None) -> bool | None:
    pairs = [(record.loss, loss), (record.grad_norm, grad_norm)]
    compared = [
        was == now or (math.isnan(was) and math.isnan(now)) for was, now in pairs if was is not None and now is not None
    ]
    return all(compared) if compared else None
