"""The seam hears every step, changes nothing, and never outlives the fit it was armed for."""

import copy
import pickle

import keras
import numpy as np
import pytest
import torch

from tests.guard.programs import PROGRAMS, bits, data_loader_with_workers, functional, run, sequential
from tsguard.guard.norms import total_norm
from tsguard.guard.recorder import Recorder
from tsguard.guard.replay import Replay
from tsguard.guard.seam import StepSeam, original


class Witness(keras.callbacks.Callback):
    """Arms a seam, records every step, and remembers what it heard."""

    def __init__(self, capture_at=3):
        super().__init__()
        self.capture_at, self.step, self.epoch = capture_at, 0, 0
        self.losses, self.norms, self.terms, self.errors = [], [], {}, []

    def on_train_begin(self, logs=None):
        self.seam, self.recorder = StepSeam(self.model, self), Recorder(self.model)
        self.seam.arm()

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        self.batch = batch
        self.seam.announce()

    def on_train_end(self, logs=None):
        self.seam.disarm()

    def before_step(self, data):
        if self.step % 6 == self.capture_at:
            self.recorder.capture(self.step)
        self.record = self.recorder.record(data, step=self.step, epoch=self.epoch, batch=self.batch)

    def on_loss(self, loss):
        self.losses.append(float(loss))
        self.record.loss = float(loss)

    def on_term(self, name, value):
        self.terms[name] = float(value)

    def before_update(self, gradients, variables):
        self.norms.append(float(total_norm(gradients)))
        self.record.grad_norm = self.norms[-1]
        return True

    def after_update(self, gradients, variables):
        pass

    def after_step(self, logs):
        self.step += 1
        return logs

    def crashed(self, error):
        self.errors.append(error)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_listening_seam_leaves_every_bit_and_replays_every_bit(name):
    plain = run(PROGRAMS[name])
    witness = Witness()
    watched = run(PROGRAMS[name], [witness])
    assert not witness.errors
    assert witness.step >= 15
    assert len(witness.losses) == len(witness.norms) == witness.step
    assert bits(plain) == bits(watched)
    recorder = witness.recorder
    replay = Replay(watched, recorder.clean, recorder.records, first_step=recorder.clean_step)
    before = bits(watched)
    with replay.session():
        replayed = replay.until(10**9)
    assert len(replayed) >= 3
    assert [step.same for step in replayed] == [True] * len(replayed)
    assert bits(watched) == before


@pytest.mark.slow
def test_a_loader_with_workers_is_left_alone_too():
    witness = Witness()
    assert bits(run(data_loader_with_workers)) == bits(run(data_loader_with_workers, [witness]))
    assert witness.step == 18


def test_the_loss_is_that_of_the_step_not_the_running_mean():
    witness = Witness()
    seen = []
    log = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(logs["loss"]))
    run(sequential, [witness, log], epochs=1)
    assert seen[0] == pytest.approx(witness.losses[0], rel=1e-6)
    assert seen[-1] == pytest.approx(sum(witness.losses) / len(witness.losses), rel=1e-5)
    assert seen[-1] != pytest.approx(witness.losses[-1], rel=1e-3)


def test_terms_are_named_after_outputs_and_add_up_to_the_loss():
    witness = Witness()
    run(PROGRAMS["dict_inputs"], [witness])
    assert set(witness.terms) == {"a", "b"}
    assert sum(witness.terms.values()) == pytest.approx(witness.losses[-1], rel=1e-5)


class Boom(Exception):
    pass


class Raises(keras.callbacks.Callback):
    def __init__(self, at):
        super().__init__()
        self.at = at

    def on_train_batch_end(self, batch, logs=None):
        if batch == self.at:
            raise Boom


def test_a_seam_whose_fit_died_disarms_itself_at_the_next_step():
    witness = Witness()
    keras.utils.set_random_seed(1)
    model, fit = sequential()
    with pytest.raises(Boom):
        model.fit(**fit, verbose=0, callbacks=[witness, Raises(1)])
    heard = witness.step
    model.fit(**fit, verbose=0)
    assert witness.step == heard
    assert "apply" not in model.optimizer.__dict__
    assert "_compute_loss" not in model.__dict__
    assert original(model.train_function) is model.train_function


def test_a_seam_never_nests_on_one_left_behind():
    model, fit = sequential()
    first, second = Witness(), Witness()
    with pytest.raises(Boom):
        model.fit(**fit, verbose=0, callbacks=[first, Raises(1)])
    model.fit(**fit, verbose=0, callbacks=[second])
    assert first.step == 2
    assert second.step == 3
    assert "apply" not in model.optimizer.__dict__
    assert original(model.train_function) is model.train_function


class Recompiles(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            self.model.compile(keras.optimizers.SGD(1e-2), "mae")
            self.model.make_train_function()
            self.model.optimizer.build(self.model.trainable_variables)


@pytest.mark.parametrize("first", [True, False])
def test_recompiling_inside_fit_is_survived(first):
    witness = Witness()
    callbacks = [witness, Recompiles()] if first else [Recompiles(), witness]
    plain = run(sequential, [Recompiles()])
    watched = run(sequential, callbacks)
    assert bits(plain) == bits(watched)
    assert witness.step == 18
    assert "apply" not in watched.optimizer.__dict__


def test_a_crash_of_the_watcher_is_reported_and_costs_the_run_nothing():
    class Clumsy(Witness):
        def before_update(self, gradients, variables):
            if self.step == 3:
                raise ValueError("our own mistake")
            return super().before_update(gradients, variables)

    witness = Clumsy()
    assert bits(run(sequential)) == bits(run(sequential, [witness]))
    assert [str(error) for error in witness.errors] == ["our own mistake"]
    assert not witness.seam.armed


def test_copies_and_pickles_of_a_wrapped_function_are_the_original():
    model, _ = functional()
    seam = StepSeam(model, Witness())
    seam.arm()
    function = model.train_function
    assert copy.deepcopy(model.train_function) is original(function)
    rebuild, parts = model.train_function.__reduce__()
    assert rebuild(*parts) is original(function)
    assert pickle.loads(pickle.dumps(rebuild)) is rebuild
    seam.disarm()
    assert model.train_function is original(function)


def test_an_exception_inside_the_step_leaves_torch_as_it_was():
    class Breaks(keras.Model):
        def call(self, x):
            return x

        def train_step(self, data):
            raise Boom

    model = Breaks()
    model.compile("sgd", "mse")
    backward = torch.autograd.backward
    with pytest.raises(Boom):
        model.fit(np.zeros((8, 3), "float32"), np.zeros((8, 3), "float32"), verbose=0, callbacks=[Witness()])
    assert torch.autograd.backward is backward
    assert "apply" not in model.optimizer.__dict__
