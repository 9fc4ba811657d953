"""Copies of a model: the same graph with other layers, the same class made again, compiled like the original."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import keras

from tsguard.backend import seed_everything
from tsguard.repro.arguments import given_to, noted
from tsguard.repro.code.lines import NotCode
from tsguard.repro.user import config_of, held_by, is_own_graph, own_attributes

REFUSALS = (ValueError, TypeError, AttributeError, KeyError, IndexError, RuntimeError, NotImplementedError, NotCode)
"""What Keras and torch raise for a configuration that cannot be."""


def reinitialised(model: Any, seed: int = 0) -> Any:
    """The same graph with freshly made layers. Layers without weights are shared: a Lambda cannot be made again."""
    if not is_graph(model):
        return _made_again(model, seed)

    def again(layer: Any) -> Any:
        return remade(layer) if getattr(layer, "weights", ()) else layer

    try:
        seed_everything(seed)
        fresh = cloned(model, again)
        compile_like(model, fresh, optimizer=None)
    except REFUSALS:
        return None
    return fresh


def _made_again(model: Any, seed: int) -> Any:
    """A model of the user's own class, from what its constructor was given or from what it holds."""
    try:
        seed_everything(seed)
        if is_own_graph(model):
            fresh = type(model).from_config(model.get_config())
            for name, value in own_attributes(model).items():
                setattr(fresh, name, value)
        else:
            fresh = remade(model)
        compile_like(model, fresh, optimizer=None)
    except Exception:  # the user's own constructor may refuse in any way; then the recorded weights stay
        return None
    return fresh


def remade(thing: Any, changed: Mapping[int, Mapping[str, Any]] | None = None) -> Any:
    """A layer or model once more, not built, with weights still to be drawn.

    `changed` gives other arguments to the constructors of some: the id of the layer, and its arguments.
    """
    kind: Any = type(thing)
    other = (changed or {}).get(id(thing), {})
    if kind.__module__.startswith("keras."):
        return kind.from_config({**thing.get_config(), **other})
    try:
        takes = inspect.signature(kind.__init__).parameters
        given = {key: value for key, value in given_to(thing).items() if key in takes or "kwargs" in takes}
        if config_of(thing) is not None:
            return kind.from_config({**given, **other})
        made = kind(**{**given, **other})
        noted(made, {**given, **other})
        return made
    except NotCode:
        base, held = held_by(thing)
    fresh: Any = kind.__new__(kind)
    begin: Any = base
    begin.__init__(fresh, name=thing.name)
    noted(fresh, None)
    seen: dict[int, Any] = {}
    for name, value in held.items():
        setattr(fresh, name, keras.tree.map_structure(lambda one: _part(one, seen, changed), value))
    return fresh


def _part(value: Any, seen: dict[int, Any], changed: Mapping[int, Mapping[str, Any]] | None) -> Any:
    """A layer that is held twice is made once."""
    if not isinstance(value, keras.layers.Layer):
        return value
    if id(value) not in seen:
        seen[id(value)] = remade(value, changed)
    return seen[id(value)]


def settings_of(model: Any) -> dict[str, Any]:
    """With what a model was compiled; nothing where it never was."""
    return dict(getattr(getattr(model, "_compile_config", None), "config", None) or {})


def compile_like(model: Any, fresh: Any, *, optimizer: str | None) -> None:
    """Compile with the losses of the model, and with its kind of optimizer unless another is named."""
    settings = settings_of(model)
    if not settings and getattr(model, "optimizer", None) is None:
        return  # it was never compiled, and a law needs no loss
    chosen = optimizer or type(model.optimizer).from_config(model.optimizer.get_config())
    loss = settings.get("loss") or getattr(model, "loss", None)
    # Metrics have no part in a step; they have one where the whole of the configuration is asked about.
    metrics = settings.get("metrics") if optimizer is None and plain_names(settings.get("metrics")) else None
    fresh.compile(optimizer=chosen, loss=loss, loss_weights=settings.get("loss_weights"), metrics=metrics)


def plain_names(metrics: Any) -> bool:
    """Whether metrics are told by their names alone: others hold a state, and cannot be in two models."""
    return bool(metrics) and all(isinstance(one, str) for one in keras.tree.flatten(metrics))


def cloned(model: Any, again: Callable[[Any], Any], tensors: Any = None) -> Any:
    """The same graph with other layers, not compiled: Keras cannot compile again what was compiled with a function."""
    given = {} if tensors is None else {"input_tensors": tensors}
    compiled = model.compiled
    model.compiled = False
    try:
        return keras.models.clone_model(model, clone_function=again, **given)
    finally:
        model.compiled = compiled


