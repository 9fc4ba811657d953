"""Laws of nothing: samples that are all padding, and batches that are nearly nothing, stay finite and apart."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tsguard.laws.batches import Example, Sample
from tsguard.laws.ground import Ground, batch_words, finite
from tsguard.laws.law import (
    Law,
    moved_place,
    not_padded,
    padded_batches,
)
from tsguard.laws.results import Counterexample


def all_padded(ground: Ground, example: Example) -> Counterexample | None:
    """5. A fully padded sample gives a finite loss and finite gradients, and does not touch the others."""
    batch = ground.batch(example)
    empty = ground.material.batch((Sample(0, example.samples[0].row), *example.samples[1:]), example.width)
    others = batch.valid.copy()
    others[0] = False
    before, after = ground.bench.outputs(batch.x), ground.bench.outputs(empty.x)
    law, grave = ALL_PADDED.name, not bool(ground.reading.valid.any(axis=1).all())
    words = batch_words(empty.valid, right=ground.material.right).replace(
        ", all padded", ", the first sample all padded"
    )
    moved = ground.moved(before, after, others)
    trouble: str | None = None
    where: dict[str, Any] = {"law": law, "phase": "forward"}
    if moved is not None:
        trouble, where = f"the output of sample {moved.sample} moved by {moved.by:.3g}", moved_place(law, moved)
    pooled = [a for a, axis in zip(after, ground.reading.output_time, strict=True) if axis is None]
    if trouble is None and finite(before) and not finite(pooled):
        trouble, where = "its pooled output is not finite", {**where, "sample": 0}
    if trouble is None and ground.bench.has_loss and ground.reading.targets is not None:
        loss = ground.loss(empty)
        if not np.isfinite(loss) and np.isfinite(ground.loss(batch)):
            trouble, where = f"the loss is {loss}", {**where, "phase": "loss"}
    if trouble is None and finite(before):
        reduce = ground.projection(empty, rows=others | (empty.valid.any() & empty.valid))
        got = ground.bench.gradients(empty.x, reduce)
        sick = [name for name, g in got.weights.items() if not np.isfinite(g).all()]
        if sick:
            trouble, where = (
                f"the gradient of `{sick[0]}` is not finite",
                {**where, "phase": "backward", "parameter": sick[0]},
            )
    if trouble is None:
        return None
    return Counterexample(
        law,
        "pad-all-masked",
        f"{words}; {trouble}.",
        batch.x,
        empty.x,
        moved.by if moved else float("inf"),
        0.0,
        where,
        size=example.size,
        grave=grave,
        remedy="Divide by max(number of valid steps, 1), and give attention a finite score where every key is masked.",
    )


def _name_all_padded(ground: Ground, found: Counterexample) -> Counterexample:
    example = ground.padded_example()
    empty = ground.material.batch((Sample(0, 0), *example.samples[1:]), example.width)
    for call in ground.bench.calls(empty.x):
        if finite(call.inputs) and not finite(call.outputs):
            words = f"{found.words} Layer `{call.path}` ({call.kind}) is the first whose output is not finite."
            return replace(found, where={**found.where, "layer": call.path}, words=words)
    return found


def smallest_batches(ground: Ground, example: Example) -> Counterexample | None:
    """5. Nor does a batch of one, a sequence of one step, a single valid feature."""
    law = SMALLEST.name
    if not finite(ground.bench.outputs(ground.batch(example).x)):
        return None  # nothing to do with how small a batch is
    count = ground.reading.batch_size or 1
    for width in sorted({min(ground.reading.widths), max(ground.widths)}):
        for length in (1, width):
            features = 1 if ground.material.feature_size else 0
            batch = ground.material.batch([Sample(length, example.samples[0].row, features)] * count, width)
            if not finite([leaf.astype(float) for leaf in batch.x.values()]):
                continue
            outputs = ground.bench.outputs(batch.x)
            kept = [
                o if axis is None else np.moveaxis(o, axis, 1)[batch.valid]
                for o, axis in zip(outputs, ground.reading.output_time, strict=True)
            ]
            got = ground.bench.gradients(batch.x, ground.projection(batch)) if finite(kept) else None
            sick = [] if got is None else [name for name, g in got.weights.items() if not np.isfinite(g).all()]
            if got is not None and not sick:
                continue
            phase = "backward" if sick else "forward"
            words = (
                f"{batch_words(batch.valid, right=ground.material.right)}: the "
                f"{'gradients are' if sick else 'output is'} not finite."
            )
            return Counterexample(
                law,
                "pad-all-masked",
                words,
                batch.x,
                {},
                float("inf"),
                0.0,
                {"law": law, "phase": phase},
                size=(count, width, length),
                grave=bool((ground.reading.valid.sum(axis=1) <= 1).any()),
                remedy="Guard divisions by counts and variances of one value.",
            )
    return None


ALL_PADDED = Law(
    "a fully padded sample is harmless",
    "pad-all-masked",
    all_padded,
    not_padded,
    padded_batches,
    0.4,
    finish=_name_all_padded,
)
SMALLEST = Law(
    "the smallest batches are finite", "pad-all-masked", smallest_batches, not_padded, padded_batches, once=True
)
