"""Outputs that the model works against are measured and not judged; rows are judged as often as their weights say."""

import keras
import numpy as np
import pytest
import torch
from keras import layers

from tsguard.dataset import Data
from tsguard.probes.opposed import opposed
from tsguard.probes.score import judge, sample
from tsguard.probes.stage import Batch, as_tensor


class Turn(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, factor):
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx, slope):
        return ctx.factor * slope, None


class Turned(layers.Layer):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def call(self, x):
        return Turn.apply(x, self.factor)

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


def two_heads(factor):
    keras.utils.set_random_seed(0)
    row = keras.Input((6,))
    h = layers.Dense(8, "tanh")(row)
    place = layers.Dense(1, "sigmoid", name="place")(Turned(factor)(h))
    model = keras.Model(row, {"value": layers.Dense(1, name="value")(h), "place": place})
    model.compile(keras.optimizers.Adam(0.01), {"value": "mse", "place": "binary_crossentropy"})
    x = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")
    y = {"value": x[:, :1], "place": (x[:, 1:2] > 0).astype("float32")}
    model.fit(x, y, epochs=40, verbose=0)
    return model, Batch(as_tensor(x), {name: as_tensor(leaf) for name, leaf in y.items()})


@pytest.mark.parametrize(("factor", "against"), [(-1.0, {"place"}), (-0.1, {"place"}), (1.0, set()), (0.05, set())])
def test_a_gradient_that_is_turned_round_is_told_from_one_that_is_small(factor, against):
    model, batch = two_heads(factor)
    before = [v.value.detach().clone() for v in model.variables]
    assert opposed(model, batch) == against
    assert all(torch.equal(a, v.value) for a, v in zip(before, model.variables, strict=True))


def test_what_the_model_works_against_does_not_count_as_left_undone():
    model, batch = two_heads(-1.0)
    judged = judge(model, batch)
    assert set(judged.outputs) == {"value", "place"}
    assert judged.skill == judged.outputs["value"]["r2"] > 0.2


def test_rows_are_sampled_as_often_as_they_weigh():
    x = np.arange(1000, dtype="float32")[:, None]
    weight = np.where(np.arange(1000) < 500, 0.0, 1.0)
    rows = sample(Data(x, x, weight), 100, weighted=True)
    assert float(rows.x.min()) >= 500
    assert len(set(rows.x.flatten().tolist())) == 100
    assert float(sample(Data(x, x, weight), 100).x.min()) == 0
    assert torch.equal(sample(Data(x, x, np.ones(1000)), 100, weighted=True).x, sample(Data(x, x), 100).x)
