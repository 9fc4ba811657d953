"""Probes of raw arrays: what they count is there, and what looks like it is not counted."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from tsguard.probes import data as probes


@settings(max_examples=80, deadline=None)
@given(
    arrays(
        np.float64,
        array_shapes(min_dims=1, max_dims=4, max_side=5),
        elements=st.sampled_from([0.0, 1.5, float("nan"), float("inf"), -float("inf")]),
    )
)
def test_every_value_that_is_not_finite_is_counted_and_the_first_are_placed(array):
    found = probes.nonfinite(array)
    places = np.argwhere(~np.isfinite(array))
    assert found.count == len(places)
    assert found.first == tuple(tuple(int(axis) for axis in place) for place in places[: probes.FIRST_SHOWN])
    assert [np.isnan(value) for value in found.values] == [np.isnan(array[place]) for place in found.first]


def test_places_are_right_across_chunks(monkeypatch):
    monkeypatch.setattr(probes, "_CHUNK_CELLS", 12)
    array = np.zeros((20, 4))
    array[[7, 13], [1, 2]] = np.nan
    assert probes.nonfinite(array).first == ((7, 1), (13, 2))


@pytest.mark.parametrize("code", [-200, -999, -9999, 9999, 1e20, -1000, 65535])
def test_codes_for_missing_are_told_from_tails(code):
    values = np.random.default_rng(0).standard_normal((500, 2))
    assert probes.sentinels(values) == []
    values[::50, 1] = code
    (found,) = probes.sentinels(values)
    assert (found.feature, found.value, found.count) == (1, code, 10)


@pytest.mark.parametrize(
    "column",
    [
        np.random.default_rng(0).standard_cauchy(2000) * 50,
        np.clip(np.random.default_rng(0).standard_normal(2000) * 300, -200, 9999),
        np.round(np.random.default_rng(0).exponential(300, 2000), -2),
        np.repeat([0.0, 255.0], 500),
        np.random.default_rng(0).integers(0, 1000, 2000).astype(float),
        np.where(np.arange(2000) % 7, np.random.default_rng(0).normal(100, 1, 2000), 0.0),
    ],
    ids=["heavy tails", "clipped", "round amounts", "two levels", "counts up to 999", "zero padding"],
)
def test_what_is_no_code_is_left_alone(column):
    assert probes.sentinels(column) == []


def test_digests_ignore_samples_too_plain_to_be_told_apart():
    plain = np.array([[0, 1, 0, 1], [1, 2, 3, 4]])
    first, second = probes.digests(plain)
    assert first is None
    assert second is not None
    assert probes.digests(plain[1:])[0] == second


def test_fields_know_their_dead_positions_frames_bounds_and_holes():
    field = np.random.default_rng(0).standard_normal((50, 6, 7))
    sound = probes.field_measures(field)
    assert (sound.dead, sound.constant_frames, sound.saturated, sound.holes.sum()) == ((), (), (), 0)
    field[:, 2, 3] = 1.0
    field[9] = 0.5
    field[1:4, 0, 0] = np.nan
    field[9, 2, 3] = 0.5
    found = probes.field_measures(field)
    assert found.constant_frames == (9,)
    assert found.holes[0, 0] == 3
    field[9, 2, 3] = 1.0
    assert probes.field_measures(field).dead == ((2, 3),)
    clipped = np.minimum(np.random.default_rng(0).standard_normal((50, 6, 7)), 1.0)
    ((bound, count),) = probes.field_measures(clipped).saturated
    assert (bound, count) == (1.0, int((clipped == 1.0).sum()))


def test_a_wholly_constant_field_is_no_list_of_dead_pixels():
    found = probes.field_measures(np.ones((5, 3, 3)))
    assert (found.dead, found.constant_frames) == ((), ())


def test_figures_are_json_and_count_what_is_missing():
    column = np.array([1.0, np.nan, np.inf, 3.0, 3.0])
    figure = probes.distribution(column)
    assert (figure["count"], figure["missing"], figure["infinite"], figure["distinct"]) == (5, 1, 1, 2)
    assert sum(figure["counts"]) == 3
    assert probes.distribution(np.array([np.nan]))["missing"] == 1
    missing = probes.missing_over_time({"a": np.array([np.nan, 1.0, 1.0, 1.0]), "b": np.arange(4)}, bins=2)
    assert missing == {"rows": [0, 2, 4], "share": {"a": [0.5, 0.0], "b": [0.0, 0.0]}}
    json.dumps([figure, missing], allow_nan=False)


@given(st.lists(st.integers(0, 2), max_size=30), st.integers(1, 4))
def test_stuck_runs_are_the_runs(values, least):
    runs = probes.stuck_runs(np.array(values, float), least=least)
    for start, size in runs:
        assert size >= least
        assert len(set(values[start : start + size])) == 1
        assert start == 0 or values[start - 1] != values[start]
        assert start + size == len(values) or values[start + size] != values[start]
    if least == 1:
        assert sum(size for _, size in runs) == len(values)


def test_tensors_are_arrays_too():
    import torch

    assert probes.as_array(torch.ones(2, requires_grad=True)).tolist() == [1.0, 1.0]
