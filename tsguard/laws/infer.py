"""What can be told about a padded model from the model, its data, and what the user declared.

Everything that was not declared is inferred here, once, and each inference is a sentence that the report shows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsguard.laws import validity
from tsguard.laws.reading import Reading, same_axes
from tsguard.laws.structure import Leaves, Structure, unpacked
from tsguard.padding import Padding

ROWS = 32
"""Rows of the user's data that batches are made from: enough real values and lengths, few enough to read at once."""

NARROW = (1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 32, 48, 64, 96)
"""Widths that are tried beside the data's own: small ones for small counterexamples, the others for models that cut
time into patches and run at multiples only."""

WIDE = 8
"""Once three widths up to here work, wider ones are not needed: a recurrent layer pays for each step."""


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
        asked = {name: leaf[: self._batch_size() or ROWS] for name, leaf in self.rows.items()}
        outputs, calls = self.forward(self.structure, asked, record=True)
        makers, born = validity.makers_of(calls) if mask is None else ((), ())
        rows = validity.Rows(self.rows, time, width, mask, self.padding, self.declared)
        steps = validity.valid_steps(rows, makers, born, self.say)
        widths = self._widths(time, width)
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
            mask_kind=steps.kind,
            mask_is=steps.mask_is,
            makers=makers,
            valid=steps.valid,
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
            holes=steps.holes,
            unmasked_padding=steps.unmasked,
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

    def _axis(self, place: str, axis: int, name: str) -> int:
        """A declared axis, counted from 0; a mistake in words where the input has none such, or it is the samples'."""
        shape = self.rows[name].shape
        if -len(shape) <= axis < len(shape) and axis % len(shape):
            return axis % len(shape)
        from tsguard.errors import SubjectError, explain

        raise SubjectError(
            explain(
                f"Padding.{place}",
                received=f"axis {axis} of input {name!r}, which has {len(shape)} axes",
                expected=f"an axis from 1 to {len(shape) - 1}; axis 0 holds the samples",
                todo="Count the axes of the array, samples included.",
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
                time[resolved] = self._axis(f"inputs[{name!r}]", axis, resolved)
            width = next(self.rows[name].shape[axis] for name, axis in time.items())
        else:
            ranks = {n: leaf.ndim for n, leaf in self.rows.items() if n not in (mask, feature_mask)}
            carriers = [n for n, rank in ranks.items() if rank in (3, 5) or (rank == 2 and n in self._ids())]
            if not carriers and (self.declared or mask is not None):
                carriers = [n for n, rank in ranks.items() if rank >= 2][:1]
            time = self._undeclared_time(carriers, mask)
            if not time:
                return {}
            first = next(iter(time))
            width = self.rows[first].shape[time[first]]
            for axis in sorted(set(time.values())):
                named = ", ".join(repr(name) for name, own in time.items() if own == axis)
                self.say(f"time is axis {axis} of {named} ({width} steps)")
        for name, leaf in self.rows.items():
            # Masks and timestamps follow the axis of the width; so does an undeclared second sequence.
            if name in time or name == feature_mask or leaf.ndim < 2:
                continue
            axes = [axis for axis in range(1, leaf.ndim) if leaf.shape[axis] == width]
            if axes and (name == mask or name == self.padding.timestamps or not self.padding.inputs):
                time[name] = axes[0]
        return time

    def _undeclared_time(self, carriers: list[str], mask: str | None) -> dict[str, int]:
        """Time is the axis that the mask has too; without one the only axis that the model leaves open, or axis 1."""
        if not carriers:
            return {}
        if mask is not None:
            sizes = self.rows[mask].shape[1:]
            width = next((size for size in sizes if size > 1), sizes[0])
        else:
            first = next((name for name in carriers if self._ends_padded(name)), carriers[0])
            width = self.rows[first].shape[self._open_axis(first)]
        time = {}
        for name in carriers:
            shape, guess = self.rows[name].shape, self._open_axis(name)
            axes = [guess] if shape[guess] == width else [a for a in range(1, len(shape)) if shape[a] == width]
            if axes and (mask is not None or axes[0] == guess):
                time[name] = axes[0]
        return time

    def _ends_padded(self, name: str) -> bool:
        """Whether a row of this input ends in the pad value: of sequences of different lengths, that one is padded."""
        axis = self._open_axis(name)
        time = {name: axis}
        rows = validity.Rows(self.rows, time, self.rows[name].shape[axis], None, self.padding, self.declared)
        return bool(validity.ends_of(rows.at_pad_value).any())

    def _open_axis(self, name: str) -> int:
        """The one axis of an input that the model leaves open; 1 where there is none, or more than one."""
        for tensor in getattr(self.model, "inputs", None) or ():
            if _key(tensor, self.structure, self.model) == name:
                axes = [axis for axis, size in enumerate(tensor.shape) if axis and size is None]
                return axes[0] if len(axes) == 1 else 1
        return 1

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

    def _widths(self, time: dict[str, int], width: int) -> tuple[int, ...]:
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
