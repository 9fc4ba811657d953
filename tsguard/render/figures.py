"""Figures as inline SVG, drawn from the numbers of a Report alone. Each has a title that a screen reader says.

Text and axes take the page's own colour (`currentColor`), so that one drawing reads in light and dark; lines differ in
dash as well as in colour. Identifiers are salted with the figure's name, or two figures in one page would share them.
"""

from __future__ import annotations

import io
import itertools
import math
import re
import warnings
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
TRIP = "#d1493b"
TRIPS_MAX = 5
"""More marks than these would cover the curve; each trip is in the timeline."""
TERMS_MAX = 6
HEATMAP_ROWS_MAX = 40
HEATMAP_COLUMNS_MAX = 120
LABEL_MAX = 34
"""Characters of a name beside an axis; its end tells layers apart."""

DRAWABLE_MAX = 1e150
"""Beyond this the arithmetic of an axis overflows; such values are left out of drawings like infinities."""


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
        _losses, _epochs, _predicted_true, _gradients, _updates, _throughput, _missing,
    )  # fmt: skip
    return [made for made in (maker(report) for maker in makers) if made is not None]


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

    words = " against ".join(curve.name for curve in curves)
    return _figure(name, f"Proof: {proof.experiment}", words, draw, log=_wide([c.y for c in curves]))


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
    steps = {f.where["step"] for f in report.findings if f.status >= "WARN" and isinstance(f.where.get("step"), int)}
    trips = sorted(steps)[:TRIPS_MAX]

    def draw(axes: Axes) -> None:
        for index, name in enumerate(names):
            series = report.series[name]
            _line(axes, series.x, series.y, name.removeprefix("term/"), index)
        for step in trips:
            axes.axvline(step, color=TRIP, linewidth=1.2, linestyle=":")
            axes.annotate(f" ✕ step {step}", (step, 0.97), xycoords=("data", "axes fraction"), fontsize=8, va="top")
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
    grid = [[_log10(value) for value in _largest(row.y)] for row in rows]
    width = max(map(len, grid))
    grid = [row + [math.nan] * (width - len(row)) for row in grid]
    labels = [name.removeprefix("grad_norm/") for name in names[:HEATMAP_ROWS_MAX]]

    def draw(axes: Axes) -> None:
        image = axes.imshow(grid, aspect="auto", cmap="viridis", interpolation="nearest")
        axes.set_yticks(range(len(labels)), [_plain(label) for label in labels], fontsize=7)
        axes.set_xticks([0, width - 1], [f"{rows[0].x[0]:.0f}", f"{rows[0].x[-1]:.0f}"])
        axes.set_xlabel("step")
        bar = axes.figure.colorbar(image, ax=axes, pad=0.01)
        bar.set_label("log₁₀ norm")

    more = f"; {len(names) - len(rows)} more not drawn" if len(names) > len(rows) else ""
    return _figure(
        "gradients", "Gradient flow", f"norms on a log scale; empty where zero or not finite{more}", draw,
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
    finite = [(t, p) for t, p in zip(true, predicted, strict=True) if max(abs(t), abs(p)) < DRAWABLE_MAX]
    finite = [(t, p) for t, p in finite if t == t and p == p]
    if len(finite) < 2:
        return None

    values = [value for pair in finite for value in pair]
    low, high = min(values), max(values)
    reach = (low, high if high > low else low + 1)

    def draw(panels: Sequence[Axes]) -> None:
        scatter, spread = panels
        scatter.scatter([t for t, _ in finite], [p for _, p in finite], s=8, color=COLOURS[0], alpha=0.6, linewidths=0)
        scatter.plot(reach, reach, color=INK, linewidth=0.8, linestyle="--")
        scatter.set_xlabel("true")
        scatter.set_ylabel("predicted")
        spread.hist([p for _, p in finite], bins=30, range=reach, color=COLOURS[0], alpha=0.6, label="predicted")
        spread.hist([t for t, _ in finite], bins=30, range=reach, histtype="step", color=COLOURS[1], label="true")
        spread.set_xlabel("value")
        spread.set_yticks([])
        _legend(spread)

    words = "left: on the dashed line predictions are exact; right: how widely both are spread"
    names = ("correlation", "std_ratio", "bias2_over_var", "r2")
    if all(name in report.metrics for name in names):
        rho, ratio, bias, r2 = (report.metrics[name] for name in names)
        words = f"R² = 2ρs − s² − bias²/σ² = 2·{rho:.3f}·{ratio:.3f} − {ratio:.3f}² − {bias:.3f} = {r2:.3f}; {words}"
    return _figure("predictions", "Predicted against true", words, draw, height=2.6, panels=2)


def _throughput(report: Report) -> Figure | None:
    series = report.series.get("step_seconds")
    if series is None or len(series) < 4:
        return None

    def draw(axes: Axes) -> None:
        _line(axes, series.x, [1000 * value for value in series.y], "ms a step", 0)
        axes.set_xlabel("step")
        _legend(axes)

    return _figure("throughput", "Time of every step", "milliseconds", draw, log=_wide([series.y]))


def _missing(report: Report) -> Figure | None:
    facts = report.figures.get("missing") or {}
    rows, shares = facts.get("rows"), facts.get("share")
    if not rows or not isinstance(shares, Mapping) or not any(any(values) for values in shares.values()):
        return None
    named = [(name, values) for name, values in shares.items() if any(values)][:HEATMAP_ROWS_MAX]
    grid = [list(values) for _, values in named]

    def draw(axes: Axes) -> None:
        image = axes.imshow(grid, aspect="auto", cmap="viridis", vmin=0, vmax=1, interpolation="nearest")
        axes.set_yticks(range(len(named)), [_plain(str(name)) for name, _ in named], fontsize=7)
        axes.set_xlabel("row")
        axes.set_xticks([0, len(grid[0]) - 1], [f"{rows[0]:.0f}", f"{rows[-1]:.0f}"])
        axes.figure.colorbar(image, ax=axes, pad=0.01)

    return _figure(
        "missing",
        "Missing over time",
        "share of missing values; columns that miss nothing are left out",
        draw,
        height=max(1.5, 0.22 * len(named) + 0.8),
    )


def _line(axes: Axes, x: Sequence[float], y: Sequence[float], label: str, index: int, marker: str = "") -> None:
    few_x, few_y = decimate(list(x), [value if abs(value) < DRAWABLE_MAX else math.nan for value in y])
    style: Any = DASHES[index % len(DASHES)]
    axes.plot(
        few_x, few_y, label=_plain(label), color=COLOURS[index % len(COLOURS)], linestyle=style,
        linewidth=1.4, marker=marker, markersize=3,
    )  # fmt: skip


def _legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)


