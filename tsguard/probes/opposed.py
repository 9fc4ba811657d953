"""Outputs that the model works against on purpose: their gradient climbs where their loss would fall.

In domain-adversarial training a second head learns what the trunk is to forget: between them the gradient is turned
round. Such an output is no work left undone. It is told by a small step of the shared weights along its own gradient,
after which its loss has risen.
"""

from __future__ import annotations

import warnings
import weakref
from typing import Any

from tsguard.probes.answers import Head, heads
from tsguard.probes.stage import Batch

STEP = 0.01
"""Share of its loss by which a small step should lower it, were the gradient its own."""

RISEN = 0.2
"""Share of that by which it has to rise instead: rounding and curvature are far smaller at such a step."""

_KNOWN: weakref.WeakKeyDictionary[Any, frozenset[str]] = weakref.WeakKeyDictionary()


def opposed(model: Any, batch: Batch) -> frozenset[str]:
    """The names of these outputs; asked once for every model."""
    if model not in _KNOWN:
        try:
            _KNOWN[model] = _opposed(model, batch)
        except Exception:  # a model that cannot be asked so is judged by all of its outputs
            _KNOWN[model] = frozenset()
    return _KNOWN[model]


def _opposed(model: Any, batch: Batch) -> frozenset[str]:
    import torch

    with torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        asked = _asked(model, batch)
        if len(asked) < 2:
            return frozenset()
        weights = [variable.value for variable in model.trainable_variables]
        losses = [_loss(head) for head in asked]
        sent = [torch.autograd.grad(one, weights, retain_graph=True, allow_unused=True) for one in losses]
    shared = [sum(g is not None and bool(g.any()) for g in column) > 1 for column in zip(*sent, strict=True)]
    found = set()
    for head, loss, gradients in zip(asked, losses, sent, strict=True):
        pairs = [(w, g) for w, g, both in zip(weights, gradients, shared, strict=True) if both and g is not None]
        power = sum(float((g.double() ** 2).sum()) for _, g in pairs)
        if power > 0 and _rises(model, batch, head, abs(float(loss.detach())), pairs, power):
            found.add(head.name)
    return frozenset(found) if len(found) < len(asked) else frozenset()


def _rises(model: Any, batch: Batch, head: Head, loss: float, pairs: list[tuple[Any, Any]], power: float) -> bool:
    import torch

    size = STEP * loss / power
    before = [weight.detach().clone() for weight, _ in pairs]
    with torch.no_grad():
        try:
            for weight, gradient in pairs:
                weight.sub_(size * gradient)
            after = next(float(_loss(one).detach()) for one in _asked(model, batch) if one.index == head.index)
        finally:
            for (weight, _), old in zip(pairs, before, strict=True):
                weight.copy_(old)
    return after > loss * (1 + RISEN * STEP)


def _asked(model: Any, batch: Batch) -> list[Head]:
    answer = model(batch.x, training=False) if model._call_has_training_arg else model(batch.x)
    return [head for head in heads(model, batch, answer) if head.target is not None and head.loss is not None]


def _loss(head: Head) -> Any:
    return head.loss(head.target, head.answer).float().mean()
