"""Columns that stopped, and columns that only look so."""

from __future__ import annotations

import numpy as np
import pytest

from tsguard.checks.data_hung import hung
from tsguard.checks.registry import Context
from tsguard.dataset import Data


def codes(check, x):
    return [one.code for one in check(Context(data=Data(x)))]


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
