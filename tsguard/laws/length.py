"""The law of length: more padding changes neither outputs nor loss nor gradients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tsguard.laws import tolerance
from tsguard.laws.batches import Batch, Example, Sample
from tsguard.laws.ground import Ground, batch_words
from tsguard.laws.law import (
    Law,
    at_layer,
    moved_words,
    not_padded,
    output_moved,
    padded_batches,
    two_widths,
)
from tsguard.laws.losses import prefixed
from tsguard.laws.results import Counterexample


def can_lengthen(ground: Ground) -> str | None:
    """Law 4 needs two widths."""
    reason = not_padded(ground)
    if reason:
        return reason
    if len(ground.reading.widths) < 2:
        return f"the model runs at a width of {ground.reading.width} steps only: padding cannot be added"
    return None


def _second(ground: Ground, example: Example) -> tuple[Batch, Batch]:
    samples = tuple(Sample(min(s.length, example.width), s.row, s.features) for s in example.samples)
    return ground.material.batch(samples, example.width), ground.material.batch(samples, example.more or example.width)


def _added(example: Example) -> str:
    count = example.more - example.width
    return "1 more padded step was added" if count == 1 else f"{count} more padded steps were added"


def more_padding(ground: Ground, example: Example) -> Counterexample | None:
    """4. More padding does not change valid outputs."""
    narrow, wide = _second(ground, example)
    before, after = ground.bench.outputs(narrow.x), ground.bench.outputs(wide.x)
    moved = ground.moved(before, after, narrow.valid, wide.valid, reordered=narrow)
    if moved is None:
        return None
    law = LENGTH.name
    words = moved_words(ground, narrow.valid, moved, _added(example))
    return output_moved(
        law,
        "pad-length",
        words,
        narrow.x,
        wide.x,
        moved,
        example,
        remedy=_LENGTH_REMEDY,
    )


def more_padding_in_loss(ground: Ground, example: Example) -> Counterexample | None:
    """4. … nor the loss."""
    narrow, wide = _second(ground, example)
    padded = not bool(ground.reading.valid.all())
    return apart_in_loss(ground, LENGTH_LOSS.name, narrow, wide, _added(example), example, padded=padded)


def apart_in_loss(
    ground: Ground, law: str, narrow: Batch, wide: Batch, added: str, example: Example, *, padded: bool
) -> Counterexample | None:
    """Whether the loss of the same samples moved when more was padded, where the outputs did not.

    `padded`: whether the data at hand holds such padding; where it does not, nothing has gone wrong yet.
    """
    one, two = ground.loss(narrow), ground.loss(wide)
    by, limit = tolerance.apart(one, two), ground.noise * max(abs(one), abs(two))
    if by > limit:
        limit = max(limit, *ground.rounding(narrow, lambda x: (np.array(ground.loss(replace(narrow, x=x))),)))
    if by <= limit:
        return None
    words = f"{batch_words(narrow.valid, right=ground.material.right)}; the loss went from {one:.6g} to {two:.6g} when "
    words += f"{added} (the outputs did not move)."
    # The sum stays and the number of positions grows: the loss keeps its direction and loses some of its size.
    sizes = [
        batch.valid.size * (batch.features.shape[1] if batch.features is not None else 1) for batch in (narrow, wide)
    ]
    diluted = tolerance.apart(one * sizes[0], two * sizes[1]) <= limit * sizes[1]
    if diluted:
        words += " It is the same sum over more positions: only its scale moves."
    return Counterexample(
        law,
        "pad-length",
        words,
        {**narrow.x, **prefixed(narrow.y)},
        {**wide.x, **prefixed(wide.y)},
        by,
        limit,
        {"law": law, "phase": "loss"},
        size=example.size,
        # Where padded targets count too, that is the finding. Keras itself divides by the number of positions where it
        # is given sample weights: a loss that is only diluted still has the right direction.
        grave=not diluted and "pad-leak-loss" not in ground.broken and padded,
        remedy="Divide the sum over valid steps by their number, not by the size of the array.",
    )


def has_loss_to_lengthen(ground: Ground) -> str | None:
    """The loss is judged where it is not a function of outputs that already moved."""
    reason = can_lengthen(ground)
    if reason:
        return reason
    if not ground.bench.has_loss or ground.reading.targets is None:
        return "the model is not compiled, or there are no targets"
    return "the outputs move already, and the loss with them" if "pad-length" in ground.broken else None


_LENGTH_REMEDY = (
    "The result must be a function of the valid steps. Count positions and means from the mask, not "
    "from the array's shape."
)


def _name_length(ground: Ground, found: Counterexample) -> Counterexample:
    widths = ground.telling_widths if len(ground.telling_widths) > 1 else ground.reading.widths
    narrow_width, wide_width = widths[0], widths[1]
    length = max(narrow_width - 1, 1)
    count = ground.reading.batch_size or 1
    # A full sample has no padding at the narrow width, so that the wide one differs by padding alone.
    samples = (Sample(narrow_width, 0), *(Sample(length, i) for i in range(1, count)))
    narrow, wide = ground.material.batch(samples, narrow_width), ground.material.batch(samples, wide_width)
    call = ground.layer_at_fault(narrow.x, wide.x, narrow.valid, wide.valid, allowance=4 * ground.noise)
    if call is None:
        call = ground.pad_leak_call()
    return at_layer(found, call, _LENGTH_REMEDY)


def more_padding_gradients(ground: Ground, example: Example) -> Counterexample | None:
    """4. … nor gradients."""
    if "pad-length" in ground.broken:
        return None
    narrow, wide = _second(ground, example)
    one = ground.bench.gradients(narrow.x, ground.projection(narrow))
    two = ground.bench.gradients(wide.x, ground.projection(wide))
    law = LENGTH_GRADIENTS.name
    size = max((tolerance.scale_of(g) for g in one.weights.values()), default=0.0)
    # A gradient is two passes of the same sums: twice the noise, at the size of the largest gradient.
    limit = 2 * ground.noise * size
    apart = {
        path: float(tolerance.movement(gradient, two.weights[path]).max(initial=0.0))
        for path, gradient in one.weights.items()
    }
    name = max(apart, key=apart.__getitem__, default="")
    worst = apart.get(name, 0.0)
    if worst > limit:
        project = ground.projection(narrow)
        limit = max(limit, *ground.rounding(narrow, lambda x: (*ground.bench.gradients(x, project).weights.values(),)))
    if worst <= limit:
        return None
    words = (
        f"{batch_words(narrow.valid, right=ground.material.right)}; the gradient of `{name}` moved by {worst:.3g} "
        f"(tolerance "
        f"{limit:.1g}) when {_added(example)}."
    )
    where = {"law": law, "phase": "backward", "parameter": name}
    return Counterexample(
        law, "pad-length", words, narrow.x, wide.x, worst, limit, where, size=example.size, remedy=_LENGTH_REMEDY
    )


# ---------------------------------------------------------------------- either side


def claims_either_side(ground: Ground) -> str | None:
    """The law binds models that claim it."""
    if not ground.reading.padding.either_side:
        return "the model does not claim that either side will do: declare it with tsguard.Padding(either_side=True)"
    reason = not_padded(ground)
    if reason:
        return reason
    return None if max(ground.widths) > 1 else "the model takes one step only: nothing can be padded"


def either_side(ground: Ground, example: Example) -> Counterexample | None:
    """4. Left and right padding agree."""
    right, left = (ground.material.batch(example.samples, example.width, right=side) for side in (True, False))
    before, after = ground.bench.outputs(right.x), ground.bench.outputs(left.x)
    moved = ground.moved(before, after, right.valid, left.valid, reordered=right)
    if moved is None:
        return None
    law = SIDES.name
    words = moved_words(ground, right.valid, moved, "the same rows were padded on the left")
    return output_moved(
        law,
        "pad-length",
        words,
        right.x,
        left.x,
        moved,
        example,
        remedy=_SIDE_REMEDY,
    )


_SIDE_REMEDY = (
    "Count positions from the first valid step (`cumsum(mask) - 1`) and find the last one from the mask, not from the "
    "array; or do not claim either_side."
)


def _name_side(ground: Ground, found: Counterexample) -> Counterexample:
    example = ground.padded_example()
    right, left = (ground.material.batch(example.samples, example.width, right=side) for side in (True, False))
    call = ground.layer_at_fault(right.x, left.x, right.valid, left.valid, allowance=4 * ground.noise)
    return at_layer(found, call, _SIDE_REMEDY)


LENGTH = Law(
    "more padding changes no output", "pad-length", more_padding, can_lengthen, two_widths, finish=_name_length
)
LENGTH_GRADIENTS = Law(
    "more padding changes no gradient", "pad-length", more_padding_gradients, can_lengthen, two_widths, 0.3
)
LENGTH_LOSS = Law(
    "more padding does not change the loss", "pad-length", more_padding_in_loss, has_loss_to_lengthen, two_widths, 0.3
)
SIDES = Law(
    "padding on either side gives the same",
    "pad-length",
    either_side,
    claims_either_side,
    padded_batches,
    0.6,
    finish=_name_side,
)
