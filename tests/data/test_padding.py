"""Padding: what is real comes back exactly, what is padded is marked, and padded time does not pass."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsguard.data.padding import pad_batch, time_steps
from tsguard.errors import DataError

SHAPES = st.lists(st.tuples(st.integers(0, 6), st.integers(1, 12)), min_size=1, max_size=5)


@settings(max_examples=100, deadline=None)
@given(shapes=SHAPES, side=st.sampled_from(["right", "left"]), pad=st.sampled_from([0.0, -1.0, float("nan")]))
def test_any_lengths_and_widths_come_back_as_they_were(shapes, side, pad):
    rng = np.random.default_rng(0)
    sequences = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    time = [np.cumsum(rng.integers(0, 9, length)) + 1_500_000_000 for length, _ in shapes]
    batch = pad_batch(sequences, time=time, side=side, pad_value=pad)
    for row, (values, stamps) in enumerate(zip(sequences, time, strict=True)):
        real = batch.values[row][batch.mask[row]][:, batch.feature_mask[row]]
        assert np.array_equal(real, values)
        assert np.array_equal(batch.time[row][batch.mask[row]], stamps)
        outside = batch.values[row][~(batch.mask[row][:, None] & batch.feature_mask[row][None, :])]
        assert np.array_equal(outside, np.full_like(outside, pad), equal_nan=True)
    until = np.array([(stamps[-1] if len(stamps) else 0) + 7 for stamps in time])
    deltas = batch.deltas(until)
    assert (deltas[~batch.mask] == 0).all()
    for row, stamps in enumerate(time):
        steps = np.diff(np.append(stamps, until[row])) if len(stamps) else []
        assert deltas[row][batch.mask[row]].tolist() == list(steps)


def test_padded_time_repeats_its_neighbour_so_that_plain_differences_are_neutral_too():
    for side in ("right", "left"):
        batch = pad_batch([np.ones(2), np.ones(4)], time=[[10, 20], [1, 2, 3, 4]], side=side)
        assert np.diff(batch.time[0]).sum() == 10
        assert (np.diff(batch.time[0]) >= 0).all()


def test_sub_second_steps_survive_in_float64():
    stamps = 1_537_799_000.0 + np.array([0.0, 0.25, 0.5])
    assert pad_batch([np.ones(3)], time=[stamps]).deltas().tolist() == [[0.25, 0.25, 0.0]]


def test_nothing_is_cut_without_being_asked():
    for mistake in (
        lambda: pad_batch([np.ones(5)], length=4),
        lambda: pad_batch([np.ones((5, 3))], width=2),
        lambda: pad_batch([]),
        lambda: pad_batch([np.ones((1, 2, 3))]),
        lambda: pad_batch([np.ones(2)], time=[[1]]),
        lambda: pad_batch([np.ones(2)]).deltas(),
    ):
        with pytest.raises(DataError, match=r"Expected|Align"):
            mistake()


def test_a_row_without_any_real_step_stays_still():
    assert (time_steps(np.array([[5, 9]]), np.zeros((1, 2), bool), until=[100]) == 0).all()
