"""Joins on half a key and kinds read as amounts: named where the table proves it, silent on what only looks alike."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

from tests.checks.test_data import ask, only
from tsguard.checks import data_crossed, registry
from tsguard.dataset import Data
from tsguard.findings import Status
from tsguard.subject import Subject


def test_rows_beside_all_targets_of_their_group_are_a_join_on_half_a_key():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 50, 4, 3)).astype("float32")
    right = x.reshape(-1, 3), y[..., :1].reshape(-1, 1)
    crossed = np.repeat(x, 4, axis=1).reshape(-1, 3), np.tile(y[..., :1], (1, 4, 1)).reshape(-1, 1)
    assert ask(*right) == []
    assert only(ask(*crossed), "data-mispaired").status == "FAIL"


def test_repeated_measurements_are_no_join():
    rng = np.random.default_rng(1)
    x = np.repeat(rng.standard_normal((50, 3)), 6, axis=0).astype("float32")
    measured = (x[:, :1] + 0.3 * rng.standard_normal((300, 1))).astype("float32")
    assert ask(x, measured) == []
    assert ask(x, np.tile([0, 1], 150)) == []  # both classes beside every row, and never a target of its own


def _of_kinds(effect, head, *, samples=900):
    rng = np.random.default_rng(2)
    kind = rng.integers(0, len(effect), (samples, 1))
    y = effect[kind] + 0.2 * rng.standard_normal((samples, 1))
    column = keras.Input((1,), name="kind")
    model = keras.Model(column, layers.Dense(1)(layers.Dense(16, "relu")(head(column))))
    model.compile("adam", "mse")
    data = Data(kind.astype("float32"), y.astype("float32"))
    context = registry.Context(subject=Subject.from_model(model, data), data=data)
    return [f.code for f in data_crossed.kinds_as_amounts(context) if f.status == Status.WARN]


def test_kinds_that_go_in_as_an_amount_are_named():
    arbitrary = np.random.default_rng(3).standard_normal(24)
    assert _of_kinds(arbitrary, layers.Rescaling(1 / 24)) == ["input-encoding"]


def test_kinds_that_are_looked_up_and_amounts_are_not():
    arbitrary, years = np.random.default_rng(3).standard_normal(24), np.cos(np.arange(24) / 4)

    def looked_up(column):
        return layers.Flatten()(layers.Embedding(24, 4)(column))

    assert _of_kinds(arbitrary, looked_up) == []
    assert _of_kinds(arbitrary, layers.CategoryEncoding(24, output_mode="one_hot")) == []
    assert _of_kinds(years, layers.Rescaling(1 / 24)) == []
    assert _of_kinds(0 * years, layers.Rescaling(1 / 24)) == []
