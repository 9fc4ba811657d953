"""Columns that stopped, and columns that are the target but for a rounding: each an accident of collecting data."""

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

LEAST_ROWS = 100
"""Rows in a row with one and the same reading, from which it is no calm."""

HUNG = 0.5
"""… and their share of all rows."""

OWN = 0.5
"""Share of the other cells that have a value of their own, from which the column is a measurement."""

NEARLY = 5e-4
"""What a column leaves unexplained of a target that it repeats but for rounding, noise in the last digits, or a scale
that is bent: by value or by rank."""

BESIDE = 1e-3
"""… over what the columns beside it leave, in the median: where all follow one trend, no single one is the target."""

OFTEN = 0.5
"""Share of a column's values that are targets of other rows, from which it is the target's own past."""


@check("readings that hang", codes=("data-constant",), needs=("data", "arrays"), cost=1)
def hung(context: Context) -> Iterable[Finding]:
    """A measurement that moves in some rows, and then stands at one value in the middle of its range."""
    for one in measured_inputs(context):
        if one.array.dtype.kind != "f" or one.array.ndim not in (2, 3) or len(one.array) < LEAST_ROWS:
            continue
        for feature in range(min(one.array.shape[-1], 256)):
            found = _longest_stand(one.array[..., feature].reshape(len(one.array), -1))
            if found is None:
                continue
            begin, end, value = found
            name = one.feature(feature)
            yield catalogue.finding(
                "data-constant",
                f"input {one.name!r}, feature {name!r} stands at {value:.6g} from row {begin:,} to row {end - 1:,} of "
                f"{len(one.array):,}, in the middle of what it measures elsewhere: it hangs, or was filled forward. "
                "Expected readings that move, or gaps that are marked as such.",
                where=one.where(feature=name, row=begin),
                status="WARN",
                evidence=(Evidence("value", {"first": begin, "last": end - 1, "value": value}, name=str(name)),),
                remedy="Look for the rows after which it stands; leave them out, or the column.",
                score=0.85,
            )
            return


def _longest_stand(rows: Any) -> tuple[int, int, float] | None:
    """(first row, row behind the last, value) of the longest stand of a feature, where it is an accident."""
    still = (rows == rows[:, :1]).all(axis=1)
    value = rows[:, 0]
    goes_on = np.concatenate([[False], still[1:] & still[:-1] & (value[1:] == value[:-1])])
    begins = np.flatnonzero(~goes_on)
    lengths = np.diff(np.append(begins, len(rows)))
    place = int(lengths.argmax())
    begin, length = int(begins[place]), int(lengths[place])
    if length < max(LEAST_ROWS, HUNG * len(rows)) or length == len(rows):
        return None
    held = float(value[begin])
    others = np.delete(rows, slice(begin, begin + length), axis=0)
    others = others[np.isfinite(others) & (others != held)]
    if held == 0 or not len(others) or len(np.unique(others)) < OWN * len(others):
        return None
    return (begin, begin + length, held) if others.min() < held < others.max() else None


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
    left = np.minimum(by_value, _unexplained(_ranks(columns), _ranks(y[:, None])[:, 0]))
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
    a, b = columns - columns.mean(0), y - y.mean()
    power = (a * a).sum(0) * float((b * b).sum())
    return 1.0 - np.divide((a.T @ b) ** 2, power, out=np.zeros_like(power), where=power > 0)


def _ranks(columns: Any) -> Any:
    return columns.argsort(axis=0, kind="stable").argsort(axis=0, kind="stable").astype(np.float64)
