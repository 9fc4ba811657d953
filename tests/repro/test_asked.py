"""Findings of checks in a few lines: they find the sick case and pass the healthy one."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from tsguard.checks.data import STEPS_AND_FEATURES
from tsguard.checks.rates import PLANNED
from tsguard.evidence import Evidence
from tsguard.findings import Finding, Role, Status
from tsguard.repro import asked_data, asked_labels, asked_loss, asked_model, asked_sight, asked_step
from tsguard.repro.asked import _wrong, form_of, lines_of
from tsguard.repro.case import Batch, Case, Fingerprint

RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 3)).astype("float32")
Y = np.abs(RNG.normal(size=(32, 1))).astype("float32")


def model(loss="mse", outputs=None, **given):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3,))
    if outputs:
        made = keras.Model(inputs, {name: layers.Dense(1, name=name)(inputs) for name in outputs})
    else:
        made = keras.Model(inputs, layers.Dense(1)(layers.Dense(4, **given)(inputs)))
    made.compile("sgd", loss)
    return made


class Terms(keras.Model):
    def __init__(self, factor):
        super().__init__()
        self.head, self.factor = layers.Dense(1), factor

    def call(self, x):
        return self.head(x)

    def loss_terms(self, x, y, y_pred, sample_weight=None):
        return {"fit": ops.mean(ops.square(y_pred - y)), "size": self.factor * ops.mean(ops.square(y_pred))}

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return sum(self.loss_terms(x, y, y_pred).values())


def terms(factor):
    keras.utils.set_random_seed(0)
    made = Terms(factor)
    made.compile("sgd")
    made(ops.convert_to_tensor(X))
    return made


def scaled(size):
    return np.concatenate([X[:, :1] * size, X[:, 1:]], axis=1)


def coded(code):
    values = X.copy()
    values[::4, 1] = code
    return values


def lopsided(y, p):
    return ops.mean(ops.where(y > p, 0.01 * (y - p), p - y))


def chain(*layered, loss="mse", optimizer="sgd", shape=(3,)):
    keras.utils.set_random_seed(0)
    made = keras.Sequential([keras.Input(shape), *layered])
    made.compile(optimizer, loss)
    return made


def classes(loss, activation="softmax", units=3):
    return chain(layers.Dense(units, activation=activation), loss=loss)


def deep(size):
    narrow = keras.initializers.RandomNormal(stddev=size)
    return chain(*(layers.Dense(4, "tanh", kernel_initializer=narrow) for _ in range(5)), layers.Dense(1))


def through_time(gain):
    cell = layers.SimpleRNN(4, activation=None, recurrent_initializer=keras.initializers.Identity(gain))
    return chain(cell, layers.Dense(1), shape=(24, 3))


def softmax_again(y, p):
    return -ops.mean(ops.sum(y * ops.log_softmax(p), axis=-1))


def penalised(size):
    return chain(layers.Dense(1, bias_regularizer=keras.regularizers.L2(size)))


def tables():
    keras.utils.set_random_seed(0)
    inputs = {name: keras.Input((), name=name) for name in ("a", "b")}
    made = keras.Model(inputs, layers.Dense(1)(layers.Add()([layers.Embedding(3, 2)(one) for one in inputs.values()])))
    made.compile("sgd", "mse")
    return made


def paired_wrongly(y, p):
    return ops.mean(ops.square(y[:, 0] - p))


def table(rows):
    return chain(layers.Embedding(rows, 2), layers.GlobalAveragePooling1D(), layers.Dense(1), shape=(3,))


def scaled_to(size):
    return np.concatenate([X[:, :1], X[:, 1:2] * size, X[:, 2:]], axis=1)


def added(past):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3,))
    h = layers.Dense(3)(inputs)
    made = keras.Model(inputs, layers.Add()([inputs, h]) if past else h)
    made.compile("sgd", "mse")
    return made


class Stepping(keras.Sequential):
    """A step of one's own that may forget to reset the gradients."""

    reset = True

    def train_step(self, data):
        x, y = data
        if self.reset:
            self.zero_grad()
        loss = self.compute_loss(x, y, self(x, training=True))
        loss.backward()
        self.optimizer.apply([v.value.grad for v in self.trainable_weights], self.trainable_weights)
        return {"loss": loss}


def stepping(*, reset, loss="mse", optimizer="sgd"):
    keras.utils.set_random_seed(0)
    made = Stepping([keras.Input((3,)), layers.Dense(1)])
    made.reset = reset
    made.compile(optimizer, loss)
    return made


def recurrent(*, stateful):
    keras.utils.set_random_seed(0)
    inputs = keras.Input(batch_shape=(32, 3, 3))
    made = keras.Model(inputs, layers.Dense(1)(layers.SimpleRNN(4, stateful=stateful)(inputs)))
    made.compile("sgd", "mse")
    return made


class Loose(layers.Layer):
    """Noise from a generator that nobody gave a seed."""

    def call(self, x, training=False):
        return x + ops.convert_to_tensor(np.random.default_rng().normal(size=x.shape), dtype="float32")


class Centred(layers.Layer):
    """Takes off the level of every row."""

    def call(self, x):
        return x - ops.mean(x, axis=1, keepdims=True)


class Clipped(keras.Model):
    """Ids beyond the table become its last row."""

    def __init__(self, rows):
        super().__init__()
        self.rows, self.table, self.head = rows, layers.Embedding(rows, 2), layers.Dense(1)
        self.compile("sgd", "mse")

    def call(self, ids):
        return self.head(ops.mean(self.table(ops.minimum(ids, self.rows - 1)), axis=1))


def with_scale(scale):
    return keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=scale)


def mean_of_large(least):
    def loss(y, p):
        large = ops.cast(y > 0.5, "float32")
        return ops.sum(large * ops.square(y - p)) / ops.maximum(ops.sum(large), least)

    return loss


class Keeping(keras.Sequential):
    """A step of one's own that may learn the same batch again and again."""

    kept = None

    def train_step(self, data):
        return super().train_step(data if self.kept is None else self.kept)


