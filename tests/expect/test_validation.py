"""What `validate` promises beyond agreement: exactness, honesty about failures, streams, quiet."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

import tsguard.expect
from tests.expect.agreement import differences, disagreements
from tsguard.errors import ConfigError, DataError
from tsguard.expect import spill
from tsguard.expect.stock import quiet
from tsguard.expect.validation import raised

with quiet():
    import great_expectations as gx
    import great_expectations.expectations as gxe
    from great_expectations.expectations.row_conditions import Column

TABLE = pa.table(
    {
        "value": pa.array([1.0, 2.0, None, 5.0, float("nan"), float("inf")]),
        "count": [1, 2, 3, 4, 4, 9],
        "name": ["a", "b", None, "ab", "a", "c"],
        "flag": [True, None, False, True, True, False],
    }
)


def _suite(*expectations: Any) -> Any:
    return gx.ExpectationSuite(name="suite", expectations=list(expectations))


def _results(suite: Any, data: Any, **options: Any) -> list[Any]:
    return list(tsguard.expect.validate(suite, data, **options).results)


MIXED = [
    gxe.ExpectColumnValuesToBeBetween(column="value", min_value=1, max_value=3),
    gxe.ExpectColumnValuesToBeUnique(column="count"),
    gxe.ExpectColumnValuesToMatchRegex(column="name", regex="^a"),
    gxe.ExpectColumnMeanToBeBetween(column="flag", min_value=0),
    gxe.ExpectColumnQuantileValuesToBeBetween(
        column="count", quantile_ranges={"quantiles": [0.5], "value_ranges": [[1, 3]]}
    ),
    gxe.ExpectColumnValueZScoresToBeLessThan(column="count", threshold=2, double_sided=True),
    gxe.ExpectColumnMaxToBeBetween(column="absent", max_value=1),
]


def test_the_result_is_a_genuine_suite_result_that_serialises() -> None:
    result = tsguard.expect.validate(_suite(*MIXED), TABLE)
    with quiet():
        from great_expectations.core import ExpectationSuiteValidationResult
    assert isinstance(result, ExpectationSuiteValidationResult)
    assert json.loads(json.dumps(result.to_json_dict()))["statistics"]["evaluated_expectations"] == len(MIXED)


def test_what_the_pass_cannot_serve_is_handed_over_and_named() -> None:
    told = tsguard.expect.validate(_suite(*MIXED), TABLE).meta["tsguard"]
    assert told["served"] == 4
    assert {entry["expectation"] for entry in told["handed_over"]} == {
        "expect_column_mean_to_be_between",  # of booleans
        "expect_column_value_z_scores_to_be_less_than",
        "expect_column_max_to_be_between",  # of a column that is not there
    }
    assert all(entry["reason"] for entry in told["handed_over"])


@pytest.mark.parametrize("shape", ["table", "reader", "file"])
def test_rows_are_counted_though_no_column_is_asked_about(shape: str, tmp_path: Path) -> None:
    pq.write_table(TABLE, tmp_path / "whole.parquet", row_group_size=2)
    data = {"table": TABLE, "reader": TABLE.to_reader(), "file": tmp_path / "whole.parquet"}[shape]
    assert tsguard.expect.validate([gxe.ExpectTableRowCountToEqual(value=6)], data).success


def test_a_missing_column_could_not_be_evaluated_and_is_no_pass() -> None:
    result = tsguard.expect.validate(_suite(MIXED[-1]), TABLE)
    assert raised(result.results[0])
    assert not result.success
    assert "absent" in str(result.results[0].exception_info)


def test_a_crash_in_one_expectation_leaves_the_others_judged() -> None:
    crashing = gxe.ExpectColumnValuesToMatchRegex(column="name", regex="(")
    results = _results(_suite(crashing, MIXED[1]), TABLE)
    assert [raised(each) for each in results] == [True, False]
    assert not results[0].success


@pytest.mark.parametrize(
    "shape", ["table", "batches", "reader", "generator", "frame", "dataset", "file", "folder", "mapping"]
)
def test_every_form_of_the_data_gets_the_same_answer(shape: str, tmp_path: Path) -> None:
    pq.write_table(TABLE.slice(0, 4), tmp_path / "part-0.parquet")
    pq.write_table(TABLE.slice(4), tmp_path / "part-1.parquet")
    pq.write_table(TABLE, tmp_path / "whole.pq")
    data: dict[str, Any] = {
        "table": TABLE,
        "batches": TABLE.to_batches(max_chunksize=2),
        "reader": pa.RecordBatchReader.from_batches(TABLE.schema, TABLE.to_batches(max_chunksize=1)),
        "generator": (batch for batch in TABLE.to_batches(max_chunksize=3)),
        "frame": TABLE.to_pandas(),
        "dataset": pads.dataset([str(tmp_path / "part-0.parquet"), str(tmp_path / "part-1.parquet")]),
        "file": tmp_path / "whole.pq",
        "folder": str(tmp_path),
        "mapping": {name: TABLE.column(name) for name in TABLE.column_names},
    }
    if shape == "folder":
        (tmp_path / "whole.pq").unlink()
    assert disagreements(_suite(*MIXED), TABLE, data[shape], "COMPLETE") == []


@pytest.mark.parametrize(
    "result_format",
    [
        {"result_format": "SUMMARY", "partial_unexpected_count": 1},
        {"result_format": "SUMMARY", "partial_unexpected_count": 0},
        {"result_format": "COMPLETE", "exclude_unexpected_values": True},
        {"result_format": "COMPLETE", "return_unexpected_index_query": False},
        {"result_format": "BASIC", "return_unexpected_index_query": True},
        {"result_format": "BOOLEAN_ONLY", "return_unexpected_index_query": True},
        {"result_format": "COMPLETE", "unexpected_index_column_names": ["count"]},
        {"result_format": "SUMMARY", "include_unexpected_rows": True},
    ],
    ids=str,
)
def test_result_formats_given_as_dictionaries_mean_what_they_mean_to_gx(result_format: dict[str, Any]) -> None:
    suite = _suite(*MIXED, gxe.ExpectColumnPairValuesToBeEqual(column_A="count", column_B="value"))
    assert disagreements(suite, TABLE, iter(TABLE.to_batches(max_chunksize=2)), result_format) == []


@pytest.mark.parametrize("form", ["object", "list", "dictionary", "file"])
def test_every_form_of_the_suite_is_read(form: str, tmp_path: Path) -> None:
    suite = _suite(*MIXED)
    path = tmp_path / "suite.json"
    path.write_text(json.dumps(suite.to_json_dict()))
    given = {"object": suite, "list": MIXED, "dictionary": suite.to_json_dict(), "file": path}[form]
    assert (
        differences(tsguard.expect.validate(given, TABLE), tsguard.expect.validate(suite, TABLE, engine="pandas")) == []
    )


def test_an_entry_that_gx_refuses_is_an_error_and_not_left_out() -> None:
    with pytest.raises(DataError, match="number 0 \\(expect_column_to_fly\\)"):
        tsguard.expect.validate({"name": "s", "expectations": [{"type": "expect_column_to_fly", "kwargs": {}}]}, TABLE)


def test_integers_beside_nulls_are_judged_exactly_where_pandas_rounds() -> None:
    near = pa.table({"id": pa.array([2**53, 2**53 + 1, None])})
    unique = _suite(gxe.ExpectColumnValuesToBeUnique(column="id"))
    assert tsguard.expect.validate(unique, near).success
    assert not tsguard.expect.validate(unique, near, engine="pandas").success
    highest = _suite(gxe.ExpectColumnMaxToBeBetween(column="id", max_value=2**54))
    assert _results(highest, near)[0].result["observed_value"] == 2**53 + 1
    bounded = _suite(gxe.ExpectColumnValuesToBeBetween(column="id", max_value=2**53))
    assert _results(bounded, near, result_format="COMPLETE")[0].result["unexpected_list"] == [2**53 + 1]


def test_index_lists_are_row_positions_across_batches_and_whatever_the_index_of_a_frame() -> None:
    between = _suite(gxe.ExpectColumnValuesToBeBetween(column="count", max_value=3))
    frame = TABLE.to_pandas().set_index(pd.Index([10, 20, 30, 40, 50, 60]))
    for data in (TABLE.to_batches(max_chunksize=2), frame):
        assert _results(between, data, result_format="COMPLETE")[0].result["unexpected_index_list"] == [3, 4, 5]


def test_conditions_on_rows_and_columns_of_python_objects_are_handed_over_rightly() -> None:
    frame = pd.DataFrame({"mixed": pd.Series([1, "a", None], dtype=object), "n": [1, 2, 3]})
    suite = _suite(
        gxe.ExpectColumnValuesToNotBeNull(column="mixed"),
        gxe.ExpectColumnValuesToBeBetween(column="n", max_value=2, row_condition=Column("n") < 3),
    )
    ours, stock = (tsguard.expect.validate(suite, frame, engine=engine) for engine in ("arrow", "pandas"))
    assert differences(ours, stock) == []
    assert ours.meta["tsguard"]["served"] == 0


def test_an_expectation_of_ones_own_is_handed_over() -> None:
    with quiet():

        class ExpectColumnValuesToBeSmall(gxe.ExpectColumnValuesToBeBetween):
            max_value: float = 3

    result = tsguard.expect.validate(_suite(ExpectColumnValuesToBeSmall(column="count")), iter(TABLE.to_batches()))
    assert result.meta["tsguard"]["handed_over"][0]["reason"] == "an expectation of one's own"
    assert result.results[0].result["unexpected_count"] == 3


def test_many_rows_in_many_batches_agree_with_stock() -> None:
    rng = np.random.default_rng(0)
    size = 200_000
    table = pa.table(
        {
            "x": pa.array(rng.standard_normal(size), mask=rng.random(size) < 0.01),
            "id": rng.permutation(size),
            "wide": rng.integers(-(2**62), 2**62, size),
            "site": rng.choice(["north", "south", "east"], size),
        }
    )
    suite = _suite(
        *[
            getattr(gxe, f"ExpectColumn{name}ToBeBetween")(column="x", min_value=0)
            for name in ("Mean", "Stdev", "Min", "Max", "Median", "Sum")
        ],
        gxe.ExpectColumnValuesToBeBetween(column="x", min_value=-3, max_value=3),
        gxe.ExpectColumnQuantileValuesToBeBetween(
            column="x", quantile_ranges={"quantiles": [0.1, 0.9], "value_ranges": [[0, 1], [0, 1]]}
        ),
        *[gxe.ExpectColumnValuesToBeUnique(column=name) for name in ("id", "wide", "site")],
        gxe.ExpectColumnUniqueValueCountToBeBetween(column="wide", min_value=1),
        gxe.ExpectColumnValuesToBeInSet(column="site", value_set=["north", "south"]),
        gxe.ExpectColumnValuesToBeIncreasing(column="id"),
        gxe.ExpectCompoundColumnsToBeUnique(column_list=["site", "id"]),
    )
    assert disagreements(suite, table) == []


def test_a_pass_that_spills_to_the_disk_agrees_with_stock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill, "BUDGET_BYTES", 1 << 12)
    rng = np.random.default_rng(0)
    size = 30_000
    table = pa.table(
        {
            "x": pa.array(rng.standard_normal(size).round(3), mask=rng.random(size) < 0.1),
            "id": rng.integers(0, size, size),
            "site": rng.choice(["north", "south", "east"], size),
        }
    )
    suite = _suite(
        gxe.ExpectColumnMedianToBeBetween(column="x", min_value=0),
        gxe.ExpectColumnUniqueValueCountToBeBetween(column="x", min_value=0, max_value=10),
        gxe.ExpectColumnMostCommonValueToBeInSet(column="site", value_set=["north"]),
        gxe.ExpectColumnDistinctValuesToEqualSet(column="site", value_set=["north", "west"]),
        gxe.ExpectColumnValuesToBeUnique(column="id"),
        gxe.ExpectCompoundColumnsToBeUnique(column_list=["site", "id"]),
    )
    reader = pa.RecordBatchReader.from_batches(table.schema, table.to_batches(max_chunksize=1000))
    assert disagreements(suite, table, reader, "COMPLETE") == []


def test_wrong_options_are_said_plainly() -> None:
    with pytest.raises(ConfigError, match="'arrow' or 'pandas'"):
        tsguard.expect.validate(MIXED, TABLE, engine="spark")
    with pytest.raises(ConfigError, match="BOOLEAN_ONLY, BASIC, SUMMARY, COMPLETE"):
        tsguard.expect.validate(MIXED, TABLE, result_format="ALL")
    with pytest.raises(DataError, match="pandas DataFrame"):
        tsguard.expect.validate(MIXED, 5)
    with pytest.raises(DataError, match="where no file is"):
        tsguard.expect.validate("nowhere.json", TABLE)


def test_data_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"not parquet")
    with pytest.raises(DataError, match=r"broken\.parquet"):
        tsguard.expect.validate(MIXED, broken)
    with pytest.raises(DataError, match="a folder with no such file"):
        tsguard.expect.validate(MIXED, _empty(tmp_path))
    with pytest.raises(DataError, match="schema of the first batch"):
        tsguard.expect.validate(MIXED, [TABLE, TABLE.drop_columns(["flag"])])


def _empty(folder: Path) -> Path:
    inner = folder / "empty"
    inner.mkdir()
    return inner


def test_nothing_is_printed_warned_or_left_behind(capfd: pytest.CaptureFixture[str]) -> None:
    context = gx.get_context(mode="ephemeral")
    shown, level = warnings.showwarning, logging.getLogger("great_expectations").level
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for engine in ("arrow", "pandas"):
            tsguard.expect.validate(_suite(*MIXED), TABLE, engine=engine)
    assert capfd.readouterr() == ("", "")
    assert (warnings.showwarning, logging.getLogger("great_expectations").level) == (shown, level)
    with quiet():
        from great_expectations.data_context.data_context.context_factory import project_manager
    assert project_manager.get_current_project() is context


def test_our_limit_on_unexpected_values_is_that_of_gx() -> None:
    from great_expectations.constants import MAX_RESULT_RECORDS

    from tsguard.expect.profile import MAX_RECORDS

    assert MAX_RECORDS == MAX_RESULT_RECORDS


def test_importing_the_package_imports_neither_great_expectations_nor_pandas() -> None:
    heavy = "('great_expectations', 'pandas', 'pyarrow')"
    code = f"import sys, tsguard.expect; sys.exit(any(name in sys.modules for name in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_columns_of_tensors_and_lists_stand_beside_those_that_are_judged():
    frames = np.random.default_rng(0).random((20, 3, 2)).astype("float32")
    table = pa.table(
        {
            "load": pa.array(np.arange(20.0)),
            "field": pa.FixedShapeTensorArray.from_numpy_ndarray(frames),
            "window": pa.array([[1.0, 2.0]] * 19 + [None]),
        }
    )
    suite = [
        gxe.ExpectColumnMinToBeBetween(column="load", min_value=0),
        gxe.ExpectColumnValuesToNotBeNull(column="field"),
        gxe.ExpectColumnValuesToNotBeNull(column="window"),
    ]
    assert [each.success for each in tsguard.expect.validate(suite, table).results] == [True, True, False]


def test_a_suite_has_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = pa.table({"load": [1.0, -1.0]})
    assert tsguard.expect.validate("etth1", table).suite_name == "etth1"
    assert not tsguard.expect.validate("etth1", table).success
    (tmp_path / "suites").mkdir()
    mine = gx.ExpectationSuite(name="mine", expectations=[gxe.ExpectColumnToExist(column="load")])
    (tmp_path / "suites" / "etth1.json").write_text(json.dumps(mine.to_json_dict()))
    assert tsguard.expect.validate("etth1", table).suite_name == "mine"
    with pytest.raises(DataError, match="air_quality"):
        tsguard.expect.validate("nothing_here", table)
