"""The audit: tables, arrays, windows and fields end in findings with column, row and first values."""

from __future__ import annotations

import json
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tsguard
from tsguard.checks.audit import audit_data, code_of
from tsguard.checks.propose import propose
from tsguard.data.synthetic import activity, air_quality, fields, market, servers, transformer
from tsguard.data.windows import Windows
from tsguard.errors import ConfigError, DataError


def troubles(audit):
    return [finding for finding in audit.findings if finding.status not in ("PASS", "NOT_RUN")]


def suite(*expectations, name="own"):
    listed = [{"type": f"expect_{kind}", "kwargs": kwargs} for kind, kwargs in expectations]
    return {"name": name, "expectations": listed}


@pytest.mark.parametrize("make", [transformer, air_quality, market, servers, activity])
def test_a_sound_table_passes_without_a_suite(make):
    assert troubles(audit_data(dict(make().columns))) == []


@pytest.mark.parametrize(
    ("made", "code", "column"),
    [
        (transformer(faults=["nan"]), "data-nonfinite", "HUFL"),
        (transformer(faults=["inf"]), "data-nonfinite", "MUFL"),
        (air_quality(faults=["sentinel"]), "data-sentinel", "CO(GT)"),
        (servers(faults=["constant"]), "data-constant", "memory"),
    ],
)
def test_a_planted_fault_is_found_with_its_column_and_row(made, code, column):
    (found,) = troubles(audit_data(dict(made.columns)))
    assert (found.code, found.where["column"]) == (code, column)
    if code != "data-constant":
        assert found.where["row"] == made.planted[0].first_row


SOUND = {
    "time": pd.date_range("2024-01-01", periods=60, freq="h"),
    "unit": ["a"] * 30 + ["b"] * 30,
    "load": np.linspace(1.0, 2.0, 60),
}


def frame(**columns):
    return pd.DataFrame({**SOUND, **columns})


@pytest.mark.parametrize(
    ("sick", "code", "column", "row", "said"),
    [
        (
            frame(load=np.where(np.arange(60) == 7, np.nan, 1.0 * np.arange(60))),
            "data-nonfinite",
            "load",
            7,
            "1 value is",
        ),
        (frame(load=[None] * 59 + [1.0]), "data-nonfinite", "load", 0, "59 values are"),
        (frame(load=[np.nan] * 60), "data-nonfinite", "load", 0, "not one of 60"),
        (
            frame(load=np.where(np.arange(60) == 7, np.nan, 3.0)),
            "data-constant",
            "load",
            None,
            "3 in every row that has",
        ),
        (frame(time=SOUND["time"][[1, 0, *range(2, 60)]]), "data-order", "time", 1, "falls in 1 row;"),
        (frame(time=SOUND["time"].date[[30, 1, *range(2, 60)]]), "data-order", "time", 1, "falls"),
        (frame(time=[pd.NaT, *SOUND["time"][1:]]), "data-nonfinite", "time", 0, "no time"),
        (frame(load=[str(value) for value in range(60)]), "data-format", "load", None, "numbers written as text"),
        (frame(load=["n/a", *map(str, range(59))]), "data-format", "load", None, "'n/a'"),
        (frame(load=np.where(np.arange(60) % 9 == 0, -999.0, np.arange(60))), "data-sentinel", "load", 0, "-999"),
    ],
)
def test_a_table_without_a_suite_is_asked_what_holds_of_every_table(sick, code, column, row, said):
    assert troubles(audit_data(frame())) == []
    found = [one for one in troubles(audit_data(sick)) if one.code == code]
    assert [one.where["column"] for one in found] == [column]
    assert found[0].where.get("row") == row
    assert said in found[0].message


def test_time_may_begin_again_with_every_entity_and_no_number_excuses_it():
    again = pd.concat([frame().iloc[:30], frame().iloc[:30].assign(unit="b")], ignore_index=True)
    assert troubles(audit_data(again)) == []
    assert troubles(audit_data(again.assign(unit=[7] * 30 + [9] * 30))) == []
    swapped = frame(time=SOUND["time"][[1, 0, *range(2, 60)]])
    (found,) = troubles(audit_data(swapped.assign(unit=swapped["time"].dt.hour)))
    assert found.code == "data-order"


def test_expectations_become_findings_with_count_rows_and_values():
    table = pa.table({"a": [1.0, 2.0, 99.0, 4.0, 77.0]})
    asked = suite(
        ("column_values_to_be_between", {"column": "a", "max_value": 10}), ("column_to_exist", {"column": "a"})
    )
    audit = audit_data(table, asked)
    (found,) = troubles(audit)
    assert (found.code, found.status) == ("data-scale", "FAIL")
    assert found.where["row"] == 2
    assert "2 unexpected" in found.message
    assert "99.0 in row 2, 77.0 in row 4" in found.message
    assert [row["status"] for row in audit.figures["expectations"]] == ["FAIL", "PASS"]
    assert audit.result.success is False
    json.dumps(audit.figures)


