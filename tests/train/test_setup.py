"""Settings of `train:` reach the optimizer, and contradictions are said."""

import itertools
import math

import keras
import numpy as np
import pytest

from tsguard.backend import precision
from tsguard.dataset import Data
from tsguard.errors import ConfigError
from tsguard.settings import TrainSettings
from tsguard.train.formula import Formula
from tsguard.train.setup import Stop, applied, batches_per_epoch, callbacks, checkpoints, total_steps

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(24, 3)).astype("float32"), RNG.normal(size=(24, 1)).astype("float32")


def build(optimizer="adam", **options):
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, activation="tanh"), keras.layers.Dense(1)])
    model.compile(optimizer, "mse", **options)
    return model


def weights(model):
    return np.concatenate([np.ravel(w) for w in model.get_weights()])


def test_without_settings_the_model_is_left_as_it_was():
    model = build()
    optimizer = model.optimizer
    assert applied(model, TrainSettings(), steps=10).optimizer is optimizer


def test_rate_clipping_averaging_and_accumulation_reach_the_optimizer_and_its_copies():
    settings = TrainSettings(learning_rate=0.02, clip_norm=1.5, ema=0.9, accumulate=4)
    model = applied(build(keras.optimizers.SGD(0.1, momentum=0.5)), settings, steps=10)
    for made in (model.optimizer, keras.models.clone_model(model) and model._compile_config.config["optimizer"]):
        config = made.get_config()
        assert config["learning_rate"] == pytest.approx(0.02)
        assert (config["global_clipnorm"], config["use_ema"], config["ema_momentum"]) == (1.5, True, 0.9)
        assert (config["gradient_accumulation_steps"], config["momentum"]) == (4, 0.5)


def test_accumulation_equals_the_large_batch():
    small, large = build(keras.optimizers.SGD(0.1)), build(keras.optimizers.SGD(0.1))
    applied(small, TrainSettings(accumulate=3), steps=3)
    small.fit(X, Y, batch_size=8, shuffle=False, verbose=0)
    large.fit(X, Y, batch_size=24, shuffle=False, verbose=0)
    assert np.abs(weights(small) - weights(large)).max() < 1e-6


def test_accumulation_over_one_batch_is_none():
    assert applied(build(), TrainSettings(accumulate=1), steps=1).optimizer.gradient_accumulation_steps is None


def test_precision_is_mixed_inside_and_restored_afterwards():
    before = keras.config.dtype_policy().name
    with precision("float16"):
        model = applied(build(), TrainSettings(learning_rate=0.5, precision="float16"), steps=1)
    assert keras.config.dtype_policy().name == before
    assert model.layers[0].compute_dtype == "float16"
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert float(model.optimizer.inner_optimizer.learning_rate) == pytest.approx(0.5)
    model.fit(X, Y, verbose=0)


@pytest.mark.parametrize("kind", ["warmup_cosine", "one_cycle"])
def test_a_schedule_rises_to_the_peak_and_falls_to_the_floor_within_the_run(kind):
    settings = TrainSettings(
        epochs=4, batch_size=6, learning_rate=0.1, schedule={"kind": kind, "warmup_steps": 4, "floor": 0.001}
    )
    data = Data(X, Y)
    steps = total_steps(settings, data)
    assert steps == 16
    rate = applied(build(), settings, steps=steps).optimizer._learning_rate
    rates = [float(rate(step)) for step in range(steps + 1)]
    assert np.argmax(rates) == 4
    assert max(rates) == pytest.approx(0.1)
    assert rates[-1] == pytest.approx(0.001)
    assert rates[0] == pytest.approx(0.0 if kind == "warmup_cosine" else 0.004)
    assert all(a > b for a, b in itertools.pairwise(rates[4:]))


def test_the_rate_of_every_epoch_is_in_the_history():
    settings = TrainSettings(epochs=2, batch_size=6, learning_rate=0.1, schedule={"kind": "warmup_cosine"})
    model = applied(build(), settings, steps=8)
    history = model.fit(X, Y, epochs=2, batch_size=6, verbose=0, callbacks=callbacks(settings, Data(X, Y)))
    assert history.history["learning_rate"] == pytest.approx([0.05, 0.0], abs=1e-8)


def test_plateau_lowers_the_rate_when_nothing_improves():
    settings = TrainSettings(learning_rate=0.1, schedule={"kind": "plateau", "patience": 1, "factor": 0.5})
    model = applied(build("sgd"), settings, steps=None)
    done = model.predict(X, verbose=0)
    history = model.fit(X, done, epochs=3, verbose=0, callbacks=callbacks(settings, Data(X, done)))
    assert history.history["learning_rate"][-1] < 0.1


