"""The arrays of a subject by name, with what is known of each: input or target, ids, mask, clock, padded places.

Checks on data ask here, so that "is this a mask?" or "does this go into an embedding?" is answered in one place.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tsguard.checks.registry import Context
from tsguard.probes.data import as_array, by_feature, is_binary, is_number, thinned

Array = npt.NDArray[Any]

CLOCK_NAMES = frozenset({"time", "times", "timestamp", "timestamps", "datetime", "date", "clock", "epoch_seconds"})
"""Names by which inputs that hold points in time are usually called; `Padding.timestamps` is believed first."""

_NORMALISING = frozenset(
    "Normalization BatchNormalization LayerNormalization GroupNormalization RMSNormalization UnitNormalization "
    "Rescaling Discretization Hashing StringLookup IntegerLookup".split()
)


@dataclass(frozen=True)
class Named:
    """One array of the data."""

    name: str
    array: Array
    role: str
    """"input" or "target"."""
    names: tuple[str, ...] = ()
    valid: Array | None = None
    """(samples, time): False where the input is padded, if a mask says so."""
    ids: bool = False
    mask: bool = False
    clock: bool = False

    def feature(self, index: int) -> str | int:
        """The feature's name if it is known, else its number."""
        return self.names[index] if index < len(self.names) else index

    def where(self, **more: Any) -> dict[str, Any]:
        """The place of a finding on this array."""
        key = "output" if self.role == "target" else "input"
        known = {} if self.name in ("x", "y") else {key: self.name}
        return {"phase": "data", **known, **more}

    def position(self, index: tuple[int, ...]) -> dict[str, Any]:
        """Row, timestep and feature of a full index."""
        place: dict[str, Any] = {"row": index[0]}
        if len(index) > 1:
            place["feature"] = self.feature(index[-1])
            if self.names and index[-1] < len(self.names):
                place["column"] = self.names[index[-1]]
        if len(index) > 2:
            place["timestep"] = index[1]
        return place


def named_leaves(structure: Any, default: str) -> list[tuple[str, Array]]:
    """(name, array) for an array, a dict or a list of them; what is no array of numbers is left out."""
    if structure is None:
        return []
    if isinstance(structure, Mapping):
        pairs = [(str(key), value) for key, value in structure.items()]
    elif isinstance(structure, (list, tuple)):
        pairs = [(f"{default}_{i}", value) for i, value in enumerate(structure)] if len(structure) > 1 else []
        pairs = pairs or [(default, value) for value in structure]
    else:
        pairs = [(default, structure)]
    arrays = [(name, as_array(value)) for name, value in pairs if value is not None]
    return [(name, array) for name, array in arrays if array.ndim >= 1 and len(array)]


def inputs(context: Context) -> list[Named]:
    """The inputs. Computed once per context."""
    if "data.inputs" not in context.facts:
        context.facts["data.inputs"] = _inputs(context)
    held: list[Named] = context.facts["data.inputs"]
    return held


def _inputs(context: Context) -> list[Named]:
    data, padding = context.data, context.padding
    if data is None:
        return []
    pairs = named_leaves(data.x, "x")
    mask_names = {padding.mask} if padding is not None and padding.mask else set()
    if padding is not None and padding.features is not None:
        mask_names.add(padding.features[1])
    masks = dict(pairs)
    mask = masks.get(padding.mask) if padding is not None and padding.mask else None
    clock = {padding.timestamps} if padding is not None and padding.timestamps else CLOCK_NAMES
    embedded = embedded_inputs(context)
    found = []
    for name, array in pairs:
        if not is_number(array) and array.dtype.kind != "b":
            continue
        fits = mask is not None and array.shape[:2] == mask.shape[:2] and array.ndim >= 2
        flags = name in mask_names or (len(pairs) > 1 and array.dtype.kind == "b")
        own = data.names if array.ndim > 1 and len(data.names) == array.shape[-1] else ()
        found.append(
            Named(
                name,
                array,
                "input",
                tuple(own),
                valid=np.asarray(mask, bool).reshape(mask.shape[:2]) if fits and mask is not None else None,
                ids=array.dtype.kind in "iu" or name in embedded,
                mask=flags or (len(pairs) > 1 and "mask" in name.lower() and is_binary(array)),
                clock=name.lower() in clock or name in clock,
            )
        )
    return found


