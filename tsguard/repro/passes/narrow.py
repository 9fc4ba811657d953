"""Passes over the configuration, in integers: fewer units, heads, filters, layers, features, outputs.

A candidate is built from a smaller configuration and is valid by construction, or its constructor refuses it. Recorded
weights are cut along: the first part of every axis or another one, and of a feature axis the features that were kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tsguard.backend import preserved, seed_everything
from tsguard.dataset import map_leaves
from tsguard.repro.arguments import given_to
from tsguard.repro.case import Batch, Case
from tsguard.repro.code.lines import NotCode
from tsguard.repro.graphs import REFUSALS, compile_like, graph_of, has_graph, operations_of, rebuilt, remade
from tsguard.repro.passes.subset import Keep, smallest
from tsguard.repro.user import held_by

NO_SIZES = frozenset("axis seed axes groups dims ndim rank version".split())
"""Integers of a configuration that count nothing."""


EACH = 8
"""Units up to which each of them is tried alone: of more the halves lead to the one that is needed."""


def narrow_layers(case: Case, keep: Keep) -> Case:
    """Every integer of the configuration as small as it still fails with: one, or half again and again."""
    place = 0
    while True:
        found = list(sizes(case.model))
        if place >= len(found):
            return case
        owner, key, value = found[place]
        fewer = [size for size in dict.fromkeys((1, value // 2, value - 1)) if 0 < size < value]
        for smaller, begin in [(size, begin) for size in fewer for begin in _beginnings(case, size, value)]:
            candidate = with_sizes(case, {id(owner): {key: smaller}}, begin=begin)
            if candidate is not None and _value_at(candidate, place) == smaller and keep(candidate):
                case = candidate
                break
        else:
            place += 1


def _beginnings(case: Case, smaller: int, value: int) -> list[float]:
    """Where the part of recorded weights that is kept may begin: 0 is the first part, 1 the last.

    Seeded weights are drawn for the smaller size: of them there is no other part.
    """
    if case.weights is None:
        return [0.0]
    return [k / (value - 1) for k in range(value)] if smaller == 1 and value <= EACH else [0.0, 1.0]


def _value_at(case: Case, place: int) -> int | None:
    """What stands at a place now."""
    return next((value for _, _, value in list(sizes(case.model))[place : place + 1]), None)


def bypass_layers(case: Case, keep: Keep) -> Case:
    """No layer and no operation that is not needed: what goes in comes out instead."""
    place = 0
    while has_graph(case.model):
        called = operations_of(case.model)
        if place >= len(called) or len(called) < 2:
            break
        candidate = _rebuilt_case(case, {}, without=called[place])
        if candidate is not None and keep(candidate):
            case = candidate
        else:
            place += 1
    return case


def sizes(model: Any) -> Iterator[tuple[Any, str, int]]:
    """The positive integers that a model and its layers were made with."""
    owners = graph_of(model).layers if has_graph(model) else [model]
    for owner in owners:
        yield from _sizes_of(owner)


def _sizes_of(owner: Any) -> Iterator[tuple[Any, str, int]]:
    if isinstance(owner, keras.layers.InputLayer | keras.layers.Lambda):
        return
    try:
        given = given_to(owner)
    except NotCode:
        try:
            _, held = held_by(owner)
        except NotCode:
            return
        for part in keras.tree.flatten(held):
            if isinstance(part, keras.layers.Layer):
                yield from _sizes_of(part)
        return
    for key, value in given.items():
        if isinstance(value, int) and not isinstance(value, bool) and value > 0 and key not in NO_SIZES:
            yield owner, key, value


def with_sizes(case: Case, changed: Mapping[int, Mapping[str, int]], *, begin: float = 0.0) -> Case | None:
    """The case with other integers, its weights cut along from a beginning on; None where that cannot be."""
    if has_graph(case.model):
        return _rebuilt_case(case, changed, begin=begin)
    try:
        seed_everything(case.seed)
        fresh = remade(case.model, changed)
        compile_like(case.model, fresh, optimizer=None)
        if case.weights is not None:
            fresh(case.batch.x)
            with preserved(case.model):
                case.model(case.batch.x)
                pairs = list(zip(case.model.weights, fresh.weights, strict=True))
            fitted = tuple(_cut(old, new.shape, begin=begin) for old, (_, new) in zip(case.weights, pairs, strict=True))
            return _fitting(case.with_(model=fresh, weights=fitted, slots=None, recipe=None), case)
        return _fitting(case.with_(model=fresh, slots=None, recipe=None), case)
    except REFUSALS:
        return None


def _rebuilt_case(
    case: Case,
    changed: Mapping[int, Mapping[str, int]],
    *,
    without: Any = None,
    batch: Batch | None = None,
    inputs: Mapping[str, Any] | None = None,
    features: Mapping[int, Sequence[int]] | None = None,
    dtype: str | None = None,
    frozen: frozenset[int] = frozenset(),
    begin: float = 0.0,
) -> Case | None:
    def again(one: Any) -> Any:
        if one is without:
            return None
        if not isinstance(one, keras.layers.Layer) or isinstance(one, keras.layers.Lambda):
            return one
        if not one.weights and id(one) not in changed and dtype is None:
            return one
        other: dict[str, Any] = dict(changed.get(id(one), {}))
        if dtype is not None:
            other["dtype"] = dtype
        if id(one) in frozen:
            other["trainable"] = False
        return remade(one, {**changed, id(one): other})

    try:
        seed_everything(case.seed)
        if case.weights is not None:
            case.model.set_weights(list(case.weights))
        fresh, pairs = rebuilt(case.model, again, inputs=inputs)
        compile_like(case.model, fresh, optimizer=None)
        if case.weights is not None:
            for old, new in pairs:
                if old is not new:
                    new.set_weights([_cut(a, tuple(b.shape), features, begin=begin) for a, b in _both(old, new)])
        weights = None if case.weights is None else tuple(fresh.get_weights()) or None
        candidate = case.with_(model=fresh, batch=batch or case.batch, weights=weights, slots=None, recipe=None)
        return _fitting(candidate, case)
    except REFUSALS:
        return None


def _both(old: Any, new: Any) -> list[tuple[Any, Any]]:
    return list(zip(old.get_weights(), new.weights, strict=True))


def _cut(
    weight: Any, shape: Sequence[int], features: Mapping[int, Sequence[int]] | None = None, *, begin: float = 0.0
) -> Any:
    """The part of a weight that a smaller shape leaves."""
    array = np.asarray(weight)
    for axis, (had, has) in enumerate(zip(array.shape, shape, strict=True)):
        if had != has:
            kept = (features or {}).get(had)
            first = round(begin * (had - has))
            part = kept if kept is not None and len(kept) == has else range(first, first + has)
            array = np.take(array, part, axis=axis)
    return array


def _fitting(case: Case, before: Case) -> Case:
    """Targets cut to what the model answers now: leading values, and class numbers that still exist."""
    if case.batch.y is None:
        return case
    shapes, targets = _shapes(case), keras.tree.flatten(case.batch.y)
    if len(shapes) != len(targets):
        return case
    numbered = any(leaf.dtype.kind in "iu" for leaf in targets)
    pairs = iter(list(zip(shapes, _shapes(before) if numbered else shapes, strict=True)))
    y = keras.tree.map_structure(lambda leaf: _fit(leaf, *next(pairs)), case.batch.y)
    return case.with_(batch=Batch(case.batch.x, y, case.batch.sample_weight))


def _shapes(case: Case) -> list[tuple[int, ...]]:
    """Shapes of the answers."""
    with preserved(case.model):
        answers = case.model(map_leaves(keras.ops.convert_to_tensor, case.batch.x))
    return [tuple(answer.shape) for answer in keras.tree.flatten(answers)]


def _fit(target: Any, shape: tuple[int, ...], before: tuple[int, ...]) -> Any:
    if target.ndim == len(shape) and target.shape[-1] != 1:
        return target[tuple(slice(0, size) for size in shape)]
    if target.dtype.kind not in "iu" or shape[-1] == 1 or shape[-1] >= before[-1]:
        return target
    # A number that was no class before may be what is wrong: it stays as far beyond.
    fewer = before[-1] - shape[-1]
    return np.where(target < before[-1], np.minimum(target, shape[-1] - 1), target - fewer).astype(target.dtype)


def drop_features(case: Case, keep: Keep) -> Case:
    """As few features of every input as still fail."""
    for number, leaf in enumerate(keras.tree.flatten(case.batch.x)):
        if leaf.ndim < 2 or leaf.shape[-1] < 2 or leaf.dtype.kind not in "fiu":
            continue
        case = _with_fewest(case, _FeatureCut(case, number), leaf.shape[-1], keep)
    return case


def _with_fewest(case: Case, cut: Callable[[Sequence[int]], Case | None], size: int, keep: Keep) -> Case:
    def fails(some: Sequence[int]) -> bool:
        candidate = cut(some)
        return candidate is not None and keep(candidate)

    return cut(smallest(range(size), fails)) or case


class _FeatureCut:
    """A case with some features of one input."""

    def __init__(self, case: Case, number: int) -> None:
        self.case, self.number = case, number

    def __call__(self, some: Sequence[int]) -> Case | None:
        case, index = self.case, list(some)
        held = keras.tree.flatten(case.batch.x)
        size = held[self.number].shape[-1]
        if len(index) == size:
            return case
        held[self.number] = held[self.number][..., index]
        batch = Batch(keras.tree.pack_sequence_as(case.batch.x, held), case.batch.y, case.batch.sample_weight)
        if not has_graph(case.model):
            return case.with_(batch=batch) if not case.model.built else None
        entry = graph_of(case.model).inputs[self.number]
        if entry.shape[-1] is None:
            return case.with_(batch=batch)
        narrower = keras.Input(batch_shape=(*entry.shape[:-1], len(index)), dtype=entry.dtype, name=entry.name)
        return _rebuilt_case(case, {}, batch=batch, inputs={entry.name: narrower}, features={size: index})


def drop_inputs(case: Case, keep: Keep) -> Case:
    """No input that nothing reads."""
    if not has_graph(case.model) or not isinstance(case.batch.x, dict):
        return case
    try:
        fresh, _ = rebuilt(case.model, lambda one: one, outputs=graph_of(case.model)._outputs_struct)
        compile_like(case.model, fresh, optimizer=None)
    except REFUSALS:
        return case
    if not isinstance(fresh._inputs_struct, dict):
        return case
    x = {key: case.batch.x[key] for key in fresh._inputs_struct}
    if len(x) == len(case.batch.x):
        return case
    batch = Batch(x, case.batch.y, case.batch.sample_weight)
    candidate = case.with_(model=fresh, batch=batch, slots=None, recipe=None)
    return candidate if keep(candidate) else case


def drop_outputs(case: Case, keep: Keep) -> Case:
    """As few outputs, and with them terms of the loss, as still fail."""
    if not has_graph(case.model):
        return case
    outputs = graph_of(case.model)._outputs_struct
    if not isinstance(outputs, dict) or len(outputs) < 2 or not isinstance(case.batch.y, dict):
        return case
    names = list(outputs)

    def only(some: Sequence[int]) -> Case | None:
        kept = [names[index] for index in some]
        try:
            fresh, _ = rebuilt(case.model, lambda one: one, outputs={name: outputs[name] for name in kept})
            _compile_some(case.model, fresh, kept)
        except REFUSALS:
            return None
        weights = None if case.weights is None else tuple(fresh.get_weights())
        x = case.batch.x
        if isinstance(x, dict):
            x = {key: x[key] for key in fresh._inputs_struct}
        batch = Batch(x, {name: case.batch.y[name] for name in kept}, _some(case.batch.sample_weight, kept))
        return case.with_(model=fresh, batch=batch, weights=weights, slots=None, recipe=None)

    fewest = _with_fewest(case, lambda some: case if len(some) == len(names) else only(some), len(names), keep)
    alone = _alone(fewest)
    return alone if alone is not None and keep(alone) else fewest


def _alone(case: Case) -> Case | None:
    """The one output that is left, by itself; None where there are more."""
    outputs = graph_of(case.model)._outputs_struct
    if not isinstance(outputs, dict) or len(outputs) != 1 or isinstance(case.batch.sample_weight, dict):
        return None
    [name] = outputs
    try:
        fresh, _ = rebuilt(case.model, lambda one: one, outputs=outputs[name])
        loss = case.model._compile_config.config.get("loss")
        optimizer = type(case.model.optimizer).from_config(case.model.optimizer.get_config())
        fresh.compile(optimizer, loss[name] if isinstance(loss, dict) else loss)
    except REFUSALS:
        return None
    batch = Batch(case.batch.x, case.batch.y[name], case.batch.sample_weight)
    return case.with_(model=fresh, batch=batch, recipe=None)


def _some(values: Any, names: Sequence[str]) -> Any:
    return {name: values[name] for name in names if name in values} if isinstance(values, dict) else values


def _compile_some(model: Any, fresh: Any, names: Sequence[str]) -> None:
    settings = model._compile_config.config
    optimizer = type(model.optimizer).from_config(model.optimizer.get_config())
    loss = settings.get("loss")
    loss = loss if isinstance(loss, dict) else dict.fromkeys(names, loss)
    fresh.compile(optimizer, _some(loss, names), loss_weights=_some(settings.get("loss_weights"), names))


def simplify_dtype(case: Case, keep: Keep) -> Case:
    """float32 in place of other precisions."""
    if not has_graph(case.model):
        return case
    if all(one.dtype_policy.name == "float32" for one in graph_of(case.model).layers):
        return case
    candidate = _rebuilt_case(case, {}, dtype="float32")
    return candidate if candidate is not None and keep(candidate) else case


def freeze_layers(case: Case, keep: Keep) -> Case:
    """Nothing trains that need not: what is left says whose gradient or update is at fault."""
    if not has_graph(case.model) or case.fingerprint.phase not in ("backward", "update"):
        return case
    layers = [one for one in graph_of(case.model).layers if one.trainable_weights]
    for layer in layers[:-1] if len(layers) < 2 else layers:
        live = [one for one in graph_of(case.model).layers if one.trainable_weights]
        here = next((one for one in live if one.name == layer.name), None)
        candidate = None if here is None or len(live) < 2 else _rebuilt_case(case, {}, frozen=frozenset({id(here)}))
        if candidate is not None and keep(candidate):
            case = candidate
    return case
