"""Code for one object of Keras or of the user: a constructor call with what differs from its defaults."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np

from tsguard.repro.arguments import given_to
from tsguard.repro.code.arrays import number, plain
from tsguard.repro.code.lines import Lines, NotCode
from tsguard.repro.code.sources import class_code, function_code, written
from tsguard.repro.user import held_by

SHAPES = ("target_shape", "dims")
"""Arguments that take a tuple also where it has one number: elsewhere the number alone says the same."""


def construction(thing: Any, lines: Lines) -> str:
    """A constructor call with what differs from its defaults."""
    kind = type(thing)
    if kind is keras.layers.Lambda:
        return _lambda(thing, lines)
    try:
        config = given_to(thing)
    except NotCode:
        return _as_held(thing, lines)
    maker = class_code(kind, lines)
    parameters = inspect.signature(kind.__init__).parameters
    # In the order of the constructor: the first argument is written without its name.
    ordered = sorted(config, key=lambda key: [*parameters, key].index(key))
    taken = {key: config[key] for key in ordered if key in parameters or "kwargs" in parameters}
    words = []
    for key, value in taken.items():
        default = parameters[key].default if key in parameters else inspect.Parameter.empty
        if key in ("trainable", "build_config", "seed", "zero_output_for_mask") and value in (True, None, False):
            if key != "trainable" or value is True:
                continue
        if key == "dtype":
            policy = getattr(getattr(thing, "dtype_policy", None), "name", "float32")
            if policy != "float32":
                words.append(f'dtype="{policy}"')
            continue
        if key == "name":
            if value != default and _given_name(thing, value):
                words.append(f"name={plain(value)}")
            continue
        needed = key in parameters and default is inspect.Parameter.empty  # None too has to be said
        if not needed and (_is_default(value, default) or (default is None and value == _implied(key, config))):
            continue
        if key in SHAPES and isinstance(value, list | tuple):
            words.append(f"{key}={plain(tuple(value))}")
            continue
        words.append(f"{key}={_setting(value, _live(thing, key), lines)}")
    return f"{maker}({', '.join(_positional(words, parameters))})"


def _as_held(thing: Any, lines: Lines) -> str:
    """A class of the user's whose constructor sets what this object holds, and its call without arguments."""
    base, held = held_by(thing)
    home = "keras.Model" if base is keras.Model else "keras.layers.Layer"
    named = f", name={plain(thing.name)}" if _given_name(thing, thing.name) else ""
    known: dict[int, str] = {}
    sets = [f"{home}.__init__(self{named})"]
    for name, value in held.items():
        outer, lines.owner = lines.owner, thing
        sets.append(f"self.{name} = {known.get(id(value)) or _held_value(name, value, lines)}")
        lines.owner = outer
        if isinstance(value, keras.layers.Layer):
            known[id(value)] = f"self.{name}"
    class_code(type(thing), lines, sets=tuple(sets))
    return f"{type(thing).__name__}()"


def _held_value(name: str, value: Any, lines: Lines) -> str:
    if isinstance(value, keras.layers.Layer):
        return construction(value, lines)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_held_value(name, one, lines) for one in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{plain(key)}: {_held_value(name, one, lines)}" for key, one in value.items()) + "}"
    return written(value, lines, name)


def _live(thing: Any, key: str) -> Any:
    return getattr(thing, f"_{key}" if key == "learning_rate" else key, None)


def _positional(words: list[str], parameters: Any) -> list[str]:
    """The first argument without its name, as people write it."""
    first = next((name for name in parameters if name != "self"), None)
    if words and first is not None and words[0].startswith(f"{first}="):
        return [words[0][len(first) + 1 :], *words[1:]]
    return words


