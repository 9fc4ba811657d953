"""Findings of checks in a few lines: they find the sick case and pass the healthy one."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from tsguard.evidence import Evidence
from tsguard.findings import Finding, Role, Status
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


CODE = (Evidence("value", {"value": -200.0, "count": 8}, name="1"),)
CASES = {
    "data-scale": ({"feature": 0}, (), (model(), scaled(2e4), Y), (model(), X, Y)),
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
    "loss-term-dominates of an own loss": ({}, (), (terms(1e7), X, Y), (terms(1.0), X, Y)),
}


def case_of(subject):
    made, x, y = subject
    return Case(made, Batch(x, y), Fingerprint("check", "check", None, None))


@pytest.mark.parametrize("name", CASES)
def test_the_lines_find_the_sick_case_and_pass_the_healthy_one(name):
    where, evidence, sick, healthy = CASES[name]
    finding = Finding(
        name.partition(" ")[0], Status.FAIL, Role.CAUSE, "sick", where={"phase": "data", **where}, evidence=evidence
    )
    form = form_of(finding, case_of(sick))
    assert form is not None
    lines = lines_of(form, finding, case_of(sick))
    assert lines is not None
    assert not _wrong(lines, case_of(healthy))
    assert form_of(finding, case_of(healthy)) is None
