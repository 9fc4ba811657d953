"""A loader that deals its rows by a generator of its own deals them as if nobody had looked before."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import torch

import tsguard


def program():
    keras.utils.set_random_seed(3)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(240, 6)).astype("float32")
    y = (x[:, :1] - x[:, 1:2]).astype("float32")
    pairs = torch.utils.data.TensorDataset(torch.tensor(x), torch.tensor(y))
    sampler = torch.utils.data.WeightedRandomSampler(
        np.ones(240), 240, generator=torch.Generator().manual_seed(7)
    )  # a generator that stands two objects deep
    loader = torch.utils.data.DataLoader(pairs, batch_size=24, sampler=sampler)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.05), loss="mse")
    return model, loader


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed")
def test_checks_before_a_run_leave_the_order_of_its_batches_alone(tmp_path):
    plain, loader = program()
    plain.fit(loader, epochs=2, verbose=0)
    watched, loader = program()
    report = tsguard.fit(watched, loader, epochs=2, verbose=0, out=tmp_path, progress=lambda *_: None)
    assert report.timeline
    for one, other in zip(plain.get_weights(), watched.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
