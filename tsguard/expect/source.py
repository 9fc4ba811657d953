"""Data in any of its forms, read as a stream of Arrow record batches.

A source knows its schema before the first batch, says whether it can be read again, and whether its batches are slices
of memory that exists anyway (then keeping one costs nothing). A pandas frame is kept beside its Arrow form, because
stock Great Expectations must see the very frame that was given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.dataset as pads

from tsguard.errors import DataError, explain

if TYPE_CHECKING:
    import pandas as pd

BATCH_ROWS = 1 << 16
"""Rows per batch: eight bytes each stay within a second-level cache, and the cost per batch is spread thin."""
SUFFIXES = {".parquet": "parquet", ".pq": "parquet", ".arrow": "ipc", ".feather": "feather", ".ipc": "ipc"}


@dataclass
class Source:
    schema: pa.Schema
    read: Callable[[Sequence[str] | None], Iterator[pa.RecordBatch]] = field(repr=False)
    replayable: bool
    resident: bool
    frame: pd.DataFrame | None = field(default=None, repr=False)
    unfaithful: frozenset[str] = frozenset()  # columns whose pandas type does not survive Arrow
    opaque: str = ""  # why Arrow cannot hold the data at all; then only `frame` is there

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Record batches of at most BATCH_ROWS rows, in order."""
        for batch in self.read(columns):
            for start in range(0, batch.num_rows, BATCH_ROWS):
                yield batch.slice(start, BATCH_ROWS)


def open_source(data: Any) -> Source:
    """Whatever was given, as a Source; a DataError says what could have been given."""
    if isinstance(data, Source):
        return data
    if isinstance(data, pa.Table):
        return _table(data)
    if isinstance(data, pa.RecordBatch):
        return _table(pa.Table.from_batches([data]))
    if isinstance(data, pa.RecordBatchReader):
        return _reader(data)
    if isinstance(data, pads.Dataset):
        return _dataset(data)
    if isinstance(data, str | Path):
        return _dataset(_open_path(Path(data)))
    if type(data).__module__.partition(".")[0] == "pandas" and hasattr(data, "columns"):
        return _frame(data)
    if isinstance(data, Mapping):
        return _table(pa.table(dict(data)))
    if hasattr(data, "__arrow_c_stream__"):
        return _reader(pa.RecordBatchReader.from_stream(data))
    if isinstance(data, Iterable):
        return _iterable(data)
    raise _unusable(data)


def _unusable(data: Any) -> DataError:
    return DataError(
        explain(
            "tsguard.expect.validate(data=…)",
            received=type(data).__name__,
            expected="a pyarrow Table, RecordBatch, reader or dataset, an iterable of these, a pandas DataFrame, "
            "a mapping of columns, or the path of a Parquet or Arrow file or folder",
            todo="Read other files first, with the readers of tsguard.data.",
        )
    )


