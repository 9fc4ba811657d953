"""Windows: cut by index, never across a border, and equal to what a plain loop cuts."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsguard.data.windows import Windows, segments
from tsguard.errors import DataError


@settings(max_examples=150, deadline=None)
@given(
    entities=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    length=st.integers(1, 5),
    horizon=st.integers(0, 3),
    stride=st.integers(1, 3),
    offset=st.integers(0, 2),
    least=st.integers(1, 5),
    side=st.sampled_from(["left", "right"]),
)
def test_windows_equal_a_plain_loop(entities, length, horizon, stride, offset, least, side):
    names = np.repeat(np.arange(len(entities)), entities)
    values = np.arange(2 * len(names), dtype=np.float64).reshape(-1, 2)
    time = np.cumsum(np.arange(len(names), dtype=np.int64) % 3 + 1)
    least = min(least, length)
    windows = Windows(
        values,
        length=length,
        horizon=horizon,
        stride=stride,
        offset=offset,
        min_length=least,
        entities=names,
        time=time,
        side=side,
        pad_value=-1,
        targets=[1],
    )
    expected = []
    first = 0
    for size in entities:
        for anchor in range(first + least, first + size - offset - horizon + 1, stride):
            expected.append((max(first, anchor - length), anchor))
        first += size
    assert list(zip(windows.starts.tolist(), windows.anchors.tolist(), strict=True)) == expected
    if not expected:
        return
    batch = windows.take(np.arange(len(windows)))
    for i, (start, anchor) in enumerate(expected):
        real = batch.mask[i]
        assert np.array_equal(batch.x[i][real], values[start:anchor])
        assert (batch.x[i][~real] == -1).all()
        assert real.sum() == anchor - start
        assert real[-1 if side == "left" else 0]
        assert np.array_equal(batch.y[i], values[anchor + offset : anchor + offset + horizon, 1:])
        assert batch.rows[i] == anchor + offset
        assert np.array_equal(batch.time[i][real], time[start:anchor])
        assert (batch.delta[i][~real] == 0).all()
        steps = np.diff(np.append(time[start:anchor], time[min(anchor + offset, len(time) - 1)]))
        assert np.array_equal(batch.delta[i][real], steps.astype(np.float32))


def test_the_ett_protocol_has_its_known_numbers_of_windows():
    values = np.zeros((17420, 7), np.float32)
    parts = {"train": (0, 8640), "validation": (8640 - 336, 11520), "test": (11520 - 336, 14400)}
    counts = [len(Windows(values, length=336, horizon=96, rows=rows)) for rows in parts.values()]
    assert counts == [8209, 2785, 2785]


def test_windows_do_not_copy_the_data():
    values = np.zeros((200_000, 12), np.float32)
    tracemalloc.start()
    windows = Windows(values, length=96)
    held, _ = tracemalloc.get_traced_memory()
    windows.take(np.arange(256))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert np.shares_memory(windows.values, values)
    assert held < 8e6  # two indices of 200,000 int64
    assert peak < held + 8e6  # one batch of 1.2 MB and what cutting it takes


def test_gaps_and_steps_back_in_time_end_a_segment():
    time = np.array([0, 1, 2, 50, 51, 40, 41])
    assert segments(7, time=time, max_gap=10).tolist() == [[0, 3], [3, 5], [5, 7]]
    assert len(Windows(np.zeros(7), length=2, horizon=1, time=time, max_gap=10)) == 1


def test_time_in_float32_is_refused_because_it_has_lost_the_seconds():
    with pytest.raises(DataError, match="float32"):
        Windows(np.zeros(5), length=2, time=np.arange(5, dtype=np.float32))


def test_time_differences_of_epoch_seconds_are_exact():
    time = 1_537_799_000 + np.arange(6, dtype=np.int64)
    batch = Windows(np.zeros(6), length=3, time=time).take([0])
    assert batch.time.dtype == np.int64
    assert batch.delta.tolist() == [[1.0, 1.0, 1.0]]


def test_class_labels_stay_whole_numbers():
    batch = Windows(np.zeros((6, 2)), length=3, targets=np.array([0, 1, 2, 0, 1, 2])).take([0, 2])
    assert batch.y.dtype.kind == "i"
    assert batch.y[:, 0, 0].tolist() == [0, 2]


@pytest.mark.parametrize(
    "options", [{"length": 0}, {"length": 2, "stride": 0}, {"length": 2, "targets": [5]}, {"length": 2, "side": "up"}]
)
def test_impossible_windows_are_refused_in_words(options):
    with pytest.raises(DataError, match="Expected"):
        Windows(np.zeros((6, 2)), **options)


def test_windows_that_do_not_fit_are_none():
    assert len(Windows(np.zeros((3, 2)), length=5)) == 0
    assert len(Windows(np.zeros((0, 2)), length=5)) == 0
