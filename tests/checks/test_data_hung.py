"""Columns that stopped or are nearly the target, and columns that only look so."""

from __future__ import annotations

import numpy as np
import pytest

from tsguard.checks.data_hung import hung, nearly_the_target
from tsguard.checks.registry import Context
from tsguard.dataset import Data


def codes(check, x, y=None):
    return [one.code for one in check(Context(data=Data(x, y)))]


def windows(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(400, 12, 3)).cumsum(1).astype("float32")


@pytest.mark.parametrize("begin", [5, 150])
def test_a_gauge_that_hangs_from_some_row_on_is_named(begin):
    x = windows()
    x[begin:, :, 1] = 0.7
    assert codes(hung, x) == ["data-constant"]
    assert codes(hung, x[:, -1]) == ["data-constant"]


def test_rare_amounts_filled_gaps_and_ends_of_a_range_do_not_hang():
    rng = np.random.default_rng(1)
    x = windows()
    assert not codes(hung, x)
    rare, capped, filled, flag = x.copy(), x.copy(), x.copy(), x.copy()
    rare[40:, :, 1] = 0.0
    capped[..., 1] = 0.7
    capped[:60, :, 1] = -np.abs(rng.normal(size=(60, 12)))
    filled[rng.random(400) < 0.6, :, 1] = 0.7
    flag[..., 1] = (np.arange(400) > 50)[:, None]
    for one in (rare, capped, filled, flag):
        assert not codes(hung, one)


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
    assert codes(nearly_the_target, with_it, y.astype("float32")) == ["data-leak"]


def test_good_columns_and_the_past_of_the_target_are_left_alone():
    x, y = table()
    assert not codes(nearly_the_target, x.astype("float32"), y.astype("float32"))
    assert not codes(
        nearly_the_target, np.column_stack([x, y + 0.1 * x[:, 3:4]]).astype("float32"), y.astype("float32")
    )
    price = (100 + np.random.default_rng(2).normal(size=501).cumsum()).astype("float32")
    volume = np.random.default_rng(3).normal(size=(500, 3)).astype("float32")
    assert not codes(nearly_the_target, np.column_stack([price[:-1], volume]), price[1:, None])
    highs = np.column_stack([price[:-1] + k * np.abs(volume[:, 0]) for k in (0.0, 0.1, 0.2)])
    assert not codes(nearly_the_target, highs, price[:-1, None] + 0.05)
