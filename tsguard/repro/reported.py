"""A reproduction beside the report that it belongs to: the script in the run's folder, the finding that links to it."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tsguard import catalogue
from tsguard.evidence import Evidence
from tsguard.findings import Finding
from tsguard.report import Report
from tsguard.store import RunFolder


def with_script(report: Report, folder: RunFolder, make: Callable[[], Any]) -> Report:
    """The report, linked to what `make` has reduced; as it was where that is None, with a note where it crashes."""
    try:
        small = make()
        if small is None:
            return report
        path = small.save(folder.path / "repro")
    except Exception as crash:  # a reproduction that cannot be made is said, and harms nothing
        return report.with_(findings=(*report.findings, not_reproduced(crash)))
    script = Evidence("file", f"repro/{path.name}", name="reproduction", file=f"repro/{path.name}")
    failed = [finding for finding in report.findings if finding.status == "FAIL"]
    remarks = [finding for finding in report.findings if finding.status == "WARN"]
    first = next((one for one in (*failed, *remarks) if one.code == small.fingerprint.code), failed[0])
    linked = replace(first, evidence=(*first.evidence, script, *small.evidence))
    return report.with_(findings=tuple(linked if f is first else f for f in report.findings))


def not_reproduced(crash: BaseException) -> Finding:
    """A note that the failure could not be written as a script, and why."""
    trace = "".join(traceback.format_exception(crash))
    return catalogue.finding(
        "child-failed",
        f"no reproduction was written: {crash}",
        status="WARN",
        role="note",
        evidence=[Evidence("traceback", trace)],
        remedy="`tsguard.reduce(report)` tries again with a larger budget.",
        check="reproduction",
    )
