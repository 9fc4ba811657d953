"""The Report: one versioned document that holds everything a stage found out, and the codec that writes it.

Pages, terminal output, gates and reproductions are views of this document; none of them knows more than it does.
Numbers that JSON has no words for (NaN, infinities) are written as {"$float": "nan"} on purpose, so that a report about
a NaN can hold it and any JSON reader can still read the file.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from tsguard import findings as words
from tsguard.errors import StoreError, explain
from tsguard.evidence import Curve, Evidence, Proof
from tsguard.findings import Finding, Status

SCHEMA = 1
"""Version of the document. Raised when a reader of the old one would misread the new one; see `_UPGRADES`."""

REPR_FINDINGS = 6
"""Findings that a console shows of a report; the page has them all."""

METRIC_NAMES = (
    "r2 std_ratio correlation bias2_over_var rmse mae spread accuracy recall_min majority_share skill_vs_baseline loss "
    "val_loss artifact_mb duration_min steps_per_s data_wait_share peak_mb gpu_used"
).split()
"""Names that gates and other people's scripts use. Of several outputs "output/name", of a split "val/name"."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A gate's conclusion. PASS and WARN let the gate pass; FAIL blocks; NOT_RUN and ERROR could not be evaluated."""

    status: Status = Status.NOT_RUN
    reasons: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "status", Status(self.status))
        object.__setattr__(self, "reasons", tuple(self.reasons))

    @property
    def exit_code(self) -> int:
        """0 the gate passed, 1 it failed, 3 it could not be evaluated."""
        return {Status.PASS: 0, Status.WARN: 0, Status.FAIL: 1}.get(self.status, 3)

    def __bool__(self) -> bool:
        return self.exit_code == 0


@dataclass(frozen=True, slots=True)
class Series:
    """One recorded quantity over steps or epochs. Reads as the list of its values."""

    y: tuple[float, ...]
    x: tuple[float, ...] = ()
    per: str = "step"

    def __post_init__(self) -> None:
        object.__setattr__(self, "y", tuple(map(float, self.y)))
        object.__setattr__(self, "x", tuple(map(float, self.x)) or tuple(map(float, range(len(self.y)))))
        if len(self.x) != len(self.y):
            raise ValueError(f"a series of {len(self.y)} values over {len(self.x)} places")

    def __len__(self) -> int:
        return len(self.y)

    def __iter__(self) -> Iterator[float]:
        return iter(self.y)

    def __getitem__(self, index: int) -> float:
        return self.y[index]


@dataclass(frozen=True, slots=True)
class Moment:
    """One entry of a run's timeline: when (seconds since its start), what kind of thing, in words, at which step."""

    at: float
    kind: str
    text: str
    step: int | None = None


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a report comes from: enough to make it again, and to see why another machine would differ."""

    command: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    seeds: Mapping[str, int] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    commit: str | None = None
    dirty: bool | None = None
    device: str = ""
    host: Mapping[str, Any] = field(default_factory=dict)
    started: str = ""
    ended: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """One guarded training run and its folder."""

    id: str
    name: str
    folder: str

    @property
    def path(self) -> Path:
        """The run's folder."""
        return Path(self.folder)


class Desk(Protocol):
    """Who writes and draws a report: given by the doors, because a document knows neither files nor pages."""

    def save(self, report: Report, folder: str | Path) -> Path: ...

    def first_screen(self, report: Report) -> str: ...


