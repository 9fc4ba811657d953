"""Where a run began: weights, optimizer and generators, so that an experiment can begin there again."""

from __future__ import annotations

from typing import Any

import keras
import torch

from tsguard.backend import restore_rng, rng_state


class TrainStart:
    """A copy on the host of everything that training changes."""

    def __init__(self, model: Any) -> None:
        self._values = [(variable, variable.value.detach().cpu().clone()) for variable in model.variables]
        optimizer = model.optimizer
        self._slots = (
            [variable.value.detach().cpu().clone() for variable in optimizer.variables] if optimizer.built else None
        )
        self._rng = rng_state()

    def restore(self, model: Any) -> None:
        """Put it back. An optimizer that has been built since gets the slots that a new one has."""
        with torch.no_grad():
            for variable, value in self._values:
                variable.value.copy_(value)
            optimizer = model.optimizer
            if optimizer is not None and optimizer.built:
                for variable, value in zip(optimizer.variables, self._fresh_slots(model), strict=True):
                    variable.value.copy_(value)
        restore_rng(self._rng)

    def _fresh_slots(self, model: Any) -> list[Any]:
        optimizer = model.optimizer
        now = [tuple(variable.shape) for variable in optimizer.variables]
        if self._slots is not None and [tuple(value.shape) for value in self._slots] == now:
            return self._slots
        # built since, or another one: a callback may have compiled the model again
        fresh = type(optimizer).from_config(optimizer.get_config())
        fresh.build(optimizer._trainable_variables)
        return [variable.value for variable in fresh.variables]


class RememberStart(keras.callbacks.Callback):
    """Takes the copy when `fit` has built the model and before the first step."""

    def __init__(self) -> None:
        super().__init__()
        self.start: TrainStart | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Now."""
        self.start = TrainStart(self.model)
