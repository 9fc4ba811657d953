"""One callback on a script that exists: nothing changes while all is well, and the right answer when it is not."""

import json

import keras
import numpy as np
import pytest
from keras import layers, ops

from tests.guard.programs import PROGRAMS, arrays, bits, run
from tests.guard.test_seam import Boom, Raises, Recompiles
from tsguard.errors import ConfigError
from tsguard.findings import Status
from tsguard.guard.callback import Guard
from tsguard.guard.inquest import NonFiniteTraining

ZERO_ROW = 61
"""The one row of the data with a zero in it: log of 0 at timestep 2, feature 1."""


class Log(layers.Layer):
    def call(self, x):
        return ops.log(x)


def data():
    x, y = arrays()
    x = np.abs(x) + 0.1
    x[ZERO_ROW, 2, 1] = 0.0
    return x, y


def log_model():
    inputs = keras.Input((6, 3))
    hidden = layers.BatchNormalization()(Log(name="own_log")(inputs))
    model = keras.Model(inputs, layers.Dense(1)(layers.GRU(4)(hidden)))
    model.compile("adam", "mse")
    return model


def guarded(policy="stop", epochs=2, tmp=None, **kwargs):
    keras.utils.clear_session()
    keras.utils.set_random_seed(5)
    model, guard = log_model(), Guard(policy=policy, out=tmp, **kwargs)
    model.fit(*data(), batch_size=8, epochs=epochs, verbose=0, callbacks=[guard])
    return model, guard


def finite(model):
    variables = [*model.variables, *model.optimizer.variables]
    return all(np.isfinite(v.value.detach().numpy()).all() for v in variables)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_healthy_run_keeps_every_bit_and_gets_no_failure(name):
    guard = Guard(out=None)
    assert bits(run(PROGRAMS[name])) == bits(run(PROGRAMS[name], [guard]))
    assert guard.outcome.steps >= 15
    bad = [f.message for f in guard.report.findings if f.status >= Status.FAIL]
    assert bad == []
    assert len(guard.report.series["loss"]) == guard.outcome.steps
    assert guard.report.findings


@pytest.mark.slow
@pytest.mark.parametrize("name", ["functional", "subclassed", "own_train_step", "mixed_float16"])
def test_two_hundred_steps_keep_every_bit(name):
    guard = Guard(out=None, sync_every=7)
    assert bits(run(PROGRAMS[name], epochs=40)) == bits(run(PROGRAMS[name], [guard], epochs=40))
    assert guard.outcome.steps >= 200


@pytest.mark.parametrize("sync_every", [1, 3, "auto"])
def test_the_first_bad_step_is_found_whatever_the_window(sync_every):
    _, guard = guarded(sync_every=sync_every)
    (cause,) = guard.report.causes
    assert cause.code == "nonfinite-forward"
    where = cause.where
    assert (where["op"], where["layer"], where["phase"]) == ("log", "own_log", "forward")
    assert (where["timestep"], where["feature"], where["row"]) == (2, 1, ZERO_ROW)
    assert where["step"] == guard.outcome.trip.step == where["batch"]
    assert "log of 0" in cause.message
    assert where["file"] == __file__


