"""A part of the input that no weights let the model see, while the targets follow it: the level, or some of the cells.

Both are one question. A change of the inputs that leaves the answers alone, for weights drawn at random, is a change
that the model cannot see; where a closed-form fit loses what it knew by that same change, the targets hang on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from tsguard import catalogue
from tsguard.checks.bench import Bench, set_up
from tsguard.checks.orderless import LOST, SAME, explained
from tsguard.checks.registry import Context, check
from tsguard.dataset import leaves, map_leaves
from tsguard.evidence import Evidence
from tsguard.findings import Finding
from tsguard.probes.answers import draw_weights, predict
from tsguard.probes.signal import arrays, target_columns
from tsguard.probes.stage import flat

LEAST_STEPS = 4
"""Fewer cells in a row have no level of their own."""

LEAST_ROWS = 80
"""Fewer rows give a closed-form fit nothing to hold back."""

DRAWS = 2
"""Draws of weights that have to agree."""


@check("level that the model cannot see", codes=("under-capacity",), needs=("model", "arrays", "y"), cost=5)
def unseen_level(context: Context) -> Iterable[Finding]:
    """Answers that stay when each row is moved by a number of its own, and targets that move with their rows."""
    import torch

    asked = _asked(context)
    if asked is None:
        return
    bench, leaf, x, y = asked
    rows = torch.arange(len(leaf), device=leaf.device, dtype=leaf.dtype)
    shift = (float(leaf.std()) * (1.0 + rows % 5)).reshape(-1, *[1] * (leaf.ndim - 1))
    if leaf.shape[1] < LEAST_STEPS or not _deaf_to(bench, lambda one: one + shift):
        return
    seen, lost = explained(x, y), explained(x - x.mean(1, keepdims=True), y)
    if seen - max(lost, 0.0) > LOST:
        yield catalogue.finding(
            "under-capacity",
            "the model answers the same when a number of its own is added to all steps of a row, for every weight, and "
            f"the targets hang on that level: a closed-form fit explains {seen:.0%} of rows held back, and of rows "
            f"without their level {max(lost, 0.0):.0%}. What was taken off inside the model (a mean, a first value) "
            "has to be added to the answer again, or the targets are to be given without it.",
            where={"phase": "forward"},
            evidence=(Evidence("value", {"with level": seen, "without": lost}, name="R² on rows held back"),),
            score=0.9,
        )


@check("cells that the model cannot see", codes=("under-capacity",), needs=("model", "arrays", "y"), cost=5)
def unseen_cells(context: Context) -> Iterable[Finding]:
    """Steps or columns that no answer depends on, whatever the weights, and that the targets depend on."""
    import numpy as np
    import torch

    asked = _asked(context)
    if asked is None:
        return
    bench, leaf, x, y = asked
    hidden = _without_slope(bench, leaf)
    if hidden is None or not bool(hidden.any()) or bool(hidden.all()):
        return
    if not _deaf_to(bench, lambda one: torch.where(hidden, one.roll(1, 0), one)):
        return
    mask = hidden.cpu().numpy()
    dealt = np.where(mask, x[np.random.default_rng(0).permutation(len(x))], x)
    seen, lost = explained(x, y), explained(dealt, y)
    if seen - max(lost, 0.0) > LOST:
        steps = np.flatnonzero(mask.reshape(len(mask), -1).all(1))
        told = f"steps {steps[0]} to {steps[-1]}" if len(steps) else f"{int(mask.sum())} of {mask.size} cells"
        yield catalogue.finding(
            "under-capacity",
            f"no answer depends on {told} of a row (of {len(mask)}), for any weights, and the targets do: a "
            f"closed-form fit explains {seen:.0%} of rows held back, and {max(lost, 0.0):.0%} where these come from "
            "other rows. Let the model see them: more or wider kernels, dilations that double, a recurrent layer.",
            where={"phase": "forward", **({"timestep": int(steps[-1])} if len(steps) else {})},
            evidence=(Evidence("value", {"all cells": seen, "dealt": lost}, name="R² on rows held back"),),
            score=0.9,
        )


def _asked(context: Context) -> tuple[Bench, Any, Any, Any] | None:
    """The bench, its one floating input, and rows and targets of the data; None where the question makes no sense."""
    bench = set_up(context)
    inputs = list(leaves(bench.batch.x))
    if bench.step.error is not None or bench.step.answer is None or len(inputs) != 1 or context.data is None:
        return None
    leaf = inputs[0]
    made = arrays(context.data)
    if not leaf.is_floating_point() or leaf.ndim not in (2, 3) or made is None:
        return None
    x, y = made[0][0].astype("float64"), target_columns(made[1][0])
    if y.ndim != 2 or len(y) != len(x) or len(x) < LEAST_ROWS or x.shape[1:] != tuple(leaf.shape[1:]):
        return None
    return bench, leaf, x, y


def _deaf_to(bench: Bench, change: Callable[[Any], Any]) -> bool:
    """Whether answers stay, under weights drawn at random, when the input is changed; rounding is allowed for."""
    import torch

    generator = torch.Generator().manual_seed(9)
    other, deaf = map_leaves(change, bench.batch.x), True
    for _ in range(DRAWS):
        draw_weights(bench.model, 1.0, generator)
        for here, there in zip(
            flat(predict(bench.model, bench.batch.x)), flat(predict(bench.model, other)), strict=True
        ):
            spread = float(here.float().std()) if here.numel() > 1 else 0.0
            moved = float((here - there).float().abs().max())
            deaf = deaf and 0.0 < spread and moved <= SAME * spread
        if not deaf:
            break
    bench.start.restore()
    return deaf


def _without_slope(bench: Bench, leaf: Any) -> Any:
    """Cells (without the axis of rows) from which no answer gets a slope; None where the model cannot be asked."""
    import torch

    generator = torch.Generator().manual_seed(11)
    seen = torch.zeros(leaf.shape[1:], dtype=torch.bool, device=leaf.device)
    try:
        for _ in range(DRAWS):
            draw_weights(bench.model, 1.0, generator)
            free = leaf.detach().clone().requires_grad_()
            answers = flat(bench.model(map_leaves(_always(free), bench.batch.x)))
            total = sum((a.float() * torch.randn(a.shape, generator=generator).to(a.device)).sum() for a in answers)
            slope = torch.autograd.grad(total, free, allow_unused=True)[0]
            if slope is None:
                return None
            seen |= (slope != 0).any(0)
    except (RuntimeError, TypeError, ValueError):  # a model that refuses a tensor of ours has nothing to say here
        return None
    finally:
        bench.start.restore()
    return ~seen


def _always(value: Any) -> Callable[[Any], Any]:
    return lambda _: value
