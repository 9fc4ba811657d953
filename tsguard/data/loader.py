"""Batches for `model.fit`: a torch DataLoader or a Keras PyDataset over windows; the seed alone decides the steps.

A whole batch is cut at once (`Windows.take`), never item by item. Workers are chosen by the machine: data in memory
needs none, because handing a batch between processes costs more than cutting it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tsguard.data.sampling import EpochBatches, StepSampler
from tsguard.data.windows import Batch, Windows

MAX_WORKERS = 8
"""More loader processes than this wait for memory bandwidth rather than for each other."""

Transform = Callable[[Batch], Any]


def workers_for_machine(*, in_memory: bool, cpus: int | None = None) -> int:
    """Loader processes for this machine: none for data in memory or on two cores, otherwise one core is left free."""
    available = cpus if cpus is not None else len(os.sched_getaffinity(0))
    if in_memory or available <= 2:
        return 0
    return min(available - 1, MAX_WORKERS)


def as_pair(batch: Batch) -> tuple[Any, Any]:
    """(x, y): what most models take."""
    return batch.x, batch.y


def as_inputs(batch: Batch) -> tuple[dict[str, Any], Any]:
    """A dict of inputs with values, mask and, where there is time, `delta`: for models that take them by name."""
    inputs = {"values": batch.x, "mask": batch.mask}
    if batch.delta is not None:
        inputs["delta"] = batch.delta
    return inputs, batch.y


def torch_loader(
    windows: Windows,
    *,
    batch_size: int = 32,
    seed: int = 0,
    shuffle: bool = True,
    drop_last: bool = False,
    epoch: int = 0,
    start: int = 0,
    workers: int | str = "auto",
    transform: Transform | None = None,
) -> Any:
    """A torch DataLoader for `fit(…, shuffle=False)`; it moves on by one epoch when all its batches were delivered.

    `epoch` and `start` begin at step `start` of that epoch, which is how a run is resumed. Batches are pinned and
    workers persist where there is a GPU. `transform` makes of a Batch what the model takes (default: `(x, y)`).
    """
    import torch

    class Cut(torch.utils.data.Dataset):
        """Cuts a whole batch at once when torch asks for a list of items."""

        def __len__(self) -> int:
            return len(windows)

        def __getitem__(self, index: int) -> Any:
            return self.__getitems__([index])

        def __getitems__(self, indices: Any) -> Any:
            made = (transform or as_pair)(windows.take(indices))
            return _map(made, lambda array: torch.from_numpy(np.ascontiguousarray(array)))

    class SeededLoader(torch.utils.data.DataLoader):
        """A DataLoader whose sampler moves to the next epoch when the last batch of this one has been handed out."""

        def __iter__(self) -> Iterator[Any]:
            left = len(self.batch_sampler)
            # in this process a batch is cut where it is asked for; torch's iterator would only add its own book-keeping
            here = self.num_workers == 0 and not self.pin_memory
            batches = map(self.dataset.__getitems__, self.batch_sampler) if here else super().__iter__()
            for batch in batches:
                left -= 1
                if left == 0:
                    self.batch_sampler.advance()
                yield batch

    sampler = StepSampler(len(windows), batch_size, seed=seed, shuffle=shuffle, drop_last=drop_last)
    heavy = transform is not None
    count = workers_for_machine(in_memory=not heavy) if workers == "auto" else int(workers)
    return SeededLoader(
        Cut(),
        batch_sampler=EpochBatches(sampler, epoch=epoch, start=start),
        collate_fn=_as_is,
        num_workers=count,
        persistent_workers=count > 0,
        pin_memory=torch.cuda.is_available(),
        multiprocessing_context="fork" if count > 0 else None,  # the array is shared, not pickled
    )


def keras_dataset(
    windows: Windows,
    *,
    batch_size: int = 32,
    seed: int = 0,
    shuffle: bool = True,
    drop_last: bool = False,
    epoch: int = 0,
    workers: int | str = "auto",
    transform: Transform | None = None,
) -> Any:
    """A keras PyDataset. Call `fit(…, shuffle=False)`: the seed has the order, and `fit` would stir the steps."""
    import keras

    sampler = StepSampler(len(windows), batch_size, seed=seed, shuffle=shuffle, drop_last=drop_last)
    count = workers_for_machine(in_memory=transform is None) if workers == "auto" else int(workers)

    class SeededBatches(keras.utils.PyDataset):
        """Item k is step k of the epoch at hand."""

        def __init__(self) -> None:
            super().__init__(workers=max(1, count), use_multiprocessing=False)
            self.epoch = epoch
            self.asked_last = False

        @property
        def num_batches(self) -> int:
            return len(sampler)

        def __getitem__(self, step: int) -> Any:
            self.asked_last = self.asked_last or step == len(sampler) - 1
            return (transform or as_pair)(windows.take(sampler.batch(self.epoch, step)))

        def on_epoch_begin(self) -> None:
            self.asked_last = False

        def on_epoch_end(self) -> None:
            # before the first epoch Keras takes a look at one batch and then calls this too: that was no epoch
            self.epoch += int(self.asked_last)
            self.asked_last = False

    return SeededBatches()


def _as_is(batch: Any) -> Any:
    return batch


def _map(made: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(made, dict):
        return {key: _map(value, change) for key, value in made.items()}
    if isinstance(made, (tuple, list)):
        return tuple(_map(value, change) for value in made)
    return change(made)


@dataclass
class WaitMeter:
    """How long the consumer of an iterable waited for it: a loader that stalls is measured, not guessed."""

    clock: Callable[[], float] = time.perf_counter
    waited_s: float = 0.0
    total_s: float = 0.0
    batches: int = 0

    @property
    def share(self) -> float:
        """Share of the time that was spent waiting for data; 0 before the first batch."""
        return self.waited_s / self.total_s if self.total_s > 0 else 0.0

    def watch(self, batches: Iterable[Any]) -> Iterator[Any]:
        """The same batches, with the time between asking and getting counted."""
        iterator = iter(batches)
        begun = self.clock()
        while True:
            asked = self.clock()
            try:
                batch = next(iterator)
            except StopIteration:
                self.total_s += self.clock() - begun
                return
            got = self.clock()
            self.waited_s += got - asked
            self.batches += 1
            yield batch
            now = self.clock()
            self.total_s += now - begun
            begun = now
