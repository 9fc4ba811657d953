"""Python code for what a Case holds: arrays, layers, graphs, losses. What cannot be written as code says why.

Only what differs from a class's own defaults is written, and the user's own names for layers are kept.
"""

from __future__ import annotations

import ast
import inspect
import math
import textwrap
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from tsguard.errors import SubjectError
from tsguard.repro.passes import _graph, is_graph

INLINE_MAX = 48
"""Scalars of an array that a reader still takes in at a glance; larger ones go to a file beside the script."""


class NotCode(SubjectError):
    """Something that cannot be written as a few lines of code."""


@dataclass
class Lines:
    """A script in the making: imports and copied sources found on the way, and the lines of the model."""

    imports: set[str] = field(default_factory=set)
    sources: dict[str, str] = field(default_factory=dict)
    body: list[str] = field(default_factory=list)


def array(value: Any) -> str | None:
    """Code for an array; None where it is too large to be read."""
    leaf = np.asarray(value)
    dtype = f'"{leaf.dtype}"'
    if leaf.size and (leaf == leaf.flat[0]).all():
        first = leaf.flat[0].item()
        for constant, name in ((0, "zeros"), (1, "ones")):
            if first == constant and not isinstance(first, bool):
                return f"np.{name}({leaf.shape}, {dtype})"
        return f"np.full({leaf.shape}, {_number(first)}, {dtype})"
    if leaf.size > INLINE_MAX or leaf.dtype.kind not in "fiub":
        return None
    return f"np.array({_nested(leaf.tolist())}, {dtype})"


def _nested(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_nested, value)) + "]"
    return _number(value)


def _number(value: Any) -> str:
    if isinstance(value, float):
        if math.isnan(value):
            return "np.nan"
        if math.isinf(value):
            return "np.inf" if value > 0 else "-np.inf"
        return repr(float(np.float32(value))) if abs(value) > 1e-30 and len(repr(value)) > 12 else repr(value)
    return repr(value)


def model(built: Any, lines: Lines) -> None:
    """Lines that make `model`."""
    if is_graph(built):
        _graph_code(_graph(built), lines)
    else:
        lines.body.append(f"model = {_object(built, lines)}")


def _graph_code(graph: Any, lines: Lines) -> None:
    names: dict[int, str] = {}
    for index, entry in enumerate(graph.inputs):
        name = "inputs" if len(graph.inputs) == 1 else f"input_{index}"
        names[id(entry)] = name
        dtype = "" if entry.dtype == "float32" else f', dtype="{entry.dtype}"'
        label = f', name="{entry.name}"' if len(graph.inputs) > 1 or isinstance(graph._inputs_struct, dict) else ""
        lines.body.append(f"{name} = keras.Input({tuple(entry.shape[1:])}{dtype}{label})")
    made: dict[int, str] = {}
    # Depth counts from the outputs, so that the largest comes first.
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        for node in graph._nodes_by_depth[depth]:
            if node.is_input or all(id(out) in names for out in node.output_tensors):
                continue
            _node(node, names, made, lines)
    outputs = [names[id(out)] for out in graph.outputs]
    ins = _structure(graph._inputs_struct, names)
    outs = _structure(graph._outputs_struct, names) if len(outputs) > 1 else outputs[0]
    lines.body.append(f"model = keras.Model({ins}, {outs})")


