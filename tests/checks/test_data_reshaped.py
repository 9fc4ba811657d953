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


def named(x, *reshaping):
    keras.utils.set_random_seed(1)
    stack = [*reshaping, layers.Conv1D(4, 3, activation="relu"), layers.GlobalAveragePooling1D(), layers.Dense(1)]
    model = keras.Sequential([keras.Input(x.shape[1:]), *stack])
    model.compile("adam", "mse")
    data = Data(x.astype("float32"), x[:, 0, :1].astype("float32"))
    found = list(reshaped_inside(Context(subject=Subject.from_model(model, data), data=data)))
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
