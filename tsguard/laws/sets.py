"""The law of sets: where the model claims that its features are a set, their order does not matter.

Whatever comes out is either the same for every order of the features and of their mask, or in that order itself.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsguard.laws import tolerance
from tsguard.laws.batches import Batch, Example
from tsguard.laws.ground import Ground, batch_words
from tsguard.laws.law import Law, any_batches
from tsguard.laws.results import Counterexample
from tsguard.laws.structure import Leaves


def claims_sets(ground: Ground) -> str | None:
    """The law binds models that claim it."""
    if not ground.reading.padding.feature_sets:
        return (
            "the model does not claim that its features are a set: declare it with tsguard.Padding(feature_sets=True)"
        )
    sizes = _sizes(ground)
    if not sizes:
        return "no input holds features"
    return None if max(sizes) > 1 else "there is one feature only: it has no order"


def _sizes(ground: Ground) -> list[int]:
    rows, material = ground.reading.rows, ground.material
    axes = {name: material.feature_axis(name, rows[name]) for name in ground.reading.values}
    return [rows[name].shape[axis] for name, axis in axes.items() if axis is not None]


def _permuted(ground: Ground, batch: Batch, seed: int) -> tuple[Leaves, NDArray[Any]]:
    """The inputs with their features, and the mask of these, in another order."""
    reading, size = ground.reading, max(_sizes(ground))
    order = np.random.default_rng(seed).permutation(size) if seed else np.arange(size)[::-1]
    if np.array_equal(order, np.arange(size)):
        order = np.roll(order, 1)
    x = dict(batch.x)
    for name, leaf in batch.x.items():
        if name in reading.values:
            axis = ground.material.feature_axis(name, leaf)
        else:
            # What else has one number per feature (their mask, their names as ids) goes along.
            axis = leaf.ndim - 1 if leaf.ndim > 1 and reading.time.get(name) != leaf.ndim - 1 else None
        if axis is not None and leaf.shape[axis] == size:
            x[name] = np.take(leaf, order, axis=axis)
    return x, order


def _follows(a: NDArray[Any], b: NDArray[Any], order: NDArray[Any], allowance: float, floor: float = 0.0) -> bool:
    """Whether the second array is the first as it was, or in the new order along an axis."""
    if a.shape != b.shape or tolerance.close(a, b, allowance, floor):
        return True
    axes = [axis for axis in range(1, a.ndim) if a.shape[axis] == len(order)]
    return any(tolerance.close(np.take(a, order, axis=axis), b, allowance, floor) for axis in axes)


def order_of_features(ground: Ground, example: Example) -> Counterexample | None:
    """9. Permuting sets of features with their masks permutes consistently."""
    batch = ground.batch(example)
    x, order = _permuted(ground, batch, example.seed)
    worst, limit, output = 0.0, 0.0, ""
    floors: list[float] = []
    outputs = zip(
        ground.reading.output_names,
        ground.bench.outputs(batch.x),
        ground.bench.outputs(x),
        ground.reading.output_time,
        strict=True,
    )
    for number, (name, one, two, time) in enumerate(outputs):
        if time is not None and len(one) == len(batch.valid):
            keep = batch.valid.reshape([len(batch.valid), *([1] * (time - 1)), -1, *([1] * (one.ndim - time - 1))])
            one, two = np.where(keep, one, 0.0), np.where(keep, two, 0.0)
        if _follows(one, two, order, ground.noise):
            continue
        floors = floors or ground.rounding(batch)
        if not _follows(one, two, order, ground.noise, floors[number]):
            limit = max(ground.noise * tolerance.scale_of(one, two), floors[number])
            worst, output = float(tolerance.movement(one, two).max()), name
    if not output:
        return None
    law = ORDER.name
    words = (
        f"{batch_words(batch.valid, right=ground.material.right)}; output `{output}` moved by {worst:.3g} (tolerance "
        f"{limit:.1g}) when the features and their mask were put in the order {order.tolist()}, and is not the old one "
        "in that order."
    )
    where = {"law": law, "phase": "forward", "output": output}
    return Counterexample(
        law, "feature-order", words, batch.x, x, worst, limit, where, size=example.size, remedy=_ORDER_REMEDY
    )


_ORDER_REMEDY = (
    "A set has no order: use the same weights for every feature and combine them by sums, means, maxima or attention "
    "under their mask; or do not claim feature_sets."
)


def _name_order(ground: Ground, found: Counterexample) -> Counterexample:
    batch = ground.batch(ground.padded_example())
    x, order = _permuted(ground, batch, 1)
    allowance = 4 * ground.noise

    def follow(before: Any, after: Any) -> bool:
        return all(_follows(a, b, order, allowance) for a, b in zip(before, after, strict=False))

    for one, two in zip(ground.bench.calls(batch.x), ground.bench.calls(x), strict=False):
        if follow(one.inputs, two.inputs) and not follow(one.outputs, two.outputs):
            words = f"{found.words} Layer `{one.path}` ({one.kind}) is the first whose output does not follow."
            return replace(found, where={**found.where, "layer": one.path}, words=words)
    return found


ORDER = Law(
    "the order of a set of features does not matter",
    "feature-order",
    order_of_features,
    claims_sets,
    any_batches,
    0.4,
    finish=_name_order,
)
