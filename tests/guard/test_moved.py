"""How far one update moved the weights, and which weights no update ever moved."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import torch

from tsguard.guard import moved
from tsguard.guard.packed import PACKED_MAX
from tsguard.guard.state import StateBuffer


def _model(units: int) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(units), keras.layers.Dense(5), keras.layers.Dense(1)]
    )
    model.compile(keras.optimizers.SGD(0.01), "mse")
    model.layers[1].trainable = False
    return model


@pytest.mark.parametrize("units", [4, PACKED_MAX], ids=["side by side", "large ones alone"])
@pytest.mark.parametrize("part", [slice(None), slice(1, None)], ids=["all of them", "those of one optimizer"])
def test_the_norms_are_those_of_what_an_optimizer_trains(units: int, part: slice) -> None:
    model = _model(units)
    state = StateBuffer(model)
    state.capture()
    trained = model.trainable_variables[part]
    before = [variable.value.detach().clone().double() for variable in trained]
    model.train_on_batch(np.ones((4, 8), "float32"), np.ones((4, 1), "float32"))
    steps = [v.value.detach().double() - b for v, b in zip(trained, before, strict=True)]
    size = float(torch.cat([b.flatten() for b in before]).norm())
    told = moved.sizes(state, trained)
    assert told["weight_norm"] == pytest.approx(size, rel=1e-5)
    assert told["update_ratio"] == pytest.approx(float(torch.cat([s.flatten() for s in steps]).norm()) / size, rel=1e-4)


@pytest.mark.parametrize("units", [4, 1000])
def test_the_one_weight_that_never_moved_is_told(units: int) -> None:
    model = _model(units)
    first = moved.FirstBits(model.trainable_variables)
    assert len(first.unmoved()) == 4
    kernel = model.layers[0].kernel.value
    model.layers[0].bias.value.data[0] += 1e-6
    model.layers[2].kernel.value.data[2] *= 1.0001
    model.layers[2].bias.value.data += 1.0
    assert first.unmoved() == [model.layers[0].kernel.path]
    kernel.data[1, -1] += 1e-4
    assert first.unmoved() == []
