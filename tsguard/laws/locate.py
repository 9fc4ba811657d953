"""The first layer at which positions that count begin to depend on positions that do not.

Two traces of the same model, which differ only at positions that do not count, are compared call by call at the
positions that do: the first call whose inputs agree there and whose outputs do not is where the dependence enters.
Where the layers inside a composite see changed inputs already, the composite's own code did it, and the composite,
which returns later, is the first such call.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tsguard.laws import tolerance
from tsguard.laws.trace import Call

Flags = NDArray[np.bool_]


def _parts(array: NDArray[np.float64], valid: Flags, features: Flags | None = None) -> list[NDArray[np.float64]]:
    """Per sample, what stands at positions that count: along every axis as long as the batch is wide (and along
    patches of it)."""
    if (
        features is not None
        and array.ndim >= 2
        and array.shape[0] == len(features)
        and array.shape[-1] == features.shape[1]
    ):
        array = np.where(features.reshape(len(features), *([1] * (array.ndim - 2)), -1), array, 0.0)
    count, width = valid.shape
    if array.ndim == 0 or array.shape[0] != count:
        return [array] if array.ndim == 0 else []
    parts = []
    along = [axis for axis in range(1, array.ndim) if array.shape[axis] == width]
    flags, axes = valid, along
    if not along and array.ndim == 2 and width > 1 and array.shape[1] % width == 0 and array.shape[1] > width:
        array = array.reshape(count, width, -1)  # time flattened together with the features
        axes = [1]
    elif not along and array.ndim >= 3 and 1 < array.shape[1] < width and width % array.shape[1] == 0:
        flags = np.asarray(valid.reshape(count, array.shape[1], -1).all(axis=2))  # patches of time
        axes = [1]
    for sample, keep in zip(array, flags, strict=True):
        if axes:
            for axis in axes:
                sample = np.compress(keep, sample, axis=axis - 1)
        elif not keep.any():
            sample = sample[:0] if sample.ndim else sample.reshape(1)[:0]
        parts.append(sample)
    return parts


def differs(
    before: Sequence[NDArray[np.float64]],
    after: Sequence[NDArray[np.float64]],
    valid: tuple[Flags, Flags],
    allowance: float,
    features: Flags | None = None,
) -> bool:
    """Whether positions that count moved by more than `allowance`, relative to the size of the array."""
    for one, other in zip(before, after, strict=False):
        left, right = _parts(one, valid[0], features), _parts(other, valid[1], features)
        for a, b in zip(left, right, strict=False):
            if a.shape != b.shape:
                continue
            moved = tolerance.movement(a, b).max(initial=0.0)
            if moved > allowance * max(tolerance.scale_of(a, b), np.finfo(float).tiny):
                return True
    return False


def first_dependent(
    before: Sequence[Call],
    after: Sequence[Call],
    valid: Flags,
    other: Flags | None = None,
    *,
    allowance: float,
    features: Flags | None = None,
) -> Call | None:
    """The call at which the dependence enters. `features` are those that count, where the inputs hold padded ones."""
    both = (valid, valid if other is None else other)
    for one, two in zip(before, after, strict=False):
        if one.layer is not two.layer:
            return None
        if not differs(one.inputs, two.inputs, both, allowance, features) and differs(
            one.outputs, two.outputs, both, allowance, features
        ):
            return one
    return None


def mask_lost_at(calls: Sequence[Call]) -> Call | None:
    """The first call that takes a mask and gives tensors without one, though the mask has not done its work.

    A layer with a `mask` argument whose output has no steps any more has used it; one whose output still has steps has
    not handed it on (Lambda is such a layer).
    """
    for call in calls:
        if call.mask_in is None or call.mask_out is not None or _is_composite(call):
            continue
        if not _uses_mask(call) or any(output.shape[:2] == call.mask_in.shape for output in call.outputs):
            return call
    return None


def _uses_mask(call: Call) -> bool:
    signature = getattr(call.layer, "_call_signature", None)
    return signature is not None and any("mask" in name for name in signature.parameters)


def _is_composite(call: Call) -> bool:
    """Models and custom layers made of layers: their sublayers speak for themselves."""
    layers = getattr(call.layer, "_layers", None)
    return bool(layers)


__all__ = ["differs", "first_dependent", "mask_lost_at"]
