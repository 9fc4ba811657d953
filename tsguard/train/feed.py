"""What the data itself remembers between epochs: the order that a PyDataset shuffles, a sampler's epoch, a generator.

Global generators decide the order of arrays; an iterable may keep its own. Plain attributes, small arrays and torch
generators of the object that `fit` draws from (and of its samplers) are taken when an epoch begins, and put back.
"""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
import torch

from tsguard.guard import fitcall

LARGEST = 1 << 20
"""Elements of an array that counts as an order; what is larger is the data itself, which the fingerprint looks at."""

_HOW_FAST = {"num_workers", "prefetch_factor", "timeout", "_workers", "_max_queue_size", "workers", "max_queue_size"}
"""Counts that decide how fast batches come and never which: a resumed run may choose others."""

_PARTS = ("", "sampler", "batch_sampler", "batch_sampler.sampler", "dataset")


def state(source: Any) -> dict[str, Any]:
    """Attributes by "part:name": plain values as they are, arrays and generators as tensors."""
    found: dict[str, Any] = {}
    for part, owner in _owners(source):
        for name, value in vars(owner).items():
            if isinstance(value, torch.Generator):
                found[f"{part}:{name}"] = value.get_state()
            elif isinstance(value, np.ndarray) and value.dtype.kind in "iu" and value.size <= LARGEST:
                found[f"{part}:{name}"] = torch.from_numpy(value.astype(np.int64))
            elif isinstance(value, np.random.Generator):
                found[f"{part}:{name}"] = _plain(value.bit_generator.state)
            elif type(value) is int and name not in _HOW_FAST:
                found[f"{part}:{name}"] = value
            elif isinstance(value, list) and len(value) <= LARGEST and all(type(item) is int for item in value):
                found[f"{part}:{name}"] = list(value)
    return found


def restore(source: Any, saved: Mapping[str, Any]) -> None:
    """Put back what differs; what has gone or changed its kind is left alone."""
    for part, owner in _owners(source):
        for name, value in list(vars(owner).items()):
            key = f"{part}:{name}"
            if key not in saved:
                continue
            old = saved[key]
            if isinstance(value, torch.Generator):
                value.set_state(old)
            elif isinstance(value, np.random.Generator):
                value.bit_generator.state = old
            elif isinstance(value, np.ndarray):
                if value.shape == tuple(old.shape) and not np.array_equal(value, old.numpy()):
                    value[...] = old.numpy()
            elif isinstance(value, list):
                value[:] = old
            elif value != old:
                vars(owner)[name] = old


class Afresh(keras.callbacks.Callback):
    """Lets the first epoch of a `fit` begin with its own batches.

    To build a model Keras draws a batch, and what the workers of a PyDataset had fetched beyond it comes first in the
    epoch that follows: how much that is hangs on the threads, so no run with workers could be made twice.
    """

    def on_train_begin(self, logs: Any = None) -> None:
        """The workers stand still here."""
        enqueuer = getattr(fitcall.reading(self.model).adapter, "enqueuer", None)
        ready = getattr(enqueuer, "ready_queue", None)
        if enqueuer is None or ready is None or enqueuer.is_running():
            return
        with contextlib.suppress(queue.Empty):
            while True:
                ready.get(block=False)


def _owners(source: Any) -> Iterator[tuple[str, Any]]:
    """The object that batches come from, and the parts of a torch DataLoader that decide about their order."""
    seen: set[int] = set()
    for part in _PARTS:
        owner = source
        for name in part.split(".") if part else ():
            owner = getattr(owner, name, None)
        if hasattr(owner, "__dict__") and id(owner) not in seen and not isinstance(owner, np.ndarray | torch.Tensor):
            seen.add(id(owner))
            yield part, owner


def _plain(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {str(key): _plain(value) for key, value in tree.items()}
    return tree.tolist() if isinstance(tree, np.ndarray) else tree
