"""Rare classes of steps are proposed to be weighed; amounts and several labels of a row are not."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from tsguard.dataset import Data
from tsguard.diagnosis.record import Record
from tsguard.diagnosis.rules import _balance
from tsguard.probes.stage import batch_of, get_ready
from tsguard.probes.trial import STEP_WEIGHT

TAGS = (np.random.default_rng(0).random((60, 10)) < 0.04).astype("int32")


def proposed(y, units, loss, *, flat=False):
    x = np.random.default_rng(1).normal(size=(60, 10, 2)).astype("float32")
    last = [layers.Flatten(), layers.Dense(units)] if flat else [layers.Dense(units)]
    model = keras.Sequential([keras.Input((10, 2)), *last])
    model.compile("adam", loss)
    data = Data(x, y)
    batch = batch_of(data.take(np.arange(16)))
    get_ready(model, batch)
    return [one.fit for one in _balance(Record(model, data, None, {}, {}, None), batch, ())]


@pytest.mark.parametrize(
    ("y", "units", "loss"),
    [
        (TAGS, 2, "sparse_categorical_crossentropy"),
        (TAGS[..., None], 2, "sparse_categorical_crossentropy"),
        (np.eye(2, dtype="float32")[TAGS], 2, "categorical_crossentropy"),
        (TAGS[..., None].astype("float32"), 1, "binary_crossentropy"),
    ],
)
def test_rare_labels_of_steps_are_proposed_to_weigh_as_much_as_the_others(y, units, loss):
    found = proposed(y, units, loss)
    assert [list(fit) for fit in found] == [[STEP_WEIGHT]]
    weights = found[0][STEP_WEIGHT]
    assert weights[1] * TAGS.sum() == pytest.approx(weights[0] * (1 - TAGS).sum())


def test_amounts_and_labels_of_a_row_have_no_classes_of_steps():
    assert not proposed(TAGS[..., None].astype("float32"), 1, "mse")
    assert not proposed(TAGS.astype("float32"), 10, "binary_crossentropy", flat=True)
