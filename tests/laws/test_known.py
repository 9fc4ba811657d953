"""What is a fault, what warns, and what is as it should be: padding in the loss, masks taken for nothing, noise."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

from fixtures.padding.zoo import FEATURES, STEPS, masks, values
from tsguard import laws
from tsguard.padding import Padding

TOLD = Padding({"values": 1}, mask="mask")


def broken(model, x, y=None, padding=None, **options):
    results = laws.run(model, {"x": x, "y": y}, padding, **options)
    assert not [row.reason for row in results if row.outcome == "crashed"]
    return {row.code: row.counterexample.grave for row in results if row.counterexample}


# ---------------------------------------------------------------------- the loss


def zeroing():
    """A model that sets its own predictions to zero at padded steps."""
    x, m = keras.Input((None, FEATURES), name="values"), keras.Input((None,), name="mask")
    h = layers.LSTM(4, return_sequences=True)(ops.where(m[..., None] > 0, x, 0.0), mask=ops.cast(m, "bool"))
    model = keras.Model({"values": x, "mask": m}, layers.Dense(1)(h) * m[..., None])
    model.compile("adam", "mse")
    return model


def targets(padded=0.0):
    y = np.random.default_rng(1).normal(size=(8, STEPS, 1))
    y[0, 0] = 0.0  # a valid zero, so that zero does not mean padding
    return np.where(masks()[..., None] > 0, y, padded)


LOSS = ("pad-leak-loss", "pad-length")


def test_constant_predictions_on_constant_targets_only_dilute_the_loss():
    found = broken(zeroing(), {"values": values(), "mask": masks()}, targets(), TOLD, only=LOSS)
    assert found == {"pad-leak-loss": False, "pad-length": False}


def test_constant_predictions_do_not_excuse_targets_that_vary_in_the_padding():
    garbage = np.random.default_rng(2).normal(size=(8, STEPS, 1))
    found = broken(zeroing(), {"values": values(), "mask": masks()}, targets(garbage), TOLD, only=LOSS)
    assert found["pad-leak-loss"]


def test_predictions_that_depend_on_weights_are_no_constant():
    x, m = keras.Input((None, FEATURES), name="values"), keras.Input((None,), name="mask")
    # A rectifier that is shut at padded steps with these weights, and not with others.
    out = layers.Dense(1, activation="relu", bias_initializer=keras.initializers.Constant(-0.1))
    model = keras.Model({"values": x, "mask": m}, out(ops.where(m[..., None] > 0, x, 0.0)))
    model.compile("adam", "mse")
    found = broken(model, {"values": values(), "mask": masks()}, targets(), TOLD, only=LOSS)
    assert found["pad-leak-loss"]


def test_a_sum_over_valid_steps_divided_by_all_positions_warns_of_its_scale():
    class Diluted(keras.Model):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return ops.mean(ops.square(y - y_pred)[..., 0] * x["mask"])

    x, m = keras.Input((None, FEATURES), name="values"), keras.Input((None,), name="mask")
    model = Diluted({"values": x, "mask": m}, layers.Dense(1)(ops.where(m[..., None] > 0, x, 0.0)))
    model.compile("adam")
    found = broken(model, {"values": values(), "mask": masks()}, targets(3.0), TOLD, only=LOSS)
    assert found == {"pad-length": False}


# ---------------------------------------------------------------------- masks that are taken for nothing


def fixed_mean(*, use_bias):
    x = keras.Input((STEPS, FEATURES), name="values")
    h = layers.Dense(5, use_bias=use_bias)(layers.Masking(0.0)(x))
    mean = layers.Lambda(lambda z: ops.mean(z, axis=1), output_shape=(5,), name="mean")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*destroy the mask.*")  # it is meant to
        model = keras.Model(x, layers.Dense(1)(mean(h)))
    model.compile("adam", "mse")
    return model


def test_a_mask_that_is_taken_and_not_used_is_found_where_nothing_can_be_lengthened():
    assert broken(fixed_mean(use_bias=True), values(), np.zeros((8, 1))) == {"mask-dropped": True}


def test_where_padded_steps_are_exact_zeros_a_sum_over_them_is_right_and_only_warned_of():
    assert broken(fixed_mean(use_bias=False), values(), np.zeros((8, 1))) == {"mask-dropped": False}


# ---------------------------------------------------------------------- noise of training


class OwnNoise(layers.Layer):
    """Noise by whatever generator comes to hand."""

    def __init__(self, draw, **kwargs):
        super().__init__(**kwargs)
        self.draw = draw

    def call(self, x, training=False):
        return x + self.draw(x) if training else x


def of_torch(x):
    import torch

    return torch.randn(tuple(x.shape))


def of_numpy(x):
    return ops.convert_to_tensor(np.random.normal(size=tuple(x.shape)).astype("float32"))


def of_keras(x):
    return keras.random.normal(ops.shape(x))


AUGMENTING = {
    "RandomFlip": lambda: layers.RandomFlip("horizontal", seed=1),
    "RandomContrast": lambda: layers.RandomContrast(0.3),
    "GaussianNoise": lambda: layers.GaussianNoise(0.2),
    "of keras": lambda: OwnNoise(of_keras),
    "of torch": lambda: OwnNoise(of_torch),
    "of numpy": lambda: OwnNoise(of_numpy),
}


@pytest.mark.parametrize("name", AUGMENTING)
def test_what_draws_in_training_by_design_is_no_gap(name):
    model = keras.Sequential([keras.Input((4, 4, 3)), AUGMENTING[name](), layers.Flatten(), layers.Dense(1)])
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype("float32")
    assert broken(model, x, only=["train-eval-gap"], profile="explore") == {}


class Doubling(layers.Layer):
    def call(self, x, training=False):
        return x * 2.0 if training else x


@pytest.mark.parametrize("name", AUGMENTING)
def test_a_gap_behind_noise_is_found(name):
    model = keras.Sequential(
        [keras.Input((4, 4, 3)), AUGMENTING[name](), Doubling(name="twice"), layers.Flatten(), layers.Dense(1)]
    )
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype("float32")
    [result] = laws.run(model, {"x": x}, only=["train-eval-gap"])
    assert result.counterexample.layer.endswith("twice")


def test_a_model_that_draws_in_its_own_call_cannot_be_compared_and_says_so():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.head = layers.Dense(1)

        def call(self, x, training=False):
            return self.head(x + keras.random.normal(ops.shape(x)) if training else x)

    [result] = laws.run(Own(), {"x": np.ones((4, 3), "float32")}, only=["train-eval-gap"])
    assert result.outcome == "not-applicable"
    assert "own call draws" in result.reason
