"""What the guard promises beside the answer: series, spills, expiry, policies against kinds of fault, waiting."""

import time

import keras
import numpy as np
import pytest
from keras import layers, ops

from tests.guard.programs import (
    PROGRAMS,
    SAMPLES,
    arrays,
    bits,
    data_loader_with_workers,
    functional,
    generator,
    run,
    sequential,
)
from tests.guard.test_seam import Boom, Raises, Recompiles
from tests.guard.test_watcher import codes, dense
from tsguard.findings import Status
from tsguard.guard.callback import Guard
from tsguard.guard.recorder import Recorder


def test_every_step_has_loss_norms_and_counts():
    guard = Guard(out=None, sync_every=5)
    model = run(sequential, [guard])
    series = guard.report.series
    for name in ("loss", "grad_norm", "nonfinite_gradients", "step_seconds", "wait_seconds"):
        assert series[name].x == tuple(float(step) for step in range(18)), name
    assert set(series["nonfinite_gradients"].y) == {0.0}
    for variable in model.trainable_variables:
        assert len(series[f"grad_norm/{variable.path}"]) >= 3
    assert len(series["weight_norm"]) == len(series["update_ratio"]) >= 3
    means = [np.mean(series["loss"].y[k : k + 6]) for k in (0, 6, 12)]
    assert means == pytest.approx(series["epoch/loss"].y, rel=1e-5)


def test_norms_of_all_variables_add_up_to_the_total():
    guard = Guard(out=None, sync_every=1)
    model = run(sequential, [guard], epochs=1)
    series = guard.report.series
    squares = sum(np.square(series[f"grad_norm/{v.path}"].y) for v in model.trainable_variables)
    assert np.sqrt(squares) == pytest.approx(series["grad_norm"].y, rel=1e-5)


def test_a_window_that_ends_badly_is_told_step_by_step():
    x = np.random.default_rng(0).normal(size=(160, 4)).astype("float32")
    y = x[:, :1].copy()
    y[137] = np.inf
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="only"), layers.Dense(1)])
    model.compile("sgd", "mse")
    guard = Guard(out=None, sync_every=8)
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0, callbacks=[guard])
    flow = guard.report.series[f"grad_norm/{model.layers[0].kernel.path}"]
    assert flow.x == (7.0, 15.0, 16.0, 17.0)  # two windows as one point each, then every step of the last
    assert np.isfinite(flow.y[:-1]).all()
    assert not np.isfinite(flow.y[-1])


@pytest.mark.slow
@pytest.mark.parametrize("program", [data_loader_with_workers, functional, generator])
def test_beside_a_callback_that_raises_the_bits_are_those_of_the_same_run_without_a_guard(program):
    def until_it_raises(callbacks):
        keras.utils.clear_session()
        keras.utils.set_random_seed(7)
        model, fit = program()
        with pytest.raises(Boom):
            model.fit(**fit, verbose=0, epochs=2, callbacks=[*callbacks, Raises(1)])
        before = bits(model)
        model.fit(**fit, verbose=0, epochs=1)  # the seam that was left behind is out of the way
        return before, bits(model)

    assert until_it_raises([]) == until_it_raises([Guard(out=None)])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["functional", "accumulation", "mixed_float16"])
def test_beside_a_callback_that_recompiles_every_program_keeps_its_bits(name):
    guard = Guard(out=None)
    plain = run(PROGRAMS[name], [Recompiles()])
    assert bits(plain) == bits(run(PROGRAMS[name], [Recompiles(), guard]))
    assert guard.outcome.steps == 18 or name == "functional"


@pytest.mark.slow
def test_a_loader_with_workers_is_guarded_bit_for_bit():
    guard = Guard(out=None)
    assert bits(run(data_loader_with_workers)) == bits(run(data_loader_with_workers, [guard]))
    assert [f.message for f in guard.report.findings if f.status >= Status.FAIL] == []
    assert guard.outcome.steps == 18


def test_a_state_too_large_for_the_device_goes_to_host_memory_and_the_window_says_so(monkeypatch):
    monkeypatch.setattr("tsguard.guard.recorder.free_memory", lambda: (4000, 1 << 30))
    model = dense()
    model.optimizer.build(model.trainable_variables)
    recorder = Recorder(model)
    recorder.memory_share = 0.01
    recorder.capture(0)
    assert recorder.ready
    assert "host memory" in recorder.note
    assert recorder.clean.device == "cpu"
    assert recorder.held <= recorder.budget
    kept = [buffer.clone() for buffer in recorder.clean.buffers]
    model.layers[-1].kernel.assign(np.full((18, 1), 7.0))
    recorder.clean.restore()
    assert all(bool((v.value == old).all()) for v, old in zip(recorder.clean.variables, kept, strict=True))


