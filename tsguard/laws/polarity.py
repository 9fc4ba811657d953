"""Laws of the mask's meaning: it says what counts, the right way round, and is made from padding only.

Whether a mask is inverted is found by an experiment: the model, or only the layer at fault, is given the complement
of its mask. If that heals the leak, the polarity was wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from tsguard.laws.batches import Batch, Example, Sample
from tsguard.laws.ground import Ground, batch_words
from tsguard.laws.law import Law, any_batches, padded_batches
from tsguard.laws.masks import has_mask, leaks, with_mask
from tsguard.laws.results import Counterexample
from tsguard.laws.structure import Leaves
from tsguard.laws.trace import Taps, where_shaped, with_keras_mask, without_mask


def all_ones(ground: Ground, example: Example) -> Counterexample | None:
    """6. An implicit mask of all ones equals no mask."""
    full = tuple(Sample(example.width, s.row, 0) for s in example.samples)
    batch = ground.material.batch(full, example.width)
    strip = _stripped(ground, batch)
    masks = [
        c.mask_out
        for c in ground.bench.calls(batch.x)
        if c.mask_out is not None and c.mask_out.shape == batch.valid.shape
    ]
    if not masks or not masks[0].all():
        return None  # the data itself holds the pad value: another law's business
    before, after = ground.bench.outputs(batch.x, taps=strip), ground.bench.outputs(batch.x)
    moved = ground.moved(before, after, batch.valid, reordered=batch)
    if moved is None:
        return None
    law = ONES.name
    words = (
        f"{batch_words(batch.valid)}, nothing padded; the output moved by {moved.by:.3g} when the mask was taken off."
    )
    return Counterexample(
        law,
        "mask-inverted",
        words,
        batch.x,
        batch.x,
        moved.by,
        moved.tolerance,
        {"law": law, "phase": "forward"},
        size=example.size,
        remedy="In Keras a mask is True where a step counts. Check where it is negated.",
    )


def _stripped(ground: Ground, batch: Batch) -> Taps:
    strip = where_shaped(batch.valid.shape, without_mask)
    return Taps(outputs={id(maker.layer): strip for maker in ground.reading.makers})


def _name_all_ones(ground: Ground, found: Counterexample) -> Counterexample:
    width = ground.telling_width
    count = ground.reading.batch_size or 1
    batch = ground.material.batch([Sample(width, i) for i in range(count)], width)
    strip = _stripped(ground, batch)
    call = ground.layer_at_fault(batch.x, batch.x, batch.valid, first_taps=strip, allowance=4 * ground.noise)
    return (
        found
        if call is None
        else replace(
            found,
            where={**found.where, "layer": call.path},
            words=f"{found.words} Layer `{call.path}` ({call.kind}) is the first to differ.",
        )
    )


def has_implicit_mask(ground: Ground) -> str | None:
    """This law takes a mask off, which only an implicit one allows."""
    if ground.reading.mask_kind != "keras":
        return has_mask(ground) or "the mask is an input: the model cannot be called without it"
    return None


def polarity(ground: Ground, example: Example) -> Counterexample | None:
    """6. A mask whose polarity is inverted is recognised: the complement heals the leak."""
    if not leaks(ground):
        return None
    batch = ground.batch(ground.padded_example())
    example = ground.padded_example()
    x, taps = ground.variant(batch, example, force=True)
    if ground.moved(ground.bench.outputs(batch.x), ground.bench.outputs(x, taps=taps), batch.valid) is None:
        return None
    where = (
        _turned_by(ground, batch)
        or _healed_as_a_whole(ground, batch, x, taps)
        or _healed_at_layer(ground, batch, x, taps)
    )
    if where is None:
        return None
    law = POLARITY.name
    words = (
        f"{batch_words(batch.valid, right=ground.material.right)}; {where['words']} is the wrong way round: with "
        f"its complement, the "
        "valid outputs do not depend on padded positions, and do depend on the valid ones."
    )
    place = {key: value for key, value in where.items() if key != "words"}
    return Counterexample(
        law,
        "mask-inverted",
        words,
        batch.x,
        x,
        where={"law": law, "phase": "forward", **place},
        size=example.size,
        remedy="True (1) means: this step counts. Negate the mask once (`ops.logical_not`) or remove the negation.",
    )


def _turned_by(ground: Ground, batch: Batch) -> dict[str, Any] | None:
    """A layer that hands on the complement of the mask that it got."""
    for call in ground.bench.calls(batch.x):
        if call.mask_in is None or call.mask_out is None or call.mask_in.shape != call.mask_out.shape:
            continue
        if np.array_equal(call.mask_out, ~call.mask_in):
            return {"words": f"the mask that layer `{call.path}` ({call.kind}) hands on", "layer": call.path}
    return None


def _healed_as_a_whole(ground: Ground, batch: Batch, x: Leaves, taps: Taps | None) -> dict[str, Any] | None:
    reading = ground.reading
    if reading.mask_kind == "input":
        plain, changed = with_mask(ground, batch.x, ~batch.valid), with_mask(ground, x, ~batch.valid)
        if _heals(ground, batch, plain, changed):
            call = ground.pad_leak_call()
            return {
                "words": f"mask input `{reading.mask}`",
                "input": reading.mask,
                "layer": call.path if call else None,
            }
        return None
    flipped = where_shaped(batch.valid.shape, _complement_mask)
    makers = {id(maker.layer): flipped for maker in reading.makers}
    first = taps.outputs if taps else {}
    both: Mapping[int, Any] = {key: _after(first[key], flip) if key in first else flip for key, flip in makers.items()}
    if _heals(ground, batch, batch.x, x, Taps(outputs=makers), Taps(outputs=both)):
        return {"words": f"the mask of layer `{reading.makers[0].path}`", "layer": reading.makers[0].path}
    return None


def _after(first: Callable[[Any, Any], Any], second: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def both(output: Any, mask: Any) -> Any:
        done = first(output, mask)
        return second(done, getattr(done, "_keras_mask", mask))

    return both


def _complement_mask(output: Any, mask: Any) -> Any:
    if mask is None:
        return output
    return with_keras_mask(output, ~mask.bool())


def _healed_at_layer(ground: Ground, batch: Batch, x: Leaves, taps: Taps | None) -> dict[str, Any] | None:
    call = ground.pad_leak_call()
    if call is None or call.layer is ground.bench.model:
        return None
    flip = {id(call.layer): _complement_arguments}
    changed = Taps(outputs=taps.outputs if taps else {}, arguments=flip)
    if not _heals(ground, batch, batch.x, x, Taps(arguments=flip), changed):
        return None
    return {"words": f"the mask given to layer `{call.path}` ({call.kind})", "layer": call.path}


def _complement_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The call with each mask turned round: what is named so, what is two-valued, and what is attached to the
    inputs."""
    import torch

    def two_valued(value: Any) -> bool:
        return isinstance(value, torch.Tensor) and value.ndim >= 2 and bool(((value == 0) | (value == 1)).all())

    def turned(value: Any) -> Any:
        return ~value if value.dtype == torch.bool else 1 - value

    flipped = []
    for position, value in enumerate(args):
        if position and two_valued(value):
            value = turned(value)
        elif isinstance(value, torch.Tensor) and getattr(value, "_keras_mask", None) is not None:
            value = _complement_mask(value, value._keras_mask)
        flipped.append(value)
    named = {key: turned(value) if "mask" in key and two_valued(value) else value for key, value in kwargs.items()}
    return tuple(flipped), named


