"""Passes over the layers: nothing after the layer at fault, nothing before it, nothing but it."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tsguard.backend import preserved
from tsguard.repro.case import Batch, Case
from tsguard.repro.graphs import cloned, compile_like, graph_of, is_graph, operations_of, output_of
from tsguard.repro.passes.subset import Keep


def cut_suffix(case: Case, keep: Keep) -> Case:
    """Nothing after the layer at fault: its output is compared with zeros."""
    model = case.model
    if not is_graph(model) or case.fingerprint.phase != "forward" or case.origin is None:
        return case
    called = str(case.origin.layer or "").rpartition("/")[2]
    for one in operations_of(model)[:-1]:
        # An operation of the graph itself has no kind of layer, and its own name.
        layer = isinstance(one, keras.layers.Layer)
        if type(one).__name__ != case.fingerprint.layer_kind if layer else one.name != called:
            continue
        candidate = _head(case, one)
        if candidate is not None and keep(candidate):
            return candidate
    return case


def _head(case: Case, layer: Any) -> Case | None:
    model = case.model
    try:
        if case.weights is not None:
            model.set_weights(list(case.weights))
        cut = output_of(graph_of(model), layer)
        head = keras.Model(graph_of(model)._inputs_struct, cut)
        head.compile(optimizer="sgd", loss="mse")
        shape = (case.batch.samples, *(size or 1 for size in cut.shape[1:]))
        if any(size is None for size in cut.shape[1:]):
            shape = tuple(head(case.batch.x).shape)
        y = np.zeros(shape, "float32")
        return case.with_(
            model=head, batch=Batch(case.batch.x, y), weights=tuple(head.get_weights()) or None, recipe=None, bare=True
        )
    except (ValueError, TypeError, AttributeError, KeyError, RuntimeError, NotImplementedError):
        return None


def cut_prefix(case: Case, keep: Keep) -> Case:
    """The first layers replaced by what they computed, so that the layer at fault comes first."""
    model = case.model
    if not is_graph(model):
        return case
    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    for layer in reversed(layers[:-1]):
        candidate = _tail(case, layer)
        if candidate is not None and keep(candidate):
            return candidate
    return case


def _tail(case: Case, layer: Any) -> Case | None:
    model = case.model
    try:
        with preserved(model):
            if case.weights is not None:
                model.set_weights(list(case.weights))
            cut = output_of(graph_of(model), layer)
            head = keras.Model(model.inputs if len(model.inputs) > 1 else model.inputs[0], cut)
            recorded = np.asarray(keras.ops.convert_to_numpy(head(case.batch.x, training=False)))
            entry = keras.Input(batch_shape=(None, *recorded.shape[1:]), dtype=str(recorded.dtype), name="recorded")
            outputs = model.outputs if len(model.outputs) > 1 else model.outputs[0]
            # The layers themselves are shared: they hold the weights that fail.
            rest = cloned(keras.Model(cut, outputs), lambda one: one, entry)
        return _compiled_like(case, rest, recorded)
    except (ValueError, TypeError, AttributeError, KeyError, RuntimeError, IndexError, NotImplementedError):
        return None


def _compiled_like(case: Case, model: Any, x: Any) -> Case:
    compile_like(case.model, model, optimizer="sgd")
    return case.with_(
        model=model,
        batch=Batch(x, case.batch.y, case.batch.sample_weight),
        weights=tuple(model.get_weights()) or None,
        recipe=None,
    )
