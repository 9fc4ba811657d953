"""Objectives without targets: one that a constant satisfies collapses, one that keeps samples apart does not."""

import keras
import numpy as np
from keras import layers, ops

from tsguard.dataset import Data
from tsguard.diagnosis import Record, diagnose
from tsguard.probes.stage import Snapshot


class Views(keras.Model):
    """Answers of two noisy views are drawn together; with `apart`, each direction must keep varying over the batch."""

    def __init__(self, *, apart):
        super().__init__()
        self.apart = apart
        self.hidden, self.out = layers.Dense(24, "relu"), layers.Dense(8)

    def call(self, x):
        return self.out(self.hidden(x))

    def train_step(self, data):
        x = data[0] if isinstance(data, tuple) else data
        self.zero_grad()
        one, other = self(x), self(x + keras.random.normal(ops.shape(x), stddev=0.1))
        loss = ops.mean(ops.square(one - other))
        if self.apart:
            loss = loss + ops.mean(ops.relu(1.0 - ops.std(one, 0)))
        loss.backward()
        weights = self.trainable_weights
        self.optimizer.apply([v.value.grad for v in weights], weights)
        return {"loss": loss}


def codes(*, apart):
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(256, 6)).astype("float32")
    model = Views(apart=apart)
    model.compile(keras.optimizers.Adam(2e-2))
    model(x[:1])
    start = Snapshot(model)
    history = model.fit(x, epochs=25, batch_size=64, verbose=0)
    record = Record(model, Data(x, batch_size=64), start, {"loss": history.history["loss"]}, {"epochs": 25})
    return [(f.code, str(f.role)) for f in diagnose(record, budget_s=5) if f.status == "FAIL"]


def test_an_objective_that_a_constant_satisfies_is_named():
    assert codes(apart=False) == [("representation-collapse", "cause")]


def test_an_objective_that_keeps_samples_apart_is_left_alone():
    assert not codes(apart=True)