def _table(table: pa.Table) -> Source:
    if len(set(table.column_names)) < table.num_columns:
        return Source(
            table.schema,
            _never,
            replayable=True,
            resident=True,
            frame=table.to_pandas(),
            opaque="duplicate column names",
        )

    def read(columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        chosen = table if columns is None else table.select(list(columns))
        if not chosen.num_columns and table.num_rows:
            chosen = table.select(table.column_names[:1])
        yield from chosen.to_batches(max_chunksize=BATCH_ROWS)

    return Source(table.schema, read, replayable=True, resident=True)


def _reader(reader: pa.RecordBatchReader) -> Source:
    def read(columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        for batch in reader:
            yield _select(batch, columns)

    return Source(reader.schema, read, replayable=False, resident=False)


def _iterable(items: Iterable[Any]) -> Source:
    """Batches or tables one after another; a sequence can be read again, an iterator cannot."""
    replayable = isinstance(items, Sequence)
    iterator = iter(items)
    first = next(iterator, None)
    if first is None:
        raise DataError(
            explain(
                "tsguard.expect.validate(data=…)",
                received="an iterable without a single batch",
                expected="at least one RecordBatch, so that the schema is known",
                todo="Yield one batch of no rows if there are none.",
            )
        )
    if not isinstance(first, pa.RecordBatch | pa.Table):
        raise _unusable(first)
    schema = first.schema

    def read(columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        for number, item in enumerate(items if replayable else chain([first], iterator)):
            if not isinstance(item, pa.RecordBatch | pa.Table):
                raise _unusable(item)
            if not item.schema.equals(schema):
                raise DataError(
                    explain(
                        f"batch {number}",
                        received=f"schema {_short(item.schema)}",
                        expected=f"the schema of the first batch, {_short(schema)}",
                        todo="Cast the batches to one schema.",
                    )
                )
            for batch in [item] if isinstance(item, pa.RecordBatch) else item.to_batches():
                yield _select(batch, columns)

    return Source(schema, read, replayable=replayable, resident=replayable)


def _frame(frame: pd.DataFrame) -> Source:
    plain = frame.reset_index(drop=True)
    if not frame.columns.is_unique or not all(isinstance(name, str) for name in frame.columns):
        return Source(
            pa.schema([]),
            _never,
            replayable=True,
            resident=True,
            frame=plain,
            opaque="column names that are not unique strings",
        )
    try:
        table = pa.Table.from_pandas(plain, preserve_index=False).replace_schema_metadata(None)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError) as error:
        return Source(
            pa.schema([]),
            _never,
            replayable=True,
            resident=True,
            frame=plain,
            opaque=f"a column that Arrow cannot hold ({error})",
        )
    back = table.schema.empty_table().to_pandas().dtypes
    unfaithful = frozenset(name for name in plain.columns if back[name] != plain.dtypes[name])
    source = _table(table)
    source.frame, source.unfaithful = plain, unfaithful
    return source


def _open_path(path: Path) -> pads.Dataset:
    if path.is_dir():
        files = sorted(
            file for file in path.rglob("*") if file.suffix in SUFFIXES and not file.name.startswith((".", "_"))
        )
        kinds = {SUFFIXES[file.suffix] for file in files}
        if len(kinds) == 1:
            names = [str(file) for file in files]
            return _opened(
                path, lambda: pads.dataset(names, format=kinds.pop(), partitioning="hive", partition_base_dir=str(path))
            )
        received = "a folder with no such file" if not files else f"a folder that mixes {', '.join(sorted(kinds))}"
    elif path.is_file() and path.suffix in SUFFIXES:
        return _opened(path, lambda: pads.dataset(str(path), format=SUFFIXES[path.suffix]))
    else:
        received = "a file of another kind" if path.is_file() else "a path where nothing is"
    raise DataError(
        explain(
            str(path),
            received=received,
            expected="a file or folder of " + ", ".join(SUFFIXES),
            todo="Read other files first, with the readers of tsguard.data.",
        )
    )


def _opened(path: Path, make: Callable[[], pads.Dataset]) -> pads.Dataset:
    try:
        return make()
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(
            explain(
                str(path),
                received=f"bytes that cannot be read ({error})",
                expected="a whole file",
                todo="Write the file again.",
            )
        ) from error


def _dataset(dataset: pads.Dataset) -> Source:
    def read(columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        names = None if columns is None else list(columns)
        for piece in _pieces(dataset):
            yield from piece.to_table(schema=dataset.schema, columns=names).to_batches(max_chunksize=BATCH_ROWS)

    return Source(dataset.schema, read, replayable=True, resident=False)


def _pieces(dataset: pads.Dataset) -> Iterator[pads.Fragment]:
    """Row group by row group: a scanner reads ahead, and its memory grows whenever we are slower than the disk."""
    for fragment in dataset.get_fragments():
        yield from fragment.split_by_row_group() if isinstance(fragment, pads.ParquetFileFragment) else [fragment]


def _never(columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
    raise AssertionError("an opaque source has no batches")


def _select(batch: pa.RecordBatch, columns: Sequence[str] | None) -> pa.RecordBatch:
    if columns is None or not len(columns):
        return batch
    return batch.select(list(columns))


def _short(schema: pa.Schema) -> str:
    return "{" + ", ".join(f"{entry.name}: {entry.type}" for entry in schema) + "}"
