"""Loaders: what fit gets is what the seed says, in every epoch, from any start, with workers or without."""

from __future__ import annotations

import numpy as np
import pytest

from tsguard.data.loader import WaitMeter, as_inputs, keras_dataset, torch_loader, workers_for_machine
from tsguard.data.sampling import StepSampler
from tsguard.data.windows import Windows


@pytest.fixture
def windows():
    return Windows(np.arange(60, dtype=np.float32).reshape(30, 2), length=3, horizon=1, time=np.arange(30))


def rows_of(loader):
    return [x[:, 0, 0].tolist() for x, _ in loader]


def expected(windows, epoch, start=0, size=4, seed=5):
    sampler = StepSampler(len(windows), size, seed=seed)
    return [windows.take(sampler.batch(epoch, k)).x[:, 0, 0].tolist() for k in range(start, len(sampler))]


def test_epochs_follow_each_other_and_are_the_samplers(windows):
    loader = torch_loader(windows, batch_size=4, seed=5)
    assert [rows_of(loader), rows_of(loader)] == [expected(windows, 0), expected(windows, 1)]


def test_looking_at_the_first_batch_does_not_use_up_the_epoch(windows):
    loader = torch_loader(windows, batch_size=4, seed=5)
    next(iter(loader))
    assert rows_of(loader) == expected(windows, 0)


def test_a_loader_resumes_in_mid_epoch(windows):
    loader = torch_loader(windows, batch_size=4, seed=5, epoch=1, start=3)
    assert [rows_of(loader), rows_of(loader)] == [expected(windows, 1, start=3), expected(windows, 2)]


@pytest.mark.slow
def test_workers_change_nothing_but_the_time(windows):
    loader = torch_loader(windows, batch_size=4, seed=5, workers=2, transform=as_inputs)
    got = [[inputs["values"][:, 0, 0].tolist() for inputs, _ in loader] for _ in range(2)]
    assert got == [expected(windows, 0), expected(windows, 1)]


def fitted(data, **options):
    import keras

    seen = []

    class Spy(keras.layers.Layer):
        def call(self, inputs):
            if inputs.device.type != "meta":
                seen.append(inputs[:, 0, 0].tolist())
            return inputs

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3, 2)), Spy(), keras.layers.Flatten(), keras.layers.Dense(2)])
    model.compile("sgd", "mse", run_eagerly=True)
    seen.clear()
    model.fit(data, epochs=2, verbose=0, **options)
    return seen


def flat(batch):
    return batch.x, batch.y[:, 0]


def test_fit_sees_exactly_the_seeded_steps_from_a_dataloader(windows):
    data = torch_loader(windows, batch_size=4, seed=5, transform=flat, workers=0)
    assert fitted(data, shuffle=False) == expected(windows, 0) + expected(windows, 1)


def test_fit_sees_exactly_the_seeded_steps_from_a_pydataset(windows):
    data = keras_dataset(windows, batch_size=4, seed=5, transform=flat, workers=0)
    assert fitted(data, shuffle=False) == expected(windows, 0) + expected(windows, 1)


def test_workers_are_chosen_by_the_machine():
    assert workers_for_machine(in_memory=True, cpus=64) == 0
    assert [workers_for_machine(in_memory=False, cpus=cpus) for cpus in (1, 2, 4, 16)] == [0, 0, 3, 8]


def test_a_stalled_loader_is_measured():
    now = [0.0]

    def slow():
        for _ in range(4):
            now[0] += 3.0
            yield 1

    meter = WaitMeter(clock=lambda: now[0])
    for _ in meter.watch(slow()):
        now[0] += 1.0
    assert meter.batches == 4
    assert meter.share == pytest.approx(0.75)
    assert WaitMeter().share == 0.0
