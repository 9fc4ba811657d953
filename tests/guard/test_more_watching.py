"""What is watched beside NaN: activations on request, memory, standstill, clips, saved files, another guard."""

import threading
import time

import keras
import numpy as np
import pytest
from keras import layers

from tests.guard.programs import arrays, bits, run, sequential
from tests.guard.test_watcher import codes, dense, fit
from tsguard.errors import ConfigError
from tsguard.guard import memory
from tsguard.guard.callback import Guard
from tsguard.guard.captures import FOLDER, KEEP_DAYS, expire
from tsguard.guard.stall import StallWatch
from tsguard.guard.written import files_since
from tsguard.store import RunFolder


def test_activations_are_summed_up_once_a_window_and_change_nothing():
    guard = Guard(out=None, activations=["lstm"], sync_every=6)
    assert bits(run(sequential)) == bits(run(sequential, [guard]))
    series = guard.report.series
    names = [name for name in series if name.startswith("activation_")]
    assert {name.split("/")[0] for name in names} == {f"activation_{k}" for k in ("mean", "std", "zeros", "largest")}
    assert all("lstm" in name for name in names)
    assert series[names[0]].x == (0.0, 6.0, 12.0)


def test_all_activations_tell_a_dead_layer():
    x, y = arrays()
    keras.utils.clear_session()
    model = keras.Sequential(
        [keras.Input((6, 3)), layers.Flatten(), layers.Dense(4, "relu", name="dead"), layers.Dense(1)]
    )
    model.layers[1].bias.assign([-1e3] * 4)
    model.compile("sgd", "mse")
    guard = Guard(out=None, activations=True)
    model.fit(x, y, batch_size=8, verbose=0, callbacks=[guard])
    (zeros,) = [
        series
        for name, series in guard.report.series.items()
        if name.startswith("activation_zeros/") and "dead" in name
    ]
    assert set(zeros.y) == {1.0}
    told = {name.rsplit("/", 1)[-1] for name in guard.report.series if name.startswith("activation_mean/")}
    assert told == {layer.name for layer in model.layers}  # the ones without weights too


def test_a_layer_that_is_not_there_is_refused_by_name():
    with pytest.raises(ConfigError, match="no_such_layer"):
        run(sequential, [Guard(out=None, activations=["no_such_layer"])])


def test_without_the_request_no_activation_is_kept_and_memory_and_waiting_are():
    guard = Guard(out=None)
    run(sequential, [guard])
    assert not [name for name in guard.report.series if name.startswith("activation_")]
    assert len(guard.report.series["wait_seconds"]) == len(guard.report.series["step_seconds"]) == 18
    if memory.now_mb() is not None:
        assert min(guard.report.series["memory_mb"].y) > 10


@pytest.mark.parametrize("clip", ["clipnorm", "global_clipnorm", "clipvalue"])
@pytest.mark.parametrize("accumulate", [None, 2])
def test_a_clip_of_any_kind_that_is_always_on_is_said(clip, accumulate):
    def optimizer(rate, limit):
        return keras.optimizers.SGD(rate, gradient_accumulation_steps=accumulate, **{clip: limit})

    epochs = 5 if accumulate is None else 10
    assert "clip-saturated" in codes(fit(dense(optimizer=optimizer(1e-6, 1e-6)), *arrays(), epochs=epochs))
    assert "clip-saturated" not in codes(fit(dense(optimizer=optimizer(1e-2, 1e3)), *arrays(), epochs=epochs))


def test_a_loss_scaler_does_not_make_a_clip_look_active():
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1e-3, global_clipnorm=1e3), initial_scale=2.0**15)
    guard = fit(dense(optimizer=scaled), *arrays(), epochs=5)
    assert "clip-saturated" not in codes(guard)
    assert max(guard.report.series["grad_norm"].y) < 1e3


def test_of_two_guards_in_one_fit_the_first_says_that_it_stood_aside():
    first, second = Guard(out=None), Guard(out=None)
    assert bits(run(sequential)) == bits(run(sequential, [first, second]))
    assert second.outcome.steps == 18
    (finding,) = first.report.findings
    assert finding.status == "NOT_RUN"
    assert "stood aside" in finding.message
    assert not first.stopped


