"""Copies of a model: the same graph with other layers, the same class made again, compiled like the original."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras

from tsguard.backend import seed_everything
from tsguard.repro.code.lines import NotCode


def reinitialised(model: Any) -> Any:
    """The same graph with freshly made layers. Layers without weights are shared: a Lambda cannot be made again."""
    if not is_graph(model):
        return _made_again(model)

    def again(layer: Any) -> Any:
        return type(layer).from_config(layer.get_config()) if layer.weights else layer

    try:
        seed_everything(0)
        fresh = cloned(model, again)
        compile_like(model, fresh, optimizer=None)
    except (ValueError, TypeError, AttributeError, KeyError, NotImplementedError):
        return None
    return fresh


def _made_again(model: Any) -> Any:
    """A model of the user's own class, from what its constructor was given."""
    try:
        takes = inspect.signature(type(model).__init__).parameters
        seed_everything(0)
        if is_own_graph(model):
            fresh = type(model).from_config(model.get_config())
            for name, value in own_attributes(model).items():
                setattr(fresh, name, value)
            compile_like(model, fresh, optimizer=None)
            return fresh
        given = given_to(model)
        fresh = type(model)(**{key: value for key, value in given.items() if key in takes})
        compile_like(model, fresh, optimizer=None)
    except Exception:  # the user's own constructor may refuse in any way; then the recorded weights stay
        return None
    return fresh


def compile_like(model: Any, fresh: Any, *, optimizer: str | None) -> None:
    """Compile with the losses of the model, and with its kind of optimizer unless another is named."""
    settings = model._compile_config.config
    chosen = optimizer or type(model.optimizer).from_config(model.optimizer.get_config())
    loss = settings.get("loss") or getattr(model, "loss", None)
    fresh.compile(optimizer=chosen, loss=loss, loss_weights=settings.get("loss_weights"))


def cloned(model: Any, again: Callable[[Any], Any], tensors: Any = None) -> Any:
    """The same graph with other layers, not compiled: Keras cannot compile again what was compiled with a function."""
    given = {} if tensors is None else {"input_tensors": tensors}
    compiled = model.compiled
    model.compiled = False
    try:
        return keras.models.clone_model(model, clone_function=again, **given)
    finally:
        model.compiled = compiled


def is_graph(model: Any) -> bool:
    """Whether the model is a graph of layers that can be cut: Functional or Sequential, not a subclass of its own."""
    from keras.src.models.functional import Functional

    return type(model) in (Functional, keras.Sequential)


def graph_of(model: Any) -> Any:
    """The Functional graph: a Sequential keeps one inside."""
    return model._functional if isinstance(model, keras.Sequential) else model


def output_of(model: Any, layer: Any) -> Any:
    """The tensor that a layer gives in this graph: a layer shared by several graphs has several."""
    found = [
        node.output_tensors for nodes in model._nodes_by_depth.values() for node in nodes if node.operation is layer
    ]
    if len(found) != 1 or len(found[0]) != 1:
        raise ValueError(f"layer {layer.name} gives {len(found)} outputs in this graph")
    return found[0][0]


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


def given_to(thing: Any) -> dict[str, Any]:
    """What a constructor was given: by `get_config`, or by attributes of the same names where that is refused."""
    try:
        return dict(thing.get_config())
    except (NotImplementedError, TypeError, AttributeError, KeyError):
        found: dict[str, Any] = {}
    kind = type(thing)
    for name, parameter in list(inspect.signature(kind.__init__).parameters.items())[1:]:
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        if not hasattr(thing, name) and parameter.default is parameter.empty:
            raise NotCode(
                f"{kind.__name__} takes {name!r}, and neither get_config nor an attribute of that name says what it "
                f"was given. Give it a get_config."
            )
        if hasattr(thing, name):
            found[name] = getattr(thing, name)
    if isinstance(thing, keras.layers.Layer):
        found |= {"name": thing.name, "dtype": None}
    return found
