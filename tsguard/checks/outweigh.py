"""A loss in which some rows weigh many thousand times as much as all others, as their target is next to nothing."""

from __future__ import annotations

from collections.abc import Iterable

from tsguard import catalogue
from tsguard.checks.bench import set_up
from tsguard.checks.registry import Context, check
from tsguard.dataset import map_leaves
from tsguard.evidence import Evidence
from tsguard.findings import Finding
from tsguard.probes.answers import labels_of

OUTWEIGHS = 1e4
"""Times the slope of the lighter rows from which a row is heard alone: a batch of ten thousand others would be a
whisper. Squared errors of the heaviest tails stay below a thousand."""

SMALLER = 1e-3
"""Share of the size of other targets up to which a target is next to nothing."""


@check("rows that outweigh all others", codes=("loss-mismatch",), needs=("model", "data", "y"), cost=3)
def outweighed_rows(context: Context) -> Iterable[Finding]:
    """One answer for all rows, whose slope differs from row to row by more than targets of their size could make it."""
    import torch

    bench = set_up(context)
    if not bench.answered or bench.batch.sample_weight is not None:
        return
    for head in bench.heads:
        y = head.target
        if y is None or tuple(y.shape) != tuple(head.answer.shape) or labels_of(y) not in ("real", "integer"):
            continue
        rows = y.float().reshape(len(y), -1)
        heard = torch.zeros(len(rows), device=rows.device)
        for rank in (0.2, 0.5, 0.8):
            level = float(torch.quantile(rows.reshape(-1), rank)) + 0.05 * float(rows.std())
            answers = list(bench.answers)
            answers[head.index] = torch.full_like(answers[head.index], level)
            slopes = bench.loss_of.slopes(answers, y=map_leaves(lambda leaf: leaf, bench.batch.y))
            slope = None if slopes is None else slopes[head.index]
            if slope is None or not bool(torch.isfinite(slope).all()):
                return
            heard = torch.maximum(heard, slope.float().abs().reshape(len(rows), -1).amax(1))
        light = float(torch.quantile(heard[heard > 0], 0.1)) if bool((heard > 0).any()) else 0.0
        loud = heard > OUTWEIGHS * light
        if light == 0.0 or int(loud.sum()) < 2:
            continue
        size = rows.abs().amin(1)
        usual, small = float(size[~loud].median()), float(size[loud].median())
        if small <= SMALLER * usual:
            yield catalogue.finding(
                "loss-mismatch",
                f"{int(loud.sum())} of {len(rows)} rows weigh up to {float(heard.max()) / light:.0e} times as much as "
                f"others in the loss of output {head.name!r}: their target is about {small:.2g}, that of others about "
                f"{usual:.2g}, and the loss divides by it. All that is learnt is to answer that. Use an error that "
                "does not divide by the target (mae, mse, a scaled error), or ask about rows with a target apart.",
                where={"output": head.name, "phase": "loss"},
                evidence=(Evidence("value", {"loudest": float(heard.max()), "light": light}, name="slope of a row"),),
                status="FAIL",
                role="cause",
                score=1.0,
            )
            return
