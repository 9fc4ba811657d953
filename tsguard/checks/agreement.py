"""A loss that is perfect where all rows get one answer: nothing in it keeps them apart, and they will fall together."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from tsguard import catalogue
from tsguard.checks.bench import Bench, set_up
from tsguard.checks.registry import Context, check
from tsguard.findings import Finding
from tsguard.probes.stage import has_own_step, take_step

NOTHING = 1e-6
"""Share of the first loss that counts as none."""

TRUE_SLOPE = 0.1
"""Relative difference between the slope that a step measures and the gradient that it uses, within rounding and
curvature. A teacher behind a stop_gradient, which is what keeps such methods from collapsing, differs by far more."""


@check(
    "views that are only asked to agree",
    codes=("representation-collapse",),
    needs=("model", "data"),
    cost=3,
)
def only_agreement(context: Context) -> Iterable[Finding]:
    """An own step whose loss is nothing with all weights at zero, by a gradient that is the loss's own."""
    import torch

    bench = set_up(context)
    first = bench.step.loss
    if bench.step.error is not None or not has_own_step(bench.model) or not math.isfinite(first) or first <= 0:
        return
    with torch.no_grad():
        for variable in bench.model.trainable_variables:
            variable.value.zero_()
    least = take_step(bench.model, bench.batch, record_calls=False).loss
    bench.start.restore()
    if not 0 <= least <= NOTHING * first or not _follows_its_slope(bench):
        return
    yield catalogue.finding(
        "representation-collapse",
        f"the loss is {first:.3g} at the start and {least:.1g} with every weight at zero, where all rows get one and "
        "the same answer: it asks that answers agree and nothing that keeps rows apart, so that the run will bring "
        "all of them to one point. Add what tells rows apart (other rows as negatives, a floor under the variance "
        "of each column), or a teacher behind a stop_gradient.",
        where={"phase": "loss"},
        status="FAIL",
        role="cause",
        score=1.0,
    )


def _follows_its_slope(bench: Bench) -> bool:
    """Whether the gradient that the optimizer is fed is that of the loss, all of it: measured by a small move."""
    import torch

    step = bench.again()
    fed: list[tuple[Any, Any]] = [
        (v, g.detach().clone())
        for _, gradients, variables in step.fed
        for g, v in zip(gradients, variables, strict=False)
        if g is not None
    ]
    size = math.sqrt(sum(float((g.float() ** 2).sum()) for _, g in fed))
    if not math.isfinite(size) or size == 0:
        return False
    length = 1e-2 * math.sqrt(sum(float((v.value.detach().float() ** 2).sum()) for v, _ in fed))
    losses = []
    for sign in (1.0, -1.0):
        bench.start.restore()
        with torch.no_grad():
            for variable, gradient in fed:
                variable.value.add_(gradient * (sign * length / size))
        losses.append(take_step(bench.model, bench.batch, record_calls=False).loss)
    bench.start.restore()
    measured = (losses[0] - losses[1]) / (2 * length)
    return math.isfinite(measured) and abs(measured / size - 1) <= TRUE_SLOPE
