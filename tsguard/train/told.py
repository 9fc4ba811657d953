"""The settings of a run that has no configuration file, as model, optimizer and arguments tell them.

A script keeps its settings in code. What can be read off the objects is written down, so that two runs can be held side
by side and the difference that matters be named.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from tsguard.dataset import Data, leaves, map_leaves

DIGEST_ROWS = 64
"""Rows from which data are known again: spread over all, so that an appended or shuffled set differs."""

NAMELESS = frozenset({"name", "loss_scale_factor"})
"""Fields of an optimizer that Keras fills in by itself and that move no metric."""


def settings_of(model: Any, data: Data | None, fit_arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Model, optimizer, loss, data and the arguments of `fit`, as JSON values. What cannot be read is left out."""
    found: dict[str, Any] = {}
    for name, read in (
        ("model", lambda: _model(model)),
        ("optimizer", lambda: _optimizer(model)),
        ("loss", lambda: _losses(model)),
        ("data", lambda: {} if data is None else _data(data)),
        ("train", lambda: {key: _word(value) for key, value in fit_arguments.items() if key not in UNTOLD}),
    ):
        try:
            value = read()
        except Exception:  # an own object may refuse to describe itself; the run does not hang on it
            continue
        if value:
            found[name] = value
    return found


UNTOLD = frozenset({"verbose", "callbacks", "validation_data", "initial_epoch"})


def _model(model: Any) -> dict[str, Any]:
    layers = model._flatten_layers(include_self=False, recursive=True)
    return {
        "class": type(model).__name__,
        "layers": sum(type(layer).__name__ != "InputLayer" for layer in layers),
        "parameters": int(model.count_params()) if model.built else None,
    }


def _optimizer(model: Any) -> dict[str, Any]:
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        return {}
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    own = {key: _word(value) for key, value in inner.get_config().items() if key not in NAMELESS and value is not None}
    return {"class": type(inner).__name__, **own}


def _losses(model: Any) -> Any:
    return map_leaves(_name, getattr(getattr(model, "_compile_loss", None), "_user_loss", None))


def _name(loss: Any) -> str:
    """A loss as the user gave it: its name, with the settings of an object."""
    if isinstance(loss, str):
        return loss
    if hasattr(loss, "get_config"):
        # Keras' own losses keep what they were given beside their configuration.
        held = {**loss.get_config(), **(getattr(loss, "_fn_kwargs", None) or {})}
        told = {key: value for key, value in held.items() if key not in ("name", "reduction", "dtype", "fn", "axis")}
        return f"{type(loss).__name__}({', '.join(f'{key}={_word(value)}' for key, value in told.items())})"
    return str(getattr(loss, "__name__", type(loss).__name__))


def _data(data: Data) -> dict[str, Any]:
    if not data.is_arrays:
        return {"x": type(data.x).__name__}
    found: dict[str, Any] = {"rows": len(data)}
    seen = hashlib.sha256()
    for part in ("x", "y"):
        arrays = list(leaves(getattr(data, part)))
        found[part] = ", ".join(f"{tuple(leaf.shape)} {leaf.dtype}" for leaf in arrays)
        for leaf in arrays:
            rows = np.unique(np.linspace(0, len(leaf) - 1, DIGEST_ROWS).astype(int))
            chosen = leaf[rows]
            seen.update(np.asarray(chosen.detach().cpu() if hasattr(chosen, "detach") else chosen).tobytes())
    found["digest"] = seen.hexdigest()[:12]
    return found


def _word(value: Any) -> Any:
    """A setting as JSON can hold it: numbers and text as they are, schedules by their settings, others by class."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(key): _word(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_word(item) for item in value]
    return type(value).__name__
