"""What can be read only once: the preflight sees its first batch, and training every one, as without tsguard."""

from __future__ import annotations

import keras
import numpy as np

import tsguard


def batches(count):
    """Batches from the global source of numbers, which another reader would move."""
    for _ in range(count):
        x = np.random.normal(size=(16, 4)).astype("float32")
        yield x, x[:, :1] - x[:, 1:2]


def model():
    keras.utils.set_random_seed(4)
    built = keras.Sequential([keras.Input((4,)), keras.layers.Dense(6, "tanh"), keras.layers.Dense(1)])
    built.compile(keras.optimizers.Adam(0.01), "mse")
    return built


FIT = {"epochs": 2, "steps_per_epoch": 30, "shuffle": False, "verbose": 0}


def test_a_generator_is_trained_on_to_the_bit_and_to_its_last_batch(tmp_path):
    alone = model()
    alone.fit(batches(60), **FIT)
    watched = model()
    report = tsguard.fit(watched, batches(60), gates="report", out=tmp_path, **FIT)
    assert all(np.array_equal(a, b) for a, b in zip(alone.get_weights(), watched.get_weights(), strict=True))
    assert not [f for f in report.findings if f.status in ("WARN", "FAIL", "ERROR")]


def test_a_generator_is_asked_about_by_its_first_batch():
    keras.utils.set_random_seed(4)
    stack = [keras.layers.Dense(6, "tanh"), keras.layers.Dense(1, "sigmoid")]
    narrow = keras.Sequential([keras.Input((4,)), *stack])
    narrow.compile("adam", "mse")
    source = batches(3)
    assert "output-activation" in {f.code for f in tsguard.check(narrow, source).causes}
    assert len(list(source)) == 2