def targets(context: Context) -> list[Named]:
    """The targets."""
    if context.data is None:
        return []
    pairs = named_leaves(context.data.y, "y")
    return [Named(name, array, "target") for name, array in pairs if is_number(array) or array.dtype.kind == "b"]


def measured_inputs(context: Context) -> list[Named]:
    """Inputs that hold measurements: no ids, no masks, no points in time."""
    return [one for one in inputs(context) if not (one.ids or one.mask or one.clock) and one.array.dtype.kind in "fiu"]


def is_classification(target: Named) -> bool:
    """Few whole numbers, or one-hot rows."""
    array = target.array
    if array.dtype.kind not in "iubf":
        return False
    column = thinned(array).ravel()
    if column.dtype.kind == "f" and not (np.isfinite(column).all() and (column == np.floor(column)).all()):
        return False
    return bool(len(np.unique(column)) <= max(2, min(1000, len(array) // 5)))


def classes_of(target: Named) -> Array | None:
    """One class number per sample (or per step), or None where the target is no classification."""
    array = target.array
    if not is_classification(target):
        return None
    if array.ndim >= 2 and array.shape[-1] > 1:
        flat = by_feature(array)
        one_hot = bool(((flat == 0) | (flat == 1)).all() and (flat.sum(axis=1) == 1).all())
        return flat.argmax(axis=1) if one_hot else None
    return array.ravel().astype(np.int64)


MOST_CLASSES = 50
"""Classes that become columns of their own."""


def answer_columns(array: Array, target: Named, *, most: int) -> npt.NDArray[np.float64] | None:
    """Targets of some rows as columns of numbers: classes one-hot, up to `most` components as they are."""
    labels = classes_of(Named(target.name, array, "target"))
    if labels is not None and len(labels) == len(array):
        kinds = np.unique(labels)
        return (labels[:, None] == kinds[None]).astype(np.float64) if 2 <= len(kinds) <= MOST_CLASSES else None
    flat = array.reshape(len(array), -1).astype(np.float64)
    return flat if flat.shape[1] <= most and np.isfinite(flat).all() else None


@dataclass(frozen=True, slots=True)
class Arrival:
    """How large the numbers are that reach a layer which multiplies them by weights."""

    layer: str
    rms: float


ARRIVAL_ROWS = 64
"""Rows that are sent through the model to see what arrives at its layers."""


def arrivals(context: Context) -> list[Arrival] | None:
    """What Keras' own weighted layers are given, in the order of their calls; None where nothing can be told.

    Whether inputs are scaled is a question of what arrives where they meet weights: a model may bring raw values to
    unit size itself, in a layer of any kind.
    """
    if "data.arrivals" not in context.facts:
        context.facts["data.arrivals"] = _arrivals(context)
    held: list[Arrival] | None = context.facts["data.arrivals"]
    return held


def _arrivals(context: Context) -> list[Arrival] | None:
    model, data = context.model, context.data
    if model is None or data is None or not data.is_arrays:
        return None
    import keras
    import torch

    seen: dict[int, Arrival] = {}
    original = keras.layers.Layer.__call__

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        answer = original(self, *args, **kwargs)
        given = args[0] if args else None
        kind = type(self)
        own = kind.__module__.startswith("keras.") and kind.__name__ not in (*_NORMALISING, "Embedding")
        if own and id(self) not in seen and _is_weighted(self) and isinstance(given, torch.Tensor):
            if given.device.type != "meta" and given.is_floating_point() and given.numel():
                columns = given.detach().reshape(-1, given.shape[-1]).double()
                rms = columns.nan_to_num().square().mean(dim=0).sqrt().max()
                seen[id(self)] = Arrival(str(self.path or self.name), float(rms))
        return answer

    rows = np.unique(np.linspace(0, len(data) - 1, min(len(data), ARRIVAL_ROWS)).astype(np.int64))
    x, _, _ = data.take(rows)
    keras.layers.Layer.__call__ = call
    try:
        with torch.no_grad(), contextlib.suppress(Exception):  # a model that fails says so to other checks
            model(x, training=True)  # as in a step: in inference a new BatchNormalization lets raw values through
    finally:
        keras.layers.Layer.__call__ = original
    return list(seen.values()) or None


def _is_weighted(layer: Any) -> bool:
    """A layer with weights and no layers of its own, or a recurrent one (its cells belong to it)."""
    inner = getattr(layer, "_layers", None)
    return bool(layer.weights) and (not inner or hasattr(layer, "cell"))


LOSSES_OF_CLASSES = ("crossentropy", "cross_entropy", "hinge", "focal", "nll", "log_loss", "ctc", "sparse")


def losses_of(model: Any) -> list[str]:
    """Names of the compiled losses in lower case; empty where there is no model or none is told."""
    given = getattr(model, "loss", None)
    many = given.values() if isinstance(given, Mapping) else given if isinstance(given, list | tuple) else [given]
    names = [
        one
        if isinstance(one, str)
        else getattr(one, "name", None) or getattr(one, "__name__", None) or type(one).__name__
        for one in many
        if one is not None
    ]
    return [str(name).lower() for name in names]


def may_be_classes(context: Context) -> bool:
    """False where the losses say that whole numbers are counts or amounts and no classes."""
    names = losses_of(context.model)
    return not names or any(part in name for name in names for part in LOSSES_OF_CLASSES)


@contextlib.contextmanager
def _listening(seen: list[tuple[Any, Any]]) -> Iterator[None]:
    """While open, every call of an Embedding notes its layer and its input."""
    import keras

    kind = keras.layers.Embedding
    original = kind.call

    def call(self: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if getattr(getattr(inputs, "device", None), "type", "") != "meta":  # Keras tries shapes without numbers first
            seen.append((self, inputs))
        return original(self, inputs, *args, **kwargs)

    kind.call = call
    try:
        yield
    finally:
        kind.call = original


EMBEDDING_ROWS = 512
"""Rows that are sent through the model to see what its embeddings are given."""


def embedding_calls(context: Context) -> list[tuple[Any, Array]]:
    """(layer, the values that it was given) for every Embedding, from a forward pass of the first rows in inference."""
    if "data.embeddings" in context.facts:
        kept: list[tuple[Any, Array]] = context.facts["data.embeddings"]
        return kept
    calls: list[tuple[Any, Any]] = []
    model, data = context.model, context.data
    if model is not None and data is not None and data.is_arrays and _may_embed(model):
        import torch

        x, _, _ = data.take(slice(0, EMBEDDING_ROWS))
        with _listening(calls), torch.no_grad(), contextlib.suppress(Exception):
            model(x, training=False)  # ids beyond the table raise inside; what was noted before is what is wanted
    held = [(layer, as_array(values)) for layer, values in calls]
    context.facts["data.embeddings"] = held
    return held


def _may_embed(model: Any) -> bool:
    """Whether there is an Embedding; a model that is not built yet may have one that it has not told of."""
    if not getattr(model, "built", True):
        return True
    return any(type(layer).__name__ == "Embedding" for layer in model._flatten_layers(recursive=True))


def embedded_inputs(context: Context) -> set[str]:
    """Names of inputs whose values reach an Embedding as they are (up to the cast)."""
    if context.data is None or context.subject is None:
        return set()
    found = set()
    for _, values in embedding_calls(context):
        for name, array in named_leaves(context.data.x, "x"):
            head = array[:EMBEDDING_ROWS]
            if head.shape == values.shape and is_number(head) and np.array_equal(head.astype(values.dtype), values):
                found.add(name)
    return found
