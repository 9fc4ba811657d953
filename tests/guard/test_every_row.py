"""A row that breaks is found in a forward pass before the run, and the row that broke val_loss after it."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from tsguard.checks.registry import Context
from tsguard.dataset import Data
from tsguard.findings import Status
from tsguard.guard import every_row
from tsguard.guard.callback import Guard
from tsguard.subject import Subject

ROW = 311


class Standardise(layers.Layer):
    def call(self, z):
        return (z - ops.mean(z, axis=1, keepdims=True)) / ops.std(z, axis=1, keepdims=True)


def model_of(*hidden, loss="mse"):
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6, 4)), *hidden, layers.Flatten(), layers.Dense(1)])
    model.compile("adam", loss)
    return model


def data(rows=400):
    rng = np.random.default_rng(0)
    return rng.uniform(0.5, 1.5, (rows, 6, 4)).astype("float32"), rng.normal(size=(rows, 1)).astype("float32")


def asked(model, x, y, budget_s=60.0):
    context = Context(subject=Subject.of(model), data=Data(x, y), budget_s=budget_s)
    return list(every_row.CHECK.ask(context))


def test_a_constant_window_in_one_row_is_named_before_any_step():
    x, y = data()
    assert asked(model_of(Standardise(name="own")), x, y) == []
    x[ROW, :, 1] = 1.0
    (finding,) = asked(model_of(Standardise(name="own")), x, y)
    where = finding.where
    assert (finding.code, where["op"], where["layer"].split("/")[-1]) == ("nonfinite-forward", "div", "own")
    assert (where["row"], where["feature"]) == (ROW, 1)
    assert "step" not in where
    assert "before any step was taken" in finding.message
    assert f"row {ROW} of the data set" in finding.message


def test_a_loss_that_one_target_breaks_is_named():
    def relative(y, p):
        return ops.mean(ops.abs(y - p) / ops.abs(y))

    x, y = data()
    y[ROW] = 0.0
    (finding,) = asked(model_of(loss=relative), x, y)
    assert (finding.where["op"], finding.where["phase"], finding.where["row"]) == ("div", "loss", ROW)


def test_infinities_that_the_loss_absorbs_and_bad_data_are_no_matter_of_this_check():
    x, y = data()
    masked = layers.Lambda(lambda z: ops.where(ops.isinf(z / (z - z)), 0.0, z))
    assert asked(model_of(masked), x, y) == []
    x[ROW, 1, 1] = np.nan
    assert asked(model_of(), x, y) == []


def test_the_pass_keeps_to_its_time_and_leaves_the_model_as_it_was():
    x, y = data()
    model = model_of(layers.BatchNormalization(), layers.Dropout(0.5))
    before = [v.value.detach().clone() for v in model.variables]
    clock = iter(range(100))
    batches = Data(x, y).batches()
    found = every_row.passed(model, batches, seconds=4.5, clock=lambda: float(next(clock)))
    assert not found.complete
    assert found.rows == 4 * 32
    assert all(bool((old == v.value).all()) for old, v in zip(before, model.variables, strict=True))


@pytest.mark.parametrize("sick", [True, False])
def test_the_operation_behind_a_validation_loss_of_nan_is_named(sick):
    x, y = data(64)
    held, targets = data(40)
    if sick:
        held[17, 3, 2] = 0.0
    model, guard = model_of(layers.Lambda(lambda z: ops.log(z), name="own")), Guard(out=None)
    model.fit(x, y, validation_data=(held, targets), epochs=2, verbose=0, callbacks=[guard])
    failed = [f for f in guard.report.findings if f.status >= Status.FAIL]
    assert bool(failed) == sick
    if sick:
        where = failed[0].where
        assert (where["op"], where["split"], where["row"], where["epoch"]) == ("log", "val", 17, 0)
        assert (where["timestep"], where["feature"]) == (3, 2)
