"""Validation rows that are training rows with a little noise on them: copies that were made before the split.

Rows of their own lie about as far from their nearest neighbour as from the next ones. A copy lies next to what it was
made of, at the distance of the noise, which is nearly the same for all copies; the next neighbour is far beyond it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from tsguard import catalogue
from tsguard.checks.arrays import measured_inputs, named_leaves
from tsguard.checks.registry import Context, check
from tsguard.evidence import Evidence
from tsguard.findings import Finding
from tsguard.probes.data import thinned

Floats = npt.NDArray[np.float64]

MOST_HELD, MOST_TRAIN = 300, 4_000
"""Rows of either part: shares are known to a few per cent, and the distances are taken in a tenth of a second."""

LEAST_ROWS = 60
"""Fewer rows of either part say little about how far neighbours lie."""

LEAST_COLUMNS, MOST_COLUMNS = 4, 512
"""Numbers of a row: in fewer, neighbours are near by chance; more are thinned out, as a copy is near in all of them."""

NEIGHBOURS = 8
"""Copies of one row that are looked for: augmentation makes a handful."""

BEYOND = 5.0
"""Distance of the next neighbour over that of the copies. Of rows drawn along a line one in five has such a gap beside
its first neighbour, of rows that fill a plane one in twenty-five."""

SAME = 1e-6
"""Distance up to which a row is the other one, byte for byte or nearly so: those are counted elsewhere."""

COPIED = 0.3
"""Share of the validation rows with such a gap."""

NARROW = 2.0
"""Upper over lower quartile of the distances before the gap: noise in four numbers and more stays within it, distances
along a line (a wave whose phase alone differs) spread by five."""


LEVELS = 0.1
"""Gap between neighbouring values of a column, over the width of its middle nine tenths, from which it has levels: of
sixty values drawn evenly the largest gap is a tenth, of hundreds far less."""


@check("copies made before the split", codes=("data-leak",), needs=("data", "arrays", "validation"), cost=2)
def copies_in_both_parts(context: Context) -> Iterable[Finding]:
    """The distance of validation rows to training rows, against that of the next ones."""
    rows = _rows_of(context)
    if rows is None:
        return
    train, held = rows
    near = _nearest(held, train)
    gaps = near[:, 1:] / np.maximum(near[:, :-1], SAME)
    before = gaps.argmax(axis=1)
    copies = (gaps.max(axis=1) >= BEYOND) & (near[:, 0] > SAME)
    share = float(copies.mean())
    if share < COPIED:
        return
    made = near[np.arange(len(near)), before]
    low, high = np.quantile(near[copies, 0], [0.25, 0.75])
    if high > NARROW * low:
        return
    beyond = float(np.median(near[np.arange(len(near)), before + 1][copies]))
    away = float(np.median(made[copies]))
    yield catalogue.finding(
        "data-leak",
        f"{share:.0%} of the validation rows lie next to a training row (at a distance of {away:.2g} in deviations, "
        f"all about alike), and the next rows are {BEYOND:g} times as far and more ({beyond:.2g}): they are copies "
        "with noise that were dealt out to both parts. Expected rows to be split before they are copied.",
        where={"phase": "data", "split": "validation", "row": int(np.flatnonzero(copies)[0])},
        evidence=[Evidence("value", {"share": share, "distance": away, "beyond": beyond})],
        remedy="Split first, then augment the training part alone; keep rows of one origin in one part.",
        score=0.85,
    )


def _rows_of(context: Context) -> tuple[Floats, Floats] | None:
    """Rows of both parts as numbers of unit deviation; None where they are few, narrow or not to be compared."""
    data = context.data
    if data is None or not isinstance(data.validation, tuple | list) or not data.validation:
        return None
    theirs = dict(named_leaves(data.validation[0], "x"))
    pairs = [(one.array, theirs.get(one.name)) for one in measured_inputs(context) if one.array.dtype.kind == "f"]
    parts: tuple[list[Floats], list[Floats]] = ([], [])
    for ours, other in pairs:
        if other is None or other.shape[1:] != ours.shape[1:]:
            return None
        for part, array, most in zip(parts, (ours, other), (MOST_TRAIN, MOST_HELD), strict=True):
            part.append(_numbers(thinned(array, most)))
    if not pairs or len({len(ours) for ours, _ in pairs}) != 1 or len({len(o) for _, o in pairs if o is not None}) != 1:
        return None
    train, held = (np.concatenate(part, axis=1) for part in parts)
    if not np.isfinite(train).all() or not np.isfinite(held).all():
        return None
    kept = _without_levels(train)
    if min(len(train), len(held)) < LEAST_ROWS or kept.sum() < LEAST_COLUMNS:
        return None
    mean, spread = train[:, kept].mean(axis=0), train[:, kept].std(axis=0)
    return (train[:, kept] - mean) / spread, (held[:, kept] - mean) / spread


def _without_levels(columns: Floats) -> npt.NDArray[np.bool_]:
    """Columns whose values have no levels: settings of a lever put rows near each other that have nothing in common."""
    low, high = np.quantile(columns, [0.05, 0.95], axis=0)
    within = np.sort(np.clip(columns, low, high), axis=0)
    return np.asarray((high > low) & (np.diff(within, axis=0).max(axis=0) < LEVELS * (high - low)))


def _numbers(array: Any) -> Floats:
    flat = array.reshape(len(array), -1)
    return np.asarray(flat[:, :: flat.shape[1] // MOST_COLUMNS + 1], np.float64)


def _nearest(held: Floats, train: Floats) -> Floats:
    """Distances of each held row to its nearest training rows, in rising order."""
    squares = (held**2).sum(axis=1)[:, None] + (train**2).sum(axis=1)[None] - 2.0 * held @ train.T
    near: Floats = np.sqrt(np.maximum(np.partition(squares, NEIGHBOURS, axis=1)[:, : NEIGHBOURS + 1], 0.0))
    near.sort(axis=1)
    return near
