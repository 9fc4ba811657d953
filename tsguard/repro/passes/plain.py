"""Passes that make a case plainer without making it smaller: seeded weights, plain SGD, round numbers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tsguard.dataset import leaves, map_leaves
from tsguard.repro.case import Batch, Case
from tsguard.repro.graphs import cloned, compile_like, is_graph, reinitialised
from tsguard.repro.passes.subset import Keep, smallest


def forget_weights(case: Case, keep: Keep) -> Case:
    """Weights that the seed gives, in place of recorded ones."""
    if case.weights is None:
        return case
    fresh = reinitialised(case.model)
    if fresh is None:
        return case
    candidate = case.with_(model=fresh, weights=None)
    return candidate if keep(candidate) else case


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
        for number in range(len(list(leaves(getattr(case.batch, part))))):
            case = _simplify_leaf(case, part, number, keep)
    return case


def _simplify_leaf(case: Case, part: str, number: int, keep: Keep) -> Case:
    for change in (np.zeros_like, np.ones_like, _rounded, _one_digit):
        candidate = _changed(case, part, change, number)
        if _alike(case, candidate, part) and keep(candidate):
            return candidate if change is not _rounded else _zero_most(candidate, part, number, keep)
    return _zero_most(case, part, number, keep)


def _alike(case: Case, candidate: Case, part: str) -> bool:
    """Whether values are such as could stand there: far outside of what the data holds another thing fails."""
    pairs = zip(leaves(getattr(candidate.batch, part)), leaves(getattr(case.batch, part)), strict=True)
    return all(_within(made, measured) for made, measured in pairs)


def _within(made: Any, measured: Any) -> bool:
    """Whether values lie within the span of others, or no farther beyond it; a single value has no span."""
    if measured.dtype.kind not in "fiu":
        return True
    known = np.unique(measured[np.isfinite(measured)]).astype("float64")
    span = known[-1] - known[0] if len(known) else 0.0
    values = made[np.isfinite(made)]
    return span == 0 or bool(((values >= known[0] - span) & (values <= known[-1] + span)).all())


def _changed(case: Case, part: str, change: Callable[[Any], Any], number: int | None = None) -> Case:
    """The case with other numbers in one array of its batch, or in all of them."""
    counted = itertools.count()

    def other(leaf: Any) -> Any:
        asked = next(counted) == number or number is None
        return change(leaf) if asked and leaf.dtype.kind in "fiub" else leaf

    batch = {"x": case.batch.x, "y": case.batch.y, "sample_weight": case.batch.sample_weight}
    return case.with_(batch=Batch(**{**batch, part: map_leaves(other, batch[part])}))


def _rounded(leaf: Any) -> Any:
    return np.where(np.isfinite(leaf), np.round(leaf), leaf).astype(leaf.dtype) if leaf.dtype.kind == "f" else leaf


def _one_digit(leaf: Any) -> Any:
    if leaf.dtype.kind != "f":
        return leaf
    with np.errstate(all="ignore"):
        size = 10.0 ** np.floor(np.log10(np.abs(leaf)))
        short = np.where(np.isfinite(leaf) & (leaf != 0), np.round(leaf / size) * size, leaf)
    return short.astype(leaf.dtype)


def _zero_most(case: Case, part: str, number: int, keep: Keep) -> Case:
    """The fewest elements that must not be zero."""
    value = list(leaves(getattr(case.batch, part)))[number]
    if value.size > _ELEMENTS_MAX or value.dtype.kind not in "fiub":
        return case
    flat = value.reshape(-1)
    places = np.flatnonzero(flat)

    def only(some: Sequence[int]) -> Case:
        fresh = np.zeros_like(flat)
        fresh[list(some)] = flat[list(some)]
        return _changed(case, part, lambda leaf: fresh.reshape(value.shape), number)

    if not len(places):
        return case
    if not _within(np.zeros(1), value):
        return case
    kept = smallest([int(place) for place in places], lambda some: keep(only(some)), may_be_empty=True)
    return only(kept)


_ELEMENTS_MAX = 4096
"""Elements that are tried one by one: beyond, the other passes have to make the batch smaller first."""


def make_values(case: Case, keep: Keep) -> Case:
    """Made values in place of measured ones; what is not finite stays."""
    for part in ("y", "x"):
        for change in (_drawn_round, _drawn_alike):
            candidate = _changed(case, part, change)
            if _alike(case, candidate, part) and keep(candidate):
                case = candidate
                break
    return case


def _drawn_round(leaf: Any) -> Any:
    """Normal numbers of one digit."""
    return _drawn(leaf, lambda draw, shape: np.round(draw.normal(size=shape), 1))


def _drawn_alike(leaf: Any) -> Any:
    """Normal numbers with the mean and the deviation of what they replace."""
    finite = leaf[np.isfinite(leaf)].astype("float64")
    mean, deviation = (finite.mean(), finite.std()) if finite.size else (0.0, 1.0)
    return _drawn(leaf, lambda draw, shape: mean + deviation * draw.normal(size=shape))


def _drawn(leaf: Any, draw: Callable[[Any, Any], Any]) -> Any:
    if leaf.dtype.kind != "f" or not leaf[np.isfinite(leaf)].any():
        return leaf  # nothing was measured here: zeros, class numbers
    made = draw(np.random.default_rng(0), leaf.shape)
    return np.where(np.isfinite(leaf), made, leaf).astype(leaf.dtype)
