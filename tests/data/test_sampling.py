"""Samplers: step k of epoch e depends on the seed and on nothing else; mixing keeps its shares."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsguard.data.mixing import Mixture
from tsguard.data.sampling import EpochBatches, MixedSampler, StepSampler
from tsguard.data.windows import Windows
from tsguard.errors import DataError


@settings(max_examples=80, deadline=None)
@given(items=st.integers(1, 60), size=st.integers(1, 9), seed=st.integers(0, 99), epoch=st.integers(0, 5))
def test_a_step_is_the_same_whoever_asks_and_an_epoch_holds_every_sample_once(items, size, seed, epoch):
    used = StepSampler(items, size, seed=seed)
    for other in range(3):
        used.batch(other, 0)
    fresh = StepSampler(items, size, seed=seed)
    steps = list(range(len(fresh)))
    later = {step: fresh.batch(epoch, step).tolist() for step in reversed(steps)}
    assert [used.batch(epoch, step).tolist() for step in steps] == [later[step] for step in steps]
    assert sorted(sample for step in steps for sample in later[step]) == list(range(items))


def test_epochs_differ_and_global_seeds_do_not_matter():
    sampler = StepSampler(100, 10, seed=3)
    np.random.seed(0)
    first = sampler.plan(0).copy()
    np.random.seed(1)
    assert np.array_equal(StepSampler(100, 10, seed=3).plan(0), first)
    assert not np.array_equal(sampler.plan(1), first)


def test_a_resumed_epoch_goes_on_where_it_stopped():
    sampler = StepSampler(23, 5, seed=1)
    whole = [batch.tolist() for batch in EpochBatches(sampler, epoch=2)]
    resumed = EpochBatches(sampler, epoch=2, start=3)
    assert [batch.tolist() for batch in resumed] == whole[3:]
    assert len(resumed) == 2
    resumed.advance()
    assert (resumed.epoch, len(resumed)) == (3, 5)


@pytest.mark.parametrize(
    ("options", "shares"),
    [
        ({"by": "set"}, [1 / 3, 1 / 3, 1 / 3]),
        ({"by": "size"}, [0.01, 0.09, 0.9]),
        ({"temperature": 1.0}, [0.01, 0.09, 0.9]),
        ({"temperature": 2.0}, [1 / 13.4868, 3 / 13.4868, 9.4868 / 13.4868]),
        ({"temperature": float("inf")}, [1 / 3, 1 / 3, 1 / 3]),
    ],
)
def test_mixing_keeps_the_shares_that_were_asked_for(options, shares):
    sampler = MixedSampler([10, 90, 900], 50, **options)
    assert np.allclose(sampler.shares, shares, atol=1e-3)
    which, sample = sampler.plan(0)
    drawn = np.bincount(which, minlength=3)
    assert np.allclose(drawn / drawn.sum(), sampler.shares, atol=1 / len(which))
    assert all((sample[which == i] < size).all() for i, size in enumerate([10, 90, 900]))


def test_no_sample_of_a_set_comes_again_before_all_have_come():
    which, sample = MixedSampler([7, 100], 10, by="set", seed=5).plan(3)
    small = sample[which == 0]
    for first in range(0, len(small) - 7, 7):
        assert sorted(small[first : first + 7]) == list(range(7))


def test_a_mixed_batch_knows_each_samples_set_width_and_length():
    sets = {
        "narrow": Windows(np.full((50, 6), 1.0), length=4),
        "wide": Windows(np.full((80, 12), 2.0), length=6),
    }
    mixture = Mixture.of(sets, batch_size=16, seed=1, pad_value=-7.0)
    batch = mixture.batch(1, 2)
    assert batch.values.shape == (16, 6, 12)
    assert set(batch.origin.tolist()) == {0, 1}
    for row, origin in enumerate(batch.origin):
        assert batch.feature_mask[row].sum() == (6, 12)[origin]
        assert batch.mask[row].sum() == (4, 6)[origin]
        real = batch.values[row][batch.mask[row]][:, batch.feature_mask[row]]
        assert (real == (1.0, 2.0)[origin]).all()
        assert (batch.values[row][~batch.mask[row]] == -7).all()
        assert (batch.values[row][:, ~batch.feature_mask[row]] == -7).all()
    again = Mixture.of(sets, batch_size=16, seed=1, pad_value=-7.0).batch(1, 2)
    assert np.array_equal(again.values, batch.values)


def test_impossible_samplers_are_refused_in_words():
    for make in (
        lambda: StepSampler(0, 4),
        lambda: StepSampler(3, 4, drop_last=True),
        lambda: StepSampler(8, 4).batch(0, 2),
        lambda: MixedSampler([3, 0], 2),
        lambda: MixedSampler([3], 2, temperature=0),
        lambda: MixedSampler([3], 2, by="luck"),
        lambda: Mixture.of({"a": Windows(np.zeros(2), length=5)}, batch_size=2),
    ):
        with pytest.raises(DataError, match="Expected"):
            make()
