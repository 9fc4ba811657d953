"""Several data sets in one batch: each set's windows padded to a common width, each sample with its set's number.

Which set and which window a draw takes is the MixedSampler's plan; this module only fetches and unites.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tsguard.data.padding import Padded
from tsguard.data.sampling import MixedSampler
from tsguard.data.windows import Windows
from tsguard.errors import DataError


@dataclass(frozen=True)
class Mixture:
    """Named sets of windows, of different widths and lengths, mixed by a sampler."""

    sets: Sequence[Windows]
    names: Sequence[str]
    sampler: MixedSampler
    pad_value: float = 0.0

    @classmethod
    def of(
        cls,
        sets: dict[str, Windows],
        *,
        batch_size: int,
        by: str = "set",
        temperature: float | None = None,
        seed: int = 0,
        num_steps: int | None = None,
        pad_value: float = 0.0,
    ) -> Mixture:
        """A mixture by set, by size, or by temperature."""
        empty = [name for name, windows in sets.items() if len(windows) == 0]
        if empty:
            raise DataError(
                f"mixing: received no windows in {empty}. Expected one or more in each. Shorten the windows."
            )
        sizes = [len(windows) for windows in sets.values()]
        sampler = MixedSampler(sizes, batch_size, by, temperature, seed, num_steps)
        return cls(tuple(sets.values()), tuple(sets), sampler, pad_value)

    def __len__(self) -> int:
        return len(self.sampler)

    def batch(self, epoch: int, step: int) -> Padded:
        """The inputs of one step; `origin` holds the number of each sample's set in `names`."""
        which, samples = self.sampler.batch(epoch, step)
        width = max(windows.values.shape[1] for windows in self.sets)
        length = max(windows.length for windows in self.sets)
        values = np.full((len(which), length, width), self.pad_value, np.float32)
        mask = np.zeros((len(which), length), bool)
        features = np.zeros((len(which), width), bool)
        for number, windows in enumerate(self.sets):
            places = np.flatnonzero(which == number)
            if not len(places):
                continue
            taken = windows.take(samples[places])
            steps = slice(length - windows.length, length) if windows.side == "left" else slice(0, windows.length)
            own = windows.values.shape[1]
            values[places, steps, :own] = np.where(taken.mask[..., None], taken.x, self.pad_value)
            mask[places, steps] = taken.mask
            features[places, :own] = True
        return Padded(values, mask, features, mask.sum(axis=1), None, which)
