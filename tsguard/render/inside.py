"""Pictures of the inside: gradient flow, units that do not move, sizes of updates; and what data miss over time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tsguard.render.answers import snapshots
from tsguard.render.drawing import Figure, figure, heat, label_margin, line, whole_numbers
from tsguard.report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROWS_MAX = 40
COLUMNS_MAX = 120
"""Cells beyond these are smaller than a letter."""

PREFIX = "grad_norm/"


def gradients(report: Report) -> Figure | None:
    """Layers × steps, on a log scale."""
    names = [name for name in report.series if name.startswith(PREFIX)]
    if not names or len(report.series[names[0]]) < 2:
        return None
    rows = [report.series[name] for name in names][:ROWS_MAX]
    grid = [[_log10(value) for value in _largest(row.y)] for row in rows]
    width = max(map(len, grid))
    grid = [row + [math.nan] * (width - len(row)) for row in grid]
    labels = _without_common([name.removeprefix(PREFIX) for name in names[:ROWS_MAX]])
    ends = f"{rows[0].x[0]:.0f}", f"{rows[0].x[-1]:.0f}"

    def draw(axes: Axes) -> None:
        heat(axes, grid, labels, ends, "log₁₀ of the norm")
        axes.set_xlabel("step")

    more = f"; {len(names) - len(rows)} more not drawn" if len(names) > len(rows) else ""
    words = f"norm of the gradient of every weight, on a log scale; empty where zero or not finite{more}"
    return figure(
        "gradients",
        "Gradient flow",
        words,
        draw,
        wide=True,
        height=0.2 * len(rows) + 0.75,
        left=label_margin(labels),
        right=54,
    )


def idle(report: Report) -> Figure | None:
    """Layers × epochs: the share of units that say the same for every row."""
    shots = [shot for shot in snapshots(report) if shot.get("idle")]
    names = list(dict.fromkeys(name for shot in shots for name in shot["idle"]))[:ROWS_MAX]
    if not names or not any(any(shot["idle"].values()) for shot in shots):
        return None
    grid = [[shot["idle"].get(name, math.nan) for shot in shots] for name in names]
    labels = _without_common(names)

    def draw(axes: Axes) -> None:
        heat(axes, grid, labels, None, "share of units", vmin=0, vmax=1)
        axes.set_xticks(range(len(shots)), [str(shot["epochs"]) for shot in shots])
        axes.set_xlabel("epochs trained")

    words = "share of each layer's units that give the same for every row: dead, saturated or collapsed"
    return figure(
        "idle", "Units that do not move", words, draw, height=max(1.3, 0.2 * len(names) + 0.75),
        left=label_margin(labels), right=54,
    )  # fmt: skip


ACTIVATIONS = {"zeros": "share of zeros", "std": "log₁₀ of the spread"}


def activations(report: Report) -> list[Figure | None]:
    """Layers × steps, where the guard was asked to listen to layers: how many outputs are zero, how far they spread."""
    return [_activation(report, kind, label) for kind, label in ACTIVATIONS.items()]


def _activation(report: Report, kind: str, label: str) -> Figure | None:
    prefix = f"activation_{kind}/"
    names = [name for name in report.series if name.startswith(prefix)][:ROWS_MAX]
    if not names or len(report.series[names[0]]) < 2:
        return None
    rows = [report.series[name] for name in names]
    zeros = kind == "zeros"
    grid = [[value if zeros else _log10(value) for value in _largest(row.y)] for row in rows]
    width = max(map(len, grid))
    grid = [row + [math.nan] * (width - len(row)) for row in grid]
    labels = _without_common([name.removeprefix(prefix) for name in names])
    scale = {"vmin": 0, "vmax": 1} if zeros else {}

    def draw(axes: Axes) -> None:
        heat(axes, grid, labels, (f"{rows[0].x[0]:.0f}", f"{rows[0].x[-1]:.0f}"), label, **scale)
        axes.set_xlabel("step")

    title = "Activations that are zero" if zeros else "Spread of the activations"
    words = "of what every layer puts out, once a window; empty where there is none or it is not finite"
    return figure(
        f"activation-{kind}", title, f"{label} {words}", draw, height=max(1.3, 0.2 * len(names) + 0.75),
        left=label_margin(labels), right=54,
    )  # fmt: skip


def updates(report: Report) -> Figure | None:
    """Size of the updates against the size of the weights."""
    series = report.series.get("update_ratio")
    if series is None or len(series) < 2:
        return None

    def draw(axes: Axes) -> None:
        line(axes, series.x, series.y, "‖update‖ / ‖weights‖", 0)
        axes.axhline(1e-3, linewidth=0.8, linestyle=":", color="#888888")
        axes.set_xlabel("step")
        whole_numbers(axes)

    words = "norm of the update over norm of the weights; around 0.001 (dotted) is usual"
    return figure("updates", "Size of the updates", words, draw, log=True, left=50)


def missing(report: Report) -> Figure | None:
    """Columns × rows: the share that is missing."""
    facts = report.figures.get("missing") or {}
    rows, shares = facts.get("rows"), facts.get("share")
    if not rows or not isinstance(shares, Mapping) or not any(any(values) for values in shares.values()):
        return None
    named = [(str(name), values) for name, values in shares.items() if any(values)][:ROWS_MAX]
    grid = [list(values) for _, values in named]
    names = [name for name, _ in named]

    def draw(axes: Axes) -> None:
        heat(axes, grid, names, (f"{rows[0]:,.0f}", f"{rows[-1]:,.0f}"), "share", vmin=0, vmax=1)
        axes.set_xlabel("row")

    whole = len(shares) - len(named)
    left_out = f"; {whole} complete column{'s' * (whole > 1)} left out" if whole else ""
    return figure(
        "missing", "Missing values over the rows", f"share of missing values{left_out}", draw, wide=True,
        height=max(1.2, 0.2 * len(named) + 0.75), left=label_margin(names), right=54,
    )  # fmt: skip


def _without_common(names: Sequence[str]) -> list[str]:
    """Paths without the first part that all share: the model's own name says nothing in every row."""
    parts = [name.split("/", 1) for name in names]
    if len(names) > 1 and all(len(part) == 2 and part[0] == parts[0][0] for part in parts):
        return [part[1] for part in parts]
    return list(names)


def _largest(values: Sequence[float]) -> list[float]:
    """Of each of at most `COLUMNS_MAX` stretches the largest finite value, so that rows stay side by side."""
    stretches = min(len(values), COLUMNS_MAX)
    cuts = [number * len(values) // stretches for number in range(stretches + 1)] if stretches else []
    return [
        max((value for value in values[start:stop] if math.isfinite(value)), default=math.nan)
        for start, stop in itertools.pairwise(cuts)
    ]


def _log10(value: float) -> float:
    return math.log10(value) if value > 0 and math.isfinite(value) else math.nan
