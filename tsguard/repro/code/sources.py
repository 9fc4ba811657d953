"""Code that is copied in, together with what it reads: or imported where that is possible."""

from __future__ import annotations

import ast
import builtins
import dis
import inspect
import re
import sys
import textwrap
import types
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from tsguard.repro.code.arrays import array, number, plain
from tsguard.repro.code.lines import Lines, NotCode

LINE_MAX = 120
"""Characters of a line that is read without scrolling."""


def class_code(kind: type, lines: Lines, *, sets: Sequence[str] = ()) -> str:
    """How a class is reached: keras' own by name, importable ones by import, others by their source.

    `sets` are the lines of a constructor that takes the place of the class's own.
    """
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
        if kind in (keras.Model, keras.Sequential, keras.DTypePolicy):
            return f"keras.{name}"
        raise NotCode(f"{module}.{name} has no public name.")
    if module == "__main__" or "<locals>" in name:
        source = _without_talk(_source(kind))
        if sets:
            source = _with_constructor(source, sets)
        if lines.sources.get(name := kind.__name__) != source:
            _surroundings(kind, source, lines, skipped=("__init__",) if sets else ())
            lines.add(name, source)
        return name
    _imported(kind, lines)
    if sets:
        lines.add(name, "\n".join([f"class {name}({name}):", *_constructor(sets)]))
    return name


def _constructor(sets: Sequence[str]) -> list[str]:
    return ["    def __init__(self):", *(f"        {line}" for line in sets)]


def _with_constructor(source: str, sets: Sequence[str]) -> str:
    """The class with another constructor, at the place of its own."""
    rows = source.splitlines()
    head = next(node for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    own = [node for node in head.body if getattr(node, "name", "") == "__init__"]
    if own:
        first, last = own[0].lineno - 1, own[0].end_lineno or own[0].lineno
        return "\n".join([*rows[:first], *_constructor(sets), *rows[last:]])
    return "\n".join([*rows, "", *_constructor(sets)])


_NOT_RUN = ("get_config", "from_config")
"""Methods that a script never calls: it builds the object itself."""


def _without_talk(source: str) -> str:
    """The class without docstrings and without methods that only matter when it is saved."""
    rows = source.splitlines()
    left_out: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.ClassDef | ast.FunctionDef):
            continue
        gone = [one for one in node.body if getattr(one, "name", "") in _NOT_RUN and isinstance(node, ast.ClassDef)]
        if ast.get_docstring(node) is not None:
            gone.append(node.body[0])
        if len(gone) == len(node.body):
            continue
        for one in gone:
            start = min([one.lineno, *(d.lineno for d in getattr(one, "decorator_list", ()))])
            left_out.update(range(start - 1, one.end_lineno or start))
    kept = "\n".join(row for number, row in enumerate(rows) if number not in left_out)
    return re.sub(r"\n\s*\n(\s*\n)+", "\n\n", re.sub(r":\n\s*\n", ":\n", kept)).rstrip()


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


def _surroundings(thing: Any, source: str, lines: Lines, *, skipped: Sequence[str] = ()) -> None:
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
        if function.__name__ in (*skipped, *_NOT_RUN):
            continue
        for name in sorted(globals_read(function.__code__) - own):
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


def globals_read(code: Any) -> set[str]:
    read = {step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return read.union(*(globals_read(inner) for inner in code.co_consts if hasattr(inner, "co_code")))


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
        return number(value)
    if value is None or isinstance(value, bool | int | str | bytes):
        return plain(value)
    if isinstance(value, list | tuple):
        inner = ", ".join(written(item, lines, name) for item in value)
        return f"[{inner}]" if isinstance(value, list) else f"({inner},)"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{plain(key)}: {written(item, lines, name)}" for key, item in value.items()) + "}"
    if isinstance(value, np.generic):
        return number(value)
    if isinstance(value, np.ndarray) and (text := array(value, home="np")) is not None:
        return text
    if keras.ops.is_tensor(value) and (text := array(keras.ops.convert_to_numpy(value))) is not None:
        return text
    if isinstance(value, type):
        return value.__name__ if value.__module__ == "builtins" else class_code(value, lines)
    if callable(value) and hasattr(value, "__qualname__"):
        return function_code(value, lines)
    if type(value).__module__.startswith("keras.") and hasattr(value, "get_config"):
        from tsguard.repro.code.objects import construction

        return construction(value, lines)
    raise NotCode(f"{name!r} is a {type(value).__name__} of the surroundings, which cannot be written as code.")


def _source(thing: Any) -> str:
    try:
        return _without_annotations(textwrap.dedent(inspect.getsource(thing)).rstrip())
    except (OSError, TypeError):
        raise NotCode(f"the source of {thing!r} cannot be found.") from None


def _without_annotations(source: str) -> str:
    """The source without what its functions say of arguments and results: that names things which no script imports."""
    try:
        tree = ast.parse(source)
    except SyntaxError:  # a lambda in the middle of a line
        return source
    rows = [row.encode() for row in source.splitlines()]
    cuts: list[tuple[int, int, int]] = []
    for node in ast.walk(tree):
        said = getattr(node, "annotation", None) if isinstance(node, ast.arg) else None
        if isinstance(node, ast.arg) and said is not None and said.end_lineno == node.lineno:
            cuts.append((node.lineno - 1, node.col_offset + len(node.arg.encode()), said.end_col_offset or 0))
        result = node.returns if isinstance(node, ast.FunctionDef) else None
        if result is not None and result.end_lineno == result.lineno:
            first = rows[result.lineno - 1].rfind(b"->", 0, result.col_offset)
            if first >= 0:
                cuts.append(
                    (result.lineno - 1, len(rows[result.lineno - 1][:first].rstrip()), result.end_col_offset or 0)
                )
    for row, first, last in sorted(cuts, reverse=True):
        # Beside an annotation a default stands apart, without one it does not.
        rows[row] = rows[row][:first] + re.sub(rb"^ = ", b"=", rows[row][last:])
    return _joined_heads("\n".join(row.decode() for row in rows)) if cuts else source


def _joined_heads(source: str) -> str:
    """The source with the heads of its functions on one line where they fit."""
    rows = source.splitlines()
    heads = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    for node in sorted(heads, key=lambda one: -one.lineno):
        first, last = node.lineno - 1, node.body[0].lineno - 1
        parts = [row.strip() for row in rows[first + 1 : last]]
        if not parts or parts[-1] != "):":
            continue
        one = f"{rows[first]}{' '.join(parts[:-1]).removesuffix(',')}):"
        if len(one) <= LINE_MAX:
            rows[first:last] = [one]
    return "\n".join(rows)


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
    for name in sorted(globals_read(function.__code__)):
        if name in function.__globals__:
            _bind(name, function.__globals__[name], lines)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        # Within the constructor of its owner `self` is at hand; a copy holds lambdas of the original.
        if name != "self" or type(cell.cell_contents) is not type(lines.owner):
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
