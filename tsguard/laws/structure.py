"""Inputs, targets and outputs of any structure as flat named leaves, and back.

A leaf is named by its dictionary key, by the Keras input at its place, or by its number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsguard.errors import SubjectError, explain

Leaves = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Structure:
    """How named leaves are packed into what the model or the loss takes."""

    kind: str
    """"array", "dict" or "list"."""
    names: tuple[str, ...]

    def pack(self, leaves: Mapping[str, Any]) -> Any:
        """Leaves in their structure."""
        if self.kind == "array":
            return leaves[self.names[0]]
        if self.kind == "dict":
            return {name: leaves[name] for name in self.names}
        return [leaves[name] for name in self.names]


def unpacked(value: Any, names: tuple[str, ...] = (), *, what: str = "x") -> tuple[Structure, Leaves]:
    """The structure of a value and its leaves as arrays."""
    if isinstance(value, Mapping):
        structure = Structure("dict", tuple(value))
        leaves = {str(name): _array(value[name], f"{what}[{name!r}]") for name in value}
    elif isinstance(value, (list, tuple)) and value and all(hasattr(part, "shape") for part in value):
        structure = Structure("list", names if len(names) == len(value) else tuple(map(str, range(len(value)))))
        leaves = {name: _array(part, f"{what}[{name}]") for name, part in zip(structure.names, value, strict=True)}
    else:
        structure = Structure("array", names if len(names) == 1 else (what,))
        leaves = {structure.names[0]: _array(value, what)}
    return structure, leaves


def _array(value: Any, place: str) -> NDArray[Any]:
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise SubjectError(
            explain(
                place,
                received=f"dtype {array.dtype}",
                expected="an array of numbers",
                todo="Encode it before the model.",
            )
        )
    return array