def _heals(
    ground: Ground,
    batch: Batch,
    plain: Leaves,
    changed: Leaves,
    taps: Taps | None = None,
    changed_taps: Taps | None = None,
) -> bool:
    """Whether padded positions no longer count with these taps, while valid ones still do."""
    try:
        before = ground.bench.outputs(plain, taps=taps)
        if not all(np.isfinite(b).all() for b in before):
            return False
        if ground.moved(before, ground.bench.outputs(changed, taps=changed_taps), batch.valid) is not None:
            return False
        other = dict(plain)
        rng = np.random.default_rng(7)
        for name in ground.reading.values:
            keep = ground.material.padded_positions(name, batch, "time")
            other[name] = np.where(
                keep, plain[name], ground.material.other_values(name, plain[name], "data", rng)
            ).astype(plain[name].dtype)
        return ground.moved(before, ground.bench.outputs(other, taps=taps), batch.valid) is not None
    except Exception:  # a model may refuse the complement (an all-masked row): then nothing was shown
        return False


def true_values_masked(ground: Ground, example: Example) -> Counterexample | None:
    """The mask hides padding only: a step between valid ones that happens to hold the pad value is not padded."""
    holes = ground.reading.holes
    if not holes:
        return None
    row, step = holes[0]
    maker = ground.reading.makers[0]
    law = TRUE_VALUES.name
    count = len(ground.reading.valid)
    words = (
        f"row {row}, step {step} lies between valid steps, but layer `{maker.path}` masks it: its values equal "
        f"the mask value. "
        f"{len(holes)} such steps in the first {count} rows."
    )
    x = {name: leaf[row : row + 1] for name, leaf in ground.reading.rows.items()}
    return Counterexample(
        law,
        "data-sentinel",
        words,
        x,
        {},
        where={"law": law, "phase": "data", "layer": maker.path, "row": row, "timestep": step},
        facts={"steps": [list(h) for h in holes[:50]]},
        remedy="Choose a mask value that the data never takes, or pass a mask made from the true lengths.",
    )


def masks_values(ground: Ground) -> str | None:
    """Only a mask that is read from values can mistake them."""
    return None if ground.reading.mask_kind == "keras" else "no layer reads a mask from values"


ONES = Law(
    "a mask of all ones equals no mask",
    "mask-inverted",
    all_ones,
    has_implicit_mask,
    any_batches,
    0.4,
    finish=_name_all_ones,
)
POLARITY = Law("the mask is read the right way round", "mask-inverted", polarity, has_mask, padded_batches, once=True)
TRUE_VALUES = Law(
    "true values are not taken for padding",
    "data-sentinel",
    true_values_masked,
    masks_values,
    padded_batches,
    once=True,
)
