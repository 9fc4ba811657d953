"""Rates and freezing by layer reach exactly the layers that they name, and survive a new `compile`."""

import keras
import numpy as np
import pytest

import tsguard
from tsguard.config import train_settings
from tsguard.errors import ConfigError
from tsguard.train.layers import ByLayer, factors, with_factors

X = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
Y = X[:, :1] * 2
OPTIMIZERS = "Adadelta Adafactor Adagrad Adam AdamW Adamax Ftrl Lamb Lion Nadam RMSprop SGD".split()


def build(optimizer="sgd"):
    keras.utils.set_random_seed(1)
    layers = [
        keras.layers.Dense(5, activation="tanh", name="encoder"),
        keras.layers.BatchNormalization(name="norm"),
        keras.layers.Dense(1, name="head"),
    ]
    model = keras.Sequential([keras.Input((4,)), *layers])
    model.compile(optimizer, "mse")
    return model


def updated(name, *, rate, by=None, decay=None):
    """Two variables after three updates with the same gradients; `by` is the factor of the first."""
    optimizer = getattr(keras.optimizers, name)(learning_rate=rate, weight_decay=decay)
    one, two = (keras.Variable(np.full((3, 2), value, "float32")) for value in (1.0, 2.0))
    optimizer.build([one, two])
    if by is not None:
        with_factors(optimizer, {id(one): by})
    for step in range(1, 4):
        gradient = keras.ops.convert_to_tensor(np.full((3, 2), 0.3 * step, "float32"))
        optimizer.apply([gradient, gradient], [one, two])
    return one.numpy(), two.numpy()


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_a_factor_is_a_rate_of_ones_own_in_every_optimizer(name, decay):
    both = updated(name, rate=0.05, by=0.25, decay=decay)
    assert np.allclose(both[0], updated(name, rate=0.0125, decay=decay)[0], rtol=1e-6)
    assert np.allclose(both[1], updated(name, rate=0.05, decay=decay)[1], rtol=1e-6)
    assert not np.allclose(both[0], updated(name, rate=0.05, decay=decay)[0], rtol=1e-4)


def test_the_last_of_several_patterns_holds():
    model = build()
    found = factors(model, {"*": 0.5, "head": 2.0})
    assert {found[id(v)] for v in model.get_layer("head").variables} == {2.0}
    assert {found[id(v)] for v in model.get_layer("encoder").variables} == {0.5}


class Weights(keras.callbacks.Callback):
    """What each layer held when an epoch began and after the last one."""

    def __init__(self):
        super().__init__()
        self.seen, self.trainable = [], []

    def on_epoch_begin(self, epoch, logs=None):
        self.trainable.append({layer.name: layer.trainable for layer in self.model.layers})
        self.take()

    def take(self):
        self.seen.append({layer.name: [w.copy() for w in layer.get_weights()] for layer in self.model.layers})

    def moved(self, name, epoch):
        before, after = self.seen[epoch][name], self.seen[epoch + 1][name]
        return any(not np.array_equal(a, b) for a, b in zip(before, after, strict=True))


