"""A frozen part that was never trained, where words go in: their numbers say nothing, how often they come does."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

from tsguard.checks.registry import Context
from tsguard.checks.transfer import frozen_at_random
from tsguard.dataset import Data
from tsguard.subject import Subject


def texts():
    rng = np.random.default_rng(0)
    usual = rng.integers(1, 200, (6, 15))
    kind = rng.integers(0, 6, 900)
    words = np.where(rng.random((900, 14)) < 0.6, usual[kind[:, None], rng.integers(0, 15, (900, 14))], 0)
    return np.where(words == 0, rng.integers(1, 200, words.shape), words).astype("int32"), kind.astype("int32")


def codes(*, frozen, width):
    keras.utils.set_random_seed(1)
    encoder = keras.Sequential([keras.Input((14,), dtype="int32"), layers.Embedding(200, width)], name="encoder")
    encoder.add(layers.GlobalAveragePooling1D())
    encoder.trainable = not frozen
    given = keras.Input((14,), dtype="int32")
    model = keras.Model(given, layers.Dense(6, activation="softmax")(encoder(given)))
    model.compile("adam", "sparse_categorical_crossentropy")
    data = Data(*texts())
    return [f.code for f in frozen_at_random(Context(subject=Subject.from_model(model, data), data=data))]


def test_a_narrow_table_frozen_at_random_loses_the_words():
    assert codes(frozen=True, width=3) == ["disconnected-parameters"]
    assert not codes(frozen=False, width=3)


def test_random_features_that_keep_what_the_words_tell_are_a_method():
    assert not codes(frozen=True, width=200)
