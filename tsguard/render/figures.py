"""The pictures of a report, by what they are about: what was learned, what is answered, the inside, the machine.

Each is drawn only where the report has its numbers. Names of series are those of the guard; `Report.figures` holds what
is no curve.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tsguard.comparison import Comparison
from tsguard.evidence import Proof
from tsguard.render import answers, inside
from tsguard.render.drawing import TRIP, Figure, figure, legend, line, whole_numbers, wide_range
from tsguard.report import Report, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TRIPS_MAX = 5
"""More marks than these would cover the curve; each trip is in the timeline."""
TERMS_MAX = 5
METRICS_MAX = 2
"""Compiled metrics that are drawn over the epochs, beside the loss."""


def of_report(report: Report) -> list[tuple[str, list[Figure]]]:
    """Every figure for which the report has numbers, under headings."""
    made = [
        ("Learning", [_losses(report), _epochs(report), *_metrics(report), inside.updates(report)]),
        (
            "Answers",
            [
                answers.histograms(report),
                answers.quality(report),
                answers.predicted_true(report),
                answers.courses(report),
            ],
        ),
        ("Inside the model", [inside.gradients(report), inside.idle(report), *inside.activations(report)]),
        ("Time and memory", [_throughput(report), _memory(report)]),
        ("Missing values", [inside.missing(report)]),
    ]
    found = [(title, [one for one in figures if one is not None]) for title, figures in made]
    return [(title, figures) for title, figures in found if figures]


def of_proof(proof: Proof, name: str) -> Figure | None:
    """The two curves of an experiment."""
    curves = [curve for curve in (proof.before, proof.after) if curve is not None and curve.x]
    if not curves:
        return None

    def draw(axes: Axes) -> None:
        for index, curve in enumerate(curves):
            line(axes, curve.x, curve.y, curve.name, index)
        legend(axes, always=True)
        axes.set_xlabel("step")
        whole_numbers(axes)

    words = " against ".join(curve.name for curve in curves)
    return figure(name, f"Proof: {proof.experiment}", words, draw, log=wide_range([c.y for c in curves]))


COMPARED = {
    "epoch/val_loss": "Validation loss of every epoch",
    "epoch/loss": "Training loss of every epoch",
    "loss": "Loss of every step",
}


def of_comparison(found: Comparison) -> list[Figure]:
    """The curves that several runs share, overlaid."""
    figures = []
    for name, title in COMPARED.items():
        series = found.series.get(name)
        if series is None or max(len(one) for one in series if one is not None) < 2:
            continue

        def draw(axes: Axes, series: Sequence[Series | None] = series, name: str = name) -> None:
            for index, one in enumerate(series):
                if one is not None:
                    line(axes, one.x, one.y, found.names[index], index)
            legend(axes, always=True)
            axes.set_xlabel("step" if name == "loss" else "epoch, counted from 0")
            whole_numbers(axes)

        wide = wide_range([one.y for one in series if one is not None])
        figures.append(figure(f"compare-{name}", title, "All runs that recorded it", draw, log=wide))
    return figures


def _losses(report: Report) -> Figure | None:
    terms = [name for name in report.series if name.startswith("loss/")][:TERMS_MAX]
    names = [*(["loss"] if "loss" in report.series else []), *(terms if len(terms) > 1 else [])]
    if not names or len(report.series[names[0]]) < 2:
        return None
    last = max(report.series[names[0]].x)
    steps = {f.where["step"] for f in report.findings if f.status >= "WARN" and isinstance(f.where.get("step"), int)}
    steps |= {m.step for m in report.timeline if m.kind == "trip" and m.step is not None}
    trips = sorted(steps)[:TRIPS_MAX]

    def draw(axes: Axes) -> None:
        for index, name in enumerate(names):
            series = report.series[name]
            line(axes, series.x, series.y, name.removeprefix("loss/"), index)
        for step in trips:
            axes.axvline(step, color=TRIP, linewidth=1.2, linestyle=":")
            # Beside the mark, on the side where there is room.
            late = step > 0.7 * last
            axes.annotate(
                f"✕ step {step} " if late else f" ✕ step {step}", (step, 0.99), xycoords=("data", "axes fraction"),
                fontsize=8.5, va="top", ha="right" if late else "left",
            )  # fmt: skip
        axes.set_xlabel("step")
        whole_numbers(axes)
        legend(axes)

    what = "the step's own loss and its terms" if len(names) > 1 else "the step's own loss, not a running mean"
    where = f"; something was found at step {', '.join(map(str, trips))}" if trips else ""
    log = wide_range([report.series[name].y for name in names])
    return figure("loss", "Loss of every step", f"{what}{where}", draw, log=log)


def _epochs(report: Report) -> Figure | None:
    return _pair(report, "epochs", "Training and validation", "the loss, as means of every epoch", "loss")


def _metrics(report: Report) -> list[Figure | None]:
    """Compiled metrics over the epochs, such as mae or accuracy."""
    own = [name.removeprefix("epoch/") for name in report.series if name.startswith("epoch/")]
    named = [name for name in own if name != "loss" and not name.startswith("val_") and "learning_rate" not in name]
    return [
        _pair(report, f"metric-{at}", name, "a metric of the model, over every epoch", name)
        for at, name in enumerate(named[:METRICS_MAX])
    ]


def _pair(report: Report, name: str, title: str, caption: str, metric: str) -> Figure | None:
    """One quantity of the epochs, of the training part and of the validation part."""
    names = [one for one in (f"epoch/{metric}", f"epoch/val_{metric}") if len(report.series.get(one, ())) > 1]
    if not names:
        return None

    def draw(axes: Axes) -> None:
        for index, one in enumerate(names):
            series = report.series[one]
            marker = "o" if len(series) <= 40 else ""
            line(axes, series.x, series.y, one.removeprefix("epoch/"), index, marker=marker)
        axes.set_xlabel("epoch, counted from 0")
        whole_numbers(axes)
        legend(axes, always=True)

    return figure(name, title, caption, draw, log=wide_range([report.series[one].y for one in names]))


def _throughput(report: Report) -> Figure | None:
    series = report.series.get("step_seconds")
    if series is None or len(series) < 4:
        return None
    middle = sorted(value for value in series.y if math.isfinite(value)) or [math.nan]

    waits = report.series.get("wait_seconds")

    def draw(axes: Axes) -> None:
        line(axes, series.x, [1000 * value for value in series.y], "step", 0)
        if waits is not None:
            line(axes, waits.x, [1000 * value for value in waits.y], "waiting between steps", 1)
        axes.set_xlabel("step")
        legend(axes)
        axes.set_ylabel("ms")
        whole_numbers(axes)

    words = f"milliseconds of every step; half of them took less than {1000 * middle[len(middle) // 2]:.3g}"
    return figure("throughput", "Time of every step", words, draw, log=wide_range([series.y]), left=50)


def _memory(report: Report) -> Figure | None:
    series = report.series.get("memory_mb")
    if series is None or len(series) < 2:
        return None
    where = "the device" if report.metrics.get("gpu_used") else "this process, Python and libraries included"

    def draw(axes: Axes) -> None:
        line(axes, series.x, series.y, "MB", 0)
        axes.set_xlabel("step")
        axes.set_ylabel("MB")
        low, high = min(series.y), max(series.y)
        if high - low < 0.05 * high:  # otherwise noise of a per cent fills the picture
            axes.set_ylim(0.9 * high, 1.02 * high)
        whole_numbers(axes)

    return figure("memory", "Memory over time", f"MB held by {where}", draw, left=50)
