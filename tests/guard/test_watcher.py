"""What is noticed beside values that are not finite, and what is left alone on purpose."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from fixtures.operations.faults import BATCH, FAULTS, STEP
from tests.guard.programs import arrays
from tsguard.findings import Status
from tsguard.guard.callback import Guard
from tsguard.guard.recorder import Recorder
from tsguard.guard.watcher import Watcher


def dense(units=1, activation=None, **kwargs):
    keras.utils.clear_session()
    keras.utils.set_random_seed(2)
    model = keras.Sequential([keras.Input((6, 3)), layers.Flatten(), layers.Dense(units, activation=activation)])
    model.compile(**{"optimizer": keras.optimizers.SGD(1e-2), "loss": "mse", **kwargs})
    return model


def codes(guard, least="WARN"):
    return [f.code for f in guard.report.findings if f.status >= Status(least)]


def fit(model, x, y, **kwargs):
    guard = Guard(out=None)
    model.fit(x, y, **{"verbose": 0, "batch_size": 8, "shuffle": False, **kwargs}, callbacks=[guard])
    return guard


def fault(name):
    return next(f for f in FAULTS if f.name == name)


def test_a_device_that_is_read_late_gives_the_same_answer(monkeypatch):
    original = Watcher.__init__

    def elsewhere(self, *args, **kwargs):
        original(self, *args, **kwargs)
        self.on_cpu = False

    monkeypatch.setattr(Watcher, "__init__", elsewhere)
    model, x, y = fault("functional/log_zero").build(True)
    guard = Guard(out=None)
    model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0, epochs=3, callbacks=[guard])
    where = guard.report.causes[0].where
    assert (where["op"], where["step"], where["phase"]) == ("log", STEP, "forward")
    assert guard.outcome.stopped
    assert all(np.isfinite(v.value.detach().numpy()).all() for v in model.variables)


def test_missing_values_that_a_model_handles_are_no_hidden_nan():
    x, y = arrays()
    x[3, 2, 1] = np.nan
    inputs = keras.Input((6, 3))
    known = ops.where(ops.isnan(inputs), 0.0, inputs)
    model = keras.Model(inputs, layers.Dense(1)(layers.Flatten()(known)))
    model.compile("sgd", "mse")
    assert codes(fit(model, x, y), "FAIL") == []


def test_a_scaler_that_skips_every_step_is_noticed_with_its_reason():
    x, y = arrays()
    inputs = keras.Input((6, 3))
    h = layers.Flatten(dtype="float16")(inputs)
    h = layers.Dense(1, dtype="mixed_float16", use_bias=False)(h)
    model = keras.Model(inputs, h)
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1e-9), initial_scale=2.0**60)
    model.compile(scaled, lambda y, p: ops.mean(ops.square(ops.cast(p, "float32") - y)))
    guard = fit(model, x, y, epochs=2)
    assert "amp-steps-skipped" in codes(guard)
    assert not guard.outcome.stopped
    assert guard.outcome.steps == 24


def test_a_nan_loss_under_a_loss_scaler_stops_where_the_scaler_would_go_on_for_ever():
    x, y = arrays()
    x[40, 1, 1] = np.nan
    model = dense(optimizer=keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1e-2)))
    guard = fit(model, x, y)
    assert guard.report.findings[0].code == "data-nonfinite"
    assert guard.report.findings[0].where["row"] == 40
    assert guard.outcome.stopped


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_weights_that_no_gradient_reaches_are_named():
    class Half(keras.Model):
        def __init__(self):
            super().__init__()
            self.used, self.idle = layers.Dense(1, name="used"), layers.Dense(1, name="idle", use_bias=False)

        def call(self, x):
            flat = ops.reshape(x, (-1, 18))
            return self.used(flat) + ops.stop_gradient(self.idle(flat))

    keras.utils.set_random_seed(0)
    model = Half()
    model.compile("sgd", "mse")
    guard = fit(model, *arrays(), epochs=3)
    (finding,) = [f for f in guard.report.findings if f.code == "disconnected-parameters"]
    assert "idle" in finding.where["parameter"]
    assert codes(fit(dense(), *arrays(), epochs=3), "FAIL") == []


def test_a_clip_that_is_always_on_is_said():
    sick = dense(optimizer=keras.optimizers.SGD(1e-4, global_clipnorm=1e-3))
    assert "clip-saturated" in codes(fit(sick, *arrays(), epochs=5))
    healthy = dense(optimizer=keras.optimizers.SGD(1e-2, global_clipnorm=1e3))
    assert "clip-saturated" not in codes(fit(healthy, *arrays(), epochs=5))


def test_a_loss_that_rises_and_stays_up_is_divergence_and_does_not_stop_the_run():
    class Worse(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 4:
                self.model.layers[-1].bias.assign([30.0])
                self.model.optimizer.learning_rate = 1e-6

    model, guard = dense(), Guard(out=None)
    model.fit(*arrays(), batch_size=8, epochs=8, verbose=0, callbacks=[Worse(), guard])
    (finding,) = [f for f in guard.report.findings if f.code == "divergence"]
    assert 48 <= finding.where["step"] < 58
    assert finding.status == "FAIL"
    assert guard.outcome.steps == 96


def test_collapsed_predictions_are_seen_on_the_validation_data():
    x, y = arrays()
    sick = dense(optimizer=keras.optimizers.SGD(1e-7))
    sick.layers[-1].kernel.assign(np.zeros((18, 1)))
    assert "variance-collapse" in codes(fit(sick, x, y, epochs=8, validation_data=(x, y)))
    healthy = fit(dense(), x, y, epochs=8, validation_data=(x, y))
    assert "variance-collapse" not in codes(healthy)


def test_one_class_for_everything_is_seen():
    x, _ = arrays()
    labels = np.arange(96) % 3
    sick = dense(3, "softmax", loss="sparse_categorical_crossentropy", optimizer=keras.optimizers.SGD(1e-6))
    sick.layers[-1].kernel.assign(np.zeros((18, 3)))
    sick.layers[-1].bias.assign([5.0, 0.0, 0.0])
    assert "class-collapse" in codes(fit(sick, x, labels, epochs=6, validation_data=(x, labels)))


def test_weights_that_come_with_a_nan_are_left_as_they_came():
    model = dense(4)
    given = [np.array(value) for value in model.get_weights()]
    given[0][3, 1] = np.nan
    model.set_weights(given)
    room = Recorder(model)
    room.make_room()
    assert room.clean is None  # laid out is not yet a state to go back to
    guard = fit(model, *arrays())
    assert "nonfinite-update" in codes(guard, "FAIL")
    for value, before in zip(model.get_weights(), given, strict=True):
        np.testing.assert_array_equal(value, before)


def test_the_memory_budget_is_kept(monkeypatch):
    monkeypatch.setattr("tsguard.guard.recorder.free_memory", lambda: (None, 400_000))
    x, y = arrays()
    model = dense()
    recorder = Recorder(model)
    model.optimizer.build(model.trainable_variables)
    recorder.capture(0)
    assert recorder.budget == 40_000
    step = 0
    while not recorder.full:
        recorder.record([(x[:32], y[:32])], step=step, epoch=0, batch=step)
        step += 1
    assert recorder.held <= recorder.budget
    assert 10 <= step < 40
    monkeypatch.setattr("tsguard.guard.recorder.free_memory", lambda: (None, 400))
    tight = Recorder(model)
    tight.capture(0)
    assert not tight.ready
    assert "budget" in tight.note


def test_a_run_without_room_to_record_is_still_watched(monkeypatch):
    monkeypatch.setattr("tsguard.guard.recorder.free_memory", lambda: (None, 400))
    model, x, y = fault("functional/log_zero").build(True)
    guard = Guard(out=None)
    model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0, callbacks=[guard])
    finding = guard.report.findings[0]
    assert (finding.code, finding.where["step"]) == ("nonfinite-backward", STEP)
    assert guard.outcome.stopped


def test_a_replay_that_is_not_the_run_says_so():
    counter = iter(range(10**6))

    def strange(y, p):
        return ops.mean(ops.square(y - p)) + float(next(counter))

    x, y = arrays()
    x[60, 1, 1] = np.nan
    guard = fit(dense(loss=strange), x, y)
    assert "nondeterministic" in codes(guard)
    assert guard.report.findings[0].code == "data-nonfinite"


def test_a_validation_loss_that_is_not_finite_names_the_row():
    x, y = arrays()
    held, targets = x[:20].copy(), y[:20]
    held[7, 3, 2] = np.inf
    guard = fit(dense(), x, y, validation_data=(held, targets))
    (finding,) = [f for f in guard.report.findings if f.status == "FAIL"]
    assert (finding.code, finding.where["split"], finding.where["row"]) == ("data-nonfinite", "val", 7)


def test_the_answer_takes_the_replay_one_instrumented_step_and_little_more():
    model, x, y = fault("functional/log_zero").build(True)
    guard = Guard(out=None)
    model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0, callbacks=[guard])
    steps = sum(guard.report.series["step_seconds"])
    assert guard.outcome.facts["answer_seconds"] < 20 * steps + 2
