"""What a reader answers: an Arrow table and the list of what was repaired, or every fault of every file at once.

A reader never drops or mends anything in silence. A fault whose kind the caller allowed in `repair=` is mended and
listed; every other fault is collected until all files are read, and then raised together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from tsguard.errors import DataError

REPAIRS = {
    "comment-header": "take the '#' away from the names in the header",
    "unnamed-column": "name a column without a name after its position (`column_0`)",
    "delimiter": "spread numbers that stand blank-separated in one cell over the empty cells that follow",
    "decimal-comma": "read 3,5 as 3.5",
    "ragged-row": "fill a short row with nulls, and leave out a row that is too long (both are listed)",
    "bad-bytes": "put U+FFFD in place of bytes that are not UTF-8",
    "not-a-number": "null in place of text in a column of numbers",
    "missing-key": "null in place of a key that a JSON record lacks",
}
"""The kinds of fault that a reader can mend when the caller allows it by name, and how."""

SHOWN_FAULTS = 40
"""Longest list of faults in one message; the whole list is on `ReadError.faults`. More than this fits no screen."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a file: where, what was received, what was expected, what to do."""

    kind: str
    file: str
    received: str
    expected: str
    todo: str
    line: int | None = None
    last_line: int | None = None
    """Last of consecutive lines with the same fault."""
    column: str | None = None

    @property
    def place(self) -> str:
        """File, line or lines, and column, as an editor understands them."""
        lines = "" if self.line is None else f":{self.line}"
        if self.last_line is not None and self.last_line != self.line:
            lines += f"-{self.last_line}"
        return f"{self.file}{lines}" + (f" column {self.column!r}" if self.column is not None else "")

    def __str__(self) -> str:
        return f"{self.place}: received {self.received}. Expected {self.expected}. {self.todo}"


@dataclass(frozen=True, slots=True)
class Repair:
    """One thing that was mended because the caller allowed it, or because it changes no value (a byte-order mark)."""

    kind: str
    file: str
    what: str
    line: int | None = None
    column: str | None = None
    count: int = 1

    def __str__(self) -> str:
        place = self.file + ("" if self.line is None else f":{self.line}")
        place += f" column {self.column!r}" if self.column is not None else ""
        return f"{place}: {self.what}" + (f" ({self.count} times)" if self.count > 1 else "")


@dataclass(frozen=True)
class Reading:
    """A table, where it came from, and what was repaired on the way."""

    table: pa.Table
    source: str
    repairs: tuple[Repair, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "repairs", tuple(self.repairs))

    @property
    def num_rows(self) -> int:
        """Rows of the table."""
        return int(self.table.num_rows)

    def column(self, name: str) -> Any:
        """One column as a numpy array; integers with nulls become float64 with NaN."""
        if name not in self.table.column_names:
            raise DataError(
                f"{self.source}: received a request for column {name!r}. Expected one of "
                f"{', '.join(map(repr, self.table.column_names))}. Mind upper and lower case."
            )
        return self.table.column(name).to_numpy()


class ReadError(DataError):
    """Every fault that was found, in one message; `faults` holds them as values."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults: tuple[Fault, ...] = tuple(faults)
        shown = [str(fault) for fault in self.faults[:SHOWN_FAULTS]]
        hidden = len(self.faults) - len(shown)
        if hidden > 0:
            shown.append(f"… and {hidden} more of {len(self.faults)}")
        count = len(self.faults)
        head = "" if count == 1 else f"{count} faults in {len({fault.file for fault in self.faults})} file(s):\n"
        super().__init__(head + "\n".join(shown))


def check_repairs(repair: Sequence[str] | str) -> frozenset[str]:
    """The allowed kinds of repair as a set, or an error that names those that exist."""
    asked = frozenset((repair,) if isinstance(repair, str) else repair)
    unknown = sorted(asked - set(REPAIRS))
    if unknown:
        choices = "; ".join(f"{kind!r}: {what}" for kind, what in REPAIRS.items())
        raise DataError(f"repair: received {unknown}. Expected kinds of repair that exist. They are {choices}.")
    return asked


def merge_lines(faults: Iterable[Fault]) -> list[Fault]:
    """Consecutive lines with the same fault become one entry, so that 480 bad lines read as one."""
    from dataclasses import replace

    merged: list[Fault] = []
    for fault in faults:
        if merged and fault.line is not None:
            before = merged[-1]
            same = (before.kind, before.file, before.column, before.expected) == (
                fault.kind,
                fault.file,
                fault.column,
                fault.expected,
            )
            as_ragged = fault.kind != "ragged-row" or before.received == fault.received  # too short is not too long
            if same and as_ragged and (before.last_line or before.line) == fault.line - 1:
                merged[-1] = replace(before, last_line=fault.line)
                continue
        merged.append(fault)
    return merged
