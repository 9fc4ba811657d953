"""Batches of one kind: a loader that hands out one class after another, so that each step unlearns the one before."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tsguard import catalogue
from tsguard.checks.gathered import left_alone, starts_anew
from tsguard.checks.registry import Context, check
from tsguard.dataset import leaves
from tsguard.evidence import Evidence
from tsguard.findings import Finding

BATCHES = 64
"""Batches read."""

PURE = 0.95
"""Share of one class in a batch from which it holds that class alone."""

MOST = 0.9
"""Share of batches that hold one class alone, from which that is the loader's order and no accident."""

SMALLEST_BATCH = 4
"""Rows of a batch below which one class alone is chance."""


@check("batches of one class each", codes=("data-order",), needs=("data",), cost=1)
def batches_of_one_class(context: Context) -> Iterable[Finding]:
    """How many batches of a loader hold one class, where all batches together hold several."""
    import numpy as np

    data = context.data
    assert data is not None
    # What can be read only once must not be read here; arrays are shuffled by `fit`, or asked elsewhere.
    if data.is_arrays or not hasattr(data.x, "__len__"):
        return
    if not (hasattr(data.x, "__getitem__") or starts_anew(data.x)):
        return
    with left_alone(data.x):
        labels = [_classes(y) for _, y, _ in data.batches(BATCHES)]
    if len(labels) < 4 or any(one is None or len(one) < SMALLEST_BATCH for one in labels[:-1]):
        return
    kept = [one for one in labels if one is not None]
    names, counts = np.unique(np.concatenate(kept), return_counts=True)
    if len(names) < 2 or counts.max() > 0.8 * counts.sum():
        return
    pure = [float(np.unique(one, return_counts=True)[1].max() / len(one)) >= PURE for one in kept]
    if sum(pure) >= MOST * len(pure) - (len(names) - 1):
        yield catalogue.finding(
            "data-order",
            f"{sum(pure)} of {len(pure)} batches of {type(data.x).__name__} hold one class alone, and together they "
            f"hold {len(names)}: each step pulls the model to its own class, and the last one is what stays. Shuffle "
            "the rows before they are cut into batches.",
            where={"phase": "data"},
            remedy="Shuffle the rows once before they are cut into batches, or draw each batch from all of them.",
            evidence=(Evidence("value", sum(pure) / len(pure), name="share of batches of one class"),),
            score=1.0,
        )


def _classes(y: Any) -> Any:
    """Class numbers of one batch; None where the targets are no classes."""
    import numpy as np

    listed = list(leaves(y))
    if len(listed) != 1:
        return None
    leaf = listed[0]
    value = np.asarray(leaf.detach().cpu() if hasattr(leaf, "detach") else leaf)
    if value.ndim == 2 and value.shape[1] > 1:
        ones = np.isin(value, (0, 1)).all() and bool((value.sum(1) == 1).all())
        return value.argmax(1) if ones else None
    if value.size != len(value) or not np.array_equal(value, np.round(value)) or len(np.unique(value)) > len(value) / 2:
        return None
    return value.reshape(-1)
