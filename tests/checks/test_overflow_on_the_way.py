"""Half precision that overflows within the first steps, and rates that no precision can bear."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, ops

from tsguard.checks.rates import first_steps
from tsguard.checks.registry import Context
from tsguard.dataset import Data
from tsguard.subject import Subject


@keras.saving.register_keras_serializable("tests.overflow")
class Attend(layers.Layer):
    """An own softmax: the exponential of scores that nothing holds down."""

    def __init__(self, *, held=False, **options):
        super().__init__(**options)
        self.held = held

    def build(self, shape):
        self.query = self.add_weight(shape=(shape[-1],), initializer="ones", name="query")

    def call(self, h):
        score = ops.sum(h * self.query, axis=-1)
        score = score - ops.max(score, axis=1, keepdims=True) if self.held else score
        worth = ops.exp(score)
        return ops.sum(h * (worth / ops.sum(worth, axis=1, keepdims=True))[..., None], axis=1)


def found(dtype, *, rate=0.01, held=False):
    keras.utils.set_random_seed(2)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 10, 4)).astype("float32")
    x[:, :, 3] += 2.0 * (np.arange(10) == rng.integers(0, 10, (600, 1)))
    y = x[np.arange(600), x[:, :, 3].argmax(1), :1]
    given = keras.Input((10, 4))
    h = Attend(held=held, dtype=dtype, name="attend")(layers.Dense(24)(given))
    model = keras.Model(given, layers.Dense(1)(layers.Dense(16, activation="relu")(h)))
    model.compile(keras.optimizers.Adam(rate), "mse")
    data = Data(x, y)
    context = Context(subject=Subject.from_model(model, data), data=data, facts={"fit": {"epochs": 5}}, budget_s=60)
    return [f for f in first_steps(context) if str(f.status) in ("WARN", "FAIL")]


def test_steps_that_only_half_precision_breaks_are_an_overflow_and_no_rate():
    causes = found("mixed_float16")
    assert [f.code for f in causes] == ["precision-overflow"]
    assert "attend" in causes[0].where["layer"]
    assert causes[0].proof.after.y


@pytest.mark.parametrize(("dtype", "held"), [("float32", False), ("mixed_float16", True)])
def test_the_same_model_that_stays_within_its_range_is_left_alone(dtype, held):
    assert not found(dtype, held=held)


def test_a_rate_that_float32_cannot_bear_either_is_a_rate():
    assert [f.code for f in found("mixed_float16", rate=30.0, held=True)] == ["lr-too-high"]
