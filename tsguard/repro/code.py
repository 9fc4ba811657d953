"""Python code for what a Case holds: arrays, layers, graphs, losses. What cannot be written as code says why.

Only what differs from a class's own defaults is written, and the user's own names for layers are kept.
"""

from __future__ import annotations

import ast
import builtins
import dis
import inspect
import json
import math
import re
import sys
import textwrap
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from tsguard.errors import SubjectError
from tsguard.repro.passes import _graph, is_graph

INLINE_MAX = 48
"""Scalars of an array that a reader still takes in at a glance; larger ones go to a file beside the script."""


CHAIN_MAX = 110
"""Characters of a chain of layers that is written as one line; longer ones get a line for each layer."""

RESERVED = frozenset("os sys pkgutil json keras np x y weight slots stored build finite stages found model".split())
"""Names that the script itself uses: code that is copied in must not bind them to something else."""


class NotCode(SubjectError):
    """Something that cannot be written as a few lines of code."""


@dataclass
class Lines:
    """A script in the making: imports and copied sources found on the way, and the lines of the model."""

    imports: set[str] = field(default_factory=set)
    sources: dict[str, str] = field(default_factory=dict)
    body: list[str] = field(default_factory=list)

    @property
    def annotated(self) -> bool:
        """Whether copied code has annotations, which name things that the script does not import."""
        trees = [ast.parse(text) for text in self.sources.values()]
        nodes = [node for tree in trees for node in ast.walk(tree)]
        return any(isinstance(n, ast.AnnAssign) or getattr(n, "annotation", None) or getattr(n, "returns", None)
                   for n in nodes)  # fmt: skip

    def add(self, name: str, text: str) -> None:
        """A definition of the script; one name may stand for one thing only."""
        if name in RESERVED:
            raise NotCode(f"{name!r} is a name that the script itself uses, so code that reads it cannot be copied in.")
        if self.sources.get(name, text) != text:
            raise NotCode(f"{name!r} means two things in the code to be copied; a script has one name for each.")
        self.sources[name] = text


def array(value: Any) -> str | None:
    """Code for an array; None where it is too large to be read."""
    leaf = np.asarray(value)
    dtype = f'"{leaf.dtype}"'
    if leaf.size and (leaf == leaf.flat[0]).all():
        first = leaf.flat[0].item()
        for constant, name in ((0, "zeros"), (1, "ones")):
            if first == constant and not isinstance(first, bool):
                return f"np.{name}({leaf.shape}, {dtype})"
        return f"np.full({leaf.shape}, {_number(leaf.flat[0])}, {dtype})"
    if leaf.size > INLINE_MAX or leaf.dtype.kind not in "fiub":
        return None
    return f"np.array({_nested(leaf)}, {dtype})"


def _nested(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return "[" + ", ".join(map(_nested, value)) + "]"
    return _number(value)


def _number(value: Any) -> str:
    """The fewest digits that give the same number in its own precision."""
    if isinstance(value, float | np.floating):
        if math.isnan(value):
            return "np.nan"
        if math.isinf(value):
            return "np.inf" if value > 0 else "-np.inf"
    return str(value.item() if isinstance(value, np.float64) else value)


def model(built: Any, lines: Lines) -> None:
    """Lines that make `model`."""
    if is_graph(built):
        _graph_code(_graph(built), lines)
    elif is_own_graph(built):
        _graph_code(built, lines, class_code(type(built), lines))
        lines.body += [f"model.{key} = {value!r}" for key, value in own_attributes(built).items()]
    else:
        lines.body.append(f"model = {_object(built, lines)}")


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
    for node in _nodes(graph):
        if not all(id(out) in names for out in node.output_tensors):
            _node(node, names, made, lines)
    outputs = [names[id(out)] for out in graph.outputs]
    ins = _structure(graph._inputs_struct, names)
    several = len(outputs) > 1 or isinstance(graph._outputs_struct, dict)
    outs = _structure(graph._outputs_struct, names) if several else outputs[0]
    lines.body.append(f"model = {maker}({ins}, {outs})")


def _nodes(graph: Any) -> list[Any]:
    """Every call of the graph, in order: depth counts from the outputs, so that the largest comes first."""
    by_depth = graph._nodes_by_depth
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth] if not node.is_input]


