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
from tsguard.checks.registry import Check, Context, all_checks
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
    gate = Gate.load(gates).before_training()
    subject = Subject.of(model_or_subject, padding=padding)
    data = Data(x, y, validation=validation_data) if x is not None else subject.data
    context = Context(subject=subject, data=data, padding=padding or subject.padding)
    report = preflight(
        context, gate=gate, budget_s=budget_s, checks=(*all_checks(), *guard_checks()), progress=progress
    ).with_(desk=DESK)
    return report if out is None else written(report, RunFolder.create(out, report.name))


def guard_checks() -> tuple[Check, ...]:
    """Checks of the upper levels: they use the guard's own machinery on the first batches."""
    return ()


def load_report(path: str | Path) -> Report:
    """A saved report, able to be drawn and saved again."""
    return read_report(path).with_(desk=DESK)
