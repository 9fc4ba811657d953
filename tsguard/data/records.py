"""JSON and JSON lines into Arrow. Every record must have the same keys; what differs is named with its line."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa

from tsguard.data.reading import Fault, ReadError, Reading, Repair, check_repairs, merge_lines


class _DuplicateKeys(ValueError):
    pass


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    counts = Counter(key for key, _ in pairs)
    twice = [key for key, count in counts.items() if count > 1]
    if twice:
        raise _DuplicateKeys(f"the key {twice[0]!r} twice in one record")
    return dict(pairs)


def read_records(
    path: str | Path,
    *,
    columns: tuple[str, ...] | None = None,
    repair: tuple[str, ...] | str = (),
    name: str | None = None,
) -> Reading:
    """A JSON array of records, one object of columns, or one record a line."""
    allowed = check_repairs(repair)
    file = name or str(path)
    faults: list[Fault] = []
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ReadError(
            [Fault("bad-bytes", file, f"bytes that are no text at {error.start}", "UTF-8", "Save the file as UTF-8.")]
        ) from None
    if not text.strip():
        raise ReadError([Fault("empty-file", file, "an empty file", "at least one record", "Fetch the file again.")])
    records = _parse(text, file, faults)
    repairs: list[Repair] = []
    if not faults:
        records = _same_keys(records, file, allowed, faults, repairs)
    wanted = [column for column in columns or () if records and column not in records[0][1]]
    if wanted and not faults:
        received, expected = f"keys {', '.join(map(repr, records[0][1]))}", f"also {', '.join(map(repr, wanted))}"
        faults.append(Fault("missing-column", file, received, expected, "Mind upper and lower case.", records[0][0]))
    table = None if faults else _to_table(records, file, faults)
    if faults or table is None:
        raise ReadError(merge_lines(faults))
    return Reading(table, file, tuple(repairs))


def _parse(text: str, file: str, faults: list[Fault]) -> list[tuple[int, dict[str, Any]]]:
    """(line, record) for every record; several lines that are JSON by themselves are JSON lines."""
    lines = text.splitlines()
    try:
        whole = json.loads(text, object_pairs_hook=_unique_keys)
    except _DuplicateKeys as error:
        if text.lstrip().startswith("["):
            todo = "Remove one of the two."
            faults.append(Fault("duplicate-column", file, str(error), "every key once", todo))
            return []
        whole = None
    except json.JSONDecodeError as error:
        if text.lstrip().startswith("["):
            faults.append(
                Fault("bad-json", file, f"{error.msg} (column {error.colno})", "JSON", "Mend it.", error.lineno)
            )
            return []
        whole = None
    if isinstance(whole, list):
        return _objects(list(enumerate(whole, start=1)), file, faults, what="element")
    if isinstance(whole, dict) and whole and all(isinstance(value, list) for value in whole.values()):
        return _transposed(whole, file, faults)
    if isinstance(whole, dict):
        return [(1, whole)]
    if whole is not None:
        todo = "Write one object a line, or an array of objects."
        faults.append(Fault("bad-json", file, f"a bare {type(whole).__name__}", "records", todo, 1))
        return []
    parsed: list[tuple[int, Any]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            parsed.append((number, json.loads(line, object_pairs_hook=_unique_keys)))
        except _DuplicateKeys as error:
            faults.append(Fault("duplicate-column", file, str(error), "every key once", "Remove one.", number))
        except json.JSONDecodeError as error:
            what = f"{error.msg} at column {error.colno}"
            faults.append(Fault("bad-json", file, what, "one JSON object a line", "Mend the line.", number))
    return _objects(parsed, file, faults, what="line")


def _objects(parsed: list[tuple[int, Any]], file: str, faults: list[Fault], *, what: str) -> list[tuple[int, Any]]:
    for number, value in parsed:
        if not isinstance(value, dict):
            received = f"a {type(value).__name__} as {what} {number}"
            faults.append(Fault("bad-json", file, received, "an object of columns", "Mend it.", number))
    return parsed


def _transposed(whole: dict[str, list[Any]], file: str, faults: list[Fault]) -> list[tuple[int, dict[str, Any]]]:
    lengths = {key: len(value) for key, value in whole.items()}
    if len(set(lengths.values())) > 1:
        todo = "Fill the short ones."
        faults.append(Fault("ragged-row", file, f"columns of lengths {lengths}", "equal lengths", todo))
        return []
    rows = zip(*whole.values(), strict=True)
    return [(number, dict(zip(whole, row, strict=True))) for number, row in enumerate(rows, start=1)]


def _same_keys(
    records: list[tuple[int, dict[str, Any]]],
    file: str,
    allowed: frozenset[str],
    faults: list[Fault],
    repairs: list[Repair],
) -> list[tuple[int, dict[str, Any]]]:
    keys = list(dict.fromkeys(key for _, record in records for key in record))
    missing: Counter[str] = Counter()
    for number, record in records:
        absent = [key for key in keys if key not in record]
        if not absent:
            continue
        if "missing-key" in allowed:
            missing.update(absent)
        else:
            received = f"a record without {', '.join(map(repr, absent))}"
            todo = "Write null where there is no value. Or allow it: repair='missing-key'."
            faults.append(Fault("missing-key", file, received, "the same keys in every record", todo, number))
    repairs.extend(
        Repair("missing-key", file, "a missing key became null", column=key, count=count)
        for key, count in missing.items()
    )
    return [(number, {key: record.get(key) for key in keys}) for number, record in records]


def _to_table(records: list[tuple[int, dict[str, Any]]], file: str, faults: list[Fault]) -> pa.Table | None:
    columns: dict[str, pa.Array] = {}
    for key in records[0][1]:
        values = [record[key] for _, record in records]
        try:
            columns[key] = pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            kinds = Counter(type(value).__name__ for value in values if value is not None)
            usual = kinds.most_common(1)[0][0]
            odd = [(line, r[key]) for line, r in records if r[key] is not None and type(r[key]).__name__ != usual]
            if not odd:
                faults.append(Fault("bad-type", file, str(error), f"{usual} that Arrow holds", "Mend it.", column=key))
            for line, value in odd:
                received = f"{type(value).__name__} {str(value)[:60]!r}"
                expected = f"{usual}, like most of the column"
                faults.append(Fault("bad-type", file, received, expected, "Mend the value.", line, column=key))
    return None if faults else pa.table(columns)
