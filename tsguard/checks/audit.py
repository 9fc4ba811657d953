"""The audit: data in any form, judged by a suite of expectations, or by what holds of every sound array.

Tables are judged by Great Expectations through `tsguard.expect.validate`; arrays, windows and fields by probes. Both
end in findings with column, row and first offending values, and in the figures that a page draws.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pyarrow as pa

from tsguard import catalogue
from tsguard.checks.arrays import named_leaves
from tsguard.checks.registry import Context, all_checks
from tsguard.checks.runner import run_checks
from tsguard.checks.table import judge_table
from tsguard.data import sets
from tsguard.data.readers import read
from tsguard.data.reading import Reading
from tsguard.data.windows import Windows, as_time
from tsguard.dataset import Data
from tsguard.errors import DataError, explain
from tsguard.evidence import Evidence
from tsguard.expect.validation import require_engine
from tsguard.findings import Finding, Role, Status
from tsguard.probes.data import distribution, field_measures, missing_over_time

CODES = {
    "finite": "data-nonfinite",
    "not_be_null": "data-nonfinite",
    "sentinel": "data-sentinel",
    "not_be_in_set": "data-sentinel",
    "stuck_runs": "data-constant",
    "unique_value_count": "data-constant",
    "time_to_increase": "data-order",
    "interval": "data-order",
    "gaps": "data-order",
    "increasing": "data-order",
    "decreasing": "data-order",
    "unique": "data-order",
    "splits": "data-leak",
    "scaler": "data-leak",
    "class_shares": "data-imbalance",
    "drift": "data-drift",
    "float32": "data-precision",
    "type": "data-precision",
    "volume": "data-volume",
    "row_count": "data-volume",
    "column_count": "data-volume",
    "ranges_to_agree": "data-scale",
    "be_between": "data-scale",
    "greater_than": "data-scale",
}
"""Words in an expectation's type, and the code of the finding when it is not met; the first that fits. An expectation
may say its own in `meta: {"tsguard": {"code": …}}`."""

HARMLESS = frozenset({"byte-order-mark", "blank-line", "unnamed-column"})
"""Repairs that change no value: they are listed on the page and are no finding."""

UNASKED = ("unnamed-column",)
"""Repairs that nobody has to ask for: what `DataFrame.to_csv` writes for its index is no fault of the data."""

OTHERWISE = "data-labels"
"""Expectations on words, sets and patterns: the content is not encoded as was expected."""

PLACES = ("column", "column_list", "column_A", "column_B")
SHOWN_VALUES = 5
FIGURED_COLUMNS = 60
"""Columns that get a distribution on the page; more make no page that anybody reads."""
MEMORY_ROWS = 5_000_000
"""Parquet files up to this many rows are also read for the figures; larger ones are only streamed."""


@dataclass(frozen=True)
class Audit:
    """What an audit found out, for a Report to hold."""

    name: str
    findings: tuple[Finding, ...]
    figures: Mapping[str, Any] = field(default_factory=dict)
    """`distributions`, `missing` (over time), `expectations` (a row for each), `fields`, `repairs`."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    result: Any = None
    """The `ExpectationSuiteValidationResult`, where a suite judged."""


def audit_data(
    data: Any, suite: Any = None, engine: str = "arrow", *, declared: Mapping[str, Any] | None = None
) -> Audit:
    """Audit a table, a path, the name of a catalogued set, arrays, a dict of arrays, or Windows.

    Without a suite a catalogued set is judged by its own, and anything else by what holds of every sound array.
    """
    require_engine(engine)
    name = _name(data)
    if isinstance(data, str) and data in sets.SETS:
        suite = data if suite is None else suite
        data = sets.entry(data).load()
    if isinstance(data, Windows):
        return _audit_arrays(name, {"values": data.values}, data.time, declared or {})
    arrays = _as_arrays(data)
    if arrays is not None and suite is None:
        return _audit_arrays(name, arrays, None, declared or {})
    if arrays is not None:
        raise DataError(
            f"audit: received a suite for arrays of shape {[a.shape for a in arrays.values()]}. Expected a table for a "
            "suite. Leave the suite out, or pass a table."
        )
    if isinstance(data, str | Path) and Path(data).suffix.lower() in (".npy", ".npz"):
        return replace(audit_data(_loaded(Path(data)), suite, engine, declared=declared), name=name)
    if _is_large(data):
        return _judged(name, data, _suite(suite), engine, {}, (), None)
    reading = data if isinstance(data, Reading) else read(data, repair=UNASKED)
    plain = _plain_columns(reading.table)
    figures = _figures(plain, reading)
    repaired = tuple(_repaired(reading))
    if suite is None:
        findings = (*repaired, *_table_findings(reading.table, plain, declared or {}))
        return Audit(name, findings, figures, {"rows": float(reading.num_rows)})
    return _judged(name, reading.table, _suite(suite), engine, figures, repaired, reading)


