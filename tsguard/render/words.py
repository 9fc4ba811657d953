"""Words and numbers as a person reads them: what templates use as filters, and what a code or a metric is called."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from tsguard import catalogue
from tsguard.report import dumps

BRIEF_MAX = 4000
"""Characters of one recorded fact that the page shows; the JSON beside it has the rest."""

MARKS = {"PASS": "✓", "WARN": "▲", "FAIL": "✕", "ERROR": "‼", "NOT_RUN": "○", "ENDED": "○", "DIED": "✕"}
STOPS = {
    "start": "●", "check": "✓", "gate": "◆", "train": "▶", "epoch": "○", "best": "★", "trip": "✕", "recovery": "↺",
    "resume": "↻", "end": "■",
}  # fmt: skip
VERDICT_WORDS = {
    "PASS": "Passed",
    "WARN": "Not enforced: the gate would have blocked",
    "FAIL": "Blocked",
    "ERROR": "Could not be evaluated",
    "NOT_RUN": "Could not be evaluated",
}
STATUS_WORDS = {
    "ERROR": "crashed", "FAIL": "failed", "WARN": "warned", "PASS": "passed", "NOT_RUN": "did not run"
}  # fmt: skip
KINDS = {"check": "before the run", "train": "after the run", "audit": "data audit", "suite": "suite"}
OUTCOMES = {"passed": "PASS", "failed": "FAIL", "skipped": "NOT_RUN"}


def title(code: str) -> str:
    """What a code is called; of a code of somebody's own, the code in words."""
    known = catalogue.entries().get(code)
    return sentence(code.replace("-", " ")) if known is None else known.title


def group(code: str) -> str:
    """The part of the catalogue that a code stands in."""
    known = catalogue.entries().get(code)
    return "own" if known is None else known.group


def prose(text: Any) -> Any:
    """A message with what stands between backticks as code."""
    from markupsafe import Markup, escape

    parts = str(text).split("`")
    if len(parts) % 2 == 0:
        return escape(text)
    marked = [Markup("<code>{}</code>").format(part) if at % 2 else escape(part) for at, part in enumerate(parts)]
    return Markup("").join(marked)


def moment(started: str) -> str:
    """A time as people read it; what is no time is left as it is."""
    try:
        return datetime.fromisoformat(started).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    except ValueError:
        return started


def sentence(words: str) -> str:
    """The first letter raised."""
    return words[:1].upper() + words[1:]


GIST_MAX = 200
"""Characters from which a message is told by its first sentence where there is room for one only."""


def gist(message: str) -> str:
    """The first sentence of a long message; the whole of a short one."""
    if len(message) <= GIST_MAX:
        return message
    end = re.search(r"(?<=[\w)\]`'\"])\.(?= [A-Z`])", message)
    return message if end is None else message[: end.end()]


def number(value: Any) -> str:
    """A number as a person writes it."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or (math.isfinite(value) and 1e4 <= abs(value) < 1e15):
        return f"{value:,.0f}"
    return f"{value:.4g}"


def span(seconds: float) -> str:
    """A stretch of time in the unit in which it is told."""
    if not math.isfinite(seconds):
        return "–"
    if seconds < 0.095:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s" if minutes < 10 else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02} min"


def brief(value: Any) -> str:
    """A recorded fact as text of bounded length."""
    if isinstance(value, str):
        text = value
    elif isinstance(value, Mapping | list | tuple):
        text = json.dumps(json.loads(dumps(value)), indent=1, ensure_ascii=False)
        text = text if text.count("\n") < 60 else json.dumps(json.loads(dumps(value)), ensure_ascii=False)
    else:
        text = number(value)
    return (
        text if len(text) <= BRIEF_MAX else f"{text[:BRIEF_MAX]} … ({len(text):,} characters in all, see report.json)"
    )
