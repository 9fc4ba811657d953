"""What can be told about a padded model from the model, its data, and what the user declared.

Everything that was not declared is inferred here, once, and each inference is a sentence that the report shows. The
laws read
only this: which inputs carry time and on which axis, where the mask comes from, which steps of the user's rows are
valid, at which
widths the model runs at all, and which outputs have a time axis.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tsguard.laws.structure import Leaves, Structure, unpacked
from tsguard.padding import Padding

MaskKind = Literal["input", "keras", "declared", "none"]

ROWS = 32
"""Rows of the user's data that batches are made from: enough for real values and lengths, few enough to read in no
time."""

NARROW = (1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 32, 48, 64, 96)
"""Widths that are tried beside the data's own: small ones for small counterexamples, the others for models that cut
time into
patches and run at multiples only."""

WIDE = 8
"""Once three widths up to here work, wider ones are not needed: a recurrent layer pays for each step."""


@dataclass(frozen=True)
class Maker:
    """A layer at which an implicit mask is born."""

    layer: Any
    path: str
    zeroes: bool
    """Masking sets what it masks to zero: other values can never stand there."""


@dataclass(frozen=True)
class Reading:
    """The roles that inputs, targets and outputs play."""

    model: Any
    inputs: Structure
    rows: Leaves
    targets: Structure | None
    target_rows: Leaves
    weights: NDArray[Any] | None
    time: dict[str, int]
    width: int
    widths: tuple[int, ...]
    mask: str | None
    mask_kind: MaskKind
    mask_is: int
    """The value of the mask input at valid positions: 1, or 0 where the data says so."""
    makers: tuple[Maker, ...]
    valid: NDArray[np.bool_]
    """(rows, width): which steps of the user's rows are valid."""
    features: tuple[int, str] | None
    feature_valid: NDArray[np.bool_] | None
    timestamps: str | None
    output_time: tuple[int | None, ...]
    """Per output leaf its time axis; None for a pooled one."""
    output_names: tuple[str, ...]
    target_time: dict[str, int]
    ids: frozenset[str]
    """Inputs that hold ids, not quantities."""
    padding: Padding
    declared: bool
    batch_size: int | None
    holes: tuple[tuple[int, int], ...] = ()
    """(row, step) of steps that the model masks although valid steps follow on both sides."""
    unmasked_padding: tuple[int, ...] = ()
    """Rows whose padded end holds NaN and is not masked."""
    inferred: tuple[str, ...] = field(default=())

    @property
    def padded(self) -> bool:
        """Whether anything says that batches of this model are padded."""
        return self.mask_kind != "none" or self.features is not None

    @property
    def values(self) -> tuple[str, ...]:
        """The inputs that carry time and may hold anything at padded positions."""
        special = {self.mask, self.timestamps, self.features[1] if self.features else None}
        return tuple(name for name in self.time if name not in special)

    @property
    def sequence(self) -> bool:
        """Whether an output has a time axis."""
        return any(axis is not None for axis in self.output_time)


def read(model: Any, data: Any, padding: Padding | None, forward: Callable[..., Any]) -> Reading:
    """Infer what was not declared. `forward(structure, leaves, record)` calls the model and gives (outputs, calls)."""
    return _Reader(model, data, padding, forward).read()


