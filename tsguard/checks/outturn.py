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


STREAM_SLACK = 0.1
"""By how much the batches of an epoch may miss the number declared, where they are counted as they come: a stream that
leaves out what it cannot use does not know before how many that will be."""


def batches_made(series: Mapping[str, Any]) -> dict[str, float]:
    """How many epochs a run made and how many batches each of them had, off its recorded losses."""
    epochs, steps = series.get("epoch/loss"), series.get("loss")
    if not epochs:
        return {}
    made = {"epochs": float(len(epochs))}
    if steps:
        made["batches_per_epoch"] = round(max(steps.x) - min(steps.x) + 1) / len(epochs)
    return made


def ran_dry(context: Any, made: Mapping[str, float]) -> Iterator[Finding]:
    """A stream that ended before the batches that were declared: how many it holds is known when it has been read.

    A run that a callback ended is not judged: the last epoch that it made may be half of one.
    """
    count, ended = made.get("batches_per_epoch"), getattr(context.model, "stop_training", False)
    planned = context.declared.get("batches_per_epoch") or context.fit.get("steps_per_epoch")
    if count is None or ended or planned is None or context.data is None or context.data.is_arrays:
        return
    number = as_number(planned)
    low = number * (1 - STREAM_SLACK) if number is not None else None
    if count == context.batches_per_epoch or (count >= low if low is not None else within("", planned, count)):
        return
    yield catalogue.finding(
        "data-volume",
        f"an epoch had {count:.4g} batches, and {planned} were declared: what hands them over "
        f"({type(context.data.x).__name__}) ends early. Look for what leaves its loop, and at the file that it reads.",
        where={"phase": "data", "config_key": "plan.batches_per_epoch"},
        evidence=[Evidence("value", {"planned": str(planned), "measured": count}, name="batches of an epoch")],
        check="plan",
    )


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
