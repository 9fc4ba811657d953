"""Laws of the batch and of the mode: samples do not see each other, calls repeat, training differs by its noise
alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tsguard.laws.batches import Batch, Example, Sample
from tsguard.laws.ground import Ground, samples
from tsguard.laws.law import Law, any_batches, neighbours, output_moved
from tsguard.laws.results import Counterexample
from tsguard.laws.structure import Leaves
from tsguard.laws.trace import Taps


def always(ground: Ground) -> str | None:
    """These laws bind every model."""
    return None


def one_output_per_sample(ground: Ground) -> str | None:
    """Samples can be compared where each has its own output, and the same one twice."""
    if "nondeterministic" in ground.broken:
        return "the output draws random numbers: no two of them can be compared"
    if ground.reading.batch_size == 1:
        return "the model takes one sample at a time"
    count, fixed = len(next(iter(ground.reading.rows.values()))), ground.reading.batch_size

    def answered(size: int) -> tuple[Any, ...]:
        batch = ground.material.batch([Sample(max(ground.widths), i % count) for i in range(size)], max(ground.widths))
        return ground.bench.outputs(batch.x)

    few = answered(fixed or 2)
    if any(o.ndim == 0 or len(o) != (fixed or 2) for o in few):
        return "an output has no batch axis: it is a statement about the batch as a whole"
    if not fixed and any(a.shape[1:] != b.shape[1:] for a, b in zip(few, answered(3), strict=True)):
        return "an output grows with the batch along another axis: it holds the samples of the batch against each other"
    return None


def _other_neighbours(ground: Ground, example: Example) -> tuple[Batch, Leaves, Any]:
    batch = ground.batch(example)
    rest = tuple(Sample(s.length, s.row + 1 + example.seed, s.features) for s in example.samples[1:])
    other = ground.material.batch((example.samples[0], *rest), example.width)
    x = dict(other.x)
    for name, leaf in x.items():
        # Rows may repeat: what is a quantity is moved as well, so that the neighbours differ for certain.
        quantity = leaf.dtype.kind == "f" and name not in ground.reading.ids  # ids may come in a table of floats
        if quantity and name in (ground.reading.values or (name,)) and not np.isin(leaf, (0, 1)).all():
            moved = leaf.copy()
            moved[1:] = moved[1:] * 1.5 + ground.material.scale[name] * (leaf[1:] != 0)
            x[name] = moved.astype(leaf.dtype)
    mine = batch.valid.copy()
    mine[1:] = False
    return batch, x, mine


def neighbours_matter(ground: Ground, example: Example) -> Counterexample | None:
    """8. A sample's output does not depend on its neighbours in inference."""
    batch, x, mine = _other_neighbours(ground, example)
    moved = ground.moved(ground.bench.outputs(batch.x), ground.bench.outputs(x), mine)
    if moved is None:
        return None
    law = COUPLING.name
    words = (
        f"{samples(len(mine))}; the output of sample 0 moved by {moved.by:.3g} (tolerance "
        f"{moved.tolerance:.1g}) when only its "
    )
    words += "neighbours in the batch changed."
    return output_moved(
        law,
        "batch-coupling",
        words,
        batch.x,
        x,
        moved,
        example,
        remedy=_APART,
    )


_APART = (
    "In inference a prediction must be a function of its own sample: no statistics over the batch axis with "
    "training=False."
)


def order_matters(ground: Ground, example: Example) -> Counterexample | None:
    """8. Permuting the batch permutes the outputs."""
    batch = ground.batch(example)
    order = np.arange(len(batch.valid))[::-1]
    x = {name: leaf[order] for name, leaf in batch.x.items()}
    before = tuple(o[order] for o in ground.bench.outputs(batch.x))
    moved = ground.moved(before, ground.bench.outputs(x), batch.valid[order], reordered=batch)
    if moved is None:
        return None
    law = ORDER.name
    words = (
        f"{samples(len(order))}; an output moved by {moved.by:.3g} when the samples of the batch were put in "
        f"reverse order."
    )
    return output_moved(
        law,
        "batch-coupling",
        words,
        batch.x,
        x,
        moved,
        example,
        remedy=_APART,
    )


def _name_coupling(ground: Ground, found: Counterexample) -> Counterexample:
    example = ground.padded_example()
    batch, x, mine = _other_neighbours(ground, replace(example, seed=0))
    call = ground.layer_at_fault(batch.x, x, mine)
    if call is None:
        return found
    words = (
        f"{found.words} Layer `{call.path}` ({call.kind}) is the first whose output for a sample depends on "
        f"other samples."
    )
    return replace(found, where={**found.where, "layer": call.path}, words=words)


# ---------------------------------------------------------------------- the same call gives the same answer


