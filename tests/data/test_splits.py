"""Splits: parts are disjoint, the future never trains, and no window straddles a purged border."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tsguard.data.splits import at_random, by_entity, by_time, purge_windows, walk_forward
from tsguard.data.windows import Windows
from tsguard.errors import DataError


def together(split):
    return np.sort(np.concatenate([split.train, split.validation, split.test, split.purged]))


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=20, max_size=80), st.integers(0, 4))
def test_by_time_trains_on_the_past_and_never_divides_a_moment(times, purge):
    time = np.array(times, np.int64)
    assume(len(np.unique(time)) > 8)
    try:
        split = by_time(len(time), time=time, purge=purge)
    except DataError:  # a purge may leave nothing to train on, and says so
        return
    assert np.array_equal(together(split), np.arange(len(time)))
    for earlier, later in ((split.train, split.validation), (split.train, split.test), (split.validation, split.test)):
        if len(earlier) and len(later):
            assert time[earlier].max() < time[later].min()


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 12), st.integers(0, 4), st.integers(1, 3))
def test_purged_windows_share_no_row_between_parts(length, horizon, stride):
    windows = Windows(np.zeros(200), length=length, horizon=horizon, stride=stride)
    split = by_time(len(windows))
    purged = purge_windows(split, windows.starts, windows.length + windows.horizon)
    rows = {
        name: {row for i in part for row in range(windows.starts[i], windows.anchors[i] + horizon)}
        for name, part in purged.parts().items()
    }
    assert not rows["train"] & rows["validation"]
    assert not rows["train"] & rows["test"]
    assert not rows["validation"] & rows["test"]
    assert np.array_equal(together(purged), np.arange(len(windows)))


def test_without_purging_windows_do_straddle():
    windows = Windows(np.zeros(100), length=10)
    split = by_time(len(windows))
    last = split.train[-1]
    assert windows.anchors[last] > windows.starts[split.validation[0]]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=10, max_size=80), st.integers(0, 50))
def test_an_entity_lies_in_one_part_as_a_whole(entities, seed):
    entities = np.array(entities)
    assume(len(np.unique(entities)) >= 3)
    split = by_entity(entities, seed=seed)
    homes = [set(entities[rows]) for rows in split.parts().values()]
    assert sum(len(home) for home in homes) == len(set().union(*homes))
    assert all(homes)
    assert np.array_equal(together(split), np.arange(len(entities)))
    assert np.array_equal(by_entity(entities, seed=seed).train, split.train)


@pytest.mark.parametrize("sliding", [False, True])
def test_walk_forward_moves_on_and_ends_with_the_last_row(sliding):
    folds = list(walk_forward(100, folds=4, test_size=10, train_size=30, sliding=sliding, validation_size=5, purge=2))
    assert [fold.test.tolist() for fold in folds] == [list(range(s, s + 10)) for s in (60, 70, 80, 90)]
    for fold in folds:
        assert fold.train.max() + 2 < fold.validation.min()
        assert fold.validation.max() + 2 < fold.test.min()
        assert len(fold.validation) == 5
    sizes = [len(fold.train) for fold in folds]
    assert sizes == ([30] * 4 if sliding else [51, 61, 71, 81])


def test_random_splits_are_for_those_who_ask_and_depend_on_the_seed_alone():
    assert np.array_equal(at_random(50, seed=1).test, at_random(50, seed=1).test)
    assert not np.array_equal(at_random(50, seed=1).test, at_random(50, seed=2).test)
    assert np.array_equal(together(at_random(50)), np.arange(50))


def test_impossible_splits_are_refused_in_words():
    for make in (
        lambda: by_time(10, borders=[8, 4]),
        lambda: by_time(10, shares=(0, 1, 1)),
        lambda: by_time(10, purge=10),
        lambda: by_entity(["a", "a"]),
        lambda: walk_forward(10, folds=5, test_size=3),
        lambda: walk_forward(10, folds=1, test_size=3, sliding=True),
    ):
        with pytest.raises(DataError, match="Expected"):
            make()
