"""The `.ts` text format of the UEA/UCR archive into Arrow: a row for a case, a list column for a dimension, a label.

With `@timeStamps true` a dimension is written as `(time,value),(time,value)`; times are numbers or dates. One column
`time` holds them where all dimensions of every case have the same, else `time_0` … beside `dim_0` ….
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from math import isfinite
from pathlib import Path

import pyarrow as pa

from tsguard.data.reading import Fault, ReadError, Reading, merge_lines


@dataclass
class _Header:
    dimensions: int | None = None
    labels: tuple[str, ...] | None = None
    has_label: bool = False
    equal_length: bool = False
    missing: bool = True
    timestamps: bool = False
    data_line: int | None = None
    seen: dict[str, str] = field(default_factory=dict)


def read_ts(path: str | Path, *, name: str | None = None) -> Reading:
    """A `.ts` file: columns `case`, `dim_0` … `dim_{D−1}` (lists of float64), their times if any, and `label`."""
    file = name or str(path)
    faults: list[Fault] = []
    try:
        lines = Path(path).read_bytes().decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        todo = "Save the file as UTF-8."
        raise ReadError([Fault("bad-bytes", file, f"no text at byte {error.start}", "UTF-8", todo)]) from None
    if not any(line.strip() for line in lines):
        raise ReadError([Fault("empty-file", file, "an empty file", "a .ts header and cases", "Fetch it again.")])
    header = _read_header(lines, file, faults)
    if header.data_line is None:
        raise ReadError([*faults, Fault("bad-header", file, "no @data line", "@data before the cases", "Add it.")])
    cases: list[_Case] = []
    labels: list[str] = []
    for number, line in enumerate(lines[header.data_line :], start=header.data_line + 1):
        if line.strip() and not line.lstrip().startswith(("#", "%")):
            _read_case(line, number, file, header, cases, labels, faults)
    if not cases and not faults:
        faults.append(Fault("empty-file", file, "no cases after @data", "at least one", "Fetch the file again."))
    if faults:
        raise ReadError(merge_lines(faults))
    columns: dict[str, pa.Array] = {"case": pa.array(range(len(cases)), pa.int64())}
    if header.timestamps:
        columns |= _time_columns(cases, file)
    for dimension in range(len(cases[0].values)):
        columns[f"dim_{dimension}"] = pa.array([case.values[dimension] for case in cases], pa.list_(pa.float64()))
    if header.has_label:
        columns["label"] = pa.array(labels)
    return Reading(pa.table(columns), file)


def _read_header(lines: list[str], file: str, faults: list[Fault]) -> _Header:
    header = _Header()
    for number, raw in enumerate(lines, start=1):
        line = raw.strip()
        if not line or line.startswith(("#", "%")):
            continue
        if not line.startswith("@"):
            received = f"{line[:40]!r} before @data"
            faults.append(Fault("bad-header", file, received, "lines that begin with @ or #", "Mend it.", number))
            return header
        key, _, rest = line[1:].partition(" ")
        key, words = key.lower(), rest.split()
        if key == "data":
            header.data_line = number
            return header
        if key in header.seen:
            faults.append(Fault("bad-header", file, f"@{key} twice", "every key once", "Remove one.", number))
        header.seen[key] = rest
        if key == "dimensions" and (not words or not words[0].isdigit()):
            faults.append(Fault("bad-header", file, f"@dimensions {rest!r}", "a whole number", "Mend it.", number))
        elif key == "dimensions":
            header.dimensions = int(words[0])
        elif key == "univariate" and words[:1] == ["true"]:
            header.dimensions = 1
        elif key == "equallength":
            header.equal_length = words[:1] == ["true"]
        elif key == "missing":
            header.missing = words[:1] == ["true"]
        elif key == "timestamps":
            header.timestamps = words[:1] == ["true"]
        elif key in ("classlabel", "targetlabel"):
            header.has_label = words[:1] == ["true"]
            header.labels = tuple(words[1:]) or None
    return header


@dataclass
class _Case:
    """A list for each dimension."""

    values: list[list[float]] = field(default_factory=list)
    times: list[list[str]] = field(default_factory=list)


STAMPED = re.compile(r"\s*\(([^()]*),([^(),]*)\)\s*(?:,|$)")
"""One `(time,value)`; a date may hold colons, and a comma before its own time of day."""

BETWEEN_DIMENSIONS = re.compile(r":(?![^()]*\))")
"""A colon that no parentheses hold."""


def _read_case(
    line: str,
    number: int,
    file: str,
    header: _Header,
    cases: list[_Case],
    labels: list[str],
    faults: list[Fault],
) -> None:
    def fault(kind: str, received: str, expected: str, column: str | None = None) -> None:
        faults.append(Fault(kind, file, received, expected, "Mend the case.", number, column=column))

    parts = BETWEEN_DIMENSIONS.split(line.strip())
    label = parts.pop().strip() if header.has_label else ""
    if header.has_label and header.labels is not None and label not in header.labels:
        fault("bad-label", f"the label {label[:40]!r}", f"one of {', '.join(header.labels)}")
    wanted = header.dimensions if header.dimensions is not None else (len(cases[0].values) if cases else len(parts))
    if len(parts) != wanted:
        fault("ragged-row", f"{len(parts)} dimensions", f"{wanted}, as the header says")
        return
    case = _Case()
    for dimension, part in enumerate(parts):
        cells = part.split(",")
        if header.timestamps:
            pairs = STAMPED.findall(part)
            if STAMPED.sub("", part).strip() or not pairs:
                fault("ragged-row", f"{part.strip()[:40]!r}", "(time,value),(time,value)…", f"dim_{dimension}")
                continue
            case.times.append([time.strip() for time, _ in pairs])
            cells = [value for _, value in pairs]
        values: list[float] = []
        for cell in cells:
            if cell.strip() == "?":
                if not header.missing:
                    fault("missing-value", "'?' though the header says @missing false", "a number", f"dim_{dimension}")
                values.append(float("nan"))
                continue
            try:
                values.append(float(cell))
            except ValueError:
                fault("not-a-number", f"the text {cell.strip()[:40]!r}", "a number", f"dim_{dimension}")
        case.values.append(values)
    lengths = [len(values) for values in case.values]
    if len(set(lengths)) > 1 and not header.timestamps:
        fault("ragged-row", f"dimensions of lengths {lengths}", "one length in a case")
    if header.equal_length and cases and case.values and lengths[0] != len(cases[0].values[0]):
        fault("ragged-row", f"length {lengths[0]}", f"{len(cases[0].values[0])}: the header says @equalLength true")
    cases.append(case)
    labels.append(label)


def _time_columns(cases: list[_Case], file: str) -> dict[str, pa.Array]:
    """The times: numbers if all are, else dates."""
    texts = {text for case in cases for times in case.times for text in times}
    known, kind = _times_of(texts, file)
    shared = all(times == case.times[0] for case in cases for times in case.times)
    return {
        "time" if shared else f"time_{dimension}": pa.array(
            [[known[text] for text in case.times[dimension]] for case in cases], pa.list_(kind)
        )
        for dimension in range(1 if shared else len(cases[0].times))
    }


def _times_of(texts: set[str], file: str) -> tuple[dict[str, float | datetime], pa.DataType]:
    """What each text means, and the type of them all: numbers, dates, or dates that all name their zone."""
    numbers: dict[str, float | datetime] = {}
    dates: dict[str, float | datetime] = {}
    zones = set()
    for text in sorted(texts):
        if (number := _number(text)) is not None:
            numbers[text] = number
        elif (date := _date(text)) is not None:
            dates[text] = date
            zones.add(date.tzinfo is not None)
        else:
            raise _no_time(f"the time {text[:40]!r}", file)
    if numbers and dates:
        raise _no_time(f"the number {next(iter(numbers))!r} beside the date {next(iter(dates))!r}", file)
    if len(zones) > 1:
        raise _no_time("dates with and without a zone", file)
    if numbers:
        return numbers, pa.float64()
    return dates, pa.timestamp("us", tz="UTC" if zones == {True} else None)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if isfinite(number) else None


def _date(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _no_time(received: str, file: str) -> ReadError:
    todo = "Write all times of the file as finite numbers, or all as 2007-01-31 12:30:00."
    return ReadError([Fault("not-a-time", file, received, "one form of time throughout", todo)])
