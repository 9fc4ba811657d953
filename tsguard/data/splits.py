"""Splits that respect time and entities: by time, by entity, walk-forward; at random only for who asks for it by name.

Rows within one window of a border can be purged, so that no window of one part reaches into the next. A split is row
numbers and nothing else; it can be applied to tables, arrays and windows alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tsguard.data.windows import as_time
from tsguard.errors import DataError

Index = npt.NDArray[np.int64]
PARTS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Split:
    """Row numbers of each part, ascending; `purged` are those that belong to no part, so that nothing straddles."""

    train: Index
    validation: Index
    test: Index
    purged: Index
    how: str

    def parts(self) -> Mapping[str, Index]:
        """The parts by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def __str__(self) -> str:
        sizes = ", ".join(f"{name} {len(rows)}" for name, rows in self.parts().items())
        return f"{self.how}: {sizes}, purged {len(self.purged)}"


def by_time(
    num_rows: int,
    *,
    shares: Sequence[float] = (0.7, 0.1, 0.2),
    borders: Sequence[int] | None = None,
    time: Any = None,
    purge: int = 0,
) -> Split:
    """The past trains, the future tests. `borders` are the two (or three) rows at which a part ends; else `shares`.

    `time` (one value a row, need not be sorted) orders the rows; rows with one time stamp always stay together.
    `purge` takes that many rows away before each border: `windows.span − 1` where windows were already cut.
    """
    _check_shares(shares)
    order = np.arange(num_rows) if time is None else np.argsort(as_time(time), kind="stable")
    if borders is None:
        ends = np.round(np.cumsum(np.asarray(shares[:2]) / sum(shares)) * num_rows).astype(int).tolist()
        ends = [*ends, num_rows]
    else:
        ends = [*borders, num_rows][:3]
    if sorted(ends) != ends or ends[-1] > num_rows or ends[0] < 0:
        raise DataError(
            f"split: received borders {ends} for {num_rows} rows. Expected ascending rows. Mend the borders."
        )
    if time is not None:
        ends = [_after_ties(as_time(time)[order], end) for end in ends]
    kept = {
        name: order[first : max(first, end - (purge if end < num_rows else 0))]
        for name, first, end in zip(PARTS, [0, *ends[:2]], ends, strict=True)
    }
    return _split(kept, num_rows, f"by time, purge {purge}")


def _after_ties(ordered: npt.NDArray[Any], end: int) -> int:
    """The first row at or after `end` with a new time stamp: a border never divides one moment."""
    if 0 < end < len(ordered):
        return int(np.searchsorted(ordered, ordered[end - 1], side="right"))
    return end


def by_entity(entities: Any, *, shares: Sequence[float] = (0.7, 0.1, 0.2), seed: int = 0) -> Split:
    """Every entity (user, file, machine) lies in one part as a whole. Entities are dealt out from the seed."""
    _check_shares(shares)
    names, which, counts = np.unique(np.asarray(entities), return_inverse=True, return_counts=True)
    wanted = np.asarray(shares, np.float64) / sum(shares)
    parts = int((wanted > 0).sum())
    if len(names) < parts:
        received = f"{len(names)} entities for {parts} parts"
        raise DataError(f"split: received {received}. Expected at least one entity for each part. Split by time.")
    order = np.random.default_rng(seed).permutation(len(names))
    home = np.zeros(len(names), int)
    filled, held = np.zeros(3), np.zeros(3, int)
    for position, entity in enumerate(order):
        need = wanted * len(which) - filled
        empty = np.flatnonzero((held == 0) & (wanted > 0))
        if len(empty) >= len(names) - position:  # the last entities go to parts that have none yet
            need = np.where(np.isin(np.arange(3), empty), need, -np.inf)
        part = int(np.argmax(np.where(wanted > 0, need, -np.inf)))
        home[entity] = part
        filled[part] += counts[entity]
        held[part] += 1
    kept = {name: np.flatnonzero(home[which] == part) for part, name in enumerate(PARTS)}
    return _split(kept, len(which), "by entity")


