"""Rows of a loader as arrays, and the rows that `validation_split` holds back as a part of their own: checks of the
data can ask of them what they ask of arrays that were handed over so.

Only what can be read again is read: something with a length, by its index or from its beginning. Its generators and
attributes are put back, so that the run gets what it would have got.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tsguard.backend import restore_rng, rng_state
from tsguard.checks.registry import Context
from tsguard.dataset import Data, Once, held_out, joined, leaves, length_of, map_leaves, unpack
from tsguard.probes.generators import held_by, put_back

MOST_ROWS = 2_048
"""Rows read: scale, labels and pairs are known from a few hundred."""

MOST_BATCHES = 64
"""Batches read, spread over the loader."""

SECONDS = 3.0
"""Longest that reading may take: a loader that is slower is left alone."""

SPLIT = "data.split off"
"""Where the facts keep the parts that `validation_split` makes."""

OF_VALUES = frozenset({"values that are not finite", "values out of scale", "a dtype that loses the information"})
"""Checks whose answer is about each value: one batch shows what all of them would."""

LEAST_ROWS = 16
"""Rows of a batch from which spreads are known."""

FIRST = "data.first batch"
FACT = "data.gathered"
LOADER = "data.loader"
STANDING = "data.standing"
"""Where the facts keep what was read, what the arrays were read from, and its rows as they stand."""

MOST_STANDING = 20_000
"""Rows of a data set that are read one by one: an order is a matter of all of them."""


def gathered(context: Context, *, clock: Callable[[], float] = time.monotonic) -> Context:
    """The same context over arrays read from its loader; the context itself where nothing can be read so."""
    data = context.data
    if data is None or data.is_arrays:
        return context
    if FACT not in context.facts:
        _ = context.model  # one model for both
        made = _rows_of(data.x, clock)
        context.facts[FACT] = None
        if made is not None:
            x, y, weight, size = made
            held = data.validation
            if held is not None and not isinstance(held, tuple | list):
                read = _rows_of(held, clock)
                held = None if read is None else read[:2]
            arrays = Data(x, y, weight, validation=held, names=data.names, batch_size=size)
            if arrays.is_arrays:
                context.facts[FACT] = _over(context, arrays)
                context.facts[FACT].facts[LOADER] = data.x
    found: Context | None = context.facts[FACT]
    return context if found is None else found


def first_batch(context: Context) -> Context:
    """The same context over the first batch of a generator, which is all that may be read of it."""
    data = context.data
    if data is None or not isinstance(data.x, Once):
        return context
    if FIRST not in context.facts:
        _ = context.model
        context.facts[FIRST] = context
        try:
            for part in map(_unpacked, data.x):
                if len(next(leaves(part[0]), ())) >= LEAST_ROWS:
                    context.facts[FIRST] = _over(context, Data(*part, names=data.names))
        except Exception:  # a batch that cannot be read says so in the step
            return context
    found: Context = context.facts[FIRST]
    return found


def split_off(context: Context) -> Context:
    """The same context over the parts that `validation_split` makes of its rows, where it makes any."""
    data = context.data
    share = context.fit.get("validation_split")
    if data is None or not data.is_arrays or data.validation is not None or not share:
        return context
    if SPLIT not in context.facts:
        _ = context.model
        context.facts[SPLIT] = _over(context, held_out(data, float(share)))
    found: Context = context.facts[SPLIT]
    return found


def _over(context: Context, data: Data) -> Context:
    """The same context over other data, of which nothing is known yet."""
    kept = {key: value for key, value in context.facts.items() if not key.startswith("data.")}
    return dataclasses.replace(context, data=data, facts=kept)


def as_they_stand(context: Context, *, clock: Callable[[], float] = time.monotonic) -> Context:
    """The same context over all rows in the order in which they are kept: its own, or those of the data set behind its
    loader, which deals them out in an order of its own."""
    loader = context.facts.get(LOADER)
    if loader is None:
        return context
    if STANDING not in context.facts:
        kept = _standing(loader, clock)
        context.facts[STANDING] = context if kept is None else _over(context, kept)
    found: Context = context.facts[STANDING]
    return found


def _standing(loader: Any, clock: Callable[[], float]) -> Data | None:
    kept: Any = getattr(loader, "dataset", None)
    together = getattr(loader, "collate_fn", None)
    if together is None or not hasattr(kept, "__getitem__") or not hasattr(kept, "__len__"):
        return None
    deadline = clock() + SECONDS
    rows: list[Any] = []
    try:
        with left_alone(loader):
            for place in range(len(kept)):
                if place >= MOST_STANDING or clock() > deadline:
                    return None
                rows.append(kept[place])
            x, y, weight = _unpacked(together(rows))
    except Exception:  # rows that fail alone say so in a batch; nothing can be told of their order here
        return None
    return Data(x, y, weight)


def _rows_of(loader: Any, clock: Callable[[], float]) -> tuple[Any, Any, Any, int] | None:
    """(x, y, weights, rows of a batch) of batches spread over a loader; None where it cannot be read again."""
    if not hasattr(loader, "__len__") or length_of(loader) == 0:
        return None
    deadline = clock() + SECONDS
    parts: list[tuple[Any, Any, Any]] = []
    rows = 0
    try:
        with left_alone(loader):
            for raw in _batches(loader):
                part = _unpacked(raw)
                parts.append(part)
                rows += len(next(leaves(part[0])))
                if rows >= MOST_ROWS or clock() > deadline:
                    break
    except Exception:  # a loader that fails says so in the step; nothing can be told of its data here
        return None
    if not parts:
        return None
    x, y, weight = (joined([part[place] for part in parts], np.concatenate) for place in range(3))
    return x, y, weight, len(next(leaves(parts[0][0])))


@contextlib.contextmanager
def left_alone(loader: Any) -> Iterator[None]:
    """Whatever is read inside, the loader's generators, its attributes and the global generators are put back."""
    rng, own = rng_state(), dict(vars(loader)) if hasattr(loader, "__dict__") else {}
    with put_back(held_by(loader)):
        try:
            yield
        finally:
            restore_rng(rng)
            if own:
                vars(loader).update(own)


def _batches(loader: Any) -> Iterator[Any]:
    """Batches spread over what has an index; the first ones of what can only be gone through, again and again."""
    if hasattr(loader, "__getitem__"):
        places = np.unique(np.linspace(0, len(loader) - 1, min(len(loader), MOST_BATCHES)).astype(int))
        yield from (loader[int(place)] for place in places)
    elif starts_anew(loader):
        yield from itertools.islice(iter(loader), MOST_BATCHES)


def starts_anew(loader: Any) -> bool:
    """Whether a loader can be gone through again and again, here and not by processes of its own."""
    once = isinstance(loader, Once) or hasattr(loader, "__next__")
    return hasattr(loader, "__iter__") and not once and not getattr(loader, "num_workers", 0)


def _unpacked(batch: Any) -> tuple[Any, Any, Any]:
    x, y, weight = unpack(batch)
    return tuple(map_leaves(_array, part) for part in (x, y, weight))


def _array(leaf: Any) -> Any:
    # A loader may hand out its own buffer again and again.
    return np.array(leaf.detach().cpu().numpy() if hasattr(leaf, "detach") else leaf)
