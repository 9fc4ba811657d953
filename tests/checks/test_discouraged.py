"""A loss that charges more for a fair answer than for none, and the many that do not."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from tsguard.checks.discouraged import discouraged
from tsguard.checks.registry import Context
from tsguard.dataset import Data
from tsguard.subject import Subject


def pinball(y_true, y_pred):
    error = y_true - y_pred
    return ops.mean(ops.maximum(0.95 * error, -0.05 * error))


def symmetric(y_true, y_pred):
    return ops.mean(200 * ops.abs(y_true - y_pred) / (ops.abs(y_true) + ops.abs(y_pred) + 1e-7))


def found(loss, y):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(y.shape[1])])
    model.compile("adam", loss)
    data = Data(np.random.default_rng(1).normal(size=(len(y), 3)).astype("float32"), y)
    return list(discouraged(Context(subject=Subject.from_model(model, data), data=data)))


def around_zero(seed, columns=1):
    return np.random.default_rng(seed).normal(size=(800, columns)).astype("float32")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("columns", [1, 4])
def test_a_relative_error_of_targets_around_zero_is_named(seed, columns):
    (one,) = found("mape", around_zero(seed, columns))
    assert one.code == "loss-mismatch"
    assert "answer nothing" in one.message


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("loss", ["mse", "mae", "huber", "log_cosh", "cosine_similarity", pinball, symmetric])
def test_errors_in_the_targets_own_units_are_left_alone(loss, seed):
    assert not found(loss, around_zero(seed, 2))
    tails = np.random.default_rng(seed).standard_t(2, size=(800, 1)).astype("float32")
    if loss not in ("cosine_similarity", symmetric):
        assert not found(loss, tails)


@pytest.mark.parametrize("loss", ["mape", "msle"])
def test_a_relative_error_of_amounts_is_a_choice(loss):
    assert not found(loss, np.exp(around_zero(0)))
