"""From numbers to inline SVG: the one place that knows matplotlib. Each drawing has a title that a screen reader says.

Text and axes take the page's own colour (`currentColor`), so that one drawing reads in light and dark; lines differ in
dash as well as in colour. Identifiers are salted with the figure's name, or two figures in one page would share them.
Margins are fixed: letting matplotlib measure every label to find them costs more than the drawing itself.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tsguard.render.decimate import decimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK = "#123457"
"""Stands for the page's text colour in a drawing; replaced by `currentColor` in the SVG."""

COLOURS = ("#2f6fb3", "#c4622d", "#3d8f5f", "#8a5fb0", "#a08a1f", "#b04a6e")
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)))
TRIP = "#d1493b"
LABEL_MAX = 34
"""Characters of a name beside an axis; its end tells layers apart."""
DRAWABLE_MAX = 1e150
"""Beyond this the arithmetic of an axis overflows; such values are left out of drawings like infinities."""
HALF, WHOLE = 4.9, 10.0
"""Inches: half of the page's width, and all of it. On screen an inch of drawing is about a hundred pixels."""
LETTER = 4.6
"""Points that a letter of a tick label takes, about."""
DECADES_WIDE = 2.0
"""Positive values over more decades than this need a log scale: otherwise the low end is a flat line."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One picture with the words beside it."""

    name: str
    title: str
    caption: str
    svg: str
    wide: bool = False
    """Whether it takes the whole width of the page."""


STYLE = {
    "svg.fonttype": "none", "text.parse_math": False, "figure.facecolor": "none", "axes.facecolor": "none",
    "font.family": "sans-serif", "font.size": 9, "axes.labelsize": 9, "legend.fontsize": 9,
    "xtick.labelsize": 8.5, "ytick.labelsize": 8.5, "axes.linewidth": 0.6, "axes.spines.top": False,
    "axes.spines.right": False, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK,
    "ytick.color": INK, "axes.formatter.useoffset": False, "axes.unicode_minus": True, "xtick.major.size": 3,
    "ytick.major.size": 3, "axes.labelpad": 3, "legend.handlelength": 1.8, "legend.columnspacing": 1.4,
    "legend.borderpad": 0.1, "legend.borderaxespad": 0.3, "axes.titlesize": 9, "axes.titlepad": 4,
    "axes.titlelocation": "left",
}  # fmt: skip


def figure(
    name: str,
    title: str,
    caption: str,
    draw: Callable[[Any], None],
    *,
    log: bool = False,
    wide: bool = False,
    height: float = 2.3,
    panels: int = 1,
    rows: int = 1,
    left: float = 42,
    right: float = 8,
    top: float = 8,
    gap: float = 34,
) -> Figure:
    """Draw into axes (or a list of them, of several panels) and take the SVG. Margins and gaps are in points."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Canvas

    width = WHOLE if wide else HALF
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        # What matplotlib remarks (a glyph that its own font lacks, an axis without extent) is no news to the reader.
        warnings.simplefilter("ignore")
        canvas = Canvas(figsize=(width, height))
        device = FigureCanvasSVG(canvas)
        axes = canvas.subplots(rows, panels, squeeze=panels * rows == 1)
        made = [axes] if panels * rows == 1 else list(axes.flat)
        draw(axes if len(made) == 1 else made)
        # A legend stands above its axes, where it covers no curve.
        above = top + 15 * max((_legend_rows(one) for one in made), default=0)
        x, y = 72 * width, 72 * height
        inner = max(1.0, (x - left - right - gap * (panels - 1)) / panels)
        tall = max(1.0, (y - above - 33 - gap * (rows - 1)) / rows)
        canvas.subplots_adjust(
            left=left / x, right=1 - right / x, bottom=33 / y, top=1 - above / y, wspace=gap / inner, hspace=gap / tall
        )
        for one in made if log else ():
            _log(one)
        buffer = io.StringIO()
        # Straight to the device: `savefig` would lay out and draw everything twice.
        device.print_svg(buffer, metadata={"Date": None, "Creator": None})
    return Figure(name, title, caption, _inline(buffer.getvalue(), title, name), wide)


def line(axes: Axes, x: Sequence[float], y: Sequence[float], label: str, index: int, marker: str = "") -> None:
    """One curve, with at most as many points as can be seen."""
    few_x, few_y = decimate(list(x), [value if abs(value) < DRAWABLE_MAX else math.nan for value in y])
    style: Any = DASHES[index % len(DASHES)]
    axes.plot(
        few_x, few_y, label=plain(label), color=COLOURS[index % len(COLOURS)], linestyle=style,
        linewidth=1.4, marker=marker, markersize=3,
    )  # fmt: skip


LEGEND_ROW = 58
"""Letters that stand beside each other above half a page."""


def legend(axes: Axes, *, always: bool = False) -> None:
    """Names above the axes; of a single curve the title tells enough."""
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) < (1 if always else 2):
        return
    columns = _columns(labels)
    axes.legend(handles, labels, frameon=False, loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=columns)


def _columns(labels: Sequence[str]) -> int:
    return max(1, min(len(labels), LEGEND_ROW // (max(map(len, labels)) + 6)))


def _legend_rows(axes: Axes) -> int:
    found = axes.get_legend()
    labels = [] if found is None else [text.get_text() for text in found.get_texts()]
    return math.ceil(len(labels) / _columns(labels)) if labels else 0


def whole_numbers(axes: Axes) -> None:
    """Steps and epochs are counted, so that no tick stands between two of them."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))


def _log(axes: Axes) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = axes.dataLim.intervaly
    axes.set_yscale("log")
    few = not (low > 0 and math.isfinite(high)) or math.log10(high / low) < DECADES_WIDE
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,), numticks=8))
    # Powers written plainly: matplotlib parses formulas by a grammar, which costs more than the drawing.
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("e+", "e").replace("e0", "e"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def heat(
    axes: Axes, grid: Sequence[Sequence[float]], names: Sequence[str], ends: tuple[str, str] | None, label: str,
    **scale: Any,
) -> None:  # fmt: skip
    """Rows of cells with their names, and a scale beside them."""
    image = axes.imshow(grid, aspect="auto", cmap="viridis", interpolation="nearest", **scale)
    axes.set_yticks(range(len(names)), [plain(name) for name in names], fontsize=8)
    if ends is not None:
        axes.set_xticks([0, len(grid[0]) - 1] if len(grid[0]) > 1 else [0], ends[: len(grid[0])])
    bar = axes.figure.colorbar(image, ax=axes, pad=0.01, fraction=0.03, aspect=12)
    bar.outline.set_visible(False)
    bar.set_label(label)


def label_margin(names: Sequence[str]) -> float:
    """Points that the longest of these names takes beside an axis."""
    return min(LABEL_MAX + 1, max((len(name) for name in names), default=4)) * LETTER + 10


def plain(words: str) -> str:
    """A name as matplotlib draws it literally: no formulas, no line breaks, its end where it is long."""
    tidy = "".join(char if char.isprintable() else " " for char in words)
    return tidy if len(tidy) <= LABEL_MAX else f"…{tidy[-LABEL_MAX:]}"


def wide_range(lines: Sequence[Sequence[float]]) -> bool:
    """Whether positive values span more than two decades: then only a log scale shows the low end."""
    values = [value for one in lines for value in one if math.isfinite(value)]
    return bool(values) and min(values) > 0 and max(values) / min(values) > 10**DECADES_WIDE


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
