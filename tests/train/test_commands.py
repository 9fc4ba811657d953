"""From a run.yaml to a trained run and its predictions, and the same steps twice, through what the doors call."""

import json
import sys

import numpy as np
import pytest

from tsguard import commands
from tsguard.checks.registry import all_checks
from tsguard.errors import ConfigError, StoreError
from tsguard.opening import open_run
from tsguard.train.twice import compared

MODEL = """
import os
import keras, numpy as np
CALLS = []
def build(loose=False):
    layers = [keras.layers.Dense(8, activation="tanh"), keras.layers.Dropout(0.2)]
    model = keras.Sequential([keras.Input((6,)), *layers, keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=[keras.metrics.R2Score(name="r2")])
    if loose:
        CALLS.append(0)
        model.layers[0].bias.assign(np.full(8, float(len(CALLS)), "float32"))
    return model
def data(loose=False):
    rng = np.random.default_rng(None if loose else 0)
    x = rng.normal(size=(96, 6)).astype("float32")
    y = (x[:, :1] - x[:, 1:2]).astype("float32")
    return dict(x=x[32:], y=y[32:], validation_data=(x[:32], y[:32]))
"""
RUN = """
name: whole
model: {use: "MODULE:build"}
data: {use: "MODULE:data"}
gates: report
check: {budget_s: 0.01}
guard: {diagnose: false, repro: false, budget_s: 5}
train:
  epochs: 3
  batch_size: 16
  learning_rate: 0.05
  schedule: {kind: warmup_cosine, warmup_steps: 2}
  ema: 0.5
  stop: {monitor: val_loss - 0.1*val_r2, patience: 2}
  checkpoint: {every: 5}
plan: {samples: 64, artifact_mb: 5..10}
trackers: [{kind: tensorboard}]
"""


def quiet(name):
    """Nothing is told."""


@pytest.fixture
def project(tmp_path, monkeypatch):
    module = f"model_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{module}.py").write_text(MODEL)
    (tmp_path / "run.yaml").write_text(RUN.replace("MODULE", module))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop(module, None)


@pytest.fixture
def trained(project):
    pytest.importorskip("tensorboard")
    return commands.train(project / "run.yaml", progress=quiet)


def test_a_run_is_trained_as_its_file_says(trained):
    kept = {name.split("/")[-1] for name in trained.series}
    assert {"learning_rate", "val_loss"} <= kept
    unused = [f.where["config_key"] for f in trained.findings if f.code == "config-unused-key"]
    assert unused == []
    folder = trained.run.path
    assert (folder / "model.keras").stat().st_size / 1e6 == pytest.approx(trained.metrics["artifact_mb"])
    off = [f for f in trained.findings if f.code == "off-plan" and f.status == "FAIL"]
    assert [f.where["config_key"] for f in off] == ["plan.artifact_mb"]
    assert list((folder / "tensorboard").iterdir())
    manifest = json.loads(next((folder / "checkpoints").glob("model-*.json")).read_text())
    assert "val_loss - 0.1*val_r2" in manifest["metrics"]


def test_predictions_come_from_the_best_checkpoint_and_equal_the_exported_model(trained, project, tmp_path):
    import keras

    x = np.random.default_rng(1).normal(size=(7, 6)).astype("float32")
    np.savez(tmp_path / "new.npz", x=x)
    made = commands.predict(trained.run.path, "new.npz")
    with np.load(made["file"]) as file:
        found = file["prediction"]
    exported = keras.saving.load_model(trained.run.path / "model.keras").predict(x, verbose=0)
    assert made["rows"] == 7
    assert np.array_equal(found, exported)
    import pyarrow.parquet as pq

    made = commands.predict(trained.run.path, "new.npz", to=tmp_path / "new.parquet", checkpoint="last")
    assert pq.read_table(made["file"]).column_names == ["prediction"]
    with pytest.raises(StoreError, match="last, or one of: "):
        commands.predict(trained.run.path, "new.npz", checkpoint="nine")
    with pytest.raises(ConfigError, match=r"\.npz or \.npy"):
        commands.predict(trained.run.path, "new.xlsx")


def opened(project, *changes):
    return commands.open_run(project / "run.yaml", changes=["train.batch_size=8", *changes])


def the_finding(run):
    (found,) = compared(run.subject, {"batch_size": 8, "shuffle": True})
    return found


def test_the_same_steps_twice_agree_in_every_bit(project):
    found = the_finding(opened(project))
    assert found.status == "PASS", found.message


def test_an_unseeded_generator_in_the_data_is_named(project):
    found = the_finding(opened(project, "data.args={loose: true}"))
    assert found.status == "FAIL"
    assert (found.where["phase"], found.where["input"]) == ("data", "x")


def test_the_first_tensor_that_differs_is_named(project):
    found = the_finding(opened(project, "model.args={loose: true}"))
    assert found.status == "FAIL"
    assert found.where["parameter"].endswith("/bias")
    assert "before the first step" in found.message


def test_the_debug_profile_tries_all_of_it_on_a_few_batches(project):
    seen = []
    report = commands.train(project / "run.yaml", progress=quiet, follow=seen.append, profile="debug")
    assert report.name == "whole-debug"
    assert report.verdict.exit_code == 0
    assert max(report.series["loss"].x) == 3
    assert report.series["epoch/loss"].x == (0,)
    assert seen[-1].epoch_ended
    assert not (report.run.path / "tensorboard").exists()
    assert [f.where["config_key"] for f in report.findings if f.code == "config-unused-key"] == []