def repeats(ground: Ground, example: Example) -> Counterexample | None:
    """11. The output is deterministic for a fixed seed, and in inference without one."""
    batch = ground.batch(example)
    for training, seeds, what in (
        (False, (0, 0), "two inference calls with the same seeds"),
        (False, (0, 1), "two inference calls with other seeds"),
        (True, (0, 0), "two training calls with the same seeds"),
    ):
        before, after = (_with_seed(ground, batch.x, training=training, seed=seed) for seed in seeds)
        moved = ground.moved(before, after, batch.valid)
        if moved is not None:
            law = REPEATS.name
            words = f"{samples(len(batch.valid))}; {what} differ by {moved.by:.3g}."
            return output_moved(
                law,
                "nondeterministic",
                words,
                batch.x,
                batch.x,
                moved,
                example,
                # A layer may draw in inference on purpose (a sampler); the same seeds must give the same answer.
                grave=seeds[0] == seeds[1],
                remedy="Draw from `keras.random` with a SeedGenerator that the layer owns, and only when training.",
                facts={"training": training, "seeds": list(seeds)},
            )
    return None


def _with_seed(ground: Ground, x: Leaves, *, training: bool, seed: int, taps: Taps | None = None) -> Any:
    with ground.bench.seeded(seed):
        return ground.bench.outputs(x, training=training, taps=taps)


def _name_repeats(ground: Ground, found: Counterexample) -> Counterexample:
    batch = ground.batch(ground.padded_example())
    traces = []
    for seed in found.facts["seeds"]:
        with ground.bench.seeded(seed):
            traces.append(ground.bench.calls(batch.x, training=bool(found.facts["training"])))
    from tsguard.laws.locate import first_dependent

    call = first_dependent(traces[0], traces[1], np.ones_like(batch.valid), allowance=ground.same)
    if call is None:
        return found
    words = f"{found.words} Layer `{call.path}` ({call.kind}) is the first to differ."
    return replace(
        found, where={**found.where, "layer": call.path}, words=words, facts={**found.facts, "kind": call.kind}
    )


# ---------------------------------------------------------------------- training differs by its noise alone


def updates_statistics(layer: Any) -> bool:
    """Layers whose training mode is meant to differ although they draw nothing."""
    import keras

    kinds = (keras.layers.BatchNormalization, keras.layers.SpectralNormalization, keras.layers.ActivityRegularization)
    return isinstance(layer, kinds)


def _calm(ground: Ground) -> Taps:
    """Layers that draw random numbers, or take statistics of the batch, run as in inference."""
    model = ground.bench.model
    return Taps(calm=lambda layer: layer is not model and (id(layer) in ground.drawing or updates_statistics(layer)))


def noise_is_in_layers(ground: Ground) -> str | None:
    """What the model's own call draws cannot be switched off: then no two training calls can be compared."""
    if id(ground.bench.model) in ground.drawing:
        return "the model's own call draws random numbers in training, outside any layer: its modes cannot be compared"
    return None


def training_differs(ground: Ground, example: Example) -> Counterexample | None:
    """11. Train and inference mode differ only through dropout and batch statistics."""
    batch = ground.batch(example)
    calm = _calm(ground)
    first = _with_seed(ground, batch.x, training=True, seed=0, taps=calm)
    second = _with_seed(ground, batch.x, training=True, seed=1, taps=calm)
    if ground.moved(first, second, batch.valid) is not None:
        return None  # what is left is random: a layer that draws in some calls only
    moved = ground.moved(ground.bench.outputs(batch.x), first, batch.valid, reordered=batch)
    if moved is None:
        return None
    law = TRAINING.name
    words = (
        f"{samples(len(batch.valid))}; with dropout and batch statistics switched off, training and inference "
        f"mode still differ by "
    )
    words += f"{moved.by:.3g} (tolerance {moved.tolerance:.1g})."
    return output_moved(
        law,
        "train-eval-gap",
        words,
        batch.x,
        batch.x,
        moved,
        example,
        remedy="What is measured must be what was trained: look for `if training:` (teacher forcing, another path).",
    )


def _name_training(ground: Ground, found: Counterexample) -> Counterexample:
    batch = ground.batch(ground.padded_example())
    one = ground.bench.calls(batch.x)
    two = ground.bench.calls(batch.x, training=True, taps=_calm(ground))
    from tsguard.laws.locate import first_dependent

    call = first_dependent(one, two, np.ones_like(batch.valid), allowance=4 * ground.noise)
    if call is None:
        return found
    words = f"{found.words} Layer `{call.path}` ({call.kind}) is the first to differ."
    return replace(found, where={**found.where, "layer": call.path}, words=words)


COUPLING = Law(
    "samples do not see each other",
    "batch-coupling",
    neighbours_matter,
    one_output_per_sample,
    neighbours,
    0.6,
    finish=_name_coupling,
)
ORDER = Law(
    "the order of the batch does not matter",
    "batch-coupling",
    order_matters,
    one_output_per_sample,
    neighbours,
    0.4,
    finish=_name_coupling,
)
REPEATS = Law(
    "the same call gives the same output", "nondeterministic", repeats, always, any_batches, 0.2, finish=_name_repeats
)
TRAINING = Law(
    "training mode differs by its noise alone",
    "train-eval-gap",
    training_differs,
    noise_is_in_layers,
    any_batches,
    0.2,
    finish=_name_training,
)
