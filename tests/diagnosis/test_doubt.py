"""Runs that know little of targets that no closed-form fit can read: what is proven on rows held back, and noise."""

import keras
import numpy as np
import pytest
from keras import layers

from tsguard.dataset import Data
from tsguard.diagnosis import Record, diagnose
from tsguard.findings import causes
from tsguard.probes.stage import Snapshot


def pictures(seed, samples=400):
    """An upright or a level stroke at a random place: no linear or quadratic rule tells them apart."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, samples)
    x = 0.05 * rng.random((samples, 8, 8, 1))
    for row, kind in enumerate(label):
        top, left = rng.integers(0, 4, 2)
        along = np.arange(4)
        x[row, top + (along if kind else 0), left + (0 if kind else along), 0] = 1.0
    return x.astype("float32"), label.astype("int32")


def record(*, callbacks=(), noise=False, rate=1e-2):
    keras.utils.set_random_seed(0)
    (x, y), held = pictures(0), pictures(1, 200)
    if noise:
        rng = np.random.default_rng(5)
        y, held = rng.integers(0, 2, len(y)).astype("int32"), (held[0], rng.integers(0, 2, 200).astype("int32"))
    stack = [layers.Conv2D(8, 4, activation="relu"), layers.GlobalMaxPooling2D(), layers.Dense(2, activation="softmax")]
    model = keras.Sequential([keras.Input((8, 8, 1)), *stack])
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
    model(x[:1])
    start, losses = Snapshot(model), []
    watch = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: losses.append(logs["loss"]))
    model.optimizer.build(model.trainable_variables)
    history = model.fit(x, y, epochs=25, batch_size=25, verbose=0, callbacks=[watch, *callbacks]).history
    series = {**history, "epoch/loss": history["loss"], "loss": losses}
    return Record(model, Data(x, y, validation=held, batch_size=25), start, series, {"epochs": 25, "batch_size": 25})


@pytest.mark.slow
def test_a_callback_that_raised_the_rate_is_named():
    raises = keras.callbacks.LearningRateScheduler(lambda epoch, rate: 3.0)
    found = causes(diagnose(record(callbacks=[raises]), budget_s=30))
    assert found[0].code == "lr-too-high"
    assert "callback" in found[0].message


@pytest.mark.slow
def test_a_run_that_learned_is_not_doubted():
    assert not causes(diagnose(record(), budget_s=30))


@pytest.mark.slow
def test_noise_is_explained_by_no_change():
    assert not causes(diagnose(record(noise=True), budget_s=20))
