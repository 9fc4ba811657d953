"""A first loss that is not finite though the data is."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from tsguard import catalogue
from tsguard.checks.bench import set_up
from tsguard.checks.gradient_flow import first_recurrent
from tsguard.checks.precision import all_finite
from tsguard.checks.registry import Context, check
from tsguard.findings import Finding
from tsguard.probes.answers import draw_weights
from tsguard.probes.dispatch import nonfinite_producer
from tsguard.probes.stage import take_step


@check("a start that is not finite", codes=("nonfinite-forward", "nonfinite-loss"), needs=("model", "data"), cost=3)
def broken_start(context: Context) -> Iterable[Finding]:
    """The very first loss is NaN or infinite though the batch is finite."""
    bench = set_up(context)
    if bench.step.error is not None or bench.step.root is None or math.isfinite(bench.step.loss):
        return
    if not all_finite(bench.batch.x) or not all_finite(bench.batch.y):
        return
    forward = not all_finite(bench.step.answer)
    producer = nonfinite_producer(bench.model, bench.batch)
    made = "" if producer is None else f"; `{producer.op}` makes it from {producer.reason}"
    draw_weights(bench.model, 0.3, torch_generator(5))
    milder = take_step(bench.model, bench.batch, record_calls=False)
    bench.start.restore()
    heals = milder.error is None and math.isfinite(milder.loss)
    yield catalogue.finding(
        "nonfinite-forward" if forward else "nonfinite-loss",
        f"the first loss is {bench.step.loss} on finite data, and {'an answer' if forward else 'the loss alone'} "
        f"is not "
        f"finite{made}." + (" With smaller weights it is finite." if heals else ""),
        where={
            "phase": "forward" if forward else "loss",
            "op": None if producer is None else producer.op,
            "file": None if producer is None else producer.file,
            "line": None if producer is None else producer.line,
        },
        role="symptom" if heals else "cause",
        score=0.5,
    )
    if heals:
        yield catalogue.finding(
            "init-scale" if not first_recurrent(bench) else "exploding-gradient",
            f"at the initial weights the first loss is {bench.step.loss}; at a third of a usual size it is "
            f"{milder.loss:.4g}. "
            "Signals grow without bound on their way. Use a usual initialiser (orthogonal for recurrent kernels) "
            "or gated "
            "cells.",
            where={"phase": "forward"},
            explains=("nonfinite-forward" if forward else "nonfinite-loss",),
            status="FAIL",
            score=0.9,
        )


def torch_generator(seed: int) -> Any:
    """A generator of our own; the global one is not touched."""
    import torch

    return torch.Generator().manual_seed(seed)
