"""What the program itself does with odd values: told by running a few rows of them, not by reading its code."""

from __future__ import annotations

from typing import Any

import numpy as np

from tsguard.checks.registry import Context
from tsguard.dataset import leaves, map_leaves
from tsguard.probes.stage import as_tensor, copied

TRIED_ROWS = 32
"""Rows that are run to learn what the program does with them."""

NUDGE = 0.01
"""Share by which a code is moved to see whether the loss reads it: far less than the gap that makes it a code."""

SAME_SIZE = 0.1
"""An untrained answer of at least this share of the targets' size is made in their units."""


def survives(context: Context, rows: Any) -> bool:
    """Whether loss and gradients are finite on these rows: then the program deals with what is not finite in them."""
    import torch

    asked = _batch(context, rows)
    if asked is None:
        return False
    model, (x, y, weight) = context.model, asked
    try:
        with torch.enable_grad():
            answer = model(x, training=False)
            loss = model.compute_loss(x=x, y=y, y_pred=answer, sample_weight=copied(weight), training=False)
            parameters = [v.value for v in model.trainable_variables]
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    except Exception:  # what cannot be tried is not vouched for
        return False
    return bool(torch.isfinite(loss)) and all(bool(torch.isfinite(g).all()) for g in gradients if g is not None)


def left_out_by_the_loss(context: Context, value: float, rows: Any) -> bool:
    """Whether the loss leaves targets of this value out: it does not change when they are moved a little."""
    import torch

    asked = _batch(context, rows)
    if asked is None:
        return False
    model, (x, y, weight) = context.model, asked

    def moved(leaf: Any) -> Any:
        coded = leaf == value
        return torch.where(coded, leaf + NUDGE * abs(value), leaf) if leaf.is_floating_point() else leaf

    try:
        with torch.no_grad():
            answer = model(x, training=False)
            losses = [
                float(model.compute_loss(x=x, y=target, y_pred=answer, sample_weight=copied(weight), training=False))
                for target in (y, map_leaves(moved, y))
            ]
    except Exception:  # what cannot be tried is not vouched for
        return False
    return bool(np.isfinite(losses[0])) and losses[0] == losses[1]


def answers_as_large(context: Context, rms: float) -> bool:
    """Whether the untrained model already answers in the size of the targets: it scales its answers itself."""
    import torch

    asked = _batch(context, np.arange(TRIED_ROWS))
    if asked is None:
        return False
    try:
        with torch.no_grad():
            answers = [leaf for leaf in leaves(context.model(asked[0], training=False)) if hasattr(leaf, "detach")]
    except Exception:  # what cannot be tried is not vouched for
        return False
    sizes = [float(torch.sqrt(torch.mean(torch.square(answer.double())))) for answer in answers]
    return any(SAME_SIZE * rms <= size <= rms / SAME_SIZE for size in sizes)


def _batch(context: Context, rows: Any) -> tuple[Any, Any, Any] | None:
    """These rows as tensors, or None where there is nothing to run them through."""
    data = context.data
    if context.model is None or data is None or not data.is_arrays:
        return None
    rows = np.asarray(rows)[:TRIED_ROWS]
    x, y, weight = data.take(rows[rows < len(data)])
    x, y, weight = (map_leaves(as_tensor, part) for part in (x, y, weight))
    return x, y, weight
