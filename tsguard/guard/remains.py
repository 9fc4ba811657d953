"""What a run's own events tell of it, also of one that died or was taken up again: curves, findings, the last step.

The guard writes its losses window by window, the logs epoch by epoch, and every finding when it is made. Where a step
stands twice it was trained twice, after a resume; the later one is the one that entered the weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tsguard.findings import Finding
from tsguard.report import Series, finding_from


@dataclass
class Remains:
    """The guard's part of a run's events."""

    series: dict[str, Series]
    findings: list[Finding]
    last_step: int | None = None


def remains(events: Iterable[Mapping[str, Any]]) -> Remains:
    """Read them back."""
    events = list(events)
    findings = [finding_from(event["finding"]) for event in events if event.get("finding")]
    ends = [
        int(event["first"]) + max((len(values) for values in event.values() if isinstance(values, list)), default=1) - 1
        for event in events
        if event.get("kind") == "steps"
    ]
    return Remains(curves(events), findings, max(ends, default=None))


def curves(
    events: Iterable[Mapping[str, Any]], *, before_step: int | None = None, before_epoch: int | None = None
) -> dict[str, Series]:
    """Series by the names that the guard gives them; only what lies before a step and an epoch, where given."""
    points: dict[str, dict[float, float]] = {}
    for event in events:
        if event.get("kind") == "steps":
            for name, values in event.items():
                for offset, value in enumerate(values if isinstance(values, list) else ()):
                    at = int(event["first"]) + offset
                    if isinstance(value, int | float) and (before_step is None or at < before_step):
                        points.setdefault(name, {})[at] = float(value)
        elif event.get("kind") == "epoch":
            epoch = int(event["epoch"])
            if before_epoch is None or epoch < before_epoch:
                for name, value in (event.get("logs") or {}).items():
                    if isinstance(value, int | float):
                        points.setdefault(f"epoch/{name}", {})[epoch] = float(value)
    return {
        name: Series(
            tuple(at[x] for x in sorted(at)), tuple(sorted(at)), "epoch" if name.startswith("epoch/") else "step"
        )
        for name, at in points.items()
    }
