"""What a diagnosis starts from: the live model, its data, where the run started, and what was seen on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tsguard.dataset import Data
from tsguard.padding import Padding


class Start(Protocol):
    """Weights, optimizer and generators as they were when training began."""

    def restore(self, model: Any) -> None:
        """Put them back into the model."""


@dataclass
class Record:
    """One run, finished or stopped."""

    model: Any
    data: Data
    start: Start
    series: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """What was recorded: "loss" per step, and per epoch "epoch/loss", "val_loss" and the compiled metrics by name."""
    fit: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of `fit`: epochs, batch_size, shuffle, class_weight, steps_per_epoch."""
    padding: Padding | None = None
    """What is known about padded inputs."""
