"""Names in place of numbers: the feature by the column of the frame or the input's own key, the sample by its id.

What is known comes with the data (`Guard(names=…, ids=…)` adds what is not): columns and index of a pandas frame,
the keys of a dict of inputs. What nobody named stays a number.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from tsguard.errors import ConfigError, explain
from tsguard.guard.outcome import Origin

ROLES = ("x", "y", "sample_weight")


class Names:
    """The names of one run's data."""

    def __init__(self, given: Any = None, ids: Sequence[Any] | None = None) -> None:
        self._given = checked_names(given)
        self.ids = ids
        self._columns: dict[tuple[str, str | None], tuple[str, ...]] = {}
        self._index: Any = None
        self._inputs: tuple[str | None, ...] = ()
        self._widths: dict[tuple[str, str | None], int] = {}

    def learn(self, adapter: Any) -> None:
        """Look at what `fit` was given."""
        inputs = getattr(adapter, "_inputs", None)
        parts = inputs if isinstance(inputs, tuple) else (inputs,)
        for role, part in zip(ROLES, parts, strict=False):
            for name, leaf in named(part):
                frame = getattr(leaf, "array", leaf)  # Keras wraps what it slices
                shape = tuple(getattr(frame, "shape", ()))
                self._widths[role, name] = int(shape[-1]) if len(shape) > 1 else 1
                if hasattr(frame, "columns") and hasattr(frame, "iloc"):
                    self._columns[role, name] = tuple(str(column) for column in frame.columns)
                index = getattr(frame, "index", None)
                if self._index is None and index is not None and hasattr(frame, "iloc") and not _counts(index):
                    self._index = index
        self._inputs = tuple(name for role, name in self._widths if role == "x")

    def told(self, origin: Origin) -> Origin:
        """The origin with names where they are known."""
        element = origin.element
        if element is None:
            return origin
        role = "y" if origin.output is not None else (element.of or ("x", None))[0]
        name = element.of[1] if element.of is not None else (self._inputs[0] if len(self._inputs) == 1 else None)
        changes: dict[str, Any] = {}
        if isinstance(element.feature, int):
            changes["feature"] = self.feature(role, name, element.feature)
        if element.row is not None:
            changes["id"] = self.id_of(element.row)
        told = dataclasses.replace(element, **changes)
        origin = dataclasses.replace(origin, element=told)
        if name is None or element.of is None or not isinstance(element.feature, int):
            return origin
        if role == "x":
            return dataclasses.replace(origin, input=origin.input or name)
        return dataclasses.replace(origin, output=origin.output or name) if role == "y" else origin

    def feature(self, role: str, name: str | None, index: int) -> int | str:
        """The name of feature `index` of one array."""
        names = self._given.get(name) if role == "x" else None
        if names is None and role == "x" and name not in self._given:
            names = self._given.get(None)
        names = names or self._columns.get((role, name))
        if names is not None and index < len(names):
            return names[index]
        if (
            role == "x"
            and name is not None
            and not name.isdigit()
            and index == 0
            and self._widths.get((role, name)) == 1
        ):
            return name
        return index

    def id_of(self, row: int) -> Any:
        """The id of a row of the data set, where rows have ids."""
        ids = self.ids if self.ids is not None else self._index
        if ids is None or row >= len(ids):
            return None
        value = ids[row]
        return value.item() if hasattr(value, "item") else value if isinstance(value, int) else str(value)


def checked_names(given: Any) -> dict[str | None, tuple[str, ...]]:
    """Feature names by input; None stands for every input that has no names of its own."""
    if given is None:
        return {}
    parts = given if isinstance(given, Mapping) else {None: given}
    wrong = [names for names in parts.values() if isinstance(names, str) or not isinstance(names, Sequence)]
    if wrong:
        raise ConfigError(
            explain(
                "Guard(names=…)",
                received=repr(wrong[0]),
                expected="a list of feature names, or a dict from an input's name to such a list",
                todo='For example names=["open", "close"] or names={"values": ["open", "close"]}.',
            )
        )
    return {key: tuple(str(name) for name in names) for key, names in parts.items()}


def named(part: Any, name: str | None = None) -> list[tuple[str | None, Any]]:
    """Every array of a nest with its name: the key of a dict, the position in a list, None where it is alone."""
    if part is None:
        return []
    if isinstance(part, Mapping):
        return [pair for key, value in part.items() for pair in named(value, str(key))]
    if isinstance(part, (list, tuple)):
        return [pair for position, value in enumerate(part) for pair in named(value, name or str(position))]
    return [(name, part)]


def _counts(index: Any) -> bool:
    """Whether an index only counts its rows."""
    return getattr(index, "start", None) == 0 and getattr(index, "step", None) == 1
