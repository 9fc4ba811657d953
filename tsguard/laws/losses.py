"""The law of the loss: what is padded takes no part in it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tsguard.laws import tolerance
from tsguard.laws.batches import Batch, Example
from tsguard.laws.bench import packed
from tsguard.laws.ground import Ground, batch_words
from tsguard.laws.law import (
    Law,
    not_padded,
    padded_batches,
)
from tsguard.laws.results import Counterexample
from tsguard.laws.structure import Leaves


def has_padded_targets(ground: Ground) -> str | None:
    """Law 3 needs a loss and targets with a time axis."""
    reason = not_padded(ground)
    if reason:
        return reason
    if not ground.bench.has_loss:
        return "the model is not compiled and no loss was given"
    if not ground.reading.target_time:
        return "the targets have no time axis: none of them is padded"
    return None if max(ground.widths) > 1 else "the model takes one step only: nothing can be padded"


def _other_targets(ground: Ground, batch: Batch, seed: int, over: str) -> Leaves:
    rng = np.random.default_rng(seed)
    y = dict(batch.y)
    for name, leaf in batch.y.items():
        padded = _padded_target(ground, batch, name, over)
        if padded is None:
            continue
        own = ground.reading.target_rows[name]
        if leaf.dtype.kind in "iub" or bool(np.isin(own, (0, 1)).all()):
            pool = np.unique(own)
            other = pool[
                (np.searchsorted(pool, leaf).clip(0, len(pool) - 1) + 1 + rng.integers(0, max(len(pool) - 1, 1)))
                % len(pool)
            ]
        else:
            other = leaf + _size(own) * rng.uniform(0.5, 1.5, leaf.shape)
        y[name] = np.where(padded, other, leaf).astype(leaf.dtype)
    return y


def _padded_target(ground: Ground, batch: Batch, name: str, over: str) -> Any:
    """Where a target is padded, or None where it has no such axis."""
    leaf, axis = batch.y[name], ground.reading.target_time.get(name)
    if over == "time":
        flags = ~batch.valid
    elif ground.material.has_features(name) and batch.features is not None:
        flags, axis = ~batch.features, leaf.ndim - 1
    else:
        return None
    if axis is None:
        return None
    shape = [1] * leaf.ndim
    shape[0], shape[axis] = flags.shape
    return np.broadcast_to(flags.reshape(shape), leaf.shape)


def _size(own: Any) -> float:
    return float(np.abs(own[np.isfinite(own)]).max(initial=0.0)) or 1.0


def padded_targets(ground: Ground, example: Example) -> Counterexample | None:
    """3. The loss and the metrics do not change with targets at padded positions, nor with predictions there."""
    fixed = ground.says_nothing_where_padded
    return counted(
        ground,
        example,
        TARGETS.name,
        "time",
        fixed=fixed,
        told=told_by_targets(ground),
        # No row is padded: nothing has gone wrong yet. Neither predictions nor targets at padded positions ever differ:
        # what they add to the loss has no gradient.
        grave=not bool(ground.reading.valid.all()) and not (fixed and _one_padded_target(ground)),
    )


def counted(
    ground: Ground, example: Example, law: str, over: str, *, fixed: bool, told: bool, grave: bool
) -> Counterexample | None:
    """Whether the loss or a metric counts what is padded.

    `fixed`: predictions there are a constant and cannot be anything else; `told`: the loss may read from the targets
    what is padded, so that another value there would be a target.
    """
    batch = ground.batch(example)
    before = ground.loss(batch)
    allowance = ground.same * abs(before)
    y, what, changed = batch.y, "loss", "predictions"
    values = (before, before if fixed else ground.loss(batch, disturb=example.seed + 1, over=over))
    if tolerance.apart(*values) <= allowance and not told:
        y, changed = _other_targets(ground, batch, example.seed, over), "targets"
        values = (before, ground.loss(batch, y=y))
        if tolerance.apart(*values) <= allowance:
            metric = _moved_metric(ground, batch, y)
            if metric is None:
                return None
            what, values = metric
    by = tolerance.apart(*values)
    if by <= allowance:
        return None
    words = (
        f"{batch_words(batch.valid, right=ground.material.right)}; the {what} went from {values[0]:.6g} to "
        f"{values[1]:.6g} when only {changed} at padded {'positions' if over == 'time' else 'features'} changed."
    )
    if fixed and not grave:
        words += " In the data all of them are the same, so that nothing but the size of the mean is wrong today."
    return Counterexample(
        law,
        "pad-leak-loss",
        words,
        {**batch.x, **prefixed(batch.y)},
        {**batch.x, **prefixed(y)},
        by,
        allowance,
        {"law": law, "phase": "loss"},
        size=example.size,
        grave=what == "loss" and grave,  # a metric misleads but does not train
        remedy="The mean must be over valid positions: pass `sample_weight=mask`, keep the implicit mask up to the "
        "output, or divide the masked sum by the number of valid positions.",
    )


def _one_padded_target(ground: Ground) -> bool:
    """Whether every padded target of the data holds the same value."""
    return all(ground.material.target_pad(name) is not None for name in ground.reading.target_time)


def told_by_targets(ground: Ground) -> bool:
    """Whether one value stands at every padded target and at no valid one.

    The loss may read the padding from it, so that another value there would be a target.
    """
    for name in ground.reading.target_time:
        pad = ground.material.target_pad(name)
        if pad is not None and not bool((ground.material.valid_targets(name) == pad).any()):
            return True
    return False


def _moved_metric(ground: Ground, batch: Batch, y: Leaves) -> tuple[str, tuple[float, float]] | None:
    if not getattr(ground.bench.model, "compiled", False) or ground.bench.own_loss is not None:
        return None
    structure = ground.reading.targets
    one = ground.bench.metrics(batch.x, packed(structure, batch.y), batch.weight)
    two = ground.bench.metrics(batch.x, packed(structure, y), batch.weight)
    for name, value in one.items():
        if tolerance.apart(value, two.get(name, value)) > 16 * ground.same * max(abs(value), 1e-30):
            return f"metric `{name}`", (value, two[name])
    return None


def prefixed(leaves: Leaves) -> Leaves:
    """Targets as leaves beside those of the inputs."""
    return {f"y[{name}]": leaf for name, leaf in leaves.items()}


def _name_loss(ground: Ground, found: Counterexample) -> Counterexample:
    lost = ground.mask_lost
    if lost is None:
        return found
    words = f"{found.words} Layer `{lost.path}` ({lost.kind}) loses the mask, so the loss cannot see it."
    return replace(found, where={**found.where, "layer": lost.path}, words=words)


TARGETS = Law(
    "padded targets do not change the loss",
    "pad-leak-loss",
    padded_targets,
    has_padded_targets,
    padded_batches,
    0.6,
    finish=_name_loss,
)
