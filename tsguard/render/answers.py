"""Pictures of what a model answers: spread over the epochs, against the truth, over time, and how good it got."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tsguard.render.drawing import COLOURS, DRAWABLE_MAX, INK, Figure, figure, legend, line, plain, whole_numbers
from tsguard.report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS = 5
"""Histograms in a row."""
SHOTS_MAX = 10

QUALITY = {
    "r2": "R²", "std_ratio": "s, spread of answers", "correlation": "ρ, correlation", "accuracy": "accuracy",
    "recall_min": "worst recall", "majority_share": "share of the majority",
}  # fmt: skip
LOWEST_DRAWN = -1.0
"""A worse R² is drawn here: it says no more than that, and would flatten the others."""


def snapshots(report: Report) -> list[Mapping[str, Any]]:
    """The pictures taken after some of the epochs."""
    found = report.figures.get("snapshots")
    return [shot for shot in found if isinstance(shot, Mapping)] if isinstance(found, list | tuple) else []


def quality(report: Report) -> Figure | None:
    """R² with its parts, or accuracy with the worst recall, after the chosen epochs."""
    shots = [shot for shot in snapshots(report) if shot.get("metrics")]
    names = [name for name in QUALITY if any(name in shot["metrics"] for shot in shots)]
    if len(shots) < 2 or not names:
        return None

    def draw(axes: Axes) -> None:
        for index, name in enumerate(names):
            values = [float(shot["metrics"].get(name, math.nan)) for shot in shots]
            shown = [max(value, LOWEST_DRAWN) for value in values]
            line(axes, [shot["epochs"] for shot in shots], shown, QUALITY[name], index, marker="o")
        axes.set_xlabel("epochs trained")
        whole_numbers(axes)
        legend(axes, always=True)

    words = "on up to 256 rows, of the validation part where there is one"
    if "r2" in names:
        words = f"for a given ρ the best s is ρ itself, a flat answer has s = 0; {words}"
    return figure("quality", "How good the answers got", words, draw)


def histograms(report: Report) -> Figure | None:
    """Predictions against targets after 1, 5, 10, 20 … epochs, over the same bins."""
    shots = [shot for shot in snapshots(report) if shot.get("predicted") and shot.get("true")]
    shots = [shot for shot in shots if len(shot["predicted"]) == len(shot["true"])]
    if not shots:
        return None
    if len(shots) > SHOTS_MAX:
        shots = [*shots[: SHOTS_MAX - 1], shots[-1]]
    panels = min(PANELS, len(shots))
    rows = math.ceil(len(shots) / panels)
    tallest = max(max([*shot["predicted"], *shot["true"]]) for shot in shots) or 1

    def draw(axes: Any) -> None:
        listed = axes if isinstance(axes, list) else [axes]
        for one in listed[len(shots) :]:
            one.set_visible(False)
        for shot, one in zip(shots, listed, strict=False):
            edges = shot.get("edges")
            if edges:
                centres = [(a + b) / 2 for a, b in itertools.pairwise(edges)]
            else:
                centres = list(range(len(shot["true"])))
                one.set_xticks(centres, [str(name) for name in shot.get("classes", centres)][: len(centres)])
            width = (centres[1] - centres[0]) if len(centres) > 1 else 1.0
            one.bar(centres, shot["predicted"], width=width, color=COLOURS[0], alpha=0.75)
            one.step(centres, shot["true"], where="mid", color=COLOURS[1], linewidth=1.4)
            one.set_ylim(0, 1.05 * tallest if not edges else None)
            one.set_yticks([])
            done = shot["epochs"]
            one.set_title(f"after {done} epoch{'s' * (done != 1)}")

    outside = max((float(shot.get("outside") or 0.0) for shot in shots), default=0.0)
    more = f"; the outermost bars hold up to {outside:.0%} that lie further out" if outside > 0.005 else ""
    return figure(
        "histograms", "Answers after some of the epochs", f"bars: what is answered, line: what is true{more}", draw,
        wide=True, panels=panels, rows=rows, height=1.8 * rows, left=12, top=20, gap=14 if rows == 1 else 34,
    )  # fmt: skip


def predicted_true(report: Report) -> Figure | None:
    """Every answer over its truth."""
    points = report.figures.get("predicted_true")
    if not points or not points.get("true"):
        return None
    finite = [(t, p) for t, p in zip(points["true"], points["predicted"], strict=False) if t == t and p == p]
    finite = [(t, p) for t, p in finite if max(abs(t), abs(p)) < DRAWABLE_MAX]
    if len(finite) < 2:
        return None
    values = [value for pair in finite for value in pair]
    low, high = min(values), max(values)
    reach = (low, high if high > low else low + 1)

    def draw(axes: Axes) -> None:
        axes.scatter([t for t, _ in finite], [p for _, p in finite], s=9, color=COLOURS[0], alpha=0.6, linewidths=0)
        axes.plot(reach, reach, color=INK, linewidth=0.8, linestyle="--")
        axes.set_xlabel("true")
        axes.set_ylabel("predicted")

    words = "on the dashed line an answer is exact"
    names = ("correlation", "std_ratio", "bias2_over_var", "r2")
    if all(name in report.metrics for name in names):
        rho, ratio, bias, r2 = (_short(report.metrics[name]) for name in names)
        words = f"R² = 2ρs − s² − bias²/σ² = 2·{rho}·{ratio} − {ratio}² − {bias} = {r2}; {words}"
    return figure("predictions", "Predicted against true", words, draw, height=2.9, left=50)


def courses(report: Report) -> Figure | None:
    """Answer and truth over the places of the output: the best, a typical and the worst sample."""
    found = report.figures.get("courses")
    listed = [one for one in found if one.get("true")] if isinstance(found, list | tuple) else []
    drawable = [one for one in listed if all(abs(v) < DRAWABLE_MAX for v in (*one["true"], *one["predicted"]))]
    if not drawable:
        return None

    def draw(axes: Any) -> None:
        panels = axes if isinstance(axes, list) else [axes]
        for one, panel in zip(drawable, panels, strict=True):
            line(panel, range(len(one["true"])), one["true"], "true", 0)
            line(panel, range(len(one["predicted"])), one["predicted"], "predicted", 1)
            panel.set_title(plain(f"{one['name']}, rmse {_short(one['rmse'])}"))
            panel.set_xlabel("place in the output")
            whole_numbers(panel)

    words = "dashed: what the model answers, solid: what came; of the rows that were judged, the first feature"
    return figure("courses", "Answer and truth, place by place", words, draw, wide=True, panels=len(drawable), top=20)


def _short(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 1e4 else f"{value:.3g}"