def _structure(value: Any, names: dict[int, str]) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {_structure(item, names)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        inner = [_structure(item, names) for item in value]
        return inner[0] if len(inner) == 1 else "[" + ", ".join(inner) + "]"
    return names[id(value)]


def _node(node: Any, names: dict[int, str], made: dict[int, str], lines: Lines) -> None:
    operation = node.operation
    arguments = [_argument(value, names) for value in node.arguments.args]
    arguments += [
        f"{key}={_argument(value, names)}" for key, value in node.arguments.kwargs.items() if value is not None
    ]
    if len(node.output_tensors) != 1:
        raise NotCode(
            f"layer {operation.name!r} gives {len(node.output_tensors)} tensors; that is not written as code yet."
        )
    name = f"h{len(names)}"
    names[id(node.output_tensors[0])] = name
    if isinstance(operation, keras.layers.Layer):
        uses = sum(1 for other in operation._inbound_nodes)
        if id(operation) in made:
            maker = made[id(operation)]
        elif uses > 1 and _used_here(operation, node):
            maker = made[id(operation)] = f"layer_{len(made)}"
            lines.body.append(f"{maker} = {_object(operation, lines)}")
        else:
            maker = _object(operation, lines)
        lines.body.append(f"{name} = {maker}({', '.join(arguments)})")
        return
    path = getattr(keras.ops, _snake(type(operation).__name__), None)
    if path is None:
        raise NotCode(f"operation {type(operation).__name__} has no function of that name in keras.ops.")
    settings = {k: v for k, v in vars(operation).items() if k in inspect.signature(path).parameters and v is not None}
    arguments += [f"{key}={value!r}" for key, value in settings.items() if isinstance(value, int | float | str | tuple)]
    lines.body.append(f"{name} = keras.ops.{_snake(type(operation).__name__)}({', '.join(arguments)})")


def _used_here(operation: Any, node: Any) -> bool:
    """Whether a layer with several calls is called several times in this graph (and not in others that share it)."""
    model_nodes = [one for one in operation._inbound_nodes if one is not node]
    tensors = {id(out) for out in node.output_tensors}
    return any(id(arg) in tensors for one in model_nodes for arg in one.arguments.keras_tensors)


def _snake(name: str) -> str:
    return "".join(f"_{char.lower()}" if char.isupper() and index else char.lower() for index, char in enumerate(name))


def _argument(value: Any, names: dict[int, str]) -> str:
    if id(value) in names:
        return names[id(value)]
    if isinstance(value, list | tuple):
        inner = ", ".join(_argument(item, names) for item in value)
        return f"[{inner}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {_argument(item, names)}" for key, item in value.items()) + "}"
    if isinstance(value, bool | int | float | str) or value is None:
        return repr(value)
    raise NotCode(f"an argument of type {type(value).__name__} cannot be written as code.")


def _object(thing: Any, lines: Lines) -> str:
    """A constructor call with what differs from its defaults."""
    kind = type(thing)
    if kind is keras.layers.Lambda:
        return _lambda(thing, lines)
    maker = class_code(kind, lines)
    parameters = inspect.signature(kind.__init__).parameters
    try:
        config = dict(thing.get_config())
    except (NotImplementedError, TypeError) as refused:
        raise NotCode(f"{kind.__name__} has no get_config ({refused}).") from None
    taken = {key: value for key, value in config.items() if key in parameters or "kwargs" in parameters}
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
            if _given_name(thing, value):
                words.append(f"name={value!r}")
            continue
        if _is_default(value, default):
            continue
        words.append(f"{key}={_setting(value, getattr(thing, key, None), lines)}")
    return f"{maker}({', '.join(_positional(words, parameters))})"


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
        return _snake(value["class_name"]).replace("_", "") == default.replace("_", "").lower()
    if isinstance(value, list) and isinstance(default, tuple | int):
        return tuple(value) == (default if isinstance(default, tuple) else (default,) * len(value))
    if value == "linear" and default is None:
        return True
    return bool(value == default)


def _setting(value: Any, live: Any, lines: Lines) -> str:
    if isinstance(value, bool | int | float | str | tuple) or value is None:
        return repr(value)
    if isinstance(value, list) and all(isinstance(item, bool | int | float | str) for item in value):
        return repr(tuple(value)) if len(value) > 1 else repr(value[0])
    if isinstance(value, dict) and "class_name" in value:
        if isinstance(live, keras.layers.Layer):
            return _object(live, lines)
        module = str(value.get("module") or "")
        if module.startswith("keras."):
            settings = {k: v for k, v in (value.get("config") or {}).items() if v is not None}
            inner = ", ".join(f"{k}={v!r}" for k, v in settings.items() if isinstance(v, bool | int | float | str))
            return f"{module}.{value['class_name']}({inner})"
    if callable(live):
        return function_code(live, lines)
    raise NotCode(f"the setting {value!r:.60} cannot be written as code.")


def class_code(kind: type, lines: Lines) -> str:
    """How a class is reached: keras' own by name, importable ones by import, others by their source."""
    module, name = kind.__module__, kind.__qualname__
    if module.startswith("keras."):
        for home in ("layers", "losses", "optimizers"):
            if getattr(getattr(keras, home), name, None) is kind:
                return f"keras.{home}.{name}"
        if kind in (keras.Model, keras.Sequential):
            return f"keras.{name}"
        raise NotCode(f"{module}.{name} has no public name.")
    if module == "__main__" or "<locals>" in name:
        lines.sources[kind.__name__] = _source(kind)
        for parent in kind.__mro__[1:]:
            if parent.__module__ == module and parent is not object:
                lines.sources = {parent.__name__: _source(parent), **lines.sources}
        return kind.__name__
    lines.imports.add(f"from {module} import {name.split('.')[0]}")
    return name


