"""What the preflight feared of a run, held against what the run came to: a fear that did not come true is a note."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from tsguard.diagnosis.record import Record
from tsguard.findings import Finding, Role, Status
from tsguard.probes.score import JUDGED_ROWS, judge, sample

FOUND = 0.5
"""Recall of the worst class from which no class is given up for another."""


def _every_class_is_found(metrics: Mapping[str, float]) -> str:
    recall = metrics.get("recall_min", 0.0)
    return f"the worst class is found in {recall:.0%} of its rows" if recall >= FOUND else ""


REFUTED_BY: dict[str, Callable[[Mapping[str, float]], str]] = {"data-imbalance": _every_class_is_found}
"""For warnings that a result can take back: what it must look like, in words; empty where it does not."""


def settled(record: Record, findings: Iterable[Finding]) -> list[Finding]:
    """The same findings, in their order; warnings that the run has refuted are notes that say so."""
    listed = list(findings)
    if not any(_may_be_settled(f) for f in listed):
        return listed
    rows = sample(record.data, JUDGED_ROWS)
    judged = None if rows is None else judge(record.model, rows)
    if judged is None:
        return listed
    return [_after(finding, judged.metrics) if _may_be_settled(finding) else finding for finding in listed]


def _may_be_settled(finding: Finding) -> bool:
    return finding.code in REFUTED_BY and finding.status is Status.WARN and not finding.where.get("config_key")


def _after(finding: Finding, metrics: Mapping[str, Any]) -> Finding:
    words = REFUTED_BY[finding.code](metrics)
    if not words:
        return finding
    return replace(
        finding,
        status=Status.PASS,
        role=Role.NOTE,
        message=f"{finding.message} After the run {words}: no harm was done.",
    )