def walk_forward(
    num_rows: int,
    *,
    folds: int,
    test_size: int,
    train_size: int | None = None,
    sliding: bool = False,
    validation_size: int = 0,
    purge: int = 0,
) -> Iterator[Split]:
    """Folds that move forward in time; the test parts follow each other up to the last row.

    Expanding: each fold trains on all that came before. Sliding: on the `train_size` rows that came last.
    """
    if sliding and train_size is None:
        raise DataError(
            "walk_forward: received sliding without train_size. Expected how much to keep. Pass train_size=."
        )
    least = train_size if sliding and train_size is not None else 1
    first_test = num_rows - folds * test_size
    if folds < 1 or test_size < 1 or first_test - validation_size - purge * (1 + int(validation_size > 0)) < least:
        received = f"{folds} folds of {test_size} rows out of {num_rows} (purge {purge}, validation {validation_size})"
        todo = f"Leave {least} or more rows to train on: fewer folds or smaller parts."
        raise DataError(f"walk_forward: received {received}. Expected room for training before the first fold. {todo}")

    def made() -> Iterator[Split]:
        rows = np.arange(num_rows)
        for fold in range(folds):
            start = first_test + fold * test_size
            check_end = start - purge if validation_size else start
            check_start = check_end - validation_size
            train_end = check_start - purge
            train_start = 0 if not sliding or train_size is None else max(0, train_end - train_size)
            kept = {
                "train": rows[train_start:train_end],
                "validation": rows[check_start:check_end],
                "test": rows[start : start + test_size],
            }
            how = f"walk forward ({'sliding' if sliding else 'expanding'}) fold {fold + 1} of {folds}"
            yield _split(kept, start + test_size, how, first=train_start)

    return made()


def at_random(num_rows: int, *, shares: Sequence[float] = (0.7, 0.1, 0.2), seed: int = 0) -> Split:
    """Rows dealt out at random. Only for rows that know nothing of each other: windows of one series overlap."""
    _check_shares(shares)
    order = np.random.default_rng(seed).permutation(num_rows)
    ends = np.round(np.cumsum(np.asarray(shares[:2]) / sum(shares)) * num_rows).astype(int)
    dealt = np.split(order, ends)
    return _split(dict(zip(PARTS, dealt, strict=True)), num_rows, "at random")


def purge_windows(split: Split, starts: Any, span: int) -> Split:
    """A split of *windows* without those whose `span` rows reach into the rows of a part that comes later.

    `starts` is the first row of each window. Of two parts that overlap in rows, the earlier one gives way.
    """
    starts = np.asarray(starts, np.int64)
    parts = split.parts()
    first = {name: int(starts[rows].min()) for name, rows in parts.items() if len(rows)}
    kept = {}
    for name, rows in parts.items():
        later = [row for other, row in first.items() if other != name and row > first.get(name, 0)]
        border = min(later, default=None)
        kept[name] = rows if border is None else rows[starts[rows] + span <= border]
    return _split(kept, len(starts), f"{split.how}, purged by {span} rows")


def _split(kept: Mapping[str, npt.NDArray[Any]], num_rows: int, how: str, first: int = 0) -> Split:
    parts = {name: np.sort(rows).astype(np.int64) for name, rows in kept.items()}
    free = np.ones(num_rows, bool)
    free[:first] = False
    for rows in parts.values():
        free[rows] = False
    if len(parts["train"]) == 0:
        raise DataError(
            f"split {how}: received no row to train on. Expected at least one. Purge less or split otherwise."
        )
    return Split(parts["train"], parts["validation"], parts["test"], np.flatnonzero(free).astype(np.int64), how)


def _check_shares(shares: Sequence[float]) -> None:
    if len(shares) != 3 or min(shares) < 0 or shares[0] <= 0:
        raise DataError(
            f"split: received shares {list(shares)}. Expected three of 0 or more (train, validation, test)."
        )
