"""Tables put together wrongly: rows joined with all rows of a group, and numbers of kinds that are read as amounts.

Both are told by what the table itself says: a block in which every row of inputs stands beside every target of the
block, and a column of whole numbers whose neighbours know nothing of it though each number alone knows the target.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from tsguard import catalogue
from tsguard.checks.arrays import Named, answer_columns, inputs, targets
from tsguard.checks.registry import Context, check
from tsguard.findings import Finding

Floats = npt.NDArray[np.float64]

MOST_ROWS = 50_000
"""Rows that are compared."""

LEAST_BLOCKS = 5
"""Blocks with targets of their own, from which a full cross of rows and targets is no accident of few classes."""

JOINED = 0.5
"""Share of rows in such blocks from which the table is a join and not a few repeated measurements."""


@check("rows joined with all of their group", codes=("data-mispaired",), needs=("data", "arrays", "y"))
def rows_joined_with_all(context: Context) -> Iterable[Finding]:
    """Equal inputs beside several targets, and each of these targets beside all inputs of the same block."""
    told, asked = [one for one in inputs(context) if not one.mask], targets(context)
    if not told or not asked or any(len(one.array) != len(told[0].array) for one in (*told, *asked)):
        return
    rows, answers = _keys(told), _keys(asked)
    if len(set(rows)) > (1 - JOINED / 2) * len(rows):
        return
    beside: dict[int, set[int]] = defaultdict(set)
    for row, answer in zip(rows, answers, strict=True):
        beside[row].add(answer)
    blocks: dict[frozenset[int], list[int]] = defaultdict(list)
    for row, several in beside.items():
        blocks[frozenset(several)].append(row)
    crossed = {several: mine for several, mine in blocks.items() if len(several) > 1 and len(mine) > 1}
    inside = {row for mine in crossed.values() for row in mine}
    share = sum(row in inside for row in rows) / len(rows)
    own = sum(map(len, crossed)) == len({answer for several in crossed for answer in several})
    if len(crossed) < LEAST_BLOCKS or not own or share < JOINED:
        return
    first, mine = next(iter(crossed.items()))
    yield catalogue.finding(
        "data-mispaired",
        f"{share:.0%} of the rows lie in {len(crossed):,} blocks in which every row of inputs stands once beside every "
        f"target of the block (the first: {len(mine)} rows of inputs × {len(first)} targets): the tables were joined "
        "on a key that does not tell these rows apart. Expected one target for each row of inputs.",
        where=asked[0].where(),
        status="FAIL",
        role="cause",
        remedy="Join on the whole key, and state it: pandas.merge(…, validate='one_to_one').",
        score=0.95,
    )


def _keys(arrays: list[Named]) -> list[int]:
    """A number for each row over all arrays; equal rows have equal numbers."""
    known: dict[bytes, int] = {}
    parts = [np.ascontiguousarray(one.array[:MOST_ROWS]) for one in arrays]
    joined = (b"".join(part[row].tobytes() for part in parts) for row in range(len(parts[0])))
    return [known.setdefault(key, len(known)) for key in joined]


LEAST_KINDS, MOST_KINDS = 10, 500
"""Numbers in a column: with fewer the numbers beside one know little of it by chance; more have too few rows each."""

ROWS_OF_A_KIND = 10
"""Rows of each number on average, from which its mean target is known."""

TELLS = 0.35
"""Out-of-sample R² of the mean target of each number, from which the column plainly tells of the target."""

SMOOTH = 0.2
"""Share of that which the two neighbouring numbers may know: of amounts, years or hours they know most."""

WINDING = 3.0
"""The way that the answer goes up and down along the numbers, over its range: a fresh network that reads them as an
amount turns once or twice, one that looks each of them up goes to and fro."""


@check("numbers of kinds read as amounts", codes=("input-encoding",), needs=("model", "data", "arrays", "y"), cost=2)
def kinds_as_amounts(context: Context) -> Iterable[Finding]:
    """A column of whole numbers that tells of the target only number by number, and goes in as an amount."""
    for target in targets(context):
        y = answer_columns(target.array, target, most=8)
        for one in inputs(context) if y is not None else ():
            if one.mask or one.clock:
                continue
            for feature, column in _whole_columns(one):
                assert y is not None
                known, near = _by_kind(column, y[: len(column)])
                if known >= TELLS and near <= SMOOTH * known and _read_as_amount(context, one, feature, column):
                    yield _kinds(one, feature, column, target, known, near)
                    return


def _whole_columns(one: Named) -> Iterator[tuple[int, Floats]]:
    array = one.array[:MOST_ROWS]
    if array.ndim > 2:
        return
    for feature, column in enumerate(array.reshape(len(array), -1).T[:64]):
        values = column.astype(np.float64)
        if np.isfinite(values).all() and (values == np.floor(values)).all():
            kinds = len(np.unique(values))
            if LEAST_KINDS <= kinds <= min(MOST_KINDS, len(values) // ROWS_OF_A_KIND):
                yield feature, values


def _by_kind(column: Floats, y: Floats) -> tuple[float, float]:
    """Out-of-sample R² of the mean of each number, and of the mean of the two numbers beside it."""
    order = np.random.default_rng(0).permutation(len(column))
    fit, test = order[: len(order) // 2], order[len(order) // 2 :]
    kinds, place = np.unique(column, return_inverse=True)
    count = np.bincount(place[fit], minlength=len(kinds))[:, None]
    total = np.stack([np.bincount(place[fit], weights=part[fit], minlength=len(kinds)) for part in y.T], axis=1)
    overall = y[fit].mean(axis=0)
    mean = np.where(count > 0, total / np.maximum(count, 1), overall)
    before, after = np.vstack([mean[1:2], mean[:-1]]), np.vstack([mean[1:], mean[-2:-1]])
    power = float(((y[test] - overall) ** 2).sum())
    if power <= 0:
        return 0.0, 0.0
    known, near = (
        1.0 - float(((y[test] - guess[place[test]]) ** 2).sum()) / power for guess in (mean, (before + after) / 2)
    )
    return known, near


def _read_as_amount(context: Context, one: Named, feature: int, column: Floats) -> bool:
    """Whether the fresh model's answer changes gradually along the numbers, the rest of a row held still."""
    import keras

    data = context.data
    if data is None:
        return False
    kinds = np.unique(column)
    x, _, _ = data.take(np.zeros(len(kinds), int))

    def along(leaf: Any) -> Any:
        values = np.array(leaf)
        if leaf.shape[1:] == one.array.shape[1:] and np.array_equal(leaf[0], one.array[0]):
            values.reshape(len(kinds), -1)[:, feature] = kinds
        return keras.ops.convert_to_tensor(values)

    answers = keras.tree.flatten(context.model(keras.tree.map_structure(along, x), training=False))
    told = [np.asarray(keras.ops.convert_to_numpy(a), np.float64).reshape(len(kinds), -1) for a in answers]
    course = np.concatenate(told, axis=1)
    reach = np.ptp(course, axis=0)
    moves = reach > 1e-6 * np.maximum(1e-12, np.abs(course).max(axis=0))
    if not moves.any():
        return False
    return bool(np.median(np.abs(np.diff(course[:, moves], axis=0)).sum(axis=0) / reach[moves]) <= WINDING)


def _kinds(one: Named, feature: int, column: Floats, target: Named, known: float, near: float) -> Finding:
    name = one.feature(feature)
    return catalogue.finding(
        "input-encoding",
        f"input {one.name!r}, feature {name!r} holds {len(np.unique(column))} whole numbers; each by itself tells of "
        f"target {target.name!r} (R² {known:.2f}), its two neighbours do not ({max(near, 0.0):.2f}): they number "
        "kinds, and the model reads them as an amount. Expected an Embedding or one column for each kind.",
        where=one.where(feature=name),
        status="WARN",
        role="cause",
        remedy="keras.layers.Embedding(kinds, 4), or keras.layers.CategoryEncoding(kinds, output_mode='one_hot').",
        score=0.8,
    )
