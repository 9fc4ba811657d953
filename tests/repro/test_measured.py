"""The lines that measure a trained model say what the diagnosis says."""

import keras
import numpy as np
import pytest
from keras import layers

from tsguard.dataset import map_leaves
from tsguard.probes.score import judge
from tsguard.probes.stage import Batch, as_tensor
from tsguard.repro.measured import lines_of


def one(units, loss, activation=None):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((3,)), layers.Dense(units, activation=activation)])
    model.compile("sgd", loss)
    return model


def two():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((3,))
    model = keras.Model(inputs, {name: layers.Dense(1, name=name)(inputs) for name in ("a", "b")})
    model.compile("sgd", {"a": "mse", "b": "mse"})
    return model


RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3)).astype("float32")
SURE = (X[:, 0] > 0).astype("int32")
RARE = np.where(np.arange(40) < 3, 1, 0).astype("int32")
VALUES = X[:, :1] * 0.5

PROGRAMS = {
    "values": lambda: (one(1, "mse"), VALUES),
    "classes": lambda: (one(2, "sparse_categorical_crossentropy", "softmax"), SURE),
    "a rare class": lambda: (one(2, "sparse_categorical_crossentropy", "softmax"), RARE),
    "yes or no": lambda: (one(1, "binary_crossentropy", "sigmoid"), SURE[:, None].astype("float32")),
    "logits": lambda: (one(1, keras.losses.BinaryCrossentropy(from_logits=True)), SURE[:, None].astype("float32")),
    "one-hot": lambda: (one(2, "categorical_crossentropy", "softmax"), np.eye(2, dtype="float32")[SURE]),
    "several outputs": lambda: (two(), {"a": VALUES, "b": -VALUES}),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_lines_agree_with_the_diagnosis(name):
    model, y = PROGRAMS[name]()
    for _ in range(30):
        model.train_on_batch(X, y)
    space = {"np": np, "y": y, "answers": model.predict(X, verbose=0)}
    exec("\n".join(lines_of(model, X, y)), space)
    judged = judge(model, Batch(*(map_leaves(as_tensor, part) for part in (X, y, None))))
    assert judged is not None
    assert max(0.0, float(space["share"])) == pytest.approx(judged.skill, abs=1e-4)
