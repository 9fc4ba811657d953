"""The gate: a policy over findings and metrics. Its conclusion is a Verdict.

A policy says which metrics must lie where, which checks must have run, and which findings are waived until when. What
was required and did not run blocks; a metric that is not there could not be evaluated, which is not a pass either.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

from tsguard.errors import GateError, explain
from tsguard.findings import Finding, Status
from tsguard.report import Report, Series, Verdict
from tsguard.yamlfile import read_yaml

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_BOUND = re.compile(rf"(?P<op><=|>=|<|>|==|!=)\s*(?P<limit>{_NUMBER})\s*(?P<relative>x\s*baseline)?")
_RANGE = re.compile(rf"(?P<low>{_NUMBER})\s*\.\.\s*(?P<high>{_NUMBER})")
_AFTER = re.compile(r"(?P<bound>.*?)\s+after\s+(?P<unit>epoch|step)\s+(?P<at>\d+)")
_COMPARE = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
}


@dataclass(frozen=True, slots=True)
class Condition:
    """One metric's demand: a bound, a range or a truth value, perhaps only after some progress or beside a baseline."""

    metric: str
    text: str
    low: float | None = None
    high: float | None = None
    op: str = ""
    limit: float | bool | None = None
    relative: bool = False
    after: int | None = None
    unit: str = ""

    @classmethod
    def parse(cls, metric: str, demand: Any) -> Condition:
        """Read ">= 0.3", "10..20", "< 0.05 after epoch 25", "<= 1.02 x baseline", true."""
        text = str(demand).strip()
        if isinstance(demand, bool):
            return cls(metric, text, op="==", limit=demand)
        rest, after, unit = text, None, ""
        if match := _AFTER.fullmatch(text):
            rest, after, unit = match["bound"].strip(), int(match["at"]), match["unit"]
        if match := _RANGE.fullmatch(rest):
            return cls(metric, text, low=float(match["low"]), high=float(match["high"]), after=after, unit=unit)
        if match := _BOUND.fullmatch(rest):
            return cls(
                metric,
                text,
                op=match["op"],
                limit=float(match["limit"]),
                relative=bool(match["relative"]),
                after=after,
                unit=unit,
            )
        raise GateError(
            explain(
                f"gates.{metric}",
                received=repr(demand),
                expected="'>= 0.3', '10..20', '< 0.05 after epoch 25', '<= 1.02 x baseline' or true",
                todo="Write a comparison, a number, and nothing else.",
            )
        )

    def judge(self, value: float, baseline: float | None = None) -> bool:
        """Whether a value meets the demand. NaN meets none."""
        if value != value:
            return False
        if self.low is not None and self.high is not None:
            return self.low <= value <= self.high
        limit = self.limit
        if self.relative:
            if baseline is None:
                raise GateError(f"gates.{self.metric}: {self.text!r} needs an accepted report as baseline.")
            assert limit is not None
            limit = limit * baseline
        return bool(_COMPARE[self.op](value, limit))


@dataclass(frozen=True, slots=True)
class Waiver:
    """A finding that is let through, by whom it concerns, for a reason and until a date."""

    code: str
    reason: str
    until: date


@dataclass(frozen=True, slots=True)
class Gate:
    """A policy. `enforce=False` reports what it would have blocked and blocks nothing."""

    conditions: tuple[Condition, ...] = ()
    required: tuple[str, ...] = ()
    """Codes or names of checks that must have run."""
    waivers: tuple[Waiver, ...] = ()
    enforce: bool = True

    @classmethod
    def of(cls, gates: Any) -> Gate:
        """From what a caller may give: None, "report", a dict of demands, or a Gate. (Files are read by config.)"""
        if gates is None:
            return cls()
        if isinstance(gates, Gate):
            return gates
        if gates == "report":
            return cls(enforce=False)
        if isinstance(gates, Mapping):
            rules = dict(gates)
            required = rules.pop("required", ()) or ()
            required = (required,) if isinstance(required, str) else tuple(required)
            waivers = tuple(_waiver(entry) for entry in _entries(rules.pop("waivers", ()) or ()))
            enforce = rules.pop("enforce", True)
            metrics = rules.pop("metrics", {}) or {}
            demands = {**metrics, **rules}
            return cls(tuple(Condition.parse(k, v) for k, v in demands.items()), required, waivers, bool(enforce))
        raise GateError(
            explain(
                "gates",
                received=f"a {type(gates).__name__}: {gates!r:.60}",
                expected="a dict such as {'r2': '>= 0.3'}, the path of a YAML file, 'report' or None",
                todo="Pass one of these.",
            )
        )

    @classmethod
    def load(cls, gates: Any) -> Gate:
        """Like `of`, and from a YAML file whose path is given."""
        if isinstance(gates, Path) or (isinstance(gates, str) and gates != "report"):
            return cls.of(read_yaml(gates).tree)
        return cls.of(gates)

    def before_training(self) -> Gate:
        """The same policy without demands on metrics, which only a trained model has."""
        return replace(self, conditions=())

    def judge(self, report: Report, *, baseline: Report | None = None, today: date | None = None) -> Verdict:
        """The verdict over a report's findings and metrics, with every reason for blocking."""
        judgement = _Judgement(self, today)
        judgement.findings(report.findings)
        judgement.required(report.findings)
        for condition in self.conditions:
            judgement.condition(condition, report, baseline)
        return judgement.verdict()


