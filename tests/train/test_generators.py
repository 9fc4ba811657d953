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


def scaled(size, rows=16):
    """Batches of prices, drawn by a source of their own."""
    rng = np.random.default_rng(0)
    while True:
        x = rng.normal(size=(rows, 4)).astype("float32")
        yield x, (size * (3 + x[:, :1])).astype("float32")


def test_values_out_of_scale_are_seen_in_the_first_batch():
    source = scaled(80_000.0)
    found = [f for f in tsguard.check(model(), source).findings if f.check == "values out of scale"]
    assert [(f.code, f.status) for f in found] == [("data-scale", "FAIL")]
    assert "target" in found[0].message
    assert next(source)[0].shape == (16, 4)


def test_a_generator_of_usual_values_is_in_scale_and_a_few_rows_tell_nothing():
    for source in (scaled(1.0), scaled(80_000.0, rows=4)):
        found = [f for f in tsguard.check(model(), source).findings if f.check == "values out of scale"]
        assert found
        assert all(f.status in ("PASS", "NOT_RUN") for f in found)


def test_a_generator_of_odd_batches_is_left_to_the_step():
    report = tsguard.check(model(), iter([("words", object())]))
    assert not [f for f in report.findings if f.check == "values out of scale" and f.status == "ERROR"]