class Compile(keras.callbacks.Callback):
    """Compiles the model anew, at the beginning of an epoch and in the middle of one."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            self.model.compile(keras.optimizers.Adam(0.01), "mse")

    def on_train_batch_end(self, batch, logs=None):
        if batch == 1:
            self.model.compile(keras.optimizers.Adam(0.01), "mse")


@pytest.mark.parametrize("compiles", [False, True])
@pytest.mark.parametrize("ema", [None, 0.5])
def test_a_layer_waits_for_its_epoch_and_is_trained_then(tmp_path, compiles, ema):
    model, watch = build("adam"), Weights()
    train = {"freeze": {"encoder": 2, "norm": True}, "rates": {"head": 0.5}, **({"ema": ema} if ema else {})}
    callbacks = [watch, *([Compile()] if compiles else [])]
    if compiles and ema:
        pytest.skip("a model that is compiled without averaging has none")
    report = tsguard.fit(
        model, X, Y, train=train, epochs=4, batch_size=8, verbose=0, callbacks=callbacks, preflight=False,
        diagnose=False, out=tmp_path,
    )  # fmt: skip
    watch.take()
    assert [watch.moved("encoder", epoch) for epoch in range(4)] == [False, False, True, True]
    assert [watch.moved("norm", epoch) for epoch in range(4)] == [False] * 4
    assert all(watch.moved("head", epoch) for epoch in range(4))
    assert model.get_layer("encoder").trainable
    assert not model.get_layer("norm").trainable
    rates = report.series
    assert list(rates["epoch/learning_rate/encoder"])[:2] == [0, 0]
    assert rates["epoch/learning_rate/encoder"][2] > 0
    assert rates["epoch/learning_rate/head"][0] == pytest.approx(rates["epoch/learning_rate"][0] / 2)
    assert not [f for f in report.findings if f.status in ("FAIL", "ERROR")]


def test_what_was_never_thawed_is_not_accused_of_standing_still(tmp_path):
    report = tsguard.fit(
        build(), X, Y, train={"freeze": {"encoder": 9}}, epochs=2, verbose=0, preflight=False, diagnose=False,
        out=tmp_path,
    )  # fmt: skip
    assert not [f.code for f in report.findings if f.status in ("WARN", "FAIL", "ERROR")]


def test_rates_hold_after_a_new_compile(tmp_path):
    model = build()
    tsguard.fit(
        model, X, Y, train={"rates": {"head": 1e-6}}, epochs=2, batch_size=8, verbose=0, callbacks=[Compile()],
        preflight=False, diagnose=False, out=tmp_path,
    )  # fmt: skip
    moved = {
        name: np.abs(model.get_layer(name).get_weights()[0] - build().get_layer(name).get_weights()[0]).max()
        for name in ("encoder", "head")
    }
    assert moved["head"] < 1e-4 < moved["encoder"]


def test_a_block_is_thawed_but_for_what_is_named_apart():
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="low"), keras.layers.Dense(3, name="high")])
    inner.name = "backbone"
    model = keras.Sequential([keras.Input((4,)), inner, keras.layers.Dense(1, name="head")])
    model.compile("adam", "mse")
    by, seen = ByLayer({}, {"backbone": True, "high": False}), []
    by.set_model(model)
    by.on_train_begin()
    by.on_epoch_begin(0)
    seen = {v.path.split("/")[-2]: v.trainable for v in model.weights}
    by.release()
    assert seen == {"low": False, "high": True, "head": True}


@pytest.mark.parametrize("key", ["rates", "freeze"])
def test_a_name_that_no_layer_has_is_said_before_the_first_step(tmp_path, key):
    with pytest.raises(ConfigError, match=rf"train\.{key}: received 'encodr'\. Expected .*encoder, norm, head"):
        tsguard.fit(build(), X, Y, train={key: {"encodr": 2}}, verbose=0, preflight=False, out=tmp_path)


@pytest.mark.parametrize(
    ("given", "words"),
    [({"rates": {"head": 0}}, r"train\.rates\.head: received 0"), ({"frees": {}}, r"did you mean train\.freeze")],
)
def test_mistakes_in_a_scripts_settings_are_told_as_in_a_file(given, words):
    with pytest.raises(ConfigError, match=words):
        train_settings(given)


@pytest.mark.parametrize("section", [{"rates": {"encodr": 0.1}}, {"freeze": {"encodr": True}}])
def test_a_layer_that_is_not_there_is_told_before_the_preflight(section, tmp_path, monkeypatch):
    def asked(*arguments, **options):
        raise AssertionError("a preflight was begun")

    monkeypatch.setattr("tsguard.train.session.preflight", asked)
    with pytest.raises(ConfigError, match=r"encodr.*encoder, norm, head"):
        tsguard.fit(build(), X, Y, train=section, out=tmp_path)
    assert not list(tmp_path.iterdir())
