"""Weights that reach no row, or the wrong ones: keys that are not the labels, and weights of steps that hold nothing.

Keras leaves out keys that are no labels without a word, and takes any array as weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from tsguard import catalogue
from tsguard.checks.arrays import Named, classes_of, measured_inputs, targets
from tsguard.checks.registry import Context, check
from tsguard.findings import Finding

UNEQUAL = 3.0
"""The commonest class over the rarest, from which weights that are lost leave an imbalance behind."""


def effective_weights(context: Context, labels: Any) -> dict[int, float]:
    """The weight that every class really gets: 1 where `class_weight` has no such key."""
    given = context.fit.get("class_weight")
    table = given if isinstance(given, Mapping) else {}
    known = {key: float(value) for key, value in table.items() if isinstance(key, int | np.integer)}
    return {int(kind): known.get(int(kind), 1.0) for kind in np.unique(labels)}


@check("class weights that weigh nothing", codes=("data-imbalance",), needs=("data", "arrays", "y"))
def weights_without_effect(context: Context) -> Iterable[Finding]:
    """`class_weight` that differs from class to class as written, and not as applied."""
    given = context.fit.get("class_weight")
    if not isinstance(given, Mapping) or len(set(map(float, given.values()))) < 2:
        return
    for one in targets(context):
        labels = classes_of(one)
        if labels is None or len(labels) != len(one.array):
            continue
        applied = effective_weights(context, labels)
        _, counts = np.unique(labels, return_counts=True)
        if len(applied) < 2:
            continue
        if len(set(applied.values())) > 1:
            found = [*_no_such_class(context, one, given, applied), *_one_class_counts(one, applied, counts)]
            found += _turned_round(one, applied, counts)
            yield from found[:1]
            continue
        unequal = counts.max() >= UNEQUAL * counts.min()
        yield catalogue.finding(
            "data-imbalance" if unequal else "config-unused-key",
            f"class_weight={dict(given)!r} changes nothing: every class of target {one.name!r} (labels "
            f"{', '.join(map(str, list(applied)[:8]))}) gets {next(iter(applied.values())):g}, because Keras "
            "looks weights up "
            "by whole numbers and leaves other keys out. Expected the labels themselves as keys.",
            where=one.where(config_key="class_weight"),
            status="WARN",
            role="cause",
            remedy=f"class_weight={dict.fromkeys(list(applied)[:4], 1.0)}, with your weights.",
            score=0.9,
        )
        return


def _no_such_class(
    context: Context, one: Named, given: Mapping[Any, Any], applied: dict[int, float]
) -> Iterator[Finding]:
    """A weight for a class beyond the last output, while a class that occurs has none: the keys are counted otherwise.

    A class without a key alone is meant to weigh 1, and a key without rows alone is a class that this part lacks.
    """
    shape = getattr(context.model, "output_shape", None)
    units = shape[-1] if isinstance(shape, tuple) and shape and isinstance(shape[-1], int) else None
    if units is None:
        return
    keys = {int(key) for key in given if isinstance(key, int | np.integer)}
    beyond, without = sorted(k for k in keys if not 0 <= k < max(2, units)), sorted(set(applied) - keys)
    if not beyond or not without:
        return
    yield catalogue.finding(
        "data-imbalance",
        f"class_weight has a weight for class {beyond[0]}, which the {units} outputs do not know, and none for class "
        f"{without[0]} of target {one.name!r}, which gets 1: the keys {sorted(keys)[:8]} are not numbered as the "
        f"labels {list(applied)[:8]}, so each class has the weight of another. Expected the labels themselves as keys.",
        where=one.where(config_key="class_weight"),
        status="FAIL",
        role="cause",
        remedy="dict(zip(numpy.unique(y), weights)): the keys then are the labels.",
        score=0.95,
    )


ALL_THAT_COUNTS = 0.98
"""Share of all weights that one class has, of two or more, from which the others are hardly heard."""


def _one_class_counts(one: Named, applied: dict[int, float], counts: Any) -> Iterator[Finding]:
    """Weights that do not balance the classes and drown all but one, which its own frequency does not do."""
    mass = np.array(list(applied.values())) * counts
    share, own = mass / max(mass.sum(), 1e-30), counts / counts.sum()
    loudest = int(share.argmax())
    if share[loudest] < ALL_THAT_COUNTS or own[loudest] >= ALL_THAT_COUNTS:
        return
    yield catalogue.finding(
        "data-imbalance",
        f"class_weight gives class {list(applied)[loudest]} of target {one.name!r} {share[loudest]:.2%} of all "
        "weight (of the "
        f"rows it has {own[loudest]:.0%}): the loss hears nothing of the other classes. Expected weights that "
        "bring classes "
        "to about equal shares: rows / (classes × rows of the class).",
        where=one.where(config_key="class_weight"),
        status="FAIL",
        role="cause",
        score=0.95,
    )


def _turned_round(one: Named, applied: dict[int, float], counts: Any) -> Iterator[Finding]:
    """Weights that are larger for the commonest class than for the rarest."""
    kinds, weights = np.array(list(applied)), np.array(list(applied.values()))
    common, rare = int(counts.argmax()), int(counts.argmin())
    if counts[common] < UNEQUAL * counts[rare] or weights[common] <= weights[rare]:
        return
    yield catalogue.finding(
        "data-imbalance",
        f"class_weight gives {weights[common]:g} to class {kinds[common]} of target {one.name!r}, the commonest with "
        f"{counts[common]:,} rows, and {weights[rare]:g} to class {kinds[rare]}, the rarest with {counts[rare]:,}: it "
        "adds to the imbalance that is there. Expected larger weights for rarer classes.",
        where=one.where(config_key="class_weight"),
        status="WARN",
        role="cause",
        remedy="Turn the quotient round: rows / (classes × rows of the class).",
        score=0.9,
    )


@check("weights of steps that hold nothing", codes=("mask-inverted",), needs=("data", "arrays", "y"))
def weights_on_nothing(context: Context) -> Iterable[Finding]:
    """Every step that weighs is empty in inputs and targets, and none that holds something does.

    Steps whose inputs alone are empty may be those that are to be filled in: their targets differ from step to step.
    """
    weight = None if context.data is None else context.data.sample_weight
    if not isinstance(weight, np.ndarray) or weight.ndim != 2 or weight.shape[1] < 2 or not np.isfinite(weight).all():
        return
    weighs, shape = weight > 0, weight.shape
    of_steps = [one for one in (*measured_inputs(context), *targets(context)) if one.array.shape[:2] == shape]
    empty = [~np.any(one.array.reshape(*shape, -1), axis=-1) for one in of_steps]
    if {one.role for one in of_steps} != {"input", "target"} or not weighs.any():
        return
    nothing = np.logical_and.reduce(empty)
    if nothing.all() or not nothing[weighs].all() or not weighs[nothing].all():
        return
    yield catalogue.finding(
        "mask-inverted",
        f"the weights of steps are above zero at {int(weighs.sum()):,} steps, all of which are empty in inputs and "
        f"targets, and zero at all {int((~weighs).sum()):,} that hold something: the loss judges padding and nothing "
        "else. Expected the reverse.",
        where={"phase": "data"},
        status="FAIL",
        role="cause",
        remedy="Weigh what exists: sample_weight=1 - padded. Masks of torch are True where there is padding.",
        score=0.95,
    )


LEAST_NUMBERS = 4
"""Different whole numbers among weights, from which they are no mask (0, 1) and no weights of two or three classes."""

UNHEARD = 0.1
"""Share of the rows that such numbers leave without a say: rows that nobody wants are not handed over."""


@check("numbers of kinds taken for weights", codes=("loss-degenerate",), needs=("data", "arrays", "y"))
def kinds_for_weights(context: Context) -> Iterable[Finding]:
    """Whole numbers as weights, one of them 0: a third part of each batch is a weight to Keras, whatever it holds."""
    weight = None if context.data is None else context.data.sample_weight
    if not isinstance(weight, np.ndarray) or weight.size != len(weight) or weight.dtype.kind not in "iuf":
        return
    numbers = weight.reshape(-1).astype(np.float64)
    if not np.isfinite(numbers).all() or (numbers != np.floor(numbers)).any():
        return
    kinds, silent = np.unique(numbers), float((numbers == 0).mean())
    if len(kinds) < LEAST_NUMBERS or kinds[0] != 0 or silent < UNHEARD:
        return
    yield catalogue.finding(
        "loss-degenerate",
        f"the weights of rows are {len(kinds)} whole numbers from 0 to {kinds[-1]:g}, and the {silent:.0%} of the rows "
        "that weigh 0 teach nothing. They look like numbers of kinds (a station, a group): Keras takes the third part "
        "of what a loader yields for weights. Expected weights about 1, or no third part.",
        where={"phase": "data"},
        status="WARN",
        role="cause",
        remedy="Yield (x, y); what else is known of a row goes into x, or beside the loader.",
        score=0.9,
    )
