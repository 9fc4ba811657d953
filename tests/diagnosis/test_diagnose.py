import keras
import numpy as np
import pytest
import torch
from keras import layers

from tsguard.dataset import Data
from tsguard.diagnosis import Record, diagnose, symptoms
from tsguard.findings import causes
from tsguard.train.start import TrainStart


@pytest.fixture(autouse=True)
def seeded():
    """Layers draw the seeds of their initialisers when they are made, which may be before a model is."""
    keras.utils.set_random_seed(0)


def table(columns=5, samples=320):
    x = np.random.default_rng(0).normal(size=(samples, columns)).astype("float32")
    return x, (x[:, :1] - 0.5 * x[:, 1:2]).astype("float32")


def trained(*, rate=0.05, optimizer=None, x=None, y=None, epochs=6, stack=None, model=None, loss="mse", **fit):
    keras.utils.set_random_seed(0)
    given_x, given_y = table()
    x, y = given_x if x is None else x, given_y if y is None else y
    stack = stack or [layers.Dense(12, "tanh"), layers.Dense(1)]
    model = model or keras.Sequential([keras.Input((x.shape[1],)), *stack])
    model.compile(optimizer=optimizer or keras.optimizers.SGD(rate), loss=loss)
    model(x[:1])
    start = TrainStart(model)
    history = model.fit(x, y, epochs=epochs, batch_size=32, verbose=0, **fit)
    series = {**history.history, "epoch/loss": history.history["loss"]}
    return Record(model, Data(x, y, batch_size=32), start, series, {"epochs": epochs, "batch_size": 32, **fit})


def first(record, **options):
    found = causes(diagnose(record, budget_s=20, **options))
    return found[0] if found else None


def test_a_healthy_run_gets_no_word():
    assert not [f for f in diagnose(trained(), budget_s=20) if f.status in ("WARN", "FAIL")]


@pytest.mark.slow
def test_a_rate_that_is_too_low_is_proven_by_raising_it():
    found = first(trained(rate=1e-6))
    assert found.code == "lr-too-low"
    assert found.status == "FAIL"
    assert found.proof.effect > 0.5
    assert found.proof.before.y
    assert found.proof.after.y[-1] < found.proof.before.y[-1]
    assert "no-learning" in found.explains


@pytest.mark.slow
def test_a_rate_that_is_too_high_is_proven_by_lowering_it():
    assert first(trained(rate=20.0)).code == "lr-too-high"


@pytest.mark.slow
def test_a_penalty_is_found_by_taking_it_away():
    penalty = keras.regularizers.L2(5.0)
    stack = [layers.Dense(12, "tanh", kernel_regularizer=penalty), layers.Dense(1, kernel_regularizer=penalty)]
    assert first(trained(stack=stack)).code == "over-regularised"


@pytest.mark.slow
def test_the_model_is_left_bit_for_bit_as_the_run_left_it():
    record = trained(rate=1e-6)
    before = [v.value.detach().clone() for v in record.model.variables]
    generators = torch.get_rng_state()
    diagnose(record, budget_s=10)
    assert all(torch.equal(a, v.value) for a, v in zip(before, record.model.variables, strict=True))
    assert torch.equal(generators, torch.get_rng_state())


def test_targets_of_noise_accuse_nobody():
    noise = np.random.default_rng(1).normal(size=(320, 1)).astype("float32")
    found = diagnose(trained(y=noise), budget_s=10)
    assert not causes(found)
    assert {f.code for f in found if f.status in ("WARN", "FAIL")} <= {"below-baseline"}


@pytest.mark.slow
def test_what_only_quickens_a_run_that_was_short_is_no_cause_of_it():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 8)).astype("float32")
    y = (2 * x[:, :1] + 0.1 * rng.normal(size=(600, 1))).astype("float32")
    stack = [layers.Dense(16, "relu"), layers.Dense(1)]
    found = diagnose(trained(x=x, y=y, stack=stack, optimizer="adam", epochs=3), budget_s=20)
    assert not causes(found)
    assert [(f.code, str(f.status)) for f in found if f.status >= "WARN"] == [("no-learning", "WARN")]
    assert "Train longer" in found[0].message


