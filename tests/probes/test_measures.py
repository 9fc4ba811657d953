import math

import keras
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from tsguard.dataset import Data
from tsguard.probes.activations import effective_rank
from tsguard.probes.answers import labels_of, reach
from tsguard.probes.gradients import term_gradients
from tsguard.probes.learnable import straight_and_curved
from tsguard.probes.predictions import classification, regression
from tsguard.probes.stage import Snapshot, get_ready, measured_batches


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(-3, 3), st.floats(0.01, 3))
def test_r2_is_spelled_out_by_correlation_spread_and_bias(seed, offset, spread):
    rng = np.random.default_rng(seed)
    y = rng.normal(size=200)
    p = spread * (0.5 * y + rng.normal(size=200)) + offset
    m = regression(p, y)
    spelled = 2 * m["correlation"] * m["std_ratio"] - m["std_ratio"] ** 2 - m["bias2_over_var"]
    assert math.isclose(m["r2"], spelled, abs_tol=1e-9)


def test_the_best_spread_for_a_correlation_is_the_correlation():
    rng = np.random.default_rng(1)
    y = rng.normal(size=5000)
    raw = 0.4 * y + rng.normal(size=5000)
    rho = regression(raw, y)["correlation"]
    scores = {s: regression((raw - raw.mean()) / raw.std() * y.std() * s + y.mean(), y)["r2"] for s in (rho, 1.0, 0.1)}
    assert max(scores, key=scores.get) == rho


def test_classes_are_judged_by_the_worst_recall_and_the_majority():
    y = np.array([0] * 9 + [1])
    m = classification(np.tile([0.9, 0.1], (10, 1)), y)
    assert (m["accuracy"], m["recall_min"], m["majority_share"], m["most_answered"]) == (0.9, 0.0, 0.9, 1.0)


@pytest.mark.parametrize(
    ("activation", "words"), [(None, "[−∞, ∞]"), ("sigmoid", "[0, 1]"), ("tanh", "[-1, 1]"), ("relu", "[0, ∞]")]
)
def test_the_reach_of_an_output_is_that_of_its_activation(activation, words):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(6, "tanh"), layers.Dense(2, activation)])
    model.compile(loss="mse")
    x = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
    batch = measured_batches(Data(x, np.zeros((40, 2))))[0]
    get_ready(model, batch)
    ranges, _ = reach(model, batch, restore=Snapshot(model).restore)
    assert ranges[0].words == words


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ([[0.0, 1.0], [1.0, 0.0]], "one-hot"),
        ([[0.3, 0.7], [0.5, 0.5]], "shares"),
        ([0, 1, 1], "binary"),
        ([0, 2, 1], "integer"),
        ([0.1, 2.0], "real"),
        ([3.0, 3.0], "constant"),
    ],
)
def test_how_labels_are_written_is_read_off_their_values(target, kind):
    assert labels_of(torch.tensor(target)) == kind


def test_terms_of_a_loss_are_told_apart_with_their_gradients():
    window = keras.Input((3,))
    h = layers.Dense(4, "tanh", kernel_regularizer="l2")(window)
    model = keras.Model(window, [layers.Dense(1, name="a")(h), layers.Dense(1, name="b")(h)])
    model.compile(loss=["mse", "mae"], optimizer="sgd")
    x = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
    batch = measured_batches(Data(x, [100 * x[:, :1], x[:, 1:2]]))[0]
    get_ready(model, batch)
    terms = term_gradients(model, batch, restore=Snapshot(model).restore)
    assert [t.task for t in terms.values()] == [True, True, False]
    norms = [t.norm for t in terms.values()]
    assert norms[0] > 10 * norms[1] > 0


def test_a_product_is_curved_and_a_sum_is_straight():
    x = np.random.default_rng(0).normal(size=(500, 3)).astype("float32")
    line, curve = straight_and_curved(Data(x, (x[:, :1] * x[:, 1:2])))
    assert line < 0.1
    assert curve > 0.95
    assert straight_and_curved(Data(x, x[:, :1] + x[:, 1:2]))[0] > 0.95


def test_the_rank_of_a_collapsed_representation_is_zero_and_of_noise_high():
    generator = torch.Generator().manual_seed(0)
    assert effective_rank(torch.ones(50, 8)) == 0.0
    assert effective_rank(torch.randn(500, 8, generator=generator)) > 7
