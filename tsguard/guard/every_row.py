"""Every row once through the forward pass and the loss: what breaks on one particular row is named before it is met.

A 0/0 in row 4,711 is met by training sometime in the first epoch. A forward pass over all rows costs a fraction of
that epoch, changes nothing, and where a loss is not finite that one batch is run again under full instrumentation.
The same pass over the validation data says which operation made `val_loss` NaN.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch

from tsguard.checks.registry import Check, Context
from tsguard.findings import Finding
from tsguard.guard import answer
from tsguard.guard.investigate import Verdict
from tsguard.guard.leaves import batch_is_finite
from tsguard.guard.origin import find
from tsguard.guard.outcome import Origin, Trip
from tsguard.guard.recorder import StepRecord
from tsguard.guard.replay import Listener
from tsguard.guard.trace import Trace

ROWS_MAX = 200_000
"""More rows than this are not passed through: a check is no epoch."""

BUDGET_SHARE = 0.2
"""Of what is left of the preflight's budget: the checks after it need some."""

SECONDS_MAX = 20.0
"""… and never longer than this."""

CODES = (
    "nonfinite-forward",
    "nonfinite-loss",
    "precision-overflow",
    "loss-empty-selection",
    "pad-nan-poison",
)

Batch = tuple[Any, Any, Any]


@dataclass(frozen=True)
class Pass:
    """How far the pass came, and what it found first."""

    rows: int
    complete: bool
    origin: Origin | None = None
    start: int = 0
    """The first row of the batch at fault."""


def run(model: Any, batch: Batch) -> torch.Tensor | None:
    """The loss of one batch in evaluation mode, or where there is none the output, summed up. No weight is touched."""
    x, y, weight = batch
    with torch.no_grad():
        out = model(x, training=False)
        if y is not None and getattr(model, "compiled", False):
            loss = model.compute_loss(x=x, y=y, y_pred=out, sample_weight=weight, training=False)
            if isinstance(loss, torch.Tensor) and loss.numel() == 1:
                return loss.detach()
    leaves = [leaf for leaf in _flat(out) if leaf.is_floating_point()]
    return torch.stack([leaf.double().sum() for leaf in leaves]).sum() if leaves else None


def passed(
    model: Any,
    batches: Iterable[Batch],
    *,
    seconds: float,
    rows_max: int = ROWS_MAX,
    clock: Callable[[], float] = time.monotonic,
) -> Pass:
    """The pass over as many batches as fit. Data that is not finite is left to the checks of data."""
    deadline, rows = clock() + seconds, 0
    mode = model.training
    try:
        model.eval()
        for given in batches:
            if clock() > deadline or rows >= rows_max:
                return Pass(rows, complete=False)
            batch = cast(Batch, tuple(_tensors(part) for part in given))
            loss = run(model, batch)
            if loss is not None and not bool(torch.isfinite(loss)) and batch_is_finite(batch):
                origin = _origin(model, batch)
                if origin is not None and origin.phase != "data":
                    return Pass(rows, complete=False, origin=origin, start=rows)
            rows += _length(batch)
    finally:
        model.train(mode)
    return Pass(rows, complete=True)


def _origin(model: Any, batch: Batch) -> Origin | None:
    trace = Trace(model, [batch])
    heard = Listener()
    with trace.listening():
        loss = run(model, batch)
    if loss is not None:
        heard.losses.append(loss)
    record = StepRecord(0, 0, 0, [batch], None, None)  # type: ignore[arg-type]
    return find(trace, heard, record, model)


def told(found: Pass, *, split: str | None, where: str, score: float = 1.0, **place: Any) -> Finding | None:
    """The finding of a pass, or None where nothing broke. `where` says in words over what it went."""
    origin = found.origin
    if origin is None:
        return None
    element = origin.element
    if element is not None and element.sample is not None:
        element = dataclasses.replace(element, sample=None, row=found.start + element.sample)
        origin = dataclasses.replace(origin, element=element)
    finding = answer.of_origin(origin, Trip(origin.code, 0, 0, 0, ""), Verdict(origin=origin), when=where)
    kept = {key: value for key, value in finding.where.items() if key not in ("step", "epoch", "batch")}
    return answer.moved(finding, {**kept, "split": split, **place})


def _ask(context: Context) -> Iterator[Finding]:
    assert context.data is not None
    if not context.data.is_arrays:  # a generator would be used up
        return
    seconds = min(BUDGET_SHARE * context.budget_s, SECONDS_MAX)
    found = passed(context.model, context.data.batches(), seconds=seconds)
    finding = told(found, split=None, where="in a forward pass over the data before any step was taken")
    if finding is not None:
        yield finding


CHECK = Check("every row", CODES, _ask, needs=("model", "data", "y"), cost=3)


def _length(batch: Batch) -> int:
    return next((int(leaf.shape[0]) for leaf in _flat(batch[0]) if leaf.ndim), 0)


def _flat(nest: Any) -> list[torch.Tensor]:
    if isinstance(nest, dict):
        return [leaf for value in nest.values() for leaf in _flat(value)]
    if isinstance(nest, (list, tuple)):
        return [leaf for value in nest for leaf in _flat(value)]
    if isinstance(nest, torch.Tensor):
        return [nest]
    return [torch.as_tensor(nest)] if hasattr(nest, "shape") and hasattr(nest, "dtype") else []


def _tensors(nest: Any) -> Any:
    """Arrays as Keras' adapters hand them to a step."""
    from keras.src import backend, tree

    def one(leaf: Any) -> Any:
        if hasattr(leaf, "iloc"):
            values = leaf.to_numpy()
            leaf = values[:, None] if values.ndim == 1 else values
        floats = hasattr(leaf, "dtype") and str(leaf.dtype).startswith("float")
        return backend.convert_to_tensor(leaf, dtype=backend.floatx() if floats else None)

    return None if nest is None else tree.map_structure(lambda leaf: None if leaf is None else one(leaf), nest)
