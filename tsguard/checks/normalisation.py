"""Statistics of a batch: over how much they are taken, and whether the moving ones settle."""

from __future__ import annotations

import math
from collections.abc import Iterable

from tsguard import catalogue
from tsguard.checks.bench import name_of, planned_steps, set_up
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
    planned = planned_steps(context)
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
