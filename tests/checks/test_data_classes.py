"""How far from equal classes are, of rows and of steps, and what counts as having dealt with it."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from tsguard.checks.data_classes import classes_far_from_equal
from tsguard.checks.registry import Context
from tsguard.dataset import Data
from tsguard.subject import Subject

STEPS, SAMPLES = 12, 300


def tags(share=0.03):
    return (np.random.default_rng(0).random((SAMPLES, STEPS)) < share).astype("int32")


def named(y, *, units, loss, weights=None, x=None):
    keras.utils.set_random_seed(1)
    x = np.random.default_rng(1).normal(size=(SAMPLES, STEPS, 2)).astype("float32") if x is None else x
    model = keras.Sequential([keras.Input((STEPS, 2)), layers.Dense(units)])
    model.compile("adam", loss)
    data = Data(x, y, weights)
    context = Context(subject=Subject.from_model(model, data), data=data)
    return [f.code for f in classes_far_from_equal(context)]


def sparse(y, **options):
    return named(y, units=2, loss="sparse_categorical_crossentropy", **options)


def test_labels_of_steps_are_counted_in_every_writing():
    y = tags()
    assert sparse(y) == sparse(y[..., None]) == ["data-imbalance"]
    assert named(np.eye(2)[y], units=2, loss="categorical_crossentropy") == ["data-imbalance"]
    assert named(y[..., None], units=1, loss="binary_crossentropy") == ["data-imbalance"]
    assert named(y, units=1, loss="binary_crossentropy") == ["data-imbalance"]
    assert not sparse(tags(0.3))


def test_several_labels_of_one_row_are_no_classes_of_steps():
    x = np.random.default_rng(1).normal(size=(SAMPLES, 3)).astype("float32")
    model = keras.Sequential([keras.Input((3,)), layers.Dense(STEPS)])
    model.compile("adam", "binary_crossentropy")
    data = Data(x, tags())
    assert not list(classes_far_from_equal(Context(subject=Subject.from_model(model, data), data=data)))


@pytest.mark.parametrize("of", ["steps", "rows"])
def test_weights_deal_with_it_only_where_they_differ_from_class_to_class(of):
    y = tags() if of == "steps" else np.repeat(tags()[:, :1], STEPS, axis=1)
    weigh = np.where(y == 1, 10.0, 0.5)
    weigh, even = (weigh, np.ones(y.shape)) if of == "steps" else (weigh[:, 0], np.ones(SAMPLES))
    sure = np.random.default_rng(2).uniform(0.9, 1.1, even.shape)
    assert not sparse(y, weights=weigh)
    assert sparse(y, weights=even) == sparse(y, weights=sure) == ["data-imbalance"]


def test_steps_that_nothing_asks_for_are_no_class():
    y = tags(0.4)
    x = np.random.default_rng(1).normal(size=(SAMPLES, STEPS, 2)).astype("float32")
    x[:, 1:], y[:, 1:] = 0.0, 0
    assert not sparse(y, x=x)
    assert sparse(y) == ["data-imbalance"]
    assert not sparse(y, weights=np.broadcast_to(np.arange(STEPS) < 1, y.shape).astype("float32"))
    filled = np.where(np.arange(STEPS) < 1, y, -1)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    assert not named(filled, units=2, loss=loss)
