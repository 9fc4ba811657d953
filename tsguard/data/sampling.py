"""Which samples make up step k of epoch e: a function of the seed alone, so that a run resumes and a step replays.

Nothing is remembered between steps: the plan of an epoch is made from (seed, epoch) alone, and a step is a slice of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tsguard.errors import DataError

Index = npt.NDArray[np.int64]


@dataclass(frozen=True)
class StepSampler:
    """Sample indices by epoch and step. The last, smaller batch is kept unless `drop_last` says otherwise."""

    num_items: int
    batch_size: int
    seed: int = 0
    shuffle: bool = True
    drop_last: bool = False
    _kept: dict[int, Index] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.num_items < 1 or self.batch_size < 1:
            received = f"{self.num_items} items in batches of {self.batch_size}"
            raise DataError(
                f"sampler: received {received}. Expected at least one of each. Mind split and window length."
            )
        if self.drop_last and self.num_items < self.batch_size:
            received = f"drop_last with {self.num_items} items in batches of {self.batch_size}"
            raise DataError(f"sampler: received {received}. Expected one full batch. Use a smaller batch.")

    def __len__(self) -> int:
        """Steps in an epoch."""
        whole, rest = divmod(self.num_items, self.batch_size)
        return whole + int(rest > 0 and not self.drop_last)

    def plan(self, epoch: int) -> Index:
        """The order of all samples in this epoch."""
        if not self.shuffle:
            return np.arange(self.num_items)
        if epoch not in self._kept:
            self._kept.clear()  # only the epoch at hand is kept
            self._kept[epoch] = np.random.default_rng([self.seed, epoch]).permutation(self.num_items)
        return self._kept[epoch]

    def batch(self, epoch: int, step: int) -> Index:
        """The samples of one step."""
        if not 0 <= step < len(self):
            raise DataError(f"sampler: received step {step}. Expected 0 … {len(self) - 1}. Count steps from 0.")
        return self.plan(epoch)[step * self.batch_size : (step + 1) * self.batch_size]


@dataclass(frozen=True)
class MixedSampler:
    """Balanced mixing of several data sets: which set, and which sample of it, by epoch and step.

    A set's share of the draws is sizeᵅ / Σ sizeᵅ with α = 1/temperature: temperature 1 mixes by size, infinity (or
    `by="set"`) gives every set the same share, in between is the usual compromise. Every set is walked through in
    permutations of its own, so that no sample comes twice before all have come once.
    """

    sizes: Sequence[int]
    batch_size: int
    by: str = "set"
    temperature: float | None = None
    seed: int = 0
    num_steps: int | None = None
    _kept: dict[int, tuple[Index, Index]] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.sizes or min(self.sizes) < 1:
            raise DataError(
                f"mixing: received sets of {list(self.sizes)} samples. Expected one sample or more in each."
            )
        if self.by not in ("set", "size"):
            raise DataError(f"mixing: received by={self.by!r}. Expected 'set' or 'size', or a temperature. Choose one.")
        if self.temperature is not None and not self.temperature > 0:
            raise DataError(f"mixing: received temperature={self.temperature}. Expected more than 0. 1 mixes by size.")

    @property
    def shares(self) -> npt.NDArray[np.float64]:
        """Each set's share of the draws."""
        if self.temperature is not None:
            power = 0.0 if np.isinf(self.temperature) else 1.0 / self.temperature
        else:
            power = 1.0 if self.by == "size" else 0.0
        logs = power * np.log(np.asarray(self.sizes, np.float64))
        weights = np.exp(logs - logs.max())
        return np.asarray(weights / weights.sum(), np.float64)

    def __len__(self) -> int:
        """Steps in an epoch; by default as many as all samples fill."""
        return self.num_steps if self.num_steps is not None else -(-sum(self.sizes) // self.batch_size)

    def plan(self, epoch: int) -> tuple[Index, Index]:
        """(set, sample in the set) for every draw of the epoch."""
        if epoch not in self._kept:
            self._kept.clear()
            self._kept[epoch] = self._draw(epoch)
        return self._kept[epoch]

    def _draw(self, epoch: int) -> tuple[Index, Index]:
        rng = np.random.default_rng([self.seed, epoch])
        draws = len(self) * self.batch_size
        quotas = _apportion(self.shares, draws)
        which = rng.permutation(np.repeat(np.arange(len(self.sizes)), quotas))
        sample = np.empty(draws, np.int64)
        for number, (size, quota) in enumerate(zip(self.sizes, quotas, strict=True)):
            rounds = -(-int(quota) // size)
            order = [
                np.random.default_rng([self.seed, epoch, number, turn]).permutation(size) for turn in range(rounds)
            ]
            sample[which == number] = np.concatenate([*order, np.zeros(0, np.int64)])[:quota]
        return which, sample

    def batch(self, epoch: int, step: int) -> tuple[Index, Index]:
        """(sets, samples) of one step."""
        if not 0 <= step < len(self):
            raise DataError(f"mixing: received step {step}. Expected 0 … {len(self) - 1}. Count steps from 0.")
        which, sample = self.plan(epoch)
        part = slice(step * self.batch_size, (step + 1) * self.batch_size)
        return which[part], sample[part]


def _apportion(shares: npt.NDArray[np.float64], total: int) -> Index:
    """Whole numbers with this sum, as near to the shares as can be (largest remainders)."""
    exact = shares * total
    whole = np.floor(exact).astype(np.int64)
    order = np.argsort(-(exact - whole), kind="stable")
    whole[order[: total - int(whole.sum())]] += 1
    return whole


class EpochBatches:
    """A torch `batch_sampler` over a StepSampler: yields the steps of the epoch at hand, from `start` on.

    `start` holds for the first epoch only: that is how a run resumes in the middle of one.
    """

    def __init__(self, sampler: StepSampler, *, epoch: int = 0, start: int = 0) -> None:
        self.sampler, self.epoch, self.start = sampler, epoch, start

    def __len__(self) -> int:
        return len(self.sampler) - self.start

    def __iter__(self) -> Iterator[Any]:
        epoch, start = self.epoch, self.start
        for step in range(start, len(self.sampler)):
            yield self.sampler.batch(epoch, step)

    def advance(self) -> None:
        """The epoch at hand has been delivered."""
        self.epoch, self.start = self.epoch + 1, 0
