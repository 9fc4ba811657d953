"""The functions that scripts call: `tsguard.check`, `fit`, `audit`, `reduce`, `compare`.

Each gathers a stage's parts (subject, checks, gate, store, pages) and hands out the Report. Here alone the parts of the
upper levels meet, so that they need not know each other.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tsguard.backend import require_torch
from tsguard.checks.preflight import preflight
from tsguard.checks.registry import Context, all_checks
from tsguard.comparison import Comparison
from tsguard.comparison import compare as compared
from tsguard.dataset import Data
from tsguard.desk import DESK, written
from tsguard.gate import Gate
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
