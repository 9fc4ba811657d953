"""Laws of values and gradients: what stands at padded steps must not count. `features` asks the same over features."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tsguard.laws.batches import Batch, Example
from tsguard.laws.compare import Moved
from tsguard.laws.ground import Ground, batch_words
from tsguard.laws.law import (
    Law,
    at_layer,
    moved_words,
    not_padded,
    output_moved,
    padded_batches,
    padded_batches_of_any_width,
)
from tsguard.laws.results import Counterexample
from tsguard.laws.structure import Leaves
from tsguard.laws.trace import Taps

MASK_EARLIER = (
    "Padded positions must have no influence. Layer `{layer}` mixes positions without the mask: pass `mask=` to "
    "it, or use a layer "
    "that takes one (masked pooling, attention_mask), or set padded positions to zero before it."
)


def can_vary(ground: Ground) -> str | None:
    """Law 1 needs positions that can hold other values while the mask stays as it is."""
    reason = not_padded(ground)
    if reason:
        return reason
    if ground.reading.unmasked_padding:
        return "the rows are padded with NaN, which nothing masks: the laws about NaN speak for it"
    kind, leaks = ground.reading.mask_kind, "pad-length" in ground.broken
    if not ground.material.reading.values:
        return "no input holds values over time"
    if max(ground.widths) < 2:
        return "the model takes one step only: nothing can be padded"
    if kind == "declared" and not leaks:
        return (
            "there is no mask: another value at a padded position would be data; the law of more padding speaks for it"
        )
    if kind == "keras" and not ground.can_vary and not leaks:
        return (
            "Masking sets what it masks to zero: no other value can stand there; the law of more padding speaks for it"
        )
    return None


def padded_values(ground: Ground, example: Example) -> Counterexample | None:
    """1. Values at padded positions do not change valid outputs."""
    batch = ground.batch(example)
    x, taps = ground.variant(batch, example, force="pad-length" in ground.broken)
    return _unchanged(ground, example, batch, x, taps, VALUES.name, "only what stands at padded positions changed")


def _unchanged(
    ground: Ground, example: Example, batch: Batch, x: Leaves, taps: Taps | None, law: str, what: str
) -> Counterexample | None:
    training = law == TRAINING_VALUES.name
    before = ground.bench.outputs(batch.x, training=training)
    after = ground.bench.outputs(x, taps=taps, training=training)
    moved = ground.moved(before, after, batch.valid)
    if moved is None:
        return None
    return leak(ground, law, batch, x, moved, what, example)


def leak(
    ground: Ground, law: str, batch: Batch, x: Leaves, moved: Moved, what: str, example: Example
) -> Counterexample:
    """The counterexample of a valid output that moved."""
    return output_moved(
        law,
        "pad-leak-value",
        moved_words(ground, batch.valid, moved, what),
        batch.x,
        x,
        moved,
        example,
        facts={"values": example.kind},
    )


def padded_values_in_training(ground: Ground, example: Example) -> Counterexample | None:
    """1. … nor do they in training mode, where statistics of the batch are taken (dropout draws the same both
    times)."""
    if "pad-leak-value" in ground.broken:
        return None
    batch = ground.batch(example)
    x, taps = ground.variant(batch, example, force="pad-length" in ground.broken)
    return _unchanged(
        ground,
        example,
        batch,
        x,
        taps,
        TRAINING_VALUES.name,
        "only what stands at padded positions changed, in training",
    )


def takes_batch_statistics(ground: Ground) -> str | None:
    """Training mode can leak where inference does not through batch statistics only."""
    import keras

    statistics = (keras.layers.BatchNormalization, keras.layers.GroupNormalization)
    if any(isinstance(layer, statistics) for layer in ground.bench.model._flatten_layers()):
        return can_vary(ground)
    return "no layer takes statistics of the batch: training mode sees what inference sees"


def _name_training_leak(ground: Ground, found: Counterexample) -> Counterexample:
    return at_layer(found, ground.pad_leak_call(training=True), MASK_EARLIER)


def _name_leak(ground: Ground, found: Counterexample) -> Counterexample:
    return at_layer(found, ground.pad_leak_call(), MASK_EARLIER)


def padded_gradients(ground: Ground, example: Example) -> Counterexample | None:
    """2. Gradients with respect to padded inputs are exactly zero."""
    return gradients_zero(ground, example, "time", GRADIENTS.name)


def gradients_zero(ground: Ground, example: Example, over: str, law: str) -> Counterexample | None:
    """Whether valid outputs have a gradient with respect to what is padded."""
    batch = ground.batch(example)
    x, _ = ground.variant(batch, replace(example, kind="ones"), over=over)
    makers = (
        {}
        if over == "features"
        else {id(m.layer): ~batch.valid for m in ground.reading.makers if "pad-length" in ground.broken or not m.zeroes}
    )
    features = batch.features if over == "features" else None
    got = ground.bench.gradients(x, ground.projection(batch, features=features), tapped=makers)
    worst, place = 0.0, ""
    free = ground.reachable if over == "time" and ground.reading.mask_kind != "declared" else ground.reading.values
    for name in free:
        if name in got.inputs:
            there = np.abs(got.inputs[name][ground.material.padded_positions(name, batch, over)])
            if there.size and not there.max() <= worst:
                worst, place = float(np.nan_to_num(there, nan=np.inf).max()), f"input `{name}`"
    for maker in ground.reading.makers:
        gradient = got.tapped.get(id(maker.layer))
        if gradient is not None and gradient.shape[:2] == batch.valid.shape:
            there = np.abs(gradient[~batch.valid])
            if there.size and not there.max() <= worst:
                worst, place = float(np.nan_to_num(there, nan=np.inf).max()), f"what layer `{maker.path}` gives"
    if worst == 0.0:
        return None
    words = (
        f"{batch_words(batch.valid, right=ground.material.right)}; the gradient of the valid outputs with respect "
        f"to {place} at "
        f"padded {'positions' if over == 'time' else 'features'} is {worst:.3g}, and must be exactly 0."
    )
    where = {"law": law, "phase": "backward"}
    return Counterexample(law, "pad-leak-grad", words, x, {}, worst, 0.0, where, size=example.size)


VALUES = Law(
    "padded values do not change valid outputs",
    "pad-leak-value",
    padded_values,
    can_vary,
    padded_batches_of_any_width,
    finish=_name_leak,
)
TRAINING_VALUES = Law(
    "padded values do not change valid outputs in training",
    "pad-leak-value",
    padded_values_in_training,
    takes_batch_statistics,
    padded_batches,
    0.3,
    finish=_name_training_leak,
)
GRADIENTS = Law(
    "padded inputs have no gradient",
    "pad-leak-grad",
    padded_gradients,
    can_vary,
    padded_batches,
    0.4,
    finish=_name_leak,
)
