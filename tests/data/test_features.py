"""Features: causal for any data and any choice of features, and what their names say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsguard.data.features import FeatureMaker, first_leak
from tsguard.errors import DataError

MAKERS = st.builds(
    FeatureMaker,
    lags=st.lists(st.integers(1, 9), max_size=2, unique=True),
    rolling=st.lists(st.integers(1, 9), max_size=2, unique=True),
    statistics=st.lists(st.sampled_from(["mean", "std", "min", "max", "sum"]), min_size=1, max_size=3, unique=True),
    interactions=st.sampled_from([[], [("a", "b")]]),
    cycles=st.sampled_from([[], ["day", "week"]]),
)


@settings(max_examples=150, deadline=None)
@given(maker=MAKERS, rows=st.integers(2, 25), at=st.integers(0, 24), seed=st.integers(0, 9), cuts=st.integers(1, 3))
def test_no_feature_changes_when_the_future_does(maker, rows, at, seed, cuts):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((rows, 2)) * 1e6
    entities = np.sort(rng.integers(0, cuts, rows))

    def make(array):
        return maker.make(array, ["a", "b"], time=np.arange(rows) * 3600, entities=entities)[0]

    assert first_leak(make, values, min(at, rows - 1), rng=rng) is None


def test_the_law_catches_a_centred_window_and_names_the_feature():
    def centred(values):
        return np.stack([values[:, 0], np.convolve(values[:, 0], np.ones(3) / 3, mode="same")], axis=1)

    leak = first_leak(centred, np.arange(20.0)[:, None], 10, rng=np.random.default_rng(0))
    assert leak == (10, 1)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 99), other=st.integers(0, 99))
def test_one_entity_never_sees_another(seed, other):
    maker = FeatureMaker(lags=[1, 3], rolling=[4], statistics=["mean", "max"])
    entities = np.array(["a"] * 8 + ["b"] * 8)
    values = np.random.default_rng(seed).standard_normal((16, 1))
    changed = values.copy()
    changed[:8] = np.random.default_rng(other + 1000).standard_normal((8, 1))
    before = maker.make(values, ["x"], entities=entities)[0][8:]
    assert np.array_equal(maker.make(changed, ["x"], entities=entities)[0][8:], before)


def test_lags_rolling_interactions_and_cycles_are_what_their_names_say():
    maker = FeatureMaker(lags=[2], rolling=[3], statistics=["mean", "max"], interactions=[("a", "b")], cycles=["day"])
    values = np.array([[1.0, 2.0], [4.0, 0.0], [7.0, 1.0], [1.0, 5.0]])
    made, names = maker.make(values, ["a", "b"], time=np.arange(4) * 21_600)
    assert maker.names(["a", "b"]) == names
    columns = dict(zip(names, made.T, strict=True))
    assert columns["a_lag2"].tolist() == [1, 1, 1, 4]
    assert columns["a_mean3"].tolist() == [1, 2.5, 4, 4]
    assert columns["b_max3"].tolist() == [2, 2, 2, 5]
    assert columns["a_x_b"].tolist() == [2, 0, 7, 5]
    assert np.allclose(columns["sin_day"], [0, 1, 0, -1], atol=1e-12)
    assert np.array_equal(made[:, :2], values)


def test_cycles_of_epoch_nanoseconds_keep_their_precision():
    time = np.array(["2024-03-01T06:00:00.000000001"], "datetime64[ns]")
    made, names = FeatureMaker(cycles=["day"], seconds_per_unit=1e-9).make(np.zeros((1, 1)), ["x"], time=time)
    assert made[0, names.index("sin_day")] == pytest.approx(1.0, abs=1e-12)


def test_a_look_ahead_cannot_be_asked_for():
    for mistake in (
        lambda: FeatureMaker(lags=[0]),
        lambda: FeatureMaker(lags=[-1]),
        lambda: FeatureMaker(cycles=["fortnight"]),
        lambda: FeatureMaker(cycles=["day"]).make(np.zeros((2, 1)), ["x"]),
        lambda: FeatureMaker(lags=[1], columns=["y"]).make(np.zeros((2, 1)), ["x"]),
        lambda: FeatureMaker().make(np.zeros((2, 1)), ["x", "y"]),
    ):
        with pytest.raises(DataError, match="Expected"):
            mistake()
