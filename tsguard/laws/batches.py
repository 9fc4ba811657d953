"""Batches of any length and padding, made from the user's own rows.

A sample is a row of the user's data and a length; the material cuts or repeats the row's valid steps to that length and
pads the rest. Shrinking a sample means an earlier row and fewer steps. The strategies draw samples, never arrays: what
stands at valid positions is always the user's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from tsguard.laws.reading import Reading, same_axes
from tsguard.laws.structure import Leaves

HUGE = 1e4
"""Times the largest magnitude in the data: far outside, and still inside float16 for data of order one; overflow is the
business of `pad-nan-poison`."""

KINDS = ("ones", "data", "huge")
"""What is put at padded positions, the plainest first, so that shrinking ends there."""

MOST_SAMPLES = 8
"""Samples in one generated batch: enough for neighbours of other lengths; each batch is one forward pass for all of
them."""


@dataclass(frozen=True, order=True)
class Sample:
    """One row of the user's data, cut or repeated to a number of valid steps (and of valid features)."""

    length: int
    row: int
    features: int = 0


@dataclass(frozen=True)
class Example:
    """What Hypothesis draws: samples, the width of the batch, and what to put where nothing counts."""

    samples: tuple[Sample, ...]
    width: int
    more: int = 0
    """A second, larger width, where a law compares two."""
    kind: str = "ones"
    seed: int = 0
    at: int = 0
    """A step that a law cuts at."""

    @property
    def size(self) -> tuple[int, ...]:
        """Smaller is plainer: fewer samples, a narrower batch, shorter samples, plainer values."""
        lengths = sum(sample.length for sample in self.samples)
        kind = KINDS.index(self.kind) if self.kind in KINDS else 0
        return (
            len(self.samples),
            self.width,
            self.more,
            lengths,
            kind,
            self.seed,
            *(sample.row for sample in self.samples),
        )


@dataclass(frozen=True)
class Batch:
    """Arrays as the model takes them, and which of their positions count."""

    x: Leaves
    y: Leaves
    weight: NDArray[Any] | None
    valid: NDArray[np.bool_]
    features: NDArray[np.bool_] | None = None