def function_code(function: Any, lines: Lines) -> str:
    """How a function is reached."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    if not name:
        raise NotCode(f"{function!r:.60} is no function that has a name.")
    if module and module.startswith("keras."):
        for home in ("losses", "activations", "ops", "initializers"):
            short = str(function.__name__)
            if getattr(getattr(keras, home), short, None) is function:
                return f"keras.{home}.{short}"
    if module in (None, "__main__") or "<" in name:
        if getattr(function, "__closure__", None):
            raise NotCode(f"function {name} closes over variables of its surroundings.")
        lines.sources[function.__name__] = _source(function)
        return str(function.__name__)
    lines.imports.add(f"from {module} import {name.split('.')[0]}")
    return str(name)


def _source(thing: Any) -> str:
    try:
        return textwrap.dedent(inspect.getsource(thing)).rstrip()
    except (OSError, TypeError):
        raise NotCode(f"the source of {thing!r} cannot be found.") from None


def _lambda(layer: Any, lines: Lines) -> str:
    function = layer.function
    name = f", name={layer.name!r}" if _given_name(layer, layer.name) else ""
    if getattr(function, "__name__", "") != "<lambda>":
        return f"keras.layers.Lambda({function_code(function, lines)}{name})"
    if function.__closure__:
        raise NotCode(f"the lambda of layer {layer.name!r} closes over variables of its surroundings.")
    for node in ast.walk(_parsed(function)):
        if isinstance(node, ast.Lambda):
            text = ast.unparse(node)
            compiled = compile(text, "lambda", "eval").co_consts[0]
            if _same_code(compiled, function.__code__):
                for used in function.__code__.co_names:
                    _global(used, function.__globals__.get(used), lines)
                return f"keras.layers.Lambda({text}{name})"
    raise NotCode(f"the source of the lambda in layer {layer.name!r} cannot be found.")


def _same_code(left: Any, right: Any) -> bool:
    """Whether two lambdas say the same: their bytes may differ with what surrounds them, names and constants do not."""
    facts = ("co_names", "co_varnames", "co_argcount")
    constants = [[c for c in code.co_consts if not hasattr(c, "co_code")] for code in (left, right)]
    return all(getattr(left, fact) == getattr(right, fact) for fact in facts) and constants[0] == constants[1]


def _parsed(function: Any) -> ast.AST:
    source = _source(function)
    for text in (
        source,
        f"({source.strip().rstrip(',')})",
        f"f({source.strip().rstrip(',')}",
        source.strip().rstrip(",)"),
    ):
        try:
            return ast.parse(text)
        except SyntaxError:
            continue
    raise NotCode("the source of a lambda stands in the middle of something that cannot be read alone.")


def _global(name: str, value: Any, lines: Lines) -> None:
    """What a function reads from its module: known modules are imported, constants written."""
    known = {"ops": "from keras import ops", "keras": None, "np": None, "torch": None, "math": "import math"}
    if name in known:
        if known[name]:
            lines.imports.add(str(known[name]))
    elif isinstance(value, bool | int | float | str):
        lines.sources[name] = f"{name} = {value!r}"


def loss(model_: Any, lines: Lines) -> str:
    """The argument `loss=` of compile."""
    settings = model_._compile_config.config
    chosen = settings.get("loss") or getattr(model_, "loss", None)
    return _loss(chosen, lines)


def _loss(chosen: Any, lines: Lines) -> str:
    if isinstance(chosen, str) or chosen is None:
        return repr(chosen)
    if isinstance(chosen, dict):
        return "{" + ", ".join(f"{key!r}: {_loss(value, lines)}" for key, value in chosen.items()) + "}"
    if isinstance(chosen, list | tuple):
        return "[" + ", ".join(_loss(value, lines) for value in chosen) + "]"
    if isinstance(chosen, keras.losses.Loss):
        fn = getattr(chosen, "fn", None)
        if type(chosen).__name__ == "LossFunctionWrapper" and fn is not None:
            return function_code(fn, lines)
        return _object(chosen, lines)
    return function_code(chosen, lines)
