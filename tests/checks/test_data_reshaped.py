"""Reshape layers in place of a transposition, and those that cut steps into parts or join them."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from tsguard.checks.data_reshaped import reshaped_inside
from tsguard.checks.registry import Context
from tsguard.dataset import Data
from tsguard.subject import Subject


def asked(model, x):
    data = Data(x.astype("float32"), x[:, 0, :1].astype("float32"))
    return list(reshaped_inside(Context(subject=Subject.from_model(model, data), data=data)))


def findings(x, *reshaping):
    keras.utils.set_random_seed(1)
    stack = [*reshaping, layers.Conv1D(4, 3, activation="relu"), layers.GlobalAveragePooling1D(), layers.Dense(1)]
    model = keras.Sequential([keras.Input(x.shape[1:]), *stack])
    model.compile("adam", "mse")
    return asked(model, x)


def named(x, *reshaping):
    found = findings(x, *reshaping)
    assert all(f.where["layer"] for f in found)
    return [(f.code, str(f.status)) for f in found]


def waves(channels=3, steps=30):
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 6.28, (400, channels, 1)) + rng.uniform(0.4, 0.8, (400, channels, 1)) * np.arange(steps)
    return np.sin(angle) + 0.25 * rng.normal(size=angle.shape)


def walks(channels=4, steps=24):
    return np.random.default_rng(0).normal(size=(400, channels, steps)).cumsum(axis=2)


@pytest.mark.parametrize("x", [waves(), walks(), walks(5, 32)], ids=["waves", "walks", "sizes that do not divide"])
def test_channels_by_time_that_are_reshaped_to_time_by_channels_are_named(x):
    sizes = x.shape[:0:-1]
    assert named(x, layers.Reshape(sizes)) == [("input-encoding", "FAIL")]
    assert named(x, layers.Rescaling(0.5), layers.Reshape((-1, sizes[1]))) == [("input-encoding", "FAIL")]
    assert not named(x, layers.Permute((2, 1)))


@pytest.mark.parametrize("alike", [0.0, 1.0], ids=["three quantities", "three probes of one"])
def test_days_of_hours_of_features_laid_out_hour_by_hour_are_left_alone(alike):
    rng = np.random.default_rng(3)
    hours = rng.normal(size=(400, 30, 3)).cumsum(axis=1) * (1 - alike) + 0.3 * rng.normal(size=(400, 30, 3))
    hours += alike * rng.normal(size=(400, 30, 1)).cumsum(axis=1)
    days = hours.reshape(400, 3, 30)
    assert not named(days, layers.Reshape((30, 3)))


def test_steps_joined_to_patches_and_numbers_without_a_course_are_left_alone():
    assert not named(walks().transpose(0, 2, 1), layers.Reshape((4, 24)))
    assert not named(np.random.default_rng(0).normal(size=(400, 3, 30)), layers.Reshape((30, 3)))
    assert not named(waves().reshape(400, 90, 1), layers.Reshape((30, 3)))


class Encoder(layers.Layer):
    """Exchanges the axes in its own call, by one of several ways."""

    def __init__(self, way, **kwargs):
        super().__init__(**kwargs)
        self.way = way

    def call(self, x):
        return self.way(x)


def by_ops(x):
    return keras.ops.reshape(x, (-1, x.shape[2], x.shape[1]))


def by_view(x):
    return x.view(x.shape[0], x.shape[2], x.shape[1])


def by_transposition(x):
    return keras.ops.transpose(x, (0, 2, 1))


@pytest.mark.parametrize("way", [by_ops, by_view], ids=["ops.reshape", "view"])
def test_a_reshape_in_the_call_of_an_own_layer_is_named_with_its_line(way):
    found = findings(waves(), Encoder(way, name="encoder"))
    assert [(f.code, str(f.status)) for f in found] == [("input-encoding", "FAIL")]
    where = found[0].where
    assert where["layer"].endswith("encoder")
    assert where["file"] == __file__
    assert where["line"] == way.__code__.co_firstlineno + 1
    assert not findings(waves(), Encoder(by_transposition))


def test_a_reshape_of_a_functional_graph_and_one_in_a_lambda_are_named():
    assert findings(waves(), layers.Lambda(by_ops, name="turned"))[0].where["layer"].endswith("turned")
    x = waves().astype("float32")
    inputs = keras.Input(x.shape[1:])
    seen = layers.GRU(4)(keras.ops.reshape(inputs, (-1, x.shape[2], x.shape[1])))
    model = keras.Model(inputs, layers.Dense(1)(seen))
    model.compile("adam", "mse")
    assert asked(model, x)[0].where["layer"].startswith("reshape")


def test_a_reshape_in_the_call_of_an_own_model_is_told_by_its_line():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.gru, self.head = layers.GRU(4), layers.Dense(1)

        def call(self, x):
            return self.head(self.gru(by_ops(x)))

    model = Own()
    model.compile("adam", "mse")
    (found,) = asked(model, waves().astype("float32"))
    assert "layer" not in found.where
    assert found.where["line"] == by_ops.__code__.co_firstlineno + 1


def test_what_layers_of_keras_reshape_inside_is_no_reshape_of_the_users():
    x = waves(30, 8).astype("float32")
    inputs = keras.Input(x.shape[1:])
    seen = layers.MultiHeadAttention(2, 4)(inputs, inputs)
    seen = layers.GroupNormalization(groups=2)(seen)
    model = keras.Model(inputs, layers.Dense(1)(layers.Flatten()(seen)))
    model.compile("adam", "mse")
    assert not asked(model, x)
