"""Targets that stand in another order than their rows, with the order that brings them together as the proof."""

from __future__ import annotations

from typing import Any

import numpy as np

from tsguard import catalogue
from tsguard.checks.arrays import Named, answer_columns, inputs, targets
from tsguard.checks.gathered import as_they_stand
from tsguard.checks.registry import Context
from tsguard.evidence import Proof
from tsguard.findings import Finding
from tsguard.probes.orders import promising, told_orders
from tsguard.probes.pairing import (
    MOST_COMPONENTS,
    MOST_PAIRS,
    RELATED,
    Floats,
    Line,
    held_within,
    neighbours_tell,
    serial,
    view_of,
)

FEW = 24
"""Cells of a row by which another order is looked for, before the whole row is asked."""

MOST_CELLS = 64
"""Cells of a row among which these are, and of which its mean and its spread are taken."""

MOST_ORDERED = 50_000
"""Rows of which all orders are tried in a second or two."""

CONTINUED = 0.95
"""Share of windows that their target continues, step for step, from which it is the series' own next value; and what it
must be below as the rows stand is half of that."""


def in_another_order(context: Context, now: float, target: Named) -> Finding | None:
    """Parts joined the other way round, names sorted as text, a table read by columns: over all rows, as they stand."""
    kept = as_they_stand(context)
    told = [one for one in inputs(kept) if not one.mask]
    answers = [answer_columns(one.array, one, most=MOST_COMPONENTS) for one in targets(kept) if one.name == target.name]
    y = answers[0] if len(answers) == 1 else None
    if y is None or not told or len(y) > MOST_ORDERED or any(len(one.array) != len(y) for one in told):
        return None
    rows = np.unique(np.linspace(0, len(y) - 1, min(len(y), MOST_PAIRS)).astype(int))
    head = view_of([one.array[:MOST_PAIRS] for one in told])
    if serial(head) or serial(y[:MOST_PAIRS]):
        found = _continued(told, y)
        return None if found is None else _finding(target, found)
    cells = np.concatenate([_cells(one.array) for one in told], axis=1)
    some = np.random.default_rng(3).permutation(cells.shape[1])[:FEW]
    columns = np.concatenate([cells[:, some], cells[:, some] ** 2], axis=1)
    listed = promising(columns, y)
    if not listed:
        return None
    view = view_of([one.array[rows] for one in told])
    line = Line(view)
    for words, order in listed:
        moved = y[order]
        then = line.skill(moved[rows])
        if then < RELATED or held_within(view, moved[rows]) or neighbours_tell(head, moved[:MOST_PAIRS], 1):
            continue
        return _finding(target, f"x says R² {now:.2f} about y as they are, {then:.2f} with the targets {words}")
    return None


def _finding(target: Named, summary: str) -> Finding:
    return catalogue.finding(
        "data-mispaired",
        f"target {target.name!r} stands in another order than x: {summary}. Expected row i of y to belong to row i of "
        "x.",
        where=target.where(),
        proof=Proof("re-pair", summary, effect=1.0, certainty=1.0),
        remedy="Join the two by a key, or sort both by one.",
        score=1.0,
    )


def _continued(told: list[Named], y: Floats) -> str | None:
    """Windows of series, one step apart: in what order the target of each is the last step of the next, in words."""
    for one in told if y.shape[1] == 1 else ():
        if one.array.ndim != 3 or one.array.dtype.kind != "f" or one.array.shape[1] < 2:
            continue
        follows = (one.array[1:, :-1] == one.array[:-1, 1:]).all(axis=(1, 2))
        if follows.mean() < CONTINUED / 2:
            continue
        ends = one.array[1:][follows][:, -1].astype(np.float64)
        places = np.flatnonzero(follows)
        for feature in ends.T:
            now = float(np.isclose(y[places, 0], feature).mean())
            if now > CONTINUED / 2:
                return None
            for words, order in told_orders(len(y)):
                share = float(np.isclose(y[order][places, 0], feature).mean())
                if share >= CONTINUED:
                    return f"{now:.0%} of the windows go on to their own target, {share:.0%} with the targets {words}"
    return None


def _cells(array: Any) -> Floats:
    """The values of each row and what they come to, as columns in standard units."""
    flat = array.reshape(len(array), -1)
    flat = flat[:, :: flat.shape[1] // MOST_CELLS + 1].astype(np.float64)
    flat = np.nan_to_num(flat, nan=0.0, posinf=0.0, neginf=0.0)
    flat = np.concatenate([flat, flat.mean(axis=1, keepdims=True), flat.std(axis=1, keepdims=True)], axis=1)
    return np.asarray((flat - flat.mean(axis=0)) / np.maximum(flat.std(axis=0), 1e-12))
