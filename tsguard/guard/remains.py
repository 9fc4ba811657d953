"""What a run that died left in its events: the numbers up to the last flush, and every finding that was made by
then."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tsguard.findings import Finding
from tsguard.report import Series, finding_from


@dataclass
class Remains:
    """The guard's part of a run's events."""

    findings: list[Finding] = field(default_factory=list)
    points: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    last_step: int | None = None

    @property
    def series(self) -> dict[str, Series]:
        """The points as a report holds them."""
        return {
            name: Series(
                tuple(y for _, y in points),
                tuple(x for x, _ in points),
                "epoch" if name.startswith("epoch/") else "step",
            )
            for name, points in self.points.items()
        }

    def _point(self, name: str, at: float, value: Any) -> None:
        if isinstance(value, (int, float)):
            self.points.setdefault(name, []).append((float(at), float(value)))


def remains(events: Iterable[Mapping[str, Any]]) -> Remains:
    """Read them back."""
    found = Remains()
    for event in events:
        kind = event.get("kind")
        if kind == "steps":
            for name, values in event.items():
                if isinstance(values, list):
                    for offset, value in enumerate(values):
                        found._point(name, event["first"] + offset, value)
            length = max((len(values) for values in event.values() if isinstance(values, list)), default=0)
            found.last_step = event["first"] + max(length - 1, 0)
        elif kind == "epoch":
            for name, value in (event.get("logs") or {}).items():
                found._point(f"epoch/{name}", event["epoch"], value)
        elif kind == "finding" and event.get("finding"):
            found.findings.append(finding_from(event["finding"]))
    return found
