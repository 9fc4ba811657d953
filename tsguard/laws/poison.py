"""Laws of NaN: what is not finite at padded positions stays there, forward and backward."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tsguard.laws.batches import Batch, Example
from tsguard.laws.ground import Ground, batch_words, finite
from tsguard.laws.law import (
    Law,
    at_layer,
    moved_words,
    not_padded,
    output_moved,
    padded_batches,
)
from tsguard.laws.results import Counterexample
from tsguard.laws.structure import Leaves


def can_be_nan(ground: Ground) -> str | None:
    """NaN needs a float input that it can stand in without being taken for valid."""
    reason = not_padded(ground)
    if reason:
        return reason
    if ground.reading.unmasked_padding:
        return None
    floats = [n for n in ground.reachable if n not in ground.reading.ids and ground.reading.rows[n].dtype.kind == "f"]
    if not floats or ground.reading.mask_kind == "declared":
        return "no float input can hold NaN at padded positions without changing what is masked"
    return None if max(ground.widths) > 1 else "the model takes one step only: nothing can be padded"


def poisoned(ground: Ground, batch: Batch, value: float, over: str = "time") -> Leaves:
    """The inputs with this value wherever nothing counts."""
    x = dict(batch.x)
    if over == "time" and ground.reading.unmasked_padding:
        return x  # the user's own padding is NaN already
    for name in ground.reachable if over == "time" else ground.reading.values:
        if name not in ground.reading.ids and x[name].dtype.kind == "f":
            there = ground.material.padded_positions(name, batch, over)
            x[name] = np.where(there, value, x[name]).astype(x[name].dtype)
    return x


def _value(example: Example) -> float:
    return float("inf") if example.seed % 2 else float("nan")


def padded_nan(ground: Ground, example: Example) -> Counterexample | None:
    """1. Nor do NaN or inf at padded positions, in the forward pass."""
    return forward(ground, example, NAN.name, "time", grave=_nan_in_padding(ground))


def forward(ground: Ground, example: Example, law: str, over: str, *, grave: bool) -> Counterexample | None:
    """Whether valid outputs move when what is padded is not finite."""
    batch, value = ground.batch(example), _value(example)
    x = poisoned(ground, batch, value, over)
    before, after = ground.bench.outputs(batch.x), ground.bench.outputs(x)
    if ground.reading.unmasked_padding:
        before = tuple(np.nan_to_num(b, nan=0.0) if not finite([b]) else b for b in before)
    features = batch.features if over == "features" else None
    moved = ground.moved(before, after, batch.valid, features=(features, features))
    if moved is None:
        return None
    where = "positions" if over == "time" else "features"
    words = moved_words(ground, batch.valid, moved, f"padded {where} held {value}").replace(
        "moved by inf", "became non-finite"
    )
    return output_moved(
        law,
        "pad-nan-poison",
        words,
        batch.x,
        x,
        moved,
        example,
        grave=grave,
        remedy="Replace what is padded before the first layer: `ops.where(mask[..., None], x, 0.0)`. Multiplying "
        "by the mask does not help, 0 · NaN is NaN.",
    )


def _nan_in_padding(ground: Ground) -> bool:
    """Whether the data at hand holds non-finite values at padded positions."""
    reading = ground.reading
    if reading.unmasked_padding or np.isnan(reading.padding.pad_value):
        return True
    for name in reading.values:
        leaf, axis = reading.rows[name], reading.time[name]
        if leaf.dtype.kind == "f" and leaf.shape[axis] == reading.width:
            moved = np.moveaxis(leaf, axis, 1)
            if not np.isfinite(moved[~reading.valid]).all():
                return True
    return False


def _name_nan(ground: Ground, found: Counterexample) -> Counterexample:
    example = replace(ground.padded_example(), seed=0)
    batch = ground.batch(example)
    x = poisoned(ground, batch, float("nan"))
    if ground.reading.unmasked_padding:
        first = next((c for c in ground.bench.calls(x) if not _finite_where(c.outputs, batch.valid)), None)
        call = first
    else:
        call = ground.layer_at_fault(batch.x, x, batch.valid)
    named = at_layer(found, call, found.remedy)
    return replace(named, remedy=found.remedy)


def _finite_where(outputs: Any, valid: Any) -> bool:
    return all(
        bool(np.isfinite(o[valid] if o.ndim >= 2 and o.shape[:2] == valid.shape else o).all())
        for o in outputs
        if o.ndim
    )


def padded_nan_backward(ground: Ground, example: Example) -> Counterexample | None:
    """1. … and in any gradient: a recurrent layer is clean forward and NaN backward."""
    return backward(ground, example, NAN_BACKWARD.name, "time", grave=_nan_in_padding(ground))


def backward(ground: Ground, example: Example, law: str, over: str, *, grave: bool) -> Counterexample | None:
    """Whether a gradient becomes non-finite when what is padded is not finite."""
    batch, value = ground.batch(example), _value(example)
    x = poisoned(ground, batch, value, over)
    features = batch.features if over == "features" else None
    reduce = ground.projection(batch, features=features)
    plain = ground.bench.gradients(batch.x, reduce)
    if not finite(list(plain.weights.values())) and not ground.reading.unmasked_padding:
        return None  # not finite without NaN either: another law's business
    after = ground.bench.gradients(x, reduce)
    sick = [name for name, g in after.weights.items() if not np.isfinite(g).all()]
    if not sick:
        return None
    words = (
        f"{batch_words(batch.valid, right=ground.material.right)}; the gradients of {len(sick)} of "
        f"{len(after.weights)} weights became non-finite when padded {'positions' if over == 'time' else 'features'} "
        f"held NaN or inf, `{sick[0]}` among them."
    )
    return Counterexample(
        law,
        "pad-nan-poison",
        words,
        batch.x,
        x,
        float("inf"),
        0.0,
        {"law": law, "phase": "backward", "parameter": sick[0]},
        size=example.size,
        grave=grave,
        facts={"parameters": sick[:20]},
        remedy="A finite forward pass is not enough: 0 · NaN in the backward pass is NaN. Replace padded values before "
        "the first layer: `ops.where(mask[..., None], x, 0.0)`.",
    )


def name_backward(ground: Ground, found: Counterexample) -> Counterexample:
    """The last layer to be called among those whose weights get NaN: backward it is the first."""
    sick = set(found.facts.get("parameters", ()))
    last = None
    for call in ground.bench.calls(ground.batch(ground.padded_example()).x):
        own = {str(v.path) for v in getattr(call.layer, "_trainable_variables", ())} | (
            {str(v.path) for v in getattr(call.layer, "trainable_variables", ())} if call.kind in _AS_ONE else set()
        )
        if own & sick:
            last = call
    return (
        found
        if last is None
        else replace(
            found,
            where={**found.where, "layer": last.path},
            words=f"{found.words} Layer `{last.path}` ({last.kind}) is the first in the backward pass.",
        )
    )


_AS_ONE = (
    "LSTM",
    "GRU",
    "SimpleRNN",
    "RNN",
    "Bidirectional",
    "TimeDistributed",
    "ConvLSTM1D",
    "ConvLSTM2D",
    "ConvLSTM3D",
)


NAN = Law(
    "NaN and inf at padded positions stay there",
    "pad-nan-poison",
    padded_nan,
    can_be_nan,
    padded_batches,
    0.6,
    finish=_name_nan,
)
NAN_BACKWARD = Law(
    "NaN and inf at padded positions reach no gradient",
    "pad-nan-poison",
    padded_nan_backward,
    can_be_nan,
    padded_batches,
    0.4,
    finish=name_backward,
)
