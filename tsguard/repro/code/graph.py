"""Code for a model: a graph of layers call by call, a chain of them in one line, the user's own class."""

from __future__ import annotations

import inspect
import itertools
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import keras

from tsguard.repro.code.arrays import plain
from tsguard.repro.code.lines import Lines, NotCode
from tsguard.repro.code.objects import construction, snake
from tsguard.repro.code.sources import class_code
from tsguard.repro.graphs import graph_of, is_graph, nodes_of
from tsguard.repro.user import is_own_graph, own_attributes

CHAIN_MAX = 348
"""Characters of a chain of layers that is written as one statement, in three lines of `build`; longer ones get a line
for each layer."""

ALIKE_LEAST = 3
"""Layers in a row that are written alike from which they are counted: two are read faster than a count of two."""


def model(built: Any, lines: Lines) -> None:
    """Lines that make `model`."""
    if is_graph(built):
        _graph_code(graph_of(built), lines)
    elif is_own_graph(built):
        _graph_code(built, lines, class_code(type(built), lines))
        lines.body += [f"model.{key} = {plain(value)}" for key, value in own_attributes(built).items()]
    else:
        lines.body.append(f"model = {construction(built, lines)}")


def _graph_code(graph: Any, lines: Lines, maker: str = "keras.Model") -> None:
    chain = _chain(graph, lines) if maker == "keras.Model" else None
    if chain is not None:
        lines.body.append(chain)
        return
    names: dict[int, str] = {}
    for index, entry in enumerate(graph.inputs):
        name = "inputs" if len(graph.inputs) == 1 else f"input_{index}"
        names[id(entry)] = name
        labelled = len(graph.inputs) > 1 or isinstance(graph._inputs_struct, dict)
        lines.body.append(f"{name} = {_input(entry, labelled=labelled)}")
    made: dict[int, str] = {}
    nodes = nodes_of(graph)
    calls = Counter(id(node.operation) for node in nodes)
    for node in nodes:
        if not all(id(out) in names for out in node.output_tensors):
            _node(node, names, made, lines, shared=calls[id(node.operation)] > 1)
    outputs = [names[id(out)] for out in graph.outputs]
    ins = _structure(graph._inputs_struct, names)
    several = len(outputs) > 1 or isinstance(graph._outputs_struct, dict)
    outs = _structure(graph._outputs_struct, names) if several else outputs[0]
    lines.body.append(f"model = {maker}({ins}, {outs})")


def _input(entry: Any, *, labelled: bool) -> str:
    dtype = "" if entry.dtype == "float32" else f', dtype="{entry.dtype}"'
    label = f", name={json.dumps(entry.name)}" if labelled else ""
    shape = tuple(entry.shape[1:]) if entry.shape[0] is None else f"batch_shape={tuple(entry.shape)}"
    return f"keras.Input({shape}{dtype}{label})"


def _chain(graph: Any, lines: Lines) -> str | None:
    """One line for layers that follow each other; None for any other graph."""
    if len(graph.inputs) != 1 or len(graph.outputs) != 1 or isinstance(graph._inputs_struct, dict):
        return None
    if isinstance(graph._outputs_struct, dict | list | tuple) and isinstance(graph._outputs_struct, dict):
        return None
    last, draft, words = graph.inputs[0], Lines(), [_input(graph.inputs[0], labelled=False)]
    operations = [node.operation for node in nodes_of(graph)]
    if len({id(one) for one in operations}) != len(operations):
        return None
    for node in nodes_of(graph):
        arguments = node.arguments
        plain = len(arguments.args) == 1 and arguments.args[0] is last and not _said(node)
        if not plain or len(node.output_tensors) != 1 or not isinstance(node.operation, keras.layers.Layer):
            return None
        last = node.output_tensors[0]
        words.append(construction(node.operation, draft))
    text = f"model = keras.Sequential([{', '.join(_counted(words))}])"
    if last is not graph.outputs[0] or len(text) > CHAIN_MAX:
        return None
    lines.imports |= draft.imports
    for name, source in draft.sources.items():
        lines.add(name, source)
    return text


