"""The four ways in: Parquet, CSV, JSON and `.ts`, files or folders, and what is already in memory. All become Arrow.

`read` takes any of them. Files of a folder are read one after another, and the faults of all of them are raised
together, so that one look shows everything that has to be mended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tsguard.data.delimited import read_delimited
from tsguard.data.reading import Fault, ReadError, Reading, Repair
from tsguard.data.records import read_records
from tsguard.data.tsformat import read_ts
from tsguard.errors import DataError

SUFFIXES = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".txt": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".ts": "ts",
}
"""Which reader a file's name asks for."""


def read(
    source: Any,
    *,
    columns: Sequence[str] | None = None,
    repair: Sequence[str] | str = (),
    names: Sequence[str] | None = None,
    delimiter: str | None = None,
    decimal: str = ".",
    encoding: str = "utf-8",
    pattern: str = "**/*",
) -> Reading:
    """Any source as one Arrow table with the list of repairs, or a `ReadError` that holds every fault of every file.

    `columns` are columns that must be there, `names` name the columns of a bare numpy array, `repair` allows kinds of
    mending by name (see `reading.REPAIRS`), `pattern` chooses the files of a folder.
    """
    if isinstance(source, Reading):
        return source
    wanted = tuple(columns) if columns is not None else None
    if isinstance(source, (str, Path)):
        path = Path(source)
        options: dict[str, Any] = {"delimiter": delimiter, "decimal": decimal, "encoding": encoding}
        if path.is_dir():
            return _read_folder(path, wanted, repair, pattern, options)
        if not path.exists():
            raise DataError(f"{path}: received a path to nothing. Expected a file or a folder. Mind the name.")
        return _read_file(path, str(path), wanted, repair, options)
    reading = Reading(from_memory(source, names=names), type(source).__name__)
    missing = [column for column in wanted or () if column not in reading.table.column_names]
    if missing:
        present = ", ".join(map(repr, reading.table.column_names))
        raise ReadError([Fault("missing-column", reading.source, f"columns {present}", f"also {missing}", "Add them.")])
    return reading


def _read_file(
    path: Path, name: str, columns: tuple[str, ...] | None, repair: Sequence[str] | str, options: Mapping[str, Any]
) -> Reading:
    allowed = (repair,) if isinstance(repair, str) else tuple(repair)
    kind = SUFFIXES.get(path.suffix.lower())
    if kind == "parquet":
        return _read_parquet(path, name, columns)
    if kind == "json":
        return read_records(path, columns=columns, repair=allowed, name=name)
    if kind == "ts":
        return read_ts(path, name=name)
    if kind == "csv":
        delimiter = options["delimiter"] or ("\t" if path.suffix.lower() == ".tsv" else ",")
        return read_delimited(
            path,
            delimiter=delimiter,
            decimal=options["decimal"],
            encoding=options["encoding"],
            columns=columns,
            repair=allowed,
            name=name,
        )
    raise DataError(
        f"{name}: received a file named *{path.suffix or ' (no suffix)'}. "
        f"Expected one of {', '.join(sorted(SUFFIXES))}. Rename it, or read it yourself and pass the table."
    )


def _read_parquet(path: Path, name: str, columns: tuple[str, ...] | None) -> Reading:
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        what = str(error).splitlines()[0]
        raise ReadError([Fault("bad-bytes", name, what, "a Parquet file", "Fetch or write the file again.")]) from error
    missing = [column for column in columns or () if column not in table.column_names]
    faults = _duplicates(table.column_names, name)
    if missing:
        present = ", ".join(map(repr, table.column_names))
        faults.append(Fault("missing-column", name, f"columns {present}", f"also {missing}", "Mind the spelling."))
    if faults:
        raise ReadError(faults)
    return Reading(table, name)


def _read_folder(
    folder: Path,
    columns: tuple[str, ...] | None,
    repair: Sequence[str] | str,
    pattern: str,
    options: Mapping[str, Any],
) -> Reading:
    """Every file of a folder under each other, with a column `file` that says which row came from where."""
    found = (path for path in folder.glob(pattern) if path.is_file() and path.suffix.lower() in SUFFIXES)
    # a text file in a folder is a licence or a note unless the pattern asks for it by its suffix
    paths = sorted(path for path in found if path.suffix.lower() != ".txt" or pattern.endswith(".txt"))
    if not paths:
        expected = f"files that match {pattern!r} and end in one of {', '.join(sorted(SUFFIXES))}"
        raise DataError(f"{folder}: received no such file. Expected {expected}. Mind the folder.")
    faults: list[Fault] = []
    tables: list[tuple[str, pa.Table]] = []
    repairs: list[Repair] = []
    for path in paths:
        name = path.relative_to(folder).as_posix()
        try:
            reading = _read_file(path, name, columns, repair, options)
        except ReadError as error:
            faults.extend(error.faults)
            continue
        tables.append((name, reading.table))
        repairs.extend(reading.repairs)
    faults.extend(_differences(tables))
    if faults:
        raise ReadError(faults)
    labelled = [
        table if "file" in table.column_names else table.append_column("file", pa.array([name] * table.num_rows))
        for name, table in tables
    ]
    joined = pa.concat_tables(labelled, promote_options="permissive")
    return Reading(joined, str(folder), tuple(repairs))


