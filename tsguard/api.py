"""The functions that scripts call: `tsguard.check`, `fit`, `audit`, `reduce`, `compare`.

Each gathers a stage's parts (subject, checks, gate, store, pages) and hands out the Report. Here alone the parts of the
upper levels meet, so that they need not know each other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from tsguard import provenance
from tsguard.backend import require_torch
from tsguard.checks.preflight import preflight
from tsguard.checks.registry import Context, all_checks
from tsguard.comparison import Comparison
from tsguard.comparison import compare as compared
from tsguard.dataset import Data
from tsguard.desk import DESK, written
from tsguard.errors import SubjectError, explain
from tsguard.gate import Gate
from tsguard.opening import config_of, open_run
from tsguard.padding import Padding
from tsguard.report import Report
from tsguard.store import RunFolder
from tsguard.store import load_report as read_report
from tsguard.subject import Subject


def check(
    model_or_subject: Any,
    x: Any = None,
    y: Any = None,
    validation_data: Any = None,
    padding: Padding | None = None,
    gates: Any = None,
    out: str | Path | None = None,
    budget_s: float = 60,
    *,
    progress: Callable[[str], None] = lambda name: None,
) -> Report:
    """Find out, before a run, whether it can survive. Leaves the model and every generator as it found them."""
    require_torch()
    from tsguard.guarded import guard_checks

    gate = Gate.load(gates).before_training()
    subject = Subject.of(model_or_subject, padding=padding)
    data = Data(x, y, validation=validation_data) if x is not None else subject.data
    if data is not None:
        data.require_rows()
    context = Context(subject=subject, data=data, padding=padding or subject.padding)
    report = preflight(
        context, gate=gate, budget_s=budget_s, checks=(*all_checks(), *guard_checks()), progress=progress
    ).with_(desk=DESK)
    return report if out is None else written(report, RunFolder.create(out, report.name))


def load_report(path: str | Path) -> Report:
    """A saved report, able to be drawn and saved again."""
    return read_report(path).with_(desk=DESK)


def compare(report_a: Any, report_b: Any, *more: Any) -> Comparison:
    """Reports (or the folders of runs) side by side: metrics, settings, environment, findings, curves."""
    return compared(*(one if isinstance(one, Report) else load_report(one) for one in (report_a, report_b, *more)))


def reduce(
    report_or_run: Any,
    budget_s: float = 120,
    *,
    synthetic: bool = False,
    progress: Callable[[str], None] = lambda words: None,
) -> Any:
    """The failure of a report as the smallest Case that still fails in the same way; `case.save(folder)` writes it.

    Takes a report of this process, or the folder of a run whose `config.yaml` says how to build it again. `synthetic`
    puts made values in place of measured ones wherever it still fails.
    """
    require_torch()
    from tsguard.repro.find import failing_case, other_case, recorded_arrays, reduced

    outcome, model, data, context, name = None, None, None, None, "repro"
    findings = report_or_run.findings if isinstance(report_or_run, Report) else ()
    if isinstance(report_or_run, Report):
        name = report_or_run.name
        source = report_or_run.source
        if isinstance(source, Audited):
            found = source.case(report_or_run, budget_s=budget_s, synthetic=synthetic, progress=progress)
            return found if found is not None else _nothing_fails(name)
        if isinstance(source, Context):
            context, model, data = source, source.model, source.data
        elif source is not None:
            outcome, model, context = source, source.model, source.context
            data = recorded_arrays(source) if context is None else context.data
            context = context or Context(subject=Subject.from_model(model), data=data)
        elif report_or_run.run is not None:
            report_or_run = report_or_run.run.folder
    if not isinstance(report_or_run, Report):
        folder = RunFolder.open(report_or_run)
        saved = read_report(folder.path) if (folder.path / "report.json").exists() else None
        if saved is not None and saved.kind == "audit":
            found = Audited.of(saved).case(saved, budget_s=budget_s, synthetic=synthetic, progress=progress)
            return found if found is not None else _nothing_fails(saved.name)
        subject = open_run(config_of(folder, todo="Call tsguard.reduce(report) in that script.")).subject
        name, model, data = folder.run.name, subject.rebuild(), subject.data
        context = Context(subject=subject, data=data, padding=subject.padding)
        if not findings and saved is not None:
            findings = saved.findings
    case = failing_case(outcome=outcome, model=model, data=data, name=name, findings=findings)
    if case is None and findings:
        found = other_case(
            findings, model=model, data=data, name=name, budget_s=budget_s, context=context, progress=progress
        )
        if found is not None:
            return found
    if case is None:
        return _nothing_fails(name)
    return reduced(case, budget_s=budget_s, synthetic=synthetic, progress=progress)


def _nothing_fails(name: str) -> NoReturn:
    raise SubjectError(
        explain(
            f"reduce {name!r}",
            received="a report in which no training step fails, no law is broken and no cause was proven",
            expected="a value that is not finite, a broken law, or a cause whose removal was shown to heal",
            todo="Let the checks and the diagnosis run first, on arrays, in this process.",
        )
    )


AUDIT_REPRO_S = 20.0
"""What the reduction of a failed audit may take unasked: rows are halved, and 200,000 are done long before."""


def audit(
    data: Any,
    suite: Any = None,
    engine: str = "arrow",
    out: str | Path | None = None,
    *,
    repro: str | bool = "auto",
) -> Report:
    """Judge data by a suite of expectations, or by what holds of every sound array: tables, paths, arrays, windows.

    Under `out` a table that breaks an expectation is reduced to a script, unless `repro` is False.
    """
    from tsguard.checks.audit import audit_data

    facts = provenance.gather(config=Audited(data, suite).told())
    found = audit_data(data, suite, engine)
    report = Report(
        kind="audit",
        name=found.name,
        findings=found.findings,
        metrics=found.metrics,
        figures=found.figures,
        provenance=dataclasses.replace(facts, ended=provenance.now()),
        desk=DESK,
        source=Audited(data, suite),
    )
    report = report.with_(verdict=Gate().judge(report, today=provenance.today()))
    if out is None:
        return report
    folder = RunFolder.create(out, report.name)
    if repro and any(finding.status == "FAIL" for finding in report.findings):
        from tsguard.repro.reported import with_script

        report = with_script(report, folder, lambda: Audited(data, suite).case(report, budget_s=AUDIT_REPRO_S))
    return written(report, folder)


@dataclasses.dataclass(frozen=True)
class Audited:
    """What an audit was about, for a reproduction to start from."""

    data: Any
    suite: Any

    @classmethod
    def of(cls, report: Report) -> Audited:
        """What a saved report says that it was about."""
        told = report.provenance.config.get("audit") or {}
        if "data" not in told:
            raise SubjectError(
                explain(
                    f"reduce the audit {report.name!r}",
                    received="the report of data that came as an object of another process",
                    expected="data that was given by its path or by the name of a catalogued set",
                    todo="Call tsguard.reduce(report) where the data is at hand, or audit a file.",
                )
            )
        return cls(told["data"], told.get("suite"))

    def told(self) -> dict[str, Any]:
        """The same as plain settings, as far as another process could open the data again."""
        if not isinstance(self.data, str | Path):
            return {}
        suite = self.suite
        if isinstance(suite, Path):
            suite = str(suite)
        elif suite is not None and not isinstance(suite, str | Mapping):
            from tsguard.expect.suites import load_suite

            suite = load_suite(suite).to_json_dict()
        return {"audit": {"data": str(self.data), **({} if suite is None else {"suite": suite})}}

    def case(
        self,
        report: Report,
        *,
        budget_s: float,
        synthetic: bool = False,
        progress: Callable[[str], None] = lambda words: None,
    ) -> Any:
        """The least of the data that breaks an expectation; None where it is no table."""
        require_torch()
        from tsguard.repro.tables import table_case

        return table_case(
            self.data, self.suite, report.findings, name=report.name, budget_s=budget_s, synthetic=synthetic,
            progress=progress,
        )  # fmt: skip
