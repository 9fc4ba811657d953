"""Stores that move to the disk give the answers of stores that did not have to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsguard.expect import spill
from tsguard.expect.spill import Budget, KeyStore, OrderStore

NUMBERS = st.one_of(
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=40).map(lambda cells: np.array(cells, np.int64)),
    st.lists(st.integers(-3, 3), min_size=1, max_size=40).map(lambda cells: np.array(cells, np.int8)),
    st.lists(st.floats(allow_nan=False), min_size=1, max_size=40).map(lambda cells: np.array(cells, np.float64)),
    st.lists(st.floats(allow_nan=False, width=32), min_size=1, max_size=40).map(
        lambda cells: np.array(cells, np.float32)
    ),
)


@pytest.fixture
def tight() -> Iterator[Budget]:
    """A budget of nothing: every store spills."""
    with Budget(0) as budget:
        yield budget


@settings(max_examples=60, deadline=None, derandomize=True)
@given(values=NUMBERS, cut=st.integers(1, 7), spilled=st.booleans())
def test_ranks_are_those_of_the_sorted_values(values: Any, cut: int, spilled: bool) -> None:
    with Budget(0 if spilled else 1 << 20) as budget:
        store = OrderStore(budget, resident=False)
        for start in range(0, len(values), cut):
            store.add(values[start : start + cut])
        ranks = [0, len(values) // 2, len(values) - 1]
        assert np.array_equal(store.at(ranks), np.sort(values)[ranks])
        assert store.at(ranks).dtype == values.dtype


def test_a_crowded_bucket_is_refined_until_it_fits(monkeypatch: pytest.MonkeyPatch, tight: Budget) -> None:
    monkeypatch.setattr(spill, "SELECT_VALUES", 8)
    values = np.concatenate([np.full(100, 1.0), np.linspace(1.0, 1.0 + 1e-12, 50), [np.inf, -np.inf]])
    store = OrderStore(tight, resident=False)
    store.add(values)
    ranks = list(range(len(values)))
    assert np.array_equal(store.at(ranks), np.sort(values))


def _naive(keys: list[Any]) -> list[int]:
    return [row for row, key in enumerate(keys) if keys.count(key) > 1]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    first=st.lists(st.one_of(st.none(), st.sampled_from(["a", "b", "c", "dd"])), min_size=1, max_size=30),
    second=st.lists(st.one_of(st.none(), st.integers(-2, 2)), min_size=30, max_size=30),
    cut=st.integers(1, 9),
    spilled=st.booleans(),
    limit=st.one_of(st.none(), st.integers(1, 3)),
)
def test_duplicates_of_pairs_are_found_wherever_they_lie(
    first: Any, second: Any, cut: int, spilled: bool, limit: int | None
) -> None:
    second = second[: len(first)]
    with Budget(0 if spilled else 1 << 20) as budget:
        store = KeyStore([pa.string(), pa.int64()], budget, resident=False)
        for start in range(0, len(first), cut):
            cells = slice(start, start + cut)
            store.add([pa.array(first[cells], pa.string()), pa.array(second[cells], pa.int64())], start, None)
        found, distinct = store.duplicates(limit), store.distinct_count
    expected = _naive(list(zip(first, second, strict=True)))
    assert found.count == len(expected)
    assert found.rows.tolist() == expected[:limit]
    assert found.keys[0].to_pylist() == [first[row] for row in expected[:limit]]
    assert distinct == len(set(zip(first, second, strict=True)))


@pytest.mark.parametrize("spilled", [False, True])
@pytest.mark.parametrize(
    "values",
    [
        np.arange(5000)[::-1].copy(),
        np.random.default_rng(0).integers(0, 50, 5000),
        np.random.default_rng(0).integers(-(2**62), 2**62, 5000),
        np.random.default_rng(0).standard_normal(5000).round(2),
    ],
    ids=["dense", "few", "wide", "floats"],
)
def test_distinct_numbers_are_counted_exactly(values: Any, spilled: bool) -> None:
    with Budget(0 if spilled else 1 << 30) as budget:
        store = KeyStore([pa.from_numpy_dtype(values.dtype)], budget, resident=False)
        for start in range(0, len(values), 700):
            store.add([pa.array(values[start : start + 700])], start, None)
        told, counts = np.unique(values, return_counts=True)
        distinct, occurrences = store.distinct()
        assert store.distinct_count == len(told)
        assert dict(zip(distinct.to_pylist(), occurrences.tolist(), strict=True)) == dict(
            zip(told.tolist(), counts.tolist(), strict=True)
        )
        expected = np.flatnonzero(np.isin(values, told[counts > 1]))
        assert np.array_equal(store.duplicates(None).rows, expected)


def test_zero_and_minus_zero_are_one_value() -> None:
    for limit in (0, 1 << 20):
        with Budget(limit) as budget:
            store = KeyStore([pa.float64()], budget, resident=False)
            store.add([pa.array([0.0, 1.0])], 0, None)
            store.add([pa.array([-0.0, 2.0])], 2, None)
            assert store.duplicates(None).rows.tolist() == [0, 2]
