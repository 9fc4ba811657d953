"""What scripts call, on programs as people write them: frames, mistakes, short runs."""

import warnings

import keras
import numpy as np
import pandas as pd
import pytest
from keras import layers, ops

import tsguard
from tsguard import commands
from tsguard.checks.data_parts import another_amount
from tsguard.checks.registry import Context
from tsguard.dataset import Data
from tsguard.errors import ConfigError, DataError, StoreError, SubjectError
from tsguard.store import RunFolder


def table(rows=128):
    x = np.random.default_rng(0).normal(size=(rows, 6)).astype("float32")
    return x, (2 * x[:, :1] + x[:, 1:2]).astype("float32")


def perceptron(loss="mse", width=6, rate=0.01):
    model = keras.Sequential([keras.Input((width,)), layers.Dense(16, activation="relu"), layers.Dense(1)])
    model.compile(keras.optimizers.Adam(rate), loss)
    return model


def crashed(report):
    return [finding for finding in report.findings if finding.status == "ERROR"]


def test_frames_and_series_are_read_as_keras_reads_them():
    x, y = table()
    data = Data(pd.DataFrame(x, columns=list("abcdef")), pd.Series(y[:, 0]))
    assert data.names == tuple("abcdef")
    assert data.x.shape == (128, 6)
    assert data.y.shape == (128, 1)
    inputs, targets, _ = data.take([5, 3])
    assert np.array_equal(inputs, x[[5, 3]])
    assert np.array_equal(targets, y[[5, 3]])


@pytest.mark.slow
def test_a_check_of_frames_names_the_column():
    x, y = table()
    x[3, 1] = np.nan
    report = tsguard.check(perceptron(), pd.DataFrame(x, columns=list("abcdef")), pd.Series(y[:, 0]))
    found = next(f for f in report.causes if f.code == "data-nonfinite")
    assert found.where["feature"] == "b"
    assert found.where["row"] == 3
    assert not crashed(report)


@pytest.mark.parametrize("rows", [0, 50])
def test_rows_that_do_not_agree_are_a_mistake_in_words(rows):
    x, y = table()
    with pytest.raises(DataError, match="the same number of samples"):
        tsguard.check(perceptron(), x[:rows] if not rows else x, y[:rows])


def test_an_argument_that_fit_does_not_have_is_told_before_anything_runs(tmp_path):
    x, y = table()
    with pytest.raises(ConfigError, match=r"received epoch\. Expected arguments of model\.fit"):
        tsguard.fit(perceptron(), x, y, out=tmp_path, epoch=3)


def test_an_input_that_padding_names_and_the_model_lacks_is_a_mistake_in_words():
    x, y = table()
    with pytest.raises(ConfigError, match="received the input name 'nope'"):
        tsguard.check(perceptron(), x, y, padding=tsguard.Padding(mask="nope"))


class Broken(keras.Model):
    def __init__(self):
        super().__init__()
        self.out = layers.Dense(1)

    def call(self, x):
        raise ValueError("no such key")


def test_a_model_that_raises_is_one_finding_with_its_line():
    x, y = table()
    model = Broken()
    model.compile("adam", "mse")
    report = tsguard.check(model, x, y)
    (found,) = report.causes
    assert found.code == "step-fails"
    assert found.status == "FAIL"
    assert "no such key" in found.message
    assert found.where["phase"] == "forward"
    assert found.where["file"] == __file__
    assert not crashed(report)


def test_data_of_the_wrong_width_is_one_finding():
    x, y = table()
    report = tsguard.check(perceptron(width=5), x, y)
    assert [f.code for f in report.causes] == ["step-fails"]
    assert "expected axis -1" in report.causes[0].message


@pytest.mark.slow
def test_a_healthy_run_that_is_short_is_not_failed(tmp_path):
    x, y = table(256)
    report = tsguard.fit(perceptron(), x, y, epochs=1, verbose=0, out=tmp_path)
    assert not [f.code for f in report.findings if f.status in ("FAIL", "ERROR")]


def log_of_anything(target, answer):
    return ops.mean(helper(answer) + target)


def helper(answer):
    return ops.log(answer - 9.0)


