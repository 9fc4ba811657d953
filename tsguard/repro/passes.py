"""Passes: each makes a Case smaller or plainer in one way, and keeps only what still fails with the same fingerprint.

They are verbs and know nothing of each other; the order in which they are tried is the engine's. Every pass is built so
that its candidates are valid by construction, or are simply not kept where the model refuses them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np

from tsguard.backend import preserved, seed_everything, true_float64
from tsguard.dataset import leaves
from tsguard.repro.case import Batch, Case, fingerprint_of

Keep = Callable[[Case], bool]
"""Whether a candidate fails with the fingerprint of the case (cached and counted by the engine)."""


def forget_weights(case: Case, keep: Keep) -> Case:
    """Weights that the seed gives, in place of recorded ones."""
    if case.weights is None:
        return case
    fresh = reinitialised(case.model)
    if fresh is None:
        return case
    candidate = case.with_(model=fresh, weights=None)
    return candidate if keep(candidate) else case


def reinitialised(model: Any) -> Any:
    """The same graph with freshly made layers. Layers without weights are shared: a Lambda cannot be made again."""
    if not is_graph(model):
        return _made_again(model)

    def again(layer: Any) -> Any:
        return type(layer).from_config(layer.get_config()) if layer.weights else layer

    try:
        seed_everything(0)
        fresh = cloned(model, again)
        compile_like(model, fresh, optimizer=None)
    except (ValueError, TypeError, AttributeError, KeyError, NotImplementedError):
        return None
    return fresh


def _made_again(model: Any) -> Any:
    """A model of the user's own class, from what its constructor was given."""
    from tsguard.repro import code

    try:
        takes = inspect.signature(type(model).__init__).parameters
        seed_everything(0)
        if code.is_own_graph(model):
            fresh = type(model).from_config(model.get_config())
            for name, value in code.own_attributes(model).items():
                setattr(fresh, name, value)
            compile_like(model, fresh, optimizer=None)
            return fresh
        given = code.given_to(model)
        fresh = type(model)(**{key: value for key, value in given.items() if key in takes})
        compile_like(model, fresh, optimizer=None)
    except Exception:  # the user's own constructor may refuse in any way; then the recorded weights stay
        return None
    return fresh


def compile_like(model: Any, fresh: Any, *, optimizer: str | None) -> None:
    """Compile with the losses of the model, and with its kind of optimizer unless another is named."""
    settings = model._compile_config.config
    chosen = optimizer or type(model.optimizer).from_config(model.optimizer.get_config())
    loss = settings.get("loss") or getattr(model, "loss", None)
    fresh.compile(optimizer=chosen, loss=loss, loss_weights=settings.get("loss_weights"))


def cloned(model: Any, again: Callable[[Any], Any], tensors: Any = None) -> Any:
    """The same graph with other layers, not compiled: Keras cannot compile again what was compiled with a function."""
    given = {} if tensors is None else {"input_tensors": tensors}
    compiled = model.compiled
    model.compiled = False
    try:
        return keras.models.clone_model(model, clone_function=again, **given)
    finally:
        model.compiled = compiled


def is_graph(model: Any) -> bool:
    """Whether the model is a graph of layers that can be cut: Functional or Sequential, not a subclass of its own."""
    from keras.src.models.functional import Functional

    return type(model) in (Functional, keras.Sequential)


def _graph(model: Any) -> Any:
    """The Functional graph: a Sequential keeps one inside."""
    return model._functional if isinstance(model, keras.Sequential) else model


def drop_samples(case: Case, keep: Keep) -> Case:
    """As few samples as still fail."""

    def cut(rows: Sequence[int]) -> Case:
        index = np.asarray(rows)
        return case.with_(batch=case.batch.map(lambda leaf: leaf[index]))

    rows = smallest(range(case.batch.samples), lambda rows: keep(cut(rows)))
    return cut(rows)


def shorten_sequence(case: Case, keep: Keep) -> Case:
    """As few timesteps as still fail, where the model takes other lengths."""
    lengths = {leaf.shape[1] for leaf in leaves(case.batch.x) if leaf.ndim >= 2}
    if len(lengths) != 1:
        return case
    length = lengths.pop()

    def cut(steps: Sequence[int]) -> Case:
        index = np.asarray(steps)

        def shorter(leaf: Any) -> Any:
            return leaf[:, index] if leaf.ndim >= 2 and leaf.shape[1] == length else leaf

        return case.with_(batch=case.batch.map(shorter))

    if length < 2:
        return case
    if not keep(cut(range(length - 1))):
        loose = _any_length(case)
        if loose is None:
            return case
        tight, case = case, loose  # `cut` sees the looser model from here on
        if not keep(cut(range(length - 1))):
            return tight
    return cut(smallest(range(length), lambda steps: keep(cut(steps))))


