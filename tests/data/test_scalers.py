"""Scalers: learned from training rows alone, never NaN, exactly inverted, exactly saved."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tsguard.data.scalers import Scaler, fit_scaler
from tsguard.errors import DataError

KINDS = ["standard", "robust", "minmax"]
VALUES = st.one_of(st.floats(-1e6, 1e6), st.just(float("nan")), st.just(5.0), st.floats(1e199, 1e200))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(
    values=arrays(np.float64, (12, 3), elements=VALUES), groups=st.lists(st.integers(0, 4), min_size=12, max_size=12)
)
def test_scaling_is_finite_and_inverts_for_any_data(kind, values, groups):
    scaler = fit_scaler(values, rows=np.arange(7), kind=kind, groups=groups)
    assert np.isfinite(scaler.centre).all()
    assert (scaler.scale > 0).all()
    scaled = scaler.transform(values[:7], groups[:7])
    known = np.isfinite(values[:7])
    assert np.isfinite(scaled[known]).all()
    back = scaler.inverse(scaled, groups[:7])
    size = np.nanmax(np.abs(values), initial=1.0)
    assert np.allclose(back[known], values[:7][known], rtol=1e-9, atol=1e-9 * size)


@pytest.mark.parametrize("kind", KINDS)
def test_the_test_part_has_no_influence(kind):
    rng = np.random.default_rng(0)
    values = rng.standard_normal((100, 2))
    before = fit_scaler(values, rows=slice(0, 60), kind=kind)
    values[60:] = 1e9
    after = fit_scaler(values, rows=slice(0, 60), kind=kind)
    assert np.array_equal(before.centre, after.centre)
    assert np.array_equal(before.scale, after.scale)
    assert (after.fitted_rows, after.fitted_from, after.fitted_to) == (60, 0, 59)


def test_standard_robust_and_minmax_do_what_their_names_say():
    values = np.random.default_rng(1).normal(7, 3, (20_000, 1))
    standard, robust = (fit_scaler(values, rows=slice(None), kind=kind).transform(values) for kind in KINDS[:2])
    assert abs(standard.mean()) < 1e-9
    assert standard.std() == pytest.approx(1)
    assert robust.std() == pytest.approx(1, abs=0.03)
    spoiled = values.copy()
    spoiled[:50] = 1e6
    assert fit_scaler(spoiled, rows=slice(None), kind="robust").scale[0, 0] == pytest.approx(3, abs=0.1)
    squeezed = fit_scaler(values, rows=slice(None), kind="minmax").transform(values)
    assert (squeezed.min(), squeezed.max()) == (0.0, 1.0)


def test_groups_of_one_row_and_constant_columns_do_not_make_nan():
    values = np.array([[1.0, 4.0], [3.0, 4.0], [9.0, 4.0]])
    scaler = fit_scaler(values, rows=slice(None), groups=["a", "a", "lonely"], names=["x", "constant"])
    scaled = scaler.transform(values, ["a", "a", "lonely"])
    assert scaled.tolist() == [[-1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]
    assert np.isfinite(scaler.transform(values, ["new"] * 3)).all()


def test_a_constant_with_rounding_noise_is_still_a_constant():
    values = np.full((1000, 1), 19789.1) + np.random.default_rng(0).integers(-1, 2, (1000, 1)) * 3.6e-12
    assert fit_scaler(values, rows=slice(None)).scale[0, 0] == 1.0


def test_windows_are_scaled_by_entity_and_targets_by_name():
    values = np.array([[0.0, 10.0], [2.0, 30.0], [10.0, 5.0], [30.0, 7.0]])
    scaler = fit_scaler(values, rows=slice(None), groups=["a", "a", "b", "b"], names=["x", "y"])
    windows = np.stack([values[:2], values[2:]])
    scaled = scaler.transform(windows, ["a", "b"])
    assert scaled.tolist() == [[[-1, -1], [1, 1]], [[-1, -1], [1, 1]]]
    assert scaler.inverse(scaled[..., 1:], ["a", "b"], columns=["y"])[..., 0].tolist() == [[10, 30], [5, 7]]


def test_json_brings_back_every_bit():
    values = np.random.default_rng(2).standard_normal((30, 3))
    scaler = fit_scaler(values, rows=slice(0, 20), kind="robust", groups=[f"g{i % 3}" for i in range(30)])
    again = Scaler.from_json(scaler.to_json())
    assert np.array_equal(again.centre, scaler.centre)
    assert np.array_equal(again.scale, scaler.scale)
    assert (again.kind, again.names, again.groups, again.fitted_to) == (scaler.kind, scaler.names, scaler.groups, 19)
    with pytest.raises(DataError, match="no scaler"):
        Scaler.from_json('{"format": 1}')


def test_float32_stays_float32_and_mistakes_are_explained():
    values = np.ones((4, 2), np.float32)
    scaler = fit_scaler(values, rows=[0, 1])
    assert scaler.transform(values).dtype == np.float32
    for mistake in (
        lambda: scaler.transform(np.ones((4, 3))),
        lambda: scaler.inverse(np.ones((4, 1)), columns=["z"]),
        lambda: fit_scaler(values, rows=[]),
        lambda: fit_scaler(np.array([["a"]]), rows=[0]),
        lambda: fit_scaler(values, rows=[0], kind="odd"),
    ):
        with pytest.raises(DataError, match="Expected"):
            mistake()
