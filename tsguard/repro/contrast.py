"""Contrast: beside the smallest failing case, the smallest edit of its data that heals it, and what float64 says.

One value is changed at a time, first the one that the instruments point at, to plain values. What heals by one value
says more about the cause than the failure alone.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tsguard.backend import preserved, true_float64
from tsguard.dataset import leaves
from tsguard.repro.case import Batch, Case, fingerprint_of
from tsguard.repro.graphs import REFUSALS, compile_like, graph_of, has_graph, rebuilt, remade

PLAIN_VALUES = (1.0, 0.5, 0.0, -1.0)
"""What is put in place of a value: one, something between, nothing, the other sign."""

ELEMENTS_TRIED = 12
"""Elements that are changed one after another: a reduced case has few, and each costs a step."""


def nearest_healthy(case: Case) -> str:
    """The smallest edit that heals, in words; empty where no single value does."""
    for name in ("x", "y"):
        for number, leaf in enumerate(leaves(getattr(case.batch, name))):
            if leaf.dtype.kind not in "fiu" or not leaf.size:
                continue
            for index in _in_order(leaf):
                healed = _heals(case, name, number, index)
                if healed is not None:
                    place = f"{name}[{', '.join(map(str, index))}]"
                    several = len(list(leaves(getattr(case.batch, name)))) > 1
                    which = f" of array {number}" if several else ""
                    return f"{place}{which} = {healed:g} in place of {leaf[index]:g} heals it"
    return ""


def _in_order(leaf: Any) -> list[tuple[int, ...]]:
    """Elements that are not finite first, then in order of position."""
    flat = leaf.reshape(-1)
    strange = np.flatnonzero(~np.isfinite(flat.astype("float64")))
    rest = np.setdiff1d(np.arange(flat.size), strange)
    chosen = [*strange, *rest][:ELEMENTS_TRIED]
    return [tuple(int(i) for i in np.unravel_index(one, leaf.shape)) for one in chosen]


def _heals(case: Case, name: str, number: int, index: tuple[int, ...]) -> float | None:
    for value in PLAIN_VALUES:
        batch = case.batch.map(np.copy)
        changed = list(leaves(getattr(batch, name)))[number]
        if changed[index] == value:
            continue
        changed[index] = value
        found, _ = case.asked(batch)
        if found is None and _answers(case, batch):
            return value
    return None


def _answers(case: Case, batch: Batch) -> bool:
    """Whether the step really ran: a candidate that the model refuses has no fingerprint either."""
    try:
        with preserved(case.model):
            case.model.train_on_batch(*batch.parts())
    except Exception:  # the model refuses such a value: no healthy neighbour
        return False
    return True


def float64_query(case: Case) -> bool | None:
    """Whether the failure survives in float64: then it is one of logic or data, and not of range."""
    model = _in_float64(case.model)
    if model is None:
        return None
    batch = case.batch.map(lambda leaf: leaf.astype("float64") if leaf.dtype.kind == "f" else leaf)
    weights = case.weights if case.weights is not None else tuple(case.model.get_weights())
    with true_float64():
        found, _ = fingerprint_of(model, batch, weights, case.seed, terms=case.terms)
    return found == case.fingerprint


def _in_float64(model: Any) -> Any:
    if not has_graph(model):
        return None
    entries = {
        entry.name: keras.Input(batch_shape=entry.shape, dtype="float64", name=entry.name)
        for entry in graph_of(model).inputs
        if entry.dtype in ("float32", "float16", "bfloat16")
    }
    try:
        fresh, _ = rebuilt(model, _doubled, inputs=entries)
        compile_like(model, fresh, optimizer="sgd")
    except REFUSALS:
        return None
    return fresh


def _doubled(one: Any) -> Any:
    if isinstance(one, keras.layers.Lambda):
        return keras.layers.Lambda(one.function, dtype="float64", name=one.name)
    return remade(one, {id(one): {"dtype": "float64"}}) if isinstance(one, keras.layers.Layer) else one
