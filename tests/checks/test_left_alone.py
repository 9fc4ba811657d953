"""Healthy programs that were accused once: each looks like a fault to a question that was put too roughly."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import torch
from keras import layers, ops

from tests.checks.programs import dense, rows, values
from tsguard.checks.registry import Context
from tsguard.checks.runner import run_checks
from tsguard.dataset import Data
from tsguard.subject import Subject


def accused(model, x, y=None, *, validation=None, **fit):
    data = Data(x, y, validation=validation, batch_size=fit.get("batch_size", 32))
    context = Context(subject=Subject.from_model(model, data), data=data, facts={"fit": fit})
    found = run_checks(context, budget_s=40)
    return [(f.code, f.message[:120]) for f in found if f.status in ("WARN", "FAIL", "ERROR")]


def test_a_label_that_comes_once_in_a_batch_is_heard():
    keras.utils.set_random_seed(0)
    x = rows(320)
    y = np.stack([x[:, 0] > 0, x[:, 1] > 0.3, np.arange(320) % 64 == 7], axis=1).astype("float32")
    x[:, 4] += 3 * y[:, 2]
    found = accused(dense(layers.Dense(16, "relu"), layers.Dense(3, "sigmoid"), loss="binary_crossentropy"), x, y)
    assert not [code for code, _ in found if code == "loss-degenerate"]


def test_a_class_that_the_loss_ignores_is_no_crash():
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).integers(1, 20, (200, 8)).astype("int32")
    y = np.where(np.arange(8) >= 5, -1, x % 3).astype("int32")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    model = keras.Sequential([keras.Input((8,), dtype="int32"), layers.Embedding(20, 8), layers.Dense(3)])
    model.compile("adam", loss)
    assert not accused(model, x, y)


def test_giants_among_the_targets_hide_no_relation():
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)

    def bills(count, *, giants):
        x = rng.normal(size=(count, 5))
        y = x[:, 0] - 0.5 * x[:, 1] + 0.05 * rng.normal(size=count)
        return x.astype("float32"), (y + giants * (rng.random(count) < 0.02) * 40)[:, None].astype("float32")

    (x, y), held = bills(1200, giants=True), bills(300, giants=False)
    found = accused(dense(layers.Dense(16, "relu"), layers.Dense(1), loss="huber"), x, y, validation=held)
    assert not [code for code, _ in found if code == "data-mispaired"]


def test_a_lag_beside_its_source_is_no_leak():
    rain = np.abs(np.random.default_rng(0).normal(size=(200, 33)))
    x = np.stack([rain[:, 1:], rain[:, :-1]], -1).astype("float32")
    y = (0.5 * x[..., 0] + 0.3 * x[..., 1]).astype("float32")[..., None]
    model = keras.Sequential([keras.Input((32, 2)), layers.Conv1D(8, 3, padding="causal"), layers.Dense(1)])
    model.compile("adam", "mse")
    assert not [code for code, _ in accused(model, x, y) if code == "data-leak"]


def test_points_at_which_an_equation_is_held_are_no_weights():
    class Lawful(keras.Model):
        def train_step(self, data):
            x, y = data
            self.zero_grad()
            t = torch.rand(20, 1).requires_grad_()
            slope = torch.autograd.grad(self(t, training=True).sum(), t, create_graph=True)[0]
            loss = self.compute_loss(x, y, self(x, training=True)) + ops.mean(ops.square(slope - 1))
            loss.backward()
            with torch.no_grad():
                self.optimizer.apply([v.value.grad for v in self.trainable_variables], self.trainable_variables)
            return {"loss": loss.detach()}

    keras.utils.set_random_seed(0)
    x = np.linspace(0, 1, 40, dtype="float32")[:, None]
    inputs = keras.Input((1,))
    model = Lawful(inputs, layers.Dense(1)(layers.Dense(16, "tanh")(inputs)))
    model.compile("adam", "mse")
    assert not [code for code, _ in accused(model, x, x) if code == "untracked-parameters"]


class Memory(layers.LSTM):
    """A stateful LSTM whose states may be read while they change."""

    def call(self, sequences, initial_state=None, mask=None, training=False):
        return super().call(sequences, [ops.copy(state) for state in self.states], mask, training)


def test_a_stateful_layer_begins_every_call_of_a_law_anew():
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(200, 10, 1)).astype("float32")
    pump = keras.Input(batch_shape=(20, 10, 1))
    model = keras.Model(pump, layers.Dense(1)(Memory(6, stateful=True, return_sequences=True)(pump)))
    model.compile("adam", "mse")
    found = accused(model, x, x.cumsum(1) / 4, batch_size=20, shuffle=False)
    assert not [code for code, _ in found if code in ("nondeterministic", "pad-leak-value")]


def test_a_count_that_begins_in_the_class_is_put_back_between_steps():
    class Scaled(keras.Model):
        scale = 8.0

        def train_step(self, data):
            x, y = data
            self.zero_grad()
            loss = self.compute_loss(x, y, self(x, training=True))
            (loss * self.scale).backward()
            with torch.no_grad():
                grads = [v.value.grad / self.scale for v in self.trainable_variables]
                self.optimizer.apply(grads, self.trainable_variables)
            self.scale *= 2.0
            return {"loss": loss.detach()}

    keras.utils.set_random_seed(0)
    x = rows()
    inputs = keras.Input((5,))
    model = Scaled(inputs, layers.Dense(1)(inputs))
    model.compile("adam", "mse")
    assert not [code for code, _ in accused(model, x, values(x)) if code == "nondeterministic"]
    assert "scale" not in vars(model)


def test_what_comes_next_hangs_on_what_came_last_and_marks_no_class():
    rng = np.random.default_rng(0)
    follows = rng.permutation(40)
    x = rng.integers(0, 40, (1200, 6)).astype("int32")
    y = np.where(rng.random(1200) < 0.04, rng.integers(0, 40, 1200), follows[x[:, -1]]).astype("int32")
    model = keras.Sequential(
        [keras.Input((6,), dtype="int32"), layers.Embedding(40, 8), layers.Flatten(), layers.Dense(40, "softmax")]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    assert not [code for code, _ in accused(model, x, y) if code == "data-leak"]


class Stream(torch.utils.data.IterableDataset):
    """Rows that come one after another, nobody knows how many."""

    def __iter__(self):
        rng = np.random.default_rng(0)
        for _ in range(320):
            x = rng.normal(size=5).astype("float32")
            yield x, x[:1]


def test_a_loader_over_a_stream_has_no_length_and_is_no_crash():
    loader = torch.utils.data.DataLoader(Stream(), batch_size=32)
    found = accused(dense(layers.Dense(8, "relu"), layers.Dense(1)), loader)
    assert not [message for code, message in found if "crashed" in message]


@pytest.mark.parametrize("same", [True, False])
def test_one_array_under_two_names_is_named_and_two_arrays_are_not(same):
    x = np.random.default_rng(0).normal(size=(200, 12, 1)).astype("float32")
    other = x if same else x[::-1].copy()
    wrist, ankle = keras.Input((12, 1), name="wrist"), keras.Input((12, 1), name="ankle")
    seen = [layers.GRU(4)(one) for one in (wrist, ankle)]
    model = keras.Model({"wrist": wrist, "ankle": ankle}, layers.Dense(1)(layers.Concatenate()(seen)))
    model.compile("adam", "mse")
    found = accused(model, {"wrist": x, "ankle": other}, x.mean(1))
    assert [code for code, message in found if "hold the same numbers" in message] == ["data-constant"] * same
