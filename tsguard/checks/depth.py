"""One failure, one cause: what is not finite is the symptom wherever something deeper is proven, and is told once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from tsguard.findings import Finding, Role, Status

DEEPER = frozenset(
    "data-nonfinite loss-empty-selection precision-overflow pad-nan-poison pad-time data-scale init-scale "
    "exploding-gradient lr-too-high".split()
)
"""Causes that make values non-finite: where one of them fails, the operation at which it shows is its symptom."""


def deepest(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The same findings: of several that name one non-finite value the fullest, as a symptom of what explains it."""
    listed = list(findings)
    causes = [f for f in listed if f.code in DEEPER and f.status is Status.FAIL and f.role is Role.CAUSE]
    kept: list[Finding] = []
    shown: dict[str, int] = {}
    for finding in listed:
        if not finding.code.startswith("nonfinite-") or finding.status is not Status.FAIL:
            kept.append(finding)
            continue
        told = replace(finding, role=Role.SYMPTOM) if causes else finding
        if finding.code not in shown:
            shown[finding.code] = len(kept)
            kept.append(told)
        elif len(told.where) > len(kept[shown[finding.code]].where):
            kept[shown[finding.code]] = told
    if not causes or not shown:
        return tuple(kept)
    explained = tuple(dict.fromkeys((*causes[0].explains, *shown)))
    return tuple(replace(f, explains=explained) if f is causes[0] else f for f in kept)
