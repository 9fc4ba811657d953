"""Measures on plain arrays: each has a series that it must find and one that it must let pass."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tsguard.expect import measures


def autoregression(length: int, persistence: float, seed: int) -> Any:
    """A stationary AR(1) of unit variance."""
    noise = np.random.default_rng(seed).standard_normal(length) * math.sqrt(1 - persistence**2)
    series = np.empty(length)
    series[0] = noise[0] / math.sqrt(1 - persistence**2) if persistence else noise[0]
    for step in range(1, length):
        series[step] = persistence * series[step - 1] + noise[step]
    return series


def _alarms(persistence: float, length: int, change: Any) -> float:
    alarms = 0
    for seed in range(200):
        series = autoregression(length, persistence, seed)
        first, second = series[: length // 2], change(series[length // 2 :])
        alarms += measures.drift(first, second).p_value < measures.DRIFT_LEVEL
    return alarms / 200


@pytest.mark.slow
@pytest.mark.parametrize("length", [1000, 4000, 10_000])
def test_a_stationary_series_cut_in_half_alarms_in_at_most_five_of_a_hundred(length: int) -> None:
    assert _alarms(0.98, length, lambda half: half) <= 0.05


@pytest.mark.slow
def test_a_shift_of_one_standard_deviation_alarms() -> None:
    assert _alarms(0.98, 10_000, lambda half: half + 1.0) >= 0.99


def test_drift_is_told_from_wandering_in_a_few_series() -> None:
    for seed in range(5):
        series = autoregression(10_000, 0.98, seed)
        first, second = series[:5000], series[5000:]
        assert measures.drift(first, second).p_value >= measures.DRIFT_LEVEL
        assert measures.drift(first, second + 1).p_value < measures.DRIFT_LEVEL
        assert measures.drift(first, 3 * second).p_value < measures.DRIFT_LEVEL


def test_drift_of_constants_and_of_too_little() -> None:
    assert measures.drift(np.ones(20), np.ones(20)).p_value == 1.0
    assert measures.drift(np.ones(20), np.full(20, 2.0)).p_value == 0.0
    assert math.isnan(measures.drift(np.ones(3), np.ones(20)).p_value)
    assert math.isnan(measures.drift(np.full(20, np.nan), np.ones(20)).p_value)


def test_effective_samples_of_noise_are_all_and_of_a_slow_series_few() -> None:
    noise = autoregression(5000, 0.0, 0)
    slow = autoregression(5000, 0.9, 0)
    assert measures.effective_sample_size(noise) > 4000
    assert 5000 / 19 / 2 < measures.effective_sample_size(slow) < 5000 / 19 * 2
    assert measures.effective_sample_size(np.ones(10)) == 10


def test_stuck_runs_end_at_nan_and_at_a_new_entity() -> None:
    values = np.array([1.0, 1, 1, 2, np.nan, np.nan, 3, 3, 3, 3])
    runs = measures.stuck_runs(values, at_least=2)
    assert (runs.starts.tolist(), runs.lengths.tolist(), runs.longest) == ([0, 6], [3, 4], 4)
    entities = np.array(list("aaaaaaaabb"))
    assert measures.stuck_runs(values, at_least=2, entities=entities).lengths.tolist() == [3, 2, 2]
    assert measures.stuck_runs(np.empty(0)).longest == 0


def test_sentinels_are_found_behind_each_other_and_outliers_are_not_sentinels() -> None:
    rng = np.random.default_rng(0)
    healthy = rng.gamma(2.0, 2.0, 3000).round(1)
    assert measures.sentinels(healthy) == []
    assert measures.sentinels(np.append(healthy, [500.0])) == []  # once is an outlier
    assert measures.sentinels(rng.integers(0, 5, 1000)) == []  # labels
    sick = healthy.copy()
    sick[::10], sick[5::50] = -200.0, -9999.0
    assert [(each.value, each.count) for each in measures.sentinels(sick)] == [(-9999.0, 60), (-200.0, 300)]


def test_times_are_judged_entity_by_entity_wherever_the_rows_lie() -> None:
    times = np.array([0, 0, 10, 10, 20, 15, 30])
    entities = np.array(list("abababa"))
    assert measures.out_of_order(times, entities).tolist() == []
    assert measures.out_of_order(times).tolist() == [1, 3, 5]
    assert measures.usual_interval(times, entities) == 10
    assert measures.irregular(times, 10, entities).tolist() == [5]
    assert measures.irregular(times, 10, entities, tolerance=0.5).tolist() == []
    assert measures.gaps(np.array([0, 1, 2, 9, 10]), 5).tolist() == [3]


def test_epoch_seconds_lose_their_steps_in_float32_and_small_offsets_do_not() -> None:
    seconds = 1.6e9 + np.arange(1000) * 10.0
    assert measures.float32_loss(seconds) > 0.8
    assert measures.float32_loss(seconds - seconds[0]) == 0.0
    assert measures.float32_loss(np.array([5, 5, 5])) == 0.0


def test_blocks_that_straddle_a_border_are_shared_and_flat_or_fresh_ones_are_not() -> None:
    rng = np.random.default_rng(0)
    series = rng.standard_normal((500, 3))
    assert len(measures.shared_blocks(series[:300], series[300:], 4)) == 0
    assert measures.shared_blocks(series[:300], series[290:], 4).tolist() == list(range(7))
    flat = np.zeros((50, 3))
    assert len(measures.shared_blocks(flat, flat, 4)) == 0
    windows = np.stack([series[start : start + 20] for start in range(0, 400, 10)])
    assert measures.shared_blocks(windows[:20], windows[20:], 10).tolist() == [0]
    assert measures.shared_blocks(windows[:20], windows[25:], 10).tolist() == []


def test_nan_blocks_equal_nan_blocks() -> None:
    series = np.array([1.0, np.nan, 2.0, np.nan, 3.0])
    assert measures.shared_blocks(series, series.copy(), 3).tolist() == [0, 1, 2]
    assert len(measures.shared_blocks(np.full(9, np.nan), np.full(9, np.nan), 3)) == 0


def test_the_rows_that_a_scaler_saw_are_told() -> None:
    rng = np.random.default_rng(0)
    train, rest = rng.standard_normal((500, 2)), rng.standard_normal((200, 2)) + 3
    whole = np.concatenate([train, rest])
    for rows, source in ((train, "train"), (whole, "everything"), (rest, "neither")):
        assert measures.scaler_source(rows.mean(0), rows.std(0), train, rest) == source


def test_shares_volume_and_magnitudes() -> None:
    assert measures.class_shares(np.array(["b", "a", "b", "b"])) == {"b": 0.75, "a": 0.25}
    assert measures.batches_per_epoch(100, 32) == 4
    assert measures.batches_per_epoch(100, 32, drop_last=True) == 3
    told = measures.typical_magnitudes(
        {"small": np.ones((4, 2)), "large": np.full((4, 2), 1e4), "none": np.full((2, 1), np.nan)}
    )
    assert told["large"] / told["small"] == 1e4
    assert math.isnan(told["none"])


@pytest.mark.parametrize("kind", ["uint8", "uint32", "uint64", "int64"])
def test_time_that_falls_is_seen_in_every_type_of_integer(kind):
    assert measures.out_of_order(np.array([1, 5, 3, 4], kind)).tolist() == [2]


def test_steps_beyond_int64_do_not_turn_around():
    ends = np.array([-(2**63), 2**63 - 1, -(2**63)])
    assert measures.out_of_order(ends).tolist() == [2]
    assert measures.steps(ends).tolist() == [2.0**64, -(2.0**64)]
