"""The catalogue of findings: what each code means, why it happens and how it is mended, said once, in catalogue.toml.

Everything that shows or makes a finding takes its words from here, so that a code means the same in a page, on the
command line and in a reproduction.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tsguard.errors import ConfigError
from tsguard.evidence import Evidence, Proof
from tsguard.findings import Finding, Role, Status

GROUPS = ("data", "padding", "model", "optimisation", "predictions", "numerics", "pipeline")


@dataclass(frozen=True, slots=True)
class Entry:
    """One code of the catalogue."""

    code: str
    group: str
    title: str
    means: str
    why: str
    mend: str
    severity: Status
    role: Role


@cache
def entries() -> Mapping[str, Entry]:
    """Every entry by its code, in the order of the file."""
    text = Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")
    table = tomllib.loads(text)
    return {
        code: Entry(
            code=code,
            severity=Status(fields.pop("severity")),
            role=Role(fields.pop("role")),
            **fields,
        )
        for code, fields in table.items()
    }


def entry(code: str) -> Entry:
    """The entry of a code; an unknown one is an error that names the nearest known codes."""
    known = entries()
    if code not in known:
        near = difflib.get_close_matches(code, known, n=3, cutoff=0.4) or [c for c in known if code in c][:3]
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise ConfigError(f"{code!r} is no finding code.{hint} `tsguard explain` lists all of them.")
    return known[code]


def finding(
    code: str,
    message: str,
    *,
    where: Mapping[str, Any] | None = None,
    status: Status | str | None = None,
    role: Role | str | None = None,
    evidence: Iterable[Evidence] = (),
    remedy: str | None = None,
    proof: Proof | None = None,
    check: str = "",
    score: float = 0.0,
    explains: Iterable[str] = (),
) -> Finding:
    """A finding with its code's own severity, role and remedy where nothing better is known."""
    about = entry(code)
    return Finding(
        code=code,
        status=Status(status) if status is not None else about.severity,
        role=Role(role) if role is not None else about.role,
        message=message,
        where=where or {},
        evidence=tuple(evidence),
        remedy=about.mend if remedy is None else remedy,
        proof=proof,
        check=check,
        score=score,
        explains=tuple(explains),
    )
