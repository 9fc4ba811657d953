"""A trial: the first steps of training from a given state, with at most one thing changed.

It is `model.fit`'s own step on batches in the order in which `fit` would deal them, so that two trials that differ in
one thing show what that thing does. Trials run inside `preserved`; the loss of every step is taken at the root of
backward.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from tsguard.dataset import Data
from tsguard.probes.stage import Batch, batch_of, take_step


@dataclass(frozen=True, slots=True)
class Trial:
    """The losses of a few steps, one per step."""

    losses: tuple[float, ...]
    seconds: float
    failed: str = ""

    @property
    def start(self) -> float:
        """The median of the first tenth."""
        return _median(self.losses[: max(1, len(self.losses) // 10)])

    @property
    def end(self) -> float:
        """The median of the last quarter; infinity where it is not finite."""
        return _median(self.losses[-max(1, len(self.losses) // 4) :])

    @property
    def finite(self) -> bool:
        return bool(self.losses) and all(map(math.isfinite, self.losses))


def _median(values: tuple[float, ...]) -> float:
    if not values or not all(map(math.isfinite, values)):
        return math.inf
    return float(statistics.median(values))


def stream(data: Data, fit: Mapping[str, Any], *, seed: int = 0) -> Iterator[Batch]:
    """Batches for ever, in the order that `fit` would deal them (shuffled by a generator of its own)."""
    import numpy as np

    if not data.is_arrays:
        kept = [batch_of(raw) for raw in data.batches(64)]
        while kept:
            yield from (weighted(batch, fit) for batch in kept)
        return
    total, size = len(data), int(fit.get("batch_size") or data.batch_size)
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(total) if fit.get("shuffle", True) else np.arange(total)
        starts = range(0, total, size)[: fit.get("steps_per_epoch")]
        for first in starts:
            index = order[first : first + size]
            yield weighted(batch_of(data.take(index)), fit)


STEP_WEIGHT = "step_weight"
"""What a trial may be told beside the arguments of `fit`: the weight of each class among the labels of steps. Keras'
`class_weight` takes the labels of a row for indicators of one class."""


def weighted(batch: Batch, fit: Mapping[str, Any]) -> Batch:
    """Class weights become sample weights, as `fit` does it; those of steps become weights of steps."""
    import torch

    of_steps, of_rows = fit.get(STEP_WEIGHT), fit.get("class_weight")
    weights = of_steps or of_rows
    if not weights or not torch.is_tensor(batch.y):
        return batch
    y = batch.y
    if of_steps:
        label = y.argmax(-1) if y.ndim > 2 and y.shape[-1] > 1 else y.reshape(y.shape[:2])
    else:
        label = y.argmax(-1) if y.ndim > 1 and y.shape[-1] > 1 else y.reshape(batch.rows, -1)[:, 0]
    listed = [float(weights.get(int(one), 1.0)) for one in label.reshape(-1).tolist()]
    table = torch.tensor(listed, device=y.device).reshape(label.shape)
    known = batch.sample_weight
    if known is not None and known.ndim < table.ndim:
        known = known.reshape(*known.shape, *([1] * (table.ndim - known.ndim)))
    return Batch(batch.x, y, table if known is None else known * table)


def run_trial(
    model: Any,
    batches: Iterator[Batch],
    steps: int,
    *,
    seconds: float = 10.0,
    change: AbstractContextManager[Any] | None = None,
    on_batch: Callable[[Batch], Batch] | None = None,
    watch: Callable[[int, Any], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Trial:
    """Up to that many updates in that many seconds. The model is left where the trial ended: restore it."""
    losses: list[float] = []
    began, failed = clock(), ""
    with change if change is not None else nullcontext():
        for number, batch in zip(range(steps), batches, strict=False):
            step = take_step(model, batch if on_batch is None else on_batch(batch), update=True, record_calls=False)
            if step.error is not None:
                failed = f"{type(step.error).__name__}: {step.error}"
                break
            losses.append(step.loss)
            if watch is not None:
                watch(number, step)
            if not math.isfinite(step.loss) or clock() - began > seconds:
                break
    return Trial(tuple(losses), clock() - began, failed)
