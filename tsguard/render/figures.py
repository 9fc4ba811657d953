"""Figures as inline SVG, drawn from the numbers of a Report alone. Each has a title that a screen reader says.

Text and axes take the page's own colour (`currentColor`), so that one drawing reads in light and dark; lines differ in
dash as well as in colour. Identifiers are salted with the figure's name, or two figures in one page would share them.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tsguard.comparison import Comparison
from tsguard.evidence import Proof
from tsguard.render.decimate import decimate
from tsguard.report import Report, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK = "#123457"
"""Stands for the page's text colour in a drawing; replaced by `currentColor` in the SVG."""

COLOURS = ("#2f6fb3", "#c4622d", "#3d8f5f", "#8a5fb0", "#a08a1f", "#b04a6e")
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)))
TERMS_MAX = 6
HEATMAP_ROWS_MAX = 40
TABLES_MAX = 12


@dataclass(frozen=True, slots=True)
class Figure:
    """One picture with the words beside it."""

    name: str
    title: str
    caption: str
    svg: str


def of_report(report: Report) -> list[Figure]:
    """Every figure for which the report has numbers."""
    makers: tuple[Callable[[Report], Figure | None], ...] = (
        _losses, _epochs, _gradients, _updates, _predicted_true, _confusion, _throughput,
    )  # fmt: skip
    found = [made for made in (maker(report) for maker in makers) if made is not None]
    found += _distributions(report)
    missing = _missing(report)
    return [*found, missing] if missing is not None else found


def of_proof(proof: Proof, name: str) -> Figure | None:
    """The two curves of an experiment."""
    curves = [curve for curve in (proof.before, proof.after) if curve is not None and curve.x]
    if not curves:
        return None

    def draw(axes: Axes) -> None:
        for index, curve in enumerate(curves):
            _line(axes, curve.x, curve.y, curve.name, index)
        _legend(axes)
        axes.set_xlabel("step")

    return _figure(name, f"Proof: {proof.experiment}", proof.summary, draw, log=_wide([c.y for c in curves]))


def of_comparison(found: Comparison) -> list[Figure]:
    """The curves that several runs share, overlaid."""
    figures = []
    for name in ("epoch/val_loss", "epoch/loss", "loss"):
        series = found.series.get(name)
        if series is None:
            continue

        def draw(axes: Axes, series: Sequence[Series | None] = series) -> None:
            for index, one in enumerate(series):
                if one is not None:
                    _line(axes, one.x, one.y, found.names[index], index)
            _legend(axes)

        wide = _wide([one.y for one in series if one is not None])
        figures.append(_figure(f"compare-{name}", name, f"{name} of all runs", draw, log=wide))
    return figures


def _losses(report: Report) -> Figure | None:
    names = [name for name in report.series if name == "loss" or name.startswith("term/")][:TERMS_MAX]
    if not names or len(report.series[names[0]]) < 2:
        return None
    trips = sorted({int(f.where["step"]) for f in report.findings if "step" in f.where and f.status >= "WARN"})

    def draw(axes: Axes) -> None:
        for index, name in enumerate(names):
            series = report.series[name]
            _line(axes, series.x, series.y, name.removeprefix("term/"), index)
        for step in trips:
            axes.axvline(step, color="#c0392b", linewidth=1, linestyle=":")
            axes.annotate(f"step {step}", (step, 1), xycoords=("data", "axes fraction"), fontsize=8, color="#c0392b")
        axes.set_xlabel("step")
        _legend(axes)

    where = f"; trips at step {', '.join(map(str, trips))}" if trips else ""
    return _figure(
        "loss", "Loss of every step", f"the step's own loss and its terms{where}", draw, log=_wide_of(report, names)
    )


def _epochs(report: Report) -> Figure | None:
    names = [name for name in ("epoch/loss", "epoch/val_loss") if len(report.series.get(name, ())) > 1]
    if not names:
        return None

    def draw(axes: Axes) -> None:
        for index, name in enumerate(names):
            series = report.series[name]
            _line(axes, series.x, series.y, name.removeprefix("epoch/"), index, marker="o")
        axes.set_xlabel("epoch")
        _legend(axes)

    return _figure("epochs", "Training and validation", "means of every epoch", draw, log=_wide_of(report, names))


