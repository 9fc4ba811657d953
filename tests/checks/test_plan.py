"""The plan: forecasts that can be believed, plans that are missed, and state that a checkpoint would lose."""

import keras
import numpy as np
import pytest
import torch

import tsguard
from tsguard.checks import plan, registry
from tsguard.checks.outturn import off_plan, within
from tsguard.checks.runner import run_checks
from tsguard.dataset import Data
from tsguard.errors import GateError
from tsguard.findings import Status
from tsguard.subject import Subject

registry.all_checks()
MINE = tuple(one for one in registry.all_checks() if one.ask.__module__ == plan.__name__)
X = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")


def build(*extra):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4), *extra, keras.layers.Dense(1)])
    model.compile("adam", "mse")
    return model


def ask(subject, data=None, declared=None, **fit):
    context = registry.Context(
        subject,
        Data(X, X[:, :1]) if data is None else data,
        declared=declared or {},
        facts={"fit": {"epochs": 2, "batch_size": 16, **fit}},
    )
    findings = run_checks(context, MINE)
    return {finding.code: finding for finding in findings}, context


def test_the_forecast_says_duration_memory_and_cost():
    _, context = ask(Subject.from_model(build()), declared={"price_per_hour": 3.6})
    forecast = context.facts["forecast"]
    assert forecast["batches_per_epoch"] == 4
    assert forecast["duration_min"] == pytest.approx(8 / forecast["steps_per_s"] / 60)
    assert forecast["cost"] == pytest.approx(3.6 * forecast["duration_min"] / 60)
    assert forecast["peak_mb"] > 10
    assert forecast["weights_mb"] == pytest.approx(4 * (6 * 4 + 4 + 4 + 1) / 1e6)


def test_a_duration_far_from_the_plan_is_told_before_training():
    found, _ = ask(Subject.from_model(build()), declared={"duration_min": "25..50"})
    assert found["off-plan"].status is Status.WARN
    assert "25..50" in found["off-plan"].message
    found, _ = ask(Subject.from_model(build()), declared={"duration_min": "0..5", "peak_mb": 1e6})
    assert found["off-plan"].status is Status.PASS


def test_a_plan_for_a_gpu_is_not_compared_with_a_cpu(monkeypatch):
    monkeypatch.setattr(plan, "device_name", lambda: "cpu")
    found, _ = ask(Subject.from_model(build()), declared={"duration_min": "25..50", "gpu_used": True})
    assert found["off-plan"].status is Status.PASS


def test_a_first_batch_that_cannot_be_trained_on_is_the_users_fault_and_not_ours():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    labels = np.arange(64) % 3
    found, _ = ask(Subject.from_model(model), Data(X, labels))
    assert found["off-plan"].status is Status.PASS
    labels[2] = 7
    context = registry.Context(Subject.from_model(model), Data(X, labels))
    told = [finding for finding in run_checks(context, budget_s=20) if finding.status >= Status.FAIL]
    assert [finding.code for finding in told if finding.code == "step-fails"] == ["step-fails"]
    assert not any(finding.status is Status.ERROR for finding in told)


def test_data_that_can_be_read_only_once_is_left_alone():
    data = Data(iter([(X, X[:, :1]), (X, X[:, 1:2])]))
    found, _ = ask(Subject.from_model(build()), data)
    assert {f.status for f in found.values()} == {Status.NOT_RUN}
    assert len(list(data.for_fit)) == 2


@keras.saving.register_keras_serializable("tests")
class Hidden(keras.layers.Layer):
    """Scales by a number that is an attribute and no variable, and another one whenever the layer is made."""

    made = 0

    def __init__(self, tracked=False, **kwargs):
        super().__init__(**kwargs)
        self.tracked = tracked
        Hidden.made += 1
        self.scale = 1.0 + 0.1 * Hidden.made

    def build(self, shape):
        if self.tracked:
            self.scale = self.add_weight(shape=(), initializer=keras.initializers.Constant(self.scale))

    def call(self, x):
        return x * self.scale

    def get_config(self):
        return {**super().get_config(), "tracked": self.tracked}


