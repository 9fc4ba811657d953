"""Targets that the model is handed with its inputs and only has to pass on: nothing has to be learnt for that."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tsguard import catalogue
from tsguard.checks.bench import set_up
from tsguard.checks.registry import Context, check
from tsguard.dataset import exchanged, leaves
from tsguard.findings import Finding
from tsguard.probes.answers import draw_weights, predict
from tsguard.probes.stage import flat

EXACT = 1e-5
"""Difference from the targets, over their spread, that rounding leaves."""

LEAST_STEPS = 3
"""Fewer steps have no middle."""


@check("answer that is there from the start", codes=("data-leak",), needs=("model", "data", "y"), cost=2)
def answer_from_the_start(context: Context) -> Iterable[Finding]:
    """With every trainable weight at zero, the answer is the target: it goes past all that could be learnt."""
    import torch

    bench = set_up(context)
    if bench.step.error is not None or bench.step.answer is None:
        return
    with torch.no_grad():
        for variable in bench.model.trainable_variables:
            variable.value.zero_()
    # In training mode: noise and masks that a denoising model adds to its inputs are part of its task.
    answers = flat(predict(bench.model, bench.batch.x, training=True))
    bench.start.restore()
    for head in bench.heads:
        if head.target is None or tuple(head.target.shape) != tuple(head.answer.shape):
            continue
        target = head.target.float()
        spread, apart = float(target.std()), float((answers[head.index].float() - target).abs().max())
        if spread > 0 and apart <= EXACT * spread:
            yield catalogue.finding(
                "data-leak",
                f"output {head.name!r} equals its target with every trainable weight at zero (greatest difference "
                f"{apart:.2g}): the input is added to the answer and is the target itself, so that nothing has to pass "
                "the layers between. Take the shortcut round the code away, or ask for what the input is not.",
                where={"output": head.name, "phase": "forward"},
                status="FAIL",
                role="cause",
                score=1.0,
            )
            return


@check("decoder that is fed its own answer", codes=("data-leak",), needs=("model", "data", "y"), cost=2)
def fed_its_own_answer(context: Context) -> Iterable[Finding]:
    """One of several inputs is the target, step for step, read by a model that looks back only and at its own step.

    Who sees no later step forecasts, and the step itself is what a forecast is about: certain where another input has
    other steps (an encoder's), and a warning where all inputs share theirs, for an autoencoder may look back only too.
    """
    import torch

    bench = set_up(context)
    inputs = [leaf for leaf in leaves(bench.batch.x) if torch.is_tensor(leaf)]
    if bench.step.error is not None or bench.step.answer is None or len(inputs) < 2:
        return
    for head in bench.heads:
        for fed in inputs:
            others = [leaf for leaf in inputs if leaf is not fed and leaf.ndim > 1 and not _flags(leaf)]
            if (
                not others
                or head.target is None
                or not _same_values(fed, head.target)
                or head.answer.shape[1:2] != fed.shape[1:2]
            ):
                continue
            middle = int(fed.shape[1]) // 2
            other = fed.clone()
            other[:, middle:] = fed.roll(1, 0)[:, middle:]
            moved = exchanged(bench.batch.x, fed, other)
            draw_weights(bench.model, 1.0, torch.Generator().manual_seed(5))
            here, there = (flat(predict(bench.model, x))[head.index].float() for x in (bench.batch.x, moved))
            bench.start.restore()
            spread = float(here.std())
            change = (here - there).abs().reshape(*here.shape[:2], -1).amax(dim=(0, 2))
            if float(change[:middle].max()) <= EXACT * spread < float(change[middle]):
                yield catalogue.finding(
                    "data-leak",
                    f"an input of shape {tuple(fed.shape)} is the target of output {head.name!r}, step for step, and "
                    "the answer at a step depends on that input up to and with the same step: each answer is fed in "
                    "where it is asked for, and is not there when the model has to forecast. Feed the value before: "
                    "shift the decoder's input by one step.",
                    where={"output": head.name, "timestep": 0, "phase": "data"},
                    status="FAIL" if any(leaf.shape[1] != fed.shape[1] for leaf in others) else "WARN",
                    role="cause",
                    score=1.0,
                )
                return


def _flags(leaf: Any) -> bool:
    """Whether it holds nothing but noughts and ones: a mask, which is no input to forecast from."""
    return bool(((leaf == 0) | (leaf == 1)).all())


def _same_values(fed: Any, target: Any) -> bool:
    if fed.ndim < 2 or fed.shape[1] < LEAST_STEPS or fed.numel() != target.numel() or fed.shape[:2] != target.shape[:2]:
        return False
    one, two = fed.float().reshape(-1), target.float().reshape(-1)
    return bool((one == two.to(one.device)).all()) and bool((one != one[:1]).any())
