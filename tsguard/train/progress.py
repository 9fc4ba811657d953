"""How far a training is: one value, made a few times a second from what `fit` logs anyway, shown by whoever wants to.

Numbers come to the host only when they are shown, so that a device is not waited for in every step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

SHOWN_EVERY_S = 0.25
"""A person reads four numbers a second at most; a GPU loses nothing when it is asked so rarely."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a training stands. `steps` and `seconds_left` are None where the data does not say how long it is."""

    epoch: int
    epochs: int
    step: int
    steps: int | None
    metrics: Mapping[str, float] = field(default_factory=dict)
    rate: float | None = None
    steps_per_s: float = 0.0
    seconds_left: float | None = None
    guard: str = ""
    epoch_ended: bool = False


class Follow(keras.callbacks.Callback):
    """Tells `show` where the training stands."""

    def __init__(self, show: Callable[[Standing], None], guard: Callable[[], str] = str) -> None:
        super().__init__()
        self.show, self.guard = show, guard
        self._epoch = self._batch = self._made = self._passed = 0
        self._steps: int | None = None
        self._began = self._shown = 0.0

    def on_train_begin(self, logs: Any = None) -> None:
        """The clock starts."""
        self._began = time.monotonic()
        self._steps = self.params.get("steps")

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Count the epoch."""
        self._epoch, self._batch = epoch, 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Show it, if it is time. Batches that a resumed run passes over are not counted as made."""
        self._batch = batch + 1
        if getattr(self.model.train_function, "no_step", False):
            self._passed += 1
            self._began = time.monotonic()
            return
        self._made += 1
        now = time.monotonic()
        if now - self._shown >= SHOWN_EVERY_S:
            self._shown = now
            self.show(self._standing(logs, now))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Always shown: these are the numbers of the epoch, validation included."""
        self._steps = self._steps or self._batch
        self.show(self._standing(logs, time.monotonic(), ended=True))

    def _standing(self, logs: Any, now: float, *, ended: bool = False) -> Standing:
        seconds = max(now - self._began, 1e-9)
        epochs = int(self.params.get("epochs") or 1)
        left = None
        if self._steps and self._made:
            remaining = self._steps * (epochs - self._epoch) - self._batch
            left = max(remaining, 0) * seconds / self._made
        return Standing(
            epoch=self._epoch,
            epochs=epochs,
            step=self._batch,
            steps=self._steps,
            metrics={name: float(value) for name, value in (logs or {}).items() if np.ndim(_host(value)) == 0},
            rate=_rate(self.model),
            steps_per_s=self._made / seconds,
            seconds_left=left,
            guard=self.guard(),
            epoch_ended=ended,
        )


def _host(value: Any) -> Any:
    return keras.ops.convert_to_numpy(value) if hasattr(value, "detach") else value


def _rate(model: Any) -> float | None:
    try:
        return float(_host(model.optimizer.learning_rate))
    except (AttributeError, TypeError, ValueError):  # none, or several
        return None