class Material:
    """Makes batches from a reading."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.count = len(next(iter(reading.rows.values())))
        usable = np.flatnonzero(reading.valid.any(axis=1))
        self.usable = usable if len(usable) else np.arange(self.count)
        self.scale = {name: self._scale(leaf) for name, leaf in reading.rows.items()}
        self.feature_size = reading.feature_valid.shape[1] if reading.feature_valid is not None else 0

    @staticmethod
    def _scale(leaf: NDArray[Any]) -> float:
        finite = np.abs(leaf[np.isfinite(leaf)]) if leaf.dtype.kind == "f" else np.abs(leaf.astype(float))
        return float(finite.max(initial=0.0)) or 1.0

    @property
    def right(self) -> bool:
        return self.reading.padding.side == "right"

    def batch(self, samples: Sequence[Sample], width: int, *, right: bool | None = None) -> Batch:
        """A batch of these samples, padded to the width on the side on which the user's data is padded, or on this."""
        reading = self.reading
        right = self.right if right is None else right
        rows = np.array([self.usable[sample.row % len(self.usable)] for sample in samples])
        lengths = np.array([min(sample.length, width) for sample in samples])
        steps = np.arange(width)
        valid = steps[None, :] < lengths[:, None] if right else steps[None, :] >= width - lengths[:, None]
        features = None
        if reading.feature_valid is not None:
            own = np.where([s.features == 0 for s in samples], self.feature_size, [s.features for s in samples])
            features = np.arange(self.feature_size)[None, :] < own[:, None]
        x = {
            name: self._leaf(name, leaf, rows, lengths, width, valid, features, right=right)
            for name, leaf in reading.rows.items()
        }
        y = {
            name: self._target(name, leaf, rows, lengths, width, right=right)
            for name, leaf in reading.target_rows.items()
        }
        return Batch(x, y, self._weight(rows, width, valid), valid, features)

    def _leaf(
        self,
        name: str,
        leaf: NDArray[Any],
        rows: Any,
        lengths: Any,
        width: int,
        valid: NDArray[np.bool_],
        features: Any,
        *,
        right: bool,
    ) -> NDArray[Any]:
        reading = self.reading
        if reading.features is not None and name == reading.features[1]:
            return np.broadcast_to(
                features.reshape(len(rows), *([1] * (leaf.ndim - 2)), -1), (len(rows), *leaf.shape[1:])
            ).astype(leaf.dtype)
        if name not in reading.time:
            return np.asarray(leaf[rows])
        axis = reading.time[name]
        if name == reading.mask:
            return self.mask_leaf(leaf, axis, valid, features)
        pad = self._pad(name, leaf)
        placed = self._placed(leaf, axis, rows, lengths, width, pad, right=right)
        if name == reading.timestamps:
            placed = _repeat_last(placed, axis, valid) if self._repeats_last(leaf, axis) else placed
        elif features is not None and reading.features is not None:
            along = self.feature_axis(name, leaf)
            if along is not None:
                placed = np.where(_along(features, placed.ndim, along), placed, np.asarray(pad, leaf.dtype))
        return placed

    def mask_leaf(self, leaf: NDArray[Any], axis: int, valid: NDArray[np.bool_], features: Any = None) -> NDArray[Any]:
        """The mask input for these valid steps, in the shape that the user's mask has."""
        reading = self.reading
        width = valid.shape[1]
        axes = same_axes(leaf, axis, reading.width, masks=True)
        shape = [len(valid), *leaf.shape[1:]]
        for along in axes:
            shape[along] = width
        flags = np.ones(shape, bool)
        for along in axes:
            flags &= _along(valid, leaf.ndim, along)
        if features is not None and leaf.ndim == 3 and leaf.shape[2] == self.feature_size:
            flags &= _along(features, 3, 2)
        return (flags if reading.mask_is else ~flags).astype(leaf.dtype)

    def _pad(self, name: str, leaf: NDArray[Any]) -> float:
        value = self.reading.padding.pad_value
        if self.reading.unmasked_padding and leaf.dtype.kind == "f":
            return float("nan")
        if self.reading.mask_kind == "keras" and not self.reading.declared:
            value = next((float(m.layer.mask_value) for m in self.reading.makers if m.zeroes), value)
        # NaN is put there by the laws about NaN; the others would only say the same again.
        return 0.0 if np.isnan(value) and (leaf.dtype.kind != "f" or self.reading.mask_kind == "input") else value

    def _placed(
        self, leaf: NDArray[Any], axis: int, rows: Any, lengths: Any, width: int, pad: float, *, right: bool
    ) -> NDArray[Any]:
        moved = np.moveaxis(leaf, axis, 1)
        out = np.full((len(rows), width, *moved.shape[2:]), np.asarray(pad).astype(leaf.dtype), leaf.dtype)
        for i, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            if length == 0:
                continue
            steps = np.flatnonzero(self.reading.valid[row])
            steps = steps if len(steps) else np.arange(self.reading.width)
            # Cut from the side that is not padded, so that the steps nearest to the padding stay real neighbours.
            chosen = np.resize(steps, length) if length > len(steps) else steps[:length]
            where = slice(0, length) if right else slice(width - length, width)
            out[i, where] = moved[row, chosen]
            if length > len(steps) and self._is_time(leaf):
                out[i, where] = _continued(moved[row, steps], length)
        return np.moveaxis(out, 1, axis)

    def _is_time(self, leaf: NDArray[Any]) -> bool:
        stamps = self.reading.timestamps
        return stamps is not None and leaf is self.reading.rows[stamps]

    def _repeats_last(self, leaf: NDArray[Any], axis: int) -> bool:
        """Whether the user's padded timestamps repeat the last valid one; with no padding in the data: yes, which is
        neutral."""
        moved = np.moveaxis(leaf, axis, 1).reshape(len(leaf), self.reading.width, -1)[..., 0]
        for stamps, valid in zip(moved, self.reading.valid, strict=True):
            if valid.any() and not valid.all():
                edge = stamps[valid][-1 if self.right else 0]
                return bool((stamps[~valid] == edge).all())
        return True

    def _target(
        self, name: str, leaf: NDArray[Any], rows: Any, lengths: Any, width: int, *, right: bool
    ) -> NDArray[Any]:
        axis = self.reading.target_time.get(name)
        if axis is None:
            return np.asarray(leaf[rows])
        return self._placed(leaf, axis, rows, lengths, width, self.target_pad(name) or 0.0, right=right)

    def target_pad(self, name: str) -> float | None:
        """What stands at every padded target of the user's data; None where it differs, 0 where nothing is padded."""
        axis = self.reading.target_time[name]
        padded = np.moveaxis(self.reading.target_rows[name], axis, 1)[~self.reading.valid]
        if not padded.size:
            return 0.0
        return float(padded.flat[0]) if bool((padded == padded.flat[0]).all()) else None

    def valid_targets(self, name: str) -> NDArray[Any]:
        """The user's targets at valid positions."""
        return np.moveaxis(self.reading.target_rows[name], self.reading.target_time[name], 1)[self.reading.valid]

    def _weight(self, rows: Any, width: int, valid: NDArray[np.bool_]) -> NDArray[Any] | None:
        """The user's sample weights; per step where theirs are, and zero at padded steps if theirs are."""
        weights = self.reading.weights
        if weights is None:
            return None
        if weights.ndim < 2 or weights.shape[1] != self.reading.width:
            return np.asarray(weights[rows])
        masks = bool((weights[~self.reading.valid] == 0).all())
        return (valid if masks else np.ones_like(valid)).astype(np.float32)

    def disturbed(self, batch: Batch, example: Example, *, over: str = "time") -> Leaves:
        """The inputs with other values at padded steps, or at padded features of valid steps."""
        rng = np.random.default_rng(example.seed)
        x = dict(batch.x)
        for name in self.reading.values:
            leaf = x[name]
            padded = self.padded_positions(name, batch, over)
            x[name] = np.where(padded, self.other_values(name, leaf, example.kind, rng), leaf).astype(leaf.dtype)
        return x

    def padded_positions(self, name: str, batch: Batch, over: str) -> NDArray[np.bool_]:
        """Where in a leaf nothing counts."""
        leaf = batch.x[name]
        time = np.broadcast_to(_along(batch.valid, leaf.ndim, self.reading.time[name]), leaf.shape)
        if over == "time":
            return ~time
        along = self.feature_axis(name, leaf)
        if along is None or batch.features is None:
            return np.zeros(leaf.shape, bool)
        return np.asarray(time & ~_along(batch.features, leaf.ndim, along))

    def feature_axis(self, name: str, leaf: NDArray[Any]) -> int | None:
        """The axis of an input that features lie on, if it has them."""
        features = self.reading.features
        axis = (features[0] if features else -1) % leaf.ndim
        if axis in (0, self.reading.time.get(name)) or leaf.shape[axis] != self.reading.rows[name].shape[axis]:
            return None
        return axis if not self.feature_size or leaf.shape[axis] == self.feature_size else None

    def with_more_features(self, batch: Batch, count: int) -> Batch:
        """The batch with so many padded features more, in inputs, masks and targets."""
        assert batch.features is not None
        reading, size = self.reading, self.feature_size

        def longer(leaf: NDArray[Any], axis: int, pad: float) -> NDArray[Any]:
            shape = list(leaf.shape)
            shape[axis] = count
            return np.concatenate([leaf, np.full(shape, np.asarray(pad).astype(leaf.dtype), leaf.dtype)], axis=axis)

        x = dict(batch.x)
        for name, leaf in batch.x.items():
            along = self.feature_axis(name, leaf) if name in reading.values else None
            if reading.features is not None and name == reading.features[1]:
                x[name] = longer(leaf, leaf.ndim - 1, 0.0)
            elif along is not None:
                x[name] = longer(leaf, along, self._pad(name, leaf))
            elif name == reading.mask and leaf.ndim == 3 and leaf.shape[2] == size != batch.valid.shape[1]:
                x[name] = longer(leaf, 2, 0.0 if reading.mask_is else 1.0)
        y = {
            name: longer(leaf, leaf.ndim - 1, 0.0) if self.has_features(name) else leaf
            for name, leaf in batch.y.items()
        }
        more = np.concatenate([batch.features, np.zeros((len(batch.features), count), bool)], axis=1)
        return Batch(x, y, batch.weight, batch.valid, more)

    def has_features(self, target: str) -> bool:
        """Whether a target has one number per feature, on its last axis."""
        leaf = self.reading.target_rows[target]
        last = leaf.ndim - 1
        return last > 0 and leaf.shape[last] == self.feature_size and self.reading.target_time.get(target) != last

    def other_values(self, name: str, leaf: NDArray[Any], kind: str, rng: np.random.Generator) -> NDArray[Any]:
        """Values that differ from the pad value: one unit of the data's scale, values of the data, or huge ones."""
        own = self.reading.rows[name]
        if name in self.reading.ids or leaf.dtype.kind in "iub":
            pool = np.unique(own)
            pool = pool[pool != self.reading.padding.pad_value] if len(pool) > 1 else pool
            return rng.choice(pool, leaf.shape) if kind != "ones" else np.full(leaf.shape, pool[-1])
        scale = self.scale[name]
        pad = self._pad(name, leaf)
        base = 0.0 if np.isnan(pad) else pad
        if kind == "ones":
            return np.full(leaf.shape, base + scale)
        if kind == "huge":
            return np.asarray(base + HUGE * scale * rng.choice([-1.0, 1.0], leaf.shape))
        finite = own[np.isfinite(own)]
        return np.asarray(rng.choice(finite, leaf.shape) + scale * rng.uniform(0.1, 1.0, leaf.shape))


