"""Statistics of a batch: over how much they are taken, and whether the moving ones settle."""

from __future__ import annotations

import math
from collections.abc import Iterable

from tsguard import catalogue
from tsguard.checks.bench import name_of, set_up
from tsguard.checks.registry import Context, check
from tsguard.findings import Finding
from tsguard.probes.stage import flat

UNSETTLED = 0.1
"""Planned steps times (1 − momentum): moving statistics have then gone less than a tenth of the way."""


@check("statistics over a batch of one", codes=("train-eval-gap",), needs=("model", "data"), cost=2)
def batch_statistics(context: Context) -> Iterable[Finding]:
    """BatchNorm over a single value, or with moving statistics that the planned run cannot settle."""
    import keras

    bench = set_up(context)
    planned = context.planned_steps
    for call in bench.step.calls:
        layer = call.layer
        if not isinstance(layer, keras.layers.BatchNormalization) or not layer.trainable or call.output is None:
            continue
        given = next((t for t in flat(call.inputs) if hasattr(t, "shape")), None)
        if given is None or given.ndim < 2:
            continue
        axis = layer.axis if layer.axis >= 0 else given.ndim + layer.axis
        counted = math.prod(int(size) for place, size in enumerate(given.shape) if place != axis)
        if counted == 1:
            yield catalogue.finding(
                "train-eval-gap",
                f"{name_of(layer)} takes its statistics over one value (batches of {bench.batch.rows}): in "
                f"training its output "
                "is its offset whatever comes in, and nothing before it gets a gradient. Use batches of 16 or more, or "
                "LayerNormalization.",
                where={"layer": name_of(layer)},
                status="FAIL",
                score=1.0,
            )
            return
        settled = None if planned is None else planned * (1 - float(layer.momentum))
        value = given.detach().float()
        axes = tuple(place for place in range(value.ndim) if place != axis)
        far = float(value.mean(axes).abs().max()) > 1.0 or not 0.1 < float(value.var(axes).median()) < 10.0
        if settled is not None and settled < UNSETTLED and far:
            yield catalogue.finding(
                "train-eval-gap",
                f"{name_of(layer)} has momentum {float(layer.momentum):g}: after the planned {planned} steps its "
                f"moving "
                f"statistics have gone {1 - math.exp(-settled):.0%} of the way, so that inference normalises with the "
                f"initial ones. Use a momentum of about {max(0.5, 1 - 10 / max(planned or 1, 20)):.2f}, or train "
                f"longer.",
                where={"layer": name_of(layer)},
                score=0.8,
            )
            return


OFF = 0.3
"""Distance of a batch's mean from 0, or of its variance's logarithm from that of 1, from which initial statistics do
not normalise it."""


@check("statistics that never move", codes=("train-eval-gap",), needs=("model", "data"), cost=2)
def still_statistics(context: Context) -> Iterable[Finding]:
    """A trainable BatchNorm whose moving statistics stay where they were in a step of training."""
    import keras
    import torch

    bench = set_up(context)
    if bench.step.error is not None or bench.step.root is None:
        return
    bench.start.restore()
    layers = [
        one for one in bench.model._flatten_layers(recursive=True) if isinstance(one, keras.layers.BatchNormalization)
    ]
    layers = [one for one in layers if one.built and one.trainable]
    before = [one.moving_mean.value.detach().clone() for one in layers]
    step = bench.again()
    moved = [not torch.equal(one.moving_mean.value, old) for one, old in zip(layers, before, strict=True)]
    bench.start.restore()
    called = {id(call.layer): call for call in step.calls}
    for layer, has_moved, old in zip(layers, moved, before, strict=True):
        call = called.get(id(layer))
        given = None if call is None else next((t for t in flat(call.inputs) if hasattr(t, "shape")), None)
        if has_moved or given is None or bool(old.any()) or not bool((layer.moving_variance.value == 1).all()):
            continue  # statistics that were learned before may well be kept as they are
        value = given.detach().float()
        axes = tuple(place for place in range(value.ndim) if place != layer.axis % value.ndim)
        mean, variance = value.mean(axes), value.var(axes, correction=0).clamp(min=1e-12)
        if float(mean.abs().mean()) < OFF and float(variance.log().abs().mean()) < OFF:
            continue
        yield catalogue.finding(
            "train-eval-gap",
            f"{name_of(layer)} normalises with its initial statistics (mean 0, variance 1) in training too: a step of "
            f"training does not move them, and what comes in has mean {float(mean.abs().mean()):.2g} and variance "
            f"{float(variance.mean()):.2g}. Call the model with training=True in `train_step`.",
            where={"layer": name_of(layer), "phase": "forward"},
            status="WARN",
            score=0.7,
        )
        return
