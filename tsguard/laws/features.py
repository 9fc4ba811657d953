"""Laws of features: padded features behave like padded time.

The same questions as over time (values, NaN, gradients, the loss, more padding), asked over the feature axis, where a
mask of its own says which features count.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsguard.laws import losses, poison, tolerance
from tsguard.laws.batches import Example, Sample
from tsguard.laws.ground import Ground
from tsguard.laws.law import Law, at_layer, moved_words, output_moved, padded_features
from tsguard.laws.length import apart_in_loss
from tsguard.laws.padding import MASK_EARLIER, gradients_zero, leak
from tsguard.laws.results import Counterexample
from tsguard.laws.trace import Call

MORE = 2
"""Padded features that are added: one could stand for a bias, two cannot."""


def has_features(ground: Ground) -> str | None:
    """These laws need a mask of features, and more than one."""
    if ground.reading.features is None:
        return "no feature mask: declare it with tsguard.Padding(features=(axis, name of the mask input))"
    return None if ground.material.feature_size > 1 else "there is one feature only: it cannot be padded"


def feature_values(ground: Ground, example: Example) -> Counterexample | None:
    """9. Padded features behave like padded time: other values there change no valid output."""
    batch = ground.batch(example)
    x, _ = ground.variant(batch, example, over="features")
    moved = ground.moved(
        ground.bench.outputs(batch.x), ground.bench.outputs(x), batch.valid, features=(batch.features, batch.features)
    )
    if moved is None:
        return None
    return leak(ground, VALUES.name, batch, x, moved, "only what stands at padded features changed", example)


def feature_gradients(ground: Ground, example: Example) -> Counterexample | None:
    """9. … and have no gradient."""
    return gradients_zero(ground, example, "features", GRADIENTS.name)


_MASK_EARLIER = MASK_EARLIER.replace("positions", "features")


def _name_leak(ground: Ground, found: Counterexample) -> Counterexample:
    return at_layer(found, ground.pad_leak_call(over="features"), _MASK_EARLIER)


# ---------------------------------------------------------------------- NaN


def can_be_nan(ground: Ground) -> str | None:
    """NaN needs a float input with features."""
    reading = ground.reading
    floats = [
        name
        for name in reading.values
        if reading.rows[name].dtype.kind == "f"
        and name not in reading.ids
        and ground.material.feature_axis(name, reading.rows[name]) is not None
    ]
    return has_features(ground) or (None if floats else "no float input holds features")


def _nan_in_padding(ground: Ground) -> bool:
    """Whether the data at hand holds non-finite values at padded features."""
    reading, material = ground.reading, ground.material
    if reading.feature_valid is None:
        return False
    for name in reading.values:
        leaf = reading.rows[name]
        axis = material.feature_axis(name, leaf)
        if axis is not None and leaf.dtype.kind == "f":
            rows = np.moveaxis(leaf, axis, 1)
            if not np.isfinite(rows[~reading.feature_valid]).all():
                return True
    return False


def feature_nan(ground: Ground, example: Example) -> Counterexample | None:
    """9. NaN and inf at padded features reach no valid output."""
    return poison.forward(ground, example, NAN.name, "features", grave=_nan_in_padding(ground))


def feature_nan_backward(ground: Ground, example: Example) -> Counterexample | None:
    """9. … and no gradient."""
    return poison.backward(ground, example, NAN_BACKWARD.name, "features", grave=_nan_in_padding(ground))


def _name_nan(ground: Ground, found: Counterexample) -> Counterexample:
    batch = ground.batch(_telling(ground))
    x = poison.poisoned(ground, batch, float("nan"), "features")
    call = ground.layer_at_fault(batch.x, x, batch.valid, features=batch.features)
    return replace(at_layer(found, call, found.remedy), remedy=found.remedy)


def _telling(ground: Ground) -> Example:
    example = ground.padded_example()
    own = max(ground.material.feature_size // 2, 1)
    return replace(example, samples=tuple(Sample(s.length, s.row, own) for s in example.samples))


# ---------------------------------------------------------------------- the loss


def has_feature_targets(ground: Ground) -> str | None:
    """The loss is judged where targets have features."""
    reason = has_features(ground)
    if reason:
        return reason
    if not ground.bench.has_loss:
        return "the model is not compiled and no loss was given"
    if not any(ground.material.has_features(name) for name in ground.reading.target_rows):
        return "no target has one number per feature: none of them is padded"
    return None


def feature_targets(ground: Ground, example: Example) -> Counterexample | None:
    """9. Targets and predictions at padded features take no part in the loss."""
    return losses.counted(ground, example, TARGETS.name, "features", fixed=False, told=False, grave=_padded(ground))


def _padded(ground: Ground) -> bool:
    """Whether the data holds padded features."""
    return ground.reading.feature_valid is not None and not bool(ground.reading.feature_valid.all())


# ---------------------------------------------------------------------- more padded features


def can_have_more(ground: Ground) -> str | None:
    """More padding needs a model that takes more features than the data has."""
    reason = has_features(ground)
    if reason:
        return reason
    narrow = ground.batch(_telling(ground))
    try:
        ground.bench.outputs(ground.material.with_more_features(narrow, MORE).x)
    except Exception:  # whatever a model raises at a number of features it was not made for
        return f"the model runs at {ground.material.feature_size} features only: padded ones cannot be added"
    return None


def more_features(ground: Ground, example: Example) -> Counterexample | None:
    """9. More padded features change no valid output, loss or gradient."""
    narrow = ground.batch(example)
    wide = ground.material.with_more_features(narrow, MORE)
    moved = ground.moved(
        ground.bench.outputs(narrow.x),
        ground.bench.outputs(wide.x),
        narrow.valid,
        features=(narrow.features, wide.features),
        reordered=narrow,
    )
    law, added = LENGTH.name, f"{MORE} more padded features were added"
    if moved is not None:
        return output_moved(
            law,
            "pad-length",
            moved_words(ground, narrow.valid, moved, added),
            narrow.x,
            wide.x,
            moved,
            example,
            remedy=_MORE_REMEDY,
        )
    if ground.bench.has_loss and ground.reading.targets is not None:
        return apart_in_loss(ground, law, narrow, wide, added, example, padded=_padded(ground))
    return None


_MORE_REMEDY = (
    "The result must be a function of the valid features. Count them from their mask, not from the array's shape."
)


def _name_more(ground: Ground, found: Counterexample) -> Counterexample:
    if found.where.get("phase") == "loss":
        return found
    narrow = ground.batch(_telling(ground))
    wide = ground.material.with_more_features(narrow, MORE)
    one, two = ground.bench.calls(narrow.x), ground.bench.calls(wide.x)
    assert narrow.features is not None
    keep = (narrow.features, wide.features)
    return at_layer(found, _first_apart(one, two, keep, 4 * ground.noise), _MORE_REMEDY)


def _first_apart(one: list[Call], two: list[Call], keep: Any, allowance: float) -> Call | None:
    """The first layer whose inputs agree at features that count and whose outputs do not."""

    def agree(before: Any, after: Any) -> bool:
        return all(_same(a, b, keep, allowance) for a, b in zip(before, after, strict=False))

    for before, after in zip(one, two, strict=False):
        if before.layer is not after.layer:
            return None
        if agree(before.inputs, after.inputs) and not agree(before.outputs, after.outputs):
            return before
    return None


def _same(a: NDArray[Any], b: NDArray[Any], keep: Any, allowance: float) -> bool:
    sizes = tuple(flags.shape[1] for flags in keep)
    for axis in range(1, min(a.ndim, b.ndim)):
        if a.shape[axis] != b.shape[axis] and (a.shape[axis], b.shape[axis]) == sizes:
            a, b = (
                np.where(flags.reshape([len(flags), *([1] * (axis - 1)), -1, *([1] * (x.ndim - axis - 1))]), x, 0.0)
                for x, flags in zip((a, b), keep, strict=True)
            )
            b = np.take(b, np.arange(a.shape[axis]), axis=axis)
    return a.shape != b.shape or tolerance.close(a, b, allowance)


VALUES = Law(
    "padded features do not change valid outputs",
    "pad-leak-value",
    feature_values,
    has_features,
    padded_features,
    finish=_name_leak,
)
GRADIENTS = Law(
    "padded features have no gradient",
    "pad-leak-grad",
    feature_gradients,
    has_features,
    padded_features,
    0.3,
    finish=_name_leak,
)
NAN = Law(
    "NaN and inf at padded features reach no valid output",
    "pad-nan-poison",
    feature_nan,
    can_be_nan,
    padded_features,
    0.4,
    finish=_name_nan,
)
NAN_BACKWARD = Law(
    "NaN and inf at padded features reach no gradient",
    "pad-nan-poison",
    feature_nan_backward,
    can_be_nan,
    padded_features,
    0.3,
    finish=poison.name_backward,
)
TARGETS = Law(
    "targets at padded features do not change the loss",
    "pad-leak-loss",
    feature_targets,
    has_feature_targets,
    padded_features,
    0.4,
)
LENGTH = Law(
    "more padded features change nothing",
    "pad-length",
    more_features,
    can_have_more,
    padded_features,
    0.4,
    finish=_name_more,
)