def _plain(words: str) -> str:
    """A name as matplotlib draws it literally: no formulas, no line breaks, its end where it is long."""
    tidy = "".join(char if char.isprintable() else " " for char in words)
    return tidy if len(tidy) <= LABEL_MAX else f"…{tidy[-LABEL_MAX:]}"


STYLE = {
    "svg.fonttype": "none", "text.parse_math": False, "figure.facecolor": "none", "axes.facecolor": "none",
    "font.family": "sans-serif", "font.size": 9, "axes.labelsize": 9, "legend.fontsize": 9,
    "xtick.labelsize": 8, "ytick.labelsize": 8, "axes.linewidth": 0.6, "axes.spines.top": False,
    "axes.spines.right": False, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK,
    "ytick.color": INK, "axes.formatter.useoffset": False, "axes.unicode_minus": True,
}  # fmt: skip


def _figure(
    name: str,
    title: str,
    caption: str,
    draw: Callable[[Any], None],
    *,
    log: bool = False,
    width: float = 7.2,
    height: float = 2.4,
    panels: int = 1,
) -> Figure:
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Canvas
    from matplotlib.ticker import NullFormatter

    with mpl.rc_context({**STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        # What matplotlib remarks (a glyph that its own font lacks, an axis without extent) is no news to the reader.
        warnings.simplefilter("ignore")
        canvas = Canvas(figsize=(width, height), layout="constrained")
        device = FigureCanvasSVG(canvas)
        axes = canvas.subplots(1, panels)
        draw(axes)
        if log:
            axes.set_yscale("log")
            # Powers written plainly: matplotlib parses formulas by a grammar, which costs more than the drawing.
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.yaxis.set_minor_formatter(NullFormatter())
        buffer = io.StringIO()
        # Straight to the device: `savefig` would lay out and draw everything twice.
        device.print_svg(buffer, metadata={"Date": None, "Creator": None})
    return Figure(name, title, caption, _inline(buffer.getvalue(), title, name))


def _inline(svg: str, title: str, name: str) -> str:
    """The drawing without its prologue, named for screen readers, in the page's own colour.

    Identifiers that nothing refers to go, the others carry the figure's name, because a page holds many figures.
    Places are told to a tenth of a point: more digits only cost bytes.
    """
    from markupsafe import escape

    own = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    body = svg[svg.index("<svg") :]
    head, rest = body.split(">", 1)
    head = re.sub(r' (width|height|xmlns:xlink|version)="[^"]*"', "", head)
    head += f' role="img" aria-labelledby="title-{own}"'
    rest = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", rest, flags=re.S)
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', rest))
    rest = re.sub(r' id="([^"]*)"', lambda m: f' id="{own}-{m[1]}"' if m[1] in used else "", rest)
    rest = re.sub(r'(xlink:href="|url\()#', lambda m: f"{m[1].replace('xlink:', '')}#{own}-", rest)
    rest = rest.replace("xlink:href=", "href=")
    rest = re.sub(r"<(?:path|rect|text|use|g|image)\b[^>]*>", _short_numbers, rest)
    rest = re.sub(r"\s*\n\s*", "\n", rest)
    return f'{head}><title id="title-{own}">{escape(title)}</title>{rest}'.replace(INK, "currentColor")


def _short_numbers(tag: re.Match[str]) -> str:
    """Coordinates with one digit after the point; images keep their data, and scales of text their digits."""
    return re.sub(
        r'( (?:d|x|y|width|height)=")([^"]*)"',
        lambda m: m[1] + re.sub(r"-?\d+\.\d{2,}", lambda n: f"{float(n[0]):.1f}", m[2]) + '"',
        tag[0],
    )


def _wide_of(report: Report, names: Sequence[str]) -> bool:
    return _wide([report.series[name].y for name in names])


def _wide(lines: Sequence[Sequence[float]]) -> bool:
    """Whether positive values span more than two decades: then only a log scale shows the low end."""
    values = [value for line in lines for value in line if math.isfinite(value)]
    return bool(values) and min(values) > 0 and max(values) / min(values) > 100


def _largest(values: Sequence[float]) -> list[float]:
    """Of each of at most `HEATMAP_COLUMNS_MAX` stretches the largest finite value, so that rows stay side by side."""
    stretches = min(len(values), HEATMAP_COLUMNS_MAX)
    cuts = [number * len(values) // stretches for number in range(stretches + 1)] if stretches else []
    return [
        max((value for value in values[start:stop] if math.isfinite(value)), default=math.nan)
        for start, stop in itertools.pairwise(cuts)
    ]


def _log10(value: float) -> float:
    return math.log10(value) if value > 0 and math.isfinite(value) else math.nan