def _gradients(report: Report) -> Figure | None:
    names = [name for name in report.series if name.startswith("grad_norm/")]
    if not names or len(report.series[names[0]]) < 2:
        return None
    rows = [report.series[name] for name in names][:HEATMAP_ROWS_MAX]
    grid = [[_log10(value) for value in decimate(row.x, row.y, points=120)[1]] for row in rows]
    width = max(map(len, grid))
    grid = [row + [math.nan] * (width - len(row)) for row in grid]
    labels = [re.sub(r"^grad_norm/[^/]*/?", "", name) or name for name in names[:HEATMAP_ROWS_MAX]]

    def draw(axes: Axes) -> None:
        image = axes.imshow(grid, aspect="auto", cmap="viridis", interpolation="nearest")
        axes.set_yticks(range(len(labels)), [label[-34:] for label in labels], fontsize=7)
        axes.set_xticks([0, width - 1], [f"{rows[0].x[0]:.0f}", f"{rows[0].x[-1]:.0f}"])
        axes.set_xlabel("step")
        bar = axes.figure.colorbar(image, ax=axes, pad=0.01)
        bar.set_label("log₁₀ norm")
        _ink(bar.ax)

    more = f"; {len(names) - len(rows)} more not drawn" if len(names) > len(rows) else ""
    return _figure(
        "gradients", "Gradient flow", f"norm of every parameter's gradient on a log scale{more}", draw,
        height=max(1.6, 0.22 * len(rows) + 0.8),
    )  # fmt: skip


def _updates(report: Report) -> Figure | None:
    series = report.series.get("update_ratio")
    if series is None or len(series) < 2:
        return None

    def draw(axes: Axes) -> None:
        _line(axes, series.x, series.y, "‖update‖ / ‖weights‖", 0)
        axes.set_xlabel("step")
        _legend(axes)

    return _figure("updates", "Size of the updates", "around 10⁻³ is usual", draw, log=True)


def _predicted_true(report: Report) -> Figure | None:
    points = report.figures.get("predicted_true")
    if not points or not points.get("true"):
        return None
    true, predicted = points["true"], points["predicted"]
    finite = [(t, p) for t, p in zip(true, predicted, strict=True) if math.isfinite(t) and math.isfinite(p)]
    if len(finite) < 2:
        return None

    def draw(axes: Axes) -> None:
        axes.scatter([t for t, _ in finite], [p for _, p in finite], s=8, color=COLOURS[0], alpha=0.6, linewidths=0)
        low, high = min(t for t, _ in finite), max(t for t, _ in finite)
        axes.plot([low, high], [low, high], color=INK, linewidth=0.8, linestyle="--")
        axes.set_xlabel("true")
        axes.set_ylabel("predicted")

    words = "on the dashed line predictions are exact"
    names = ("correlation", "std_ratio", "bias2_over_var", "r2")
    if all(name in report.metrics for name in names):
        rho, ratio, bias, r2 = (report.metrics[name] for name in names)
        words = f"R² = 2ρs − s² − bias²/σ² = 2·{rho:.3f}·{ratio:.3f} − {ratio:.3f}² − {bias:.3f} = {r2:.3f}"
    return _figure("predictions", "Predicted against true", words, draw, height=3.2, width=4.2)


def _confusion(report: Report) -> Figure | None:
    grid = report.figures.get("confusion")
    if not grid:
        return None

    def draw(axes: Axes) -> None:
        axes.imshow(grid, cmap="Blues")
        for row, values in enumerate(grid):
            for column, value in enumerate(values):
                dark = value > 0.6 * max(map(max, grid))
                axes.text(
                    column, row, str(value), ha="center", va="center", fontsize=8, color="white" if dark else "black"
                )
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")

    return _figure("confusion", "Confusion", "rows are true classes", draw, height=3.0, width=3.6)


def _throughput(report: Report) -> Figure | None:
    series = report.series.get("step_seconds")
    if series is None or len(series) < 4:
        return None

    def draw(axes: Axes) -> None:
        _line(axes, series.x, [1000 * value for value in series.y], "ms a step", 0)
        axes.set_xlabel("step")
        _legend(axes)

    return _figure("throughput", "Time of every step", "milliseconds", draw, log=_wide([series.y]))


