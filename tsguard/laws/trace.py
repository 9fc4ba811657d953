"""Every Keras layer call of one forward pass, in the order in which the calls return.

torch hooks are blind on Keras models, so `Layer.__call__` itself is wrapped while a pass is traced, and
`Operation.__call__` too, because raw operations of a functional model are nodes without a layer. A tap may change a
layer's output (what stands at masked positions, or the mask) or how it is called. Recurrent layers are taken as one:
their cells run once per step and have no time axis to compare.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tap = Callable[[Any, Any], Any]
"""(output tensor, its mask) -> the tensor to hand on, mask attached."""


@dataclass(frozen=True)
class Call:
    """One call of a layer or operation node: which, and what went in and came out."""

    layer: Any
    path: str
    kind: str
    inputs: tuple[NDArray[np.float64], ...]
    outputs: tuple[NDArray[np.float64], ...]
    mask_in: NDArray[np.bool_] | None
    mask_out: NDArray[np.bool_] | None


@dataclass
class Taps:
    """What to change on the way, by the identity of the layer."""

    outputs: Mapping[int, Tap] = field(default_factory=dict)
    arguments: Mapping[int, Callable[[tuple[Any, ...], dict[str, Any]], tuple[tuple[Any, ...], dict[str, Any]]]] = (
        field(default_factory=dict)
    )
    calm: Callable[[Any], bool] | None = None
    """Layers for which this is true are called with training=False."""
    around: Callable[[Any], contextlib.AbstractContextManager[None]] | None = None
    """A context for the time of each layer's call."""


def to_numpy(tensor: Any) -> NDArray[np.float64]:
    """A float64 copy of any tensor: exact for every narrower dtype, bfloat16 included."""
    if hasattr(tensor, "detach"):
        return np.asarray(
            tensor.detach().cpu().double().numpy() if tensor.dtype.is_floating_point else tensor.detach().cpu().numpy()
        ).astype(np.float64)
    from keras import ops

    return np.asarray(ops.convert_to_numpy(ops.cast(tensor, "float32"))).astype(np.float64)


def _tensors(structure: Any) -> list[Any]:
    import keras

    return [leaf for leaf in keras.tree.flatten(structure) if keras.ops.is_tensor(leaf)]


def mask_of(tensor: Any) -> Any:
    """The implicit mask that Keras attached to a tensor, or None."""
    return getattr(tensor, "_keras_mask", None)


def with_keras_mask(tensor: Any, mask: Any) -> Any:
    """A copy of a tensor with this implicit mask."""
    copy = tensor.clone()
    copy._keras_mask = mask
    return copy


def without_mask(value: Any, mask: Any) -> Any:
    """A tensor without its implicit mask; anything else as it is."""
    return value if mask is None else with_keras_mask(value, None)


def where_shaped(shape: tuple[int, ...], tap: Tap) -> Tap:
    """The tap, for masks of this shape only: a layer may serve a second sequence, which has its own padding."""

    def only(output: Any, mask: Any) -> Any:
        return tap(output, mask) if mask is not None and tuple(mask.shape) == shape else output

    return only


def first_mask(structure: Any) -> NDArray[np.bool_] | None:
    """The first implicit mask in a structure of tensors."""
    for tensor in _tensors(structure):
        mask = mask_of(tensor)
        if mask is not None:
            return to_numpy(mask).astype(bool)
    return None


def _tapped(tap: Tap, structure: Any) -> Any:
    """A layer may give a tuple or a dict: each of its tensors goes through the tap."""
    import keras

    return keras.tree.map_structure(
        lambda leaf: tap(leaf, mask_of(leaf)) if keras.ops.is_tensor(leaf) else leaf, structure
    )


def _takes_as_one(layer: Any) -> bool:
    import keras

    return isinstance(layer, (keras.layers.RNN, keras.layers.Bidirectional, keras.layers.TimeDistributed))


@contextlib.contextmanager
def tracing(model: Any, taps: Taps | None = None, *, record: bool = True, arrays: bool = True) -> Iterator[list[Call]]:
    """While open, calls of this model's layers are recorded and the taps applied.

    Without `arrays` only masks are kept: a deep model on many rows would fill the memory otherwise.
    """
    from keras.src.layers.layer import Layer
    from keras.src.ops.operation import Operation

    taps = taps or Taps()
    calls: list[Call] = []
    own = {id(layer) for layer in model._flatten_layers(include_self=True, recursive=True)}
    nodes = {
        id(op)
        for part in model._flatten_layers(include_self=True, recursive=True)
        for op in getattr(part, "operations", ())
    }
    inside = [0]
    plain_layer, plain_operation = Layer.__call__, Operation.__call__

    def run(plain: Any, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if taps.calm is not None and getattr(layer, "_call_has_training_arg", False) and taps.calm(layer):
            kwargs = {**kwargs, "training": False}
        change = taps.arguments.get(id(layer))
        if change is not None:
            args, kwargs = change(args, kwargs)
        shallow = record and inside[0] == 0
        # Keras takes the mask off some tensors during the call, so the inputs are read first.
        inputs = tuple(to_numpy(t) for t in _tensors((args, kwargs))) if shallow and arrays else ()
        mask_in = first_mask((args, kwargs)) if shallow else None
        as_one = _takes_as_one(layer)
        inside[0] += as_one
        try:
            with contextlib.nullcontext() if taps.around is None else taps.around(layer):
                output = plain(layer, *args, **kwargs)
        finally:
            inside[0] -= as_one
        tap = taps.outputs.get(id(layer))
        if tap is not None:
            output = _tapped(tap, output)
        if shallow:
            outputs = tuple(to_numpy(t) if arrays else np.zeros(0) for t in _tensors(output))
            path = str(getattr(layer, "path", None) or layer.name)
            calls.append(Call(layer, path, type(layer).__name__, inputs, outputs, mask_in, first_mask(output)))
        return output

    def layer_call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if id(layer) not in own:
            return plain_layer(layer, *args, **kwargs)
        return run(plain_layer, layer, args, kwargs)

    def operation_call(operation: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(operation, Layer) or id(operation) not in nodes:
            return plain_operation(operation, *args, **kwargs)
        return run(plain_operation, operation, args, kwargs)

    Layer.__call__, Operation.__call__ = layer_call, operation_call
    try:
        with quiet():
            yield calls
    finally:
        Layer.__call__, Operation.__call__ = plain_layer, plain_operation


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keras warns of each lost mask; the laws say it themselves, with the layer and the proof."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
