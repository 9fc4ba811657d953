"""What a model is trained on, whatever form it came in: one array, several, a dict, or batches from an iterable.

Structures keep the shape in which the user gave them, so that a batch cut here is a batch that `model.fit` would see.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tsguard.errors import ConfigError, DataError, explain


@dataclass(frozen=True, slots=True)
class Data:
    """What a model is trained on: arrays (one, a list or a dict), or anything iterable that `model.fit` takes as x."""

    x: Any
    y: Any = None
    sample_weight: Any = None
    validation: Any = None
    """What `fit` takes as validation_data: (x, y), (x, y, weights) or an iterable of batches."""
    names: tuple[str, ...] = ()
    """Names of the features, where known."""
    batch_size: int = 32
    validation_sets: Mapping[str, Any] = field(default_factory=dict)
    """More validation data by name: other periods, other entities."""
    rows: Mapping[str, Any] = field(default_factory=dict)
    """What is known about each row beside its features, one value a row: its time, its entity."""
    scalers: Mapping[str, Any] = field(default_factory=dict)
    """The scalers with which "x" and "y" were made: what predictions of a trained run are made and given back with."""

    def __post_init__(self) -> None:
        # Frames are arrays with names; rows are cut by position here, which a frame's own `[]` does not do.
        if not self.names and hasattr(self.x, "columns") and hasattr(self.x, "iloc"):
            object.__setattr__(self, "names", tuple(str(name) for name in self.x.columns))
        if hasattr(self.x, "__next__"):
            object.__setattr__(self, "x", Once(self.x))
        for part in ("x", "y", "sample_weight"):
            object.__setattr__(self, part, map_leaves(_plain, getattr(self, part)))
        if isinstance(self.validation, tuple):
            object.__setattr__(self, "validation", map_leaves(_plain, self.validation))

    @classmethod
    def of(cls, value: Any) -> Data:
        """Accept what a data function may return: a Data, a dict with x and y, or a tuple (x, y[, weights])."""
        if isinstance(value, Data):
            return value
        if isinstance(value, Mapping):
            known = {"x", "y", "sample_weight", "validation", "validation_data", "names", "batch_size"}
            known |= {"validation_sets", "rows", "scalers"}
            extra = sorted(set(value) - known)
            if "x" not in value or extra:
                raise ConfigError(
                    explain(
                        "data",
                        received=f"a dict with {sorted(value)}",
                        expected=f"a dict with 'x' and, where there are any, {sorted(known - {'x'})}",
                        todo="Return dict(x=…, y=…, validation_data=(x, y)).",
                    )
                )
            fields = dict(value)
            fields["validation"] = fields.pop("validation_data", fields.get("validation"))
            fields["names"] = tuple(str(name) for name in fields.get("names") or ())
            return cls(**fields)
        if isinstance(value, tuple) and len(value) in (2, 3):
            return cls(*value)
        raise ConfigError(
            explain(
                "data",
                received=f"a {type(value).__name__}",
                expected="a dict with 'x' and 'y', a tuple (x, y) or (x, y, sample_weight), or tsguard.subject.Data",
                todo="Let the data function return one of these.",
            )
        )

    @property
    def for_fit(self) -> Any:
        """What `model.fit` is given as x."""
        return self.x.whole() if isinstance(self.x, Once) else self.x

    @property
    def is_arrays(self) -> bool:
        """Whether x is held in memory as arrays, so that any batch can be cut from it."""
        return all(hasattr(leaf, "shape") and hasattr(leaf, "__getitem__") for leaf in leaves(self.x)) and bool(
            list(leaves(self.x))
        )

    def held_back(self) -> Data | None:
        """The validation part as data of its own; None where there is none, or one that can be read only once."""
        held = self.validation
        if isinstance(held, tuple | list) and len(held) in (2, 3):
            return replace(Data(*held), names=self.names, batch_size=self.batch_size)
        again = hasattr(held, "__getitem__") or hasattr(held, "__len__")
        return Data(held, names=self.names, batch_size=self.batch_size) if again else None

    def __len__(self) -> int:
        """Number of samples, where it is known."""
        if self.is_arrays:
            return int(next(iter(leaves(self.x))).shape[0])
        raise TypeError("the number of samples of an iterable is not known before it has been read")

    def require_rows(self) -> None:
        """A DataError unless every array holds the same number of samples, and at least one."""
        for part in ("x", "y", "sample_weight"):
            numbers = next((leaf for leaf in leaves(getattr(self, part)) if isinstance(leaf, int | float)), None)
            if numbers is not None:
                raise DataError(
                    explain(
                        part,
                        received=f"a {type(getattr(self, part)).__name__} of numbers",
                        expected="an array: to model.fit a list is one array for each input or output",
                        todo=f"Pass numpy.asarray({part}).",
                    )
                )
        if not self.is_arrays:
            return
        counts = {
            f"{part}[{number}]" if isinstance(getattr(self, part), Mapping | list | tuple) else part: leaf.shape
            for part in ("x", "y", "sample_weight")
            for number, leaf in enumerate(leaves(getattr(self, part)))
            if hasattr(leaf, "shape")
        }
        rows = {shape[0] if shape else None for shape in counts.values()}
        if len(rows) > 1 or rows & {0, None}:
            raise DataError(
                explain(
                    "data",
                    received=", ".join(f"{name} of shape {tuple(shape)}" for name, shape in counts.items()),
                    expected="the same number of samples along axis 0 of every array, and at least one",
                    todo="Check what was selected, and that x and y come from the same rows.",
                )
            )

    def take(self, index: Any) -> tuple[Any, Any, Any]:
        """(x, y, sample_weight) at the given rows, in the structure in which they came."""
        if not self.is_arrays:
            raise TypeError("rows can be taken from arrays only; use batches()")

        def cut(leaf: Any) -> Any:
            return leaf[index]

        return map_leaves(cut, self.x), map_leaves(cut, self.y), map_leaves(cut, self.sample_weight)

    def batches(self, limit: int | None = None) -> Iterator[tuple[Any, Any, Any]]:
        """The first batches as (x, y, sample_weight), in order; of what can be read only once the first one."""
        if self.is_arrays:
            starts = range(0, len(self), self.batch_size)
            for start in starts if limit is None else starts[:limit]:
                yield self.take(slice(start, start + self.batch_size))
            return
        if hasattr(self.x, "__getitem__") and hasattr(self.x, "__len__"):
            source: Any = (self.x[i] for i in range(len(self.x)))
        else:
            source = iter(self.x)
        for number, batch in enumerate(source):
            if limit is not None and number >= limit:
                return
            yield unpack(batch)


def length_of(source: Any) -> int | None:
    """How many batches a loader says that it has; None where it does not know (one over a stream has a `__len__` that
    raises)."""
    try:
        return len(source)
    except (TypeError, NotImplementedError):
        return None


def _plain(leaf: Any) -> Any:
    """A frame or series as the array that Keras makes of it; anything else as it is."""
    if hasattr(leaf, "iloc") and hasattr(leaf, "to_numpy"):
        array = leaf.to_numpy()
        return array[:, None] if array.ndim == 1 else array
    return leaf


def held_out(data: Data, share: float) -> Data:
    """The data as `fit(validation_split=…)` sees it: the last rows validate. What has validation data stays whole."""
    if not share or data.validation is not None or not data.is_arrays:
        return data
    first = math.floor(len(data) * (1.0 - share))  # Keras' own rule
    x, y, weights = data.take(slice(0, first))
    *pair, held_weights = data.take(slice(first, None))
    held = (*pair,) if held_weights is None else (*pair, held_weights)
    rows = {name: np.asarray(column)[:first] for name, column in data.rows.items()}
    return dataclasses.replace(data, x=x, y=y, sample_weight=weights, validation=held, rows=rows)


class Once:
    """A generator, of which the first batch is at hand and every batch is left for training.

    That one is drawn here and now, as `fit` draws one before it begins: numbers that a generator takes from a global
    source are then the same, watched or not.
    """

    __slots__ = ("_first", "_rest")

    def __init__(self, source: Iterator[Any]) -> None:
        self._first, self._rest = list(itertools.islice(source, 1)), source

    def __iter__(self) -> Iterator[Any]:
        return iter(self._first)

    def whole(self) -> Iterator[Any]:
        """Every batch, for whoever trains."""
        yield from self._first
        yield from self._rest


class Batches:
    """Batches that are at hand, one after another: not arrays, whatever they hold."""

    def __init__(self, batches: list[Any]) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> Any:
        return self._batches[index]


def packed(arrays: Mapping[str, Any]) -> bytes:
    """Arrays by name as the bytes of an .npz file, without pickles."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{name: np.asarray(value) for name, value in arrays.items()})
    return buffer.getvalue()


