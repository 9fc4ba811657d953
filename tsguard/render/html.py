"""The page: one self-contained file, drawn from a Report alone, by templates that escape everything."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tsguard import catalogue
from tsguard.report import Report

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"


@cache
def environment() -> Environment:
    """The templates, with everything escaped and unknown names an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    env = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters["number"] = number
    env.filters["entry"] = catalogue.entry
    return env


def page(report: Report) -> str:
    """The whole page."""
    return environment().get_template("report.html").render(report=report, embedded=embedded(report))


def first_screen(report: Report) -> str:
    """What a notebook shows: verdict and findings."""
    return environment().get_template("first_screen.html").render(report=report)


def embedded(report: Report) -> Any:
    """The document as JSON that cannot end its script element."""
    from markupsafe import Markup

    text = report.to_json()
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(text)  # every character that could close the element is escaped above


def number(value: Any) -> str:
    """A number as a person writes it."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}"