def _any_length(case: Case) -> Case | None:
    """The same graph with inputs whose axis 1 may have any length."""
    model = case.model
    if not is_graph(model):
        return None
    try:
        entries = [
            keras.Input(batch_shape=(None, None, *entry.shape[2:]), dtype=entry.dtype, name=entry.name)
            if len(entry.shape) > 1
            else keras.Input(batch_shape=entry.shape, dtype=entry.dtype, name=entry.name)
            for entry in model.inputs
        ]
        tensors = entries if len(entries) > 1 else entries[0]
        fresh = cloned(model, lambda one: one, tensors)
        compile_like(model, fresh, optimizer=None)
    except (ValueError, TypeError, AttributeError, KeyError, NotImplementedError):
        return None
    return case.with_(model=fresh, recipe=None)


def cut_suffix(case: Case, keep: Keep) -> Case:
    """Nothing after the layer at fault: its output is compared with zeros."""
    model = case.model
    if not is_graph(model) or case.fingerprint.phase != "forward" or case.origin is None:
        return case
    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    for layer in layers[:-1]:
        if type(layer).__name__ != case.fingerprint.layer_kind:
            continue
        candidate = _head(case, layer)
        if candidate is not None and keep(candidate):
            return candidate
    return case


def output_of(model: Any, layer: Any) -> Any:
    """The tensor that a layer gives in this graph: a layer shared by several graphs has several."""
    found = [
        node.output_tensors for nodes in model._nodes_by_depth.values() for node in nodes if node.operation is layer
    ]
    if len(found) != 1 or len(found[0]) != 1:
        raise ValueError(f"layer {layer.name} gives {len(found)} outputs in this graph")
    return found[0][0]


def _head(case: Case, layer: Any) -> Case | None:
    model = case.model
    try:
        if case.weights is not None:
            model.set_weights(list(case.weights))
        inputs = model.inputs if len(model.inputs) > 1 else model.inputs[0]
        cut = output_of(_graph(model), layer)
        head = keras.Model(inputs, cut)
        head.compile(optimizer="sgd", loss="mse")
        shape = (case.batch.samples, *(size or 1 for size in cut.shape[1:]))
        if any(size is None for size in cut.shape[1:]):
            shape = tuple(head(case.batch.x).shape)
        y = np.zeros(shape, "float32")
        return case.with_(
            model=head, batch=Batch(case.batch.x, y), weights=tuple(head.get_weights()) or None, recipe=None
        )
    except (ValueError, TypeError, AttributeError, KeyError, RuntimeError, NotImplementedError):
        return None


def drop_weights_of_samples(case: Case, keep: Keep) -> Case:
    """No sample weights."""
    if case.batch.sample_weight is None:
        return case
    candidate = case.with_(batch=Batch(case.batch.x, case.batch.y))
    return candidate if keep(candidate) else case


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
            cut = output_of(_graph(model), layer)
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


def forget_slots(case: Case, keep: Keep) -> Case:
    """An optimizer that has not made a step yet, in place of the recorded one."""
    if case.slots is None:
        return case
    candidate = case.with_(slots=None)
    return candidate if keep(candidate) else case


def simplify_optimizer(case: Case, keep: Keep) -> Case:
    """Plain SGD, no metrics, nothing compiled."""
    model = case.model
    settings = model._compile_config.config
    if type(model.optimizer).__name__ == "SGD" and not settings.get("metrics"):
        return case
    if not is_graph(model) or case.fingerprint.phase == "update" or case.slots is not None:
        return case
    fresh = cloned(model, lambda one: one)
    compile_like(model, fresh, optimizer="sgd")
    candidate = case.with_(model=fresh)
    return candidate if keep(candidate) else case


def simplify_values(case: Case, keep: Keep) -> Case:
    """Zeros and ones in place of data, and few digits where they will not do."""
    for part in ("y", "x"):
        case = _simplify_part(case, part, keep)
    return case


