"""Do x and y belong together, row by row? Asked with closed-form fits on rows held back, before any training.

Three signatures of a broken pairing: targets fit the inputs of other rows far better than their own; targets run in
order while inputs do not; the validation part has a relation that the training part lacks. Windows that overlap are left
alone: there the neighbour's target lies inside the window, and fitting it better is no fault.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from tsguard import catalogue
from tsguard.checks.registry import Context, check
from tsguard.dataset import Data
from tsguard.evidence import Evidence
from tsguard.findings import Finding
from tsguard.probes.learnable import curved_columns, ridge_r2, table
from tsguard.probes.signal import arrays

SHIFTS = 12
"""Rows by which targets are tried against inputs, each way: off-by-one up to a lost header block."""

GAIN = 0.2
"""Explained variance, on rows held back, that another pairing must add. Chance gains of a ridge on a thousand rows stay
below a few hundredths, even as the best of two dozen tries."""

OVERLAP = 0.5
"""Correlation of neighbouring rows of x from which they are windows of one series."""

MAX_ROWS = 1500


@check("targets that belong to other rows", codes=("data-mispaired",), needs=("arrays", "y"), cost=4)
def mispaired(context: Context) -> Iterable[Finding]:
    """A shift, a sort, or a shuffle of targets against inputs."""
    assert context.data is not None
    data = context.data
    made = _head(data)
    if made is None:
        return
    x, y = made
    if _neighbours_alike(x):
        return
    own = _fit(x, y)
    found = list(_shifted(x, y, own)) or list(_sorted_apart(x, y, own)) or list(_unlike_validation(context, own))
    yield from found[:1]


def _head(data: Data) -> tuple[Any, Any] | None:
    """The first rows as matrices, in their order (a shift is a matter of neighbours)."""
    x, y, _ = data.take(slice(0, MAX_ROWS))
    return table(Data(x, y))


def _fit(x: Any, y: Any) -> float:
    x = x[:, :: x.shape[1] // 300 + 1]
    straight = ridge_r2(x, y)
    return max(straight, ridge_r2(np.concatenate([x, curved_columns(x, limit=16)], axis=1), y))


def _neighbours_alike(x: Any) -> bool:
    deviation = x.std(0)
    a = (x - x.mean(0)) / np.where(deviation > 0, deviation, 1)
    return bool(np.mean(a[1:] * a[:-1]) > OVERLAP * np.mean(a * a))


def _shifted(x: Any, y: Any, own: float) -> Iterator[Finding]:
    best, at = own, 0
    for rows in (*range(1, SHIFTS + 1), *range(-1, -SHIFTS - 1, -1)):
        if abs(rows) > len(x) // 4:
            continue
        score = _fit(x[:-rows], y[rows:]) if rows > 0 else _fit(x[-rows:], y[:rows])
        if score > best:
            best, at = score, rows
    if at and best > max(own, 0.0) + GAIN:
        yield _broken(
            f"row i of x explains {best:.0%} of row i {'+' if at > 0 else '−'} {abs(at)} of y on rows held back, and "
            f"{max(own, 0):.0%} of its own: targets are shifted by {abs(at)} rows",
            {"own": own, f"shifted by {at}": best},
        )


def _sorted_apart(x: Any, y: Any, own: float) -> Iterator[Finding]:
    column = y[:, 0]
    if y.shape[1] != 1 or len(np.unique(column)) < 10:
        return
    steps = np.diff(column)
    ordered = max(float(np.mean(steps >= 0)), float(np.mean(steps <= 0)))
    index = np.arange(len(x), dtype="float64")[:, None]
    if ordered == 1.0 and own < GAIN / 2 and _fit(x, index) < GAIN / 2:
        yield _broken(
            f"targets run in order from {column[0]:.4g} to {column[-1]:.4g} over the rows, and nothing in x does; x explains "
            f"{max(own, 0):.0%} of y: the targets were sorted on their own",
            {"own": own},
        )


def _unlike_validation(context: Context, own: float) -> Iterator[Finding]:
    data = context.data
    validation = data.validation if data is not None else None
    if not isinstance(validation, tuple) or len(validation) < 2 or arrays(Data(*validation[:2])) is None:
        return
    made = table(Data(*validation[:2]))
    if made is None or own > GAIN / 4:
        return
    theirs = _fit(*made)
    if theirs > GAIN + 0.1:
        yield _broken(
            f"in the validation part x explains {theirs:.0%} of y on rows held back, in the training part "
            f"{max(own, 0):.0%}: training targets do not belong to their rows",
            {"training": own, "validation": theirs},
        )


def _broken(what: str, shares: dict[str, float]) -> Finding:
    return catalogue.finding(
        "data-mispaired",
        f"{what}. Expected each row of y to belong to the same row of x: join them by key, and shuffle them together.",
        where={"phase": "data"},
        evidence=(Evidence("value", shares, name="explained share"),),
        score=1.0,
    )


