"""Pictures on the way: a run that is asked what it answers goes on bit for bit, and pays next to nothing."""

import itertools
import json

import keras
import numpy as np
import pytest
import torch

import tsguard
from tsguard.dataset import Data
from tsguard.report import dumps
from tsguard.train import snapshots
from tsguard.train.snapshots import Snapshots, chosen_epochs


class Counts(keras.layers.Layer):
    """Counts its calls in a variable and in an attribute, and draws from numpy: anything asked twice shows."""

    def build(self, shape):
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=False, name="count")
        self.calls = 0

    def call(self, x):
        self.calls += 1
        self.count.assign(self.count + 1)
        return x * float(1 + 1e-3 * np.random.random()) + 1e-3 * keras.ops.cast(self.count, x.dtype)


def program(outputs=6, activation=None, loss="mse"):
    keras.utils.set_random_seed(3)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((12, 2)), layers.GRU(6, dropout=0.2), Counts(), layers.Dense(8, "relu"),
            layers.BatchNormalization(), layers.Dropout(0.3), layers.Dense(outputs, activation),
        ]
    )  # fmt: skip
    model.compile(keras.optimizers.Adam(0.01), loss)
    return model


def series(rows=96):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 12, 2)).astype("float32")
    return x, np.stack([x[:, -1, 0] * k for k in range(1, 7)], axis=1)


def trained(*, watched, epochs=11, split=0.25):
    model, (x, y) = program(), series()
    guard = tsguard.Guard(out=None, diagnose=False, repro=False)
    keras.utils.set_random_seed(5)
    history = model.fit(
        x, y, epochs=epochs, batch_size=16, validation_split=split, verbose=0, callbacks=[guard] if watched else []
    )
    return model, history.history, guard


@pytest.fixture
def unhurried(monkeypatch):
    """Time for every picture, however busy the machine is."""
    monkeypatch.setattr(snapshots, "TIME_FREE_S", 1e9)


@pytest.mark.usefixtures("unhurried")
def test_a_run_that_is_asked_goes_on_bit_for_bit():
    plain, history, _ = trained(watched=False)
    asked, same, guard = trained(watched=True)
    shots = guard.report.figures["snapshots"]
    assert [shot["epochs"] for shot in shots] == [1, 5, 10, 11]
    assert same == history
    assert all(torch.equal(a.value, b.value) for a, b in zip(plain.variables, asked.variables, strict=True))
    slots = zip(plain.optimizer.variables, asked.optimizer.variables, strict=True)
    assert all(torch.equal(a.value, b.value) for a, b in slots)
    assert plain.layers[1].calls == asked.layers[1].calls


def test_pictures_hold_answers_truth_quality_and_idle_units_in_a_few_kilobytes():
    model, _, guard = trained(watched=True)
    shots = guard.report.figures["snapshots"]
    for shot in shots:
        assert len(shot["edges"]) == snapshots.BINS + 1
        assert sum(shot["true"]) == sum(shot["predicted"]) == 24 * 6, "a quarter of 96 rows, six places each"
        assert 0 <= shot["outside"] <= 1
        assert {"r2", "std_ratio", "correlation"} <= set(shot["metrics"])
    assert shots[0]["edges"] == shots[-1]["edges"], "the same bins, or nobody could compare"
    paths = {layer.path for layer in model.layers}
    assert set(shots[0]["idle"]) <= paths
    assert len(dumps(shots)) < 12_000
    assert json.loads(dumps(guard.report.figures))


@pytest.mark.usefixtures("unhurried")
def test_without_arrays_for_validation_the_recorded_batch_is_asked():
    x, y = series()
    model = program()
    guard = tsguard.Guard(out=None, diagnose=False, repro=False)

    class Batches(keras.utils.PyDataset):
        def __init__(self):
            super().__init__()
            self.read = []

        def __len__(self):
            return 6

        def __getitem__(self, at):
            self.read.append(at)
            return x[16 * at : 16 * at + 16], y[16 * at : 16 * at + 16]

    plain, watched = Batches(), Batches()
    program().fit(plain, epochs=2, verbose=0, shuffle=False)
    model.fit(watched, epochs=2, verbose=0, shuffle=False, callbacks=[guard])
    assert watched.read == plain.read, "nothing is read for a picture"
    assert [shot["epochs"] for shot in guard.report.figures["snapshots"]] == [1, 2]


def test_classes_are_counted():
    x, _ = series()
    model = program(3, "softmax", "sparse_categorical_crossentropy")
    guard = tsguard.Guard(out=None, diagnose=False, repro=False)
    model.fit(x, np.arange(96) % 3, epochs=1, verbose=0, callbacks=[guard])
    shot = guard.report.figures["snapshots"][0]
    assert shot["classes"] == [0, 1, 2]
    assert sum(shot["true"]) == sum(shot["predicted"])
    assert "recall_min" in shot["metrics"]


def test_a_model_that_cannot_be_asked_trains_on_and_the_page_says_why():
    class OnlyTraining(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(6)
            self.trained = False

        def train_step(self, data):
            self.trained = True
            return super().train_step(data)

        def call(self, x, training=None):
            if self.trained and not training:
                raise RuntimeError("this model has no inference")
            return self.dense(x[:, -1])

    x, y = series()
    model = OnlyTraining()
    model.compile("adam", "mse")
    guard = tsguard.Guard(out=None, diagnose=False, repro=False)
    model.fit(x, y, epochs=2, verbose=0, callbacks=[guard])
    assert guard.report.verdict
    note = guard.report.figures["snapshots_note"]
    assert "RuntimeError" in note
    assert "this model has no inference" in note
    assert "\x1b" not in note


def test_epochs_are_chosen_ever_further_apart():
    assert list(itertools.islice(chosen_epochs(), 9)) == [1, 5, 10, 20, 50, 100, 200, 500, 1000]


@pytest.mark.parametrize(("pause", "taken"), [(0.0, [1]), (1000.0, [1, 5, 10])])
def test_pictures_take_no_more_than_their_share_of_the_time(pause, taken):
    now = [0.0]

    class Slow(Snapshots):
        def _take(self, model, done, data):
            now[0] += 1.0
            self.taken.append({"epochs": done})

    shots = Slow(clock=lambda: now[0])
    for epoch in range(10):
        now[0] += pause
        shots.after(None, epoch, lambda: None)
    assert [shot["epochs"] for shot in shots.taken] == taken


@pytest.mark.usefixtures("unhurried")
def test_targets_without_a_spread_and_answers_that_are_not_finite_are_no_reason_to_fail():
    model = program()
    shots = Snapshots()
    x, y = series()
    shots.after(model, 0, lambda: Data(x, np.zeros_like(y)))
    model.layers[-1].kernel.assign(np.full(model.layers[-1].kernel.shape, np.nan))
    shots.after(model, 4, lambda: None)
    assert shots.note == ""
    assert sum(shots.taken[-1]["predicted"]) == 0