def _input(entry: Any, *, labelled: bool) -> str:
    dtype = "" if entry.dtype == "float32" else f', dtype="{entry.dtype}"'
    label = f", name={json.dumps(entry.name)}" if labelled else ""
    return f"keras.Input({tuple(entry.shape[1:])}{dtype}{label})"


def _chain(graph: Any, lines: Lines) -> str | None:
    """One line for layers that follow each other; None for any other graph."""
    if len(graph.inputs) != 1 or len(graph.outputs) != 1 or isinstance(graph._inputs_struct, dict):
        return None
    if isinstance(graph._outputs_struct, dict | list | tuple) and isinstance(graph._outputs_struct, dict):
        return None
    last, draft, words = graph.inputs[0], Lines(), [_input(graph.inputs[0], labelled=False)]
    operations = [node.operation for node in _nodes(graph)]
    if len({id(one) for one in operations}) != len(operations):
        return None
    for node in _nodes(graph):
        arguments = node.arguments
        plain = len(arguments.args) == 1 and arguments.args[0] is last and not _said(node)
        if not plain or len(node.output_tensors) != 1 or not isinstance(node.operation, keras.layers.Layer):
            return None
        last = node.output_tensors[0]
        words.append(_object(node.operation, draft))
    text = f"model = keras.Sequential([{', '.join(words)}])"
    if last is not graph.outputs[0] or len(text) > CHAIN_MAX:
        return None
    lines.imports |= draft.imports
    for name, source in draft.sources.items():
        lines.add(name, source)
    return text


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
    arguments += [f"{key}={_argument(value, names)}" for key, value in _said(node).items()]
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
    config = given_to(thing)
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
        words.append(f"{key}={_setting(value, _live(thing, key), lines)}")
    return f"{maker}({', '.join(_positional(words, parameters))})"


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
    if isinstance(live, list | tuple) and live and all(isinstance(item, keras.layers.Layer) for item in live):
        return "[" + ", ".join(_object(item, lines) for item in live) + "]"
    if isinstance(live, keras.layers.Layer | keras.optimizers.schedules.LearningRateSchedule):
        return _object(live, lines)
    if isinstance(value, np.generic):
        return _number(value)
    if callable(live):
        return function_code(live, lines)
    raise NotCode(f"the setting {value!r:.60} cannot be written as code.")


def class_code(kind: type, lines: Lines) -> str:
    """How a class is reached: keras' own by name, importable ones by import, others by their source."""
    module, name = kind.__module__, kind.__qualname__
    if module.startswith("keras."):
        for home in ("layers", "losses", "optimizers", "optimizers.schedules", "regularizers", "initializers"):
            place: Any = keras
            for part in home.split("."):
                place = getattr(place, part)
            public = getattr(place, name, None)
            # Optimizers come in a variant for each backend, below the public class of the same name.
            if public is not None and issubclass(kind, public):
                return f"keras.{home}.{name}"
        if kind in (keras.Model, keras.Sequential):
            return f"keras.{name}"
        raise NotCode(f"{module}.{name} has no public name.")
    if module == "__main__" or "<locals>" in name:
        source = _source(kind)
        if lines.sources.get(name := kind.__name__) != source:
            _surroundings(kind, source, lines)
            lines.add(name, source)
        return name
    return _imported(kind, lines)


def _imported(thing: Any, lines: Lines) -> str:
    name = str(thing.__qualname__)
    lines.imports.add(f"from {thing.__module__} import {name.split('.')[0]}")
    return name