def _name(data: Any) -> str:
    if isinstance(data, str | Path):
        return Path(data).stem or str(data)
    return Path(data.source).stem if isinstance(data, Reading) else type(data).__name__


def _as_arrays(data: Any) -> dict[str, Any] | None:
    """Arrays with more than two axes, or a dict that has one; None for what is a table."""
    if isinstance(data, np.ndarray):
        return {"x": data} if data.ndim > 2 else None
    if isinstance(data, Mapping):
        found = dict(named_leaves(data, "x"))
        return found if any(array.ndim > 1 for array in found.values()) else None
    if hasattr(data, "detach"):
        return {"x": np.asarray(data.detach().cpu())}
    return None


def _loaded(path: Path) -> Any:
    """What numpy saved: one array, or several by name. Pickled objects are code, and are refused."""
    try:
        held = np.load(path, allow_pickle=False)
        return held if isinstance(held, np.ndarray) else {key: held[key] for key in held.files}
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise DataError(
            explain(str(path), received=str(error), expected="arrays that numpy.save or numpy.savez wrote",
                    todo="Save plain numbers, without objects.")
        ) from None  # fmt: skip


def _is_large(data: Any) -> bool:
    """Parquet that is better streamed than held."""
    if not isinstance(data, str | Path):
        return not isinstance(data, Reading) and hasattr(data, "__next__")
    path = Path(data)
    files = [path] if path.is_file() else sorted(path.rglob("*.parquet")) if path.is_dir() else []
    if not files or any(file.suffix.lower() not in (".parquet", ".pq") for file in files):
        return False
    import pyarrow.parquet as pq

    try:
        return sum(int(pq.read_metadata(file).num_rows) for file in files) > MEMORY_ROWS
    except (pa.ArrowInvalid, OSError):  # no Parquet after all: the reader says so, of every file at once
        return False


def _suite(suite: Any) -> Any:
    """The suite, which data that are only streamed cannot do without."""
    if suite is None:
        raise DataError(
            "audit: received more rows than are held in memory and no suite. Expected a suite to stream them against. "
            "Pass suite=, or learn one from a sample with `--propose`."
        )
    return suite


# --- tables ----------------------------------------------------------------------------------------------------------


def _judged(
    name: str,
    data: Any,
    suite: Any,
    engine: str,
    figures: dict[str, Any],
    repaired: tuple[Finding, ...],
    reading: Reading | None,
) -> Audit:
    from tsguard.expect.validation import validate

    table = reading.table if reading is not None else None
    findings = [*repaired]
    if table is not None:
        fields = {name: table.column(name) for name in table.column_names if _is_field(table.schema.field(name).type)}
        for key, column in fields.items():
            array = column.combine_chunks().to_numpy_ndarray()
            found = field_measures(array)
            findings.extend(_field_findings(key, array, found, 1))
            figures = {**figures, "distributions": {**figures["distributions"], key: distribution(array)}}
        data = table.drop_columns(list(fields))
    result = validate(suite, data, engine=engine, result_format="SUMMARY")
    rows = []
    for answer in result.results:
        finding = _finding_of(answer, table)
        findings.append(finding)
        rows.append(
            {
                "expectation": answer.expectation_config.type,
                "column": finding.where.get("column", ""),
                "status": str(finding.status),
                "message": finding.message,
            }
        )
    unmet = sum(row["status"] == "FAIL" for row in rows)
    metrics = {"expectations": float(len(rows)), "unmet": float(unmet)}
    if reading is not None:
        metrics["rows"] = float(reading.num_rows)
    return Audit(name, tuple(findings), {**figures, "expectations": rows}, metrics, result)


