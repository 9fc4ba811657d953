"""What was learned of training rows alone is told, where rows were held back."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tsguard.dataset import Data
from tsguard.diagnosis.record import Record
from tsguard.diagnosis.seen import measure
from tsguard.probes.stage import Snapshot


def told(x, y, held, loss, units, activation=None):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(96, activation="relu")])
    model.add(keras.layers.Dense(units, activation=activation))
    model.compile(keras.optimizers.Adam(0.01), loss)
    model.fit(x, y, epochs=25, verbose=0)
    record = Record(model, Data(x, y, validation=held), Snapshot(model))
    return [(f.code, str(f.status), f.where.get("split")) for f in measure(record).symptoms]


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("classes", [True, False])
def test_pairs_that_do_not_belong_together_teach_nothing_for_other_rows(paired, classes):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(600, 8)).astype("float32")
    score = x[:, 0] - 0.8 * x[:, 1]
    y = (np.digitize(score, [-0.5, 0.5]) if classes else score[:, None]).astype("int32" if classes else "float32")
    if not paired:
        y = y[rng.permutation(600)]
    loss = "sparse_categorical_crossentropy" if classes else "mse"
    found = told(x[:400], y[:400], (x[400:], y[400:]), loss, 3 if classes else 1, "softmax" if classes else None)
    assert found == ([] if paired else [("below-baseline", "WARN", "validation")])
