"""Copies with noise that were made before a split, and rows that are near each other for other reasons."""

from __future__ import annotations

import numpy as np
import pytest

from tests.checks.test_data import ask


def told(x, held):
    return [f for f in ask(x.astype("float32"), None, validation=(held.astype("float32"),)) if f.code == "data-leak"]


@pytest.mark.parametrize("copies", [2, 5])
def test_copies_with_noise_in_both_parts_are_told(copies):
    rng = np.random.default_rng(0)
    rows = np.repeat(rng.standard_normal((300, 8)), copies, axis=0)
    rows = (rows + 0.03 * rng.standard_normal(rows.shape))[rng.permutation(len(rows))]
    cut = len(rows) * 4 // 5
    assert told(rows[:cut], rows[cut:])


def test_copies_that_stay_in_the_training_part_are_a_method():
    rng = np.random.default_rng(0)
    rows = np.repeat(rng.standard_normal((300, 8)), 4, axis=0)
    rows = rows + 0.03 * rng.standard_normal(rows.shape)
    assert not told(rows, rng.standard_normal((100, 8)))


def waves(rng, samples, noise):
    phase = rng.uniform(0, 6.28, (samples, 1))
    return (np.sin(0.4 * np.arange(24) + phase) + noise * rng.standard_normal((samples, 24)))[..., None]


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.3])
def test_waves_of_which_the_phase_alone_differs_are_no_copies(noise):
    rng = np.random.default_rng(1)
    assert not told(waves(rng, 900, noise), waves(rng, 200, noise))


def test_rows_around_a_few_centres_are_no_copies():
    rng = np.random.default_rng(2)
    centres = 5 * rng.standard_normal((6, 8))
    rows = centres[rng.integers(0, 6, 800)] + 0.2 * rng.standard_normal((800, 8))
    assert not told(rows[:600], rows[600:])


def test_windows_of_one_series_that_follow_each_other_are_no_copies():
    line = np.cumsum(np.random.default_rng(3).standard_normal(900)) / 5
    windows = np.stack([line[s : s + 16] for s in range(880)])[..., None]
    assert not told(windows[:700], windows[700:])


def test_settings_of_a_few_levers_put_rows_near_each_other():
    rng = np.random.default_rng(4)

    def settings(count):
        return np.repeat(rng.choice([-1.0, 0.0, 1.0], (count, 5)) + 0.01 * rng.integers(-9, 10, (count, 5)), 6, axis=0)

    assert not told(settings(200), settings(40))
