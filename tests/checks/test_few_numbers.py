"""An answer that depends on fewer numbers than its targets are made of, and narrow codes that hold what there is."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from tsguard.checks.narrow import few_numbers
from tsguard.checks.registry import Context
from tsguard.dataset import Data
from tsguard.subject import Subject


def rows_of(kinds, columns, seed=0, noise=0.1):
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(kinds, columns)) / np.sqrt(kinds)
    return (rng.normal(size=(400, kinds)) @ mixing + noise * rng.normal(size=(400, columns))).astype("float32")


def coder(columns, code, activation):
    keras.utils.set_random_seed(0)
    body = [layers.Dense(24, activation=activation), layers.Dense(code, activation=activation)]
    model = keras.Sequential(
        [keras.Input((columns,)), *body, layers.Dense(24, activation="tanh"), layers.Dense(columns)]
    )
    model.compile("adam", "mse")
    return model


def found(model, x, y):
    data = Data(x, y)
    return list(few_numbers(Context(subject=Subject.from_model(model, data), data=data)))


@pytest.mark.parametrize("activation", [None, "elu", "relu"])
def test_a_code_of_one_unit_for_six_kinds_is_named(activation):
    x = rows_of(6, 20)
    (one,) = found(coder(20, 1, activation), x, x)
    assert one.code == "under-capacity"
    assert "1 number," in one.message
    assert not found(coder(20, 6, activation), x, x)


def test_a_narrow_code_of_what_has_few_kinds_is_left_alone():
    x = rows_of(2, 20)
    assert not found(coder(20, 2, "elu"), x, x)


def test_what_is_mostly_noise_needs_no_wide_code():
    x = rows_of(2, 20, noise=2.0)
    assert not found(coder(20, 2, "elu"), x, x)


@pytest.mark.parametrize(("units", "codes"), [(1, ["under-capacity"]), (16, [])])
def test_steps_ahead_through_a_recurrent_layer(units, codes):
    y = rows_of(5, 24, seed=2)
    x = np.repeat(y[:, :12, None], 2, axis=2)
    keras.utils.set_random_seed(0)
    given = keras.Input((12, 2))
    model = keras.Model(given, layers.Reshape((12, 2))(layers.Dense(24)(layers.GRU(units)(given))))
    model.compile("adam", "mse")
    assert [one.code for one in found(model, x, y.reshape(-1, 12, 2))] == codes
