"""Units that do not move: dead ones are found, living ones are left alone, and nothing is left behind."""

import keras
import numpy as np

from tsguard.probes.idle import LAYERS_MAX, idle_units


def model(bias):
    keras.utils.set_random_seed(1)
    layers = [
        keras.layers.Dense(8, "relu", name="first"),
        keras.layers.Dropout(0.5),
        keras.layers.Dense(3, name="last"),
    ]
    made = keras.Sequential([keras.Input((5,)), *layers])
    start = made.layers[0].bias.numpy()
    start[:4] = bias
    made.layers[0].bias.assign(start)
    return made


def rows():
    return keras.ops.convert_to_tensor(np.random.default_rng(0).normal(size=(64, 5)).astype("float32"))


def test_dead_units_are_counted_and_living_ones_are_not():
    call = keras.layers.Layer.__call__
    answer, dead = idle_units(model(-100.0), rows())
    assert tuple(answer.shape) == (64, 3)
    assert dead["sequential/first"] == 0.5 if "sequential/first" in dead else 0.5 in dead.values()
    assert max(idle_units(model(0.0), rows())[1].values()) == 0.0
    assert keras.layers.Layer.__call__ is call


def test_a_call_that_fails_leaves_nothing_wrapped():
    call = keras.layers.Layer.__call__
    try:
        idle_units(model(0.0), keras.ops.zeros((4, 7)))
    except ValueError:
        pass
    assert keras.layers.Layer.__call__ is call


def test_a_deep_model_is_told_up_to_its_bound():
    deep = keras.Sequential([keras.Input((4,)), *[keras.layers.Dense(4) for _ in range(LAYERS_MAX + 5)]])
    assert len(idle_units(deep, keras.ops.ones((3, 4)))[1]) == LAYERS_MAX
