"""What happened held against what was declared: `plan:` and the metrics of a finished run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tsguard import catalogue
from tsguard.errors import ConfigError, GateError, explain
from tsguard.evidence import Evidence
from tsguard.findings import Finding
from tsguard.gate import Condition

SLACK = {"epochs": 0.0, "duration_min": 0.25, "peak_mb": 0.25, "artifact_mb": 0.1}
"""How far a plain number may be missed by, as a share of it. Time and memory vary from machine to machine by about a
quarter; a file of weights hardly varies at all. Epochs are counted. A range means what it says."""

AT_MOST = frozenset({"epochs", "peak_mb"})
"""Quantities of which a plain number is what there is to spend: less of it is no other run. Who wants no early end says
so (`">= 10"`)."""


def off_plan(declared: Mapping[str, Any], metrics: Mapping[str, float]) -> Iterator[Finding]:
    """A finding for every declared quantity that lies outside of its plan."""
    for name in SLACK:
        planned, value = declared.get(name), metrics.get(name)
        if planned is None or value is None or within(name, planned, value):
            continue
        yield catalogue.finding(
            "off-plan",
            f"{name} is {value:.4g}, and {planned} was declared{_meant(name, planned)}.",
            where={"config_key": f"plan.{name}"},
            evidence=[Evidence("value", {"planned": str(planned), "measured": value}, name=name)],
            check="plan",
        )
    if (wanted := declared.get("gpu_used")) is not None and "gpu_used" in metrics:
        used = bool(metrics["gpu_used"])
        if used != bool(wanted):
            words = ("no GPU was used, and one was declared", "a GPU was used, and none was declared")[used]
            yield catalogue.finding("off-plan", f"{words}.", where={"config_key": "plan.gpu_used"}, check="plan")


QUANTITIES = ("samples", "batches_per_epoch", *SLACK)
"""What a plan may say as a number, a bound or a range."""
FACTS = ("price_per_hour", "gpu_used", "timesteps", "features", "transferred_from", "transferred_into")
"""What a plan may say besides."""


def require_plan(declared: Mapping[str, Any]) -> None:
    """A ConfigError for what no plan knows, and for a quantity that cannot be read."""
    unknown = sorted(set(declared) - {*QUANTITIES, *FACTS})
    if unknown:
        raise ConfigError(
            explain("plan", received=", ".join(unknown), expected=f"names among: {', '.join((*QUANTITIES, *FACTS))}",
                    todo="Check the spelling; what is not known here would be held against nothing.")
        )  # fmt: skip
    for name in QUANTITIES:
        planned = declared.get(name)
        pair = isinstance(planned, list | tuple) and len(planned) == 2
        if planned is None or as_number(planned) is not None or (pair and None not in map(as_number, planned)):
            continue
        try:
            Condition.parse(name, planned)
        except GateError:
            raise ConfigError(
                explain(f"plan.{name}", received=repr(planned), expected="a number, '25..50' or '< 50'",
                        todo="Write a number or a range.")
            ) from None  # fmt: skip


def within(name: str, planned: Any, value: float) -> bool:
    """Whether a value lies inside a plan: a number (with its slack), a bound ("< 50"), a range ("25..50") or a pair."""
    if isinstance(planned, list | tuple):
        low, high = planned
        return bool(low <= value <= high)
    number = as_number(planned)
    if number is not None:
        short = number - value if name not in AT_MOST else 0.0
        return max(value - number, short) <= SLACK.get(name, 0.0) * abs(number)
    return Condition.parse(name, planned).judge(value)


def as_number(planned: Any) -> float | None:
    """The plan as one number, where it is one."""
    try:
        return float(planned)
    except (TypeError, ValueError):
        return None


def _meant(name: str, planned: Any) -> str:
    return f" (± {SLACK[name]:.0%})" if as_number(planned) is not None and SLACK[name] else ""