@dataclass(frozen=True)
class Report:
    """What one stage found out. `kind` is the stage: check (before), train (after), audit, suite."""

    kind: str = "check"
    name: str = ""
    findings: tuple[Finding, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    series: Mapping[str, Series] = field(default_factory=dict)
    verdict: Verdict = field(default_factory=Verdict)
    provenance: Provenance = field(default_factory=Provenance)
    timeline: tuple[Moment, ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)
    """Numbers that only pages draw: histograms, confusion, distributions, heat maps. JSON values by figure name."""
    plan: Mapping[str, Any] = field(default_factory=dict)
    """What was declared or forecast, for the after page to hold against what happened."""
    run: Run | None = None
    path: Path | None = None
    """The page on disk, once there is one."""
    schema: int = SCHEMA
    desk: Desk | None = field(default=None, compare=False, repr=False)
    source: Any = field(default=None, compare=False, repr=False)
    """The living run behind this report, for as long as the process lasts: what a reproduction starts from."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "findings", words.ranked(self.findings))
        object.__setattr__(self, "timeline", tuple(self.timeline))

    @property
    def causes(self) -> tuple[Finding, ...]:
        """The findings with role cause and status WARN or FAIL, ranked."""
        return words.causes(self.findings)

    @property
    def healthy(self) -> bool:
        """No finding failed, and at least one check ran."""
        return words.worst(f.status for f in self.findings) in (Status.PASS, Status.WARN)

    def with_(self, **changes: Any) -> Report:
        """The same report with some fields replaced."""
        return replace(self, **changes)

    def save(self, folder: str | Path) -> Path:
        """Write the document and its page into a folder; the path of the page."""
        return self._at_desk().save(self, folder)

    def __repr__(self) -> str:
        """What a console shows: the verdict, what was found, causes first, and where the page is."""
        statuses = Counter(one.status.value for one in self.findings)
        counts = ", ".join(f"{count} {status}" for status, count in statuses.items())
        lines = [f"<Report {self.kind} {self.name!r}: {self.verdict.status.value}; findings: {counts or 'none'}>"]
        told = [one for one in self.findings if one.status in (Status.FAIL, Status.ERROR, Status.WARN)]
        lines += [f"  {one.status.value} {one.code} ({one.role.value}): {one.message}" for one in told[:REPR_FINDINGS]]
        if len(told) > REPR_FINDINGS:
            lines.append(f"  … and {len(told) - REPR_FINDINGS} more")
        if self.path is not None:
            lines.append(f"  page: {self.path}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return self._at_desk().first_screen(self)

    def _at_desk(self) -> Desk:
        if self.desk is None:
            raise StoreError(
                "report: received no writer. Expected one from tsguard's doors. Use tsguard.load_report(path)."
            )
        return self.desk

    def to_json(self) -> str:
        """The document as text; the same report gives the same bytes."""
        return dumps(fields_of(self, leave_out=("desk", "path", "source")))

    @classmethod
    def from_json(cls, text: str, *, desk: Desk | None = None, path: Path | None = None) -> Report:
        """Read a document of this or an older schema."""
        tree = loads(text)
        if not isinstance(tree, dict) or "schema" not in tree or "findings" not in tree:
            raise StoreError(
                explain(
                    "report",
                    received="a file without the fields 'schema' and 'findings'",
                    expected="a report.json that tsguard wrote",
                    todo="Point at the run's folder or at the report.json in it.",
                )
            )
        if not isinstance(tree["schema"], int) or tree["schema"] > SCHEMA:
            raise StoreError(
                explain(
                    "report",
                    received=f"schema {tree['schema']}",
                    expected=f"at most {SCHEMA}, which this version reads",
                    todo="Upgrade tsguard: pip install --upgrade tsguard.",
                )
            )
        try:
            for version in range(tree["schema"], SCHEMA):
                tree = _UPGRADES[version](tree)
            return cls._from_tree(tree, desk=desk, path=path)
        except (KeyError, TypeError, ValueError, AttributeError) as broken:
            raise StoreError(
                explain(
                    "report",
                    received=f"a document that is not whole ({type(broken).__name__}: {broken})",
                    expected="a report.json as tsguard wrote it",
                    todo="`tsguard report RUN` writes it again from the run's events.",
                )
            ) from None

    @classmethod
    def _from_tree(cls, tree: Mapping[str, Any], *, desk: Desk | None, path: Path | None) -> Report:
        return cls(
            kind=tree["kind"],
            name=tree["name"],
            findings=tuple(finding_from(entry) for entry in tree["findings"]),
            metrics=tree["metrics"],
            series={name: Series(**value) for name, value in tree["series"].items()},
            verdict=Verdict(**tree["verdict"]),
            provenance=Provenance(**tree["provenance"]),
            timeline=tuple(Moment(**value) for value in tree["timeline"]),
            figures=tree["figures"],
            plan=tree["plan"],
            run=None if tree["run"] is None else Run(**tree["run"]),
            path=path,
            desk=desk,
        )


def _from_schema_0(tree: dict[str, Any]) -> dict[str, Any]:
    """Schema 0 (before the first release) had no timeline, figures or plan, and called the kind a stage."""
    new = {"timeline": [], "figures": {}, "plan": {}, "run": None, **tree, "schema": 1}
    new["kind"] = new.pop("stage", new.get("kind", "check"))
    return new


_UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {0: _from_schema_0}


def finding_from(tree: Mapping[str, Any]) -> Finding:
    """A finding from its fields, as `fields_of` gave them."""
    fields = dict(tree)
    fields["evidence"] = tuple(Evidence(**value) for value in fields["evidence"])
    if fields.get("proof") is not None:
        proof = dict(fields["proof"])
        for side in ("before", "after"):
            if proof.get(side) is not None:
                proof[side] = Curve(**proof[side])
        fields["proof"] = Proof(**proof)
    return Finding(**fields)


def fields_of(value: Any, *, leave_out: tuple[str, ...] = ()) -> Any:
    """Dataclasses as dicts, all the way down, without copying what is plain already."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: fields_of(getattr(value, f.name)) for f in dataclasses.fields(value) if f.name not in leave_out}
    if isinstance(value, Mapping):
        return {str(key): fields_of(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return list(value) if _are_plain(value) else [fields_of(item) for item in value]
    return value


_PLAIN = frozenset({float, int, bool, str, type(None)})
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def _are_plain(values: Iterable[Any]) -> bool:
    """Whether a list holds no list or dict: curves do, thousands of points long, and take the short way."""
    return set(map(type, values)) <= _PLAIN


def dumps(tree: Any, *, indent: int | None = 1) -> str:
    """JSON with non-finite numbers spelled out; strict for every reader. Indented, a list of numbers is one line."""
    spelled = _spelled(tree)
    return _encode(spelled) if indent is None else _lined(spelled, " " * indent, "\n")


def _lined(value: Any, step: str, line: str) -> str:
    inner = line + step
    if isinstance(value, dict) and value and not (len(value) == 1 and "$float" in value):
        return "{" + ",".join(f"{inner}{_encode(k)}: {_lined(v, step, inner)}" for k, v in value.items()) + line + "}"
    if isinstance(value, list) and not _are_plain(value) and not all(_is_number(item) for item in value):
        return "[" + ",".join(inner + _lined(item, step, inner) for item in value) + line + "]"
    return _encode(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, float | int) or (isinstance(value, dict) and len(value) == 1 and "$float" in value)


def loads(text: str) -> Any:
    """The inverse of `dumps`."""
    try:
        return _unspelled(json.loads(text))
    except ValueError as broken:
        raise StoreError(
            explain(
                "report",
                received=f"text that is not JSON ({broken})",
                expected="a document that tsguard wrote",
                todo="The file may be cut off; `tsguard report RUN` writes it again from the run's events.",
            )
        ) from None


def _spelled(value: Any) -> Any:
    if isinstance(value, bool | str | int) or value is None:
        return str(value) if isinstance(value, str) else value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": repr(value)}
    if isinstance(value, Mapping):
        spelled = {str(key): _spelled(item) for key, item in value.items()}
        # A user's own dict may hold our marker as a key; wrapped once more, it comes back as it went.
        return {"$dict": spelled} if set(spelled) in ({"$float"}, {"$dict"}) else spelled
    if isinstance(value, list | tuple):
        if _are_plain(value) and not any(type(item) is float and item - item != 0 for item in value):
            return list(value)
        return [_spelled(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        return _spelled(value.item())
    if hasattr(value, "tolist"):
        return _spelled(value.tolist())
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise TypeError(f"a report holds numbers, text, lists and dicts; received a {type(value).__name__}: {value!r:.80}")


def _unspelled(value: Any) -> Any:
    if isinstance(value, list):
        return value if _are_plain(value) else [_unspelled(item) for item in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"$float"}:
        return float(value["$float"])
    if set(value) == {"$dict"}:
        value = value["$dict"]
    return {key: _unspelled(item) for key, item in value.items()}
