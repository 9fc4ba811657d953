"""A law's counterexample as small grids: time runs to the right, and every cell says what it is.

A cell is valid, padded (where a mask in the same batch says so), changed between the two batches, or added by the
second one. The place at which the answer moved is marked in the head of its column.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tsguard.findings import Finding

ROWS_MAX = 6
STEPS_MAX = 24
"""A grid is looked at, not searched: the whole batch is in the JSON beside the page."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One value; `before` is what stood there in the first batch, where that differs."""

    text: str
    kind: str
    before: str = ""


@dataclass(frozen=True, slots=True)
class Grid:
    """One input over time, for the first samples and features."""

    name: str
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    moved: int | None
    """The column at which the answer moved."""
    more: str


def grids(finding: Finding) -> tuple[Grid, ...]:
    """The batches of a counterexample, second over first; none where the finding carries no two small batches."""
    sides = {fact.name: fact.value for fact in finding.evidence if fact.kind == "batch"}
    before, after = sides.get("before"), sides.get("after")
    if not isinstance(before, Mapping) or not isinstance(after, Mapping):
        return ()
    masks = [rows for fact in after.values() if _dtype(fact) == "bool" and (rows := _rows(fact)) is not None]
    made = []
    for name, fact in after.items():
        new, old = _rows(fact), _rows(before.get(name))
        if new is None or old is None:
            continue
        mask = None if _dtype(fact) == "bool" else next((m for m in masks if _covers(m, new)), None)
        moved = None if _dtype(fact) == "bool" else finding.where.get("timestep")
        made.append(_grid(str(name), new, old, mask, moved))
    return tuple(made)


_Rows = dict[tuple[int, ...], Sequence[Any]]
"""Values over time by (sample, feature …)."""


def _grid(name: str, new: _Rows, old: _Rows, mask: _Rows | None, moved: Any) -> Grid:
    def changed(place: tuple[int, ...]) -> bool:
        return any(_differ(a, b) for a, b in zip(new[place], old.get(place, ()), strict=False))

    # Rows in which something changed come first: they are what the finding is about.
    order = sorted(new, key=lambda place: (not changed(place), place))
    rows = []
    for place in order[:ROWS_MAX]:
        earlier = old.get(place, ())
        valid = None if mask is None else mask.get(place[:1])
        cells = []
        for at, value in enumerate(new[place][:STEPS_MAX]):
            padded = value is False or (valid is not None and at < len(valid) and not valid[at])
            if at >= len(earlier):
                cells.append(Cell(_text(value), "added"))
            elif _differ(value, earlier[at]):
                cells.append(Cell(_text(value), "changed", _text(earlier[at])))
            else:
                cells.append(Cell(_text(value), "padded" if padded else "valid"))
        label = f"sample {place[0]}" + "".join(f", feature {part}" for part in place[1:])
        rows.append((label, tuple(cells)))
    longest = max((len(values) for values in new.values()), default=0)
    left = []
    if len(order) > ROWS_MAX:
        left.append(f"{len(order) - ROWS_MAX} more rows")
    if longest > STEPS_MAX:
        left.append(f"{longest - STEPS_MAX} more steps")
    column = moved if isinstance(moved, int) and 0 <= moved < min(longest, STEPS_MAX) else None
    return Grid(name, tuple(rows), column, " and ".join(left))


def _dtype(fact: Any) -> str:
    return str(fact.get("dtype", "")) if isinstance(fact, Mapping) else ""


def _rows(fact: Any) -> _Rows | None:
    """An array of rank 1 to 3 as rows over time: (T), (N, T) or (N, T, F)."""
    values = fact.get("values") if isinstance(fact, Mapping) else None
    if not isinstance(values, list | tuple) or not values:
        return None
    if not isinstance(values[0], list | tuple):
        return {(0,): values}
    rows: _Rows = {}
    for sample, row in enumerate(values):
        if not isinstance(row, list | tuple):
            return None
        if not row or not isinstance(row[0], list | tuple):
            rows[(sample,)] = row
            continue
        if any(not isinstance(step, list | tuple) or any(isinstance(v, list | tuple) for v in step) for step in row):
            return None
        for feature in range(min(map(len, row))):
            rows[(sample, feature)] = [step[feature] for step in row]
    return rows


def _covers(mask: _Rows, rows: _Rows) -> bool:
    """Whether a mask has a value for every sample and step."""
    return all(place[:1] in mask and len(mask[place[:1]]) == len(values) for place, values in rows.items())


def _differ(left: Any, right: Any) -> bool:
    return bool(left != right and not (left != left and right != right))


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "✓" if value else "·"
    if isinstance(value, float):
        return f"{value:.3g}" if math.isfinite(value) else str(value)
    return str(value)[:12]
