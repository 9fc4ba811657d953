"""The preflight: every check asked of a Subject before it is trained, and the Report that comes of it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable
from typing import Any

from tsguard import provenance
from tsguard.checks.depth import deepest
from tsguard.checks.pictures import of_data
from tsguard.checks.registry import Check, Context
from tsguard.checks.runner import run_checks
from tsguard.findings import Finding, Role, Status
from tsguard.gate import Gate
from tsguard.report import Moment, Report


def preflight(
    context: Context,
    *,
    gate: Gate,
    budget_s: float = 60.0,
    checks: Iterable[Check] | None = None,
    earlier: Iterable[Finding] = (),
    config: dict[str, Any] | None = None,
    baseline: Report | None = None,
    progress: Callable[[str], None] = lambda name: None,
) -> Report:
    """Ask everything, judge it, and say how long each answer took."""
    # A model that cannot be built is the user's mistake, to be told as such before any check is asked.
    _ = context.model
    started = time.monotonic()
    facts = provenance.gather(config=config, seeds=seeds_of(context))
    moments = [Moment(0.0, "start", "preflight started")]

    def told(name: str) -> None:
        moments.append(Moment(time.monotonic() - started, "check", name))
        progress(name)

    asked = run_checks(context, checks, budget_s=budget_s, progress=told)
    findings = deepest([*_explained((*earlier, *asked))])
    report = Report(
        kind="check",
        name=context.subject.name if context.subject is not None else "data",
        findings=findings,
        metrics=context.facts.get("metrics", {}),
        figures={**of_data(context), **context.facts.get("figures", {})},
        plan={**context.plan, "forecast": dict(context.facts.get("forecast", {}))},
        provenance=dataclasses.replace(facts, ended=provenance.now()),
        source=context,
    )
    verdict = gate.judge(report, baseline=baseline, today=provenance.today())
    moments.append(Moment(time.monotonic() - started, "gate", f"gate: {verdict.status}"))
    return report.with_(verdict=verdict, timeline=tuple(moments))


def _explained(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """A step that raises is the symptom of a fault of the data, the loss or the model that a check has named."""
    named = any(f.role is Role.CAUSE and f.status is Status.FAIL and f.code != "step-fails" for f in findings)
    return tuple(
        dataclasses.replace(f, role=Role.SYMPTOM) if named and f.code == "step-fails" and f.role is Role.CAUSE else f
        for f in findings
    )


def seeds_of(context: Context) -> dict[str, int]:
    """The seeds that a report quotes, where the subject was built from one."""
    seed = context.subject.seed if context.subject is not None else None
    return {} if seed is None else {"seed": seed}