def test_a_slow_copy_lengthens_the_window(monkeypatch):
    from tsguard.guard.watcher import Watcher

    watcher = Watcher(dense(), policy="stop")
    watcher.watch.series["step_seconds"] = [(k, 0.01) for k in range(8)]
    quick = watcher._window_length()
    watcher._capture_seconds = 1.0
    assert watcher._window_length() > quick


def test_batches_leave_memory_with_the_next_clean_state():
    guard = Guard(out=None, sync_every=4)
    held = []

    class Looks(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            held.append([record.step for record in guard._watcher.recorder.records])

    run(sequential, [guard, Looks()], epochs=2)
    assert max(len(steps) for steps in held) == 4
    assert held[3] == [0, 1, 2, 3]
    assert held[4] == [4]


class Sometimes(layers.Layer):
    """NaN by a cause of one's choice: the data, the weights, or a moment that does not come again."""

    def __init__(self, kind, **kwargs):
        super().__init__(**kwargs)
        self.kind = kind
        self.moments = iter([False] * 3 + [True] + [False] * 1000)

    def build(self, shape):
        self.scale = self.add_weight(shape=(), initializer="ones", trainable=False)

    def call(self, z):
        if self.kind == "data-bound":
            return ops.log(z)
        if self.kind == "persistent":
            self.scale.assign(self.scale - 0.25)
            return z * ops.sqrt(self.scale)
        return z / 0.0 if next(self.moments, False) else z


@pytest.mark.parametrize("policy", ["stop", "skip", "rollback"])
@pytest.mark.parametrize("kind", ["data-bound", "persistent", "transient"])
def test_every_policy_meets_every_kind_of_fault(policy, kind):
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 3))
    own = Sometimes(kind, name="own")
    model = keras.Model(inputs, layers.Dense(1)(layers.Flatten()(own(inputs))))
    model.compile(keras.optimizers.SGD(1e-3), "mse")
    own.moments, x = iter([False] * 3 + [True] + [False] * 1000), np.abs(arrays()[0]) + 0.1
    own.scale.assign(1.0)
    x[50, 1, 1] = 0.0 if kind == "data-bound" else 0.5
    guard = Guard(policy=policy, out=None, max_recoveries=2)
    model.fit(x, arrays()[1], batch_size=16, shuffle=False, epochs=3, verbose=0, callbacks=[guard])
    outcome = guard.outcome
    assert outcome.trip.nonfinite
    assert outcome.facts["binding"] == kind
    assert all(np.isfinite(v.value.detach().numpy()).all() for v in model.trainable_variables)
    assert outcome.recoveries <= 2
    lasting = kind != "transient"
    assert outcome.stopped == (policy == "stop" or lasting)
    if policy != "stop":
        assert outcome.recoveries == (2 if lasting else 1)
    if policy == "stop":
        assert outcome.recoveries == 0


class Slow(keras.utils.PyDataset):
    def __init__(self, seconds):
        super().__init__()
        self.seconds = seconds

    def __len__(self):
        return SAMPLES // 4

    def __getitem__(self, index):
        time.sleep(self.seconds)
        x, y = arrays()
        return x[index * 4 : index * 4 + 4], y[index * 4 : index * 4 + 4]


def test_a_loader_that_is_waited_for_is_told_from_one_that_is_not():
    def share(seconds):
        guard = Guard(out=None)
        dense().fit(Slow(seconds), epochs=1, verbose=0, shuffle=False, callbacks=[guard])
        return guard, guard.report.metrics["data_wait_share"]

    slow, waited = share(0.2)
    assert "loader-bound" in codes(slow)
    assert waited > 0.5
    assert np.median(slow.report.series["wait_seconds"].y) > 0.15


def test_the_guards_own_investigation_is_no_waiting_for_data():
    x, y = arrays()
    x[20, 1, 1] = np.nan
    guard = Guard(policy="skip", out=None)
    dense().fit(x, y, batch_size=4, shuffle=False, epochs=2, verbose=0, callbacks=[guard])
    assert guard.outcome.recoveries == 2
    assert "loader-bound" not in codes(guard)


def test_the_guard_leaves_keras_free_to_read_logs_when_it_likes():
    """A callback with an end of batch makes Keras turn the logs into numbers on the host in every step."""
    from keras.src.callbacks.callback_list import CallbackList

    assert CallbackList([Guard(out=None)])._async_train == CallbackList([])._async_train
