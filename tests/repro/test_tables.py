"""Data that breaks an expectation is reduced to the rows and columns at fault."""

import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import tsguard
from tests.repro.programs import run
from tsguard.repro.plainly import lines_of
from tsguard.repro.tables import broken, table_case


def table():
    rng = np.random.default_rng(0)
    load = rng.normal(50, 5, 300)
    load[137] = -200.0
    return pa.table({"time": np.arange(300), "load": load, "secret": rng.normal(size=300)})


BETWEEN = {
    "type": "expect_column_values_to_be_between",
    "kwargs": {"column": "load", "min_value": 0, "max_value": 100},
}
SUITE = {"expectations": [BETWEEN]}
INCREASING = {"expectations": [{"type": "expect_column_values_to_be_increasing", "kwargs": {"column": "time"}}]}


def audited(data, suite):
    report = tsguard.audit(data, suite=suite)
    assert any(finding.status == "FAIL" for finding in report.findings)
    return report


def test_one_row_of_one_column_is_left():
    case = tsguard.reduce(audited(table(), SUITE), budget_s=60)
    assert (case.size, case.original_size) == (1, 900)
    text = case.makers[0]().files["repro.py"].decode()
    assert '"load": [-200.0]' in text
    assert "secret" not in text, "nothing leaves that need not"


@pytest.mark.slow
def test_the_script_fails_by_itself_and_passes_with_the_mended_table(tmp_path):
    script = tsguard.reduce(audited(table(), SUITE), budget_s=60).save(tmp_path)
    assert "confirmed in a fresh process | yes" in (tmp_path / "README.md").read_text()
    (tmp_path / "mended.py").write_text("import pyarrow as pa\n\ndef build():\n    return pa.table({'load': [20.0]})\n")
    code, said = run(script, "--use", "mended:build", path=tmp_path)
    assert code == 0, said


def test_what_takes_two_rows_keeps_two():
    data = pa.table({"time": [1, 2, 3, 9, 4, 10], "value": [0.0] * 6})
    findings = audited(data, INCREASING).findings
    case = table_case(data, INCREASING, findings, name="order", budget_s=60)
    assert case.size == 2
    assert '"time": [9, 4]' in case.makers[0]().files["repro.py"].decode()


def test_made_values_take_the_place_of_measured_ones():
    data = pa.table({"time": [1, 2, 3, 900, 432, 1000]})
    case = table_case(data, INCREASING, audited(data, INCREASING).findings, name="order", budget_s=60, synthetic=True)
    assert '"time": [1, 0]' in case.makers[0]().files["repro.py"].decode()
    assert case.synthetic.startswith("made")


def test_a_spent_budget_keeps_the_best_so_far():
    ticks = iter(range(1000))
    findings = audited(table(), SUITE).findings
    case = table_case(table(), SUITE, findings, name="late", budget_s=6, clock=lambda: next(ticks))
    assert case.exhausted
    assert 1 <= case.size < 900


def test_a_healthy_table_is_no_case():
    healthy = pa.table({"load": [1.0, 2.0]})
    assert not broken(healthy, "data-scale", "load", BETWEEN)
    assert table_case(healthy, SUITE, tsguard.audit(healthy, suite=SUITE).findings, name="none", budget_s=5) is None


CASES = {
    "not_be_null": ({"column": "v"}, [1.0, None], [1.0, 2.0]),
    "be_between": ({"column": "v", "min_value": 0, "max_value": 2, "strict_max": True}, [1.0, 2.0], [1.0, 0.0]),
    "be_in_set": ({"column": "v", "value_set": [1.0]}, [1.0, 3.0], [1.0, 1.0]),
    "not_be_in_set": ({"column": "v", "value_set": [3.0]}, [1.0, 3.0], [1.0, 1.0]),
    "be_unique": ({"column": "v"}, [1.0, 1.0], [1.0, 2.0]),
    "be_increasing": ({"column": "v", "strictly": True}, [1.0, 1.0], [1.0, 2.0]),
    "be_decreasing": ({"column": "v"}, [1.0, 2.0], [2.0, 1.0]),
    "be_finite": ({"column": "v"}, [1.0, float("inf")], [1.0, 2.0]),
    "match_regex": ({"column": "v", "regex": "[a-z]+$"}, ["a", "7"], ["a", "b"]),
}
"""Arguments, a column that breaks the expectation and one that meets it."""


@pytest.mark.parametrize("name", CASES)
def test_plain_lines_judge_as_the_expectation_does(name):
    kwargs, sick, sound = CASES[name]
    expectation = {"type": f"expect_column_values_to_{name}", "kwargs": kwargs}
    for values, wrong in ((sick, True), (sound, False)):
        data = pa.table({"v": values})
        assert bool(broken(data, "any", expectation=expectation)) is wrong
        assert bool(lines_of(expectation, data)) is wrong


