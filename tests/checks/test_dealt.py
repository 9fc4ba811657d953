"""What a program deals with itself is no fault of its data."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from tsguard.checks import data as checks
from tsguard.checks.registry import Context
from tsguard.dataset import Data
from tsguard.subject import Subject

RNG = np.random.default_rng(0)
X = RNG.normal(size=(200, 5)).astype("float32")
Y = X[:, :1] + 0.1 * RNG.normal(size=(200, 1)).astype("float32")
CODED = np.where(np.arange(200)[:, None] % 3 == 0, np.float32(-999), Y)


def known_only(y_true, y_pred):
    known = ops.cast(y_true > -900, "float32")
    return ops.sum(known * ops.square(y_true - y_pred)) / ops.maximum(ops.sum(known), 1.0)


def asked(check, y, loss="mse", scale=None):
    inputs = keras.Input((5,))
    answer = layers.Dense(1)(inputs)
    model = keras.Model(inputs, answer if scale is None else layers.Rescaling(scale, offset=3 * scale)(answer))
    model.compile("sgd", loss)
    data = Data(X, y)
    context = Context(subject=Subject.of(model), data=data)
    return [finding for finding in check(context) if finding.where.get("phase") == "data"]


@pytest.mark.parametrize(("loss", "found"), [("mse", True), ("mae", True), (known_only, False)])
def test_a_code_in_the_targets_is_a_fault_where_the_loss_reads_it(loss, found):
    assert [one.code for one in asked(checks.codes_for_missing, CODED, loss)] == ["data-sentinel"] * found


@pytest.mark.parametrize(("scale", "found"), [(None, True), (1.0, True), (1e6, False)])
def test_large_targets_are_a_fault_where_the_answers_are_not_brought_there(scale, found):
    large = 1e6 * (3 + Y)
    assert [one.code for one in asked(checks.values_out_of_scale, large, scale=scale)] == ["data-scale"] * found