def keeping(*, kept):
    keras.utils.set_random_seed(0)
    made = Keeping([keras.Input((3,)), layers.Dense(1)])
    made.kept = (ops.convert_to_tensor(X[:4]), ops.convert_to_tensor(Y[:4])) if kept else None
    made.compile("sgd", "mse")
    return made


def of_outputs(weights):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3,))
    made = keras.Model(inputs, {name: layers.Dense(1, name=name)(inputs) for name in weights})
    made.compile("sgd", dict.fromkeys(weights, "mse"), loss_weights=weights)
    return made


class Drawn(layers.Layer):
    """Random numbers that it keeps beside its variables, or among them."""

    def __init__(self, *, plain):
        super().__init__()
        start = ops.convert_to_tensor(X[:3].copy())
        if plain:
            self.kernel = start
        else:
            self.kernel = self.add_weight(shape=(3, 3), initializer=lambda *_, **__: start)

    def call(self, x):
        return ops.matmul(x, self.kernel)


def factors(first):
    start = keras.initializers.Constant(0.0) if first == "zeros" else first
    return chain(layers.Dense(3, kernel_initializer=start), layers.Dense(3, kernel_initializer="zeros"), loss="mse")


def padded_texts(*, masked):
    return chain(layers.Embedding(9, 2, mask_zero=masked), layers.LSTM(2), layers.Dense(1), shape=(3,))


def two_inputs():
    keras.utils.set_random_seed(0)
    entries = {name: keras.Input((3,), name=name) for name in ("past", "fed")}
    made = keras.Model(entries, layers.Dense(3)(layers.Add()(list(entries.values()))))
    made.compile("sgd", "mse")
    return made


def pictures(*shape):
    return chain(layers.Conv2D(1, 3, padding="same"), layers.GlobalMaxPooling2D(), shape=shape)


LABELS = RNG.integers(0, 3, 32).astype("int32")
YES = (Y > 0.5).astype("float32")
SERIES = RNG.normal(size=(32, 24, 3)).astype("float32")
LONG = np.random.default_rng(1).normal(size=(160, 24, 3)).astype("float32")
IDS = RNG.integers(0, 9, (32, 3)).astype("float32")
LINE = (X @ np.array([[1.0], [-2.0], [0.5]])).astype("float32")
WIDE = RNG.normal(size=(128, 3)).astype("float32")
WORDS = np.random.default_rng(2).integers(0, 9, (32, 6)).astype("int32")
MANY = np.random.default_rng(3).integers(0, 2, (32, 3)).astype("float32")
SPARSE = keras.losses.SparseCategoricalCrossentropy
BINARY = keras.losses.BinaryCrossentropy
DENSE = layers.Dense


def smoothed(*, ahead):
    """A channel of noise and a mean over its steps, also of those after the window."""
    whole = np.random.default_rng(3).normal(size=(200, 40))
    mean = np.stack([whole[:, k - 3 + ahead : k + 1 + ahead].mean(1) for k in range(8, 32)], axis=1)
    return np.stack([whole[:, 8:32], mean], axis=-1)


