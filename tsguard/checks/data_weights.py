"""Weights of classes that reach no row: keys that are not the labels are left out by Keras without a word."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from tsguard import catalogue
from tsguard.checks.arrays import Named, classes_of, fit_arguments, targets
from tsguard.checks.registry import Context, check
from tsguard.findings import Finding

UNEQUAL = 3.0
"""The commonest class over the rarest, from which weights that are lost leave an imbalance behind."""


def effective_weights(context: Context, labels: Any) -> dict[int, float]:
    """The weight that every class really gets: 1 where `class_weight` has no such key."""
    given = fit_arguments(context).get("class_weight")
    table = given if isinstance(given, Mapping) else {}
    known = {key: float(value) for key, value in table.items() if isinstance(key, int | np.integer)}
    return {int(kind): known.get(int(kind), 1.0) for kind in np.unique(labels)}


@check("class weights that weigh nothing", codes=("data-imbalance",), needs=("data", "arrays", "y"))
def weights_without_effect(context: Context) -> Iterable[Finding]:
    """`class_weight` that differs from class to class as written, and not as applied."""
    given = fit_arguments(context).get("class_weight")
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
            found = [*_one_class_counts(one, applied, counts), *_turned_round(one, applied, counts)]
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
