"""Loaders whose batches cannot be had again, and those that only look so."""

import keras
import numpy as np
import pytest

from tsguard.checks.registry import Context
from tsguard.checks.repeatable import unrepeatable_batch
from tsguard.dataset import Data


class Loader(keras.utils.PyDataset):
    def __init__(self, draw):
        super().__init__()
        self.draw = draw

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return self.draw((8, 3)).astype("float32"), np.zeros((8, 1), "float32")


def found(draw):
    return list(unrepeatable_batch(Context(data=Data(Loader(draw)))))


def held(generator):
    return lambda shape: generator.normal(size=shape)


@pytest.mark.parametrize(
    "draw",
    [held(np.random.default_rng()), lambda shape: np.random.default_rng().normal(size=shape)],
    ids=["kept", "made anew"],
)
def test_a_generator_without_a_seed_is_named(draw):
    assert [f.code for f in found(draw)] == ["nondeterministic"]


@pytest.mark.parametrize(
    "draw",
    [held(np.random.default_rng(3)), held(np.random.RandomState(3)), lambda shape: np.random.normal(size=shape)],
    ids=["seeded", "old style", "global"],
)
def test_generators_that_a_seed_reaches_are_left_alone(draw):
    assert not found(draw)


def test_looking_moves_no_generator():
    generator = np.random.default_rng(3)
    before = generator.bit_generator.state
    found(held(generator))
    assert generator.bit_generator.state == before
