"""Findings about steps, losses and layers of one's own in a few lines: each finds the sick case, passes the healthy."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from tsguard.findings import Finding, Role, Status
from tsguard.repro.asked import lines_of
from tsguard.repro.asked_data import rare_class
from tsguard.repro.asked_labels import first_of_the_row
from tsguard.repro.asked_loss import of_any_size, sums_beside_the_classes
from tsguard.repro.asked_model import (
    CUT,
    cut_at_every_step,
    growing_steps,
    penalised_level,
    runs_away,
    shut_calls_by_inputs,
    stands_still,
    straight,
    unreached,
)
from tsguard.repro.asked_step import average_of_the_start, company, cut_in_the_step
from tsguard.repro.case import Batch, Case, Fingerprint

RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 3)).astype("float32")
Y = np.abs(RNG.normal(size=(32, 1))).astype("float32")
SERIES = RNG.normal(size=(32, 24, 3)).astype("float32")
KINDS = RNG.integers(0, 3, 32)
INDICATORS = np.eye(3, dtype="float32")[KINDS]


def chain(*layered, loss="mse", optimizer="sgd", shape=(3,), kind=keras.Sequential):
    keras.utils.set_random_seed(0)
    made = kind([keras.Input(shape), *layered])
    made.compile(optimizer, loss)
    return made


def found(form, model, x, y, fit=None, message="sick", check="", **where):
    """Whether the form's lines find the case wrong."""
    finding = Finding("code", Status.FAIL, Role.CAUSE, message, where={"phase": "data", **where}, check=check)
    return lines_of(form, finding, Case(model, Batch(x, y), Fingerprint("code", "check", None, None), fit=fit or {}))


class Cut(layers.SimpleRNNCell):
    def __init__(self, units, *, cut):
        super().__init__(units)
        self.cut = cut

    def call(self, inputs, states, training=False):
        return super().call(inputs, [ops.stop_gradient(one) if self.cut else one for one in states], training=training)


@pytest.mark.parametrize("sequences", [False, True])
def test_a_state_that_is_cut_off_at_every_step(sequences):
    def made(*, cut):
        cell = layers.RNN(Cut(4, cut=cut), name="visit", return_sequences=sequences)
        return chain(cell, layers.Dense(1), shape=(24, 3))

    asked = {"check": CUT, "layer": "outer/visit"}
    y = np.repeat(Y[:, None], 24, axis=1) if sequences else Y
    assert found(cut_at_every_step, made(cut=True), SERIES, y, **asked)
    assert not found(cut_at_every_step, made(cut=False), SERIES, y, **asked)
    assert not found(cut_at_every_step, chain(layers.Flatten(), layers.Dense(1), shape=(24, 3)), SERIES, Y, **asked)


@pytest.mark.parametrize("gain", [1.5, 1.0])
def test_a_gradient_that_grows_at_every_step(gain):
    cell = layers.SimpleRNN(4, activation=None, recurrent_initializer=keras.initializers.Identity(gain))
    sick = found(growing_steps, chain(cell, layers.Dense(1), shape=(24, 3)), SERIES, Y)
    assert bool(sick) == (gain > 1)


class Clipping(keras.Sequential):
    """A step of one's own with a threshold for its gradients."""

    threshold = 1.0

    def train_step(self, data):
        import torch

        x, y = data
        self.zero_grad()
        self.compute_loss(x, y, self(x, training=True)).backward()
        weights = self.trainable_variables
        torch.nn.utils.clip_grad_norm_([v.value for v in weights], self.threshold)
        with torch.no_grad():
            self.optimizer.apply([v.value.grad for v in weights], weights)
        return {}


@pytest.mark.parametrize(("threshold", "sick"), [(1e-5, True), (1.0, False), (1e3, False)])
def test_a_threshold_in_an_own_step(threshold, sick):
    made = chain(layers.Dense(1), kind=Clipping)
    made.threshold = threshold
    assert bool(found(cut_in_the_step, made, X, Y)) == sick


def test_a_step_of_keras_cuts_nothing():
    assert not found(cut_in_the_step, chain(layers.Dense(1), optimizer=keras.optimizers.SGD(clipnorm=1e-6)), X, Y)


class Zipping(keras.Model):
    """A step of one's own that pairs outputs with their weights, and those may be too few."""

    factors = (1.0, 1.0)

    def train_step(self, data):
        x, y = data
        self.zero_grad()
        pairs = zip(self.factors, y, self(x, training=True), strict=False)
        loss = sum(factor * ops.mean(ops.square(goal - answer)) for factor, goal, answer in pairs)
        loss.backward()
        return {"loss": loss}


@pytest.mark.parametrize("factors", [(1.0,), (1.0, 0.5)])
def test_an_output_that_falls_out_of_an_own_step(factors):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3,))
    made = Zipping(inputs, [layers.Dense(1)(inputs), layers.Dense(1)(inputs)])
    made.factors = factors
    made.compile("sgd", ["mse", "mse"])
    assert bool(found(unreached, made, X, [Y, Y])) == (len(factors) == 1)