@pytest.mark.parametrize("extra", [lambda: keras.layers.BatchNormalization(), lambda: keras.layers.Dropout(0.5)])
def test_a_model_whose_state_is_in_its_variables_passes(extra):
    found, _ = ask(Subject.from_model(build(extra())))
    assert found["checkpoint-roundtrip"].status is Status.PASS, found["checkpoint-roundtrip"].message


def test_state_outside_of_the_variables_is_caught():
    found, _ = ask(Subject.from_model(build(Hidden())))
    assert found["checkpoint-roundtrip"].status is Status.FAIL
    assert "not among the variables" in found["checkpoint-roundtrip"].message
    found, _ = ask(Subject.from_model(build(Hidden(tracked=True))))
    assert found["checkpoint-roundtrip"].status is Status.PASS


def test_a_recipe_that_builds_another_model_each_time_is_caught():
    widths = iter([4, 5, 6])

    def wavering():
        model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(next(widths)), keras.layers.Dense(1)])
        model.compile("adam", "mse")
        return model

    found, _ = ask(Subject(make_model=wavering))
    assert found["checkpoint-roundtrip"].status is Status.FAIL
    assert "other shapes" in found["checkpoint-roundtrip"].message


def test_the_checks_leave_the_model_as_it_was():
    model = build(keras.layers.BatchNormalization())
    before = [w.copy() for w in model.get_weights()]
    ask(Subject.from_model(model))
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    assert not model.optimizer.built


def test_what_happened_is_held_against_the_plan():
    metrics = {"duration_min": 3.0, "peak_mb": 900.0, "artifact_mb": 12.0, "gpu_used": 0.0}
    assert list(off_plan({"duration_min": "2..4", "peak_mb": 1000, "artifact_mb": 11.5}, metrics)) == []
    assert list(off_plan({"epochs": 10}, {"epochs": 4.0})) == []  # an early stop is no other run
    assert [f.where["config_key"] for f in off_plan({"epochs": ">= 10"}, {"epochs": 4.0})] == ["plan.epochs"]
    missed = list(off_plan({"duration_min": "25..50", "peak_mb": 500, "artifact_mb": 20, "gpu_used": True}, metrics))
    assert [f.where["config_key"] for f in missed] == [
        "plan.duration_min",
        "plan.peak_mb",
        "plan.artifact_mb",
        "plan.gpu_used",
    ]
    assert all(f.status == "FAIL" for f in missed)


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize(("batches", "dry"), [(38, False), (4, True)])
def test_a_stream_that_ends_early_is_told_when_it_has_been_read(batches, dry, tmp_path):
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            rng = np.random.default_rng(0)
            for _ in range(8 * batches):
                row = rng.normal(size=3).astype("float32")
                yield row, row[:1]

    def report(plan):
        loader = torch.utils.data.DataLoader(Stream(), batch_size=8)
        return tsguard.fit(
            _line(), loader, plan=plan, gates="report", out=tmp_path, epochs=2, budget_s=2, verbose=0, shuffle=False
        )

    told = [f for f in report({"batches_per_epoch": 40}).findings if f.code == "data-volume" and f.status == "FAIL"]
    assert bool(told) is dry
    assert "40 were declared" in told[0].message if dry else not told
    assert not [f for f in report({}).findings if f.code == "data-volume" and f.status == "FAIL"]


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_a_generator_that_is_spent_before_its_steps_is_told(tmp_path):
    def batches(count):
        rng = np.random.default_rng(0)
        for _ in range(count):
            x = rng.normal(size=(8, 3)).astype("float32")
            yield x, x[:, :1]

    def told(count):
        report = tsguard.fit(
            _line(),
            batches(count),
            gates="report",
            out=tmp_path,
            epochs=3,
            steps_per_epoch=20,
            budget_s=2,
            verbose=0,
            shuffle=False,
        )
        return [f.code for f in report.findings if f.code == "data-volume" and f.status == "FAIL"]

    assert told(25) == ["data-volume"]
    assert not told(90)


def _line():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    return model


def test_a_number_has_slack_and_a_range_means_what_it_says():
    assert within("duration_min", 10, 12)
    assert not within("duration_min", 10, 13)
    assert within("peak_mb", 1000, 10)
    assert not within("artifact_mb", "10..20", 20.1)
    with pytest.raises(GateError):
        within("duration_min", "soon", 1.0)
