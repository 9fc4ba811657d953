"""The functions that scripts call: `tsguard.check`, `fit`, `audit`, `reduce`, `compare`.

Each gathers a stage's parts (subject, checks, gate, store, pages) and hands out the Report. This is the only place where
the parts of the upper levels meet, so that they need not know each other.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tsguard.backend import require_torch
from tsguard.checks.preflight import preflight
from tsguard.checks.registry import Context
from tsguard.dataset import Data
from tsguard.desk import DESK, written
from tsguard.gate import Gate
from tsguard.padding import Padding
from tsguard.report import Report
from tsguard.store import RunFolder
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
    report = preflight(context, gate=gate, budget_s=budget_s, progress=progress).with_(desk=DESK)
    return report if out is None else written(report, RunFolder.create(out, report.name))