def _along(flags: NDArray[np.bool_], rank: int, axis: int) -> NDArray[np.bool_]:
    """Flags of (batch, n) shaped so that they broadcast along one axis of a leaf."""
    shape = [1] * rank
    shape[0], shape[axis] = flags.shape
    return flags.reshape(shape)


def _continued(stamps: NDArray[Any], length: int) -> NDArray[Any]:
    """Timestamps repeated past their end go on rising by the steps that they had."""
    gaps = np.diff(stamps, axis=0)
    if not len(gaps):
        return np.repeat(stamps[:1], length, axis=0)
    more = np.resize(gaps, (length - 1, *stamps.shape[1:]))
    return np.concatenate([stamps[:1], stamps[:1] + np.cumsum(more, axis=0)])


def _repeat_last(leaf: NDArray[Any], axis: int, valid: NDArray[np.bool_]) -> NDArray[Any]:
    moved = np.moveaxis(leaf, axis, 1).copy()
    for i, flags in enumerate(valid):
        if flags.any() and not flags.all():
            edge = np.flatnonzero(flags)[-1 if flags[0] else 0]
            moved[i, ~flags] = moved[i, edge]
    return np.moveaxis(moved, 1, axis)


def examples(
    material: Material,
    *,
    widths: Sequence[int],
    kinds: Sequence[str] = ("ones",),
    padded: bool = True,
    least: int = 1,
    features: bool = False,
    more: bool = False,
) -> st.SearchStrategy[Example]:
    """Batches of one to eight samples. `padded`: the first sample has at least one padded step; `more`: two widths."""
    fixed = material.reading.batch_size

    @st.composite
    def draw(pick: st.DrawFn) -> Example:
        usable = [w for w in widths if w >= (2 if padded else 1)] or list(widths)
        first = pick(st.sampled_from(usable[:-1] if more and len(usable) > 1 else usable))
        wider = [w for w in widths if w > first]
        second = pick(st.sampled_from(wider)) if more and wider else 0
        count = fixed or pick(st.integers(least, MOST_SAMPLES))
        samples = []
        for i in range(count):
            longest = max(first - 1, 1) if padded and i == 0 else first
            length = pick(st.integers(1, longest))
            row = pick(st.integers(0, len(material.usable) - 1))
            own = pick(st.integers(1, max(material.feature_size - 1, 1))) if features else 0
            samples.append(Sample(length, row, own))
        at = pick(st.integers(0, max(first - 2, 0)))
        return Example(tuple(samples), first, second, pick(st.sampled_from(list(kinds))), pick(st.integers(0, 255)), at)

    return draw()
