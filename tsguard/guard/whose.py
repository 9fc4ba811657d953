"""Whose code runs: the user's, a layer's of Keras, a library's, ours; and the path of the layer that is called."""

from __future__ import annotations

import functools
import sysconfig
from typing import Any

import keras
import numpy as np
import torch


def is_layer(thing: Any) -> bool:
    """Whether something is a layer of Keras."""
    from keras.src.layers.layer import Layer

    return isinstance(thing, Layer)


def layer_path(stack: list[Any]) -> str | None:
    """The Keras path of the innermost layer; an operation of a functional graph is named below its model."""
    top = stack[-1]
    path = getattr(top, "path", None)
    if path and str(path).split("/")[-1] == top.name:
        return str(path)
    above = str(path) if path else layer_path(stack[:-1]) if len(stack) > 1 else None
    return f"{above}/{top.name}" if above else str(top.name)


@functools.lru_cache(maxsize=4096)
def code_kind(filename: str) -> str:
    """Whose code a file holds."""
    name = filename.replace("\\", "/")
    if name.startswith(_HERE):
        return "replay" if name.endswith(_RUNNERS) else "seam" if name.endswith("/seam.py") else "library"
    if "/keras/src/layers/" in name and not name.endswith(("/layers/layer.py", "/core/lambda_layer.py")):
        return "layer"
    if "/site-packages/" in name or "/dist-packages/" in name or name.startswith(("<string", "<frozen", "<__array")):
        return "library"
    if name.startswith(tuple(_LIBRARY)):
        return "library"
    return "user"


_RUNNERS = ("/replay.py", "/every_row.py", "/loose.py")
"""Modules whose `run` runs a model again: what stands above them on the stack is not the program."""

_HERE = __file__.replace("\\", "/").rsplit("/", 1)[0] + "/"
_LIBRARY = {sysconfig.get_paths()[key].replace("\\", "/") + "/" for key in ("stdlib", "platstdlib")}
# Packages may lie anywhere (an editable install, --target): where they were imported from says it for certain.
_LIBRARY |= {str(module.__file__).replace("\\", "/").rsplit("/", 1)[0] + "/" for module in (keras, torch, np)}
