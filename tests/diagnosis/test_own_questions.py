"""An own loss is answered where each row has its own answer; what stands in the inputs is not to be found."""

import keras
import numpy as np
from keras import layers, ops

from tsguard.dataset import Data
from tsguard.diagnosis import Record, diagnose
from tsguard.diagnosis.seen import answered
from tsguard.findings import causes
from tsguard.probes.baselines import learnable_share
from tsguard.train.start import TrainStart


def lifetimes(*, epochs):
    """Rows of which a third are seen to the end; the loss is a likelihood that falls by little."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 4)).astype("float32")
    life, end = np.exp(0.8 * x[:, 0]) * rng.weibull(2.0, 600), rng.uniform(0.3, 4.0, 600)
    y = np.stack([np.minimum(life, end), life <= end], axis=1).astype("float32")

    def weibull(seen, heads):
        shape = ops.softplus(heads[:, 1:]) + 0.1
        z = shape * (ops.log(seen[:, :1] + 1e-6) - heads[:, :1])
        return ops.mean(ops.exp(ops.clip(z, -20, 8)) - seen[:, 1:] * (z + ops.log(shape)), axis=-1)

    model = keras.Sequential([keras.Input((4,)), layers.Dense(16, "tanh"), layers.Dense(2)])
    model.compile(keras.optimizers.Adam(1e-2), weibull)
    model(x[:1])
    start = TrainStart(model)
    if epochs:
        model.fit(x, y, epochs=epochs, batch_size=32, verbose=0)
    flat = [1.0 - 0.001 * step for step in range(40)]  # what is asked here is not whether it fell
    return Record(model, Data(x, y, batch_size=32), start, {"loss": flat, "epoch/loss": flat}, {"epochs": 8})


def test_answers_that_belong_to_their_rows_answer_an_own_loss():
    assert answered(lifetimes(epochs=8))
    assert not answered(lifetimes(epochs=0))


def test_what_the_next_input_is_cannot_be_read_off_the_inputs():
    """A chance walk over eight kinds: the next one is a neighbour, and either is as likely."""
    rng = np.random.default_rng(0)
    walk = np.cumsum(rng.choice((-1, 1), (500, 13)), axis=1) % 8
    ahead = Data(walk[:, :-1].astype("int32"), walk[:, 1:].astype("int32"))
    same = Data(walk[:, :-1].astype("int32"), walk[:, :-1].astype("int32"))
    assert learnable_share(ahead) < 0.8
    assert learnable_share(same) > 0.99


def test_many_features_that_never_vary_are_proven_by_silencing_them():
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    told = rng.normal(size=(480, 3)).astype("float32")
    x = np.concatenate([told, np.full((480, 200), 5.0, "float32")], axis=1)
    y = (told[:, :1] - 0.5 * told[:, 1:2]).astype("float32")
    model = keras.Sequential([keras.Input((203,)), layers.Dense(16, "sigmoid"), layers.Dense(1)])
    model.compile(keras.optimizers.Adam(3e-3), "mse")
    model(x[:1])
    start = TrainStart(model)
    history = model.fit(x, y, epochs=6, batch_size=32, verbose=0).history
    series = {**history, "epoch/loss": history["loss"]}
    record = Record(model, Data(x, y, batch_size=32), start, series, {"epochs": 6, "batch_size": 32})
    from tsguard import catalogue

    seen = catalogue.finding("data-constant", "200 features are 5 everywhere.", where={"feature": 3}, status="WARN")
    found = causes(diagnose(record, (seen,), budget_s=30))
    assert found[0].code == "data-constant"
    assert found[0].proof is not None
