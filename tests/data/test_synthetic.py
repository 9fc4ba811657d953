"""Synthetic makers: sound by default, reproducible, and each fault is where the maker says it is."""

from __future__ import annotations

import numpy as np
import pytest

from tsguard.data import synthetic
from tsguard.data.readers import from_memory
from tsguard.errors import DataError

MAKERS = {
    synthetic.transformer: ("nan", "inf", "stuck", "zeros", "gap", "duplicate-time", "not-monotone"),
    synthetic.activity: ("short-file", "duplicate-file"),
    synthetic.air_quality: ("sentinel", "nan", "stuck"),
    synthetic.market: ("flat-ohlc", "high-below-max"),
    synthetic.servers: ("nan", "gap", "duplicate-time", "not-monotone", "constant"),
    synthetic.ratings: ("ties", "float32-time"),
    synthetic.fields: ("saturation", "dead-pixel", "constant-frame", "nan"),
}
CASES = [(maker, fault) for maker, faults in MAKERS.items() for fault in faults]


@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: maker.__name__)
def test_a_maker_is_sound_and_reproducible(maker):
    first, second, other = maker(seed=1), maker(seed=1), maker(seed=2)
    assert first.planted == ()
    for name, column in first.columns.items():
        assert np.array_equal(column, second.columns[name])
        if column.dtype.kind == "f":
            assert np.isfinite(column).all()
            assert not np.array_equal(column, other.columns[name])
    if maker is not synthetic.fields:
        assert from_memory(dict(first.columns)).num_rows > 0


@pytest.mark.parametrize(("maker", "fault"), CASES, ids=lambda case: getattr(case, "__name__", case))
def test_a_fault_that_is_switched_on_is_planted_once_and_changes_the_data(maker, fault):
    sound, sick = maker(seed=1), maker(seed=1, faults=[fault])
    (planted,) = sick.planted
    assert planted.kind == fault
    assert planted.count > 0
    assert 0 <= planted.first_row < len(sick.columns[planted.column])
    before, after = sound.columns[planted.column], sick.columns[planted.column]
    assert before.shape != after.shape or not np.array_equal(before, after)


def test_planted_counts_are_the_counts_in_the_data():
    made = synthetic.transformer(faults=["nan", "inf", "zeros", "stuck"])
    counts = {fault.kind: fault for fault in made.planted}
    assert np.isnan(made.columns["HUFL"]).sum() == counts["nan"].count
    assert np.isinf(made.columns["MUFL"]).sum() == counts["inf"].count
    assert (made.columns["HULL"] == 0).sum() == counts["zeros"].count
    stuck = counts["stuck"]
    assert len(np.unique(made.columns["LUFL"][stuck.first_row : stuck.first_row + stuck.count])) == 1
    quality = synthetic.air_quality(faults=["sentinel"])
    assert (quality.columns["CO(GT)"] == -200).sum() == quality.planted[0].count


def test_markets_keep_their_order_unless_told_otherwise():
    columns = synthetic.market().columns
    assert (columns["high"] > np.maximum(columns["open"], columns["close"])).all()
    assert (columns["low"] < np.minimum(columns["open"], columns["close"])).all()
    sick = synthetic.market(faults=["flat-ohlc", "high-below-max"])
    below = sick.columns["high"] < np.maximum(sick.columns["open"], sick.columns["close"])
    assert below.sum() == 5
    assert (sick.columns["high"] == sick.columns["low"]).sum() == sick.planted[0].count


def test_vowels_vary_in_length_and_can_be_told_apart():
    sequences, labels = synthetic.vowels()
    assert {7 <= len(one) <= 29 for one in sequences} == {True}
    assert len({len(one) for one in sequences}) > 5
    means = np.stack([one.mean(axis=0) for one in sequences])
    centres = np.stack([means[labels == k].mean(axis=0) for k in range(9)])
    nearest = np.argmin(((means[:, None] - centres[None]) ** 2).sum(axis=2), axis=1)
    assert (nearest == labels).mean() > 0.9


def test_an_unknown_fault_is_refused_with_the_known_ones():
    with pytest.raises(DataError, match="flat-ohlc"):
        synthetic.market(faults=["gremlins"])
