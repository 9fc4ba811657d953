"""Whether a model can raise its answers to all rows alike, without a look at any of them."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from tsguard.probes.stage import Batch, flat

ROWS = 16
"""Rows that are asked: a weight that moves so many of them the same way by chance is one in thirty thousand."""


def has_a_level(model: Any, batch: Batch) -> bool:
    """Whether some weight moves the answers to all rows in one direction, as a bias does.

    Where none does (a difference of scores, a product of two tables), a target that is the same in every row is told
    by nothing but the inputs: which of two came first.
    """
    import torch

    weights = [v.value for v in model.trainable_variables if v.value.is_floating_point()]
    sums: list[list[Any]] = []
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        answer = model(batch.x, training=False) if model._call_has_training_arg else model(batch.x)
        for told in flat(answer):
            if not told.is_floating_point() or told.grad_fn is None or told.ndim == 0:
                return True
            rows = np.unique(np.linspace(0, len(told) - 1, min(len(told), ROWS)).astype(int))
            sums.append([told[int(row)].sum() for row in rows])
        return any(_moves_all(one, weights) for one in sums)


def _moves_all(rows: list[Any], weights: list[Any]) -> bool:
    import torch

    low: list[Any] = [None] * len(weights)
    high: list[Any] = [None] * len(weights)
    for row in rows:
        slopes = torch.autograd.grad(row, weights, retain_graph=True, allow_unused=True)
        for place, slope in enumerate(slopes):
            one = torch.zeros_like(weights[place]) if slope is None else slope
            low[place] = one if low[place] is None else torch.minimum(low[place], one)
            high[place] = one if high[place] is None else torch.maximum(high[place], one)
    return any(bool(((a > 0) | (b < 0)).any()) for a, b in zip(low, high, strict=True))
