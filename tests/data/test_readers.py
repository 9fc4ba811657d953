"""Readers: every fault is named with file and line, all at once, and nothing is mended or dropped in silence."""

from __future__ import annotations

import json
import math
import re
from datetime import datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsguard.data.readers import from_memory, read
from tsguard.data.reading import ReadError
from tsguard.errors import DataError


def write(folder, name, text):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def faults_of(path, **options):
    with pytest.raises(ReadError) as caught:
        read(path, **options)
    return caught.value.faults


def test_sound_csv_keeps_every_row_and_repairs_nothing(tmp_path):
    reading = read(write(tmp_path, "a.csv", "t,x,y\n2020-01-01 00:00:00,1,a\n2020-01-01 01:00:00,2.5,b\n"))
    assert reading.table.column("x").to_pylist() == [1.0, 2.5]
    assert pa.types.is_timestamp(reading.table.schema.field("t").type)
    assert reading.repairs == ()


def test_ragged_rows_are_all_named_with_their_lines(tmp_path):
    faults = faults_of(write(tmp_path, "a.csv", "a,b\n1,2\n3\n4,5\n6,7,8\n"))
    assert [(fault.kind, fault.line) for fault in faults] == [("ragged-row", 3), ("ragged-row", 5)]
    assert "received 1 cell. Expected 2" in str(faults[0])


def test_allowed_ragged_rows_are_listed_and_not_silently_gone(tmp_path):
    reading = read(write(tmp_path, "a.csv", "a,b\n1,2\n3\n4,5\n6,7,8\n"), repair="ragged-row")
    assert reading.table.to_pydict() == {"a": [1, 3, 4], "b": [2, None, 5]}
    assert [repair.line for repair in reading.repairs] == [3, 5]


def test_line_numbers_survive_quoted_line_breaks(tmp_path):
    faults = faults_of(write(tmp_path, "a.csv", 'a,b\n"one\ntwo",2\n3\n'))
    assert [fault.line for fault in faults] == [4]


def test_comment_header_unnamed_and_blank_separated_cells_are_found_together(tmp_path):
    text = ",# Columns: time,u,v,label\n0,0,1.5,2.5,w\n1,250 3.5 4.5 ,,,w\n2,500 5.5 6.5 ,,,w\n"
    path = write(tmp_path, "a.csv", text)
    faults = faults_of(path)
    assert [(f.kind, f.line, f.last_line) for f in faults] == [
        ("comment-header", 1, None),
        ("unnamed-column", 1, None),
        ("delimiter", 3, 4),
    ]
    reading = read(path, repair=("comment-header", "unnamed-column", "delimiter"))
    assert reading.table.column("u").to_pylist() == [1.5, 3.5, 5.5]
    assert reading.table.column_names == ["column_0", "time", "u", "v", "label"]
    assert {repair.kind: repair.count for repair in reading.repairs}["delimiter"] == 2


@pytest.mark.parametrize(("text", "other"), [("a;b\n1;2\n", "';'"), ("a b\n1 2\n", "' '"), ("a\tb\n1\t2\n", "'\\t'")])
def test_another_delimiter_is_an_error_that_names_it(tmp_path, text, other):
    (fault,) = faults_of(write(tmp_path, "a.csv", text))
    assert fault.kind == "delimiter"
    assert other in fault.received


def test_decimal_commas_are_named_and_can_be_read(tmp_path):
    path = write(tmp_path, "a.csv", "a;b\n1,5;2\n2,5;3\n")
    faults = faults_of(path, delimiter=";")
    assert {fault.kind for fault in faults} == {"decimal-comma"}
    assert read(path, delimiter=";", decimal=",").table.column("a").to_pylist() == [1.5, 2.5]
    assert read(path, delimiter=";", repair="decimal-comma").table.column("a").to_pylist() == [1.5, 2.5]


def test_text_in_a_column_of_numbers_is_a_fault_of_the_cell(tmp_path):
    path = write(tmp_path, "a.csv", "a\n1\n2\noops\n4\n")
    (fault,) = faults_of(path)
    assert (fault.kind, fault.line, fault.column) == ("not-a-number", 4, "a")
    assert read(path, repair="not-a-number").table.column("a").to_pylist() == [1, 2, None, 4]


def test_one_number_among_words_is_no_fault(tmp_path):
    assert read(write(tmp_path, "a.csv", "a\nx\ny\n7\n")).table.column("a").to_pylist() == ["x", "y", "7"]


def test_bad_bytes_are_named_with_the_line_and_the_way_out(tmp_path):
    path = write(tmp_path, "a.csv", b"a,b\nx,1\n\xe9t\xe9,2\n")
    (fault,) = faults_of(path)
    assert (fault.kind, fault.line) == ("bad-bytes", 3)
    assert read(path, encoding="latin-1").table.column("a").to_pylist() == ["x", "été"]


def test_a_byte_order_mark_is_taken_away_and_listed(tmp_path):
    reading = read(write(tmp_path, "a.csv", b"\xef\xbb\xbfa,b\n1,2\n"))
    assert reading.table.column_names == ["a", "b"]
    assert [repair.kind for repair in reading.repairs] == ["byte-order-mark"]