class _Reader:
    def __init__(self, model: Any, data: Any, padding: Padding | None, forward: Callable[..., Any]) -> None:
        self.model, self.padding, self.forward = model, padding or Padding(), forward
        self.declared = padding is not None
        self.said: list[str] = []
        names = tuple(str(t.name) for t in getattr(model, "inputs", None) or ())
        self.structure, leaves = unpacked(data.x, names)
        self.rows: Leaves = {name: leaf[:ROWS] for name, leaf in leaves.items()}
        self.target_structure: Structure | None = None
        self.target_rows: Leaves = {}
        if data.y is not None:
            self.target_structure, targets = unpacked(data.y, what="y")
            self.target_rows = {name: leaf[:ROWS] for name, leaf in targets.items()}
        weights = getattr(data, "sample_weight", None)
        self.weights = (
            None if weights is None or isinstance(weights, (dict, list, tuple)) else np.asarray(weights)[:ROWS]
        )

    def say(self, sentence: str) -> None:
        self.said.append(sentence)

    def read(self) -> Reading:
        feature_mask, timestamps = self._named_masks()
        mask = self._mask_name()
        time = self._time(mask, feature_mask)
        width = next((self.rows[name].shape[axis] for name, axis in time.items()), 1)
        outputs, calls = self.forward(self.structure, self.rows, record=True)
        makers, keras_valid = self._makers(calls) if mask is None else ((), None)
        valid, kind, mask_is, holes, unmasked = self._valid(mask, makers, keras_valid, time, width)
        widths = self._widths(time, width, mask, valid)
        leaves, names = outputs
        output_time = tuple(
            self._output_axis(leaf, name, time, width, widths) for leaf, name in zip(leaves, names, strict=True)
        )
        features, feature_valid = self._features(feature_mask)
        return Reading(
            model=self.model,
            inputs=self.structure,
            rows=self.rows,
            targets=self.target_structure,
            target_rows=self.target_rows,
            weights=self.weights,
            time=time,
            width=width,
            widths=widths,
            mask=mask,
            mask_kind=kind,
            mask_is=mask_is,
            makers=makers,
            valid=valid,
            features=features,
            feature_valid=feature_valid,
            timestamps=timestamps,
            output_time=output_time,
            output_names=names,
            target_time=self._target_time(width, output_time),
            ids=self._ids(),
            padding=self.padding,
            declared=self.declared,
            batch_size=self._batch_size(),
            holes=holes,
            unmasked_padding=unmasked,
            inferred=tuple(self.said),
        )

    def _batch_size(self) -> int | None:
        inputs = getattr(self.model, "inputs", None) or ()
        sizes = {tensor.shape[0] for tensor in inputs if len(tensor.shape)}
        return next((int(size) for size in sizes if size is not None), None)

    def _resolve(self, name: str | None) -> str | None:
        """A declared name as a leaf's name; where there is one input, every name means it."""
        if name is None or name in self.rows:
            return name
        from tsguard.errors import SubjectError, explain

        raise SubjectError(
            explain(
                "Padding",
                received=f"the input name {name!r}",
                expected=f"one of {sorted(self.rows)}",
                todo="Name the inputs as the dictionary x or the model's Input layers do.",
            )
        )

    def _named_masks(self) -> tuple[str | None, str | None]:
        feature = self._resolve(self.padding.features[1]) if self.padding.features else None
        if feature is None and not self.declared:
            feature = next((n for n in self.rows if "feature" in n.lower() and "mask" in n.lower()), None)
            if feature:
                self.say(f"input {feature!r} is taken for the mask of features, by its name")
        stamps = self._resolve(self.padding.timestamps)
        if stamps is None and not self.declared:
            stamps = next((n for n in self.rows if "timestamp" in n.lower()), None)
            if stamps:
                self.say(f"input {stamps!r} is taken for timestamps, by its name")
        return feature, stamps

    def _mask_name(self) -> str | None:
        if self.padding.mask is not None:
            return self._resolve(self.padding.mask)
        if len(self.rows) == 1:
            return None
        for name, leaf in self.rows.items():
            two_valued = leaf.dtype == bool or bool(np.isin(leaf, (0, 1)).all())
            if "mask" in name.lower() and "feature" not in name.lower() and two_valued and leaf.ndim >= 2:
                self.say(f"input {name!r} is taken for the mask, by its name and its values")
                return name
        return None

    def _time(self, mask: str | None, feature_mask: str | None) -> dict[str, int]:
        if self.padding.inputs:
            declared = dict(self.padding.inputs)
            if len(self.rows) == 1 and len(declared) == 1:
                declared = {next(iter(self.rows)): next(iter(declared.values()))}
            time = {}
            for name, axis in declared.items():
                resolved = str(self._resolve(name))
                time[resolved] = axis % self.rows[resolved].ndim
            width = next(self.rows[name].shape[axis] for name, axis in time.items())
        else:
            ranks = {n: leaf.ndim for n, leaf in self.rows.items() if n not in (mask, feature_mask)}
            carriers = [n for n, rank in ranks.items() if rank in (3, 5) or (rank == 2 and n in self._ids())]
            if not carriers and (self.declared or mask is not None):
                carriers = [n for n, rank in ranks.items() if rank >= 2][:1]
            if not carriers:
                return {}
            width = self.rows[carriers[0]].shape[1]
            time = {n: 1 for n in carriers if self.rows[n].shape[1] == width}
            self.say(f"time is axis 1 of {', '.join(map(repr, time))} ({width} steps)")
        for name, leaf in self.rows.items():
            # Masks and timestamps follow the axis of the width; so does an undeclared second sequence.
            if name in time or name == feature_mask or leaf.ndim < 2:
                continue
            axes = [axis for axis in range(1, leaf.ndim) if leaf.shape[axis] == width]
            if axes and (name == mask or name == self.padding.timestamps or not self.padding.inputs):
                time[name] = axes[0]
        return time

    def _ids(self) -> frozenset[str]:
        """Whole non-negative numbers are ids where they are stored as integers, or where the model embeds and they
        are all."""
        import keras

        embeds = any(isinstance(layer, keras.layers.Embedding) for layer in self.model._flatten_layers())
        return frozenset(
            name
            for name, leaf in self.rows.items()
            if name != self.padding.timestamps
            and leaf.size
            and (leaf.dtype.kind in "iu" or (embeds and leaf.ndim == 2 and bool((leaf == np.round(leaf)).all())))
            and bool((leaf >= 0).all())
        )

    def _makers(self, calls: Any) -> tuple[tuple[Maker, ...], NDArray[np.bool_] | None]:
        import keras

        born = [call for call in calls if call.mask_out is not None and call.mask_in is None and len(call.outputs) == 1]
        seen: dict[int, Maker] = {}
        for call in born:
            if any(call.layer is not other.layer and _contains(call.layer, other.layer) for other in born):
                continue
            seen.setdefault(id(call.layer), Maker(call.layer, call.path, isinstance(call.layer, keras.layers.Masking)))
        return tuple(seen.values()), born[0].mask_out if born else None

    def _valid(
        self,
        mask: str | None,
        makers: tuple[Maker, ...],
        keras_valid: NDArray[np.bool_] | None,
        time: dict[str, int],
        width: int,
    ) -> tuple[NDArray[np.bool_], MaskKind, int, tuple[tuple[int, int], ...], tuple[int, ...]]:
        count = next(iter(self.rows.values())).shape[0]
        full = np.ones((count, width), bool)
        if not time:
            return full, "none", 1, (), ()
        at_pad = self._at_pad_value(time, mask, width)
        if mask is not None:
            leaf = self.rows[mask]
            axis = time.get(mask, 1)
            others = tuple(a for a in range(1, leaf.ndim) if a != axis)
            marked = (leaf != 0).any(axis=others) if others else leaf != 0
            inverted = bool(marked[at_pad].any() and not marked[~at_pad].any() and at_pad.any() and (~at_pad).any())
            if inverted:
                self.say(f"mask {mask!r} is 1 at padded positions: that is where the data holds the pad value")
            return marked != inverted, "input", int(not inverted), (), ()
        if makers and keras_valid is not None and keras_valid.shape == (count, width):
            self.say(f"padding is what layer {makers[0].path!r} masks")
            ends = _ends(~keras_valid)
            holes = tuple((int(r), int(t)) for r, t in np.argwhere(~keras_valid & ~ends))
            nan_ends = _ends(self._nan_steps(time, mask, width)) & keras_valid
            unmasked = tuple(int(r) for r in np.flatnonzero(nan_ends.any(axis=1)))
            return ~(ends | nan_ends), "keras", 1, holes, unmasked
        if self.declared:
            ends = _ends(at_pad)
            if not ends.any():
                self.say("no mask anywhere, and no row ends in the pad value: the batches are not padded")
                return full, "none", 1, (), ()
            self.say(f"no mask anywhere: padded is what holds {self.padding.pad_value:g} up to the end of a row")
            return ~ends, "declared", 1, (), ()
        return full, "none", 1, (), ()

    def _steps(
        self, time: dict[str, int], mask: str | None, width: int, test: Callable[[Any], Any]
    ) -> NDArray[np.bool_]:
        hits = None
        for name, axis in time.items():
            leaf = self.rows[name]
            if name in (mask, self.padding.timestamps) or leaf.shape[axis] != width:
                continue
            moved = np.moveaxis(test(leaf), axis, 1)
            hit = moved.reshape(moved.shape[0], width, -1).all(axis=2)
            hits = hit if hits is None else hits & hit
        count = next(iter(self.rows.values())).shape[0]
        return np.zeros((count, width), bool) if hits is None else hits

    def _at_pad_value(self, time: dict[str, int], mask: str | None, width: int) -> NDArray[np.bool_]:
        value = self.padding.pad_value
        return self._steps(time, mask, width, lambda leaf: np.isnan(leaf) if np.isnan(value) else leaf == value)

    def _nan_steps(self, time: dict[str, int], mask: str | None, width: int) -> NDArray[np.bool_]:
        return self._steps(
            time, mask, width, lambda leaf: np.isnan(leaf) if leaf.dtype.kind == "f" else np.zeros(leaf.shape, bool)
        )

    def _widths(self, time: dict[str, int], width: int, mask: str | None, valid: NDArray[np.bool_]) -> tuple[int, ...]:
        """The widths at which the model runs; the data's own is one of them."""
        if not time:
            return (width,)
        for tensor in getattr(self.model, "inputs", None) or ():
            axis = time.get(_key(tensor, self.structure, self.model), None)
            if axis is not None and len(tensor.shape) > axis and tensor.shape[axis] is not None:
                return (width,)
        works: list[int] = []
        count = self._batch_size() or 1
        for candidate in (*NARROW, width, width + 1, 2 * width):
            if candidate in works or (candidate > WIDE and candidate != width and len(works) >= 3):
                continue
            if candidate == width:
                works.append(candidate)
                continue
            try:
                leaves, _names = self.forward(self.structure, self._cut(time, width, candidate, count), record=False)[0]
            except Exception:  # whatever a model raises at a width it was not made for
                continue
            if all(len(leaf) == count for leaf in leaves if leaf.ndim):
                works.append(candidate)
        if len(works) == 1:
            self.say(f"the model runs at a width of {width} steps only")
        return tuple(sorted(works))

    def _cut(self, time: dict[str, int], width: int, new: int, count: int) -> Leaves:
        cut: Leaves = {}
        for name, leaf in self.rows.items():
            leaf = leaf[np.arange(count) % len(leaf)]
            if name in time:
                index = np.arange(new) % width
                for axis in same_axes(leaf, time[name], width, masks=name == self.padding.mask):
                    leaf = np.take(leaf, index, axis=axis)
            cut[name] = leaf
        return cut

    def _output_axis(
        self, leaf: NDArray[Any], name: str, time: dict[str, int], width: int, widths: tuple[int, ...]
    ) -> int | None:
        if not time or leaf.ndim < 2:
            return None
        wanted = self.padding.outputs if self.declared else 1
        if wanted is None:
            return None
        wanted %= leaf.ndim
        if leaf.ndim <= wanted or leaf.shape[wanted] != width:
            if self.declared:
                self.say(
                    f"output {name!r} of shape {leaf.shape[1:]} has no axis of {width} steps: taken for pooled "
                    f"over time"
                )
            return None
        other = next((w for w in widths if w != width), None)
        if other is not None:
            count = self._batch_size() or 1
            leaves, names = self.forward(self.structure, self._cut(time, width, other, count), record=False)[0]
            if leaves[names.index(name)].shape[wanted] != other:
                return None
        elif not self.declared and leaf.ndim == 2:
            return None
        if not self.declared:
            self.say(f"output {name!r} has time on axis {wanted}")
        return wanted

    def _target_time(self, width: int, output_time: tuple[int | None, ...]) -> dict[str, int]:
        axis = next((axis for axis in output_time if axis is not None), None)
        if axis is None:
            return {}
        return {n: axis for n, leaf in self.target_rows.items() if leaf.ndim > axis and leaf.shape[axis] == width}

    def _features(self, name: str | None) -> tuple[tuple[int, str] | None, NDArray[np.bool_] | None]:
        if name is None:
            return None, None
        leaf = self.rows[name]
        axis = self.padding.features[0] if self.padding.features else -1
        marked = (leaf != 0).reshape(len(leaf), -1, leaf.shape[-1]).any(axis=1)
        return (axis, name), marked


def _key(tensor: Any, structure: Structure, model: Any) -> str:
    names = [str(t.name) for t in model.inputs]
    if structure.kind == "array":
        return structure.names[0]
    if structure.kind == "dict":
        struct = getattr(model, "_inputs_struct", None)
        if isinstance(struct, dict):
            return next((str(key) for key, value in struct.items() if value is tensor), str(tensor.name))
        return str(tensor.name)
    return structure.names[names.index(str(tensor.name))]


def same_axes(leaf: NDArray[Any], axis: int, width: int, *, masks: bool) -> tuple[int, ...]:
    """The axes of a leaf that time runs along: one, but for square masks of attention."""
    if not masks:
        return (axis,)
    return tuple(a for a in range(1, leaf.ndim) if leaf.shape[a] == width) or (axis,)


def _ends(flags: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The runs of true values that touch the start or the end of a row; one that is true throughout is one such run."""
    left = np.logical_and.accumulate(flags, axis=1)
    right = np.logical_and.accumulate(flags[:, ::-1], axis=1)[:, ::-1]
    return np.asarray(left | right)


def _contains(outer: Any, inner: Any) -> bool:
    return any(layer is inner for layer in outer._flatten_layers(include_self=False, recursive=True))
