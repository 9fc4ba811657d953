"""A state that goes on from step to step while its gradient does not: only the last step of a series is ever learnt."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tsguard import catalogue
from tsguard.checks.bench import name_of, set_up
from tsguard.checks.registry import Context, check
from tsguard.findings import Finding
from tsguard.probes.stage import Call, flat

LEAST_STEPS = 4
"""Shorter series are no series: two or three steps may be stopped on purpose."""

HEARD = 1e-4
"""Change of the answer, over its spread, when the last step but one is changed, from which the answer depends on it."""


@check("gradient cut between timesteps", codes=("vanishing-gradient",), needs=("model", "data"), cost=4)
def gradient_cut_in_time(context: Context) -> Iterable[Finding]:
    """A layer whose last answer depends on earlier steps, and gets a slope from the last step alone."""
    bench = set_up(context)
    if bench.step.error is not None:
        return
    cut = [call for call in bench.step.calls if call.layer is not bench.model and _is_cut(call)]
    bench.start.restore()
    if cut:
        innermost = max(cut, key=lambda call: call.depth)
        name = name_of(innermost.layer)
        yield catalogue.finding(
            "vanishing-gradient",
            f"{name} changes its answer when an earlier step of its input changes, and no gradient comes back to any "
            "step but the last: its state is cut off from the gradient at every step (stop_gradient, detach, numpy), "
            "and what has to be remembered cannot be learnt. Let the gradient pass; to save memory, cut every twenty "
            "steps and not at each.",
            where={"layer": name, "phase": "backward"},
            status="FAIL",
            role="cause",
            score=1.0,
        )


def _is_cut(call: Call) -> bool:
    import torch

    given = flat(call.inputs)
    if len(given) != 1 or not torch.is_tensor(given[0]) or not call.layer.trainable_variables:
        return False
    x = given[0].detach()
    if x.ndim != 3 or not x.is_floating_point() or x.shape[1] < LEAST_STEPS:
        return False
    options = {key: value for key, value in call.kwargs.items() if key != "training"}
    try:
        free = x.clone().requires_grad_()
        last = _last(call.layer(free, **options), int(x.shape[1]))
        if last is None or not last.requires_grad:
            return False
        weights = torch.randn(last.shape, generator=torch.Generator().manual_seed(4)).to(last)
        slope = torch.autograd.grad((last * weights).sum(), free, allow_unused=True)[0]
        if slope is None:
            return False
        each = slope.abs().amax(dim=(0, 2))
        if float(each[-1]) == 0.0 or float(each[:-1].max()) != 0.0:
            return False
        other = x.clone()
        other[:, -2] = x.roll(1, 0)[:, -2]
        with torch.no_grad():
            moved = _last(call.layer(other, **options), int(x.shape[1]))
    except (RuntimeError, TypeError, ValueError):  # a layer that cannot be called by itself is not asked
        return False
    return moved is not None and float((moved - last.detach()).abs().max()) > HEARD * float(last.detach().std())


def _last(output: Any, steps: int) -> Any:
    """The answer at the last step: the output itself where it has no time axis."""
    made = flat(output)
    if not made or not hasattr(made[0], "ndim"):
        return None
    if made[0].ndim == 2:
        return made[0]
    return made[0][:, -1] if made[0].ndim == 3 and made[0].shape[1] == steps else None
