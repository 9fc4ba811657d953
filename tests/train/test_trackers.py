"""Trackers are guests: they attach, close only what they opened, and never harm a training."""

import sys
import types

import keras
import numpy as np
import pytest

from tsguard.settings import TrackerSettings
from tsguard.store import RunFolder
from tsguard.train import trackers

X = np.zeros((8, 2), "float32")


def model():
    made = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    made.compile("sgd", "mse")
    return made


def made(tmp_path, *kinds, every=0, **args):
    folder = RunFolder.create(tmp_path, "r")
    wanted = [TrackerSettings(kind=kind, every=every, args=args) for kind in kinds]
    return trackers.trackers(wanted, folder, config={"seed": 0}, name="r")


class Run:
    """What of a W&B run is used."""

    def __init__(self, project="mine"):
        self.project, self.rows, self.finished = project, [], False

    def log(self, row):
        self.rows.append(row)

    def finish(self):
        self.finished = True


@pytest.fixture
def wandb(monkeypatch):
    """A client with the two names that are called, in place of one that needs an account."""
    client = types.ModuleType("wandb")
    client.run, client.started = None, []

    def init(**given):
        client.started.append(given)
        client.run = Run(given.get("project", "mine"))
        return client.run

    client.init = init
    monkeypatch.setitem(sys.modules, "wandb", client)
    return client


def fitted(callbacks, epochs=2):
    model().fit(X, X[:, :1], epochs=epochs, verbose=0, callbacks=callbacks)
    return trackers.findings(callbacks)


def test_tensorboard_writes_every_epoch_into_the_runs_folder(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    callbacks = made(tmp_path, "tensorboard", histograms=True)
    assert fitted(callbacks, epochs=3) == []
    read = EventAccumulator(str(callbacks[0].folder.path / "tensorboard"))
    read.Reload()
    assert [event.step for event in read.Scalars("loss")] == [0, 1, 2]
    assert len(read.Tags()["histograms"]) == 2


def test_a_run_that_was_started_here_is_finished_here(tmp_path, wandb):
    assert fitted(made(tmp_path, "wandb", mode="offline")) == []
    assert wandb.started[0]["mode"] == "offline"
    assert [row["epoch"] for row in wandb.run.rows] == [0, 1]
    assert wandb.run.finished


def test_a_run_that_was_active_is_written_to_and_left_open(tmp_path, wandb):
    wandb.run = Run()
    assert fitted(made(tmp_path, "wandb")) == []
    assert wandb.started == []
    assert len(wandb.run.rows) == 2
    assert not wandb.run.finished


def test_two_initialisations_are_a_finding(tmp_path, wandb):
    wandb.run = Run("theirs")
    (found,) = fitted(made(tmp_path, "wandb", project="mine"))
    assert (found.code, found.status) == ("tracker-double-init", "FAIL")
    assert "'mine'" in found.message
    assert "'theirs'" in found.message
    assert wandb.run.rows == []
    wandb.run = None
    (found,) = fitted(made(tmp_path, "wandb", "wandb"))
    assert found.code == "tracker-double-init"
    assert len(wandb.started) == 1


def test_a_tracker_that_fails_never_stops_training_and_is_reported(tmp_path, wandb):
    def log(self, row):
        raise ConnectionError("the server is away")

    wandb.run = Run()
    wandb.run.log = types.MethodType(log, wandb.run)
    (found,) = fitted(made(tmp_path, "wandb"))
    assert (found.code, found.status, found.role) == ("child-failed", "WARN", "note")
    assert "failed 2 times" in found.message
    assert "the server is away" in found.evidence[0].value


def test_a_package_that_is_not_there_is_named_with_its_install_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    (found,) = fitted(made(tmp_path, "wandb"))
    assert "pip install 'tsguard[wandb]'" in found.message


def test_only_the_first_process_of_several_writes(tmp_path, wandb, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert fitted(made(tmp_path, "wandb")) == []
    assert wandb.started == []


def test_a_training_that_raises_leaves_nothing_open(tmp_path, wandb):
    callbacks = made(tmp_path, "wandb")
    callbacks[0].on_train_begin()
    callbacks[0].finish()
    callbacks[0].finish()
    assert wandb.run.finished


def test_the_clients_own_package_writes_an_offline_run_and_is_left_as_it_was(tmp_path, monkeypatch):
    client = pytest.importorskip("wandb", reason="pip install 'tsguard[wandb]' to run it with the client's own package")
    monkeypatch.setenv("WANDB_SILENT", "true")
    assert fitted(made(tmp_path, "wandb", mode="offline", project="p")) == []
    assert client.run is None
    assert list(tmp_path.glob("*/wandb/offline-run-*/run-*.wandb"))
    active = client.init(mode="offline", project="theirs", dir=str(tmp_path))
    assert fitted(made(tmp_path, "wandb")) == []
    assert client.run is active
    (found,) = fitted(made(tmp_path, "wandb", project="mine"))
    assert found.code == "tracker-double-init"
    active.finish()


def test_steps_are_told_as_often_as_asked_and_from_what_the_guard_reads(tmp_path, wandb):
    from tests.train.job import build
    from tsguard.checks.registry import Context
    from tsguard.dataset import Data
    from tsguard.gate import Gate
    from tsguard.guarded import Guard
    from tsguard.subject import Subject
    from tsguard.train.session import Session

    x = np.random.default_rng(0).normal(size=(48, 5)).astype("float32")
    (tracker,) = made(tmp_path, "wandb", every=5)
    data, folder = Data(x, x[:, :1], batch_size=8), RunFolder.create(tmp_path, "run")
    guard = Guard(folder=folder, diagnose=False, repro=False, write=False)
    Session(
        context=Context(subject=Subject(make_model=build, data=data, seed=1, name="run"), data=data),
        gate=Gate(), folder=folder, guard=guard, fit_arguments={"epochs": 4, "batch_size": 8, "verbose": 0},
        write=lambda report: report, callbacks=(tracker,), preflight=False, diagnose=False,
    ).run()  # fmt: skip
    rows = [row for row in tracker._run.rows if "step" in row]
    assert [row["step"] for row in rows] == [0, 5, 10, 15, 20]
    losses = dict(guard.outcome.series["loss"])
    assert [row["step/loss"] for row in rows] == [losses[step] for step in (0, 5, 10, 15, 20)]
    assert all(row["step/grad_norm"] > 0 for row in rows)
    assert [row["epoch"] for row in tracker._run.rows if "epoch" in row] == [0, 1, 2, 3]
    assert tracker._run.finished


def test_without_being_asked_no_step_is_told(tmp_path, wandb):
    (tracker,) = made(tmp_path, "wandb")
    tracker._open, tracker._run = True, Run()
    tracker.hear({"kind": "steps", "first": 0, "loss": [1.0, 2.0], "grad_norm": [1.0, None]})
    assert tracker._run.rows == []
    tracker.every = 1
    tracker.hear({"kind": "steps", "first": 0, "loss": [1.0, 2.0], "grad_norm": [1.0, None]})
    assert tracker._run.rows == [{"step/loss": 1.0, "step/grad_norm": 1.0, "step": 0}, {"step/loss": 2.0, "step": 1}]
