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


class Paid(keras.losses.Loss):
    """What a position earns, which has no best but at its bound."""

    def call(self, y_true, y_pred):
        return -ops.mean(y_true * y_pred, axis=-1)


def test_a_position_paid_by_its_return_is_bounded_on_purpose():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 6)).astype("float32")
    y = (0.3 + 0.2 * x[:, :1] + 0.1 * rng.normal(size=(300, 1))).astype("float32")
    model = keras.Sequential([keras.Input((6,)), layers.Dense(8, "relu"), layers.Dense(1, "tanh")])
    model.compile("adam", Paid())
    data = Data(x, y, batch_size=32)
    found = asked(Context(subject=Subject.from_model(model, data), data=data), "output-activation")
    assert [f.code for f in found if f.status in ("WARN", "FAIL", "ERROR") and f.role == "cause"] == []


def test_states_carried_on_are_a_fault_where_rows_are_known_to_be_shuffled():
    x = np.random.default_rng(0).normal(size=(64, 5, 3)).astype("float32")
    inputs = keras.Input(batch_shape=(32, 5, 3))
    model = keras.Model(inputs, layers.Dense(1)(layers.GRU(4, stateful=True, use_cudnn=False)(inputs)))
    model.compile("adam", "mse")
    data = Data(x, x[:, 0, :1], batch_size=32)
    codes = []
    for facts in ({}, {"fit": {"shuffle": False, "batch_size": 32}}, {"fit": {"batch_size": 32}}):
        context = Context(subject=Subject.from_model(model, data), data=data, facts=facts)
        codes.append({f.code for f in asked(context, "batch-coupling") if f.status == "FAIL"})
    assert codes == [set(), set(), {"batch-coupling"}]


def test_a_copy_that_looks_back_only_warns_unless_another_input_has_other_steps():
    rng = np.random.default_rng(0)
    past, future = (rng.normal(size=(96, steps, 2)).astype("float32") for steps in (10, 6))
    whole = np.concatenate([past, future], axis=1)

    def statuses(beside, fed):
        inputs = [keras.Input(beside.shape[1:], name="beside"), keras.Input(fed.shape[1:], name="fed")]
        state = layers.GRU(4)(inputs[0])
        outputs = layers.Dense(2)(layers.GRU(4, return_sequences=True)(inputs[1], initial_state=state))
        model = keras.Model(inputs, outputs)
        model.compile("adam", "mse")
        data = Data([beside, fed], fed, batch_size=32)
        found = asked(Context(subject=Subject.from_model(model, data), data=data), "data-leak")
        return {str(f.status) for f in found if f.check == "decoder that is fed its own answer"}

    assert statuses(past, future) == {"FAIL"}
    assert statuses(whole * 2, whole) == {"WARN"}
    assert statuses(np.ones_like(whole), whole) == {"PASS"}


def test_layers_behind_a_head_that_starts_at_zero_are_not_disconnected():
    x = np.random.default_rng(0).normal(size=(96, 4)).astype("float32")
    head = layers.Dense(1, kernel_initializer="zeros")
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8, "tanh"), head])
    model.compile("adam", "mse")
    data = Data(x, x[:, :1], batch_size=32)
    found = asked(Context(subject=Subject.from_model(model, data), data=data), "disconnected-parameters")
    assert not [f for f in found if f.code == "disconnected-parameters" and f.status != "PASS"]
