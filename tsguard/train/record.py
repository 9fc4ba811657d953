"""The curves of a run that was taken up again: what it had recorded before, and what it records now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tsguard.report import Series

STEPS_MADE = "steps.bin"
"""How many steps a run has made, written after each: what was made since the last checkpoint is made again."""


def unfinished(events: Iterable[Mapping[str, Any]]) -> bool:
    """Whether training began and did not come to its end: the process was killed, or told to stop."""
    told = (event for event in events if event.get("text"))  # the guard has an end of its own
    last = [event["kind"] for event in told if event.get("kind") in ("train", "interrupted", "end")]
    return bool(last) and last[-1] != "end"


def joined(earlier: Mapping[str, Series], later: Mapping[str, Series]) -> dict[str, Series]:
    """What was recorded before, then what was recorded now, where both have it; either alone otherwise."""
    found = {**earlier, **later}
    for name in earlier.keys() & later.keys():
        first, last = earlier[name], later[name]
        kept = [(x, y) for x, y in zip(first.x, first.y, strict=True) if not last.x or x < last.x[0]]
        found[name] = Series((*(y for _, y in kept), *last.y), (*(x for x, _ in kept), *last.x), last.per)
    return found


PARTING = "val_over_train"
"""Validation loss over training loss: what parts when a model learns its rows by heart. For gates such as
`{val_over_train: "< 2 after epoch 10"}`."""


def with_parting(series: Mapping[str, Series]) -> dict[str, Series]:
    """The curves and, where both losses were recorded and are positive, their ratio."""
    train, held = series.get("epoch/loss"), series.get("epoch/val_loss")
    if train is None or held is None:
        return dict(series)
    losses = dict(zip(train.x, train.y, strict=True))
    points = [(x, y / losses[x]) for x, y in zip(held.x, held.y, strict=True) if losses.get(x, 0.0) > 0 and y >= 0]
    if not points:
        return dict(series)
    return {**series, f"epoch/{PARTING}": Series(tuple(y for _, y in points), tuple(x for x, _ in points), "epoch")}
