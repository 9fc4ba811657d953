"""Parts scaled each by itself, and parts scaled by what the training part said."""

from __future__ import annotations

import numpy as np
import pytest

from tsguard.checks.data_fitted_apart import fitted_apart
from tsguard.checks.registry import Context
from tsguard.dataset import Data


def named(train, held):
    y, z = (np.zeros((len(part), 1), "float32") for part in (train, held))
    data = Data(train.astype("float32"), y, validation=(held.astype("float32"), z))
    return [(f.code, str(f.status)) for f in fitted_apart(Context(data=data))]


def parts():
    rng = np.random.default_rng(0)
    offset = np.array([[0, 5, 50, 500], [1, 4, 60, 480]])
    return rng.gamma(2.0, 3.0, (400, 4)) + offset[0], rng.gamma(2.0, 3.0, (80, 4)) + offset[1]


def windows(line, width=12):
    return np.stack([line[i : i + width] for i in range(len(line) - width)])[..., None]


@pytest.mark.parametrize("scale", ["moments", "range"])
def test_a_scaler_fitted_on_each_part_is_named_and_one_fitted_on_training_is_not(scale):
    def fitted(part):
        if scale == "moments":
            return lambda x: (x - part.mean(0)) / part.std(0)
        return lambda x: (x - part.min(0)) / (part.max(0) - part.min(0))

    train, held = parts()
    assert named(fitted(train)(train), fitted(held)(held)) == [("data-drift", "WARN")]
    assert not named(fitted(train)(train), fitted(train)(held))


def test_windows_of_series_that_were_scaled_apart_are_named():
    rng = np.random.default_rng(1)
    year, summer = (np.sin(np.arange(n) / 58) * 3 + rng.normal(size=n) for n in (1400, 90))
    ours, theirs = windows(year), windows(summer)

    def stretch(x, low, high):
        return (x - low) / (high - low)

    apart = stretch(theirs, theirs.min(), theirs.max())
    assert named(stretch(ours, ours.min(), ours.max()), apart) == [("data-drift", "WARN")]
    assert not named(stretch(ours, ours.min(), ours.max()), stretch(theirs, ours.min(), ours.max()))


def test_bounds_of_the_world_are_no_scaler():
    rng = np.random.default_rng(2)
    hour = rng.integers(0, 96, (500, 2)) * 2 * np.pi / 96
    assert not named(np.sin(hour[:400]), np.sin(hour[400:]))
    shares = np.clip(rng.normal(0.5, 0.5, (500, 3)), 0, 1)
    assert not named(shares[:400], shares[400:])


def test_windows_in_units_of_their_own_are_no_scaler_of_a_part():
    rng = np.random.default_rng(3)
    line = np.cumsum(rng.normal(size=700))
    cut = windows(line, width=24)
    alone = (cut - cut.mean(1, keepdims=True)) / cut.std(1, keepdims=True)
    assert not named(alone[:500], alone[500:])
