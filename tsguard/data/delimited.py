"""Delimited text into Arrow: fast when the file is sound, exact about every line when it is not.

Arrow's own CSV parser reads a sound file in one pass. Only when that pass raises a suspicion is the text walked again
line by line, to say which lines are at fault and to mend those that the caller allowed to be mended.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from tsguard.data.reading import Fault, ReadError, Reading, Repair, check_repairs, merge_lines

NULLS = ("", "NA", "NaN", "nan", "null", "NULL", "None", "N/A")
"""What stands for a missing value in text. A number such as −200 never does: the audit says so, no reader decides."""

MOSTLY_NUMBERS = 0.5
"""A column of text is meant to hold numbers when more than this share of its cells are numbers: the majority rules,
so that one mistyped cell is a fault of the cell, and one number among words is no fault at all."""

DELIMITERS = (",", ";", "\t", "|")
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_IS_NUMBER = re.compile(rf"^\s*(?:{_NUMBER}|[+-]?inf(?:inity)?)\s*$", re.IGNORECASE)
_IS_DECIMAL_COMMA = re.compile(r"^\s*[+-]?\d+,\d+\s*$")
_IS_BLANK_SEPARATED = re.compile(rf"^\s*{_NUMBER}(?:\s+{_NUMBER})+\s*$")
_COMMENT = re.compile(r"^\s*#\s*(?:columns?\s*:)?\s*", re.IGNORECASE)
_SHOWN = 60


@dataclass
class _Lines:
    """The rows of one file being judged: cells, the line each began at, and what was found."""

    file: str
    allowed: frozenset[str]
    names: list[str] = field(default_factory=list)
    header_line: int = 1
    rows: list[list[str | None]] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    repairs: Counter[tuple[str, str, str | None]] = field(default_factory=Counter)
    first_line: dict[tuple[str, str, str | None], int] = field(default_factory=dict)

    def repaired(self, kind: str, what: str, line: int, column: str | None = None) -> None:
        key = (kind, what, column)
        self.repairs[key] += 1
        self.first_line.setdefault(key, line)

    def fault(
        self, kind: str, received: str, expected: str, todo: str, line: int | None, column: str | None = None
    ) -> None:
        if kind in ("delimiter", "comment-header", "decimal-comma", "ragged-row", "unnamed-column", "not-a-number"):
            todo += f" Or allow it: repair={kind!r}."
        self.faults.append(Fault(kind, self.file, received, expected, todo, line=line, column=column))

    def listed_repairs(self) -> list[Repair]:
        return [
            Repair(kind, self.file, what, line=self.first_line[(kind, what, column)], column=column, count=count)
            for (kind, what, column), count in self.repairs.items()
        ]


def read_delimited(
    path: str | Path,
    *,
    delimiter: str = ",",
    decimal: str = ".",
    encoding: str = "utf-8",
    columns: tuple[str, ...] | None = None,
    repair: tuple[str, ...] | str = (),
    name: str | None = None,
) -> Reading:
    """One file of delimited text with a header. `columns` are those that must be there; others are kept as well."""
    allowed = check_repairs(repair)
    file = name or str(path)
    raw = Path(path).read_bytes()
    judged = _Lines(file, allowed)
    text = _decode(raw, encoding, judged)
    if not text.strip():
        judged.fault("empty-file", "an empty file", "a header and at least one row", "Fetch the file again.", None)
        raise ReadError(judged.faults)
    _walk(text, delimiter, judged, header_only=True)
    _judge_header(judged, delimiter)
    table = None if judged.faults else _fast(text, delimiter, decimal, judged)
    if table is None:
        _walk(text, delimiter, judged)
        if not judged.rows:
            where = judged.header_line
            judged.fault("empty-file", "a header and no rows", "at least one row", "Fetch the file again.", where)
        if judged.names:
            _judge_cells(judged, decimal)
        table = None if judged.faults else _to_table(judged, decimal)
    if table is not None and columns is not None:
        _judge_columns(table.column_names, columns, judged)
    if judged.faults or table is None:
        raise ReadError(merge_lines(judged.faults))
    return Reading(table, file, tuple(judged.listed_repairs()))


def _decode(raw: bytes, encoding: str, judged: _Lines) -> str:
    if raw.startswith(b"\xef\xbb\xbf"):
        raw = raw[3:]
        judged.repaired("byte-order-mark", "a byte-order mark was taken away", 1)
    if b"\x00" in raw:
        line = raw.count(b"\n", 0, raw.index(b"\x00")) + 1
        judged.fault(
            "bad-bytes", "a NUL byte", f"{encoding} text", "Is this a binary, UTF-16 or cut-off file? Convert it.", line
        )
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError:
        for number, part in enumerate(raw.split(b"\n"), start=1):
            try:
                part.decode(encoding)
            except UnicodeDecodeError as error:
                what = f"the bytes {part[error.start : error.end]!r} at position {error.start}"
                if "bad-bytes" in judged.allowed:
                    judged.repaired("bad-bytes", "bytes that are no text were replaced by U+FFFD", number)
                else:
                    todo = "Save the file as UTF-8 or pass encoding= (for example 'latin-1')."
                    todo += " Or allow it: repair='bad-bytes'."
                    judged.faults.append(Fault("bad-bytes", judged.file, what, f"{encoding} text", todo, line=number))
        return raw.decode(encoding, errors="replace")


def _fast(text: str, delimiter: str, decimal: str, judged: _Lines) -> pa.Table | None:
    """Arrow's table when nothing about the rows is suspicious, otherwise None."""
    if judged.header_line != 1 or any("\n" in name for name in judged.names):
        return None
    body = text.rstrip()
    if "\n\n" in body or "\n\r\n" in body:
        return None
    try:
        table = pacsv.read_csv(
            pa.BufferReader(text.encode()),
            read_options=pacsv.ReadOptions(column_names=judged.names, skip_rows=1),
            parse_options=pacsv.ParseOptions(delimiter=delimiter, newlines_in_values='"' in text),
            convert_options=pacsv.ConvertOptions(null_values=NULLS, decimal_point=decimal, strings_can_be_null=False),
        )
    except pa.ArrowInvalid:
        return None
    if table.num_rows == 0:
        return None
    for column in table.columns:
        if pa.types.is_string(column.type) and _suspicious(column):
            return None
    return table


