"""A first loss that is not finite though the data is."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from tsguard import catalogue
from tsguard.checks.bench import Bench, set_up
from tsguard.checks.gradient_flow import first_recurrent
from tsguard.checks.precision import all_finite
from tsguard.checks.registry import Context, check
from tsguard.dataset import leaves, map_leaves
from tsguard.findings import Finding
from tsguard.probes.answers import draw_weights, standardised, unscaled
from tsguard.probes.dispatch import nonfinite_producer
from tsguard.probes.padded import neutralised
from tsguard.probes.stage import Batch, take_step


@check(
    "a start that is not finite",
    codes=("nonfinite-forward", "nonfinite-loss", "pad-time", "pad-nan-poison"),
    needs=("model", "data"),
    cost=3,
)
def broken_start(context: Context) -> Iterable[Finding]:
    """The very first loss is NaN or infinite though the batch is finite."""
    bench = set_up(context)
    if bench.step.error is not None or bench.step.root is None or math.isfinite(bench.step.loss):
        return
    if not all_finite(bench.batch.x) or not all_finite(bench.batch.y):
        return
    broken = [v for v in bench.model.variables if v.value.is_floating_point() and not all_finite(v.value)]
    if broken:
        yield _broken_weights(broken)
        return
    forward = not all_finite(bench.step.answer)
    producer = nonfinite_producer(bench.model, bench.batch)
    made = "" if producer is None else f"; `{producer.op}` makes it from {producer.reason}"
    milder, usual = (_drawn(bench, scale) for scale in (0.3, 1.0))
    padded = _without_padding(context, bench)
    if padded is not None:
        yield padded
    # That inputs of another size heal it is told by the check of initial signals, with the scale that they have.
    other_scale = padded is None and _with_scaled_inputs(bench)
    grown = padded is None and not other_scale and math.isfinite(milder)
    blamed = grown and (math.isfinite(usual) or first_recurrent(bench) is not None)
    yield catalogue.finding(
        "nonfinite-forward" if forward else "nonfinite-loss",
        f"the first loss is {bench.step.loss} on finite data, and {'an answer' if forward else 'the loss alone'} "
        f"is not finite{made}." + (" With smaller weights it is finite." if math.isfinite(milder) else ""),
        where={
            "phase": "forward" if forward else "loss",
            "op": None if producer is None else producer.op,
            "file": None if producer is None else producer.file,
            "line": None if producer is None else producer.line,
        },
        role="symptom" if padded is not None or other_scale or blamed else "cause",
        score=0.5,
    )
    if blamed:
        yield catalogue.finding(
            "init-scale" if not first_recurrent(bench) else "exploding-gradient",
            f"at the initial weights the first loss is {bench.step.loss}; at a third of a usual size it is "
            f"{milder:.4g}. Signals grow without bound on their way. Use a usual initialiser (orthogonal for "
            "recurrent kernels) or gated cells.",
            where={"phase": "forward"},
            explains=("nonfinite-forward" if forward else "nonfinite-loss",),
            status="FAIL",
            score=0.9,
        )


def _broken_weights(broken: list[Any]) -> Finding:
    first = broken[0]
    bad = int((~first.value.isfinite()).sum())
    return catalogue.finding(
        "nonfinite-forward",
        f"{len(broken)} variable(s) of the model are not finite before the first step; the first is {first.path}, of "
        f"which {bad:,} of {first.value.numel():,} numbers are NaN or infinite. Expected finite numbers: the file that "
        "they were loaded from, or what set them, is broken.",
        where={"parameter": first.path, "layer": first.path.rpartition("/")[0] or None, "phase": "forward"},
        role="cause",
        remedy="Load a checkpoint whose weights are finite: all(np.isfinite(w).all() for w in model.get_weights()).",
        score=1.0,
    )


def _drawn(bench: Bench, scale: float) -> float:
    """The first loss at weights of a usual size times `scale`; NaN where it has none."""
    draw_weights(bench.model, scale, torch_generator(5))
    step = take_step(bench.model, bench.batch, record_calls=False)
    bench.start.restore()
    return step.loss if step.error is None else math.nan


def _with_scaled_inputs(bench: Bench) -> bool:
    """Whether the same weights have a finite loss on the same inputs, standardised, that are far from that now."""
    if not any(map(unscaled, leaves(bench.batch.x))):
        return False
    scaled = map_leaves(standardised, bench.batch.x)
    step = bench.again(Batch(scaled, bench.batch.y, bench.batch.sample_weight), record_calls=False)
    bench.start.restore()
    return step.error is None and math.isfinite(step.loss)


def _without_padding(context: Context, bench: Bench) -> Finding | None:
    """Whether the loss is finite once padded positions hold values that say nothing."""
    padding = context.padding
    if padding is None or padding.mask is None:
        return None
    clean = neutralised(bench.batch.x, padding)
    if clean is bench.batch.x:
        return None
    step = bench.again(Batch(clean, bench.batch.y, bench.batch.sample_weight), record_calls=False)
    bench.start.restore()
    if step.error is not None or not math.isfinite(step.loss):
        return None
    timed = padding.timestamps is not None
    return catalogue.finding(
        "pad-time" if timed else "pad-nan-poison",
        f"the first loss is {bench.step.loss} with the padding as it is, and {step.loss:.4g} when padding holds "
        + ("the last time (steps of zero) and " if timed else "")
        + "the mean of the valid values. Repeat the last time in padding, and mask before values are mixed.",
        where={"phase": "forward"},
        explains=("nonfinite-forward", "nonfinite-loss"),
        status="FAIL",
        score=1.0,
    )


def torch_generator(seed: int) -> Any:
    """A generator of our own; the global one is not touched."""
    import torch

    return torch.Generator().manual_seed(seed)
