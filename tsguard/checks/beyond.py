"""An own loss whose best answer lies where the output cannot go: its activation, or the loss, is taken twice."""

from __future__ import annotations

import math
from collections.abc import Iterable

from tsguard import catalogue
from tsguard.checks.bench import set_up
from tsguard.checks.outputs import layer_of_output
from tsguard.checks.registry import Context, check
from tsguard.evidence import Evidence
from tsguard.findings import Finding
from tsguard.probes.answers import labels_of, question, reach
from tsguard.probes.stage import has_own_loss

GAIN = 0.1
"""Share of the least loss within reach that is saved beyond it. What rounding or a rare row pulls at saves less."""

FARTHER = (0.25, 0.5, 1.0, 2.0)
"""How far on both sides of the bound answers are tried, in deviations of the targets."""

WITHOUT_END = (8.0, 32.0)
"""How far beyond a loss has to rise again. One that only falls (a position paid by its return) is bounded by the output
on purpose."""


@check("best answer beyond the output's range", codes=("output-activation",), needs=("model", "data", "y"), cost=3)
def beyond_reach(context: Context) -> Iterable[Finding]:
    """One answer for all rows: where does the own loss want it, and can the output be that?"""
    import torch

    bench = set_up(context)
    if not bench.answered:
        return
    ranges, _ = reach(bench.model, bench.batch, restore=bench.start.restore)
    for head, range_ in zip(bench.heads, ranges, strict=True):
        own = has_own_loss(bench.model) or (head.loss is not None and question(head.loss).kind == "own")
        y = head.target
        if not own or y is None or tuple(y.shape) != tuple(head.answer.shape) or y.shape[-1] != 1:
            continue
        if labels_of(y) not in ("real", "integer") or not (range_.bounded_below or range_.bounded_above):
            continue
        spread = max(float(y.float().std()), 1e-6)

        def cost(level: float, index: int = head.index) -> float:
            answers = list(bench.answers)
            answers[index] = torch.full_like(answers[index], level)
            return bench.loss_of(answers)

        for bounded, bound, away in (
            (range_.bounded_below, range_.low, -1.0),
            (range_.bounded_above, range_.high, 1.0),
        ):
            if not bounded or not math.isfinite(bound):
                continue
            at, inside = cost(bound), [cost(bound - away * step * spread) for step in FARTHER]
            outside = [cost(bound + away * step * spread) for step in FARTHER]
            if not all(map(math.isfinite, (at, *inside, *outside))) or at > min(inside):
                continue
            endless = all(cost(bound + away * step * spread) < min(outside) for step in WITHOUT_END)
            if at - min(outside) > GAIN * abs(at) and not endless:
                yield catalogue.finding(
                    "output-activation",
                    f"output {head.name!r} ends at {bound:.3g} for every weight ({range_.words}), and of all answers "
                    f"that are one for all rows the own loss wants one beyond: it costs {min(outside):.3g} there and "
                    f"{at:.3g} at the bound, which is the least that can be reached. The loss takes the answer before "
                    "its activation (a logarithm of a rate, a logit): leave the last layer linear, or let the loss "
                    "take the answer as it is.",
                    where={"output": head.name, "layer": layer_of_output(bench, head)},
                    evidence=(Evidence("value", {"at the bound": at, "beyond": min(outside)}, name="loss"),),
                    status="FAIL",
                    role="cause",
                    score=0.9,
                )
                return
