"""The order of rows where it matters: no shuffling, or a validation part that is cut off the end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from tsguard import catalogue
from tsguard.checks.arrays import Named, classes_of, targets
from tsguard.checks.gathered import LOADER
from tsguard.checks.registry import Context, check
from tsguard.findings import Finding

LEAST_VALUES = 50
"""Different values of a continuous target that is called sorted: as many in order by chance is out of the question."""

UNSEEN = 0.5
"""Share of the held part that training has no like of, from which its score says nothing about the rest."""


@check("sorted rows", codes=("data-order",), needs=("data", "arrays", "y"), cost=1)
def sorted_rows(context: Context) -> Iterable[Finding]:
    """Targets in rising order that nothing shuffles; `validation_split`, which takes the last rows, on sorted ones."""
    given = context.fit
    beside = context.data is not None and context.data.validation is not None  # then nothing is split off
    share = 0.0 if beside else given.get("validation_split") or 0.0
    for one in targets(context):
        if share:
            yield from _held_apart(one, float(share))
        loader = context.facts.get(LOADER)
        unshuffled = given.get("shuffle") is False or loader is not None
        if unshuffled and is_sorted(one.array) and len(one.array) >= 4 * context.batch_size:
            first, last = float(one.array.flat[0]), float(one.array.flat[-1])
            yield catalogue.finding(
                "data-order",
                f"target {one.name!r} runs from {first:.4g} to {last:.4g} in order, and "
                f"{'shuffle=False' if loader is None else type(loader).__name__} leaves the rows "
                f"so: every batch of {context.batch_size} holds a narrow band of it, and the model follows the last "
                "one. Expected the whole range within a batch.",
                where=one.where(),
                status="WARN",
                remedy="Shuffle (`shuffle=True`, or once before training); for series, shuffle windows and not steps.",
                score=0.9,
            )


def is_sorted(array: Any) -> bool:
    """Continuous values, one a row, that never fall (or never rise)."""
    if array.dtype.kind != "f" or array.size != len(array):
        return False
    steps = np.diff(array.reshape(-1))
    return bool((steps >= 0).all() or (steps <= 0).all()) and len(np.unique(array)) >= LEAST_VALUES


def _held_apart(one: Named, share: float) -> Iterator[Finding]:
    """Keras cuts the last rows off before it shuffles."""
    cut = int(len(one.array) * (1.0 - share))
    if not 0 < cut < len(one.array):
        return
    labels = classes_of(one)
    if labels is not None and len(labels) == len(one.array):
        known = set(np.unique(labels[:cut]).tolist())
        strange = np.isin(labels[cut:], list(known), invert=True)
        if strange.mean() >= UNSEEN:
            kinds = np.unique(labels[cut:][strange])[:5].tolist()
            said = f"{strange.mean():.0%} of its labels ({kinds}) never come before"
        elif len(known) > 1 and int((np.diff(labels) != 0).sum()) == len(np.unique(labels)) - 1:
            said = f"rows are sorted by class, so that it holds {np.unique(labels[cut:]).tolist()} alone"
        else:
            return
    elif is_sorted(one.array):
        said = "the target is sorted, so that all of its values lie beyond those that train"
    else:
        return
    yield catalogue.finding(
        "data-order",
        f"validation_split={share:g} holds back the last {len(one.array) - cut:,} rows as they stand, and {said}: "
        "its score says nothing about the other rows. Expected both parts to hold the same kinds of rows.",
        where=one.where(split="validation"),
        status="FAIL" if labels is not None else "WARN",
        remedy="Shuffle rows (of classes) once before `fit`, or hand over validation_data that was drawn at random.",
        score=0.9,
    )
