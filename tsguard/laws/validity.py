"""Which steps of the user's rows are valid, and who says so.

A mask input says it, or an implicit Keras mask, or, where the user declared padding without either, the pad value up to
the end of a row. Steps that a mask hides between valid ones, and padded ends that no mask hides, are noted on the way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsguard.laws.reading import Maker, MaskKind
from tsguard.laws.structure import Leaves
from tsguard.padding import Padding

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Validity:
    """The valid steps of the rows, and where that is known from."""

    valid: Flags
    kind: MaskKind = "none"
    mask_is: int = 1
    holes: tuple[tuple[int, int], ...] = ()
    unmasked: tuple[int, ...] = ()


@dataclass(frozen=True)
class Rows:
    """The user's rows with what is known about their time axes and their mask."""

    leaves: Leaves
    time: dict[str, int]
    width: int
    mask: str | None
    padding: Padding
    declared: bool

    @property
    def count(self) -> int:
        """How many rows."""
        return len(next(iter(self.leaves.values())))

    def steps(self, test: Callable[[Any], Any]) -> Flags:
        """(rows, width): the steps at which every input that carries values passes the test throughout."""
        hits = None
        for name, axis in self.time.items():
            leaf = self.leaves[name]
            if name in (self.mask, self.padding.timestamps) or leaf.shape[axis] != self.width:
                continue
            moved = np.moveaxis(test(leaf), axis, 1)
            hit = moved.reshape(moved.shape[0], self.width, -1).all(axis=2)
            hits = hit if hits is None else hits & hit
        return np.zeros((self.count, self.width), bool) if hits is None else hits

    @property
    def at_pad_value(self) -> Flags:
        """The steps that hold nothing but the pad value."""
        value = self.padding.pad_value
        return self.steps(lambda leaf: np.isnan(leaf) if np.isnan(value) else leaf == value)

    @property
    def at_nan(self) -> Flags:
        """The steps that hold nothing but NaN."""
        return self.steps(lambda leaf: np.isnan(leaf) if leaf.dtype.kind == "f" else np.zeros(leaf.shape, bool))


def makers_of(calls: Any) -> tuple[tuple[Maker, ...], tuple[Flags, ...]]:
    """The layers at which implicit masks are born, and these masks."""
    import keras

    born = [call for call in calls if call.mask_out is not None and call.mask_in is None and len(call.outputs) == 1]
    seen: dict[int, Maker] = {}
    for call in born:
        if any(call.layer is not other.layer and _contains(call.layer, other.layer) for other in born):
            continue
        seen.setdefault(id(call.layer), Maker(call.layer, call.path, isinstance(call.layer, keras.layers.Masking)))
    return tuple(seen.values()), tuple(call.mask_out for call in born)


def valid_steps(rows: Rows, makers: tuple[Maker, ...], born: tuple[Flags, ...], say: Callable[[str], None]) -> Validity:
    """Ask the mask input, the implicit mask, and the pad value, in this order."""
    full = np.ones((rows.count, rows.width), bool)
    if not rows.time:
        return Validity(full)
    if rows.mask is not None:
        return _by_input(rows, rows.mask, say)
    keras_valid = next((mask for mask in born if mask.shape == full.shape), None)
    if makers and keras_valid is not None:
        say(f"padding is what layer {makers[0].path!r} masks")
        ends = ends_of(~keras_valid)
        holes = tuple((int(r), int(t)) for r, t in np.argwhere(~keras_valid & ~ends))
        nan_ends = ends_of(rows.at_nan) & keras_valid
        unmasked = tuple(int(r) for r in np.flatnonzero(nan_ends.any(axis=1)))
        return Validity(~(ends | nan_ends), "keras", 1, holes, unmasked)
    if not rows.declared:
        return Validity(full)
    ends = ends_of(rows.at_pad_value)
    if ends.any() and _is_a_measurement(rows.at_pad_value, ends):
        say(f"no mask anywhere, and rows end in {rows.padding.pad_value:g} no more often than they hold it elsewhere")
        return Validity(full)
    if not ends.any():
        say("no mask anywhere, and no row ends in the pad value: the batches are not padded")
        return Validity(full)
    say(f"no mask anywhere: padded is what holds {rows.padding.pad_value:g} up to the end of a row")
    return Validity(~ends, "declared")


LONGER = 3.0
"""Padded ends are longer than the runs of the same value that a row would end in if it were cut anywhere else, by more
than runs scatter …"""

STRAY = 0.1
"""… and by more than one step in ten rows: of few rows one may end so by chance."""


def _is_a_measurement(flags: Flags, ends: Flags) -> bool:
    """Whether the pad value is one that steps have as others do: an id 0, a level that a series passes through."""
    inner = flags & ~ends
    length = np.zeros(len(flags))
    total = 0.0
    for step in range(flags.shape[1]):  # how long the run is that a row would end in after this step
        length = np.where(inner[:, step], length + 1, 0)
        total += float(length.sum())
    valid = int((~ends).sum())
    by_chance = 2 * total / valid if valid else 0.0  # a row has two ends
    return by_chance > 0 and bool(ends.sum() <= (LONGER * by_chance + STRAY) * len(flags))


def _by_input(rows: Rows, mask: str, say: Callable[[str], None]) -> Validity:
    leaf, at_pad = rows.leaves[mask], rows.at_pad_value
    axis = rows.time.get(mask, 1)
    others = tuple(a for a in range(1, leaf.ndim) if a != axis)
    marked = (leaf != 0).any(axis=others) if others else leaf != 0
    inverted = bool(marked[at_pad].any() and not marked[~at_pad].any() and at_pad.any() and (~at_pad).any())
    if inverted:
        say(f"mask {mask!r} is 1 at padded positions: that is where the data holds the pad value")
    return Validity(marked != inverted, "input", int(not inverted))


def ends_of(flags: Flags) -> Flags:
    """The runs of true values that touch the start or the end of a row; one that is true throughout is one such run."""
    left = np.logical_and.accumulate(flags, axis=1)
    right = np.logical_and.accumulate(flags[:, ::-1], axis=1)[:, ::-1]
    return np.asarray(left | right)


def _contains(outer: Any, inner: Any) -> bool:
    return any(layer is inner for layer in outer._flatten_layers(include_self=False, recursive=True))