CODE = (Evidence("value", {"value": -200.0, "count": 8}, name="1"),)
CASES = {
    "data-scale": ({"feature": 0}, (), (model(), scaled(2e4), Y), (model(), X, Y)),
    "data-scale that the first layer reads": (
        {"layer": "dense"},
        (),
        (classes(SPARSE()), 200 * np.abs(X), LABELS),
        (classes(SPARSE()), X, LABELS),
    ),
    "data-scale that shuts tanh": (
        {"layer": "dense"},
        (),
        (chain(DENSE(4, "tanh"), DENSE(1)), 1e3 * X, Y),
        (chain(DENSE(4, "tanh"), DENSE(1)), X, Y),
    ),
    "data-sentinel": ({"feature": 1}, CODE, (model(), coded(-200.0), Y), (model(), X, Y)),
    "data-constant": ({}, (), (model(), np.ones_like(X), Y), (model(), X, Y)),
    "symmetric-init": ({}, (), (model(kernel_initializer="ones"), X, Y), (model(), X, Y)),
    "metric-disagrees": ({}, (), (model(lopsided), X, Y), (model("mae"), X, Y)),
    "loss-term-dominates": (
        {},
        (),
        (model("mse", ("a", "b")), X, {"a": 1e5 * Y, "b": Y}),
        (model("mse", ("a", "b")), X, {"a": Y, "b": Y}),
    ),
    "double-softmax": (
        {},
        (),
        (classes(SPARSE(from_logits=True)), X, LABELS),
        (classes(SPARSE(from_logits=False)), X, LABELS),
    ),
    "output-activation that is constant": (
        {},
        (),
        (classes("mse", units=1), X, YES),
        (classes("mse", "sigmoid", units=1), X, YES),
    ),
    "output-activation that is no probability": (
        {},
        (),
        (classes("binary_crossentropy", None, 1), X, YES),
        (classes("binary_crossentropy", "sigmoid", 1), X, YES),
    ),
    "output-activation that is taken for logits": (
        {},
        (),
        (classes(BINARY(from_logits=True), "sigmoid", 1), X, YES),
        (classes(BINARY(from_logits=True), None, 1), X, YES),
    ),
    "output-activation that cannot reach the targets": (
        {},
        (),
        (classes("mse", "sigmoid", 1), X, 100 * Y),
        (classes("mse", None, 1), X, 100 * Y),
    ),
    "data-labels": ({}, (), (classes(SPARSE()), X, LABELS + 1), (classes(SPARSE()), X, LABELS)),
    "loss-mismatch": (
        {},
        (),
        (classes("binary_crossentropy", "sigmoid", 1), X, 255 * YES),
        (classes("binary_crossentropy", "sigmoid", 1), X, YES),
    ),
    "loss-broadcast": ({}, (), (model(paired_wrongly), X, Y), (model("mse"), X, Y)),
    "loss-degenerate that is constant": ({}, (), (model(lambda y, p: ops.mean(p - p)), X, Y), (model(), X, Y)),
    "loss-degenerate without a floor": (
        {},
        (),
        (model(lambda y, p: -ops.mean(ops.square(y - p))), X, Y),
        (model(), X, Y),
    ),
    "dead-units": (
        {},
        (),
        (chain(DENSE(4, "relu", bias_initializer=keras.initializers.Constant(-99.0)), DENSE(1)), X, Y),
        (chain(DENSE(4, "relu"), DENSE(1)), X, Y),
    ),
    "saturated-units of tanh": (
        {},
        (),
        (chain(DENSE(4, "tanh"), DENSE(1)), 1e4 * X, Y),
        (chain(DENSE(4, "tanh"), DENSE(1)), X, Y),
    ),
    "saturated-units of a sigmoid": (
        {},
        (),
        (chain(DENSE(4, "sigmoid"), DENSE(1)), 1e4 * X, Y),
        (chain(DENSE(4, "sigmoid"), DENSE(1)), X, Y),
    ),
    "init-scale": ({}, (), (deep(1e-5), X, Y), (deep(0.4), X, Y)),
    "vanishing-gradient with depth": ({}, (), (deep(0.01), X, Y), (deep(0.4), X, Y)),
    "vanishing-gradient in time": ({}, (), (through_time(0.3), SERIES, Y), (through_time(1.0), SERIES, Y)),
    "exploding-gradient": ({}, (), (through_time(2.0), SERIES, Y), (through_time(1.0), SERIES, Y)),
    "over-regularised by a penalty": (
        {},
        (),
        (chain(DENSE(4, kernel_regularizer=keras.regularizers.L2(1e3)), DENSE(1)), X, Y),
        (chain(DENSE(4, kernel_regularizer=keras.regularizers.L2(1e-4)), DENSE(1)), X, Y),
    ),
    "over-regularised by dropout": (
        {},
        (),
        (chain(DENSE(8), layers.Dropout(0.95), DENSE(1)), X, Y),
        (chain(DENSE(8), layers.Dropout(0.1), DENSE(1)), X, Y),
    ),
    "over-regularised by a constraint": (
        {},
        (),
        (chain(DENSE(4, kernel_constraint=keras.constraints.MaxNorm(1e-3)), DENSE(1)), X, Y),
        (chain(DENSE(4, kernel_constraint=keras.constraints.MaxNorm(3.0)), DENSE(1)), X, Y),
    ),
    "over-regularised by decay": (
        {},
        (),
        (chain(DENSE(4), DENSE(1), optimizer=keras.optimizers.AdamW(weight_decay=1e3)), X, Y),
        (chain(DENSE(4), DENSE(1), optimizer=keras.optimizers.AdamW(weight_decay=1e-3)), X, Y),
    ),
    "lr-too-high": (
        {},
        (),
        (chain(DENSE(1), optimizer=keras.optimizers.SGD(99.0)), X, Y),
        (chain(DENSE(1), optimizer=keras.optimizers.SGD(0.01)), X, Y),
    ),
    "lr-too-low": (
        {},
        (),
        (chain(DENSE(1), optimizer=keras.optimizers.SGD(1e-9)), X, Y),
        (chain(DENSE(1), optimizer=keras.optimizers.SGD(0.01)), X, Y),
    ),
    "under-capacity": ({}, (), (chain(DENSE(4), DENSE(1)), X, Y), (chain(DENSE(4, "relu"), DENSE(1)), X, Y)),
    "input-encoding": ({}, (), (table(4), IDS, Y), (table(9), IDS, Y)),
    "data-mispaired": ({}, (), (model(), X, np.roll(LINE, 2, axis=0)), (model(), X, LINE)),
    "loss-term-dominates of an own loss": ({}, (), (terms(1e7), X, Y), (terms(1.0), X, Y)),
    "data-constant in a column": ({"feature": 1}, (), (model(), scaled_to(0), Y), (model(), X, Y)),
    "data-constant of a copied column": ({"feature": 2}, (), (model(), X[:, [0, 1, 0]], Y), (model(), X, Y)),
    "data-constant in windows": (
        {},
        (),
        (model(), np.repeat(SERIES[:, :1], 24, axis=1), Y),
        (model(), SERIES, Y),
    ),
    "data-constant of the targets": ({"output": "y"}, (), (model(), X, np.ones_like(Y)), (model(), X, Y)),
    "data-imbalance": ({}, (), (model(), X, (np.arange(32) == 7).astype("int32")), (model(), X, LABELS)),
    "data-order of a clock": (
        {"row": 0, "timestep": 1},
        (),
        (model(), np.cumsum(np.abs(X), axis=1)[:, ::-1], Y),
        (model(), np.cumsum(np.abs(X), axis=1), Y),
    ),
    "data-leak of a column": ({}, (), (model(), np.concatenate([X[:, :2], 3 * Y - 1], axis=1), Y), (model(), X, Y)),
    "data-leak past all weights": ({}, (), (added(True), X, X), (added(False), X, X)),
    "data-mispaired of sorted targets": (
        {},
        (),
        (model(), WIDE, np.sort(WIDE[:, :1], axis=0)),
        (model(), WIDE, WIDE[:, :1]),
    ),
    "gradient-accumulates": ({}, (), (stepping(reset=False), X, Y), (stepping(reset=True), X, Y)),
    "batch-coupling by a state": (
        {},
        (),
        (recurrent(stateful=True), SERIES[:, :3], Y),
        (recurrent(stateful=False), SERIES[:, :3], Y),
    ),
    "nondeterministic": (
        {},
        (),
        (chain(Loose(), DENSE(1)), X, Y),
        (chain(layers.GaussianNoise(0.5), DENSE(1)), X, Y),
    ),
    "clip-saturated": (
        {},
        (),
        (chain(DENSE(1), optimizer=keras.optimizers.SGD(0.1, clipnorm=1e-9)), X, Y),
        (chain(DENSE(1), optimizer=keras.optimizers.SGD(0.1, clipnorm=1.0)), X, Y),
    ),
    "amp-steps-skipped": (
        {},
        (),
        (chain(DENSE(1), optimizer=with_scale(1e39)), X, Y),
        (chain(DENSE(1), optimizer=with_scale(2.0**15)), X, Y),
    ),
    "loss-empty-selection": ({}, (), (model(mean_of_large(0)), X, Y), (model(mean_of_large(1)), X, Y)),
    "under-capacity without order": (
        {},
        (),
        (chain(DENSE(4, "relu"), layers.GlobalAveragePooling1D(), DENSE(1), shape=(24, 3)), SERIES, Y),
        (chain(layers.GRU(4), DENSE(1), shape=(24, 3)), SERIES, Y),
    ),
    "under-capacity without a level": (
        {},
        (),
        (chain(Centred(), layers.GRU(4), DENSE(1), shape=(24, 3)), SERIES, Y),
        (chain(layers.GRU(4), DENSE(1), shape=(24, 3)), SERIES, Y),
    ),
    "under-capacity without some steps": (
        {},
        (),
        (chain(layers.Cropping1D((12, 0)), layers.GRU(4), DENSE(1), shape=(24, 3)), LONG, LONG[:, 0, :1]),
        (chain(layers.GRU(4), DENSE(1), shape=(24, 3)), LONG, LONG[:, 0, :1]),
    ),
    "under-capacity without a step that counts": (
        {},
        (),
        (chain(layers.Cropping1D((12, 0)), layers.GRU(4), DENSE(1), shape=(24, 3)), LONG, LONG[:, 10, :1]),
        (chain(layers.Cropping1D((4, 0)), layers.GRU(4), DENSE(1), shape=(24, 3)), LONG, LONG[:, 10, :1]),
    ),
    "data-labels in rows": (
        {},
        (),
        (classes(SPARSE()), X, np.eye(3, dtype="float32")[LABELS]),
        (classes("categorical_crossentropy"), X, np.eye(3, dtype="float32")[LABELS]),
    ),
    "data-labels of numbers where rows are read": (
        {},
        (),
        (classes("kl_divergence"), X, LABELS[:, None].astype("float32")),
        (classes("kl_divergence"), X, np.eye(3, dtype="float32")[LABELS]),
    ),
    "output-activation over labels that do not exclude each other": (
        {},
        (),
        (classes("binary_crossentropy"), X, MANY),
        (classes("binary_crossentropy", "sigmoid"), X, MANY),
    ),
    "double-softmax in an own loss": (
        {},
        (),
        (classes(softmax_again), X, np.eye(3, dtype="float32")[LABELS]),
        (classes(softmax_again, None), X, np.eye(3, dtype="float32")[LABELS]),
    ),
    "over-regularised by a penalty on the level": (
        {},
        (),
        (penalised(10.0), X, 8 + Y),
        (penalised(0.01), X, 8 + Y),
    ),
    "input-encoding of two tables": (
        {},
        (),
        (tables(), {"a": X[:, 0], "b": LABELS}, Y),
        (tables(), {"a": LABELS, "b": LABELS}, Y),
    ),
    "input-encoding of ids behind a mask": (
        {},
        (),
        (chain(layers.Embedding(9, 2, mask_zero=True), layers.GRU(2), DENSE(1), shape=(6,)), WORDS, Y),
        (
            chain(layers.Embedding(9, 2, mask_zero=True), layers.GRU(2), DENSE(1), shape=(6,)),
            np.sort(WORDS)[:, ::-1],
            Y,
        ),
    ),
    "loss-mismatch of labels of more than two kinds": (
        {},
        (),
        (classes("binary_crossentropy", "sigmoid", 1), X, LABELS),
        (classes(SPARSE()), X, LABELS),
    ),
    "input-encoding that a model cuts off": (
        {},
        (),
        (Clipped(4), IDS.astype("int32"), Y),
        (Clipped(9), IDS.astype("int32"), Y),
    ),
    "loss-degenerate the wrong way round": (
        {},
        (),
        (model(lambda y, p: ops.mean(ops.tanh(-ops.square(y - p)))), X, Y),
        (model(), X, Y),
    ),
    "loss-mismatch that hears small targets alone": (
        {},
        (),
        (
            model("mean_absolute_percentage_error"),
            X,
            np.where(np.arange(32)[:, None] < 3, 1e-9, 1 + Y).astype("float32"),
        ),
        (model(), X, np.where(np.arange(32)[:, None] < 3, 1e-9, 1 + Y).astype("float32")),
    ),
    "loss-mismatch that hears directions alone": (
        {},
        (),
        (chain(DENSE(3), loss=keras.losses.CosineSimilarity()), X, X * (1 + Y)),
        (chain(DENSE(3)), X, X * (1 + Y)),
    ),
    "loss-mismatch that pushes all classes alike": (
        {},
        (),
        (
            classes(lambda y, p: -ops.mean(ops.sum(y * ops.log(p + 1e-7), axis=-1))),
            X,
            LABELS[:, None].astype("float32"),
        ),
        (
            classes(lambda y, p: -ops.mean(ops.sum(y * ops.log(p + 1e-7), axis=-1))),
            X,
            np.eye(3, dtype="float32")[LABELS],
        ),
    ),
    "data-labels that a loss is deaf to": (
        {},
        (),
        (model(lambda y, p: ops.mean(ops.maximum(0.0, 1 - y * p))), X, YES),
        (model(lambda y, p: ops.mean(ops.maximum(0.0, 1 - (2 * y - 1) * p))), X, YES),
    ),
    "loss-degenerate without an output": (
        {},
        (),
        (of_outputs({"a": 1.0, "b": 0.0}), X, {"a": Y, "b": Y}),
        (of_outputs({"a": 1.0, "b": 1.0}), X, {"a": Y, "b": Y}),
    ),
    "loss-degenerate without a column": (
        {},
        (),
        (chain(DENSE(3), loss=lambda y, p: ops.mean(ops.square(y[:, :2] - p[:, :2]))), X, X),
        (chain(DENSE(3)), X, X),
    ),
    "untracked-parameters kept beside the variables": (
        {"parameter": "kernel"},
        (),
        (chain(Drawn(plain=True), DENSE(1)), X, Y),
        (chain(Drawn(plain=False), DENSE(1)), X, Y),
    ),
    "disconnected-parameters frozen as drawn": (
        {},
        (),
        (chain(DENSE(4, trainable=False), DENSE(1, trainable=False), layers.BatchNormalization()), X, Y),
        (chain(DENSE(4, trainable=False), DENSE(1)), X, Y),
    ),
    "input-encoding of channels that stand elsewhere": (
        {},
        (),
        (pictures(3, 9, 9), RNG.normal(size=(2, 3, 9, 9)).astype("float32"), Y[:2]),
        (pictures(9, 9, 3), RNG.normal(size=(2, 9, 9, 3)).astype("float32"), Y[:2]),
    ),
    "input-encoding of a kernel beyond its axis": (
        {},
        (),
        (chain(layers.Conv1D(2, 5, padding="same"), layers.GlobalMaxPooling1D(), shape=(3, 24)), SERIES.mT, Y),
        (chain(layers.Conv1D(2, 5, padding="same"), layers.GlobalMaxPooling1D(), shape=(24, 3)), SERIES, Y),
    ),
    "mask-dropped on the way to a recurrent layer": (
        {},
        (),
        (padded_texts(masked=False), IDS * (np.arange(3) < 2), Y),
        (padded_texts(masked=True), IDS * (np.arange(3) < 2), Y),
    ),
    "output-activation over another axis": (
        {},
        (),
        (chain(DENSE(4), layers.Softmax(1), shape=(24, 3)), SERIES, Y),
        (chain(DENSE(4), layers.Softmax(-1), shape=(24, 3)), SERIES, Y),
    ),
    "output-activation taken twice": (
        {},
        (),
        (chain(DENSE(1, "exponential"), loss=lambda y, p: ops.mean(ops.exp(p) - y * p)), X, Y / 2),
        (chain(DENSE(1), loss=lambda y, p: ops.mean(ops.exp(p) - y * p)), X, Y / 2),
    ),
    "loss-mismatch that asks of each class": (
        {},
        (),
        (classes("binary_crossentropy", "sigmoid"), X, np.eye(3, dtype="float32")[LABELS]),
        (classes("categorical_crossentropy"), X, np.eye(3, dtype="float32")[LABELS]),
    ),
    "loss-mismatch of numbered classes": ({}, (), (classes("mse", None, 1), X, LABELS), (classes(SPARSE()), X, LABELS)),
    "loss-mismatch that discourages": (
        {},
        (),
        (model(lambda y, p: ops.mean((y - ops.mean(y)) * p) + 0.1 * ops.mean(p**2)), X, Y),
        (model(lambda y, p: -ops.mean((y - ops.mean(y)) * p) + 0.1 * ops.mean(p**2)), X, Y),
    ),
    "data-leak by an input that is the target": (
        {},
        (),
        (two_inputs(), {"past": X, "fed": LINE * X}, LINE * X),
        (two_inputs(), {"past": X, "fed": X}, LINE * X),
    ),
    "data-leak of an input of its own": (
        {"input": "fed"},
        (),
        (two_inputs(), {"past": X, "fed": np.repeat(3 * Y - 1, 3, axis=1)}, Y),
        (two_inputs(), {"past": X, "fed": X}, Y),
    ),
    "data-leak of steps ahead": (
        {"timestep": 23},
        (),
        (model(), smoothed(ahead=3), Y),
        (model(), smoothed(ahead=0), Y),
    ),
    "data-volume of one batch kept": ({}, (), (keeping(kept=True), X, Y), (keeping(kept=False), X, Y)),
}


