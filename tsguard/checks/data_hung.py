"""Columns that stopped while they were measured."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from tsguard import catalogue
from tsguard.checks.arrays import measured_inputs
from tsguard.checks.registry import Context, check
from tsguard.evidence import Evidence
from tsguard.findings import Finding

LEAST_ROWS = 100
"""Rows in a row with one and the same reading, from which it is no calm."""

HUNG = 0.5
"""… and their share of all rows."""

OWN = 0.5
"""Share of the other cells that have a value of their own, from which the column is a measurement."""


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
