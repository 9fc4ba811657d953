"""A transfer that was declared is held against what arrived."""

import keras
import numpy as np
from keras import layers

from tsguard.checks.registry import Context
from tsguard.checks.transfer import declared_transfer
from tsguard.dataset import Data
from tsguard.subject import Subject


def asked(*, units, copied):
    keras.utils.set_random_seed(0)
    source = keras.Sequential([keras.Input((5,)), layers.Dense(units, name="encoder")])
    model = keras.Sequential([keras.Input((5,)), layers.Dense(6, name="encoder"), layers.Dense(1)])
    if copied:
        model.get_layer("encoder").set_weights(source.get_layer("encoder").get_weights())
    model.compile("adam", "mse")
    data = Data(np.ones((40, 5), "float32"), np.ones((40, 1), "float32"))
    declared = {"transferred_from": source, "transferred_into": "encoder"}
    return list(declared_transfer(Context(Subject.from_model(model, data), data, declared=declared)))


def test_weights_of_other_shapes_transfer_nothing():
    (finding,) = asked(units=12, copied=False)
    assert finding.code == "transfer-nothing"
    assert finding.where["layer"] == "encoder"
    assert "(5, 12)" in finding.message


def test_weights_that_were_never_copied_transfer_nothing():
    (finding,) = asked(units=6, copied=False)
    assert "nothing was copied" in finding.message


def test_weights_that_arrived_are_left_alone():
    assert not asked(units=6, copied=True)
