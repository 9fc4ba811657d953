"""Passes over the batch: samples, timesteps, weights of samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tsguard.dataset import leaves
from tsguard.repro.case import Batch, Case
from tsguard.repro.graphs import REFUSALS, compile_like, graph_of, has_graph, rebuilt
from tsguard.repro.passes.subset import Keep, smallest


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
    tight = case
    # A `Sequential` takes other lengths than it declares, and the graph that is written of it does not.
    declared = has_graph(case.model) and any(
        entry.shape[1:2] == (length,) and (len(entry.shape) > 2 or "int" in str(entry.dtype))
        for entry in graph_of(case.model).inputs
    )
    if declared or not any(keep(cut(steps)) for steps in (range(length - 1), range(1, length))):
        loose = _any_length(case)
        if loose is None:
            return case
        case = loose  # `cut` sees the looser model from here on
    steps = smallest(range(length), lambda steps: keep(cut(steps)))
    return cut(steps) if len(steps) < length else tight


def _any_length(case: Case) -> Case | None:
    """The same graph with inputs whose axis 1 may have any length."""
    model = case.model
    if not has_graph(model):
        return None
    try:
        entries = {
            entry.name: keras.Input(
                batch_shape=(entry.shape[0], None, *entry.shape[2:]), dtype=entry.dtype, name=entry.name
            )
            for entry in graph_of(model).inputs
            if len(entry.shape) > 1
        }
        fresh, _ = rebuilt(model, lambda one: one, inputs=entries)
        compile_like(model, fresh, optimizer=None)
    except REFUSALS:
        return None
    return case.with_(model=fresh, recipe=None)


def drop_weights_of_samples(case: Case, keep: Keep) -> Case:
    """No sample weights."""
    if case.batch.sample_weight is None:
        return case
    candidate = case.with_(batch=Batch(case.batch.x, case.batch.y))
    return candidate if keep(candidate) else case