@pytest.mark.slow
def test_a_run_that_had_been_better_was_not_short():
    """The rate is a hundred times too high: more steps may happen upon a better end, and a lower rate surely does."""
    rng = np.random.default_rng(1)
    line = np.sin(np.arange(900) / 4) + 0.5 * np.sin(np.arange(900) / 1.3) + 0.1 * rng.normal(size=900)
    x = np.stack([line[i : i + 12] for i in range(880)]).astype("float32")
    y = line[12:892, None].astype("float32")
    stack = [layers.Reshape((12, 1)), layers.LSTM(16), layers.Dense(1)]
    found = diagnose(trained(x=x, y=y, stack=stack, optimizer=keras.optimizers.Adam(3.0), epochs=5), budget_s=30)
    assert [f.code for f in causes(found)][:1] == ["lr-too-high"]


class OneEpoch(keras.callbacks.Callback):
    """Stops whatever it is given to."""

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = True


@pytest.mark.parametrize("epochs", [16, 1], ids=["of sixteen", "of one"])
def test_a_run_that_something_ended_in_its_first_steps_is_named_and_one_that_was_to_be_so_short_is_not(epochs):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1500, 8)).astype("float32")
    y = (x[:, :1] * x[:, 1:2] + np.tanh(2 * x[:, 2:3]) + x[:, 3:4]).astype("float32")
    stack = [layers.Dense(64, "gelu"), layers.Dense(32, "gelu"), layers.Dense(1)]
    record = trained(x=x, y=y, stack=stack, optimizer="adam", epochs=epochs, callbacks=[OneEpoch()])
    assert [f.code for f in causes(diagnose(record, budget_s=20))] == ["off-plan"] * (epochs > 1)


class Standardise(layers.Layer):
    """Scales in one mode alone, or in both."""

    def __init__(self, both):
        super().__init__()
        self.both = both

    def call(self, x, training=False):
        return (x - 40.0) / 8.0 if training or self.both else x


@pytest.mark.parametrize("both", [False, True])
def test_what_is_known_in_training_mode_alone_is_a_gap_between_the_modes(both):
    rng = np.random.default_rng(0)
    z = rng.normal(size=(400, 4))
    stack = [Standardise(both), layers.Dense(16, "tanh"), layers.Dense(1)]
    x, y = (40 + 8 * z).astype("float32"), (z[:, :1] - z[:, 1:2]).astype("float32")
    found = diagnose(trained(x=x, y=y, stack=stack, optimizer=keras.optimizers.Adam(1e-2), epochs=12), budget_s=20)
    assert [f.code for f in causes(found)][:1] == ["train-eval-gap"] * (not both)


def test_labels_under_an_own_likelihood_are_no_targets_that_answers_should_equal():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(800, 4)).astype("float32")
    ends = (rng.random((800, 6)) < 1 / (1 + np.exp(2.0 - x[:, :1]))).astype("float32")
    y = np.where(np.arange(6) > rng.integers(2, 8, (800, 1)), -1.0, ends).astype("float32")

    def under_watch(truth, answer):
        seen = keras.ops.cast(truth >= 0, "float32")
        each = keras.ops.softplus(answer) - keras.ops.maximum(truth, 0.0) * answer
        return keras.ops.sum(seen * each, axis=-1)

    last = layers.Dense(6, bias_initializer=keras.initializers.Constant(-2.0))
    record = trained(x=x, y=y, stack=[layers.Dense(16, "relu"), last], optimizer="adam", loss=under_watch, epochs=6)
    assert not [f for f in diagnose(record, budget_s=10) if f.status in ("WARN", "FAIL")]


