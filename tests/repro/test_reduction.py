"""A reduction keeps the failure, is stable, and can be stopped at any time."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.repro.programs import planted, small
from tsguard.repro.case import Batch, fingerprint_of
from tsguard.repro.passes import drop_samples
from tsguard.repro.passes.subset import smallest
from tsguard.repro.reduce import Reduction, measure


@given(st.sets(st.integers(0, 19), min_size=1), st.integers(1, 20))
def test_a_smallest_subset_is_one_minimal(needed, extra):
    items = range(20 + extra)
    kept = smallest(items, lambda some: needed <= set(some))
    assert set(kept) == needed


@given(st.lists(st.sets(st.integers(0, 11), min_size=1, max_size=4), min_size=1, max_size=3))
def test_a_smallest_subset_is_one_minimal_where_there_are_several_ways_to_fail(ways):
    def fails(some):
        return any(way <= set(some) for way in ways)

    kept = smallest(range(12), fails)
    assert fails(kept)
    assert not any(fails([one for one in kept if one != left]) for left in kept if len(kept) > 1)


def test_two_calls_give_the_same_case():
    one, two = small("loss/log_zero"), small("loss/log_zero")
    assert measure(one) == measure(two)
    assert np.array_equal(one.batch.x, two.batch.x)
    assert np.array_equal(one.batch.y, two.batch.y)


def test_the_fingerprint_is_kept_where_a_smaller_batch_fails_elsewhere():
    case = planted("functional/log_zero")
    x = np.array(case.batch.x)
    x[0, 0, 0] = np.nan  # a second failure in the data, which alone is another one
    both = case.with_(batch=Batch(x, case.batch.y))
    other, _ = fingerprint_of(case.model, both.batch, both.weights, 0)
    assert other.code == "data-nonfinite"
    reduction = Reduction(both, budget_s=60)
    assert not reduction.keep(both)
    kept = drop_samples(case, Reduction(case, budget_s=60).keep)
    assert kept.batch.samples == 1
    assert kept.fails()


def test_a_spent_budget_keeps_the_best_so_far():
    case = planted("functional/log_zero")
    ticks = itertools.count()
    reduction = Reduction(case, budget_s=12, clock=lambda: next(ticks))
    best = reduction.run()
    assert reduction.exhausted
    assert best.size < case.size
    assert best.fails()


def test_an_interruption_keeps_the_best_so_far():
    case = planted("functional/log_zero")
    seen = []

    def stop(words):
        seen.append(words)
        if len(seen) == 3:
            raise KeyboardInterrupt

    best = Reduction(case, budget_s=60, progress=stop).run()
    assert best.size < case.size
    assert best.fails()


def test_no_row_can_be_left_out():
    case = small("loss/empty_selection")
    assert case.fails()
    if case.batch.samples > 1:
        for row in range(case.batch.samples):
            index = [other for other in range(case.batch.samples) if other != row]
            assert not case.fails(case.batch.map(lambda leaf, index=index: leaf[index]))


def test_a_pass_that_had_no_time_to_end_is_told():
    case = planted("functional/log_zero")
    seconds = itertools.count(step=100)

    def slow(case, keep):
        for rows in range(1, 5):
            keep(case.with_(batch=case.batch.map(lambda leaf, rows=rows: leaf[:rows])))
        return case

    stalled = Reduction(case, budget_s=1000, passes=(slow,), fails=lambda case: False, clock=lambda: next(seconds))
    stalled.run()
    assert stalled.asked < 4
    assert stalled.exhausted
    whole = Reduction(case, budget_s=1000, passes=(slow,), fails=lambda case: False)
    whole.run()
    assert whole.asked == 4
    assert not whole.exhausted