@pytest.mark.slow
@pytest.mark.parametrize("loss", [lambda target, answer: ops.mean(ops.log(answer - 9.0) + target), log_of_anything])
def test_a_loss_of_ones_own_is_written_into_the_reproduction(loss, tmp_path):
    x, y = table()
    guard = tsguard.Guard(out=None, repro=False, diagnose=False)
    perceptron(loss).fit(x, y, callbacks=[guard], verbose=0)
    script = tsguard.reduce(guard.report, budget_s=10).save(tmp_path)
    text = script.read_text()
    compile(text, str(script), "exec")
    assert "<lambda>" not in text


def test_the_index_column_of_a_frame_written_to_csv_is_no_fault(tmp_path):
    path = tmp_path / "d.csv"
    pd.DataFrame({"v": np.random.default_rng(0).normal(size=50)}).to_csv(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = tsguard.audit(path)
    assert not [f for f in report.findings if f.status in ("FAIL", "ERROR")]


class Sampled(keras.Model):
    def __init__(self):
        super().__init__()
        self.inner, self.out = layers.Dense(4), layers.Dense(1)
        self.seeds = keras.random.SeedGenerator(1)

    def call(self, x):
        latent = self.inner(x)
        return self.out(latent + 0.1 * keras.random.normal(ops.shape(latent), seed=self.seeds))


def test_a_latent_that_is_always_sampled_is_told_and_not_failed():
    x, y = table()
    model = Sampled()
    model.compile("adam", "mse")
    report = tsguard.check(model, x, y)
    found = [f for f in report.causes if f.code == "nondeterministic"]
    assert [str(f.status) for f in found] == ["WARN"]


@pytest.mark.slow
def test_several_labels_at_once_that_are_learned_are_not_failed(tmp_path):
    x, _ = table(256)
    model = keras.Sequential([keras.Input((6,)), layers.Dense(4, activation="sigmoid")])
    model.compile(keras.optimizers.Adam(0.05), "binary_crossentropy")
    report = tsguard.fit(model, x, (x[:, :4] > 0).astype("float32"), epochs=20, verbose=0, out=tmp_path)
    assert report.metrics["accuracy"] > 0.9
    assert not [f.code for f in report.findings if f.status in ("WARN", "FAIL", "ERROR")]


def test_a_loss_that_raises_is_one_finding():
    x, y = table()

    def loss(target, answer):
        raise TypeError("unsupported operand")

    report = tsguard.check(perceptron(loss), x, y)
    assert [f.code for f in report.causes] == ["step-fails"]
    assert not crashed(report)


def test_a_list_of_numbers_is_a_mistake_in_words():
    x, y = table()
    with pytest.raises(DataError, match="y: received a list of numbers"):
        tsguard.check(perceptron(), x, y[:, 0].tolist())


class OwnStep(keras.Model):
    def __init__(self):
        super().__init__()
        self.out = layers.Dense(1)

    def call(self, x):
        return self.out(x)

    def train_step(self, data):
        x, y = data
        self.zero_grad()
        loss = ops.mean(ops.square(self(x) - y))
        loss.backward()
        weights = self.trainable_weights
        self.optimizer.apply([weight.value.grad for weight in weights], weights)
        return {"loss": loss}


def test_the_loss_of_a_step_of_ones_own_is_the_steps_and_not_that_of_a_tracker_nobody_fed():
    x, y = table()
    model = OwnStep()
    model.compile("adam", "mse")
    guard = tsguard.Guard(out=None)
    model.fit(x, y, callbacks=[guard], verbose=0)
    assert guard.report.metrics["loss"] > 0.1


def test_a_plan_may_name_the_model_that_weights_came_from(tmp_path):
    x, y = table()
    for source in (perceptron(), perceptron().get_weights()):
        plan = {"transferred_from": source, "samples": [1, 500]}
        report = tsguard.fit(perceptron(), x, y, plan=plan, epochs=1, verbose=0, out=tmp_path)
        assert report.plan["samples"] == [1, 500]
        assert isinstance(report.plan["transferred_from"], str)
        assert any(finding.code == "transfer-nothing" for finding in report.findings)


@pytest.mark.parametrize(
    ("plan", "words"),
    [({"sample": 5}, "sample.*batches_per_epoch"), ({"samples": "lots"}, "'lots'.*'25..50'")],
)
def test_a_plan_that_says_nothing_is_a_mistake_in_words(plan, words, tmp_path):
    with pytest.raises(ConfigError, match=words):
        tsguard.fit(perceptron(), *table(), plan=plan, out=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("bound", "status"), [(">= 100", set()), (">= 1000", {"FAIL"}), ("< 128", {"FAIL"})])
def test_a_plan_may_declare_a_bound_on_the_samples(bound, status):
    context = Context(data=Data(*table()), declared={"samples": bound})
    assert {finding.status for finding in another_amount(context)} == status


def test_a_run_of_a_script_is_held_against_an_accepted_one(tmp_path):
    x, y = table()
    arguments = {"epochs": 1, "verbose": 0, "preflight": False, "diagnose": False, "out": tmp_path}
    accepted = tsguard.fit(perceptron(), x, y, **arguments)
    for baseline in (accepted, accepted.run.folder):
        for demand, status in (("<= 100 x baseline", "PASS"), ("<= 0.001 x baseline", "FAIL")):
            report = tsguard.fit(perceptron(), x, y, gates={"loss": demand}, baseline=baseline, **arguments)
            assert report.verdict.status == status


@pytest.mark.parametrize("wrong", [{"inputs": "series"}, {"features": "mask"}, {"features": (2,)}, {"side": "top"}])
def test_a_padding_that_cannot_be_meant_is_told(wrong):
    with pytest.raises(ValueError, match="expected"):
        tsguard.Padding(**wrong)


class Recompiles(keras.callbacks.Callback):
    """Another optimizer in mid-run, and a poisoned weight after it."""

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 0:
            self.model.compile("sgd", "mse")
        else:
            self.model.layers[-1].bias.assign([np.nan])


def test_a_run_that_was_compiled_again_is_judged_all_the_same(tmp_path):
    x, y = table()
    guard = tsguard.Guard(out=tmp_path, repro=False)
    perceptron().fit(x, y, epochs=3, callbacks=[Recompiles(), guard], verbose=0)
    assert any(finding.status == "FAIL" for finding in guard.report.findings)
    assert not crashed(guard.report)


def test_a_mistake_in_the_judgement_leaves_the_report(tmp_path, monkeypatch):
    def broken(*arguments, **options):
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("tsguard.guarded.judge_run", broken)
    x, y = table()
    x[3] = np.nan
    guard = tsguard.Guard(out=tmp_path, repro=False)
    perceptron().fit(x, y, callbacks=[guard], verbose=0)
    (ours,) = crashed(guard.report)
    assert "ZeroDivisionError" in ours.message
    assert guard.report.causes[0].code == "data-nonfinite"


def test_a_disk_that_is_full_at_the_end_takes_nothing_of_the_training_away(tmp_path, monkeypatch):
    def full(*arguments):
        raise StoreError("no space left")

    monkeypatch.setattr("tsguard.guarded.written", full)
    x, y = table()
    guard = tsguard.Guard(out=tmp_path)
    perceptron().fit(x, y, callbacks=[guard], verbose=0)
    assert any("no space left" in finding.message for finding in crashed(guard.report))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"out": None}, "Guard.out=None"),
        ({"policy": "ignore"}, "rollback"),
        ({"epochs": 0}, "epochs=0"),
        ({"batch_size": -4}, "batch_size=-4"),
        ({"x": None}, "no x"),
    ],
)
def test_a_session_that_cannot_be_is_told_before_anything_is_written(wrong, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x, y = table()
    with pytest.raises((ConfigError, DataError), match=words):
        tsguard.fit(perceptron(), **{"x": x, "y": y, **wrong})
    assert not list(tmp_path.iterdir())


def test_what_needs_the_configuration_of_a_scripts_run_says_so(tmp_path):
    folder = RunFolder.create(tmp_path, "script").path
    for call in (lambda: tsguard.reduce(folder), lambda: commands.predict(folder, "new.csv")):
        with pytest.raises(SubjectError, match="a script made it"):
            call()


@pytest.mark.parametrize("axis", [0, 2, 9, -3])
def test_a_time_axis_that_an_input_does_not_have_is_a_mistake_in_words(axis):
    with pytest.raises(ConfigError, match=rf"axis {axis} of input .*which has 2 axes"):
        tsguard.check(perceptron(), *table(), padding=tsguard.Padding(inputs={"x": axis}))