@pytest.mark.parametrize(("size", "sick"), [(2, True), (16, False)])
@pytest.mark.parametrize("named", [False, True])
def test_answers_that_hang_on_their_batch(size, sick, named):
    entry = keras.Input((3,), name="table")
    made = keras.Model({"table": entry} if named else entry, layers.BatchNormalization()(layers.Dense(1)(entry)))
    made.compile("sgd", "mse")
    assert bool(found(company, made, {"table": X} if named else X, Y, {"batch_size": size})) == sick
    assert not found(company, chain(layers.Dense(1)), X, Y, {"batch_size": size})


@pytest.mark.parametrize(("momentum", "sick"), [(0.9999, True), (0.9, False)])
def test_an_average_that_is_still_the_start(momentum, sick):
    rule = keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=momentum)
    fit = {"epochs": 20, "batch_size": 8}
    assert bool(found(average_of_the_start, chain(layers.Dense(1), optimizer=rule), X, Y, fit)) == sick
    assert not found(average_of_the_start, chain(layers.Dense(1)), X, Y, fit)


@pytest.mark.parametrize(("rate", "form", "sick"), [(1e-7, stands_still, True), (0.1, stands_still, False),
                                                    (5.0, runs_away, True), (0.01, runs_away, False)])  # fmt: skip
def test_the_first_steps_of_several_inputs(rate, form, sick):
    keras.utils.set_random_seed(0)
    entries = {name: keras.Input((3,), name=name) for name in ("a", "b")}
    made = keras.Model(entries, layers.Dense(1)(layers.Add()(list(entries.values()))))
    made.compile(keras.optimizers.SGD(rate), "mse")
    lines = found(form, made, {"a": X, "b": X}, Y)
    assert bool(lines) == sick


class Restrained(keras.Sequential):
    """A loss of one's own with a penalty on every weight."""

    factor = 0.0

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return ops.mean(ops.square(y - y_pred)) + self.factor * sum(ops.sum(v**2) for v in self.trainable_variables)


@pytest.mark.parametrize(("factor", "level", "sick"), [(0.2, 30.0, True), (0.0, 30.0, False), (0.2, 0.0, False)])
def test_a_penalty_of_ones_own_on_a_bias(factor, level, sick):
    made = chain(layers.Dense(1), kind=Restrained)
    made.factor = factor
    assert bool(found(penalised_level, made, X, Y - Y.mean() + level)) == sick


@pytest.mark.parametrize(("size", "sick"), [(500.0, True), (1.0, False)])
def test_gates_that_inputs_of_their_size_shut(size, sick):
    made = chain(layers.LSTM(8), layers.Dense(1), shape=(24, 3))
    assert bool(found(shut_calls_by_inputs, made, size * SERIES, Y, layer="lstm")) == sick


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("end", ["softmax", None])
def test_a_straight_line_before_a_softmax(activation, end):
    made = chain(layers.Dense(16, activation=activation), layers.Dense(3, activation=end))
    assert bool(found(straight, made, X, KINDS)) == (activation is None)


def numbered(y, p):
    """Reads the number of a class from the first column of the truth."""
    picked = ops.one_hot(ops.cast(y[:, 0], "int32"), p.shape[-1])
    return -ops.mean(ops.log(ops.clip(ops.sum(picked * p, axis=-1), 1e-6, 1.0)))


def test_the_first_of_a_row_that_is_read_as_a_number():
    made = chain(layers.Dense(3, activation="softmax"), loss=numbered)
    assert found(first_of_the_row, made, X, INDICATORS)
    assert not found(first_of_the_row, made, X, KINDS[:, None].astype("float32"))
    assert not found(first_of_the_row, chain(layers.Dense(3), loss="categorical_crossentropy"), X, INDICATORS)


def test_classes_have_no_size():
    hits = chain(layers.Dense(3, activation="softmax"), loss=keras.losses.CosineSimilarity())
    assert found(of_any_size, hits, X, X)
    assert not found(of_any_size, hits, X, INDICATORS)


@pytest.mark.parametrize(("axis", "sick"), [(-1, True), (1, False)])
def test_shares_over_another_axis_than_that_of_the_classes(axis, sick):
    made = chain(layers.Dense(4), layers.Permute((2, 1)), layers.Softmax(axis=axis), shape=(24, 3))
    assert bool(found(sums_beside_the_classes, made, SERIES, RNG.integers(0, 4, (32, 24)))) == sick


@pytest.mark.parametrize(("weights", "sick"), [({}, True), ({0: 0.1, 1: 5.0}, False), ({0: 2.0, 1: 2.0}, True)])
def test_a_rare_class_that_is_weighed_is_known(weights, sick):
    y = np.repeat([0, 1], [38, 2])
    made = chain(layers.Dense(2, activation="softmax"), loss="sparse_categorical_crossentropy")
    assert bool(found(rare_class, made, X, y, {"class_weight": weights})) == sick
