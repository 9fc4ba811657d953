"""The law of time: changing the future does not change the past, in outputs and in gradients."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tsguard.laws.batches import Batch, Example, Sample
from tsguard.laws.ground import Ground, samples, steps
from tsguard.laws.law import Law, padded_batches
from tsguard.laws.results import Counterexample
from tsguard.laws.structure import Leaves


def claims_causality(ground: Ground) -> str | None:
    """The law binds models that claim it, and shows on outputs with a time axis."""
    if not ground.reading.padding.causal:
        return "the model does not claim to be causal: declare it with tsguard.Padding(causal=True)"
    if not ground.reading.values:
        return "no input holds values over time"
    if not ground.reading.sequence:
        return "no output has a time axis: the output is made at the end, where nothing is future"
    return None if max(ground.widths) > 1 else "the model takes one step only: there is no future"


def _cut(ground: Ground, example: Example) -> tuple[Batch, Leaves, Any]:
    """A batch with nothing padded, the same with another future, and the flags of the past."""
    full = tuple(Sample(example.width, s.row, 0) for s in example.samples)
    batch = ground.material.batch(full, example.width)
    at = min(example.at, example.width - 2)
    past = np.broadcast_to(np.arange(example.width) <= at, batch.valid.shape)
    shown = replace(batch, valid=past)
    x = ground.material.disturbed(shown, example)
    x = {name: x[name] if name in ground.reading.values else leaf for name, leaf in batch.x.items()}
    return batch, x, past


def future_values(ground: Ground, example: Example) -> Counterexample | None:
    """7. Changing the future does not change the past."""
    batch, x, past = _cut(ground, example)
    moved = ground.moved(ground.bench.outputs(batch.x), ground.bench.outputs(x), past)
    if moved is None:
        return None
    law, at = FUTURE.name, int(past[0].sum()) - 1
    words = (
        f"{samples(len(past))}, {steps(example.width)}; the output at step {moved.timestep} of sample "
        f"{moved.sample} moved by "
        f"{moved.by:.3g} (tolerance {moved.tolerance:.1g}) when only the inputs after step {at} changed."
    )
    where = {"law": law, "phase": "forward", "sample": moved.sample, "timestep": moved.timestep, "output": moved.output}
    return Counterexample(law, "future-leak", words, batch.x, x, moved.by, moved.tolerance, where, size=example.size)


def future_gradients(ground: Ground, example: Example) -> Counterexample | None:
    """7. … and has no gradient from it."""
    batch, _, past = _cut(ground, example)
    got = ground.bench.gradients(batch.x, ground.projection(batch, rows=past))
    worst, name = 0.0, ""
    for leaf in ground.reading.values:
        if leaf in got.inputs:
            future = ground.material.padded_positions(leaf, replace(batch, valid=past), "time")
            there = np.nan_to_num(np.abs(got.inputs[leaf][future]), nan=np.inf)
            if there.max(initial=0.0) > worst:
                worst, name = float(there.max()), leaf
    if not name:
        return None
    law, at = FUTURE_GRADIENTS.name, int(past[0].sum()) - 1
    words = (
        f"{samples(len(past))}, {steps(example.width)}; the outputs up to step {at} have a gradient of "
        f"{worst:.3g} with respect to "
        f"input `{name}` after it, and must have none."
    )
    return Counterexample(
        law, "future-leak", words, batch.x, {}, worst, 0.0, {"law": law, "phase": "backward"}, size=example.size
    )


def _name(ground: Ground, found: Counterexample) -> Counterexample:
    width = ground.telling_width
    count = ground.reading.batch_size or 1
    example = Example(
        tuple(Sample(width, i) for i in range(count)), width, kind="data", seed=1, at=max(width // 2 - 1, 0)
    )
    batch, x, past = _cut(ground, example)
    call = ground.layer_at_fault(batch.x, x, np.array(past))
    remedy = (
        "A causal model sees steps up to its own only: padding='causal', use_causal_mask=True, running "
        "instead of whole-window "
    )
    remedy += "statistics, one direction."
    if call is None:
        return replace(found, remedy=remedy)
    words = f"{found.words} Layer `{call.path}` ({call.kind}) is the first at which a step depends on later ones."
    return replace(found, where={**found.where, "layer": call.path}, words=words, remedy=remedy)


FUTURE = Law(
    "the future does not change the past", "future-leak", future_values, claims_causality, padded_batches, finish=_name
)
FUTURE_GRADIENTS = Law(
    "the past has no gradient from the future",
    "future-leak",
    future_gradients,
    claims_causality,
    padded_batches,
    0.3,
    finish=_name,
)
