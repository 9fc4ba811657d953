"""torch and jax give the same, and where Keras does not, the first layer that differs is named."""

from __future__ import annotations

import importlib.util

import keras
import numpy as np
import pytest
from keras import layers, ops

from fixtures.padding.zoo import masks, values
from tsguard import laws
from tsguard.padding import Padding

needs_jax = pytest.mark.skipif(
    importlib.util.find_spec("jax") is None, reason="NOT_RUN: jax is not installed (pip install 'tsguard[jax]')"
)


def agreement(model, x, padding=None):
    [result] = laws.run(model, {"x": x}, padding, only=["backend-mismatch"])
    return result


@needs_jax
@pytest.mark.slow
def test_recurrence_and_attention_agree_under_jax():
    x, m = keras.Input((None, 3), name="values"), keras.Input((None,), name="mask")
    h = layers.LSTM(6, return_sequences=True, name="lstm")(ops.where(m[..., None] > 0, x, 0.0))
    keys = ops.cast(m, "bool")[:, None, :]
    h = layers.MultiHeadAttention(2, 4, name="mha")(h, h, attention_mask=keys)
    model = keras.Model({"values": x, "mask": m}, layers.Dense(1, name="head")(layers.LayerNormalization()(h)))
    result = agreement(model, {"values": values(), "mask": masks()}, Padding({"values": 1}, mask="mask"))
    assert result.outcome == "holds", result.reason


@needs_jax
@pytest.mark.slow
def test_the_first_layer_that_differs_under_jax_is_named():
    # Cubic interpolation is another kernel in either backend.
    x = keras.Input((8, 8, 3))
    h = layers.Resizing(5, 5, interpolation="bicubic", name="resize")(layers.Conv2D(4, 3, name="conv")(x))
    model = keras.Model(x, layers.Dense(1, name="head")(layers.Flatten()(h)))
    result = agreement(model, np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32"))
    assert result.outcome == "broken", result.reason
    assert result.counterexample.layer == "resize"


def test_a_layer_of_the_users_own_is_not_loaded_elsewhere(monkeypatch):
    class Own(layers.Layer):
        def call(self, x):
            return x * 2.0

    from tsguard.laws import halves

    monkeypatch.setattr(halves, "BACKENDS", ("torch",))
    model = keras.Sequential([keras.Input((4,)), Own(name="own"), layers.Dense(1)])
    result = agreement(model, np.ones((2, 4), "float32"))
    assert result.outcome == "not-applicable"
    assert "`own`" in result.reason