CHECKS = {
    "loss-degenerate the wrong way round": "loss that wants other answers",
    "output-activation taken twice": asked_loss.BEYOND,
}
"""Where a form is for the finding of one check alone."""


def case_of(subject):
    made, x, y = subject
    return Case(made, Batch(x, y), Fingerprint("check", "check", None, None))


@pytest.mark.parametrize("name", CASES)
def test_the_lines_find_the_sick_case_and_pass_the_healthy_one(name):
    where, evidence, sick, healthy = CASES[name]
    finding = Finding(
        name.partition(" ")[0],
        Status.FAIL,
        Role.CAUSE,
        "sick",
        where={"phase": "data", **where},
        evidence=evidence,
        check=CHECKS.get(name, ""),
    )
    form = form_of(finding, case_of(sick))
    assert form is not None
    lines = lines_of(form, finding, case_of(sick))
    assert lines is not None
    assert not _wrong(lines, case_of(healthy))
    assert form_of(finding, case_of(healthy)) is None


class Partly(keras.Sequential):
    """A step of one's own that leaves out the first layer: its weights, or the way back to it."""

    def __init__(self, left_out, **named):
        super().__init__([keras.Input((3,)), layers.Dense(4), layers.Dense(1)], **named)
        self.left_out = left_out

    def train_step(self, data):
        x, y = data
        self.zero_grad()
        h = self.layers[0](x)
        answer = self.layers[1](h.detach() if self.left_out == "way" else h)
        self.compute_loss(x, y, answer).backward()
        pairs = [(v.value.grad, v) for v in self.trainable_variables if v.value.grad is not None]
        self.optimizer.apply(*zip(*pairs[2 if self.left_out == "weights" else 0 :], strict=True))
        return {}