@pytest.mark.parametrize("text", ["", "  \n\n", "a,b\n"])
def test_an_empty_file_is_an_error(tmp_path, text):
    assert [fault.kind for fault in faults_of(write(tmp_path, "a.csv", text))] == ["empty-file"]


def test_duplicate_and_missing_columns_are_errors(tmp_path):
    assert faults_of(write(tmp_path, "a.csv", "a,a\n1,2\n"))[0].kind == "duplicate-column"
    (fault,) = faults_of(write(tmp_path, "b.csv", "a,b\n1,2\n"), columns=["a", "c", "d"])
    assert fault.kind == "missing-column"
    assert "'c', 'd'" in fault.expected


def test_faults_of_all_files_of_a_folder_come_together(tmp_path):
    write(tmp_path, "x/a.csv", "a,b\n1,2\n")
    write(tmp_path, "x/b.csv", "a,b\n1\n")
    write(tmp_path, "x/c.csv", "")
    write(tmp_path, "x/d.csv", "a,c\n1,2\n")
    write(tmp_path, "x/e.csv", "a,b\n3,4\n")
    faults = faults_of(tmp_path / "x")
    assert {(fault.file, fault.kind) for fault in faults} == {
        ("b.csv", "ragged-row"),
        ("c.csv", "empty-file"),
        ("d.csv", "missing-column"),
    }


def test_a_folder_keeps_the_name_of_each_rows_file(tmp_path):
    write(tmp_path, "x/a.csv", "a\n1\n2\n")
    write(tmp_path, "x/b.csv", "a\n3.5\n")
    table = read(tmp_path / "x").table
    assert table.to_pydict() == {"a": [1.0, 2.0, 3.5], "file": ["a.csv", "a.csv", "b.csv"]}


def test_a_file_whose_kind_of_column_differs_is_named(tmp_path):
    for name in "abc":
        write(tmp_path, f"x/{name}.csv", "a\n1\n")
    write(tmp_path, "x/d.csv", "a\nword\n")
    (fault,) = faults_of(tmp_path / "x")
    assert (fault.file, fault.kind, fault.column) == ("d.csv", "bad-type", "a")


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "b": "x"}\n{"a": 2, "b": "y"}\n',
        '[{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]',
        '{"a": [1, 2], "b": ["x", "y"]}',
    ],
)
def test_json_comes_in_three_shapes(tmp_path, text):
    assert read(write(tmp_path, "a.json", text)).table.to_pydict() == {"a": [1, 2], "b": ["x", "y"]}


def test_json_lines_faults_name_their_lines(tmp_path):
    text = '{"a": 1}\n{"a": 2, "a": 3}\n{"a": \n7\n{"a": 4}\n'
    faults = faults_of(write(tmp_path, "a.jsonl", text))
    assert sorted((fault.kind, fault.line) for fault in faults) == [
        ("bad-json", 3),
        ("bad-json", 4),
        ("duplicate-column", 2),
    ]


def test_json_types_and_keys_that_differ_are_named(tmp_path):
    (fault,) = faults_of(write(tmp_path, "a.jsonl", '{"a": 1}\n{"a": 2}\n{"a": "x"}\n'))
    assert (fault.kind, fault.line, fault.column) == ("bad-type", 3, "a")
    path = write(tmp_path, "b.jsonl", '{"a": 1, "b": 2}\n{"a": 2}\n')
    assert [(f.kind, f.line) for f in faults_of(path)] == [("missing-key", 2)]
    reading = read(path, repair="missing-key")
    assert reading.table.column("b").to_pylist() == [2, None]
    assert reading.repairs[0].count == 1


TS = "#note\n@problemName P\n@timeStamps false\n@missing false\n@univariate false\n@dimensions 2\n"
TS += "@classLabel true a b\n@data\n"


def test_ts_files_keep_variable_lengths(tmp_path):
    table = read(write(tmp_path, "p.ts", TS + "1,2,3:4,5,6:a\n7:8:b\n")).table
    assert table.column("dim_1").to_pylist() == [[4.0, 5.0, 6.0], [8.0]]
    assert table.column("label").to_pylist() == ["a", "b"]


def test_ts_faults_come_all_at_once(tmp_path):
    faults = faults_of(write(tmp_path, "p.ts", TS + "1,2:3,4:c\n1:2:3:a\n1,2:3:a\n1,x:2,3:b\n?:1:a\n"))
    assert [(fault.kind, fault.line) for fault in faults] == [
        ("bad-label", 9),
        ("ragged-row", 10),
        ("ragged-row", 11),
        ("not-a-number", 12),
        ("ragged-row", 12),
        ("missing-value", 13),
    ]