def test_what_could_not_be_evaluated_is_an_error_and_no_pass():
    audit = audit_data(pa.table({"a": [1.0]}), suite(("column_values_to_be_unique", {"column": "nothing"})))
    (found,) = audit.findings
    assert found.status == "ERROR"
    assert "could not be evaluated" in found.message


def test_an_expectation_may_say_its_own_code():
    assert code_of("expect_column_values_to_be_between") == "data-scale"
    assert code_of("expect_column_values_to_be_between", {"tsguard": {"code": "data-order"}}) == "data-order"
    assert code_of("expect_column_values_to_match_regex") == "data-labels"


def test_repairs_of_a_reader_are_findings(tmp_path):
    from tsguard.data.readers import read

    path = tmp_path / "a.csv"
    path.write_text("# t,v\n1,2\n3,4\n5,9\n")
    (found,) = troubles(audit_data(read(path, repair="comment-header")))
    assert (found.code, found.where["file"], found.where["line"]) == ("data-format", str(path), 1)


def test_parquet_folders_and_frames_are_tables_too(tmp_path):
    frame = pd.DataFrame({"a": [1.0, np.nan, 3.0] * 10})
    asked = suite(("column_values_to_be_finite", {"column": "a"}))
    pq.write_table(pa.Table.from_pandas(frame), tmp_path / "part.parquet")
    for data in (frame, str(tmp_path)):
        (found,) = troubles(audit_data(data, asked))
        assert (found.code, found.evidence[0].value["count"]) == ("data-nonfinite", 10)


@pytest.mark.parametrize(
    ("fault", "code", "where"),
    [
        ("dead-pixel", "data-constant", {"feature": [2, 3]}),
        ("constant-frame", "data-constant", {"row": 10}),
        ("saturation", "data-constant", {}),
        ("nan", "data-nonfinite", {"row": 20, "timestep": 4}),
    ],
)
def test_fields_tell_their_dead_places(fault, code, where):
    made = fields(faults=[fault])
    (found,) = troubles(audit_data(made.columns["field"]))
    assert found.code == code
    assert where.items() <= found.where.items()
    assert troubles(audit_data(fields().columns["field"])) == []


def test_sequences_of_fields_are_fields():
    frames = fields(96).columns["field"].reshape(12, 8, 12, 16)
    assert troubles(audit_data(frames)) == []
    frames = frames.copy()
    frames[3, 5] = 7.0
    (found,) = troubles(audit_data(frames))
    assert (found.where["row"], found.where["timestep"]) == (3, 5)


def test_windows_and_dicts_of_arrays_are_audited():
    values = transformer().values()
    assert troubles(audit_data(Windows(values, length=24))) == []
    values[100, 2] = np.nan
    assert [f.code for f in troubles(audit_data(Windows(values, length=24)))] == ["data-nonfinite"]
    x = np.random.default_rng(0).standard_normal((50, 12, 3))
    x[4, 2, 1] = np.inf
    assert troubles(audit_data({"x": x, "mask": np.ones((50, 12), bool)}))[0].where["row"] == 4


def test_time_that_falls_is_found_in_windows():
    time = np.arange(200, dtype=np.int64)
    time[[90, 91]] = time[[91, 90]]
    (found,) = troubles(audit_data(Windows(np.random.default_rng(0).standard_normal((200, 3)), length=8, time=time)))
    assert (found.code, found.where["row"]) == ("data-order", 91)


def test_a_declared_volume_is_held_against_tables_and_arrays():
    table = dict(transformer(500).columns)
    assert troubles(audit_data(table, declared={"samples": 500})) == []
    assert [f.code for f in troubles(audit_data(table, declared={"samples": 11_873}))] == ["data-volume"]


def test_a_proposed_suite_holds_of_its_sample_and_of_its_sisters_and_not_of_sick_ones():
    sample = dict(transformer(seed=0).columns)
    learned = propose(sample, name="learned")
    assert audit_data(sample, learned).result.success
    assert audit_data(dict(transformer(seed=3).columns), learned).result.success
    for fault, column in (("nan", "HUFL"), ("stuck", "LUFL"), ("gap", "date"), ("not-monotone", "date")):
        sick = audit_data(dict(transformer(seed=3, faults=[fault]).columns), learned)
        assert {finding.where["column"] for finding in troubles(sick)} == {column}
    again = audit_data(sample, json.loads(json.dumps(learned.to_json_dict())))
    assert again.result.success


def test_a_proposal_shows_what_the_sample_itself_breaks():
    sick = dict(air_quality(faults=["sentinel", "nan"]).columns)
    learned = propose(sick)
    assert audit_data(sick, learned).result.success
    text = json.dumps(learned.to_json_dict())
    assert "codes for missing: [-200.0]" in text
    assert '"mostly": 0.9975' in text