def partly(left_out):
    keras.utils.set_random_seed(0)
    made = Partly(left_out)
    made.compile("sgd", "mse")
    return made


def cut_below_zero(y, p):
    return ops.mean(ops.square(ops.relu(y) - ops.relu(p)))


def two_heads(activation):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3,))
    made = keras.Model(
        inputs, {n: layers.Dense(1, activation=a, name=n)(inputs) for n, a in (("a", activation), ("b", None))}
    )
    made.compile("sgd", {"a": "mse", "b": "mse"})
    return made


TABLE = np.random.default_rng(4).normal(size=(120, 4)).astype("float32")
JOINED = np.repeat(TABLE[:60], 2, axis=0)
ASKED = np.repeat(TABLE[:30, :1].reshape(30, 1), 4, axis=0) * np.tile([[1.0], [2.0]], (60, 1)).astype("float32")


def half_hours(ahead):
    readings = np.cumsum(np.random.default_rng(5).normal(size=(60, 8)), axis=1)
    between = (readings[:, :-1] + readings[:, 1:]) / 2 if ahead else readings[:, :-1]
    x = np.stack([readings[:, :-1], between], axis=2).reshape(60, 14, 1).astype("float32")
    return x, readings[:, -1:].astype("float32")


ENDS = np.random.default_rng(6).integers(2, 9, (60, 5)).astype("int32")
KINDS = np.arange(60) % 2
MARKED = np.concatenate([ENDS, np.where(KINDS, 1, ENDS[:, 0])[:, None]], axis=1).astype("int32")

