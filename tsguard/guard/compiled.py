"""What can be known of steps that torch.compile runs: nothing listens inside them, but their traces stay."""

from __future__ import annotations

from typing import Any

import torch

from tsguard.guard.watch import Step


class CompiledSteps:
    """Reads a compiled step's loss and gradients from where they are left behind."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self._before: tuple[torch.Tensor, torch.Tensor] | None = None

    def hear(self, step: Step, *, first: bool) -> None:
        """The step's own loss, from Keras' running mean, which begins anew in the `first` step of an epoch."""
        tracker = getattr(self.model, "_loss_tracker", None)
        if tracker is None or step.losses:
            return
        total, count = tracker.total.value.detach().clone(), tracker.count.value.detach().clone()
        before, self._before = self._before, (total, count)
        if before is None or first:
            before = (torch.zeros_like(total), torch.zeros_like(count))
        step.losses.append((total - before[0]) / (count - before[1]))

    def gradients(self) -> tuple[list[Any], tuple[str, ...]]:
        """The gradients, which stay on the weights, and whose they are."""
        held = [variable for variable in self.model.trainable_variables if variable.value.grad is not None]
        return [variable.value.grad for variable in held], tuple(variable.path for variable in held)