NOON = datetime.datetime(2024, 1, 1, 12)  # noqa: DTZ001 - columns of logs have no zone
HOUR = datetime.timedelta(hours=1)
WHOLES = {
    "column_time_to_increase_per_entity": ({"column": "t"}, {"t": [2, 1]}, {"t": [1, 2]}),
    "column_time_to_increase_per_entity of entities": (
        {"column": "t", "entity": "e"},
        {"t": [5, 1, 1], "e": ["a", "b", "b"]},
        {"t": [5, 1, 2], "e": ["a", "b", "b"]},
    ),
    "column_interval_to_be_regular": (
        {"column": "t", "interval": 3600.0},
        {"t": [NOON, NOON + 2 * HOUR]},
        {"t": [NOON, NOON + HOUR]},
    ),
    "column_gaps_to_be_shorter_than": ({"column": "t", "longest": 2.0}, {"t": [1, 4]}, {"t": [1, 3]}),
    "column_stuck_runs_to_be_shorter_than": (
        {"column": "t", "longest": 3},
        {"t": [1.0, 1.0, 1.0]},
        {"t": [1.0, 1.0, 2.0]},
    ),
    "column_sentinel_values_to_be_absent": (
        {"column": "t", "sentinels": [-200.0]},
        {"t": [1.0, -200.0]},
        {"t": [1.0, 2.0]},
    ),
    "column_class_shares_to_be_between": (
        {"column": "t", "max_share": 0.6},
        {"t": ["a", "a", "a", "b"]},
        {"t": ["a", "b"]},
    ),
    "column_median_to_be_between": ({"column": "t", "max_value": 2}, {"t": [1, 3, 4]}, {"t": [1, 2, 4]}),
    "compound_columns_to_be_unique": (
        {"column_list": ["t", "e"]},
        {"t": [1, 1], "e": ["a", "a"]},
        {"t": [1, 1], "e": ["a", "b"]},
    ),
    "column_pair_values_a_to_be_greater_than_b": (
        {"column_A": "t", "column_B": "e"},
        {"t": [1.0, 2.0], "e": [0.0, 3.0]},
        {"t": [1.0, 2.0], "e": [0.0, 1.0]},
    ),
}
"""Arguments, a table that breaks the expectation and one that meets it."""


@pytest.mark.parametrize("name", WHOLES)
def test_plain_lines_of_time_and_of_several_columns_judge_as_the_expectation_does(name):
    kwargs, sick, sound = WHOLES[name]
    expectation = {"type": f"expect_{name.partition(' ')[0]}", "kwargs": kwargs}
    for columns, wrong in ((sick, True), (sound, False)):
        data = pa.table(columns)
        assert bool(broken(data, "any", expectation=expectation)) is wrong
        assert bool(lines_of(expectation, data)) is wrong


def test_times_of_any_kind_are_written_as_code():
    stamps = pa.array([NOON, NOON], pa.timestamp("ns", tz="Europe/Zurich"))
    regular = {"expectations": [{"type": "expect_column_interval_to_be_regular",
                                 "kwargs": {"column": "t", "interval": 60.0}}]}  # fmt: skip
    data = pa.table({"t": stamps})
    case = table_case(data, regular, audited(data, regular).findings, name="times", budget_s=60)
    text = case.makers[0]().files["repro.py"].decode()
    assert "tsguard" not in text
    space = {"__name__": "read"}
    exec(text[: text.index("\ntable = ")].replace("sys.excepthook", "hook"), space)
    assert space["build"]()["t"][0].timestamp() == stamps[0].as_py().timestamp()


def test_plain_lines_know_their_limits():
    odd = {**BETWEEN, "kwargs": {**BETWEEN["kwargs"], "row_condition": "load > 0"}}
    assert lines_of(odd, table()) is None, "an argument that no line takes up"
    assert (
        lines_of({"type": "expect_column_kl_divergence_to_be_less_than", "kwargs": {"column": "load"}}, table()) is None
    )
    mostly = {**BETWEEN, "kwargs": {**BETWEEN["kwargs"], "mostly": 0.9}}
    assert lines_of(mostly, table()) is None, "one value in 300 may be wrong"
    assert lines_of(mostly, pa.table({"load": [-200.0, 1.0]})) is not None


def test_a_script_of_a_common_expectation_needs_nothing_of_ours():
    case = tsguard.reduce(audited(table(), SUITE), budget_s=60)
    text = case.makers[0]().files["repro.py"].decode()
    assert "tsguard" not in text
    assert "pyarrow" not in text


def test_an_audit_is_reduced_from_its_folder(tmp_path):
    import pyarrow.parquet as pq

    pq.write_table(table(), tmp_path / "load.parquet")
    report = tsguard.audit(tmp_path / "load.parquet", suite=SUITE, out=tmp_path / "reports")
    case = tsguard.reduce(report.run.folder, budget_s=60)
    assert (case.size, case.original_size) == (1, 900)


@pytest.mark.slow
def test_a_failed_audit_leaves_its_script_unasked(tmp_path):
    report = tsguard.audit(table(), suite=SUITE, out=tmp_path)
    assert (Path(report.run.folder) / "repro" / "repro.py").exists()
    [failed] = [finding for finding in report.findings if finding.status == "FAIL"]
    assert [one.file for one in failed.evidence if one.name == "reproduction"] == ["repro/repro.py"]
    silent = tsguard.audit(table(), suite=SUITE, out=tmp_path, repro=False)
    assert not (Path(silent.run.folder) / "repro").exists()


@pytest.mark.slow
def test_the_command_reduces_the_audit_of_a_file(tmp_path):
    import json

    import pyarrow.parquet as pq
    from typer.testing import CliRunner

    from tsguard.cli import app

    pq.write_table(table(), tmp_path / "load.parquet")
    report = tsguard.audit(tmp_path / "load.parquet", suite=SUITE, out=tmp_path / "reports", repro=False)
    said = CliRunner().invoke(app, ["repro", str(report.run.folder), "--budget", "60", "--json"])
    assert said.exit_code == 0, said.output
    made = json.loads(said.stdout)
    assert (made["size"], made["original_size"]) == (1, 900)
    code, words = run(made["script"])
    assert code == 1, words


def test_an_audit_of_an_object_says_that_no_folder_holds_it(tmp_path):
    report = tsguard.audit(table(), suite=SUITE, out=tmp_path)
    with pytest.raises(tsguard.TsguardError, match="data that was given by its path"):
        tsguard.reduce(report.run.folder)


def test_a_table_without_the_column_is_no_answer():
    assert not broken(pa.table({"time": [0]}), "data-scale", "load", BETWEEN)