WINDOWS = RNG.normal(size=(32, 8, 1))
ROWS = np.eye(3, dtype="float32")[LABELS]
LABELLED = (RNG.random((32, 3)) < 0.5).astype("float32")
LABELLED[0] = 1.0
LONG = RNG.normal(size=(4, 4, 3)).astype("float32")
LONGER = RNG.normal(size=(32, 9, 2))
HALVES = np.arange(32) % 2
SIX = np.repeat(Y, 6, axis=1)
COURSES = np.sin(np.arange(12) / 3 + RNG.uniform(0, 6, (32, 3, 1))).astype("float32")
IDS = RNG.integers(0, 4, (32, 2))


def labelled(activation):
    inputs = keras.Input((3,))
    made = keras.Model(inputs, {"a": DENSE(3, activation)(inputs), "b": DENSE(1)(inputs)})
    made.compile("sgd", {"a": "binary_crossentropy", "b": "mse"})
    return made


class Held(Stepping):
    """A step of one's own that may go on with the batch that it was given first."""

    kept = None

    def train_step(self, data):
        self.kept = self.kept or data
        return super().train_step(self.kept)


def held(*, first):
    keras.utils.set_random_seed(0)
    made = (Held if first else Stepping)([keras.Input((3,)), layers.Dense(1)])
    made.compile("sgd", "mse")
    return made


def trusting(column):
    return lambda y, p: ops.mean(y[:, column] * ops.square(y[:, :1] - p))


NUMBERS = RNG.integers(1, 9, (32, 6)).astype("float32")


def crossed():
    inputs = keras.Input((3,))
    made = keras.Model(inputs, [DENSE(1, "sigmoid")(inputs), DENSE(1)(inputs)])
    made.compile("sgd", ["binary_crossentropy", "mse"])
    return made


def surprise(y, p):
    return -ops.mean(ops.sum(y * ops.log(p + 1e-7), axis=-1))


class PlainError(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return ops.mean(ops.abs(y_true - y_pred), axis=-1)


def shared(*, listed=False):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3,))
    h = DENSE(4)(inputs)
    heads = {name: DENSE(1)(h) for name in ("a", "b")}
    made = keras.Model(inputs, list(heads.values()) if listed else heads)
    made.compile("sgd", ["mse", "mse"] if listed else {"a": "mse", "b": "mse"})
    return made


class Listed(keras.Model):
    """Layers in a list, which no graph shows."""

    def __init__(self, size):
        super().__init__()
        wide = keras.initializers.RandomNormal(stddev=size, seed=0)
        self.hidden = [DENSE(4, "tanh", kernel_initializer=wide) for _ in range(2)]
        self.out = DENSE(1)
        self.compile("sgd", "mse")

    def call(self, x):
        for layer in self.hidden:
            x = layer(x)
        return self.out(x)


def looked_up(start):
    return layers.Embedding(4, 3, embeddings_initializer=start, trainable=False)


