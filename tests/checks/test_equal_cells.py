"""Units that start equal in recurrent layers, whose kernels hold those of several gates side by side."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from tsguard.checks.initialisation import symmetric_units
from tsguard.checks.registry import Context
from tsguard.dataset import Data
from tsguard.subject import Subject

CONSTANT = keras.initializers.Constant(0.1)


def codes(recurrent):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 6, 3)).astype("float32")
    data = Data(x, (x[:, -1, :1] > 0).astype("int32"))
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((6, 3)), recurrent, layers.Dense(2, activation="softmax")])
    model.layers[-1].kernel.assign(np.full(model.layers[-1].kernel.shape, 0.1))
    model.compile(keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy")
    context = Context(subject=Subject.from_model(model, data), data=data)
    return [(f.code, f.where["parameter"]) for f in symmetric_units(context)]


@pytest.mark.parametrize("kind", [layers.SimpleRNN, layers.GRU, layers.LSTM])
def test_units_equal_within_each_gate_are_named(kind):
    found = codes(kind(5, kernel_initializer=CONSTANT, recurrent_initializer=CONSTANT))
    assert [code for code, _ in found] == ["symmetric-init"]
    assert "cell/" in found[0][1]


@pytest.mark.parametrize("wrap", [layers.Bidirectional, layers.RNN])
def test_cells_within_wrappers_are_asked_too(wrap):
    same = {"kernel_initializer": CONSTANT, "recurrent_initializer": CONSTANT}
    inner = (
        layers.GRU(5, **same)
        if wrap is layers.Bidirectional
        else [layers.LSTMCell(5, **same), layers.GRUCell(4, **same)]
    )
    assert [code for code, _ in codes(wrap(inner))] == ["symmetric-init"]


def test_recurrence_or_a_single_unit_that_breaks_the_symmetry_is_left_alone():
    assert not codes(layers.LSTM(5))
    assert not codes(layers.LSTM(5, kernel_initializer=CONSTANT))  # drawn recurrent kernels tell the units apart
    assert not codes(layers.LSTM(1, kernel_initializer=CONSTANT, recurrent_initializer=CONSTANT))