def function_code(function: Any, lines: Lines) -> str:
    """How a function is reached: by its public name, by import, or by its source with what that reads."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    if not name:
        raise NotCode(f"{function!r:.60} is no function that has a name.")
    if module and module.startswith("keras."):
        for home in ("losses", "activations", "ops", "initializers"):
            public = str(getattr(function, "__name__", ""))
            if public and getattr(getattr(keras, home), public, None) is function:
                return f"keras.{home}.{public}"
    if isinstance(function, types.MethodType):
        raise NotCode(f"{name} is a method that is bound to an object.")
    if function.__name__ == "<lambda>":
        return _lambda_text(function, lines)
    if module in (None, "__main__") or "<" in name:
        source = _source(function)
        if lines.sources.get(function.__name__) != source:
            _surroundings(function, source, lines)
            lines.add(function.__name__, source)
        return str(function.__name__)
    return _imported(function, lines)


def _surroundings(thing: Any, source: str, lines: Lines) -> None:
    """Definitions for what copied code reads from around it: globals, closed-over variables, bases, decorators."""
    head = ast.parse(source).body[0]
    outer = [*getattr(head, "decorator_list", ()), *getattr(head, "bases", ()), *_defaults(head)]
    read = {node.id for one in outer for node in ast.walk(one) if isinstance(node, ast.Name)}
    own = {thing.__name__, "__class__"}
    module = vars(sys.modules[thing.__module__])
    for name in sorted(read - own):
        if name in module:
            _bind(name, module[name], lines)
    for function in _functions(thing):
        for name in sorted(_globals_read(function.__code__) - own):
            if name in function.__globals__:
                _bind(name, function.__globals__[name], lines)
            elif not hasattr(builtins, name):
                raise NotCode(f"{thing.__name__} reads {name!r}, which is not defined.")
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            if name not in own:
                try:
                    value = cell.cell_contents
                except ValueError:
                    raise NotCode(f"{thing.__name__} closes over {name!r}, which has no value.") from None
                _bind(name, value, lines)


def _defaults(head: Any) -> list[ast.expr]:
    functions = [node for node in ast.walk(head) if isinstance(node, ast.FunctionDef)]
    return [one for f in functions for one in (*f.args.defaults, *f.args.kw_defaults) if one is not None]


def _functions(thing: Any) -> Iterator[Any]:
    if not isinstance(thing, type):
        yield thing
        return
    for value in vars(thing).values():
        inner = getattr(value, "fget", None) or getattr(value, "__func__", None) or value
        if isinstance(inner, types.FunctionType):
            # Keras wraps __init__ and call of every layer; the user's own function is inside.
            inner = inspect.unwrap(inner)
            if inner.__module__ == thing.__module__:
                yield inner


def _globals_read(code: Any) -> set[str]:
    read = {step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return read.union(*(_globals_read(inner) for inner in code.co_consts if hasattr(inner, "co_code")))


def _bind(name: str, value: Any, lines: Lines) -> None:
    """A line that gives a name of copied code its value: modules are imported, constants written, functions copied."""
    if isinstance(value, types.ModuleType):
        package, _, last = value.__name__.rpartition(".")
        if value.__name__ not in ("keras", "numpy") or name not in ("keras", "np"):
            line = f"from {package} import {last}" if package else f"import {value.__name__}"
            lines.imports.add(line if name == (last or value.__name__) else f"{line} as {name}")
        return
    text = written(value, lines, name)
    if text != name:
        lines.add(name, f"{name} = {text}")


def written(value: Any, lines: Lines, name: str) -> str:
    """A value as an expression."""
    if isinstance(value, float):
        return _number(value)
    if value is None or isinstance(value, bool | int | str | bytes):
        return repr(value)
    if isinstance(value, list | tuple):
        inner = ", ".join(written(item, lines, name) for item in value)
        return f"[{inner}]" if isinstance(value, list) else f"({inner},)"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {written(item, lines, name)}" for key, item in value.items()) + "}"
    if isinstance(value, np.generic):
        return _number(value)
    if isinstance(value, np.ndarray) and (text := array(value)) is not None:
        return text
    if isinstance(value, type):
        return value.__name__ if value.__module__ == "builtins" else class_code(value, lines)
    if callable(value) and hasattr(value, "__qualname__"):
        return function_code(value, lines)
    raise NotCode(f"{name!r} is a {type(value).__name__} of the surroundings, which cannot be written as code.")


def _source(thing: Any) -> str:
    try:
        return textwrap.dedent(inspect.getsource(thing)).rstrip()
    except (OSError, TypeError):
        raise NotCode(f"the source of {thing!r} cannot be found.") from None


def _lambda(layer: Any, lines: Lines) -> str:
    name = f", name={layer.name!r}" if _given_name(layer, layer.name) else ""
    return f"keras.layers.Lambda({function_code(layer.function, lines)}{name})"


def _lambda_text(function: Any, lines: Lines) -> str:
    """A lambda as it stands in its source: the one among several on its lines that says the same."""
    for node in ast.walk(_parsed(function)):
        if isinstance(node, ast.Lambda):
            text = ast.unparse(node)
            names = function.__code__.co_freevars
            # Variables of a surrounding function are free only where there is one.
            inside = f"def around({', '.join(names)}):\n return {text}" if names else text
            compiled = compile(inside, "lambda", "exec" if names else "eval").co_consts[0]
            compiled = next(c for c in compiled.co_consts if hasattr(c, "co_code")) if names else compiled
            if _same_code(compiled, function.__code__):
                _surroundings_of_lambda(function, lines)
                return text
    raise NotCode("the source of a lambda cannot be found.")


def _surroundings_of_lambda(function: Any, lines: Lines) -> None:
    for name in sorted(_globals_read(function.__code__)):
        if name in function.__globals__:
            _bind(name, function.__globals__[name], lines)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        _bind(name, cell.cell_contents, lines)


def _same_code(left: Any, right: Any) -> bool:
    """Whether two lambdas say the same: their bytes may differ with what surrounds them, names and constants do not."""
    facts = ("co_names", "co_varnames", "co_argcount")
    constants = [[c for c in code.co_consts if not hasattr(c, "co_code")] for code in (left, right)]
    return all(getattr(left, fact) == getattr(right, fact) for fact in facts) and constants[0] == constants[1]


def _parsed(function: Any) -> ast.AST:
    """The lambdas of a source: what stands around them may be half of something, so each is cut out where it ends."""
    source = _source(function)
    found: list[ast.expr] = []
    for match in re.finditer(r"\blambda\b", source):
        for end in range(len(source), match.end(), -1):
            try:
                found.append(ast.parse(f"({source[match.start() : end]})", mode="eval").body)
            except SyntaxError:
                continue
            break
    return ast.Tuple(found, ast.Load())


def loss(model_: Any, lines: Lines) -> str:
    """The argument `loss=` of compile."""
    settings = model_._compile_config.config if model_._compile_config else {}
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


def optimizer(model_: Any, lines: Lines, *, exact: bool) -> str:
    """The argument `optimizer=` of compile: by its name, or with its settings where the update itself fails."""
    chosen = getattr(model_.optimizer, "inner_optimizer", model_.optimizer)
    public = getattr(keras.optimizers, type(chosen).__name__, None)
    stock = public is not None and isinstance(chosen, public)
    if stock and not exact:
        return f'"{type(chosen).__name__.lower()}"'
    return _object(chosen, lines)


def compile_line(model_: Any, lines: Lines, *, exact: bool) -> str:
    """The line that compiles."""
    words = [f"optimizer={optimizer(model_, lines, exact=exact)}", f"loss={loss(model_, lines)}"]
    weights = model_._compile_config.config.get("loss_weights") if model_._compile_config else None
    if weights is not None:
        words.append(f"loss_weights={weights!r}")
    return f"model.compile({', '.join(words)})"


def importable(kinds: Iterable[type]) -> bool:
    """Whether another process can import all of these classes by name."""
    return all(kind.__module__ != "__main__" and "<locals>" not in kind.__qualname__ for kind in kinds)