OF_A_FORM = {
    "fading both ways": (asked_model.fading_both_ways, {}, "", (deep(0.05), X, Y), (deep(0.5), X, Y)),
    "unmoved": (asked_model.unmoved, {}, "", (partly("weights"), X, Y), (partly(""), X, Y)),
    "unreached": (asked_model.unreached, {}, "", (partly("way"), X, Y), (partly(""), X, Y)),
    "blind": (
        asked_loss.blind_answers,
        {},
        "",
        (chain(DENSE(1), layers.LayerNormalization()), X, Y),
        (chain(DENSE(4), layers.LayerNormalization(), DENSE(1)), X, Y),
    ),
    "silent": (
        asked_loss.silent_among_targets,
        {},
        asked_loss.BLIND,
        (model(cut_below_zero), X, -1 - Y),
        (model(cut_below_zero), X, 1 + Y),
    ),
    "one of two outputs": (
        asked_loss.targets_beyond,
        {"output": "a"},
        "",
        (two_heads("sigmoid"), X, {"a": 5 * Y - 3, "b": Y}),
        (two_heads(None), X, {"a": 5 * Y - 3, "b": Y}),
    ),
    "on a line": (
        asked_sight.along_one_line,
        {},
        asked_sight.CLASSES,
        (chain(DENSE(1), DENSE(5, "softmax"), loss=SPARSE()), X, LABELS),
        (chain(DENSE(3), DENSE(5, "softmax"), loss=SPARSE()), X, LABELS),
    ),
    "few numbers": (
        asked_sight.through_few_numbers,
        {},
        asked_sight.FEW,
        (chain(DENSE(1), DENSE(4), shape=(4,)), TABLE, TABLE),
        (chain(DENSE(3), DENSE(4), shape=(4,)), TABLE, TABLE),
    ),
    "nothing asked": (
        asked_loss.nothing_asked,
        {},
        "",
        (model(lambda y, p: ops.mean(ops.square(p - p))), X, Y),
        (model(), 0 * X, 0 * Y),
    ),
    "unheard output": (
        asked_loss.unheard_output,
        {},
        "",
        (model({"a": "mse", "b": lambda y, p: 0.0 * ops.mean(p)}, outputs=("a", "b")), X, {"a": Y, "b": Y}),
        (model({"a": "mse", "b": "mse"}, outputs=("a", "b")), 0 * X, {"a": 0 * Y, "b": 0 * Y}),
    ),
    "no gradient": (
        asked_model.without_gradient,
        {},
        "",
        (chain(DENSE(4), layers.Lambda(lambda z: ops.stop_gradient(z)), DENSE(1)), X, Y),
        (chain(DENSE(4), DENSE(1)), 0 * X, Y),
    ),
    "nearly inside": (
        asked_data.nearly_inside,
        {},
        "",
        (model(), np.c_[TABLE[:, :3], np.round(np.exp(TABLE[:, 3]), 2)], TABLE[:, 3:]),
        (model(), TABLE[:, :3], TABLE[:, 3:]),
    ),
    "joined": (asked_data.joined_rows, {}, "", (model(), JOINED, ASKED), (model(), TABLE, TABLE[:, :1])),
    "drawn ahead": (
        asked_data.drawn_ahead,
        {},
        "",
        (model(), *half_hours(ahead=True)),
        (model(), *half_hours(ahead=False)),
    ),
    "marked": (asked_data.marked_class, {}, "", (model(), MARKED, KINDS), (model(), ENDS, KINDS)),
    "copied inputs": (
        asked_data.copied_inputs,
        {},
        "",
        (tables(), {"a": X[:, 0], "b": X[:, 0]}, Y),
        (tables(), {"a": X[:, 0], "b": X[:, 1]}, Y),
    ),
    "half precision": (
        asked_data.lost_to_half,
        {},
        "",
        (model(), (20_000 + 5 * WINDOWS).astype("float16"), Y),
        (model(), (5 * WINDOWS).astype("float16"), Y),
    ),
    "one output of two": (
        asked_labels.shares_of_many,
        {"output": "a"},
        "",
        (labelled("softmax"), X, {"a": LABELLED, "b": Y}),
        (labelled("sigmoid"), X, {"a": LABELLED, "b": Y}),
    ),
    "all at once": (
        asked_labels.all_at_once,
        {},
        "",
        (classes(surprise, "sigmoid"), X, ROWS),
        (classes(surprise, "softmax"), X, ROWS),
    ),
    "shared weights": (
        asked_loss.loud_in_shared_weights,
        {},
        "",
        (shared(), X, {"a": Y, "b": 10_000 * Y}),
        (shared(), X, {"a": Y, "b": Y}),
    ),
    "a list of outputs": (
        asked_loss.loud_in_shared_weights,
        {},
        "",
        (shared(listed=True), X, [Y, 10_000 * Y]),
        (shared(listed=True), X, [Y, Y]),
    ),
    "steps of other steps": (
        asked_loss.shaped_otherwise,
        {},
        "",
        (chain(DENSE(1), loss=PlainError(), shape=(4, 3)), LONG, LONG[..., 0]),
        (chain(DENSE(1), loss=PlainError(), shape=(4, 3)), LONG, LONG[..., :1]),
    ),
    "crossed": (
        asked_step.crossed_rows,
        {},
        asked_step.CROSSED,
        (stepping(reset=True, loss=paired_wrongly), X, Y),
        (stepping(reset=True), X, Y),
    ),
    "faint beside cross entropy": (
        asked_loss.faint,
        {},
        "",
        (classes("mse", units=60), X, np.eye(60)[np.arange(32)]),
        (classes("categorical_crossentropy", units=60), X, np.eye(60)[np.arange(32)]),
    ),
    "steps behind": (
        asked_data.steps_behind,
        {"input": "plan"},
        "",
        (model(), {"past": LONGER, "plan": LONGER[:, 5:, :1]}, Y),
        (model(), {"past": LONGER, "plan": LONGER[::-1, 5:, :1]}, Y),
    ),
    "only for one class": (
        asked_data.only_for_one_class,
        {},
        "",
        (model(), np.c_[X, HALVES * (2 + np.abs(Y[:, 0]))].repeat(2, 0), HALVES.repeat(2)),
        (model(), np.c_[X, 2 + np.abs(Y[:, 0])].repeat(2, 0), HALVES.repeat(2)),
    ),
    "breaks": (
        asked_model.breaks,
        {},
        "",
        (chain(DENSE(1, "exponential", dtype="mixed_float16")), 30 * np.abs(X), Y),
        (chain(DENSE(1, dtype="mixed_float16")), X, Y),
    ),
    "same loss": (
        asked_step.same_loss,
        {},
        "",
        (held(first=True), X, Y),
        (held(first=False), X, Y),
    ),
    "a dealt column": (
        asked_loss.dealt_column,
        {},
        "",
        (model(trusting(1)), X, np.c_[Y, np.abs(X[:, :1])]),
        (model(trusting(slice(1, 2))), X, np.c_[Y, np.abs(X[:, :1])]),
    ),
    "crossed outputs": (
        asked_labels.crossed_outputs,
        {},
        "",
        (crossed(), X, [Y, (Y > 1).astype("float32")]),
        (crossed(), X, [(Y > 1).astype("float32"), Y]),
    ),
    "numbers before gates": (
        asked_model.shut_by_numbers,
        {},
        asked_model.SIGNAL,
        (chain(layers.Reshape((6, 1)), layers.LSTM(4), shape=(6,)), 100 + 100 * NUMBERS, Y),
        (chain(layers.Reshape((6, 1)), layers.LSTM(4), shape=(6,)), NUMBERS / 100, Y),
    ),
    "one for several": (asked_loss.one_for_several, {}, "", (chain(DENSE(6)), X, Y), (chain(DENSE(6)), X, SIX)),
    "dealt in a step": (
        asked_step.dealt_in_a_step,
        {},
        "",
        (stepping(reset=True, loss=paired_wrongly, optimizer="adam"), X, Y),
        (stepping(reset=True, loss="mse", optimizer="adam"), X, Y),
    ),
    "never moved": (
        asked_step.never_moved,
        {},
        "",
        (stepping(reset=True, optimizer=keras.optimizers.SGD(0.0)), X, Y),
        (stepping(reset=True), X, Y),
    ),
    "spoilt": (
        asked_step.spoilt_by_the_update,
        {"phase": "update"},
        "",
        (chain(layers.Dense(1, dtype="float16"), optimizer=keras.optimizers.Adam(epsilon=1e-8)), 0 * X, Y),
        (chain(layers.Dense(1), optimizer="adam"), 0 * X, Y),
    ),
    "softmax of shares": (
        asked_step.softmax_of_shares,
        {},
        "",
        (classes(softmax_again), X, ROWS),
        (classes(softmax_again, None), X, ROWS),
    ),
    "reshaped": (
        asked_step.reshaped_courses,
        {},
        asked_step.RESHAPED,
        (chain(layers.Reshape((12, 3)), DENSE(1), shape=(3, 12)), COURSES, Y),
        (chain(layers.Permute((2, 1)), DENSE(1), shape=(3, 12)), COURSES, Y),
    ),
    "units of an own model": (
        asked_model.flat_units,
        {},
        "",
        (Listed(100.0), X, Y),
        (Listed(0.1), X, Y),
    ),
    "an own tanh": (
        asked_model.flat_calls,
        {},
        "",
        (chain(DENSE(4), layers.Lambda(lambda z: ops.sigmoid(1e4 * z)), DENSE(1)), X, Y),
        (chain(DENSE(4), layers.Lambda(lambda z: ops.sigmoid(z)), DENSE(1)), X, Y),
    ),
    "an own relu": (
        asked_model.dead_calls,
        {},
        "",
        (chain(DENSE(4), layers.Lambda(lambda z: ops.relu(z - 100)), DENSE(1)), X, Y),
        (chain(DENSE(4), layers.Lambda(lambda z: ops.relu(z)), DENSE(1)), X, Y),
    ),
    "one row": (
        asked_model.one_row_for_all,
        {"parameter": "table"},
        "",
        (chain(looked_up("zeros"), shape=(2,)), IDS, Y),
        (chain(looked_up("uniform"), shape=(2,)), IDS, Y),
    ),
    "nothing is cheaper": (
        asked_loss.discouraged,
        {},
        "",
        (model("mape"), TABLE[:, :3], TABLE[:, 3:]),
        (model("mae"), TABLE[:, :3], TABLE[:, 3:]),
    ),
}