def test_each_output_is_held_against_what_can_be_known_of_it():
    """One output is known to the end and the other is mostly noise: none has learned too little."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 5)).astype("float32")
    y = {"sure": x @ rng.normal(size=(5, 3)).astype("float32"), "faint": x[:, :1] + 2 * rng.normal(size=(500, 1))}
    inputs = keras.Input((5,))
    model = keras.Model(inputs, {"sure": layers.Dense(3)(inputs), "faint": layers.Dense(1)(inputs)})
    record = trained(x=x, y=y, model=model, optimizer=keras.optimizers.Adam(2e-2), epochs=20)
    assert not [f for f in diagnose(record, budget_s=10) if f.status in ("WARN", "FAIL")]


def test_a_validation_part_that_scatters_as_far_is_not_overfitted():
    down = [1 / (1 + i) for i in range(8)]
    scatters = [0.27, 0.40, 0.20, 0.26, 0.17, 0.21, 0.25, 0.31]
    assert not symptoms({"epoch/loss": down, "val_loss": scatters})


def test_what_cannot_be_explained_is_said():
    """A loss that the model computes from nothing it was given: no change of ours can mend it."""
    record = trained(rate=1e-6)
    found = diagnose(record, budget_s=0.0)
    assert not causes(found)
    assert any("Unexplained" in f.message for f in found)


def test_the_budget_is_kept():
    import time

    record = trained(rate=1e-6)
    began = time.monotonic()
    diagnose(record, budget_s=2.0)
    assert time.monotonic() - began < 8.0


def test_flat_predictions_are_a_symptom_only_where_something_can_be_learned():
    y = np.random.default_rng(0).normal(size=200)
    flat = np.full(200, 0.01) + 1e-6 * y
    assert "variance-collapse" in {f.code for f in symptoms({}, flat, y, learnable=0.8)}
    assert not {f.code for f in symptoms({}, flat, y, {"mean": 0.0}, learnable=0.0)} - {"below-baseline"}


def test_the_third_run_of_the_cloud_incident_is_bias_and_not_collapse_alone():
    rng = np.random.default_rng(0)
    y = rng.normal(size=4000)
    p = 0.034 * (0.067 * y + (1 - 0.067**2) ** 0.5 * rng.normal(size=4000)) + 0.207**0.5
    found = {f.code: f for f in symptoms({}, p, y, learnable=0.7)}
    assert found["biased-predictions"].role == "cause"
    assert "bias²/σ² = 0.2" in found["biased-predictions"].message


def test_a_loss_that_rises_and_stays_is_divergence_and_a_spike_is_not():
    falling = [1.0 / (1 + i / 10) for i in range(60)]
    assert not symptoms({"loss": [*falling[:30], 50.0, *falling[30:]]})
    assert {f.code for f in symptoms({"loss": [*falling[:30], *[9.0] * 30]})} == {"divergence"}
    assert {f.code for f in symptoms({"loss": [1.0, 0.5, float("nan")]})} == {"divergence"}


def test_overfitting_needs_a_validation_loss_that_keeps_rising():
    down = [1.0, 0.8, 0.6, 0.5, 0.4, 0.3, 0.2]
    rising = [1.0, 0.8, 0.7, 0.9, 1.1, 1.3, 1.5]
    assert {f.code for f in symptoms({"epoch/loss": down, "val_loss": rising})} == {"overfitting"}
    assert not symptoms({"epoch/loss": down, "val_loss": [1.0, 0.8, 0.7, 0.72, 0.71, 0.73, 0.7]})


def test_shares_learnt_through_logits_are_judged_as_shares():
    x, y = table()
    shares = 1 / (1 + np.exp(-4 * y))
    record = trained(x=x, y=shares, epochs=30, optimizer=keras.optimizers.Adam(0.02))
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    record.model.compile(keras.optimizers.Adam(0.02), loss=loss)
    history = record.model.fit(x, shares, epochs=30, batch_size=32, verbose=0)
    series = {**history.history, "epoch/loss": history.history["loss"]}
    record = Record(record.model, record.data, record.start, series, record.fit)
    assert not [f for f in diagnose(record, budget_s=20) if f.status in ("WARN", "FAIL")]