def test_the_production_profile_insists_on_gates_and_saves_often(project):
    with pytest.raises(ConfigError, match=r"gates: --production expects what the run must reach"):
        commands.open_run(project / "run.yaml", profile="production")
    made = commands.open_run(
        project / "run.yaml", profile="production", changes=["gates={val_loss: '< 9'}"]
    ).config.settings
    assert made.train.checkpoint.every == 5  # what the file says stands
    assert made.guard.policy == "rollback"


@pytest.mark.slow
def test_what_hangs_on_the_order_of_a_set_is_found_in_another_process(project):
    module = next(project.glob("model_*.py"))
    text = module.read_text()
    ordered = "    x = x + float(''.join(sorted('12345678', key=hash))) / 1e8\n"  # one of 40,320 orders
    module.write_text(text.replace("    return dict(x=x[32:]", f"{ordered}    return dict(x=x[32:]"))
    report = commands.check(project / "run.yaml", twice=True, progress=quiet)
    (found,) = (f for f in report.findings if f.check == "the same steps twice")
    assert found.status == "FAIL"
    assert "in a process of its own" in found.message
    assert found.where["phase"] == "data"
    module.write_text(text)


def test_the_guard_of_a_run_knows_names_and_ids_and_listens_where_it_is_told(project):
    module = next(project.glob("model_*.py"))
    named = "    x[42, 3] = np.nan\n    names = ('wind', 'rain', 'sun', 'ice', 'fog', 'dew')\n"
    named += "    rows = {'station': [f's{i}' for i in range(64)]}\n    return dict(names=names, rows=rows, x=x[32:]"
    module.write_text(module.read_text().replace("    return dict(x=x[32:]", named))
    run = project / "run.yaml"
    told = "guard: {ids: station, activations: true, stall_s: null, max_recoveries: 1, policy: skip, "
    run.write_text(run.read_text().replace("guard: {", told).replace("checkpoint: {every: 5}", "shuffle: false"))
    report = commands.train(run, progress=quiet)
    found = {(f.code, f.where["id"], f.where["feature"]) for f in report.findings if "id" in f.where}
    assert found == {("data-nonfinite", "s10", "ice")}
    assert any(name.startswith("activation_mean/") for name in report.series)
    with pytest.raises(ConfigError, match=r"guard\.ids.*'place'.*station"):
        commands.train(run, changes=["guard.ids=place"], progress=quiet)


@pytest.mark.slow
def test_a_sound_run_agrees_in_another_process(project):
    report = commands.check(project / "run.yaml", twice=True, progress=quiet)
    (found,) = (f for f in report.findings if f.check == "the same steps twice")
    assert found.status == "PASS", found.message
    assert "in one process and in a process of its own" in found.message


LOADER = """
import torch
class Broken(torch.utils.data.Dataset):
    def __len__(self):
        return 64
    def __getitem__(self, row):
        if row == 40:
            raise KeyError("row 40 has no target")
        return torch.zeros(6), torch.zeros(1)
def loader():
    return dict(x=torch.utils.data.DataLoader(Broken(), batch_size=8, num_workers=1))
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_failure_in_a_worker_arrives_with_its_own_traceback_and_the_folder_says_so(project):
    module = next(project.glob("model_*.py"))
    module.write_text(module.read_text() + LOADER)
    changes = [f"data.use={module.stem}:loader", "train.stop=null", "train.validation_split=0", "plan={}"]
    with pytest.raises(KeyError, match="row 40 has no target"):
        commands.train(project / "run.yaml", changes=changes, progress=quiet)
    (folder,) = (path for path in (project / "reports").iterdir() if path.is_dir())
    report = commands.load_report(folder)
    (found,) = (f for f in report.findings if f.check == "training")
    trace = next(e.value for e in found.evidence if e.kind == "traceback")
    assert "in __getitem__" in trace
    assert "worker process" in trace


def test_what_the_preflight_leaves_out_is_named_by_check_or_code(project):
    opened = open_run(project / "run.yaml", changes=["check.skip=[data-order, layers without a gradient]"])
    every = {one.name: set(one.codes) for one in all_checks()}
    assert "layers without a gradient" not in every
    with pytest.raises(ConfigError, match="'layers without a gradient'"):
        commands._checks(opened, ())
    opened = open_run(project / "run.yaml", changes=["check.skip=[data-volume, data-order]"])
    asked = {one.name for one in commands._checks(opened, ())}
    assert asked == {name for name, codes in every.items() if not codes <= {"data-volume", "data-order"}}
    assert "another amount of data than declared" not in asked


@pytest.mark.parametrize(
    "change", ["plan.samples=lots", "baseline=nosuch.json", "train.stop={monitor: val_loss + lots()}"]
)
def test_what_cannot_be_held_against_is_told_before_anything_is_built(project, change):
    with pytest.raises((ConfigError, StoreError), match=r"lots|nosuch"):
        open_run(project / "run.yaml", changes=[change, "model.use=nowhere:build"])