@pytest.mark.parametrize(
    ("optimizer", "settings", "words"),
    [
        (lambda: keras.optimizers.Adam(clipnorm=1.0), {"clip_norm": 2.0}, "clipnorm=1"),
        (
            lambda: keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.1, 5)),
            {"schedule": {"kind": "one_cycle"}},
            "a schedule of its own",
        ),
        (lambda: "adam", {"schedule": {"kind": "warmup_cosine", "warmup_steps": 50}}, "50, of 8 steps"),
        (lambda: "adam", {"schedule": {"kind": "warmup_cosine", "floor": 1.0}}, "at most the peak"),
    ],
)
def test_contradictions_are_mistakes_in_words(optimizer, settings, words):
    with pytest.raises(ConfigError, match=words):
        applied(build(optimizer()), TrainSettings(**settings), steps=8)


def test_a_schedule_without_an_end_asks_for_one():
    with pytest.raises(ConfigError, match="steps_per_epoch"):
        applied(build(), TrainSettings(schedule={"kind": "one_cycle"}), steps=None)


def test_batches_are_counted_as_fit_counts_them():
    settings = TrainSettings(batch_size=5, validation_split=0.3)
    seen = []
    build().fit(
        X,
        Y,
        batch_size=5,
        validation_split=0.3,
        verbose=0,
        callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(batch))],
    )
    assert batches_per_epoch(settings, Data(X, Y)) == len(seen)
    assert batches_per_epoch(settings, Data(iter([]))) is None


def test_a_composite_is_arithmetic():
    formula = Formula.parse("val_loss - 2*max(val_r2, 0)**2")
    assert formula.names == ("val_loss", "val_r2")
    assert formula.value({"val_loss": 1.0, "val_r2": 0.5}) == pytest.approx(0.5)
    assert math.isnan(Formula.parse("loss/0").value({"loss": 1.0}))
    assert math.isnan(Formula.parse("loss**0.5").value({"loss": -1.0}))


@pytest.mark.parametrize(
    "text", ["__import__('os')", "a.b", "a[0]", "a if b else c", "lambda: 1", "'a'", "a b", "", "True", "(" * 300]
)
def test_what_is_not_arithmetic_is_refused(text):
    with pytest.raises(ConfigError):
        Formula.parse(text)


def test_an_unknown_name_lists_those_there_are():
    with pytest.raises(ConfigError, match=r"val_r2.*one of the logs: loss, val_loss"):
        Formula.parse("val_loss - val_r2").value({"loss": 1.0, "val_loss": 2.0})


class Trainee:
    stop_training = False


def run(stop, values, name="val_loss"):
    """Epochs until the stop."""
    trainee = Trainee()
    stop.set_model(trainee)
    for epoch, value in enumerate(values):
        stop.on_epoch_end(epoch, {name: value})
        if trainee.stop_training:
            return epoch + 1
    return len(values)


def test_stop_waits_for_its_patience_counts_min_delta_and_skips_the_warm_up():
    assert run(Stop("val_loss", patience=2), [3, 2, 2, 2, 1]) == 4
    assert run(Stop("val_loss", patience=2, min_delta=0.5), [3, 2.9, 2.8, 2.0]) == 3
    assert run(Stop("val_loss", patience=1, warmup=3), [1, 5, 6, 4, 3, 3]) == 6
    assert run(Stop("val_loss", patience=1, mode="max"), [1, 2, 3, 3, 4]) == 4
    assert run(Stop("val_loss", patience=2), [math.nan, math.nan, 1.0]) == 2


def test_epochs_without_validation_are_not_judged():
    stop = Stop("val_loss", patience=1, every=2)
    stop.set_model(Trainee())
    stop.on_epoch_end(0, {"loss": 1.0})
    assert stop.best is None
    with pytest.raises(ConfigError, match="val_loss"):
        stop.on_epoch_end(1, {"loss": 1.0})


def test_checkpoints_are_ranked_by_what_training_stops_by_unless_another_is_named():
    stopping = TrainSettings(stop={"monitor": "val_loss - val_r2"})
    assert checkpoints(stopping)["monitor"] == "val_loss - val_r2"
    named = TrainSettings(stop={"monitor": "loss"}, checkpoint={"monitor": "val_mae"})
    assert checkpoints(named)["monitor"] == "val_mae"
    assert checkpoints(TrainSettings())["monitor"] == "val_loss"
