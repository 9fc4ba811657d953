"""A failure by chance: counted over seeds, told with its interval, reduced on failing often enough."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers, ops

from tsguard.repro import emit, often
from tsguard.repro.case import Batch, from_batch
from tsguard.repro.passes import drop_samples


@given(st.integers(1, 40).flatmap(lambda runs: st.tuples(st.integers(0, runs), st.just(runs))))
def test_the_interval_holds_what_was_counted(counted):
    failed, runs = counted
    low, high = often.interval(failed, runs)
    assert 0 <= low <= failed / runs + 1e-9
    assert failed / runs - 1e-9 <= high <= 1


def test_more_runs_make_the_interval_narrower():
    few, many = often.interval(3, 8), often.interval(30, 80)
    assert many[1] - many[0] < few[1] - few[0]


@pytest.mark.parametrize(("failed", "runs", "least"), [(8, 8, 1), (6, 8, 3), (1, 8, 1), (3, 8, 2)])
def test_a_candidate_must_fail_half_as_often(failed, runs, least):
    assert often.needed(failed, runs) == least


def test_no_more_runs_are_made_than_decide():
    asked = []

    def fails(seed):
        asked.append(seed)
        return seed % 2 == 0

    assert often.enough(fails, range(8), 2)
    assert asked == [0, 1, 2]
    asked.clear()
    assert not often.enough(lambda seed: asked.append(seed) or False, range(8), 7)
    assert asked == [0, 1]


def by_chance():
    """Dropout takes all of a sample's values away now and then, and the logarithm of their sum is −∞."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((2,)), layers.Dropout(0.5), layers.Lambda(lambda z: ops.log(ops.sum(z, axis=-1, keepdims=True)))]
    )
    model.compile("sgd", "mse")
    batch = Batch(np.ones((2, 2), "float32"), np.zeros((2, 1), "float32"))
    return from_batch(model, batch, weights=None, name="chance", known_to_fail=True)


def test_a_failure_by_chance_says_how_often_it_comes():
    case = by_chance()
    failed, runs = case.how_often
    assert 0 < failed < runs == often.SEEDS_TRIED
    assert f"in {failed} of {runs} runs" in case.often_in_words
    small = drop_samples(case, lambda one: one.fails()).settled()
    assert small.fails()
    page = emit.readme(small, emit.emit(small)).decode()
    assert "runs with other random numbers (between" in page
    assert f"set_random_seed({small.seed})" in emit.emit(small).files["repro.py"].decode()
