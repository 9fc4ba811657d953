"""Fewer points for the same picture: of every stretch the lowest and highest value stay, so that no spike is lost."""

from __future__ import annotations

from collections.abc import Sequence

POINTS_MAX = 1000
"""More points than a figure has pixels cost bytes and show nothing."""


def decimate(x: Sequence[float], y: Sequence[float], *, points: int = POINTS_MAX) -> tuple[list[float], list[float]]:
    """At most `points` points. Values that are not finite stay where they are the only ones of their stretch."""
    if len(x) <= points:
        return list(x), list(y)
    stretches = points // 2
    kept: list[int] = []
    for number in range(stretches):
        start, stop = number * len(x) // stretches, (number + 1) * len(x) // stretches
        finite = [index for index in range(start, stop) if y[index] - y[index] == 0]
        if not finite:
            kept.append(start)
            continue
        low, high = min(finite, key=lambda i: y[i]), max(finite, key=lambda i: y[i])
        kept += sorted({low, high})
    return [x[index] for index in kept], [y[index] for index in kept]
