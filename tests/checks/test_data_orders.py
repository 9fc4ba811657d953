"""Rows that stand in another order than their targets, and rows that no order brings together."""

from __future__ import annotations

import numpy as np
import pytest

from tsguard.checks.data_pairs import inputs_and_targets_apart
from tsguard.checks.gathered import gathered
from tsguard.checks.registry import Context
from tsguard.dataset import Data
from tsguard.probes.orders import told_orders


def found(x, y):
    return list(inputs_and_targets_apart(Context(data=Data(x, y))))


def pairs(count, seed=0):
    """Windows whose level and swing tell of the target, and classes of them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 12, 2)) + rng.normal(size=(count, 1, 2))
    y = x[..., 0].mean(1) + 0.5 * x[..., 1].std(1) + 0.1 * rng.normal(size=count)
    return x.astype("float32"), y[:, None].astype("float32")


AS_TEXT = [
    (1400, lambda rows: sorted(rows, key=str), "as text"),
    (5000, lambda rows: sorted(rows, key=lambda number: str(number + 1)), "as text"),
    (1200, lambda rows: [*rows[700:], *rows[:700]], "moved"),
    (6000, lambda rows: [*rows[2500:], *rows[:2500]], "moved"),
    (1440, lambda rows: list(np.reshape(rows, (24, 60)).T.reshape(-1)), "table"),
]


@pytest.mark.parametrize(("count", "order", "words"), AS_TEXT)
@pytest.mark.parametrize("side", ["inputs", "targets", "classes"])
def test_another_order_on_one_side_is_named_with_the_right_one(count, order, words, side):
    x, y = pairs(count)
    places = np.array(order(range(count)))
    if side == "inputs":
        x = x[places]
    else:
        y = y[places]
    if side == "classes":
        y = np.digitize(y[:, 0], [-0.3, 0.9])
    (told,) = found(x, y)
    assert told.code == "data-mispaired"
    assert words in told.message


@pytest.mark.parametrize(("count", "order", "words"), AS_TEXT)
def test_pairs_in_whatever_order_they_stand_together_are_left_alone(count, order, words):
    x, y = pairs(count)
    places = np.array(order(range(count)))
    assert not found(x[places], y[places])


@pytest.mark.parametrize("sick", [True, False])
def test_windows_by_station_and_targets_by_day_are_named(sick):
    rng = np.random.default_rng(5)
    depth = np.cumsum(rng.normal(size=(20, 69)), axis=1).astype("float32")
    x = np.stack([depth[:, day : day + 9] for day in range(60)], axis=1).reshape(-1, 9, 1)
    y = depth[:, 9:] if not sick else depth[:, 9:].T
    told = found(x - x.mean(), y.reshape(-1, 1) - x.mean())
    assert ["table of" in one.message for one in told] == [True] * sick


def test_targets_that_nothing_tells_of_are_left_alone():
    rng = np.random.default_rng(4)
    x, y = pairs(2000)
    for seed in range(4):
        assert not found(x, np.random.default_rng(seed).normal(size=(2000, 3)).astype("float32"))
    assert not found(x, y[rng.permutation(2000)])  # no order that has a name
    late = np.roll(y, 300, axis=0)
    assert not found(np.concatenate([x.reshape(2000, -1)[:, :3], y], axis=1), late)  # the target is a lagged cell


@pytest.mark.parametrize("sick", [True, False])
def test_rows_of_a_data_set_are_asked_as_they_stand_whatever_order_a_loader_deals(sick):
    import torch

    x, y = pairs(2000)
    kept = torch.utils.data.TensorDataset(torch.tensor(x[sorted(range(2000), key=str)] if sick else x), torch.tensor(y))
    deals = torch.utils.data.DataLoader(kept, batch_size=50, shuffle=True, generator=torch.Generator().manual_seed(1))
    before = deals.generator.get_state()
    told = list(inputs_and_targets_apart(gathered(Context(data=Data(deals)))))
    assert ["as text" in one.message for one in told] == [True] * sick
    assert (deals.generator.get_state() == before).all()


def test_orders_are_permutations_and_come_back():
    for count in (12, 101, 1440):
        listed = list(told_orders(count))
        assert listed
        for _, order in listed:
            assert sorted(order) == list(range(count))
