"""Objectives that are no distance to a target, and structures that look cut off: left alone, beside what is sick."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from tsguard.checks.registry import Context, all_checks
from tsguard.checks.runner import run_checks
from tsguard.dataset import Data
from tsguard.subject import Subject


@pytest.fixture(autouse=True)
def seeded():
    """Layers draw the seeds of their initialisers when they are made, which may be before a model is."""
    keras.utils.set_random_seed(0)


def codes(model, x, y, code, **facts):
    data = Data(x, y, batch_size=32)
    context = Context(subject=Subject.from_model(model, data), data=data, facts={"fit": {"epochs": 3, **facts}})
    checks = [one for one in all_checks() if code is None or code in one.codes]
    found = [f for f in run_checks(context, checks, budget_s=30) if f.status in ("WARN", "FAIL", "ERROR")]
    assert not [f.message for f in found if f.status == "ERROR"]
    return {f.code for f in found}


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


@pytest.mark.parametrize("level", [False, True])
def test_a_label_that_is_always_one_teaches_what_has_no_level(level):
    rng = np.random.default_rng(0)
    x = {name: rng.integers(0, 12, 200).astype("int32") for name in ("liked", "other")}
    liked, other = (keras.Input((), dtype="int32", name=name) for name in x)
    table = layers.Embedding(12, 4)
    gap = layers.Dense(1, use_bias=level)(layers.Subtract()([table(liked), table(other)]))
    model = keras.Model({"liked": liked, "other": other}, gap)
    model.compile("adam", keras.losses.BinaryCrossentropy(from_logits=True))
    assert codes(model, x, np.ones((200, 1), "float32"), "data-constant") == ({"data-constant"} if level else set())


class Likelihood(keras.Model):
    """A loss of its own, of as many answers as it is told to give."""

    def __init__(self, units):
        super().__init__()
        self.read = layers.Dense(units)

    def call(self, x):
        return self.read(x)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        if y_pred.shape[-1] == 1:
            return ops.mean(ops.exp(y_pred) - y * y_pred)
        return ops.mean(keras.losses.sparse_categorical_crossentropy(y, y_pred, from_logits=True))


@pytest.mark.parametrize("units", [1, 40])
def test_counts_under_an_own_likelihood_are_no_classes(units):
    y = np.random.default_rng(0).geometric(0.2, (600, 1)).astype("float32").clip(0, 39)
    model = Likelihood(units)
    model.compile("adam")
    assert codes(model, normal(600, 4), y, "data-imbalance") == (set() if units == 1 else {"data-imbalance"})


class Codes(keras.Model):
    """The codes of a batch: held against each other in a table, or each less the mean of all."""

    def __init__(self, *, table):
        super().__init__()
        self.table, self.code = table, layers.Dense(6)

    def call(self, x):
        code = self.code(x)
        return ops.matmul(code, ops.transpose(code)) if self.table else code - ops.mean(code, axis=0)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        if not self.table:
            return ops.mean(ops.square(y_pred - y))
        return ops.mean(keras.losses.sparse_categorical_crossentropy(ops.arange(len(y_pred)), y_pred, from_logits=True))


@pytest.mark.parametrize("table", [True, False])
def test_a_table_of_the_batch_is_a_statement_about_it_and_a_mean_over_it_is_not(table):
    model, x = Codes(table=table), normal(128, 6)
    model.compile("adam")
    told = codes(model, x, None if table else x[:, :6], "batch-coupling")
    assert told == (set() if table else {"batch-coupling"})


def test_a_branch_that_starts_at_zero_lets_the_past_through_after_one_update():
    wave = np.sin(np.arange(600) / 3.0) + 0.05 * np.random.default_rng(0).normal(size=600)
    cut = np.lib.stride_tricks.sliding_window_view(wave, 30).astype("float32")
    steps = keras.Input((24, 1))
    change = layers.Dense(1, kernel_initializer="zeros")(layers.GRU(12)(steps))
    model = keras.Model(steps, steps[:, -1] + change)
    model.compile("adam", "mse")
    assert codes(model, cut[:, :24, None], cut[:, 29:], "vanishing-gradient") == set()


class Block(layers.Layer):
    """Takes a backcast away, and adds a forecast."""

    def __init__(self):
        super().__init__()
        self.body, self.back, self.fore = layers.Dense(8, "relu"), layers.Dense(6), layers.Dense(1)

    def call(self, past):
        h = self.body(past)
        return past - self.back(h), self.fore(h)


@pytest.mark.parametrize("forgotten", [False, True])
def test_the_last_backcast_is_nobodys_input_and_a_forgotten_block_is_one_too_few(forgotten):
    rest = past = keras.Input((6,))
    forecasts = []
    for _ in range(3):
        rest, forecast = Block()(rest)
        forecasts.append(forecast)
    kept = [ops.stop_gradient(forecasts[-1])] if forgotten else forecasts[-1:]
    model = keras.Model(past, layers.Add()([*forecasts[:-1], *kept]))
    model.compile("adam", "mse")
    x = normal(200, 6)
    told = codes(model, x, x[:, :1], "disconnected-parameters")
    assert told == ({"disconnected-parameters"} if forgotten else set())


@pytest.mark.parametrize("cut", [False, True])
def test_a_loss_of_the_labels_own_column_hears_the_classes_of_its_batch(cut):
    def own(labels, shares):
        shown = shares[:, :5] if cut else shares
        mine = ops.cast(ops.equal(ops.cast(labels, "int32"), ops.arange(shown.shape[-1])), "float32")
        return -ops.log(ops.sum(mine * shown, axis=-1) + 1e-6)

    y = np.random.default_rng(0).integers(0, 20, (400, 1)).astype("int32")
    model = keras.Sequential([keras.Input((4,)), layers.Dense(20, "softmax")])
    model.compile("adam", own)
    assert ("loss-degenerate" in codes(model, normal(400, 4), y, "loss-degenerate")) is cut


class Forger(keras.Model):
    """Is fed noise by its own step, and is handed what it imitates."""

    def __init__(self):
        super().__init__()
        self.forge = keras.Sequential([keras.Input((4,)), layers.Dense(2)])

    def call(self, noise):
        return self.forge(noise)

    def train_step(self, data):
        real = data[0] if isinstance(data, tuple) else data
        self.zero_grad()
        fake = self.forge(keras.random.normal((len(real), 4), seed=1))
        loss = ops.mean(ops.square(ops.mean(fake, 0) - ops.mean(real, 0)))
        loss.backward()
        self.optimizer.apply([v.value.grad for v in self.trainable_weights], self.trainable_weights)
        return {"loss": loss}


def test_what_a_model_refuses_of_its_own_data_is_no_crash_of_a_check():
    model = Forger()
    model.compile("adam")
    model(np.zeros((1, 4), "float32"))
    assert codes(model, normal(96, 2), None, None) == set()


@pytest.mark.parametrize("directions", [False, True])
def test_a_squared_error_hears_amounts_of_a_few_millionths_and_a_cosine_hears_none(directions):
    x = normal(200, 5)
    y = 3e-6 * (x[:, :3] + 0.2)
    model = keras.Sequential([keras.Input((5,)), layers.Dense(3)])
    model.compile("adam", keras.losses.CosineSimilarity() if directions else "mse")
    assert ("loss-mismatch" in codes(model, x, y, "loss-mismatch")) is directions


class Flow(keras.Model):
    """Scales and shifts one half by the other; its last column is the price of scaling, or is left out of the loss."""

    def __init__(self):
        super().__init__()
        self.net = keras.Sequential([layers.Dense(8, "tanh"), layers.Dense(2)])

    def call(self, x):
        h = self.net(x[:, :1])
        scale = ops.tanh(h[:, :1])
        return ops.concatenate([x[:, :1], x[:, 1:] * ops.exp(scale) + h[:, 1:], scale], axis=-1)


@pytest.mark.parametrize("priced", [True, False])
def test_a_likelihood_that_prices_its_scale_compares_answers_with_nothing_on_purpose(priced):
    def own(_, told):
        size = 0.5 * ops.sum(ops.square(told[:, :2]), axis=-1)
        return size - told[:, 2] if priced else size + 0.1 * ops.square(told[:, 2])

    x = normal(200, 2)
    model = Flow()
    model.compile("adam", own)
    assert ("loss-degenerate" in codes(model, x, x, "loss-degenerate")) is not priced


@pytest.mark.parametrize("ahead", [True, False])
def test_what_comes_next_in_a_language_is_as_rare_as_it_is_and_a_rare_tag_is_told(ahead):
    rng = np.random.default_rng(0)
    words = np.minimum(rng.geometric(0.3, (300, 13)), 12) - 1
    x = words[:, :-1].astype("int32")
    y = words[:, 1:].astype("int32") if ahead else rng.permutation(words[:, 1:]).astype("int32")
    model = keras.Sequential([keras.Input((12,), dtype="int32"), layers.Embedding(12, 6), layers.Dense(12)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    assert codes(model, x, y, "data-imbalance") == (set() if ahead else {"data-imbalance"})


def test_weights_that_keras_multiplies_in_place_are_no_source_of_numbers():
    rng = np.random.default_rng(0)
    there = np.arange(12)[None] < rng.integers(4, 13, (96, 1))
    x = normal(96, 12, 3) * there[..., None]
    steps = keras.Input((12, 3))
    h = layers.GRU(8, return_sequences=True)(layers.Masking()(steps))
    model = keras.Model(steps, layers.Dense(1)(h))
    model.compile(keras.optimizers.Adam(1e-2), "mse", weighted_metrics=["mae"])
    weights = there.astype("float32")
    data = Data(x, x[..., :1], sample_weight=weights, batch_size=32)
    context = Context(subject=Subject.from_model(model, data), data=data, facts={"fit": {"epochs": 3}})
    found = run_checks(context, budget_s=30)
    assert not [
        f.message for f in found if f.status == "ERROR" or (f.code == "nondeterministic" and f.status == "FAIL")
    ]
    assert np.array_equal(weights, there)


@pytest.mark.parametrize("trained", [True, False])
def test_what_is_fine_tuned_takes_small_steps_on_purpose(trained):
    x = normal(320, 5)
    model = keras.Sequential([keras.Input((5,)), layers.Dense(1)])
    if trained:
        model.compile(keras.optimizers.Adam(0.05), "mse")
        model.fit(x, x[:, :1], epochs=20, verbose=0)
    model.compile(keras.optimizers.Adam(1e-6), "mse")
    told = codes(model, x + 0.0, x[:, :1] + 0.05 * normal(320, 5)[:, 1:2], "lr-too-low", epochs=10)
    assert told == (set() if trained else {"lr-too-low"})
