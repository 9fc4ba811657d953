"""What the preflight feared of a run, held against what the run came to: a fear that did not come true is a note."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import numpy as np

from tsguard.dataset import leaves
from tsguard.diagnosis.record import Record
from tsguard.findings import Finding, Role, Status
from tsguard.probes.data import as_array
from tsguard.probes.score import every_row, judge
from tsguard.probes.stage import Batch

FOUND = 0.5
"""Recall of the worst class from which no class is given up for another."""

FEW_HELD, FEW_TRAINED = 5, 30
"""Rows of the rarest class that a recall must be told of: rows held back, or rows that were trained on. A score of the
latter can be learned by heart."""


MOST_KINDS = 100
"""Different values from which a target is no label."""


def _every_class_is_found(rows: Batch, metrics: Mapping[str, float], *, held: bool) -> str:
    recall = metrics.get("recall_min", 0.0)
    enough = _rarest(rows) >= (FEW_HELD if held else FEW_TRAINED)
    return f"the worst class is found in {recall:.0%} of its rows" if enough and recall >= FOUND else ""


def _rarest(rows: Batch) -> int:
    """How many labels of these rows are of the rarest class."""
    least = []
    for leaf in map(as_array, leaves(rows.y)):
        one_hot = leaf.ndim > 1 and leaf.shape[-1] > 1 and bool((leaf.sum(-1) == 1).all())
        counts = np.unique(leaf.argmax(-1) if one_hot else leaf, return_counts=True)[1]
        least += [counts.min()] if len(counts) <= MOST_KINDS else []  # amounts are no classes
    return int(min(least, default=0))


REFUTED_BY: dict[str, Callable[..., str]] = {"data-imbalance": _every_class_is_found}
"""For warnings that a result can take back: what it must look like, in words; empty where it does not."""


def settled(record: Record, findings: Iterable[Finding]) -> list[Finding]:
    """The same findings, in their order; warnings that the run has refuted are notes that say so."""
    listed = list(findings)
    if not any(_may_be_settled(f) for f in listed):
        return listed
    held = record.data.held_back()
    rows = every_row(held or record.data)
    judged = None if rows is None else judge(record.model, rows)
    if rows is None or judged is None:
        return listed
    return [
        _after(f, REFUTED_BY[f.code](rows, judged.metrics, held=held is not None)) if _may_be_settled(f) else f
        for f in listed
    ]


def _may_be_settled(finding: Finding) -> bool:
    return finding.code in REFUTED_BY and finding.status is Status.WARN and not finding.where.get("config_key")


def _after(finding: Finding, words: str) -> Finding:
    if not words:
        return finding
    return replace(
        finding,
        status=Status.PASS,
        role=Role.NOTE,
        message=f"{finding.message} After the run {words}: no harm was done.",
    )
