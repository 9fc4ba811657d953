"""Validation sets with names: other periods, other entities, declared in the configuration, judged after every epoch.

A set is cut out of the training rows (the latest share, some entities, rows with certain values), or handed in by the
data function. Each is evaluated as Keras evaluates, and its numbers stand in the epoch's logs as `val_<name>_<metric>`,
where stopping, the choice of the best, trackers and pages find them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from tsguard.data.splits import by_entity, by_time
from tsguard.dataset import Data, leaves
from tsguard.errors import ConfigError, explain
from tsguard.settings import TrainSettings, ValidationSettings

Rows = Any


def declared(data: Data, settings: TrainSettings, *, seed: int = 0) -> Data:
    """The data with its validation sets taken out of training, and shortened where only a few batches are wanted."""
    for name in (*settings.validation, *data.validation_sets):
        if not name.isidentifier():
            raise _mistake(f"train.validation.{name}", repr(name), "a name of letters, digits and _", "Rename it.")
    if settings.validation:
        data = _cut(data, settings.validation, seed)
    return data if settings.limit_batches is None else _shortened(data, settings)


def _cut(data: Data, wanted: Mapping[str, ValidationSettings], seed: int) -> Data:
    if not data.is_arrays:
        raise _mistake(
            "train.validation",
            f"a {type(data.x).__name__}, of which rows cannot be taken",
            "arrays",
            "Let the data function return validation_sets={name: (x, y)}.",
        )
    left = np.arange(len(data))
    sets: dict[str, Any] = dict(data.validation_sets)
    for name, one in wanted.items():
        held, purged = _rows(data, one, left, f"train.validation.{name}", seed)
        left = np.setdiff1d(left, np.concatenate([held, purged]))
        if not len(held) or not len(left):
            raise _mistake(
                f"train.validation.{name}",
                f"{len(held)} rows for it and {len(left)} left to train on",
                "at least one of each",
                "Change the share or the values.",
            )
        sets[name] = tuple(part for part in data.take(held) if part is not None)
    x, y, weights = data.take(left)
    first = next(iter(wanted))
    return dataclasses.replace(
        data,
        x=x,
        y=y,
        sample_weight=weights,
        validation=data.validation if data.validation is not None else sets[first],
        validation_sets=sets,
        rows={name: np.asarray(column)[left] for name, column in data.rows.items()},
    )


def _rows(data: Data, one: ValidationSettings, left: Rows, place: str, seed: int) -> tuple[Rows, Rows]:
    """(rows of the set, rows of neither part), of those that are left."""
    ways = {name: getattr(one, name) for name in ("last", "entities", "values") if getattr(one, name) is not None}
    if len(ways) != 1:
        raise _mistake(
            place, ", ".join(ways) or "nothing", "one of last, entities, values", "Say how the rows are chosen."
        )
    if one.by is None:
        column = None
    elif one.by in data.rows:
        column = np.asarray(data.rows[one.by])[left]
    else:
        known = ", ".join(data.rows) or "none"
        raise _mistake(
            f"{place}.by",
            repr(one.by),
            f"a column that the data function returns in `rows`: {known}",
            "Return rows={'time': …, 'entity': …}, one value for each row.",
        )
    if one.last is not None:
        split = by_time(len(left), shares=(1 - one.last, 0.0, one.last), time=column, purge=one.purge)
        return left[split.test], left[split.purged]
    if column is None:
        raise _mistake(f"{place}.by", "nothing", "the column to choose by", "Name a column of `rows`.")
    nobody = left[:0]
    if one.entities is not None:
        return left[by_entity(column, shares=(1 - one.entities, 0.0, one.entities), seed=seed).test], nobody
    # Values are compared as words, because a YAML file has no other way to say a date or an id.
    asked = {str(value) for value in one.values or ()}
    return left[np.array([str(value) in asked for value in column.tolist()], bool)], nobody


def _shortened(data: Data, settings: TrainSettings) -> Data:
    rows = slice(0, (settings.limit_batches or 1) * (settings.batch_size or data.batch_size))

    def first(pair: Any) -> Any:
        if isinstance(pair, tuple | list) and Data(*pair).is_arrays:
            return tuple(part for part in Data(*pair).take(rows) if part is not None)
        return pair

    if not data.is_arrays:
        return data
    x, y, weights = data.take(rows)
    return dataclasses.replace(
        data,
        x=x,
        y=y,
        sample_weight=weights,
        validation=first(data.validation),
        validation_sets={name: first(pair) for name, pair in data.validation_sets.items()},
        rows={name: np.asarray(column)[rows] for name, column in data.rows.items()},
    )


class ValidationSets(keras.callbacks.Callback):
    """Evaluates every named set at the end of an epoch. Stands before the callbacks that read the logs."""

    def __init__(
        self,
        sets: Mapping[str, Any],
        *,
        main: Any = None,
        every: int = 1,
        batch_size: int | None = None,
        averages: Any = None,
    ) -> None:
        super().__init__()
        self.sets, self.main, self.every, self.batch_size = dict(sets), main, every, batch_size
        self.averages = averages
        """The callback that lays averaged weights over the model while it is evaluated, where there is one."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """One evaluation for each set; the one that `fit` has evaluated already is not evaluated again."""
        if logs is None or (epoch + 1) % self.every:
            return
        known = {name.removeprefix("val_"): value for name, value in logs.items() if name.startswith("val_")}
        for name, pair in self.sets.items():
            found = known if known and _same(pair, self.main) else self._evaluated(pair)
            logs.update({f"val_{name}_{metric}": value for metric, value in found.items()})

    def _evaluated(self, pair: Any) -> dict[str, float]:
        parts = (
            dict(zip(("x", "y", "sample_weight"), pair, strict=False))
            if isinstance(pair, tuple | list)
            else {"x": pair}
        )
        size = self.batch_size if isinstance(pair, tuple | list) else None
        callbacks = [] if self.averages is None else [self.averages]
        found = self.model.evaluate(**parts, batch_size=size, callbacks=callbacks, verbose=0, return_dict=True)
        return {name: float(value) for name, value in found.items()}


def _same(pair: Any, other: Any) -> bool:
    """Whether both hold the very same arrays."""
    return [id(leaf) for leaf in leaves(pair)] == [id(leaf) for leaf in leaves(other)]


def _mistake(place: str, received: str, expected: str, todo: str) -> ConfigError:
    return ConfigError(explain(place, received=received, expected=expected, todo=todo))
