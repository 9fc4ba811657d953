"""The numbers of every step, kept on the device and read once in a while.

Loss, loss terms and gradient norms stay tensors until `read()`, which brings a whole window of them to the host in
one copy. On the CPU there is nothing to wait for, so that finiteness is looked at before every update there.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from tsguard.guard.norms import StepNorm, all_finite, total_of

Points = list[tuple[int, float]]

CLIPPED_PART = 0.5
"""A step counts as clipped where at least this part of the gradients (for clipvalue: of their elements) is cut: then
the clip and not the loss says where the step goes."""

ACTIVATION_KINDS = ("mean", "std", "zeros", "largest")
"""What is kept of a layer's output: mean, standard deviation, share of exact zeros, largest absolute value."""


@dataclass
class Step:
    """One step's numbers as they come."""

    step: int
    losses: list[torch.Tensor] = field(default_factory=list)
    terms: dict[str, torch.Tensor] = field(default_factory=dict)
    norms: torch.Tensor | None = None
    total: torch.Tensor | None = None
    paths: tuple[str, ...] = ()
    waited: float = 0.0
    seconds: float = 0.0
    scale: Any = None
    """What a loss scaler multiplied the gradients by."""
    clipped: torch.Tensor | None = None
    """Share of the gradients that the optimizer's clip cuts."""
    activations: dict[str, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Reading:
    """One step's numbers on the host."""

    step: int
    loss: float | None
    grad_norm: float | None
    terms: dict[str, float]
    norms: tuple[float, ...]


class Watch:
    """Collects steps and turns them into series."""

    def __init__(self) -> None:
        self.series: dict[str, Points] = {}
        self.pending: list[Step] = []
        self.paths: tuple[str, ...] = ()
        self.waited = self.computed = 0.0
        self.clipped = self.clip_seen = 0
        self.rivals = False
        """Whether a step went backward from more than one loss."""
        self._norm = StepNorm()

    def gradients(self, step: Step, gradients: list[Any]) -> torch.Tensor | None:
        """The norm of each gradient and over all of them, still on the device."""
        step.norms = self._norm(gradients)
        step.total = None if step.norms is None else total_of(step.norms)
        return step.total

    def keep(self, step: Step) -> None:
        """The step is over."""
        self.pending.append(step)
        self.waited += step.waited
        self.computed += step.seconds

    def read(self) -> list[Reading]:
        """Bring everything pending to the host: one copy, however many steps."""
        if not self.pending:
            return []
        scalars: list[torch.Tensor] = []
        for step in self.pending:
            scalars += [value.reshape(()).float() for value in step.losses if value.numel() == 1]
            scalars += [value.reshape(()).float() for value in step.terms.values() if value.numel() == 1]
            scalars += [] if step.total is None else [step.total if step.scale is None else step.total / step.scale]
            scalars += [] if step.clipped is None else [step.clipped]
            scalars += [part for value in step.activations.values() for part in value]
        flat = iter(torch.stack(scalars).tolist() if scalars else [])
        readings = []
        for step in self.pending:
            loss = told([next(flat) for value in step.losses if value.numel() == 1])
            self.rivals |= len(step.losses) > 1
            terms = {name: next(flat) for name, value in step.terms.items() if value.numel() == 1}
            total = next(flat) if step.total is not None else None
            if step.clipped is not None:
                self.clip_seen += 1
                self.clipped += next(flat) >= CLIPPED_PART
            for name, value in step.activations.items():
                for kind, number in zip(ACTIVATION_KINDS, [next(flat) for _ in value], strict=True):
                    self.point(f"activation_{kind}/{name}", step.step, number)
            readings.append(Reading(step.step, loss, total, terms, ()))
        self._add_norms()
        for step, reading in zip(self.pending, readings, strict=True):
            self._add(step, reading)
        self.pending = []
        return readings

    def _add_norms(self) -> None:
        """Per variable: the mean over the window as a point (a run has too many steps for one each; a window in which
        something is not finite is told step by step), and of each step how many were not finite."""
        steps = [step for step in self.pending if step.norms is not None]
        each = [step.norms for step in steps if step.norms is not None]
        if not each or any(norms.shape != each[0].shape for norms in each):
            return
        norms = torch.stack(each)
        scales = [step.scale for step in steps if step.scale is not None]
        if len(scales) == len(steps):
            norms = norms / torch.stack([torch.as_tensor(scale, device=norms.device) for scale in scales])[:, None]
        counts = (~torch.isfinite(norms)).sum(dim=1).tolist()
        rows = [(steps[-1], norms.mean(dim=0))]
        if any(counts) and not scales:  # a loss scaler overflows now and then: that is no end of a run
            rows = list(zip(steps, norms, strict=True))
        for step, row in rows:
            for path, value in zip(self.paths, row.tolist(), strict=False):
                self.point(f"grad_norm/{path}", step.step, value)
        for step, count in zip(steps, counts, strict=True):
            self.point("nonfinite_gradients", step.step, count)

    def _add(self, step: Step, reading: Reading) -> None:
        if reading.loss is not None:
            self.point("loss", step.step, reading.loss)
        if reading.grad_norm is not None:
            self.point("grad_norm", step.step, reading.grad_norm)
        for name, value in reading.terms.items():
            self.point(f"loss/{name}", step.step, value)
        self.point("step_seconds", step.step, step.seconds)
        self.point("wait_seconds", step.step, step.waited)

    def point(self, name: str, step: int, value: float) -> None:
        """One point of a series."""
        self.series.setdefault(name, []).append((step, float(value)))

    def values(self, name: str) -> list[float]:
        """The values of a series."""
        return [value for _, value in self.series.get(name, ())]

    @property
    def data_wait_share(self) -> float | None:
        """Share of the time between steps, which goes to loading data and to other callbacks."""
        total = self.waited + self.computed
        return self.waited / total if total > 0 else None


def told(losses: Sequence[float]) -> float | None:
    """The loss of a step that may have several (two optimizers): the first that is not finite, else the last."""
    return next((loss for loss in losses if not math.isfinite(loss)), losses[-1]) if losses else None


def is_finite(total: torch.Tensor | None, gradients: list[Any]) -> bool:
    """Whether all gradients are finite. Their norm may overflow where they do not: then each is looked at."""
    return total is None or math.isfinite(total.item()) or all_finite(gradients)


now = time.perf_counter
