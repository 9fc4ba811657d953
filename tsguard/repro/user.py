"""What a user's layer or model says of itself, and what it holds."""

from __future__ import annotations

import dis
import inspect
from typing import Any

import keras

from tsguard.repro.code.lines import NotCode


def own_attributes(built: Any) -> dict[str, Any]:
    """Plain values that the user has set on a model after it was made."""
    known = vars(keras.Model(entry := keras.Input((1,)), entry))
    plain = {key: value for key, value in vars(built).items() if isinstance(value, bool | int | float | str)}
    return {key: value for key, value in plain.items() if key not in (*known, "stop_training") and key[0] != "_"}


def is_own_graph(built: Any) -> bool:
    """A class of the user's around a graph, made as `Own(inputs, outputs)`."""
    from keras.src.models.functional import Functional

    return isinstance(built, Functional) and all(
        "__init__" not in vars(kind) for kind in type(built).__mro__[: type(built).__mro__.index(Functional)]
    )


def config_of(thing: Any) -> dict[str, Any] | None:
    """The configuration that an object gives of itself; None where it has none that is true."""
    try:
        told = dict(thing.get_config())
    except (NotImplementedError, TypeError, AttributeError, KeyError):
        return None
    kind: Any = type(thing)
    # Keras' Huber and others keep what their function is given, and leave it out of their configuration.
    told |= {key: value for key, value in getattr(thing, "_fn_kwargs", {}).items() if key in taken_by(kind)}
    says = next(one for one in kind.__mro__ if "get_config" in vars(one))
    if kind.__module__.startswith("keras.") or not says.__module__.startswith("keras."):
        return told
    if isinstance(thing, keras.Model):
        return None  # Keras notes the defaults, whatever was given
    # Of a layer Keras notes what its constructor was given; of a loss, a regularizer, a constraint it knows its own.
    missing = [] if isinstance(thing, keras.layers.Layer) else [name for name in taken_by(kind) if name not in told]
    return None if missing else told


def taken_by(kind: Any) -> list[str]:
    """Names of the arguments of a constructor."""
    parameters = list(inspect.signature(kind.__init__).parameters.items())[1:]
    return [name for name, one in parameters if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)]


def held_by(thing: Any) -> tuple[type, dict[str, Any]]:
    """The class of Keras below a user's class, and the attributes that the user's constructors set, as they are now.

    Keras keeps the arguments of a layer's constructor where they are plain values, and those of a model never; what the
    constructor made of them is all there.
    """
    kind = type(thing)
    base = next(one for one in kind.__mro__ if one.__module__.startswith("keras."))
    if base not in (keras.Model, keras.layers.Layer):
        raise NotCode(
            f"{kind.__name__} is a {base.__name__} whose arguments nobody kept. Give it a get_config that returns them."
        )
    names = attributes_set(kind)
    held = {name: getattr(thing, name) for name in names if hasattr(thing, name)}
    made = [name for name, value in held.items() if isinstance(value, keras.Variable)]
    if made:
        raise NotCode(
            f"{kind.__name__} makes the weight {made[0]!r} in its constructor, whose arguments nobody kept. Give it a "
            f"get_config that returns them."
        )
    order = {id(layer): number for number, layer in enumerate(thing._layers)}
    # Keras numbers weights in the order in which layers were set.
    return base, dict(sorted(held.items(), key=lambda item: _first_layer(item[1], order)))


def attributes_set(kind: type) -> list[str]:
    """Names that the constructors of a user's classes set on `self`."""
    return _set_in(kind, "__init__", set())


def _first_layer(value: Any, order: dict[int, int]) -> int:
    return min((order.get(id(one), -1) for one in keras.tree.flatten(value)), default=-1)


def _set_in(kind: type, method: str, seen: set[str]) -> list[str]:
    """Names that a method of the user's classes sets on `self`, also by way of other methods of theirs."""
    names: list[str] = []
    for one in kind.__mro__:
        function: Any = inspect.unwrap(vars(one)[method]) if method in vars(one) else None
        if one.__module__.startswith("keras.") or not hasattr(function, "__code__"):
            continue
        for step in dis.get_instructions(function.__code__):
            if step.opname == "STORE_ATTR":
                names.append(str(step.argval))
            elif step.opname in ("LOAD_METHOD", "LOAD_ATTR") and step.argval not in seen | {"build", "call"}:
                seen.add(str(step.argval))
                names += _set_in(kind, str(step.argval), seen)
    return list(dict.fromkeys(names))