def test_the_audit_leaves_the_data_alone():
    made = air_quality(faults=["sentinel", "nan"])
    before = {name: column.copy() for name, column in made.columns.items()}
    audit_data(dict(made.columns))
    assert all(np.array_equal(before[n], made.columns[n], equal_nan=before[n].dtype.kind == "f") for n in before)


def test_impossible_audits_are_refused_in_words():
    with pytest.raises(DataError, match="Leave the suite out"):
        audit_data(np.zeros((3, 4, 5)), "etth1")
    with pytest.raises(DataError, match="no name of a suite"):
        audit_data(pa.table({"a": [1]}), "no such suite")
    with pytest.raises(DataError, match="Expected a path"):
        audit_data(object())


LIMIT = 2**63 - 1


@pytest.mark.parametrize("empty", [pa.table({"a": pa.array([], pa.float64())}), pa.table({}), np.zeros((0, 3))])
def test_data_without_rows_is_never_a_pass(empty):
    report = tsguard.audit(empty)
    assert report.verdict.status == "NOT_RUN"
    assert "no rows" in report.verdict.reasons[0] or "no columns" in report.verdict.reasons[0]


@pytest.mark.parametrize("arrays", [np.zeros((0, 3, 2)), np.full((2, 3, 4), "word"), {"x": np.full((2, 3), "word")}])
def test_arrays_of_which_nothing_can_be_asked_are_refused(arrays):
    with pytest.raises(DataError, match="arrays of numbers with at least one sample"):
        audit_data(arrays)


@pytest.mark.parametrize(
    ("column", "status"),
    [
        (pa.nulls(6), "FAIL"),
        (pa.array(["x", None, "y", "x", "y", "x"]), "WARN"),
        (pa.array(["x", None, "y", "x", "y", "x"]).dictionary_encode(), "WARN"),
        (pa.array([Decimal("1.5"), None, *map(Decimal, range(4))]), "FAIL"),
        (pa.array([[1.0, 2.0], [float("nan")], [3.0], [1.0], [2.0], [4.0]]), "FAIL"),
        (np.ma.masked_array(np.arange(6.0), [0, 1, 0, 0, 0, 0]), "FAIL"),
    ],
)
def test_missing_cells_are_found_in_a_column_of_any_kind(column, status):
    (found,) = troubles(audit_data({"a": column, "b": np.arange(6.0)}))
    assert (found.code, found.status, found.where["column"]) == ("data-nonfinite", status, "a")
    assert found.where["row"] == (0 if isinstance(column, pa.NullArray) else 1)


@pytest.mark.parametrize(("code", "kind"), [(LIMIT, "int64"), (-LIMIT - 1, "int64"), (2 * LIMIT + 1, "uint64")])
def test_the_ends_of_64_bits_are_codes_for_missing(code, kind):
    column = np.random.default_rng(0).integers(0, 1000, 50).astype(kind)
    column[[3, 8, 20, 30]] = code
    (found,) = troubles(audit_data({"count": column}))
    assert (found.code, found.where["row"]) == ("data-sentinel", 3)


@pytest.mark.parametrize(
    "column",
    [2**62 + np.arange(50), [1.0, 1.0 + 2.3e-16] * 20, [1.5e308, -1.5e308] * 20, [5e-324, 0.0] * 20],
    ids=["large ids", "last bits", "end of float64", "denormal"],
)
def test_numbers_at_the_edges_of_their_type_are_sound(column):
    audit = audit_data({"a": np.asarray(column)})
    assert troubles(audit) == []
    json.dumps(audit.figures, allow_nan=False)


def test_an_engine_that_is_none_is_refused_without_a_suite_too():
    with pytest.raises(ConfigError, match=r"duckdb.*'arrow' or 'pandas'"):
        tsguard.audit(pa.table({"a": [1.0]}), engine="duckdb")


def test_a_file_that_is_no_parquet_is_told_in_words(tmp_path):
    (tmp_path / "torn.parquet").write_text("nothing of the kind")
    with pytest.raises(DataError, match=r"torn.parquet.*Expected a Parquet file"):
        audit_data(tmp_path / "torn.parquet")


def test_files_of_numpy_are_audited_like_their_arrays(tmp_path):
    values = np.random.default_rng(0).normal(size=(30, 6, 3))
    values[7, 2, 1] = np.nan
    np.save(tmp_path / "one.npy", values)
    np.savez(tmp_path / "two.npz", series=values, level=values[:, 0, 0])
    for name in ("one.npy", "two.npz"):
        audit = audit_data(str(tmp_path / name))
        (found,) = troubles(audit)
        assert (audit.name, found.code) == (name[:3], "data-nonfinite")
        assert [found.where[key] for key in ("row", "timestep", "feature")] == [7, 2, 1]
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(DataError, match="without objects"):
        audit_data(tmp_path / "objects.npy")
