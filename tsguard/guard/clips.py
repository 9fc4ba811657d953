"""How much of a step's gradient the optimizer's clip cuts away: told for all three kinds of clip of Keras'.

`clipnorm` cuts each gradient by itself, `global_clipnorm` all of them together, `clipvalue` element by element. The
answer is a part between 0 and 1, still on the device; it costs nothing where nothing is clipped.
"""

from __future__ import annotations

from typing import Any

import torch

from tsguard.guard.norms import dense, each_norm, total_of
from tsguard.guard.watch import Step


def clipped_part(optimizer: Any, gradients: list[Any], variables: list[Any], step: Step) -> torch.Tensor | None:
    """The part that is cut, or None where there is no clip. Norms and scale of the step are known already."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    # Keras takes the first of the three that is set.
    for kind in ("clipnorm", "global_clipnorm", "clipvalue"):
        limit = getattr(optimizer, kind, None)
        if limit:
            break
    else:
        return None
    factor, norms = 1.0 if step.scale is None else 1.0 / step.scale, step.norms
    if getattr(optimizer, "gradient_accumulation_steps", None):
        gradients = _accumulated(optimizer, gradients, variables, factor)
        factor, norms = 1.0, each_norm(gradients)
    if kind == "clipvalue":
        parts = dense(gradients)
        cut = sum(((part * factor).abs() > limit).sum() for part in parts)
        return None if not parts else torch.as_tensor(cut).float() / sum(part.numel() for part in parts)
    if norms is None:
        return None
    if kind == "clipnorm":
        return (norms * factor > limit).float().mean()
    return (total_of(norms) * factor > limit).float()


def _accumulated(optimizer: Any, gradients: list[Any], variables: list[Any], factor: Any) -> list[Any]:
    """The mean gradient that will be clipped; empty where this step only adds to it."""
    steps = int(optimizer.gradient_accumulation_steps)
    iterations = optimizer._iterations.value  # read on the host: such an optimizer branches on it there anyway
    if (int(iterations) + 1) % steps:
        return []
    slots = optimizer._accumulated_gradients
    return [
        (gradient * factor + slots[optimizer._get_variable_index(variable)].value) / steps
        for gradient, variable in zip(gradients, variables, strict=False)
        if gradient is not None
    ]
