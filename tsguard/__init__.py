"""tsguard: tested training for Keras 3 models on the PyTorch backend.

    model.fit(x, y, callbacks=[tsguard.Guard()])      one line on a script that exists
    report = tsguard.fit(model, x, y, epochs=5)       preflight, guarded training, diagnosis, pages
    report = tsguard.check(model, x, y)               the preflight alone

Importing this package imports neither keras nor torch: names are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Finding": "tsguard.findings",
    "Guard": "tsguard.guarded",
    "Padding": "tsguard.padding",
    "Report": "tsguard.report",
    "Role": "tsguard.findings",
    "Run": "tsguard.report",
    "Status": "tsguard.findings",
    "Subject": "tsguard.subject",
    "TsguardError": "tsguard.errors",
    "Verdict": "tsguard.report",
    "audit": "tsguard.api",
    "check": "tsguard.api",
    "compare": "tsguard.api",
    "fit": "tsguard.guarded",
    "load_report": "tsguard.api",
    "reduce": "tsguard.api",
}

__all__ = ["__version__", "expect", *sorted(_HOMES)]

if TYPE_CHECKING:
    from tsguard import expect as expect
    from tsguard.api import audit as audit
    from tsguard.api import check as check
    from tsguard.api import compare as compare
    from tsguard.api import load_report as load_report
    from tsguard.api import reduce as reduce
    from tsguard.errors import TsguardError as TsguardError
    from tsguard.findings import Finding as Finding
    from tsguard.findings import Role as Role
    from tsguard.findings import Status as Status
    from tsguard.guarded import Guard as Guard
    from tsguard.guarded import fit as fit
    from tsguard.padding import Padding as Padding
    from tsguard.report import Report as Report
    from tsguard.report import Run as Run
    from tsguard.report import Verdict as Verdict
    from tsguard.subject import Subject as Subject


def __getattr__(name: str) -> Any:
    if name == "expect":
        return importlib.import_module("tsguard.expect")
    if name not in _HOMES:
        raise AttributeError(f"tsguard has no {name!r}; its names are {', '.join(sorted(_HOMES))} and expect.")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
