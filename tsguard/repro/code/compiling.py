"""Code for the line that compiles: loss, optimizer, weights of the losses; and for optimizers of torch beside it."""

from __future__ import annotations

import inspect
from typing import Any

import keras

from tsguard.repro.code.arrays import plain
from tsguard.repro.code.lines import Lines
from tsguard.repro.code.objects import construction
from tsguard.repro.code.sources import function_code
from tsguard.repro.graphs import plain_names, settings_of
from tsguard.repro.user import attributes_set

USUAL_SCALE = 2.0**15
"""The loss scale that Keras begins with."""


def loss(model_: Any, lines: Lines) -> str:
    """The argument `loss=` of compile."""
    chosen = settings_of(model_).get("loss") or getattr(model_, "loss", None)
    return _loss(chosen, lines)


def _loss(chosen: Any, lines: Lines) -> str:
    if isinstance(chosen, str) or chosen is None:
        return plain(chosen)
    if isinstance(chosen, dict):
        return "{" + ", ".join(f"{plain(key)}: {_loss(value, lines)}" for key, value in chosen.items()) + "}"
    if isinstance(chosen, list | tuple):
        return "[" + ", ".join(_loss(value, lines) for value in chosen) + "]"
    if isinstance(chosen, keras.losses.Loss):
        fn = getattr(chosen, "fn", None)
        if type(chosen).__name__ == "LossFunctionWrapper" and fn is not None:
            return function_code(fn, lines)
        return construction(chosen, lines)
    return function_code(chosen, lines)


def optimizer(model_: Any, lines: Lines, *, exact: bool) -> str:
    """The argument `optimizer=` of compile: by its name, or with its settings where the update itself fails."""
    chosen = getattr(model_.optimizer, "inner_optimizer", model_.optimizer)
    public = getattr(keras.optimizers, type(chosen).__name__, None)
    stock = public is not None and isinstance(chosen, public)
    if stock and not exact:
        return f'"{type(chosen).__name__.lower()}"'
    made, scale = construction(chosen, lines), getattr(model_.optimizer, "initial_scale", USUAL_SCALE)
    if scale == USUAL_SCALE:
        return made  # none, or the one that half precision brings along
    return f"keras.optimizers.LossScaleOptimizer({made}, initial_scale={plain(scale)})"


def compile_line(model_: Any, lines: Lines, *, exact: bool, apart: bool = False, metrics: bool = True) -> list[str]:
    """The line that compiles; without an optimizer where a step is taken apart, and none where there is no loss."""
    if not settings_of(model_) and getattr(model_, "optimizer", None) is None:
        return []
    said = loss(model_, lines)
    words = [] if apart else [f"optimizer={optimizer(model_, lines, exact=exact)}"]
    words += [] if said == "None" else [f"loss={said}"]
    weights = settings_of(model_).get("loss_weights")
    if weights is not None:
        words.append(f"loss_weights={plain(weights)}")
    named = settings_of(model_).get("metrics")
    if exact and metrics and plain_names(named):
        words.append(f"metrics={plain(named)}")
    return [f"model.compile({', '.join(words)})"] if words else []


def torch_optimizers(model_: Any) -> list[str]:
    """Lines that give a built model the optimizers of torch that were set on it after it was made.

    Those with several groups, or with tensors that are no weights of the model, cannot be written.
    """
    import torch

    by_itself = attributes_set(type(model_))
    held = {name: one for name, one in vars(model_).items() if isinstance(one, torch.optim.Optimizer)}
    written = {name: _stepping(one, model_) for name, one in held.items() if name not in by_itself}
    return [f"model.{name} = {code}" for name, code in written.items() if code is not None]


def _stepping(one: Any, model_: Any) -> str | None:
    kind, [group, *others] = type(one), one.param_groups
    mine = {id(weight) for weight in group["params"]}
    places = [place for place, v in enumerate(model_.trainable_variables) if id(v.value) in mine]
    if others or len(places) < len(mine) or not kind.__module__.startswith("torch."):
        return None
    usual = {name: one.default for name, one in inspect.signature(kind.__init__).parameters.items()}
    told = {key: value for key, value in group.items() if key in usual and key != "params" and value != usual[key]}
    every = "model.trainable_variables"
    if len(places) < len(model_.trainable_variables):
        every = f"[{every}[k] for k in {plain(tuple(places))}]"
    words = [f"[v.value for v in {every}]", *(f"{key}={plain(value)}" for key, value in told.items())]
    return f"torch.optim.{kind.__name__}({', '.join(words)})"
