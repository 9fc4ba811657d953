"""What a model keeps from one batch to the next, where rows have nothing to do with each other: a state, a batch."""

from __future__ import annotations

import math
from collections.abc import Iterable

from tsguard import catalogue
from tsguard.checks.bench import set_up
from tsguard.checks.registry import Context, check
from tsguard.findings import Finding
from tsguard.probes.answers import draw_weights, predict
from tsguard.probes.stage import all_variables, flat, has_own_step, take_step

SAME = 1e-5
"""Change of the answers, over their spread, that is rounding."""


@check("state carried into the next batch", codes=("batch-coupling",), needs=("model", "arrays"), cost=2)
def carried_state(context: Context) -> Iterable[Finding]:
    """A call in inference writes variables that the next answer starts from, and rows are shuffled between batches."""
    import torch

    if context.fit.get("shuffle", True) is False or "fit" not in context.facts:
        return  # in order, row i of a batch may go on where row i of the one before ended; who does not train says not
    bench = set_up(context)
    if bench.step.error is not None:
        return
    kept = [v for v in all_variables(bench.model) if "seed_generator" not in v.path and v.value.is_floating_point()]
    bench.start.restore()
    before = [v.value.detach().clone() for v in kept]
    first = [a.detach().float().clone() for a in flat(predict(bench.model, bench.batch.x))]
    written = [
        (v, v.value.detach().clone()) for v, old in zip(kept, before, strict=True) if not torch.equal(v.value, old)
    ]
    bench.start.restore()
    if not written:
        return
    with torch.no_grad():
        for variable, value in written:
            variable.value.copy_(value)
    again = flat(predict(bench.model, bench.batch.x))
    bench.start.restore()
    change = max(float((a - b.float()).abs().max()) for a, b in zip(first, again, strict=True))
    spread = max(float(a.std()) if a.numel() > 1 else 0.0 for a in first)
    if change > SAME * max(spread, 1e-12):
        yield catalogue.finding(
            "batch-coupling",
            f"asked for the same rows twice, the model answers differently by {change:.3g}: it writes "
            f"{written[0][0].path!r} whenever it is called and starts from it the next time. Rows are shuffled between "
            "batches, so that each row starts from what another one left. Set stateful=False, or train with "
            "shuffle=False on batches whose rows go on where those of the batch before ended.",
            where={"parameter": written[0][0].path, "phase": "forward"},
            status="FAIL",
            role="cause",
            score=1.0,
        )


@check("step that keeps to one batch", codes=("data-volume",), needs=("model", "data"), cost=2)
def kept_batch(context: Context) -> Iterable[Finding]:
    """An own step whose loss is the same number whichever batch it is handed, while it does change with the weights."""
    import torch

    bench = set_up(context)
    if bench.step.error is not None or not has_own_step(bench.model) or len(bench.batches) < 3:
        return
    generator = torch.Generator().manual_seed(2)
    seen: set[tuple[float, ...]] = set()
    for scale in (None, 1.0):
        losses: set[tuple[float, ...]] = set()
        state = generator.get_state()
        for batch in bench.batches:
            bench.start.restore()
            if scale is not None:
                draw_weights(bench.model, scale, generator.set_state(state))
            step = take_step(bench.model, batch, record_calls=False)
            # Of several losses (rivals, each its own) one may be about noise alone; a kept batch shows in all of them.
            losses.add(tuple(float(root.detach().float().mean()) for root in step.roots))
        bench.start.restore()
        if len(losses) != 1 or not all(map(math.isfinite, min(losses))):
            return
        seen |= losses
    if len(seen) == 2 and all(seen):
        low, high = min(seen)[-1], max(seen)[-1]
        yield catalogue.finding(
            "data-volume",
            f"the own train_step gives the same loss for {len(bench.batches)} different batches ({low:.6g}, and "
            f"{high:.6g} with other weights): it trains on one batch, whatever it is handed. Expected the batch "
            "that is passed to `train_step` to be the one that it learns from.",
            where={"phase": "data"},
            status="FAIL",
            role="cause",
            score=1.0,
        )