@pytest.mark.parametrize("name", OF_A_FORM)
def test_a_form_finds_its_sick_case_and_passes_the_healthy_one(name):
    form, where, check, sick, healthy = OF_A_FORM[name]
    finding = Finding("x", Status.FAIL, Role.CAUSE, "sick", where=where, check=check)
    lines = lines_of(form, finding, case_of(sick))
    assert lines is not None
    assert not _wrong(lines, case_of(healthy))


def test_zeros_beside_weights_that_differ_are_no_symmetry():
    finding = Finding("symmetric-init", Status.FAIL, Role.CAUSE, "sick")
    assert lines_of(asked_model.units_that_stay_equal, finding, case_of((factors("zeros"), X, X))) is not None
    assert lines_of(asked_model.units_that_stay_equal, finding, case_of((factors("glorot_uniform"), X, X))) is None


@pytest.mark.parametrize("form", [asked_step.batches_of_one, asked_loss.nothing_asked_of_a_batch])
def test_what_hangs_on_the_size_of_a_batch_reads_it_from_the_arguments(form):
    finding = Finding("batch-coupling", Status.FAIL, Role.CAUSE, "sick")
    made = (
        chain(DENSE(4), layers.BatchNormalization(), DENSE(1))
        if form is asked_step.batches_of_one
        else model(lambda y, p: ops.mean(ops.square(p - ops.mean(p, axis=0))))
    )
    case = case_of((made, X, Y))
    assert lines_of(form, finding, case.with_(fit={"batch_size": 1})) is not None
    assert lines_of(form, finding, case.with_(fit={"batch_size": 8})) is None
    assert lines_of(form, finding, case) is None


def test_class_weights_are_read_from_the_arguments():
    finding = Finding("data-imbalance", Status.FAIL, Role.CAUSE, "sick", where={"config_key": "class_weight"})
    case = case_of((classes(SPARSE()), X, LABELS))
    assert form_of(finding, case.with_(fit={"class_weight": {1: 2.0, 2: 1.0, 3: 1.0}})) is not None
    assert form_of(finding, case.with_(fit={"class_weight": {0: 2.0, 1: 1.0, 2: 1.0}})) is None
    assert form_of(finding, case) is None


@pytest.mark.parametrize("rate", [keras.optimizers.schedules.ExponentialDecay(0.01, 1, 0.9), 0.01])
def test_a_rate_is_asked_of_the_steps_that_are_planned(rate):
    told = (Evidence("value", 250, name=PLANNED),)
    finding = Finding("lr-too-low", Status.FAIL, Role.CAUSE, "sick", evidence=told)
    case = case_of((chain(DENSE(1), optimizer=keras.optimizers.Adam(rate)), X, Y))
    assert (lines_of(asked_model.rate_taken_away, finding, case) is None) == isinstance(rate, float)


def test_axes_are_held_against_what_was_expected():
    told = (Evidence("value", [8, 1], name=STEPS_AND_FEATURES),)
    finding = Finding("input-encoding", Status.FAIL, Role.CAUSE, "sick", evidence=told)
    swapped = WINDOWS.transpose(0, 2, 1)
    assert lines_of(asked_data.swapped_axes, finding, case_of((model(), swapped, Y))) is not None
    assert lines_of(asked_data.swapped_axes, finding, case_of((model(), WINDOWS, Y))) is None
