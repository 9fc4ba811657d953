"""How often the classes come, among all labels that count: one label for each row, or one for each of its steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tsguard import catalogue
from tsguard.checks import data_weights
from tsguard.checks.arrays import Named, classes_of, inputs, losses_of, may_be_classes, targets
from tsguard.checks.registry import Context, check
from tsguard.evidence import Evidence
from tsguard.findings import Finding
from tsguard.probes.answers import predict
from tsguard.probes.baselines import foretells_its_inputs
from tsguard.probes.score import sample
from tsguard.probes.stage import flat

MAJORITY = 0.9
"""Share of one class from which accuracy says little: always answering it is right nine times in ten."""

RARE = 20.0
"""The commonest class is this many times as frequent as the rarest: a batch of 32 holds one of the rarest or none."""

LEAST_LABELS = 20
"""Labels from which shares of a tenth can be told at all."""

MOST_KINDS = 100
"""A vocabulary has its own law of frequency."""

WEIGHED = 1.25
"""Mean weight of one class over that of another from which weights tell classes apart: weights of other things (how
sure a row is, how old) are about the same for all of them."""


@check("classes far from equal", codes=("data-imbalance",), needs=("data", "arrays", "y"), cost=1)
def classes_far_from_equal(context: Context) -> Iterable[Finding]:
    """One class nearly everywhere, or one nearly nowhere."""
    for one in targets(context):
        labels = _labels(context, one)
        if labels is None or not may_be_classes(context):
            continue
        weights = _weights(context, len(one.array), len(labels))
        if weights is None:
            continue  # weights of another shape: they are known and nobody here can say of what
        counted = (weights > 0) & _not_padded(context, one, len(labels))
        labels, weights = labels[counted], weights[counted]
        if len(labels) < LEAST_LABELS or _is_weighed(context, labels, weights):
            continue
        kinds, counts = np.unique(labels, return_counts=True)
        if not 2 <= len(kinds) <= MOST_KINDS:
            continue  # one class is `data-constant`
        share, least = counts.max() / counts.sum(), counts.min() / counts.sum()
        if share < MAJORITY and counts.max() < RARE * counts.min():
            continue
        if any(foretells_its_inputs(other.array, one.array) for other in inputs(context)):
            continue  # what comes next in a language comes as often as its law has it
        if len(kinds) > 2 and not losses_of(context.model) and _answers_with_one_number(context):
            continue  # an own likelihood of counts: one number tells no classes from each other
        often, seldom = kinds[counts.argmax()], kinds[counts.argmin()]
        message = (
            f"target {one.name!r}: class {often} holds {share:.1%} of {counts.sum():,} labels and class {seldom} "
            f"{least:.1%} ({counts.min():,}). Always answering {often} is {share:.1%} right."
        )
        evidence = [Evidence("value", {str(k): int(c) for k, c in zip(kinds, counts, strict=True)}, name="classes")]
        yield catalogue.finding("data-imbalance", message, where=one.where(), evidence=evidence, score=0.4)


def _answers_with_one_number(context: Context) -> bool:
    """Whether a model whose loss has no name answers each row with one number."""
    if context.model is None or context.data is None:
        return False
    try:
        rows = sample(context.data, 2)
        return rows is not None and all(a.numel() == len(a) for a in flat(predict(context.model, rows.x)))
    except Exception:  # a model that fails on its own data says so elsewhere
        return False


def _labels(context: Context, one: Named) -> Any:
    """Class numbers, one after another; None where the target is no classification.

    Two-dimensional numbers may be labels of steps, or several labels of a row: the loss or the answer says which.
    """
    losses, array = losses_of(context.model), one.array
    sparse = bool(losses) and all("sparse" in name for name in losses)
    shape = getattr(context.model, "output_shape", None) if getattr(context.model, "built", False) else None
    of_steps = isinstance(shape, tuple) and len(shape) == array.ndim + 1 and shape[-1] == 1
    if array.ndim >= 2 and array.shape[-1] > 1 and (sparse or of_steps):
        whole = array.dtype.kind in "iub" or bool((array == np.floor(array)).all())
        return array.ravel().astype(np.int64) if whole else None
    return classes_of(one)


def _weights(context: Context, rows: int, labels: int) -> Any:
    """The weight of each label; None where there are weights that do not fit them."""
    given = context.data.sample_weight if context.data is not None else None
    given = context.fit.get("sample_weight") if given is None else given
    if given is None:
        return np.ones(labels)
    if isinstance(given, Mapping | list | tuple):
        return None
    weights = np.asarray(given, dtype=np.float64).reshape(-1)
    if len(weights) == rows and labels % rows == 0:
        weights = np.repeat(weights, labels // rows)
    return weights if len(weights) == labels and np.isfinite(weights).all() else None


def _not_padded(context: Context, one: Named, labels: int) -> Any:
    """The labels of steps that a mask, the loss or an empty input does not leave out."""
    ignored = getattr(getattr(context.model, "loss", None), "ignore_class", None)
    keep = np.ones(labels, bool) if ignored is None else one.array.reshape(labels, -1)[:, 0] != ignored
    shape = one.array.shape[:2]
    if one.array.ndim < 2 or labels != int(np.prod(shape)):
        return keep
    of_steps = [given for given in inputs(context) if given.array.shape[:2] == shape]
    for given in of_steps:
        keep &= True if given.valid is None else given.valid.reshape(-1)
    empty = [~given.array.reshape(labels, -1).any(axis=1) for given in of_steps]
    return keep & ~np.logical_and.reduce(empty) if empty else keep


def _is_weighed(context: Context, labels: Any, weights: Any) -> bool:
    """Weights that differ from class to class, or a loss made for rare classes: it is known and dealt with."""
    means = [float(weights[labels == kind].mean()) for kind in np.unique(labels)]
    by_weight = bool(means) and max(means) > WEIGHED * min(means)
    by_loss = any(word in name for name in losses_of(context.model) for word in ("focal", "weighted"))
    by_class = len(set(data_weights.effective_weights(context, labels).values())) > 1
    return by_weight or by_loss or by_class
