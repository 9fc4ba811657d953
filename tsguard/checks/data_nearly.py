"""Columns that are the target but for a rounding, noise in the last digits, or a bent scale."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from tsguard import catalogue
from tsguard.checks.arrays import Named, classes_of, inputs, measured_inputs, targets
from tsguard.checks.data_parts import DETERMINED
from tsguard.checks.registry import Context, check
from tsguard.evidence import Evidence
from tsguard.findings import Finding
from tsguard.probes.data import correlations, ranks

LEAST_ROWS = 100
"""Rows below which the order of a column may be that of the target by chance."""

OWN = 0.5
"""Share of the targets that have a value of their own, from which they are measured."""

NEARLY = 5e-4
"""What a column leaves unexplained of a target that it repeats but for rounding, noise in the last digits, or a scale
that is bent: by value or by rank."""

BESIDE = 1e-3
"""… over what the columns beside it leave, in the median: where all follow one trend, no single one is the target."""

OFTEN = 0.5
"""Share of a column's values that are targets of other rows, from which it is the target's own past."""


@check("nearly the target among the inputs", codes=("data-leak",), needs=("data", "arrays", "y"), cost=1)
def nearly_the_target(context: Context) -> Iterable[Finding]:
    """One column of a table that gives the target away by value or by rank, beside others that do not."""
    tables = [one for one in measured_inputs(context) if one.array.ndim == 2 and 3 <= one.array.shape[1] <= 512]
    for target in targets(context):
        y = target.array
        if y.dtype.kind != "f" or y.size != len(y) or len(y) < LEAST_ROWS or classes_of(target) is not None:
            continue
        if any(one.array.shape == y.shape for one in inputs(context)):
            continue
        for one in tables:
            if len(one.array) == len(y):
                yield from _gives_away(one, target, y.reshape(-1).astype(np.float64))


def _gives_away(one: Named, target: Named, y: Any) -> Iterator[Finding]:
    columns = one.array.astype(np.float64)
    if not np.isfinite(columns).all() or not np.isfinite(y).all() or len(np.unique(y)) < OWN * len(y):
        return
    by_value = _unexplained(columns, y)
    left = np.minimum(by_value, _unexplained(ranks(columns), ranks(y[:, None])[:, 0]))
    best = int(left.argmin())
    if by_value[best] <= 1.0 - DETERMINED:
        return  # the target itself is asked for elsewhere
    if left[best] > NEARLY or left[best] > BESIDE * float(np.median(left)):
        return
    if float(np.isin(columns[:, best], y).mean()) >= OFTEN:
        return
    name = one.feature(best)
    yield catalogue.finding(
        "data-leak",
        f"input {one.name!r}, column {name!r} gives target {target.name!r} away: by value or by order it leaves "
        f"{left[best]:.2%} of it unexplained, and the columns beside it {float(np.median(left)):.0%} in the median. "
        "Expected features known before the target is.",
        where=one.where(feature=name),
        status="WARN",
        evidence=(Evidence("value", float(left[best]), name="unexplained by this column"),),
        remedy="Drop that column, unless it is known when the answer is asked for.",
        score=0.8,
    )


def _unexplained(columns: Any, y: Any) -> Any:
    return 1.0 - correlations(columns, y[:, None])[:, 0] ** 2