def opened(model: Any, x: Any) -> Any:
    """A `Sequential` that was not told its input, as one that is: only then there is a graph. Others as they are."""
    if type(model) is not keras.Sequential or model._functional is not None or not hasattr(x, "shape"):
        return model
    try:
        given = keras.backend.standardize_dtype(x.dtype)
        dtype = "float32" if given == "float64" else given  # as `fit` reads it
        layers = [one if isinstance(one, keras.layers.Lambda) else remade(one) for one in model.layers]
        fresh = keras.Sequential([keras.Input(x.shape[1:], dtype=dtype), *layers], name=model.name)
        compile_like(model, fresh, optimizer=None)
    except REFUSALS:
        return model
    return fresh


def is_graph(model: Any) -> bool:
    """Whether the model is a graph of layers that can be cut: Functional or Sequential, not a subclass of its own."""
    from keras.src.models.functional import Functional

    return type(model) in (Functional, keras.Sequential)


def has_graph(model: Any) -> bool:
    """Whether there is a graph that can be rebuilt: also one in a class of the user's own."""
    return is_graph(model) or is_own_graph(model)


def graph_of(model: Any) -> Any:
    """The Functional graph: a Sequential keeps one inside."""
    return model._functional if isinstance(model, keras.Sequential) else model


def operations_of(model: Any) -> list[Any]:
    """The layers and the operations of its own that a graph calls, in order."""
    return list(dict.fromkeys(node.operation for node in nodes_of(graph_of(model))))


def output_of(model: Any, layer: Any) -> Any:
    """The tensor that a layer gives in this graph: a layer shared by several graphs has several."""
    found = [
        node.output_tensors for nodes in model._nodes_by_depth.values() for node in nodes if node.operation is layer
    ]
    if len(found) != 1 or len(found[0]) != 1:
        raise ValueError(f"layer {layer.name} gives {len(found)} outputs in this graph")
    return found[0][0]


def rebuilt(
    model: Any,
    again: Callable[[Any], Any],
    *,
    inputs: Mapping[str, Any] | None = None,
    outputs: Any = None,
) -> tuple[Any, list[tuple[Any, Any]]]:
    """The graph called anew, layer by layer, not compiled, and which layer took the place of which.

    Where `again` gives None for a layer, what goes in comes out.

    Args:
        again: The layer (or operation) that takes the place of one.
        inputs: Entries that take the place of those of the same name.
        outputs: Tensors of the old graph that are the new model's outputs. Inputs that they do not need are left out.
    """
    graph = graph_of(model)
    wanted = graph._outputs_struct if outputs is None else outputs
    nodes = _needed(graph, wanted)
    used = {id(tensor) for node in nodes for tensor in node.arguments.keras_tensors} | set(map(id, flat(wanted)))
    tensors: dict[int, Any] = {}
    for entry in graph.inputs:
        named = (inputs or {}).get(entry.name)
        tensors[id(entry)] = (
            keras.Input(batch_shape=entry.shape, dtype=entry.dtype, name=entry.name) if named is None else named
        )
    new: dict[int, Any] = {}

    def known(value: Any) -> Any:
        return tensors.get(id(value), value)

    for node in nodes:
        one = node.operation
        if id(one) not in new:
            new[id(one)] = again(one)
        args, kwargs = keras.tree.map_structure(known, (node.arguments.args, node.arguments.kwargs))
        made = known(node.arguments.keras_tensors[0]) if new[id(one)] is None else new[id(one)](*args, **kwargs)
        for old, fresh in zip(node.output_tensors, keras.tree.flatten(made), strict=True):
            tensors[id(old)] = fresh
    entries = graph._inputs_struct
    if isinstance(entries, dict) and outputs is not None:
        entries = {key: tensor for key, tensor in entries.items() if id(tensor) in used}
    maker = type(model) if is_own_graph(model) and not is_graph(model) else keras.Model
    whole = maker(*(keras.tree.map_structure(known, part) for part in (entries, wanted)))
    for name, value in own_attributes(model).items() if maker is not keras.Model else ():
        setattr(whole, name, value)
    pairs = [(layer, new[id(layer)]) for layer in model.layers if new.get(id(layer)) is not None]
    return whole, pairs


def flat(structure: Any) -> list[Any]:
    """The leaves of a structure, in Keras' own order."""
    return list(keras.tree.flatten(structure))


def nodes_of(graph: Any) -> list[Any]:
    """Every call of the graph, in order: depth counts from the outputs, so that the largest comes first."""
    by_depth = graph._nodes_by_depth
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth] if not node.is_input]


def _needed(graph: Any, outputs: Any) -> list[Any]:
    """The calls that lead to some outputs."""
    waiting, kept = set(map(id, flat(outputs))), []
    for node in reversed(nodes_of(graph)):
        if any(id(out) in waiting for out in node.output_tensors):
            kept.append(node)
            waiting |= {id(tensor) for tensor in node.arguments.keras_tensors}
    return kept[::-1]