def unpack(batch: Any) -> tuple[Any, Any, Any]:
    """Keras' rule for one batch: x alone, (x, y), or (x, y, sample_weight)."""
    if not isinstance(batch, tuple | list):
        return batch, None, None
    parts = [*batch, None, None]
    return parts[0], parts[1], parts[2]


def leaves(structure: Any) -> Iterator[Any]:
    """The arrays of a structure of dicts, lists and tuples, in Keras' order; None holds none."""
    if structure is None:
        return
    if isinstance(structure, Mapping):
        for key in structure:
            yield from leaves(structure[key])
    elif isinstance(structure, list | tuple):
        for item in structure:
            yield from leaves(item)
    else:
        yield structure


def map_leaves(function: Callable[[Any], Any], structure: Any) -> Any:
    """The same structure with the function applied to every array."""
    if structure is None:
        return None
    if isinstance(structure, Mapping):
        return {key: map_leaves(function, value) for key, value in structure.items()}
    if isinstance(structure, tuple):
        return tuple(map_leaves(function, item) for item in structure)
    if isinstance(structure, list):
        return [map_leaves(function, item) for item in structure]
    return function(structure)


def exchanged(structure: Any, old: Any, new: Any) -> Any:
    """The same structure with another array in the place of one."""
    return map_leaves(lambda leaf: new if leaf is old else leaf, structure)


def joined(parts: Sequence[Any], together: Callable[[list[Any]], Any]) -> Any:
    """Structures of one kind as one: in each place what `together` makes of theirs. None where one of them is None."""
    if any(part is None for part in parts):
        return None
    columns = zip(*(list(leaves(part)) for part in parts), strict=True)
    waiting = iter([together(list(column)) for column in columns])
    return map_leaves(lambda _: next(waiting), parts[0])