def _suspicious(column: pa.ChunkedArray) -> bool:
    """Text that has numbers in it, in whole or in part: the walk line by line decides."""
    numeric = pc.match_substring_regex(column, rf"^\s*{_NUMBER}([\s,]+{_NUMBER})*\s*$")
    return bool(pc.any(numeric).as_py())


def _walk(text: str, delimiter: str, judged: _Lines, *, header_only: bool = False) -> None:
    """The header, or every row after it, each with the line that it begins at."""
    reader = csv.reader(io.StringIO(text), delimiter=delimiter)
    end = len(text.rstrip().split("\n"))
    before = 0
    for cells in reader:
        line, before = before + 1, reader.line_num
        if not cells or (len(cells) == 1 and not cells[0].strip()):
            if line <= end and not header_only:
                judged.repaired("blank-line", "a blank line was passed over", line)
            continue
        if header_only:
            judged.names, judged.header_line = cells, line
            return
        if line != judged.header_line:
            judged.rows.append(list(cells))
            judged.lines.append(line)


def _judge_header(judged: _Lines, delimiter: str) -> None:
    header, line = judged.names, judged.header_line
    judged.names = []
    if len(header) == 1:
        for other in (*DELIMITERS, " "):
            parts = header[0].split() if other == " " else header[0].split(other)
            if other != delimiter and len(parts) > 1:
                received = f"a header that {other!r} splits into {len(parts)} columns"
                todo = f"Pass delimiter={other!r}." if other != " " else "Save the file with commas."
                judged.faults.append(
                    Fault("delimiter", judged.file, received, f"columns separated by {delimiter!r}", todo, line=line)
                )
                return
    if any(_COMMENT.match(cell) for cell in header):
        if "comment-header" in judged.allowed:
            judged.repaired("comment-header", "the comment mark in the header was taken away", line)
        else:
            received = f"a comment as header: {delimiter.join(header)[:_SHOWN]!r}"
            todo = "Take the '#' away."
            judged.fault("comment-header", received, "a header of column names", todo, line)
    names = [_COMMENT.sub("", cell).strip() for cell in header]
    for position, cell in enumerate(names):
        if cell:
            continue
        if "unnamed-column" in judged.allowed:
            names[position] = f"column_{position}"
            judged.repaired("unnamed-column", f"a column without a name is now {names[position]!r}", line)
        else:
            received = f"no name for column {position + 1} of {len(names)}"
            judged.fault("unnamed-column", received, "a name for every column", "Name it.", line)
    for cell, count in Counter(name for name in names if name).items():
        if count > 1:
            received, expected = f"{count} columns named {cell!r}", "every name once"
            judged.fault("duplicate-column", received, expected, "Rename or remove one.", line, cell)
    judged.names = names


