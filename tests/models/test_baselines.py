"""The baselines against hand-computed cases, and on ETTh1 against the published protocol's figures."""

import numpy as np
import pytest

from models import baselines
from tests.models.parity import real


def test_last_value_repeats_the_last_step():
    x = np.array([[[1.0, 10.0], [2.0, 20.0]]])
    assert baselines.last_value(x, 3).tolist() == [[[2.0, 20.0]] * 3]


@pytest.mark.parametrize("padding", [0.0, np.nan])
def test_last_value_reads_the_last_valid_step_of_each_feature(padding):
    x = np.array([[[1.0, 10.0], [2.0, padding], [padding, padding]], [[padding, padding]] * 3])
    mask = np.array([[[1, 1], [1, 0], [0, 0]], [[0, 0]] * 3])
    assert baselines.last_value(x, 1, mask)[:, 0].tolist() == [[2.0, 10.0], [0.0, 0.0]]


def test_seasonal_naive_repeats_whole_periods():
    x = np.arange(7.0).reshape(1, 7, 1)
    assert baselines.seasonal_naive(x, 5, period=3).ravel().tolist() == [4, 5, 6, 4, 5]


def test_seasonal_naive_refuses_windows_shorter_than_the_period():
    with pytest.raises(ValueError, match="windows of 7 steps are shorter than the period of 24"):
        baselines.seasonal_naive(np.zeros((1, 7, 1)), 2)


def test_train_mean_leaves_missing_values_out():
    mean = baselines.train_mean([[1.0, np.nan], [3.0, 5.0]], samples=2, horizon=3)
    assert mean.shape == (2, 3, 2)
    assert mean[1, 2].tolist() == [2.0, 5.0]


def test_least_squares_finds_an_exact_linear_law():
    # A sum of two sines obeys a linear recurrence, so that its future is linear in its past.
    time = np.arange(400.0)
    series = np.stack([np.sin(0.3 * time) + 0.5 * np.cos(0.11 * time), np.cos(0.3 * time)], axis=1)
    fitted = baselines.LeastSquares.fit(series[:300], steps=12, horizon=5)
    part = baselines.sliding_windows(series[280:], 17)
    assert np.abs(fitted.predict(part[:, :12]) - part[:, 12:]).max() < 1e-6


def test_least_squares_has_an_answer_for_a_constant_series():
    fitted = baselines.LeastSquares.fit(np.full((60, 1), 7.0), steps=8, horizon=2)
    assert fitted.predict(np.full((1, 8, 1), 7.0)).ravel() == pytest.approx([7.0, 7.0])


def test_majority_class_is_the_most_frequent():
    assert baselines.majority_class([2, 1, 2, 0], 3).tolist() == [2, 2, 2]


def test_popularity_counts_items_and_never_offers_padding():
    scores = baselines.popularity([[0, 3, 3], [1, 3, 0]], items=4)
    assert scores.tolist() == [-np.inf, 1, 0, 3, 0]
    assert baselines.popularity([1], items=2, samples=5).shape == (5, 3)


def test_sliding_windows_of_a_short_series_are_none():
    assert baselines.sliding_windows(np.zeros((3, 2)), 4).shape == (0, 4, 2)


@pytest.mark.realdata
@pytest.mark.slow
def test_baselines_reach_the_figures_of_the_ett_protocol(record_testsuite_property):
    found = real("ett").run_baselines()
    record_testsuite_property("baselines_reach_the_figures_of_the_ett_protocol", found)
    assert found["least squares"]["mse"] == pytest.approx(0.370, abs=0.001)
    assert found["least squares"]["mae"] == pytest.approx(0.3915, abs=0.001)
    assert found["seasonal naive"]["mse"] == pytest.approx(0.512, abs=0.001)
    assert found["seasonal naive"]["mae"] == pytest.approx(0.433, abs=0.001)
    assert found["last value"]["mse"] == pytest.approx(1.294, abs=0.001)
    assert found["last value"]["mae"] == pytest.approx(0.713, abs=0.001)
    assert found["train mean"]["mse"] == pytest.approx(1.110, abs=0.001)
    assert found["train mean"]["mae"] == pytest.approx(0.796, abs=0.001)
