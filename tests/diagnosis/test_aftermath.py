"""What was feared before a run and what it came to; what a cause that needs no trial explains."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
from keras import layers

from tsguard import catalogue
from tsguard.checks.laws import findings_of
from tsguard.dataset import Data
from tsguard.diagnosis import Record, diagnose, settled
from tsguard.findings import causes
from tsguard.laws import LawResult
from tsguard.laws.results import Counterexample
from tsguard.probes.stage import Snapshot


def rare(*, seen, samples=900):
    """One row in fifteen is of the rare class, which stands apart from the others or does not."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    y = (rng.random(samples) < 1 / 15).astype("int32")
    x = (rng.normal(size=(samples, 4)) + (4.0 if seen else 0.3) * y[:, None]).astype("float32")
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8, "relu"), layers.Dense(1, "sigmoid")])
    model.compile(keras.optimizers.Adam(1e-2), "binary_crossentropy")
    model(x[:1])
    start = Snapshot(model)
    history = model.fit(x, y[:, None], epochs=6, batch_size=30, verbose=0).history
    series = {"loss": history["loss"], "epoch/loss": history["loss"]}
    return Record(model, Data(x, y[:, None], batch_size=30), start, series, {"epochs": 6, "batch_size": 30})


def test_an_imbalance_that_did_no_harm_is_a_note_after_the_run():
    feared = catalogue.finding("data-imbalance", "one class is rare.")
    (after,) = settled(rare(seen=True), [feared])
    assert (after.status, after.role) == ("PASS", "note")
    assert "no harm was done" in after.message
    assert settled(rare(seen=False), [feared]) == [feared]


def test_rare_rows_that_could_be_learned_by_heart_refute_nothing():
    feared = catalogue.finding("data-imbalance", "one class is rare.")
    few = rare(seen=True, samples=180)
    assert settled(few, [feared]) == [feared]
    x, y = few.data.x, few.data.y
    told = dataclasses.replace(few, data=Data(x, y, validation=(x, y), batch_size=30))
    assert settled(told, [feared])[0].status == "PASS"


def test_what_no_result_can_refute_stands():
    leak = catalogue.finding("data-leak", "the target is among the features.")
    assert settled(rare(seen=True), [leak]) == [leak]


def test_a_cause_that_fails_without_a_trial_explains_what_is_seen():
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(320, 5)).astype("float32")
    y = x[:, :1] - x[:, 1:2]
    model = keras.Sequential([keras.Input((5,)), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(50.0), "mse")
    model(x[:1])
    start, losses = Snapshot(model), [1.0, *[100.0 * 3.0**k for k in range(30)]]
    record = Record(model, Data(x, y, batch_size=32), start, {"loss": losses, "epoch/loss": losses}, {"epochs": 3})
    known = catalogue.finding("lr-too-high", "a tenth of the rate falls.", status="FAIL")
    found = diagnose(record, (known,), budget_s=0.0)
    assert causes(found)[0].code == "lr-too-high"
    assert "divergence" in causes(found)[0].explains


def test_what_only_other_data_could_break_warns_a_model_and_accuses_no_run():
    broken = Counterexample("a fully padded sample is harmless", "pad-all-masked", "1 sample, all padded.", grave=False)
    row = LawResult(broken.law, broken.code, "broken", counterexample=broken)
    assert [f.status for f in findings_of([row])] == ["WARN"]
    (told,) = findings_of([row], run=True)
    assert (told.status, told.role) == ("PASS", "note")
    assert "all padded" in told.message
    grave = Counterexample("a fully padded sample is harmless", "pad-all-masked", "1 sample, all padded.")
    assert [
        f.status for f in findings_of([LawResult(grave.law, grave.code, "broken", counterexample=grave)], run=True)
    ] == ["FAIL"]