def test_parquet_round_trip_and_a_broken_file(tmp_path):
    table = pa.table({"a": pa.array([1, None, 2**62 + 1]), "b": ["x", "y", None]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet").table.equals(table)
    (tmp_path / "b.parquet").write_bytes(b"PAR1 nonsense")
    assert faults_of(tmp_path / "b.parquet")[0].kind == "bad-bytes"


def test_pandas_index_with_information_becomes_a_column():
    frame = pd.DataFrame({"a": [1, 2]}, index=pd.Index(["p", "q"], name="entity"))
    assert from_memory(frame).to_pydict() == {"entity": ["p", "q"], "a": [1, 2]}
    assert from_memory(pd.DataFrame({"a": [1, 2]})).column_names == ["a"]


STAMPED = "@problemName P\n@timeStamps true\n@missing true\n@univariate false\n@classLabel true a b\n@data\n"


def test_ts_times_are_kept_beside_the_values(tmp_path):
    path = tmp_path / "p.ts"
    path.write_text(STAMPED + "(0,1.5),(2.5,?):(0,3),(2.5,4):a\n(1,7):(1,8):b\n")
    table = read(path).table
    assert table.column_names == ["case", "time", "dim_0", "dim_1", "label"]
    assert table["time"].to_pylist() == [[0.0, 2.5], [1.0]]
    assert table["dim_1"].to_pylist() == [[3.0, 4.0], [8.0]]
    assert table["label"].to_pylist() == ["a", "b"]
    assert math.isnan(table["dim_0"].to_pylist()[0][1])


def test_ts_dates_may_hold_colons_and_differ_between_dimensions(tmp_path):
    path = tmp_path / "p.ts"
    path.write_text(STAMPED + "(2007-01-01 00:00:00,1),(2007-01-01 00:01:00,2):(2007-01-01 00:00:30,3):a\n")
    table = read(path).table
    assert table["time_0"].to_pylist()[0][1] == datetime.fromisoformat("2007-01-01 00:01:00")
    assert table["time_1"].to_pylist()[0] == [datetime.fromisoformat("2007-01-01 00:00:30")]
    assert table["dim_0"].to_pylist() == [[1.0, 2.0]]


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("(0,1),2:(0,3):a", "(time,value)"),
        ("(soon,1):(0,3):a", "soon"),
        ("(2007-01-01,1):(0,3):a", "the number '0' beside the date '2007-01-01'"),
        ("(nan,1):(0,3):a", "nan"),
        ("(2007-01-01 00:00:00,1):(2007-01-01 00:00:00+01:00,3):a", "zone"),
    ],
)
def test_ts_times_that_are_none_are_refused(tmp_path, case, said):
    path = tmp_path / "p.ts"
    path.write_text(STAMPED + case + "\n")
    with pytest.raises(DataError, match=re.escape(said)):
        read(path)


def test_numpy_keeps_nan_as_a_value_and_wants_two_axes():
    table = from_memory(np.array([[1.0, np.nan]]), names=["a", "b"])
    assert table.column("b").null_count == 0
    with pytest.raises(DataError, match="shape"):
        from_memory(np.zeros((2, 3, 4)))


def test_memory_faults_name_column_and_row():
    with pytest.raises(ReadError, match=r"str \(first in row 1\)"):
        from_memory(pd.DataFrame({"a": pd.Series([1, "x"], dtype=object)}))
    with pytest.raises(ReadError, match="lengths"):
        from_memory({"a": [1], "b": [1, 2]})
    with pytest.raises(ReadError, match="2 columns named"):
        from_memory(pd.DataFrame([[1, 2]], columns=["a", "a"]))


def test_unknown_suffix_path_and_repair_are_kind_errors(tmp_path):
    with pytest.raises(DataError, match="Expected one of"):
        read(write(tmp_path, "a.xls", "x"))
    with pytest.raises(DataError, match="Mind the name"):
        read(tmp_path / "nothing.csv")
    with pytest.raises(DataError, match="Expected kinds of repair that exist"):
        read(write(tmp_path, "a.csv", "a\n1\n"), repair="everything")


NUMBERS = st.one_of(st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False, width=64))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(NUMBERS, st.text("abc é\"',;\n", min_size=1, max_size=6)), min_size=1, max_size=8))
def test_what_was_written_is_what_is_read(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("round") / "a.csv"
    frame = pd.DataFrame({"n": [float(n) for n, _ in rows], "s": ["w" + s for _, s in rows]})
    frame.to_csv(path, index=False, lineterminator="\n")
    table = read(path).table
    assert table.num_rows == len(rows)
    assert np.allclose(table.column("n").to_numpy().astype(float), frame["n"], rtol=1e-15, atol=0)
    assert table.column("s").to_pylist() == frame["s"].tolist()
    lines = path.with_suffix(".jsonl")
    lines.write_text("\n".join(json.dumps(row) for row in frame.to_dict("records")))
    assert read(lines).table.column("s").to_pylist() == frame["s"].tolist()


def test_rows_that_are_too_short_and_too_long_are_told_apart(tmp_path):
    faults = faults_of(write(tmp_path, "a.csv", "a,b\n1,2\n3\n4\n5,6,7\n8,9\n"))
    assert [(f.received, f.line, f.last_line) for f in faults] == [("1 cell", 3, 4), ("3 cells", 5, None)]