class Waits(keras.callbacks.Callback):
    def __init__(self, at, seconds):
        super().__init__()
        self.at, self.seconds = at, seconds

    def on_train_batch_end(self, batch, logs=None):
        if batch == self.at:
            time.sleep(self.seconds)


def test_a_run_that_stands_still_says_where_and_a_running_one_does_not(tmp_path, monkeypatch):
    monkeypatch.setattr("tsguard.guard.stall.STALL_TIMES", 0.0)
    guard = Guard(out=tmp_path, stall_s=1.0)
    run(sequential, [guard, Waits(3, 1.6)], epochs=1)
    (finding,) = [f for f in guard.report.findings if f.code == "stalled"]
    assert finding.where["step"] == 4
    assert "time.sleep(self.seconds)" in finding.evidence[0].value
    assert '"stalled"' in (guard.run.path / "events.jsonl").read_text()
    quiet = Guard(out=None, stall_s=30.0)
    run(sequential, [quiet], epochs=1)
    assert "stalled" not in codes(quiet)
    assert not [thread for thread in threading.enumerate() if thread.name == "tsguard-stall" and thread.join(10)]


def test_a_watchdog_that_is_off_or_whose_fit_died_keeps_quiet():
    told = []
    off = StallWatch(None, told.append)
    off.tick("the step", 1)
    assert off._thread is None
    dead = StallWatch(0.2, told.append, alive=lambda frame: False)
    dead.tick("the step", 1)
    dead._thread.join(5)
    assert not dead._thread.is_alive()
    assert told == []


def test_files_that_a_callback_saved_within_the_lag_are_listed(tmp_path):
    class Poison(keras.callbacks.Callback):
        """As a rate that explodes: gradients are finite, the weights after the update are not."""

        def on_train_batch_begin(self, batch, logs=None):
            if batch == 4:
                time.sleep(0.2)  # file times are only so fine
                self.model.optimizer.learning_rate = 1e39

    (tmp_path / "early.weights.h5").write_bytes(b"")
    time.sleep(0.1)
    saver = keras.callbacks.ModelCheckpoint(tmp_path / "at-{batch:02d}.weights.h5", save_weights_only=True, save_freq=1)
    guard = Guard(out=None, sync_every=64)
    run(sequential, [Poison(), guard, saver], epochs=1)
    message = guard.report.findings[0].message
    assert "may hold weights that are not finite" in message
    assert "at-05" in message
    assert "early" not in message
    assert "at-03" not in message


def test_no_file_is_listed_where_the_update_was_left_out(tmp_path):
    x, y = arrays()
    x[60] = np.nan
    saver = keras.callbacks.ModelCheckpoint(tmp_path / "last.weights.h5", save_weights_only=True, save_freq=1)
    guard = Guard(out=None)
    dense().fit(x, y, batch_size=8, shuffle=False, verbose=0, callbacks=[guard, saver])
    assert "may hold" not in guard.report.findings[0].message
    assert files_since([saver], 0.0) == [str(tmp_path / "last.weights.h5")]


def test_the_batch_at_fault_is_kept_for_its_owner_alone_and_expires(tmp_path):
    x, y = arrays()
    x[60, 2, 1] = np.nan
    guard = Guard(out=tmp_path)
    dense().fit(x, y, batch_size=8, shuffle=False, verbose=0, callbacks=[guard])
    (path,) = (guard.run.path / FOLDER).iterdir()
    assert path.stat().st_mode & 0o077 == 0
    with np.load(path) as kept:
        assert kept["x"].shape == (8, 6, 3)
        assert np.isnan(kept["x"][4, 2, 1])
    now = path.stat().st_mtime
    assert expire(tmp_path, now=now + 60) == 0
    assert expire(tmp_path, now=now + (KEEP_DAYS + 1) * 86400) == 1
    assert not path.exists()
    assert RunFolder.open(guard.run.path).path == guard.run.path


def test_a_healthy_run_keeps_no_batch_on_disk(tmp_path):
    guard = Guard(out=tmp_path)
    run(sequential, [guard])
    assert not (guard.run.path / FOLDER).exists()