def _is_field(kind: pa.DataType) -> bool:
    """An Arrow tensor: a frame in every row, judged as a field and not by GX."""
    return isinstance(kind, pa.FixedShapeTensorType)


def code_of(kind: str, meta: Mapping[str, Any] | None = None) -> str:
    """The code of the finding for an expectation of this type."""
    own = (meta or {}).get("tsguard")
    if isinstance(own, Mapping) and "code" in own:
        return str(own["code"])
    return next((code for word, code in CODES.items() if word in kind), OTHERWISE)


def _finding_of(answer: Any, table: pa.Table | None) -> Finding:
    config = answer.expectation_config
    kwargs = {key: value for key, value in config.kwargs.items() if key != "batch_id"}
    column = kwargs.get("column") or kwargs.get("column_A") or ", ".join(kwargs.get("column_list") or ()) or None
    code, place = code_of(config.type, config.meta), f"column {column!r}" if column else "the table"
    where = {"expectation": config.type, "column": column, "phase": "data"}
    crash = _crash(answer)
    if crash is not None:
        message = f"{config.type} on {place} could not be evaluated: {crash[0]}. It says nothing about the data."
        evidence = (Evidence("traceback", crash[1]),) if crash[1] else ()
        return Finding(code, Status.ERROR, Role.NOTE, message, where=where, evidence=evidence, check=config.type)
    if answer.success:
        return Finding(code, Status.PASS, Role.NOTE, f"{place}: {config.type} holds", where=where, check=config.type)
    result = dict(answer.result)
    details = dict(result.get("details") or {})
    count = result.get("unexpected_count", details.get("unexpected_count"))
    first = result.get("partial_unexpected_index_list") or details.get("partial_unexpected_index_list") or []
    first = [int(row) for row in first[:SHOWN_VALUES] if isinstance(row, int | np.integer)]
    values = result.get("partial_unexpected_list") or _values_at(table, column, first)
    said = (config.meta or {}).get("tsguard", {}).get("says", "") if isinstance(config.meta, Mapping) else ""
    message = _words(config.type, place, kwargs, count, result, details, first, values, said)
    facts = {"count": count, "rows": first, "values": [_jsonable(value) for value in values[:SHOWN_VALUES]]}
    facts.update(observed=_jsonable(result.get("observed_value")), details=_jsonable(details))
    where["row"] = first[0] if first else None
    return catalogue.finding(
        code,
        message,
        where=where,
        status="FAIL",
        evidence=[Evidence("value", facts, name=str(column or "table"))],
        check=config.type,
        score=0.8,
    )


def _words(
    kind: str,
    place: str,
    kwargs: Mapping[str, Any],
    count: Any,
    result: Mapping[str, Any],
    details: Mapping[str, Any],
    first: list[int],
    values: list[Any],
    said: str,
) -> str:
    asked = {
        key: value for key, value in kwargs.items() if key not in ("column", "column_list", "column_A", "column_B")
    }
    words = f"{place}: {said or kind.removeprefix('expect_').replace('_', ' ') + ' is not met'}"
    if count is not None:
        words += f"; {int(count):,} unexpected"
    observed = result.get("observed_value")
    if observed is not None and not isinstance(observed, dict | list):
        words += f", observed {observed:.6g}" if isinstance(observed, int | float) else f", observed {observed}"
    if details.get("sentinels"):
        words += "; " + ", ".join(f"{one['value']:g} stands in {one['count']:,} rows" for one in details["sentinels"])
    if details.get("runs"):
        run = details["runs"][0]
        words += f"; the longest is {run['length']} rows from row {run['row']} at {run['value']!r}"
    if details.get("shared"):
        words += f"; shared: {str(details['shared'])[:300]}"
    if first:
        shown = [f"{value!r} in row {row}" for row, value in zip(first, values, strict=False)]
        words += "; first: " + (", ".join(shown[:SHOWN_VALUES]) if shown else f"rows {first}")
    return words + (f". Expected {asked}." if asked else ".")


