"""Columns that are nearly the target, and columns that are good features or its past."""

from __future__ import annotations

import numpy as np
import pytest

from tsguard.checks.data_nearly import nearly_the_target
from tsguard.checks.registry import Context
from tsguard.dataset import Data


def codes(x, y):
    return [one.code for one in nearly_the_target(Context(data=Data(x, y)))]


def table(seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(500, 6))
    return x, (x[:, 0] + 0.5 * x[:, 1] * x[:, 2] + 0.2 * rng.normal(size=500))[:, None]


@pytest.mark.parametrize(
    "written",
    [
        lambda y, rng: y + 0.015 * rng.normal(size=y.shape),
        lambda y, rng: np.exp(y) * 40,
        lambda y, rng: np.round(-y, 2),
    ],
    ids=["nearly", "bent", "rounded"],
)
def test_a_column_that_gives_the_target_away_is_named(written):
    x, y = table()
    with_it = np.column_stack([x, written(y, np.random.default_rng(3))]).astype("float32")
    assert codes(with_it, y.astype("float32")) == ["data-leak"]


def test_good_columns_and_the_past_of_the_target_are_left_alone():
    x, y = table()
    assert not codes(x.astype("float32"), y.astype("float32"))
    assert not codes(np.column_stack([x, y + 0.1 * x[:, 3:4]]).astype("float32"), y.astype("float32"))
    price = (100 + np.random.default_rng(2).normal(size=501).cumsum()).astype("float32")
    volume = np.random.default_rng(3).normal(size=(500, 3)).astype("float32")
    assert not codes(np.column_stack([price[:-1], volume]), price[1:, None])
    highs = np.column_stack([price[:-1] + k * np.abs(volume[:, 0]) for k in (0.0, 0.1, 0.2)])
    assert not codes(highs, price[:-1, None] + 0.05)