def _distributions(report: Report) -> list[Figure]:
    columns: Mapping[str, Any] = report.figures.get("distributions") or {}
    figures = []
    for index, (name, facts) in enumerate(list(columns.items())[:TABLES_MAX]):
        edges, counts = facts.get("edges"), facts.get("counts")
        if not edges or not counts or len(edges) != len(counts) + 1:
            continue

        def draw(axes: Axes, edges: Sequence[float] = edges, counts: Sequence[float] = counts) -> None:
            axes.stairs(counts, edges, fill=True, color=COLOURS[0], alpha=0.8)
            axes.set_yticks([])

        mean, deviation = facts.get("mean", math.nan), facts.get("std", math.nan)
        words = f"mean {mean:.4g}, deviation {deviation:.4g}, {facts.get('missing', 0)} missing"
        figures.append(_figure(f"column-{index}", str(name), words, draw, width=2.6, height=1.3))
    return figures


def _missing(report: Report) -> Figure | None:
    facts = report.figures.get("missing") or {}
    rows, shares = facts.get("rows"), facts.get("share")
    if not rows or not isinstance(shares, Mapping) or not any(any(values) for values in shares.values()):
        return None
    named = [(name, values) for name, values in shares.items() if any(values)][:HEATMAP_ROWS_MAX]
    grid = [list(values) for _, values in named]

    def draw(axes: Axes) -> None:
        image = axes.imshow(grid, aspect="auto", cmap="magma_r", vmin=0, vmax=1, interpolation="nearest")
        axes.set_yticks(range(len(named)), [str(name)[-30:] for name, _ in named], fontsize=7)
        axes.set_xlabel("row")
        axes.set_xticks([0, len(grid[0]) - 1], [f"{rows[0]:.0f}", f"{rows[-1]:.0f}"])
        _ink(axes.figure.colorbar(image, ax=axes, pad=0.01).ax)

    return _figure(
        "missing", "Missing over time", "share of missing values", draw, height=max(1.5, 0.22 * len(named) + 0.8)
    )


def _line(axes: Axes, x: Sequence[float], y: Sequence[float], label: str, index: int, marker: str = "") -> None:
    few_x, few_y = decimate(list(x), [value if math.isfinite(value) else math.nan for value in y])
    style: Any = DASHES[index % len(DASHES)]
    axes.plot(
        few_x, few_y, label=label.replace("$", r"\$"), color=COLOURS[index % len(COLOURS)], linestyle=style,
        linewidth=1.4, marker=marker, markersize=3,
    )  # fmt: skip


def _legend(axes: Axes) -> None:
    legend = axes.legend(frameon=False, fontsize=8)
    for text in legend.get_texts():
        text.set_color(INK)


def _ink(axes: Axes) -> None:
    axes.tick_params(colors=INK, labelsize=8)
    for label in (axes.xaxis.label, axes.yaxis.label, axes.title):
        label.set_color(INK)
        label.set_fontsize(8)
    for spine in axes.spines.values():
        spine.set_color(INK)
        spine.set_linewidth(0.6)


def _figure(
    name: str,
    title: str,
    caption: str,
    draw: Callable[[Any], None],
    *,
    log: bool = False,
    width: float = 7.2,
    height: float = 2.4,
) -> Figure:
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Canvas

    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif"}):
        canvas = Canvas(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(canvas)
        axes = canvas.add_subplot()
        draw(axes)
        if log:
            axes.set_yscale("log")
        axes.patch.set_alpha(0)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        _ink(axes)
        buffer = io.StringIO()
        canvas.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return Figure(name, title, caption, _inline(buffer.getvalue(), title, name))


def _inline(svg: str, title: str, name: str) -> str:
    """The drawing without its prologue, named for screen readers, in the page's own colour."""
    from markupsafe import escape

    body = svg[svg.index("<svg") :]
    head, rest = body.split(">", 1)
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    identity = f"title-{re.sub(r'[^a-z0-9]+', '-', name.lower())}"
    head += f' role="img" aria-labelledby="{identity}"'
    rest = re.sub(r"<metadata>.*?</metadata>", "", rest, flags=re.S)
    return f'{head}><title id="{identity}">{escape(title)}</title>{rest}'.replace(INK, "currentColor")


def _wide_of(report: Report, names: Sequence[str]) -> bool:
    return _wide([report.series[name].y for name in names])


def _wide(lines: Sequence[Sequence[float]]) -> bool:
    """Whether positive values span more than two decades: then only a log scale shows the low end."""
    values = [value for line in lines for value in line if math.isfinite(value)]
    return bool(values) and min(values) > 0 and max(values) / min(values) > 100


def _log10(value: float) -> float:
    return math.log10(value) if value > 0 and math.isfinite(value) else math.nan