def _crash(answer: Any) -> tuple[str, str] | None:
    """(message, traceback) where GX could not evaluate; it files failures plainly or by metric."""
    info = answer.exception_info or {}
    entries = [info] if "raised_exception" in info else list(info.values())
    for entry in entries:
        if isinstance(entry, Mapping) and entry.get("raised_exception"):
            return str(entry.get("exception_message")).splitlines()[0], str(entry.get("exception_traceback") or "")
    return None


def _values_at(table: pa.Table | None, column: str | None, rows: list[int]) -> list[Any]:
    if table is None or column not in (table.column_names if table is not None else ()) or not rows:
        return []
    return [_jsonable(value) for value in table.column(column).take(pa.array(rows)).to_pylist()]


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _jsonable(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    return value if isinstance(value, int | float | str | bool | None) else str(value)


def _repaired(reading: Reading) -> Iterator[Finding]:
    """What a reader mended is found, not forgotten: one finding for each kind, with the files and lines."""
    kinds: dict[str, list[Any]] = {}
    for repair in reading.repairs:
        if repair.kind in HARMLESS:
            continue
        kinds.setdefault(repair.kind, []).append(repair)
    for kind, repairs in kinds.items():
        files = sorted({repair.file for repair in repairs})
        lines = sum(repair.count for repair in repairs)
        named = ", ".join(files[:SHOWN_VALUES]) + (f" and {len(files) - SHOWN_VALUES} more" if len(files) > 5 else "")
        message = f"{kind}: {repairs[0].what}; {lines:,} lines in {len(files)} files ({named})."
        where = {"file": files[0], "line": repairs[0].line, "phase": "data"}
        facts = {"kind": kind, "files": files, "lines": lines}
        evidence = [Evidence("value", facts, name=kind)]
        yield catalogue.finding("data-format", message, where=where, evidence=evidence, check="reader")


def _plain_columns(table: pa.Table) -> dict[str, Any]:
    """Columns of numbers as numpy, nulls as NaN; wide or nested ones are left to their own checks."""
    found: dict[str, Any] = {}
    for name in table.column_names:
        kind = table.schema.field(name).type
        if pa.types.is_decimal(kind):
            found[name] = table.column(name).cast(pa.float64()).to_numpy()
        elif pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
            column = table.column(name).to_numpy()
            found[name] = column.astype(np.float64) if column.dtype == object else column
    return found


def _figures(columns: Mapping[str, Any], reading: Reading) -> dict[str, Any]:
    chosen = dict(list(columns.items())[:FIGURED_COLUMNS])
    return {
        "distributions": {name: distribution(column) for name, column in chosen.items()},
        "missing": missing_over_time(dict(chosen)),
        "repairs": [str(repair) for repair in reading.repairs],
    }


def _table_findings(table: pa.Table, columns: Mapping[str, Any], declared: Mapping[str, Any]) -> tuple[Finding, ...]:
    """A table without a suite: what holds of every sound one, and the checks of arrays that mean the same there."""
    if not table.num_rows or not table.num_columns:
        return judge_table(table, {})
    rows = Context(data=Data(next(iter(columns.values()))) if columns else None, declared=declared)
    found = [*judge_table(table, columns), *_array_checks(rows, only=("data-volume",))]
    for name, column in columns.items():
        asked = Context(data=Data(column[:, None], names=(name,)), declared={})
        found += [
            _on_column(one, name) for one in _array_checks(asked, only=("data-precision",)) if one.status >= Status.WARN
        ]
    return tuple(found)


def _on_column(finding: Finding, name: str) -> Finding:
    where = {key: value for key, value in finding.where.items() if key not in ("input", "feature")}
    return replace(finding, where={**where, "column": name}, message=f"column {name!r}: {finding.message}")


# --- arrays ----------------------------------------------------------------------------------------------------------


def _array_checks(context: Context, *, skip: tuple[str, ...] = (), only: tuple[str, ...] = ()) -> list[Finding]:
    wanted = [
        one
        for one in all_checks()
        if one.ask.__module__.startswith("tsguard.checks.data")
        and not set(one.codes) & set(skip)
        and (not only or set(one.codes) & set(only))
    ]
    return [finding for finding in run_checks(context, wanted) if finding.status != Status.NOT_RUN]


def _audit_arrays(name: str, arrays: dict[str, Any], time: Any, declared: Mapping[str, Any]) -> Audit:
    """Windows (N, T, F) and fields (N, T, H, W) or (T, H, W): values as for training data, and dead places besides."""
    if not any(array.dtype.kind in "fiub" and array.size for array in arrays.values()):
        shapes = ", ".join(f"{key} of shape {array.shape} and type {array.dtype}" for key, array in arrays.items())
        raise DataError(
            explain("audit", received=shapes or "no array", expected="arrays of numbers with at least one sample",
                    todo="Pass those that hold numbers; words belong into a table.")
        )  # fmt: skip
    whole = next(iter(arrays.values())) if len(arrays) == 1 else arrays
    findings = _array_checks(Context(data=Data(whole), declared=declared), skip=("data-scale",))
    figures: dict[str, Any] = {"distributions": {}, "fields": {}}
    for key, array in arrays.items():
        if array.dtype.kind not in "fiu":
            continue
        figures["distributions"][key] = distribution(array)
        frame_axes = frame_axes_of(array)
        if frame_axes is None:
            continue
        found = field_measures(array, frame_axes=frame_axes)
        findings.extend(_field_findings(key, array, found, frame_axes))
        figures["fields"][key] = {
            "positions": found.positions,
            "frames": found.frames,
            "dead": [list(place) for place in found.dead],
            "holes": found.holes.tolist() if found.holes.size <= 10_000 and found.holes.any() else [],
        }
    if time is not None:
        findings.extend(_time_findings(as_time(time)))
    return Audit(name, tuple(findings), figures, {"samples": float(len(next(iter(arrays.values()))))})


def frame_axes_of(array: Any) -> int | None:
    """How many leading axes count frames: (T, H, W) one, (N, T, H, W) two; (N, T, F) with few features is no field."""
    if array.ndim == 4:
        return 2
    if array.ndim == 5 and array.shape[-1] <= 4:
        return 2
    if array.ndim == 3:
        return 1 if array.shape[1] >= LEAST_SIDE and array.shape[2] >= LEAST_SIDE else None
    return None


LEAST_SIDE = 8
"""A field of fewer rows or columns is read as steps and features: its columns are judged one by one."""


def _field_findings(key: str, array: Any, found: Any, frame_axes: int) -> Iterator[Finding]:
    where = {"phase": "data"} if key == "x" else {"phase": "data", "input": key}
    for place in found.dead[:SHOWN_VALUES]:
        value = array[(0,) * frame_axes + place]
        message = f"{key}: position {list(place)} is {float(value):g} in all {found.frames:,} frames: a dead pixel."
        if len(found.dead) > 1:
            message += f" {len(found.dead)} positions are dead."
        yield catalogue.finding("data-constant", message, where={**where, "feature": list(place)}, status="WARN")
    if found.constant_frames:
        first = found.constant_frames[0]
        message = (
            f"{key}: {len(found.constant_frames):,} of {found.frames:,} frames hold one value everywhere; the first: "
            f"{list(found.constant_frames[:SHOWN_VALUES])}."
        )
        place = (
            {"row": first}
            if frame_axes == 1
            else dict(zip(("row", "timestep"), divmod(first, array.shape[1]), strict=True))
        )
        yield catalogue.finding("data-constant", message, where={**where, **place}, status="FAIL")
    for value, count in found.saturated:
        share = count / array.size
        message = f"{key}: {count:,} values ({share:.1%}) lie exactly at the bound {value:g}: clipped or saturated."
        yield catalogue.finding("data-constant", message, where=where, status="WARN")


def _time_findings(time: Any) -> Iterator[Finding]:
    back = np.flatnonzero(np.diff(time) < 0)
    if len(back):
        row = int(back[0]) + 1
        message = f"time falls in {len(back):,} rows; first in row {row}, from {time[row - 1]} to {time[row]}."
        yield catalogue.finding("data-order", message, where={"phase": "data", "row": row})