def _counted(words: list[str]) -> Iterator[str]:
    """Layers that are written alike, one after the other, as so many of them."""
    for word, alike in itertools.groupby(words):
        count = len(list(alike))
        if count < ALIKE_LEAST:
            yield from [word] * count
        else:
            yield f"*({word} for _ in range({count}))"


def _structure(value: Any, names: dict[int, str]) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{plain(key)}: {_structure(item, names)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        inner = [_structure(item, names) for item in value]
        return inner[0] if len(inner) == 1 else "[" + ", ".join(inner) + "]"
    return names[id(value)]


def _node(node: Any, names: dict[int, str], made: dict[int, str], lines: Lines, *, shared: bool) -> None:
    operation = node.operation
    for tensor in node.output_tensors:
        names[id(tensor)] = f"h{len(names)}"
    name = ", ".join(names[id(tensor)] for tensor in node.output_tensors)
    if type(operation).__name__ == "GetItem":
        tensor, key = node.arguments.args
        lines.body.append(f"{name} = {names[id(tensor)]}[{_subscript(key)}]")
        return
    arguments = [_argument(value, names) for value in node.arguments.args]
    arguments += [f"{key}={_argument(value, names)}" for key, value in _said(node).items()]
    if isinstance(operation, keras.layers.Layer):
        if id(operation) in made:
            maker = made[id(operation)]
        elif shared:  # made once, called several times
            maker = made[id(operation)] = f"layer_{len(made)}"
            lines.body.append(f"{maker} = {construction(operation, lines)}")
        else:
            maker = construction(operation, lines)
        lines.body.append(f"{name} = {maker}({', '.join(arguments)})")
        return
    path = getattr(keras.ops, snake(type(operation).__name__), None)
    if path is None:
        raise NotCode(f"operation {type(operation).__name__} has no function of that name in keras.ops.")
    known = inspect.signature(path).parameters
    settings = {key: value for key, value in vars(operation).items() if key in known and value != known[key].default}
    plainly = {key: value for key, value in settings.items() if isinstance(value, int | float | str | tuple | list)}
    arguments += [f"{key}={plain(value)}" for key, value in plainly.items()]
    lines.body.append(f"{name} = keras.ops.{snake(type(operation).__name__)}({', '.join(arguments)})")


def _said(node: Any) -> dict[str, Any]:
    """Arguments of a call by name, but for those that the layer's own `call` has as defaults."""
    call = getattr(node.operation, "call", None)
    parameters = inspect.signature(call).parameters if call is not None else {}
    said = {}
    for key, value in node.arguments.kwargs.items():
        default = parameters[key].default if key in parameters else None
        if value is not None and not (isinstance(value, bool | int | float | str) and value == default):
            said[key] = value
    return said


def _subscript(key: Any) -> str:
    """What stands in the brackets of `x[...]`."""
    # Keras writes a tuple into a configuration as a list; a list of numbers picks elements.
    if isinstance(key, list) and all(isinstance(each, int) for each in key):
        return plain(key)
    if isinstance(key, tuple | list):
        return ", ".join(_subscript(each) for each in key) + ("," if len(key) == 1 else "")
    if isinstance(key, slice):
        first, last, step = ("" if one is None else plain(one) for one in (key.start, key.stop, key.step))
        return f"{first}:{last}" + (f":{step}" if step else "")
    if key is Ellipsis:
        return "..."
    if key is None or isinstance(key, int):
        return plain(key)
    raise NotCode(f"the index {key!r:.60} cannot be written as code.")


def _argument(value: Any, names: dict[int, str]) -> str:
    if id(value) in names:
        return names[id(value)]
    if isinstance(value, list | tuple):
        inner = ", ".join(_argument(item, names) for item in value)
        return f"[{inner}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{plain(key)}: {_argument(item, names)}" for key, item in value.items()) + "}"
    if isinstance(value, bool | int | float | str) or value is None:
        return plain(value)
    raise NotCode(f"an argument of type {type(value).__name__} cannot be written as code.")
