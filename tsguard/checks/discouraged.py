"""A loss that charges more for a fair answer than for none: it teaches to say nothing.

Relative errors do so where targets lie around zero: the few rows that are nearly zero outweigh all others, and are
cheapest when every answer is zero. What is compared needs no model: answers that miss the targets by half of what they
vary, at whatever level suits the loss best, and the best of all constants.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from tsguard import catalogue
from tsguard.checks.bench import Bench, set_up
from tsguard.checks.registry import Context, check
from tsguard.evidence import Evidence
from tsguard.findings import Finding
from tsguard.probes.answers import Head, labels_of

NOISE = 0.75
"""Deviation of the answers from the targets, over the targets' median distance from their median: of normal ones three
quarters of the variance are explained then."""

LEVELS = (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0)
"""Shifts of such answers in units of that noise: a loss for a high quantile wants them above the targets."""

RANKS = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
"""Quantiles of the targets that are tried as constants, beside zero."""

CODE = 0.05
"""Share of all targets from which one value is a code (not asked, missing) and no measurement of its own."""

BOTH_SIDES = 0.1
"""Least share of targets on either side of zero: where all are positive, a relative error is a choice."""

WORSE = 1.1
"""Cost of fair answers over that of the best constant, from which they are discouraged."""

LEAST_ROWS = 64
"""Rows below which a few of them decide."""


@check("loss that discourages answers", codes=("loss-mismatch",), needs=("model", "data", "y"), cost=2)
def discouraged(context: Context) -> Iterable[Finding]:
    """Do answers that explain most of the targets cost more than one number for all rows?"""
    bench = set_up(context)
    if not bench.answered:
        return
    for head in bench.heads:
        targets = _asked(bench, head)
        if targets is None:
            continue
        fair, constant, level = _compared(targets, head.loss)
        if math.isfinite(fair) and math.isfinite(constant) and constant > 0 and fair > WORSE * constant:
            yield catalogue.finding(
                "loss-mismatch",
                f"output {head.name!r}: answers that explain three quarters of the targets cost {fair:.4g}, and "
                f"{level:.4g} for every row costs {constant:.4g}: the loss teaches to answer nothing. Targets lie on "
                "both sides of zero, and an error in proportion to them counts most where they are nearly zero. "
                "Expected a loss in the targets' own units (mae, huber, mse).",
                where={"output": head.name, "phase": "loss"},
                evidence=(Evidence("value", {"fair answers": fair, "best constant": constant}, name="loss"),),
                score=1.0,
            )
            return


def _asked(bench: Bench, head: Head) -> Any:
    """Targets of many rows on both sides of zero; None where that is no question."""
    y = head.target
    if y is None or tuple(y.shape) != tuple(head.answer.shape) or labels_of(y) != "real" or head.loss is None:
        return None
    targets = bench.targets_of(head)
    below, above = float((targets < 0).float().mean()), float((targets > 0).float().mean())
    return targets if len(targets) >= LEAST_ROWS and min(below, above) >= BOTH_SIDES else None


def _compared(targets: Any, loss: Callable[..., Any]) -> tuple[float, float, float]:
    """The cost of fair answers, of the best constant, and that constant."""
    import torch

    flat = targets.reshape(-1)
    values, counts = flat.unique(return_counts=True)
    measured = flat[~torch.isin(flat, values[counts > CODE * len(flat)])]
    if len(measured) < LEAST_ROWS:
        return math.nan, math.nan, math.nan
    size = NOISE * float((measured - measured.median()).abs().median())
    noise = size * torch.randn(targets.shape, generator=torch.Generator().manual_seed(5)).to(targets.device)
    levels = [0.0, *(float(flat[: 1 << 20].quantile(rank)) for rank in RANKS)]
    with torch.no_grad():
        try:
            fair = min(float(loss(targets, targets + noise + shift * size)) for shift in LEVELS)
            constants = [float(loss(targets, torch.full_like(targets, level))) for level in levels]
        except Exception:  # a loss that asks for more than answers and targets of any rows is not asked
            return math.nan, math.nan, math.nan
    best = min(constants)
    return fair, best, levels[constants.index(best)]
