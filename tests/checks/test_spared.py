"""What looks like a fault of the data or of the loss and is none: kinds that did not come up, trends, second views."""

import keras
import numpy as np
from keras import layers, ops

from tests.checks.test_data import ask
from tests.checks.test_model_and_loss import asked
from tsguard.checks.registry import Context
from tsguard.dataset import Data
from tsguard.subject import Subject


def test_a_kind_that_did_not_come_up_is_no_constant_column_and_a_dead_sensor_is():
    rng = np.random.default_rng(0)
    kinds, numbers = np.eye(7, dtype="float32")[rng.integers(0, 6, 300)], rng.normal(size=(300, 3)).astype("float32")
    y = rng.normal(size=(300, 1)).astype("float32")
    assert ask(np.concatenate([kinds, numbers], axis=1), y) == []
    dead = np.concatenate([np.zeros((300, 1), "float32"), numbers], axis=1)
    assert {f.code for f in ask(dead, y)} == {"data-constant"}


def test_a_common_trend_is_no_leak_and_a_copy_is():
    rng = np.random.default_rng(0)
    used = 20 * (1 + 0.8 * np.sin(np.arange(900) * 2 * np.pi / 24)) + np.abs(rng.normal(size=900))
    meter = 400 + np.cumsum(used)
    x = np.stack([meter[s : s + 25] for s in range(800)]).astype("float32")
    y = meter[25:825, None].astype("float32")
    assert not [f for f in ask(x, y) if f.code == "data-leak"]
    x[:, 3] = y[:, 0]
    assert [f for f in ask(x, y) if f.code == "data-leak"]


class Views(keras.Model):
    """The second view goes through the model too."""

    def __init__(self):
        super().__init__()
        self.read = layers.Dense(8)

    def call(self, x):
        return ops.normalize(self.read(x), axis=-1)

    def train_step(self, data):
        one, two = data
        self.zero_grad()
        near = ops.matmul(self(one, training=True), ops.transpose(self(two, training=True)))
        loss = ops.mean(ops.sparse_categorical_crossentropy(ops.arange(near.shape[0]), near / 0.2, from_logits=True))
        loss.backward()
        self.optimizer.apply([v.value.grad for v in self.trainable_weights], self.trainable_weights)
        return {"loss": loss}


def test_a_second_view_that_the_step_asks_the_model_about_is_looked_at():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(160, 5)).astype("float32")
    y = (x + 0.1 * rng.normal(size=x.shape)).astype("float32")
    model = Views()
    model.compile("adam")
    data = Data(x, y, batch_size=32)
    found = asked(Context(subject=Subject.from_model(model, data), data=data), "loss-degenerate")
    assert not [f for f in found if f.status in ("WARN", "FAIL", "ERROR")]
