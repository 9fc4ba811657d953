"""Orders into which one side of a pair falls by accident: names sorted as text, parts joined the other way round, a
table written down by columns. Arrays in, orders out; whether one of them is right is for others to prove."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Order = npt.NDArray[np.intp]

MOST_SIDES = 64
"""Shorter side of a table up to which its transposed order is tried: days, stations, channels."""

PLAIN = 5.0
"""Correlation times the root of the rows, from which an order is worth a proof: the best of a million
reaches five by chance."""

MOST_ANSWERS = 8
"""Answers that are asked: the order of one is the order of all."""


def told_orders(count: int) -> Iterator[tuple[str, Order]]:
    """Orders that have a name: `y[order]` stands beside x as it should, if that is what went wrong."""
    for first in (0, 1):
        text = np.array(sorted(range(count), key=lambda number: str(number + first)))
        yield "sorted by numbers as text (1, 10, 11, 2 …)", text
        yield "sorted by number, where they are sorted as text (1, 10, 11, 2 …)", np.argsort(text)
    for side in range(2, min(count // 2, MOST_SIDES) + 1):
        if count % side == 0:
            table = np.arange(count).reshape(side, count // side)
            yield f"read by columns from a table of {side} × {count // side}", table.T.reshape(-1)
            if count // side > MOST_SIDES:
                yield f"read by columns from a table of {count // side} × {side}", table.reshape(-1, side).T.reshape(-1)


def promising(columns: Floats, answers: Floats, *, most: int = 3) -> list[tuple[str, Order]]:
    """Of all orders with a name and all shifts, those in which one column tells of one answer beyond chance."""
    count = len(columns)
    x, y = _standard(columns), _standard(answers[:, :MOST_ANSWERS])
    if not x.shape[1] or not y.shape[1]:
        return []
    found = [(float(np.abs(x.T @ y[order]).max()), words, order) for words, order in told_orders(count)]
    spectrum = np.conj(np.fft.rfft(x, axis=0))
    shifts = np.zeros(count)
    for answer in y.T:
        told = np.fft.irfft(spectrum * np.fft.rfft(answer)[:, None], n=count, axis=0)
        shifts = np.maximum(shifts, np.abs(told).max(axis=1))
    for shift in np.argsort(-shifts)[:most]:
        order = np.roll(np.arange(count), -int(shift))
        found.append((float(shifts[shift]), f"moved up by {shift:,} rows, the first ones last", order))
    ranked = sorted((one for one in found if one[0] > PLAIN / np.sqrt(count)), key=lambda one: -one[0])
    return [(words, order) for _, words, order in ranked[:most]]


def _standard(columns: Floats) -> Floats:
    """Columns that vary, of mean zero and length one: their products are correlations."""
    centred = columns - columns.mean(axis=0)
    length = np.sqrt((centred**2).sum(axis=0))
    return np.asarray(centred[:, length > 0] / length[length > 0])
