"""Accumulated gradients against those of the large batch that they stand for, on the model's own batches.

Keras adds up the gradients of k batches and divides by k. That is the gradient of the large batch only where every
batch weighs the same: a loss that divides by the number of valid positions, or by the sum of weights, divides each
batch by its own, and batch statistics are those of the small batch. How much it matters is a number, so it is measured.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import torch

from tsguard import catalogue
from tsguard.checks.registry import Context, check
from tsguard.checks.runner import passed
from tsguard.dataset import joined, leaves
from tsguard.evidence import Evidence
from tsguard.findings import Finding, Role, Status
from tsguard.probes.stage import Batch, get_ready, measured_batches, take_step

CODE = "accumulation-differs"
DRAWN = ("rate", "dropout", "recurrent_dropout", "_dropout", "stddev")
"""Attributes by which Keras' layers (dropout, recurrent cells, attention, noise) draw."""
SEEN = 1e-5
"""Share of the gradient from which the two are different things: adding float32 numbers up in another order moves a
gradient by about 1e-6 of it."""
MOST_BATCHES = 8
"""Batches that are compared: the share hardly depends on how many they are."""


@check("accumulation against the large batch", codes=(CODE,), needs=("model", "data"), cost=3)
def accumulation_differs(context: Context) -> Iterable[Finding]:
    """Only where gradients are accumulated; dropout is switched off, because it would be drawn differently."""
    model, data = context.model, context.data
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    steps = getattr(optimizer, "gradient_accumulation_steps", None) or 1
    if steps < 2 or data is None:
        return
    count = min(int(steps), MOST_BATCHES)
    batches = measured_batches(data, count=count, batch_size=context.batch_size)
    if len(batches) < 2:
        yield _not_asked("the data has only one batch")
        return
    get_ready(model, batches[0])
    large = _joined(batches)
    if large is None:
        yield _not_asked("batches of different shapes cannot be joined to a large one")
        return
    for layer in model._flatten_layers(include_self=False, recursive=True):
        for name in DRAWN:
            if isinstance(vars(layer).get(name), float):
                setattr(layer, name, 0.0)
    small = [_gradient(model, batch) for batch in batches]
    whole, again = _gradient(model, large), _gradient(model, large)
    if whole is None or again is None or any(one is None for one in small):
        yield _not_asked("the step has no loss to follow")
        return
    if not torch.equal(whole, again):
        yield _not_asked("the step draws at random, also without dropout: what is due to that cannot be told apart")
        return
    mean = torch.stack([one for one in small if one is not None]).mean(0)
    size = float(torch.linalg.vector_norm(whole))
    share = float(torch.linalg.vector_norm(mean - whole)) / size if size > 0 else 0.0
    evidence = Evidence("value", share, name="difference as a share of the gradient")
    if share <= SEEN:
        words = f"{len(batches)} accumulated batches give the gradient of the large one to {share:.1g} of it"
        yield dataclasses.replace(passed(CODE, message=words), evidence=(evidence,))
        return
    yield catalogue.finding(
        CODE,
        f"the mean gradient of {len(batches)} accumulated batches differs from that of the one large batch by "
        f"{share:.2g} of its size, measured on the model's own data without dropout: {_reason(model, batches)}.",
        evidence=[evidence],
        where={"config_key": "train.accumulate"},
    )


def _reason(model: Any, batches: list[Batch]) -> str:
    layers = model._flatten_layers(include_self=False, recursive=True)
    reasons = []
    if any("Normalization" in type(layer).__name__ and hasattr(layer, "moving_mean") for layer in layers):
        reasons.append("batch statistics are those of the small batches")
    if len({len(next(leaves(batch.x))) for batch in batches}) > 1:
        reasons.append("the batches have different sizes")
    reasons.append("a loss that divides by valid positions or by weights divides each batch by its own")
    return ", and ".join(reasons[:-1] or reasons)


def _gradient(model: Any, batch: Batch) -> torch.Tensor | None:
    """All gradients in one row, in float64."""
    step = take_step(model, batch, record_calls=False)
    if step.error is not None or step.root is None:
        return None
    variables = [variable.value for variable in model.trainable_variables]
    found = torch.autograd.grad(step.root, variables, allow_unused=True)
    flat = [torch.zeros_like(v) if g is None else g for g, v in zip(found, variables, strict=True)]
    return torch.cat([g.detach().double().reshape(-1) for g in flat])


def _joined(batches: list[Batch]) -> Batch | None:
    parts = []
    for name in ("x", "y", "sample_weight"):
        several = [getattr(batch, name) for batch in batches]
        if any(len({tuple(leaf.shape[1:]) for leaf in same}) > 1 for same in zip(*map(leaves, several), strict=True)):
            return None
        parts.append(joined(several, torch.cat))
    return Batch(*parts)


def _not_asked(reason: str) -> Finding:
    return Finding(CODE, Status.NOT_RUN, Role.NOTE, f"not asked: {reason}")