def _judge_cells(judged: _Lines, decimal: str) -> None:
    width = len(judged.names)
    kept: list[list[str | None]] = []
    lines: list[int] = []
    for cells, line in zip(judged.rows, judged.lines, strict=True):
        if len(cells) != width:
            if "ragged-row" not in judged.allowed:
                received, expected = f"{len(cells)} cell{'s' * (len(cells) != 1)}", f"{width}, as in the header"
                judged.fault("ragged-row", received, expected, "Mend the row.", line)
            elif len(cells) < width:
                judged.repaired("ragged-row", "a short row was filled with nulls", line)
                kept.append(cells + [None] * (width - len(cells)))
                lines.append(line)
            else:
                judged.repaired("ragged-row", f"a row was left out: {len(cells)} cells for {width} columns", line)
            continue
        kept.append(_spread(cells, judged, line))
        lines.append(line)
    judged.rows, judged.lines = kept, lines
    for position, column in enumerate(judged.names):
        _judge_column(judged, position, column, decimal)


def _spread(cells: list[str | None], judged: _Lines, line: int) -> list[str | None]:
    """Blank-separated numbers in one cell: spread over the empty cells that follow if they fit there exactly."""
    for position, cell in enumerate(cells):
        if cell is None or not _IS_BLANK_SEPARATED.match(cell):
            continue
        parts = cell.split()
        room = cells[position + 1 : position + len(parts)]
        fits = len(room) == len(parts) - 1 and not any(room)
        if not fits:
            continue
        column = judged.names[position]
        if "delimiter" in judged.allowed:
            judged.repaired("delimiter", f"{len(parts)} blank-separated numbers were spread over the columns", line)
            return [*cells[:position], *parts, *cells[position + len(parts) :]]
        received = f"{len(parts)} numbers separated by blanks in one cell"
        judged.fault("delimiter", received, "one number in each cell", "Save the file with commas.", line, column)
        return [*cells[:position], *([None] * len(parts)), *cells[position + len(parts) :]]
    return cells


def _judge_column(judged: _Lines, position: int, column: str, decimal: str) -> None:
    cells = [row[position] for row in judged.rows]
    filled = [cell for cell in cells if cell is not None and cell not in NULLS]
    if not filled:
        return
    commas = 0 if decimal == "," else sum(1 for cell in filled if _IS_DECIMAL_COMMA.match(cell))
    numbers = sum(1 for cell in filled if _IS_NUMBER.match(cell.replace(",", ".") if decimal == "," else cell))
    if (numbers + commas) / len(filled) <= MOSTLY_NUMBERS or numbers + commas == 0:
        return
    for row, line in zip(judged.rows, judged.lines, strict=True):
        cell = row[position]
        if cell is None or cell in NULLS or _IS_NUMBER.match(cell.replace(",", ".") if decimal == "," else cell):
            continue
        if _IS_DECIMAL_COMMA.match(cell) and decimal != ",":
            if "decimal-comma" in judged.allowed:
                judged.repaired("decimal-comma", "a decimal comma was read as a point", line, column)
                row[position] = cell.replace(",", ".")
            else:
                todo = "Pass decimal=','."
                judged.fault("decimal-comma", f"the decimal comma {cell!r}", "a decimal point", todo, line, column)
        elif "not-a-number" in judged.allowed:
            judged.repaired("not-a-number", "text in a column of numbers became null", line, column)
            row[position] = None
        else:
            received, expected = f"the text {cell[:_SHOWN]!r}", "a number, like the rest of the column"
            judged.fault("not-a-number", received, expected, "Mend the cell.", line, column)


def _to_table(judged: _Lines, decimal: str) -> pa.Table:
    """Rows that were judged sound, typed by Arrow's own inference."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, quoting=csv.QUOTE_MINIMAL, lineterminator="\n")
    writer.writerow(judged.names)
    writer.writerows([["" if cell is None else cell for cell in row] for row in judged.rows])
    return pacsv.read_csv(
        pa.BufferReader(buffer.getvalue().encode()),
        parse_options=pacsv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
        convert_options=pacsv.ConvertOptions(null_values=NULLS, decimal_point=decimal, strings_can_be_null=False),
    )


def _judge_columns(present: list[str], wanted: tuple[str, ...], judged: _Lines) -> None:
    missing = [column for column in wanted if column not in present]
    if missing:
        received = f"columns {', '.join(map(repr, present))}"
        expected = f"also {', '.join(map(repr, missing))}"
        judged.fault("missing-column", received, expected, "Mind upper and lower case, and the delimiter.", 1)
