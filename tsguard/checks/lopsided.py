"""A loss whose best constant is far from the middle, while squared or absolute error is reported."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from tsguard import catalogue
from tsguard.checks.bench import set_up
from tsguard.checks.own_loss import SAME
from tsguard.checks.registry import Context, check
from tsguard.dataset import leaves
from tsguard.evidence import Evidence
from tsguard.findings import Finding
from tsguard.probes.answers import labels_of

SIDE = 0.9
"""A best constant beyond this quantile of the targets is no central answer."""


@check(
    "loss whose best constant is far from the middle", codes=("metric-disagrees",), needs=("model", "data", "y"), cost=3
)
def lopsided_loss(context: Context) -> Iterable[Finding]:
    """Where does the loss want a constant answer to be, when squared or absolute error is what is reported?"""
    import torch

    bench = set_up(context)
    if bench.step.error is not None or bench.step.answer is None or not reports_central_error(bench.model):
        return
    for head in bench.heads:
        y = head.target
        if y is None or tuple(y.shape) != tuple(head.answer.shape) or labels_of(y) not in ("real", "integer"):
            continue
        if head.answer.ndim > 1 and head.answer.shape[-1] > 1:
            continue
        ranks = [0.01, 0.05, *(i / 10 for i in range(1, 10)), 0.95, 0.99]
        answers = list(bench.answers)
        values = []
        for rank in ranks:
            answers[head.index] = torch.full_like(
                answers[head.index], float(torch.quantile(y.float().reshape(-1), rank))
            )
            values.append(bench.loss_of(answers))
        if not all(map(math.isfinite, values)):
            continue
        best = ranks[values.index(min(values))]
        ends_flat = max(values) - min(values) <= SAME * max(map(abs, values))
        if not ends_flat and (best >= SIDE or best <= 1 - SIDE) and _central_mean(y, best):
            yield catalogue.finding(
                "metric-disagrees",
                f"output {head.name!r}: of all constants the loss prefers the {best:.0%} quantile of the targets, "
                f"while the "
                "metrics that are reported (squared or absolute error) want the middle. Falling loss will not mean "
                "better "
                "metrics. Use a loss for the centre (mse, mae, huber), or judge by the quantile's own coverage.",
                where={"output": head.name, "phase": "loss"},
                status="FAIL",
                role="cause",
                evidence=(
                    Evidence("value", dict(zip(map(str, ranks), values, strict=True)), name="loss of a constant"),
                ),
                score=0.8,
            )
            return


def _central_mean(y: Any, best: float) -> bool:
    """Whether the targets' own mean lies well inside: for a skewed target the mean itself is a far quantile."""
    share = float((y.float() < y.float().mean()).float().mean())
    return abs(share - best) > 0.2


def reports_central_error(model: Any) -> bool:
    said = getattr(getattr(model, "_compile_metrics", None), "_user_metrics", None)
    words = " ".join(str(getattr(one, "name", one)).lower() for one in leaves(said) if one is not None)
    return any(
        name in words.split() or name in words
        for name in ("mse", "mae", "rmse", "squared_error", "absolute_error", "r2")
    )