def _differences(tables: Sequence[tuple[str, pa.Table]]) -> list[Fault]:
    """Files whose columns, or kinds of column, are not those of most files of the folder."""
    from collections import Counter

    if not tables:
        return []
    usual = Counter(tuple(table.column_names) for _, table in tables).most_common(1)[0][0]
    faults: list[Fault] = []
    for name, table in tables:
        present = tuple(table.column_names)
        if set(present) != set(usual):
            extra, missing = sorted(set(present) - set(usual)), sorted(set(usual) - set(present))
            received = f"columns with {extra} too many and {missing} missing"
            expected = f"{list(usual)}, as in most files"
            faults.append(Fault("missing-column", name, received, expected, "Mend the file or narrow the pattern."))
    for column in usual:
        kinds = {name: _kind(table.schema.field(column).type) for name, table in tables if column in table.column_names}
        common = Counter(kind for kind in kinds.values() if kind != "null").most_common(1)
        for name, kind in kinds.items():
            if common and kind not in ("null", common[0][0]):
                received, expected = f"{kind} values", f"{common[0][0]}, as in most files"
                faults.append(Fault("bad-type", name, received, expected, "Mend the file.", column=column))
    return faults


def _kind(dtype: pa.DataType) -> str:
    if pa.types.is_integer(dtype) or pa.types.is_floating(dtype) or pa.types.is_decimal(dtype):
        return "number"
    if pa.types.is_string(dtype) or pa.types.is_large_string(dtype) or pa.types.is_dictionary(dtype):
        return "text"
    if pa.types.is_null(dtype):
        return "null"
    return "time" if pa.types.is_temporal(dtype) else str(dtype)


def _duplicates(names: Sequence[Any], source: str) -> list[Fault]:
    from collections import Counter

    return [
        Fault("duplicate-column", source, f"{count} columns named {name!r}", "every name once", "Rename one.")
        for name, count in Counter(names).items()
        if count > 1
    ]


def from_memory(data: Any, *, names: Sequence[str] | None = None) -> pa.Table:
    """A pandas frame or series, an Arrow table or batch, a numpy array, or a mapping of columns, as an Arrow table."""
    if isinstance(data, pa.Table):
        _raise(_duplicates(data.column_names, "table"))
        return data
    if isinstance(data, pa.RecordBatch):
        return pa.Table.from_batches([data])
    if isinstance(data, np.ndarray):
        return _from_numpy(data, names)
    if isinstance(data, Mapping):
        lengths = {str(key): len(value) for key, value in data.items()}
        if len(set(lengths.values())) > 1:
            todo = "Cut or fill them to one length."
            raise ReadError([Fault("ragged-row", "mapping", f"columns of lengths {lengths}", "one length", todo)])
        return pa.table({str(key): _column(value, str(key)) for key, value in data.items()})
    if hasattr(data, "to_frame") and not hasattr(data, "columns"):
        data = data.to_frame()
    if hasattr(data, "columns") and hasattr(data, "iloc"):
        return _from_pandas(data)
    raise DataError(
        f"data: received {type(data).__name__}. Expected a path, a pandas frame, an Arrow table, a numpy array or a "
        "mapping of columns. Convert it to one of these."
    )


def _raise(faults: list[Fault]) -> None:
    if faults:
        raise ReadError(faults)


def _from_numpy(data: np.ndarray[Any, Any], names: Sequence[str] | None) -> pa.Table:
    if data.dtype.names:
        return pa.table({name: _column(data[name], name) for name in data.dtype.names})
    if data.ndim == 1:
        data = data[:, None]
    if data.ndim != 2:
        raise DataError(
            f"array: received shape {data.shape}. Expected (rows, columns). "
            "Arrays of windows or fields are not a table: pass them to the audit as they are."
        )
    if names is not None and len(names) != data.shape[1]:
        raise DataError(f"array: received {len(names)} names. Expected {data.shape[1]}, one a column. Mend `names`.")
    labels = [str(name) for name in names] if names is not None else [str(i) for i in range(data.shape[1])]
    _raise(_duplicates(labels, "array"))
    return pa.table({label: _column(data[:, i], label) for i, label in enumerate(labels)})


def _from_pandas(data: Any) -> pa.Table:
    columns = [str(column) for column in data.columns]
    _raise(_duplicates(columns, "frame"))
    index = data.index
    plain = index.name is None and type(index).__name__ == "RangeIndex"
    if not plain:
        data = data.reset_index()  # an index that carries information is a column like any other
        columns = [str(column) for column in data.columns]
        _raise(_duplicates(columns, "frame with its index"))
    return pa.table({name: _column(data.iloc[:, i], name) for i, name in enumerate(columns)})


def _column(values: Any, name: str) -> pa.Array:
    """One column; NaN stays NaN in numpy arrays, because there it is a value and not a missing one."""
    try:
        if isinstance(values, np.ma.MaskedArray):  # a masked cell is missing, whatever stands in it
            return pa.array(np.asarray(values.data), mask=np.ma.getmaskarray(values))
        if isinstance(values, np.ndarray):
            return pa.array(np.ascontiguousarray(values), from_pandas=False)
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        kinds: dict[str, int] = {}
        for row, value in enumerate(values):
            kinds.setdefault(type(value).__name__, row)
        received = ", ".join(f"{kind} (first in row {row})" for kind, row in kinds.items())
        fault = Fault("bad-type", "memory", f"{received}: {error}", "one kind of value", "Convert it.", column=name)
        raise ReadError([fault]) from error