def _given_name(thing: Any, name: Any) -> bool:
    auto = "".join(f"_{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(type(thing).__name__))
    plain = str(name).rstrip("0123456789_").replace("_", "")
    return plain != auto.replace("_", "") and not plain.startswith(("functional", "sequential", "lstm", "gru"))


def _is_default(value: Any, default: Any) -> bool:
    if default is inspect.Parameter.empty:
        return value is None
    if isinstance(value, dict) and "class_name" in value and isinstance(default, str):
        return _is_named(value, default)
    if isinstance(value, list | tuple) and isinstance(default, tuple | int):
        return tuple(value) == (default if isinstance(default, tuple) else (default,) * len(value))
    if value == "linear" and default is None:
        return True
    return bool(value == default)


def _implied(key: str, config: Mapping[str, Any]) -> Any:
    """What Keras puts in place of an argument that was not given."""
    if key == "data_format":
        return keras.config.image_data_format()
    if key == "attention_axes":
        return (1,)  # the only axis that attention over (batch, time, features) can have
    taken_from = {"strides": "pool_size", "value_dim": "key_dim"}.get(key)
    return config.get(taken_from, ...) if taken_from else ...


def _is_named(value: dict[str, Any], default: str) -> bool:
    """Whether a serialized initializer or activation is the one that a default names."""
    if snake(value["class_name"]).replace("_", "") == default.replace("_", "").lower():
        return True
    try:
        usual = keras.initializers.get(default)
    except ValueError:
        return False
    plainly = {**(value.get("config") or {}), "seed": None}
    return type(usual).__name__ == value["class_name"] and plainly == {**usual.get_config(), "seed": None}


def _setting(value: Any, live: Any, lines: Lines) -> str:
    if isinstance(value, tuple) and len(value) == 1:
        return plain(value[0])
    if isinstance(value, bool | int | float | str | tuple) or value is None:
        return plain(value)
    if isinstance(value, list) and all(isinstance(item, bool | int | float | str) for item in value):
        return plain(tuple(value)) if len(value) > 1 else plain(value[0])
    if isinstance(value, dict) and "class_name" in value:
        if isinstance(live, keras.layers.Layer):
            return construction(live, lines)
        if str(value.get("module") or "").startswith("keras."):
            return _small(value)
    if isinstance(live, list | tuple) and live and all(isinstance(item, keras.layers.Layer) for item in live):
        return "[" + ", ".join(construction(item, lines) for item in live) + "]"
    if isinstance(live, keras.layers.Layer | keras.optimizers.schedules.LearningRateSchedule):
        return construction(live, lines)
    if isinstance(value, np.generic):
        return number(value)
    if callable(live):
        return function_code(live, lines)
    raise NotCode(f"the setting {value!r:.60} cannot be written as code.")


def _small(value: Mapping[str, Any]) -> str:
    """An initializer, a regularizer, a constraint by its configuration; by its name alone where that says all."""
    path, name = f"{value['module']}.{value['class_name']}", snake(str(value["class_name"]))
    kind: Any = functools.reduce(getattr, path.split(".")[1:], keras)
    parameters = inspect.signature(kind.__init__).parameters
    usual = {key: one.default for key, one in parameters.items()}
    told = {key: one for key, one in (value.get("config") or {}).items() if one is not None and one != usual.get(key)}
    words = [f"{key}={plain(one)}" for key, one in told.items() if isinstance(one, bool | int | float | str)]
    if not words and _is_initializer(name, kind):
        return plain(name)
    return f"{path}({', '.join(_positional(words, parameters))})"


def _is_initializer(name: str, kind: type) -> bool:
    """Whether Keras knows an initializer by a name alone."""
    try:
        return type(keras.initializers.get(name)) is kind
    except (ValueError, KeyError):
        return False


def _lambda(layer: Any, lines: Lines) -> str:
    name = f", name={plain(layer.name)}" if _given_name(layer, layer.name) else ""
    return f"keras.layers.Lambda({function_code(layer.function, lines)}{name})"


def snake(name: str) -> str:
    return "".join(f"_{char.lower()}" if char.isupper() and index else char.lower() for index, char in enumerate(name))


def importable(kinds: Iterable[type]) -> bool:
    """Whether another process can import all of these classes by name."""
    return all(kind.__module__ != "__main__" and "<locals>" not in kind.__qualname__ for kind in kinds)
