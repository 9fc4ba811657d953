"""A metric, or a composite of metrics such as `val_loss - 2*val_r2`, evaluated over an epoch's logs.

The text comes from a configuration, so it is arithmetic over names and numbers and nothing else: it is parsed, every
node is looked at, and what is not on the list is refused in words. Nothing is ever handed to `eval`.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tsguard.errors import ConfigError, explain

_BINARY: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_UNARY: dict[type[ast.unaryop], Callable[[float], float]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
_FUNCTIONS: dict[str, Callable[..., float]] = {"abs": abs, "min": min, "max": max, "sqrt": math.sqrt, "log": math.log}
LONGEST = 200
"""Characters of a formula: nobody's composite is longer, and deep nesting would exhaust the parser."""


@dataclass(frozen=True)
class Formula:
    """A parsed formula. `names` are the metrics that it reads."""

    text: str
    place: str
    names: tuple[str, ...]
    _tree: ast.expr

    @classmethod
    def parse(cls, text: str, *, place: str = "monitor") -> Formula:
        """Read a formula; a ConfigError that shows the part which is not arithmetic."""
        if len(text) > LONGEST:
            raise _refused(place, f"{len(text)} characters", f"at most {LONGEST}")
        try:
            tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError):
            expected = "a metric, or arithmetic over metrics such as 'val_loss - 2*val_r2'"
            raise _refused(place, repr(text), expected) from None
        names: list[str] = []
        _look(tree, place, names)
        return cls(text.strip(), place, tuple(dict.fromkeys(names)), tree)

    def missing(self, logs: Mapping[str, Any]) -> tuple[str, ...]:
        """The names that the logs do not hold."""
        return tuple(name for name in self.names if name not in logs)

    def value(self, logs: Mapping[str, Any]) -> float:
        """The value over these logs; NaN where arithmetic has none. A ConfigError names what the logs lack."""
        missing = self.missing(logs)
        if missing:
            known = ", ".join(sorted(logs)) or "none"
            raise _refused(self.place, f"{self.text!r}, which reads {', '.join(missing)}", f"one of the logs: {known}")
        try:
            return float(_evaluate(self._tree, logs))
        except (ArithmeticError, ValueError, TypeError):  # a power of a negative number is complex: no value either
            return math.nan


def _refused(place: str, received: str, expected: str) -> ConfigError:
    return ConfigError(explain(place, received=received, expected=expected, todo="Write one of these."))


def _look(node: ast.expr, place: str, names: list[str]) -> None:
    match node:
        case ast.Name(id=name):
            names.append(name)
        case ast.Constant(value=value) if isinstance(value, int | float) and not isinstance(value, bool):
            pass
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            _look(left, place, names)
            _look(right, place, names)
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
            _look(operand, place, names)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS and arguments:
            for argument in arguments:
                _look(argument, place, names)
        case _:
            allowed = f"names of metrics, numbers, + - * / **, brackets and {', '.join(_FUNCTIONS)}"
            raise _refused(place, repr(ast.unparse(node)), allowed)


def _evaluate(node: ast.expr, logs: Mapping[str, Any]) -> float:
    match node:
        case ast.Name(id=name):
            return float(logs[name])
        case ast.Constant(value=value):
            return float(value)  # type: ignore[arg-type]
        case ast.BinOp(left=left, op=op, right=right):
            return _BINARY[type(op)](_evaluate(left, logs), _evaluate(right, logs))
        case ast.UnaryOp(op=unary, operand=operand):
            return _UNARY[type(unary)](_evaluate(operand, logs))
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return _FUNCTIONS[name](*(_evaluate(argument, logs) for argument in arguments))
    raise TypeError(ast.dump(node))  # `_look` let nothing else through
