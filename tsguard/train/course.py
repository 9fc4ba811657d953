"""The course of a training as its guard hears it: epochs, trips and recoveries, for the page's timeline."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from tsguard.report import Moment

MOMENTS_MAX = 1000
"""Epochs beyond this many are told every second, fourth … one: a page shows them folded anyway."""

TOLD = ("loss", "val_loss")
"""What of an epoch's logs is told."""


class Course:
    """Keeps what is worth a place on the timeline, by a clock that others can start from too."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._heard: list[tuple[float, str, str, int | None]] = []

    def hear(self, event: Mapping[str, Any], step: int | None = None) -> None:
        """One event of the guard's journal."""
        kind = str(event.get("kind"))
        if kind == "epoch":
            self._keep(kind, _of_epoch(event), step)
        elif kind == "trip":
            self._keep(kind, str(event.get("code")), event.get("step"))
        elif kind == "recovery":
            self._keep(kind, str(event.get("text")), event.get("step"))

    def _keep(self, kind: str, text: str, step: int | None) -> None:
        self._heard.append((self._clock(), kind, text, step))
        epochs = [number for number, one in enumerate(self._heard) if one[1] == "epoch"]
        if len(epochs) > MOMENTS_MAX:
            dropped = set(epochs[1::2])
            self._heard = [one for number, one in enumerate(self._heard) if number not in dropped]

    def moments(self, since: float | None = None) -> tuple[Moment, ...]:
        """Everything heard, in seconds since a moment of the same clock (default: since the course began)."""
        start = self._began if since is None else since
        return tuple(Moment(round(at - start, 3), kind, text, step) for at, kind, text, step in self._heard)


def _of_epoch(event: Mapping[str, Any]) -> str:
    logs = event.get("logs") or {}
    told = ", ".join(f"{name} {logs[name]:.4g}" for name in TOLD if isinstance(logs.get(name), int | float))
    return f"epoch {event.get('epoch')}" + (f": {told}" if told else "")
