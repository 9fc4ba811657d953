"""Units that do nothing: dead ones and saturated ones, at the start of a run or where it ended."""

from __future__ import annotations

from collections.abc import Iterator

from tsguard import catalogue
from tsguard.checks.bench import name_of
from tsguard.evidence import Evidence
from tsguard.findings import Finding
from tsguard.probes.activations import Units, dead_units, saturated_units
from tsguard.probes.stage import Step

DEAD_SHARE = 0.9
"""Half of a healthy ReLU layer may be silent on one-sided inputs; with nine of ten dead, width is gone."""


SATURATED_SHARE = 0.8
"""Share of values on the flat parts from which hardly any gradient passes a layer. Gates that are open or shut on
purpose stay well below it at the start."""


def unit_findings(steps: list[Step], *, when: str = "at the start") -> Iterator[Finding]:
    """Layers whose units are dead or saturated in the given steps."""
    dead = [u for u in dead_units(steps) if u.share >= DEAD_SHARE and u.width >= 2]
    flat_ = [u for u in saturated_units(steps) if u.share >= SATURATED_SHARE]
    for code, found, what in (
        ("dead-units", dead, "of {width} ReLU units are zero for every sample"),
        ("saturated-units", flat_, "of the values lie on the flat part of {op}"),
    ):
        if found:
            worst: Units = max(found, key=lambda u: u.share)
            place = "the model" if worst.layer is None else name_of(worst.layer)
            said = what.format(width=worst.width, op=worst.op)
            others = f" ({len(found)} layers in all)" if len(found) > 1 else ""
            yield catalogue.finding(
                code,
                f"{worst.share:.0%} {said} in {place} {when}{others}: hardly any gradient passes back. "
                f"{catalogue.entry(code).mend}",
                where={"layer": None if worst.layer is None else place},
                evidence=(Evidence("value", worst.share, name="share"),),
                score=worst.share,
            )
