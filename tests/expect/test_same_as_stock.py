"""The Arrow pass against stock GX on the same data: every expectation that is served, every result format."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tsguard.expect
from tests.expect.agreement import differences
from tests.expect.tables import cut, suites, tables
from tsguard.errors import DataError

FORMATS = ["BOOLEAN_ONLY", "BASIC", "SUMMARY", "COMPLETE"]
RANDOM = {"deadline": None, "derandomize": True, "suppress_health_check": list(HealthCheck)}


def _compare(data: Any) -> None:
    table = data.draw(tables())
    try:
        suite = tsguard.expect.load_suite(data.draw(suites(table)))
    except DataError:  # GX itself refuses the expectation, such as a word for a bound
        return
    # of two equal expectations that both fail, GX reports three results; nothing to agree with there
    configurations: list[Any] = []
    for expectation in list(suite.expectations):
        if expectation.configuration in configurations:
            suite.expectations.remove(expectation)
        configurations.append(expectation.configuration)
    batches, result_format = data.draw(cut(table)), data.draw(st.sampled_from(FORMATS))
    stock = tsguard.expect.validate(suite, table.to_pandas(), engine="pandas", result_format=result_format)
    ours = tsguard.expect.validate(suite, batches, result_format=result_format)
    assert differences(ours, stock) == []


@settings(max_examples=5, **RANDOM)
@given(data=st.data())
def test_random_suites_on_random_tables_get_the_answer_of_stock_gx(data: Any) -> None:
    _compare(data)


@pytest.mark.slow
@settings(max_examples=120, **RANDOM)
@given(data=st.data())
def test_many_random_suites_on_random_tables_get_the_answer_of_stock_gx(data: Any) -> None:
    _compare(data)


@pytest.fixture(autouse=True, scope="module")
def _great_expectations_is_imported_once() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tsguard.expect.load_suite([])
