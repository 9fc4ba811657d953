"""What a constructor was given: by `get_config`, by attributes of the same names, or else found again.

Keras keeps the arguments of a layer and not those of a model. What no attribute tells is looked for among the default,
flags, small numbers and what the object holds, and is believed only where the constructor then makes an object that
holds the same.
"""

from __future__ import annotations

import inspect
import itertools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import keras
import numpy as np

from tsguard.backend import restore_rng, rng_state
from tsguard.repro.code.lines import Lines, NotCode
from tsguard.repro.user import attributes_set, config_of, taken_by

TRIALS = 200
"""Objects that are made to find the arguments of one: each costs what its constructor costs."""

_FOUND: WeakKeyDictionary[Any, dict[str, Any] | None] = WeakKeyDictionary()


def given_to(thing: Any) -> dict[str, Any]:
    """What a constructor was given; NotCode where that cannot be told."""
    told = config_of(thing)
    if told is not None:
        return told
    kind = type(thing)
    names = taken_by(kind)
    if kind.__module__.startswith("keras."):
        found = {name: getattr(thing, name) for name in names if hasattr(thing, name)}
    else:
        found = {name: getattr(thing, name) for name in names if not _missing(thing, name)}
        if len(found) < len(names):
            found = _found_again(thing, found)
    if isinstance(thing, keras.layers.Layer):
        found |= {"name": thing.name, "dtype": None}
    return found


def noted(thing: Any, given: Mapping[str, Any] | None) -> None:
    """Remember with what an object was made; None: not by its constructor, and nothing need be looked for."""
    _FOUND[thing] = None if given is None else {key: given[key] for key in taken_by(type(thing)) if key in given}


def _missing(thing: Any, name: str) -> bool:
    return not hasattr(thing, name) or isinstance(getattr(thing, name), keras.layers.Layer)


def _found_again(thing: Any, known: Mapping[str, Any]) -> dict[str, Any]:
    if thing not in _FOUND:
        state = rng_state()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                _FOUND[thing] = _search(thing, known)
        finally:
            restore_rng(state)
    found = _FOUND[thing]
    if found is None:
        kind = type(thing)
        name = next(name for name in taken_by(kind) if name not in known)
        raise NotCode(
            f"{kind.__name__} takes {name!r}, and neither get_config nor an attribute of that name says what it "
            f"was given. Give it a get_config."
        )
    return dict(found)


def _search(thing: Any, known: Mapping[str, Any]) -> dict[str, Any] | None:
    """The first arguments that make the same; those that are known are asked as well."""
    kind: Any = type(thing)
    missing = [name for name in taken_by(kind) if name not in known]
    parameters = inspect.signature(kind.__init__).parameters
    held = list(_held_values(thing))
    likely = [_likely(parameters[name].default, held) for name in missing]
    for values in itertools.islice(itertools.product(*likely), TRIALS):
        given = {**known, **dict(zip(missing, values, strict=True))}
        try:
            if _same(kind(**given), thing):
                return {name: given[name] for name in taken_by(kind)}
        except Exception:  # a constructor may refuse what it was not made for in any way
            continue
    return None


def _likely(default: Any, held: Sequence[Any]) -> list[Any]:
    """Values to try: the default, what the object holds, flags and small numbers; `True` is not 1 here."""
    first = [] if default is inspect.Parameter.empty else [default]
    tried = [*first, *held, True, False, None, 0, 1]
    return list({(type(value), value): value for value in tried if _is_plain(value)}.values())


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def _held_values(thing: Any) -> Iterator[Any]:
    """Plain values that an object and its layers were made with."""
    for name in attributes_set(type(thing)):
        value = getattr(thing, name, None)
        if _is_plain(value) and value is not None:
            yield value
        for part in keras.tree.flatten(value):
            if isinstance(part, keras.layers.Layer):
                told = config_of(part) or {}
                yield from (one for one in told.values() if isinstance(one, int | float) and one)


def _same(one: Any, other: Any) -> bool:
    """Whether two objects of one class hold the same, but for the values of weights and the names of layers."""
    return all(
        hasattr(one, name) == hasattr(other, name) and _alike(getattr(one, name, None), getattr(other, name, None))
        for name in attributes_set(type(other))
    )


def _alike(one: Any, other: Any) -> bool:
    if isinstance(other, keras.Variable):
        return isinstance(one, keras.Variable) and one.shape == other.shape and one.dtype == other.dtype
    if isinstance(other, keras.layers.Layer):
        return type(one) is type(other) and _alike_layers(one, other)
    if isinstance(other, Mapping):
        return isinstance(one, Mapping) and list(one) == list(other) and all(_alike(one[k], other[k]) for k in other)
    if isinstance(other, list | tuple):
        return isinstance(one, list | tuple) and len(one) == len(other) and all(map(_alike, one, other))
    if hasattr(other, "__code__"):
        return getattr(one, "__code__", None) is other.__code__ and _closed(one) == _closed(other)
    if isinstance(other, np.ndarray) or keras.ops.is_tensor(other):
        return np.array_equal(keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(other), equal_nan=True)
    return type(one) is type(other) and bool(one == other)


def _alike_layers(one: Any, other: Any) -> bool:
    if isinstance(other, keras.Model):
        if not type(other).__module__.startswith("keras."):
            return _same(one, other)
        pairs = [[part for part in model.layers if not isinstance(part, keras.layers.InputLayer)]
                 for model in (one, other)]  # fmt: skip
        return _alike(*pairs)
    from tsguard.repro.code.objects import construction

    # Built layers tell more than they were given (attention its axes): what counts is how both would be written.
    return construction(one, Lines()) == construction(other, Lines())


def _closed(function: Any) -> list[Any]:
    """The plain values that a function closes over."""
    found = []
    for cell in function.__closure__ or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:  # a name that has no value yet
            continue
    return [value for value in found if _is_plain(value)]