def _simplify_part(case: Case, part: str, keep: Keep) -> Case:
    for change in (np.zeros_like, np.ones_like, _rounded, _one_digit):
        candidate = _changed(case, part, change)
        if candidate is None:
            return case
        if keep(candidate):
            return candidate if change is not _rounded else _zero_most(candidate, part, keep)
    return _zero_most(case, part, keep)


def _changed(case: Case, part: str, change: Callable[[Any], Any]) -> Case | None:
    from tsguard.dataset import map_leaves

    value = getattr(case.batch, part)
    if value is None:
        return None
    batch = {"x": case.batch.x, "y": case.batch.y, "sample_weight": case.batch.sample_weight}
    batch[part] = map_leaves(lambda leaf: change(leaf) if leaf.dtype.kind in "fiub" else leaf, value)
    return case.with_(batch=Batch(**batch))


def _rounded(leaf: Any) -> Any:
    return np.where(np.isfinite(leaf), np.round(leaf), leaf).astype(leaf.dtype) if leaf.dtype.kind == "f" else leaf


def _one_digit(leaf: Any) -> Any:
    if leaf.dtype.kind != "f":
        return leaf
    with np.errstate(all="ignore"):
        size = 10.0 ** np.floor(np.log10(np.abs(leaf)))
        short = np.where(np.isfinite(leaf) & (leaf != 0), np.round(leaf / size) * size, leaf)
    return short.astype(leaf.dtype)


def _zero_most(case: Case, part: str, keep: Keep) -> Case:
    """The fewest elements that must not be zero."""
    value = getattr(case.batch, part)
    if value is None or not hasattr(value, "shape") or value.size > _ELEMENTS_MAX:
        return case
    flat = value.reshape(-1)
    places = np.flatnonzero(flat)

    def only(some: Sequence[int]) -> Case:
        fresh = np.zeros_like(flat)
        fresh[list(some)] = flat[list(some)]
        changed = _changed(case, part, lambda leaf: fresh.reshape(value.shape))
        assert changed is not None
        return changed

    if not len(places):
        return case
    kept = smallest([int(place) for place in places], lambda some: keep(only(some)), may_be_empty=True)
    return only(kept)


_ELEMENTS_MAX = 4096
"""Elements that are tried one by one: beyond, the other passes have to make the batch smaller first."""


def smallest(items: Iterable[int], fails: Callable[[Sequence[int]], bool], *, may_be_empty: bool = False) -> list[int]:
    """A smallest subset, in order, that still fails: no single item of it can be left out (delta debugging).

    Chunks halve when none can be dropped and start anew after a success; the order of trials is fixed, so that two
    calls give the same answer.
    """
    kept = list(items)
    if may_be_empty and fails([]):
        return []
    for single in kept[:1] + kept[-1:]:
        if len(kept) > 1 and fails([single]):
            return [single]
    chunk = max(1, len(kept) // 2)
    while True:
        start, dropped = 0, False
        while start < len(kept) and len(kept) > 1:
            trial = kept[:start] + kept[start + chunk :]
            if trial and fails(trial):
                kept, dropped = trial, True
            else:
                start += chunk
        if chunk == 1 and not dropped:
            return kept
        if not dropped or chunk > len(kept) // 2:
            chunk = max(1, chunk // 2)


def float64_query(case: Case) -> bool | None:
    """Whether the failure survives in float64: then it is one of logic or data, and not of range."""
    model = _in_float64(case.model)
    if model is None:
        return None
    batch = case.batch.map(lambda leaf: leaf.astype("float64") if leaf.dtype.kind == "f" else leaf)
    weights = case.weights if case.weights is not None else tuple(case.model.get_weights())
    with true_float64():
        found, _ = fingerprint_of(model, batch, weights, case.seed)
    return found == case.fingerprint


def _in_float64(model: Any) -> Any:
    if not is_graph(model):
        return None
    try:

        def double(layer: Any) -> Any:
            config = layer.get_config()
            config["dtype"] = "float64"
            return type(layer).from_config(config)

        fresh = cloned(model, double)
        compile_like(model, fresh, optimizer="sgd")
    except (ValueError, TypeError, AttributeError, KeyError, NotImplementedError):
        return None
    return fresh


PASSES: tuple[Callable[[Case, Keep], Case], ...] = (
    drop_samples,
    drop_weights_of_samples,
    forget_slots,
    forget_weights,
    cut_suffix,
    cut_prefix,
    forget_weights,
    shorten_sequence,
    simplify_optimizer,
    simplify_values,
    drop_samples,
)
"""Cheap and powerful first: fewer rows make everything after them faster."""