def _entries(given: Any) -> Iterable[Mapping[str, Any]]:
    """The waivers as a list; one alone may stand without it."""
    entries = [given] if isinstance(given, Mapping) else given
    if not isinstance(entries, list | tuple) or not all(isinstance(entry, Mapping) for entry in entries):
        raise GateError(
            explain(
                "gates.waivers",
                received=repr(given)[:100],
                expected="a list of {code: …, reason: …, until: a date}",
                todo="Write one entry for each finding that is let through.",
            )
        )
    return entries


def _waiver(entry: Mapping[str, Any]) -> Waiver:
    missing = sorted({"code", "reason", "until"} - set(entry))
    if missing or not str(entry.get("reason", "")).strip():
        raise GateError(
            explain(
                "gates.waivers",
                received=f"{dict(entry)}",
                expected="code, reason (not empty) and until (a date)",
                todo=f"Add {', '.join(missing) or 'a reason'}; a waiver without a reason and an end is a hole.",
            )
        )
    return Waiver(str(entry["code"]), str(entry["reason"]), _day(entry["until"]))


def _day(until: Any) -> date:
    """A date as YAML, Python or a text gives it."""
    if isinstance(until, datetime):
        return until.date()
    if isinstance(until, date):
        return until
    try:
        return date.fromisoformat(str(until))
    except ValueError:
        raise GateError(
            explain(
                "gates.waivers.until",
                received=repr(until),
                expected="the last day on which it holds, such as 2030-01-31",
                todo="Write a date; a waiver without an end is a hole.",
            )
        ) from None


@dataclass
class _Judgement:
    """The reasons found so far, by how much they weigh."""

    gate: Gate
    today: date | None
    blocking: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    crashed: bool = False

    def findings(self, findings: Iterable[Finding]) -> None:
        waived = {waiver.code: waiver for waiver in self.gate.waivers}
        for finding in findings:
            if finding.status is Status.FAIL:
                waiver = waived.get(finding.code)
                if waiver is None:
                    self.blocking.append(f"{finding.code}: {finding.message}")
                elif self._today() > waiver.until:
                    self.blocking.append(f"{finding.code}: its waiver ended on {waiver.until}: {finding.message}")
                else:
                    self.notes.append(f"{finding.code} is waived until {waiver.until}: {waiver.reason}")
            elif finding.status is Status.ERROR:
                self.crashed = True
                self.unknown.append(f"{finding.code}: {finding.message}")

    def required(self, findings: tuple[Finding, ...]) -> None:
        for name in self.gate.required:
            answers = [f for f in findings if name in (f.code, f.check)]
            if not any(f.status not in (Status.NOT_RUN, Status.ERROR) for f in answers):
                why = next((f": {f.message}" for f in answers), "")
                self.unknown.append(f"required check {name!r} did not run{why}")
        if not any(f.status is not Status.NOT_RUN for f in findings):
            why = f" ({findings[0].message})" if findings else ""
            self.unknown.append(f"no check ran, and no findings is not a pass{why}")

    def condition(self, condition: Condition, report: Report, baseline: Report | None) -> None:
        value, reached = _value(condition, report)
        if not reached:
            self.notes.append(f"{condition.metric} {condition.text}: the run did not get that far")
            return
        if value is None:
            known = ", ".join(sorted(report.metrics)) or "none"
            self.unknown.append(f"{condition.metric} {condition.text}: not measured (measured: {known})")
            return
        reference = None if baseline is None else baseline.metrics.get(condition.metric)
        if condition.relative and reference is None:
            self.unknown.append(f"{condition.metric} {condition.text}: there is no accepted report to compare with")
        elif not condition.judge(value, reference):
            beside = "" if reference is None or not condition.relative else f" (baseline {reference:.6g})"
            self.blocking.append(f"{condition.metric} is {value:.6g}{beside}, and must be {condition.text}")

    def verdict(self) -> Verdict:
        if not self.gate.enforce:
            would = [f"not enforced: {reason}" for reason in self.blocking + self.unknown]
            return Verdict(Status.WARN if would else Status.PASS, tuple(would + self.notes))
        if self.blocking:
            return Verdict(Status.FAIL, tuple(self.blocking + self.unknown + self.notes))
        if self.unknown:
            return Verdict(Status.ERROR if self.crashed else Status.NOT_RUN, tuple(self.unknown + self.notes))
        return Verdict(Status.PASS, tuple(self.notes))

    def _today(self) -> date:
        if self.today is None:
            raise GateError("gate: waivers need to know which day it is; pass today=.")
        return self.today


def _value(condition: Condition, report: Report) -> tuple[float | None, bool]:
    """The metric's value, and whether the progress that the condition waits for was reached."""
    if condition.after is None:
        return report.metrics.get(condition.metric), True
    named = (f"{condition.unit}/{condition.metric}", condition.metric)
    series: Series | None = next((report.series[name] for name in named if name in report.series), None)
    if series is None:
        return None, True
    later = [y for x, y in zip(series.x, series.y, strict=True) if x >= condition.after]
    if not later:
        return None, False
    # "after epoch 25" is a demand on every later epoch; the one that misses it by most is the one to judge.
    worst_first = sorted(later, reverse=condition.op in ("<", "<=") or condition.low is not None)
    broken = [y for y in worst_first if not condition.relative and not condition.judge(y)]
    return (broken or worst_first)[0], True