def test_stop_ends_training_quietly_with_the_weights_before_the_bad_step():
    model, guard = guarded("stop")
    assert guard.outcome.stopped
    assert finite(model)
    bad = guard.outcome.trip.step
    keras.utils.clear_session()
    keras.utils.set_random_seed(5)
    plain = log_model()

    class Stop(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == bad:
                raise Boom

    with pytest.raises(Boom):
        plain.fit(*data(), batch_size=8, epochs=2, verbose=0, callbacks=[Stop()])
    assert bits(model) == bits(plain)


def test_raise_names_the_origin_and_leaves_clean_weights():
    keras.utils.set_random_seed(5)
    model, guard = log_model(), Guard(policy="raise", out=None)
    with pytest.raises(NonFiniteTraining, match="own_log"):
        model.fit(*data(), batch_size=8, verbose=0, callbacks=[guard])
    assert finite(model)
    assert guard.report.causes[0].where["op"] == "log"
    assert "apply" not in model.optimizer.__dict__


@pytest.mark.parametrize("policy", ["skip", "rollback"])
def test_skip_and_rollback_go_on_and_say_what_it_cost(policy):
    model, guard = guarded(policy)
    assert not guard.outcome.stopped
    assert guard.outcome.steps == 24
    assert guard.outcome.recoveries == 2
    assert finite(model)
    assert all(np.isfinite(value) for value in guard.report.series["epoch/loss"])
    costs = [f.message for f in guard.report.causes]
    assert all(f"Recovery {k} of 3" in cost for k, cost in enumerate(reversed(costs), 1)) or len(costs) == 2
    assert all(f.status == "WARN" for f in guard.report.causes)


def test_a_budget_of_recoveries_is_kept():
    model, guard = guarded("skip", epochs=8, max_recoveries=3)
    assert guard.outcome.recoveries == 3
    assert guard.outcome.stopped
    assert finite(model)
    assert any("budget of 3 recoveries is used up" in f.message for f in guard.report.findings)


def test_a_transient_fault_is_told_from_one_bound_to_the_data():
    _, guard = guarded()
    assert guard.outcome.facts["binding"] == "data-bound"


def test_poisoned_weights_from_an_update_are_rolled_back_to_before_it():
    keras.utils.set_random_seed(0)
    model, fit = PROGRAMS["sequential"]()

    class Explode(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 4:
                self.model.optimizer.learning_rate = 1e39

    guard = Guard(out=None)
    model.fit(**fit, batch_size=16, epochs=1, verbose=0, callbacks=[Explode(), guard])
    finding = guard.report.findings[0]
    assert finding.code == "nonfinite-update"
    assert finding.where["step"] == 4
    assert finding.where["phase"] == "update"
    assert finite(model)


def test_a_run_leaves_its_events_on_disk_even_when_it_dies(tmp_path):
    keras.utils.set_random_seed(0)
    model, fit = PROGRAMS["sequential"]()
    guard = Guard(out=tmp_path, sync_every=2)
    with pytest.raises(Boom):
        model.fit(**fit, batch_size=16, verbose=0, callbacks=[guard, Raises(4)])
    events = [json.loads(line) for line in (guard.run.path / "events.jsonl").read_text().splitlines()]
    assert [e["kind"] for e in events][:2] == ["begin", "steps"]
    assert sum(len(e["loss"]) for e in events if e["kind"] == "steps") == 4
    assert len(guard.report.series["loss"]) == 5


def test_a_crash_of_the_guard_is_an_error_finding_and_training_is_untouched(monkeypatch):
    plain = run(PROGRAMS["sequential"])
    guard = Guard(out=None)
    monkeypatch.setattr("tsguard.guard.watch.Watch.keep", lambda *_: 1 / 0)
    watched = run(PROGRAMS["sequential"], [guard])
    assert bits(plain) == bits(watched)
    (error,) = [f for f in guard.report.findings if f.status == "ERROR"]
    assert "ZeroDivisionError" in error.message
    assert "Traceback" in error.evidence[0].value


def test_beside_callbacks_that_recompile_nothing_changes():
    guard = Guard(out=None)
    assert bits(run(PROGRAMS["sequential"], [Recompiles()])) == bits(run(PROGRAMS["sequential"], [Recompiles(), guard]))
    assert guard.outcome.steps == 18


def test_train_on_batch_is_watched_and_replayed():
    keras.utils.set_random_seed(0)
    model, guard = log_model(), Guard(out=None)
    x, y = data()
    with guard.watching(model):
        for start in range(0, 96, 8):
            model.train_on_batch(x[start : start + 8], y[start : start + 8])
            if guard.stopped:
                break
    where = guard.report.causes[0].where
    assert (where["op"], where["step"], where["sample"]) == ("log", ZERO_ROW // 8, ZERO_ROW % 8)
    assert finite(model)


def test_a_loop_of_ones_own_keeps_its_weights_clean():
    import torch

    keras.utils.set_random_seed(0)
    model, guard = log_model(), Guard(out=None)
    x, y = data()
    with guard.watching(model):
        for start in range(0, 96, 8):
            model.zero_grad()
            loss = ops.mean(
                ops.square(model(x[start : start + 8], training=True) - torch.from_numpy(y[start : start + 8]))
            )
            loss.backward()
            with torch.no_grad():
                model.optimizer.apply([v.value.grad for v in model.trainable_variables], model.trainable_variables)
    assert all(np.isfinite(v.value.detach().numpy()).all() for v in model.trainable_variables)
    finding = guard.report.findings[0]
    assert (finding.code, finding.where["op"], finding.where["layer"]) == ("nonfinite-forward", "log", "own_log")
    assert finding.status == "FAIL"
    assert finding.where["step"] == ZERO_ROW // 8


def test_inspecting_a_healthy_step_names_what_is_nearest_to_an_edge():
    x, y = arrays()
    keras.utils.set_random_seed(0)
    model, guard = log_model(), Guard(out=None, inspect=[3])
    plain = log_model()
    for variable, other in zip(plain.variables, model.variables, strict=True):
        variable.assign(other.value)
    x = np.abs(x) + 1e-6
    keras.utils.set_random_seed(1)
    model.fit(x, y, batch_size=16, verbose=0, callbacks=[guard])
    keras.utils.set_random_seed(1)
    plain.fit(x, y, batch_size=16, verbose=0)
    assert bits(model)[:-1] == bits(plain)[:-1]
    (finding,) = [f for f in guard.report.findings if "inspected" in f.message]
    assert finding.status == "PASS"
    assert "`log` in own_log" in finding.message
    assert finding.where["step"] == 3


@pytest.mark.parametrize("wrong", [{"policy": "ignore"}, {"sync_every": 0}, {"sync_every": "often"}])
def test_a_wrong_option_is_said_at_once(wrong):
    with pytest.raises(ConfigError, match="Expected"):
        Guard(**wrong)


def test_finishers_get_the_outcome_and_may_replay_under_other_conditions():
    seen = []

    def finisher(outcome):
        with outcome.replay.session() as replay:
            replay.until(outcome.trip.step)
            again, _ = replay.run(replay.records[-1])
            replay.until(outcome.trip.step)
            healed, _ = replay.run(replay.records[-1], data=replay.records[0].data)
        seen.append((again.loss, healed.loss))

    model, _ = guarded(finishers=[finisher])
    ((sick, healed),) = seen
    assert not np.isfinite(sick)
    assert np.isfinite(healed)
    assert finite(model)


@pytest.mark.parametrize("steps", [[-1], ["3"], "all", 2.5, [True]])
def test_steps_to_look_into_that_are_none_are_told_before_training(steps):
    with pytest.raises(ConfigError, match="counted from 0"):
        Guard(inspect=steps)


def test_one_step_to_look_into_needs_no_list():
    assert Guard(inspect=np.int64(3)).inspect == (3,)


@pytest.mark.parametrize("wrong", [{"repro": "sometimes"}, {"budget_s": -1}, {"budget_s": "a minute"}])
def test_options_that_mean_nothing_are_told(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Guard(**wrong)


class Asks(keras.callbacks.Callback):
    """Looks at the report while the run goes on."""

    def __init__(self, guard):
        super().__init__()
        self.guard, self.seen = guard, []

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(self.guard.report)


def test_asking_for_the_report_in_mid_run_does_not_end_the_watch():
    x, y = data()
    model = keras.Sequential([keras.Input(x.shape[1:]), layers.Flatten(), layers.Dense(1)])
    model.compile("sgd", "mse")
    guard = Guard(out=None)
    asks = Asks(guard)
    model.fit(x, y[:, :1], epochs=3, callbacks=[asks, guard], verbose=0)
    assert asks.seen == [None, None, None]
    assert len(guard.report.series["loss"]) == 3 * -(-len(x) // 32)


def test_asking_after_a_fit_that_died_takes_the_seam_out():
    x, y = data()
    model = keras.Sequential([keras.Input(x.shape[1:]), layers.Flatten(), layers.Dense(1)])
    model.compile("sgd", "mse")
    guard = Guard(out=None)
    with pytest.raises(Boom):
        model.fit(x, y[:, :1], callbacks=[guard, Raises(1)], verbose=0)
    assert guard.report is not None
    assert "apply" not in vars(model.optimizer)
