"""Runs side by side, as a page and a terminal show them: tables by what they are about, and who won where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tsguard.comparison import Comparison, Row
from tsguard.render.metrics import COSTS, PARTS


@dataclass(frozen=True, slots=True)
class Compared:
    """A comparison, put in order."""

    names: tuple[str, ...]
    likely: str
    wins: str
    tables: tuple[tuple[str, tuple[Row, ...]], ...]
    same: bool
    config: bool
    metrics: bool


LOSSES = ("loss", "val_loss")
INCOMPARABLE = " The runs minimise different losses, whose values are not compared."


def compared(found: Comparison) -> Compared:
    """Metrics of the validation part first, then of training, then what it took; then what was set and found."""
    groups: dict[str, list[Row]] = {}
    bare = {row.name for row in found.metrics}
    # Values of two different losses are not of one kind: neither is the better one.
    losses_differ = any(row.name.split(".", 1)[0] == "loss" for row in found.config)
    for row in found.metrics:
        if losses_differ and row.name in LOSSES:
            row = Row(row.name, row.values)
        part, _, rest = row.name.partition("/")
        if row.name.rsplit("/", 1)[-1] in COSTS:
            groups.setdefault("What it took", []).append(row)
        elif part in PARTS and rest:
            groups.setdefault(f"On the {PARTS[part]} part", []).append(Row(rest, row.values, row.best))
        elif any(f"{one}/{row.name}" in bare for one in PARTS):
            continue  # the bare name repeats what its part says
        elif row.name.startswith("val_"):
            groups.setdefault(f"On the {PARTS['val']} part", []).insert(0, row)
        elif row.name == "loss":
            groups.setdefault(f"On the {PARTS['train']} part", []).insert(0, row)
        else:
            groups.setdefault("Metrics", []).append(row)
    order = (*(f"On the {name} part" for name in PARTS.values()), "Metrics", "What it took")
    tables = [("Settings that differ", found.config)]
    tables += [(title, tuple(groups[title])) for title in order if title in groups]
    tables += [
        ("Environment that differs", found.environment),
        ("Findings that differ", found.findings),
    ]
    return Compared(
        names=found.names,
        likely=found.likely + (INCOMPARABLE if losses_differ else ""),
        wins=_wins(found, groups),
        tables=tuple((title, rows) for title, rows in tables if rows),
        same=found.same,
        config=bool(found.config),
        metrics=bool(found.metrics),
    )


def _wins(found: Comparison, groups: dict[str, list[Row]]) -> str:
    """Who is best how often where it counts: on the validation part, else on whatever was measured."""
    where, rows = next(
        ((title, groups[title]) for title in (*(f"On the {name} part" for name in PARTS.values()), "Metrics")
         if any(row.best is not None for row in groups.get(title, ()))),
        ("", []),
    )  # fmt: skip
    decided = [row for row in rows if row.best is not None]
    if not decided:
        return ""
    counts = [sum(row.best == at for row in decided) for at in range(len(found.names))]
    most = counts.index(max(counts))
    place = where[0].lower() + where[1:] if where != "Metrics" else "in what was measured"
    if counts[most] == len(decided):
        every = f"every one of {len(decided)} metrics" if len(decided) > 1 else decided[0].name
        return f"{found.names[most]} is best in {every} {place}."
    others = [f"{found.names[at]} in {count}" for at, count in enumerate(counts) if at != most and count]
    named = _listed([row.name for row in decided if row.best == most])
    return (
        f"{found.names[most]} is best in {counts[most]} of {len(decided)} metrics {place} ({named}), {_listed(others)}."
    )


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
