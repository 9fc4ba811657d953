"""Loops of one's own: the model's part of a bad step is run again, the loss is told from its graph."""

import keras
import numpy as np
import pytest
import torch
from keras import layers, ops

from tsguard.findings import Status
from tsguard.guard.callback import Guard

ROW, BATCH = 29, 8


class Own(layers.Layer):
    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function

    def build(self, shape):
        self.gamma = self.add_weight(shape=(), initializer="ones")

    def call(self, z):
        return self.function(z + z * (self.gamma - ops.stop_gradient(self.gamma)))


def data():
    rng = np.random.default_rng(0)
    x = rng.uniform(0.5, 1.5, (64, 6, 4)).astype("float32")
    return x, rng.normal(size=(64, 1)).astype("float32")


def mse(p, t):
    return ((p - t) ** 2).mean()


def loop(function, x, y, loss=mse, guard=None):
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 4))
    hidden = layers.Dropout(0.2)(layers.Flatten()(Own(function, name="own")(inputs)))
    model = keras.Model(inputs, layers.Dense(1)(hidden))
    optimizer = keras.optimizers.Adam(1e-3)
    model.compile(optimizer)

    def train():
        for start in range(0, len(x), BATCH):
            model.zero_grad()
            target = torch.from_numpy(y[start : start + BATCH])
            value = loss(model(x[start : start + BATCH], training=True), target)
            value.backward()
            with torch.no_grad():
                optimizer.apply([v.value.grad for v in model.trainable_variables], model.trainable_variables)
            if guard is not None and guard.stopped:
                break

    if guard is None:
        train()
    else:
        with guard.watching(model):
            train()
    return model


def weights(model):
    return [v.value.detach().numpy().tobytes() for v in [*model.variables, *model.optimizer.variables]]


@pytest.mark.parametrize(("function", "op", "phase"), [(ops.log, "log", "forward"), (ops.sqrt, "sqrt", "backward")])
def test_the_operation_in_the_model_is_named_with_layer_line_and_element(function, op, phase):
    x, y = data()
    x[ROW, 4, 2] = 0.0
    guard = Guard(out=None)
    model = loop(lambda z: function(z), x, y, guard=guard)
    finding = guard.report.findings[0]
    where = finding.where
    assert (where["op"], where["phase"], where["layer"].split("/")[-1], where["step"]) == (op, phase, "own", 3)
    assert (where["sample"], where["timestep"], where["feature"]) == (ROW % BATCH, 4, 2)
    assert where["file"] == __file__
    assert finding.role == "cause"
    assert all(np.isfinite(v.value.detach().numpy()).all() for v in model.variables)
    assert "call" not in model.__dict__


def test_an_operation_of_the_loops_own_loss_is_told_without_its_line():
    x, y = data()
    y[ROW] = 0.0
    guard = Guard(out=None)
    loop(lambda z: z, x, y, lambda p, t: mse(p, t) - 1e-3 * torch.log(t.abs() * p.abs()).mean(), guard)
    finding = guard.report.findings[0]
    assert (finding.where["op"], finding.where["phase"], finding.where["sample"]) == ("log", "loss", ROW % BATCH)
    assert "the line is not known" in finding.message


def test_a_loss_whose_backward_breaks_is_told_from_the_model():
    x, y = data()
    y[ROW] = 0.0
    guard = Guard(out=None)
    loop(lambda z: z, x, y, lambda p, t: torch.sqrt(((p * t) ** 2).sum(-1)).mean(), guard)
    finding = guard.report.findings[0]
    assert (finding.code, finding.where["phase"]) == ("nonfinite-backward", "backward")
    assert "op" not in finding.where
    assert "train_on_batch" in finding.message


def test_a_healthy_loop_keeps_every_bit():
    guard = Guard(out=None)
    assert weights(loop(ops.tanh, *data())) == weights(loop(ops.tanh, *data(), guard=guard))
    assert all(f.status < Status.FAIL for f in guard.report.findings)
    assert guard.outcome.steps == 8
