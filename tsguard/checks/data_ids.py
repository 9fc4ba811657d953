"""A number that stands for something real and is taken for padding: rows begin and end with it no more often than it
stands in their middle. What is padded shows at one end.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from tsguard import catalogue
from tsguard.checks.arrays import embedding_calls
from tsguard.checks.registry import Context, check
from tsguard.findings import Finding

REAL_ZEROS = "data.ids that are no padding"
"""Where the facts keep the layers that were found to hide a real id: a mask with holes is what follows from it."""

LEAST_STEPS = 4
"""Steps of a row that has a middle to hold against its two ends."""

LEAST_INSIDE = 30
"""Zeros between other ids from which their share at each place is known to a fifth."""

MOST_INSIDE = 0.5
"""Share of the zeros that stand between other ids, from which zeros are no fill at the ends of rows."""

AT_AN_END = 1.5
"""Share of zeros at the first or the last step over that in the middle: rows of any two lengths give twice as many."""

AS_OFTEN = 3.0
"""How often zero comes, over the commonest other id: a code for what is not known comes far more often."""


@check("ids that the mask hides", codes=("input-encoding",), needs=("model", "data", "arrays"), cost=2)
def real_ids_masked(context: Context) -> Iterable[Finding]:
    """Tables with `mask_zero=True` whose id 0 comes as other ids do, anywhere in a row and at no end of it."""
    told = set()
    for layer, ids in embedding_calls(context):
        if not getattr(layer, "mask_zero", False) or layer.name in told or ids.ndim != 2 or not _is_real(ids):
            continue
        told.add(layer.name)
        path = str(layer.path or layer.name)
        context.facts.setdefault(REAL_ZEROS, []).append(path)
        zeros = ids == 0
        row, step = (int(axis) for axis in np.argwhere(zeros & _between(zeros))[0])
        yield catalogue.finding(
            "input-encoding",
            f"embedding {path!r} has mask_zero=True and takes id 0 for padding, and id 0 is no padding here: it stands "
            f"in {zeros.mean():.1%} of all steps (the commonest other id in {_commonest(ids):.1%}), in "
            f"{zeros[:, 0].mean():.1%} of the first and {zeros[:, -1].mean():.1%} of the last, and lies between others "
            f"in {int((zeros & _between(zeros)).sum()):,} places. Every such step is skipped. Expected real ids from 1 "
            "on, with 0 left to padding.",
            where={"layer": path, "phase": "data", "row": row, "timestep": step},
            status="FAIL",
            role="cause",
            remedy="x + 1 (and one row more in the table), or mask_zero=False where nothing is padded.",
            score=0.95,
        )


def _is_real(ids: Any) -> bool:
    zeros = ids == 0
    if ids.shape[1] < LEAST_STEPS or not zeros.any() or zeros.all():
        return False
    inside = zeros & _between(zeros)
    middle = float(zeros[:, 1:-1].mean())
    ends = max(float(zeros[:, 0].mean()), float(zeros[:, -1].mean()))
    # Three deviations of a share in so many rows, for a zero that is rare.
    chance = 3.0 * (middle * (1.0 - middle) / len(ids)) ** 0.5
    return bool(
        inside.sum() >= max(LEAST_INSIDE, MOST_INSIDE * zeros.sum())
        and ends <= AT_AN_END * middle + chance
        and zeros.mean() <= AS_OFTEN * _commonest(ids)
    )


def _between(zeros: Any) -> Any:
    """The steps with another id somewhere before and somewhere after them."""
    others = ~zeros
    before = np.logical_or.accumulate(others, axis=1)
    after = np.logical_or.accumulate(others[:, ::-1], axis=1)[:, ::-1]
    return before & after


def _commonest(ids: Any) -> float:
    _, counts = np.unique(ids[ids != 0], return_counts=True)
    return float(counts.max() / ids.size)
