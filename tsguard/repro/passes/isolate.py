"""Passes that take a model apart: only the layer at fault with what it was given, or only the loss.

They work on any model, because what a layer was given is recorded while the model runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import keras
import numpy as np

from tsguard.backend import attributes, preserved, seed_everything
from tsguard.dataset import map_leaves
from tsguard.repro.case import Batch, Case
from tsguard.repro.graphs import REFUSALS, compile_like, remade
from tsguard.repro.passes.subset import Keep


def isolate_layer(case: Case, keep: Keep) -> Case:
    """The layer at fault alone, on what it was given; its output is compared with zeros."""
    origin = case.origin
    if origin is None or origin.layer is None or case.fingerprint.phase not in ("forward", "backward"):
        return case
    layer = next((one for one in _inner(case.model) if origin.layer in (one.path, one.name)), None)
    if layer is None or isinstance(layer, keras.layers.InputLayer) or len(_inner(case.model)) < 2:
        return case
    for candidate in _alone(case, layer):
        if keep(candidate):
            return candidate
    return case


def _inner(model: Any) -> list[Any]:
    return [
        one
        for one in model._flatten_layers(include_self=False, recursive=True)
        if not isinstance(one, keras.layers.InputLayer)
    ]


def _alone(case: Case, layer: Any) -> Iterator[Case]:
    """With weights that the seed gives, then with the recorded ones."""
    try:
        given, kwargs, shape = _call_of(case, layer)
        for again in (True, False):
            seed_everything(case.seed)
            entries = [
                keras.Input(batch_shape=(None, *one.shape[1:]), dtype=str(one.dtype), name=_label(given, number))
                for number, one in enumerate(given)
            ]
            one = remade(layer) if again else layer
            model = keras.Model(entries if len(entries) > 1 else entries[0], one(*entries, **kwargs))
            model.compile("sgd", "mse")
            weights = None if again else tuple(model.get_weights()) or None
            batch = Batch(given if len(given) > 1 else given[0], np.zeros(shape, "float32"))
            yield case.with_(model=model, batch=batch, weights=weights, slots=None, recipe=None, bare=True)
    except REFUSALS:
        return


def _label(given: list[Any], number: int) -> str:
    return "recorded" if len(given) == 1 else f"recorded_{number}"


def _call_of(case: Case, layer: Any) -> tuple[list[Any], dict[str, Any], tuple[int, ...]]:
    """What a layer is given in one forward pass: arrays by position, plain settings by name; and its output's shape."""
    heard: list[Any] = []
    with preserved(case.model), _listening(layer, heard):
        if case.weights is not None:
            case.model.set_weights(list(case.weights))
        seed_everything(case.seed)
        case.model(map_leaves(keras.ops.convert_to_tensor, case.batch.x), training=True)
    if len(heard) != 1:
        raise ValueError(f"layer {layer.name} is called {len(heard)} times")
    args, kwargs, result = heard[0]
    settings = {key: value for key, value in kwargs.items() if isinstance(value, bool | int | float | str)}
    settings.pop("training", None)
    arrays = [np.array(keras.ops.convert_to_numpy(one)) for one in args if keras.ops.is_tensor(one)]
    if len(arrays) != len(args) or not keras.ops.is_tensor(result):
        raise ValueError(f"layer {layer.name} takes or gives more than tensors")
    return arrays, settings, tuple(result.shape)


def _listening(layer: Any, heard: list[Any]) -> AbstractContextManager[None]:
    own = layer.call

    def listened(*args: Any, **kwargs: Any) -> Any:
        result = own(*args, **kwargs)
        heard.append((args, kwargs, result))
        return result

    return attributes([(layer, "call", listened)])


def take_predictions(case: Case, keep: Keep) -> Case:
    """No model where the loss itself is at fault: what was predicted goes straight into it."""
    model = case.model
    own = (
        type(model).compute_loss is not keras.Model.compute_loss or type(model).train_step is not keras.Model.train_step
    )
    if case.fingerprint.phase != "loss" or own or case.batch.y is None:
        return case
    try:
        with preserved(model):
            if case.weights is not None:
                model.set_weights(list(case.weights))
            seed_everything(case.seed)
            answers = model(map_leaves(keras.ops.convert_to_tensor, case.batch.x), training=True)
        if not keras.ops.is_tensor(answers):
            return case
        recorded = np.array(keras.ops.convert_to_numpy(answers))
        entry = keras.Input(batch_shape=(None, *recorded.shape[1:]), dtype=str(recorded.dtype), name="predicted")
        bare = keras.Model(entry, keras.layers.Identity()(entry))
        compile_like(model, bare, optimizer="sgd")
    except REFUSALS:
        return case
    batch = Batch(recorded, case.batch.y, case.batch.sample_weight)
    candidate = case.with_(model=bare, batch=batch, weights=None, slots=None, recipe=None)
    return candidate if keep(candidate) else case
