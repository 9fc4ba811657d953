"""A NaN that something replaces by a constant."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from tsguard import catalogue
from tsguard.checks.bench import not_asked, set_up
from tsguard.checks.registry import Context, check
from tsguard.dataset import leaves
from tsguard.findings import Finding
from tsguard.probes.dispatch import nonfinite_producer
from tsguard.probes.graph import walk
from tsguard.probes.stage import take_step


@check("NaN that is hidden", codes=("nan-hidden",), needs=("model", "data"), cost=3)
def hidden_nan(context: Context) -> Iterable[Finding]:
    """Poison: with NaN in the weights (then in the answers) the loss must be NaN, or something hides it."""
    import torch

    bench = set_up(context)
    if bench.step.error is not None or bench.step.root is None:
        yield from not_asked(bench, "nan-hidden")
        return
    producer = nonfinite_producer(bench.model, bench.batch)
    fed = bool(bench.step.fed)  # a step that asks of its gradients, and leaves a spoilt one out, hides nothing
    told = producer is not None and producer.absorbed and (fed or producer.phase != "backward")
    if producer is not None and told and math.isfinite(bench.step.loss):
        yield catalogue.finding(
            "nan-hidden",
            f"`{producer.op}` makes {producer.value} from {producer.reason} in this very batch, and the loss is "
            f"{bench.step.loss:.4g} all the same: something replaces it by a constant. Mend the operation, and "
            f"remove the "
            "replacement.",
            where={"phase": producer.phase, "op": producer.op, "file": producer.file, "line": producer.line},
            score=1.0,
        )
        return
    weights = [v for v in bench.model.trainable_variables if v.value.is_floating_point()]
    matters = any(n is not None for n in (bench.step.gradient_of(v) for v in weights))
    if not weights or not matters:
        return
    bench.start.restore()
    with torch.no_grad():
        for variable in weights:
            variable.value.fill_(float("nan"))
    poisoned = take_step(bench.model, bench.batch, record_calls=False)
    bench.start.restore()
    if poisoned.error is None and poisoned.root is not None and math.isfinite(poisoned.loss):
        answer_hides = all(bool(torch.isfinite(a.float()).all()) for a in flat_answers(poisoned))
        phase, place = ("forward", "the model's answer") if answer_hides else ("loss", "the loss")
        hider = next((n.op for n in walk(bench.step.root) if n.op in ("NanToNum", "Where")), None)
        yield catalogue.finding(
            "nan-hidden",
            f"with NaN in every weight, {place} is still finite ({poisoned.loss:.4g}): a NaN in training would be "
            "replaced by a constant and nobody would see it. Remove the replacement"
            + (f" (a `{hider}` in the graph)" if hider else "")
            + " and let the NaN show.",
            where={"phase": phase},
            status="WARN",
            score=0.2,
        )


def flat_answers(step: Any) -> list[Any]:
    """The answers of a step as a list."""
    return list(leaves(step.answer))
