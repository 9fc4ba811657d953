"""Runs side by side: metrics with their winners, differing settings and environments, findings that came or went.

A difference in configuration is told apart from one in environment, and the one that touches what the metrics hang on
(optimizer, data, model, epochs) comes first: that is where a reader should look.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tsguard.findings import Status
from tsguard.report import Report, Series

HIGHER_IS_BETTER = frozenset("r2 correlation accuracy recall_min skill_vs_baseline steps_per_s".split())
LOWER_IS_BETTER = frozenset("loss val_loss rmse mae bias2_over_var duration_min data_wait_share peak_mb".split())
"""Metrics with a direction. The others (sizes, shares) differ without one being better."""

_MATTERS_FIRST = ("seed", "data", "optimizer", "loss", "model", "train", "padding", "guard")
"""Sections by how directly they move a metric. Names, gates and folders move none."""


@dataclass(frozen=True, slots=True)
class Row:
    """One metric or setting over all runs; `best` is the index of the winner, where there is one."""

    name: str
    values: tuple[Any, ...]
    best: int | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """What `tsguard diff` shows."""

    names: tuple[str, ...]
    metrics: tuple[Row, ...]
    config: tuple[Row, ...]
    environment: tuple[Row, ...]
    findings: tuple[Row, ...]
    """Codes that failed or warned in some of the runs, with their status in each ("" where absent)."""
    series: Mapping[str, tuple[Series | None, ...]]
    likely: str
    """Which difference is most likely to matter, in words."""

    @property
    def same(self) -> bool:
        """Whether metrics, configuration and findings are all equal."""
        return not (self.config or self.findings or any(_differs(row.values) for row in self.metrics))


def compare(*reports: Report) -> Comparison:
    """Two or more reports, in the order given."""
    names = tuple(_name(report, index) for index, report in enumerate(reports))
    keys = list(dict.fromkeys(name for report in reports for name in report.metrics))
    metrics = tuple(_metric(key, [report.metrics.get(key) for report in reports]) for key in keys)
    flat = [_flat(report.provenance.config) for report in reports]
    config = tuple(sorted(_differences(flat), key=lambda row: _rank(row.name)))
    around = [
        {**report.provenance.versions, "commit": report.provenance.commit, "device": report.provenance.device,
         **_flat(report.provenance.host)}
        for report in reports
    ]  # fmt: skip
    shared = [name for name in reports[0].series if any(name in report.series for report in reports[1:])]
    return Comparison(
        names=names,
        metrics=metrics,
        config=config,
        environment=tuple(_differences(around)),
        findings=tuple(_findings(reports)),
        series={name: tuple(report.series.get(name) for report in reports) for name in shared},
        likely=_likely(reports, config, around),
    )


def _name(report: Report, index: int) -> str:
    return (
        f"{report.name or 'report'} ({report.run.id})" if report.run is not None else report.name or f"report {index}"
    )


def _metric(name: str, values: Sequence[float | None]) -> Row:
    last = name.rsplit("/", 1)[-1]
    known = [(value, index) for index, value in enumerate(values) if value is not None and value == value]
    best = None
    if len({value for value, _ in known}) > 1:
        if last in HIGHER_IS_BETTER:
            best = max(known)[1]
        elif last in LOWER_IS_BETTER:
            best = min(known)[1]
    return Row(name, tuple(values), best)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            found.update(_flat(value, f"{prefix}{key}."))
        else:
            found[f"{prefix}{key}"] = value
    return found


def _differences(flat: Sequence[Mapping[str, Any]]) -> list[Row]:
    keys = list(dict.fromkeys(key for one in flat for key in one))
    rows = [Row(key, tuple(one.get(key) for one in flat)) for key in keys]
    return [row for row in rows if _differs(row.values)]


def _differs(values: Sequence[Any]) -> bool:
    return any(repr(value) != repr(values[0]) for value in values[1:])


def _findings(reports: Sequence[Report]) -> list[Row]:
    found: list[dict[str, str]] = []
    for report in reports:
        worst: dict[str, Status] = {}
        for finding in report.findings:
            if finding.status in (Status.WARN, Status.FAIL, Status.ERROR):
                worst[finding.code] = max(worst.get(finding.code, finding.status), finding.status)
        found.append({code: status.value for code, status in worst.items()})
    codes = list(dict.fromkeys(code for one in found for code in one))
    rows = [Row(code, tuple(one.get(code, "") for one in found)) for code in codes]
    return [row for row in rows if _differs(row.values)]


def _rank(key: str) -> int:
    section = key.split(".", 1)[0]
    return _MATTERS_FIRST.index(section) if section in _MATTERS_FIRST else len(_MATTERS_FIRST)


def _likely(reports: Sequence[Report], config: Sequence[Row], around: Sequence[Mapping[str, Any]]) -> str:
    """Which difference to look at first, as far as what was recorded can tell."""
    silent = sum(not report.provenance.config for report in reports)
    if silent:
        told = f"{len(reports) - silent} of {len(reports)}"
        who = "No report here" if silent == len(reports) else f"Not every report ({told})"
        return f"{who} holds the settings of its run: what differs between the runs cannot be told from here."
    telling = [row for row in config if _rank(row.name) < len(_MATTERS_FIRST)]
    elsewhere = " Versions, commit or machine differ as well." if _differences(around) else ""
    chosen = [row for row in telling if row.name.rsplit(".", 1)[-1] != "seed"]
    if telling and not chosen:
        return f"Only the seed differs: what separates these runs is what chance does.{elsewhere}"
    if len(chosen) == 1:
        row = chosen[0]
        seed = " and the seed" if len(telling) > 1 else ""
        values = " → ".join(_word(value) for value in row.values)
        return (
            f"`{row.name}` ({values}){seed} is the only recorded setting that differs and can move a metric.{elsewhere}"
        )
    if chosen:
        names = ", ".join(f"`{row.name}`" for row in chosen[:LIKELY_MAX])
        more = f" and {len(chosen) - LIKELY_MAX} more" if len(chosen) > LIKELY_MAX else ""
        return (
            f"{len(chosen)} settings that can move a metric differ at once ({names}{more}): change one at a time to "
            f"know which.{elsewhere}"
        )
    if elsewhere:
        return "No recorded setting that can move a metric differs; versions, commit or machine do."
    return "Nothing recorded that can move a metric differs: what is left is chance, and a second seed tells how much."


LIKELY_MAX = 4
"""Settings that are named in the sentence; the table has all of them."""


def _word(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else "not set" if value is None else str(value)
