"""Loaders that hand out one class after another, and those that mix them."""

import keras
import numpy as np
import pytest
import torch

from tsguard.checks.order import batches_of_one_class
from tsguard.checks.registry import Context
from tsguard.dataset import Data


class Loader(keras.utils.PyDataset):
    def __init__(self, labels):
        super().__init__()
        self.labels = labels

    def __len__(self):
        return len(self.labels) // 10

    def __getitem__(self, index):
        rows = slice(10 * index, 10 * index + 10)
        return np.zeros((10, 2), "float32"), self.labels[rows]


def found(labels):
    return [f.code for f in batches_of_one_class(Context(data=Data(Loader(labels))))]


def test_one_class_after_another_is_named():
    assert found(np.repeat([0, 1, 2], 50)) == ["data-order"]


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_data_loader_is_asked_and_left_as_it_was(shuffle):
    rows = torch.utils.data.TensorDataset(torch.zeros(300, 2), torch.arange(6).repeat_interleave(50))
    loader = torch.utils.data.DataLoader(rows, batch_size=10, shuffle=shuffle)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    told = [f.code for f in batches_of_one_class(Context(data=Data(loader)))]
    assert told == ([] if shuffle else ["data-order"])
    assert torch.equal(torch.get_rng_state(), before)


def test_mixed_classes_and_numbers_are_left_alone():
    rng = np.random.default_rng(0)
    assert not found(rng.integers(0, 3, 150))
    assert not found(np.sort(rng.normal(size=150)))
    assert not found(np.zeros(150, int))
