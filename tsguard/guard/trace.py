"""One step under full instrumentation: every operation, what it was given, where it stands, whom it belongs to.

A `TorchDispatchMode` sees each aten operation of forward, loss, backward and update. Around it the calls of Keras
layers are wrapped, so that the layer is known, and the Python stack names the user's line. An operation of the backward
pass carries the sequence number of its autograd node, by which it finds the forward operation it belongs to.

Values are kept only where something goes wrong; the links between operations run through the memory they write and
read.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tsguard.guard.axes import TIMESTEP, UNKNOWN, Tag
from tsguard.guard.leaves import BatchLeaves
from tsguard.guard.margins import Margin, margin_of
from tsguard.guard.records import ABSORBERS, NAN_TESTS, Leaf, OpRecord
from tsguard.guard.tensors import has_nan, is_bad, memory_of, tensors_in
from tsguard.guard.travel import follow
from tsguard.guard.whose import code_kind, is_layer, layer_path


class Trace(TorchDispatchMode):
    """Listens to one step. Use as `with Trace(model, batch).listening(): …`."""

    def __init__(self, model: Any, batch: Any, *, margins: bool = False) -> None:
        super().__init__()
        self.model = model
        self.margins: list[Margin] | None = [] if margins else None
        self.batch = BatchLeaves(batch)
        self.records: list[OpRecord] = []
        self.turned: int | None = None
        """The first operation of a backward pass."""
        self.asks: list[OpRecord] = []
        """Tests for NaN, and absorbers, that met a bad value."""
        self.masks: list[torch.Tensor] = []
        self.extra_names: list[str] = []
        self.count = 0
        self._layers: list[Any] = []
        self._time: int | None = None
        """The timestep of the recurrent cell that is being called."""
        self._writers: dict[int, list[OpRecord]] = {}
        self._leaves: dict[int, Leaf] = {}
        self._tags: dict[int, dict[Any, Tag]] = {}
        self._by_sequence: dict[int, OpRecord] = {}
        self._kept: list[Any] = []
        self._made_by: dict[int, str] = {}

    @contextlib.contextmanager
    def listening(self) -> Iterator[Trace]:
        """Instrument what runs inside."""
        from keras.src.layers.layer import Layer
        from keras.src.ops.operation import Operation

        layer_call, operation_call = Layer.__call__, Operation.__call__
        stack = self._layers

        def call_layer(layer: Any, *args: Any, **kwargs: Any) -> Any:
            stack.append(layer)
            timed = any(tag.fixed for tag in map(self._known_tag, tensors_in((args, kwargs))))
            entered = self._enter_time(args)
            try:
                out = layer_call(layer, *args, **kwargs)
                self._note_mask(out)
                if not timed:
                    self._leave_time(out)
                return out
            finally:
                stack.pop()
                if entered:
                    self._time = None

        def call_operation(operation: Any, *args: Any, **kwargs: Any) -> Any:
            if isinstance(operation, Layer) or not getattr(operation, "_inbound_nodes", None):
                return operation_call(operation, *args, **kwargs)
            stack.append(operation)
            try:
                return operation_call(operation, *args, **kwargs)
            finally:
                stack.pop()

        Layer.__call__ = call_layer
        Operation.__call__ = call_operation
        try:
            with self:
                yield self
        finally:
            Layer.__call__ = layer_call
            Operation.__call__ = operation_call

    def _enter_time(self, args: Any) -> bool:
        """A cell works at the timestep of its input, whatever timestep its state comes from (forwards or backwards)."""
        first = next(iter(tensors_in(args[:1])), None)
        if self._time is not None or first is None:
            return False
        self._time = dict(self._known_tag(first).fixed).get(TIMESTEP)
        return self._time is not None

    def _known_tag(self, tensor: torch.Tensor) -> Tag:
        return self._tags.get(memory_of(tensor), {}).get(_shape_key(tensor), UNKNOWN)

    def _leave_time(self, out: Any) -> None:
        """What leaves a recurrent layer no longer belongs to the timestep at which its cell stood last."""
        for tensor in tensors_in(out):
            tag = self._known_tag(tensor)
            if tag.fixed:
                self._tags[memory_of(tensor)][_shape_key(tensor)] = Tag(tag.axes)

    def _note_mask(self, out: Any) -> None:
        mask = getattr(out, "_keras_mask", None)
        if isinstance(mask, torch.Tensor) and len(self.masks) < 64:
            self.masks.append(mask)

    # -- every operation ------------------------------------------------------------------------------------------

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        sequence = torch._C._autograd._get_sequence_nr() - 1
        node = torch._C._current_autograd_node()
        name = base_name(func)
        inputs = tensors_in((args, kwargs))
        mutable = func._schema.is_mutable
        before = [tensor.detach().clone() for tensor in inputs] if mutable else None
        result = func(*args, **kwargs)
        outputs = _written(func, args, kwargs) if mutable else tensors_in(result)
        self.count += 1
        self._note(func, name, args, kwargs, inputs, before, outputs, sequence, node, mutable=mutable)
        return result

    def _note(
        self, func: Any, name: str, args: Any, kwargs: Any, inputs: Any, before: Any, outputs: Any, sequence: int,
        node: Any, *, mutable: bool,
    ) -> None:  # fmt: skip
        tagged = [(tensor, self._tag(tensor)) for tensor in inputs]
        record = self._place(name, node)
        if node is None:
            self._by_sequence.setdefault(sequence, record)
        else:
            self.turned = record.index if self.turned is None else self.turned
            record.node = node.name()
            record.forward = self._by_sequence.get(node._sequence_nr())
        record.tags_in = [(tuple(tensor.shape), tag) for tensor, tag in tagged if tag.known]
        tags = follow(name, args, tagged, outputs)
        if self._time is not None:
            tags = [_at_time(tag, self._time) for tag in tags]
        given = before if before is not None else inputs
        # an output whose every element is overwritten (copy_, fill_) owes nothing to what was there before
        read = (
            list(zip(inputs, given, strict=True))[1:]
            if name in ("copy", "fill", "zero")
            else list(zip(inputs, given, strict=True))
        )
        if self.margins is not None and record.phase in ("forward", "loss"):
            margin = margin_of(record, args, outputs)
            if margin is not None:
                self.margins.append(margin)
        bad_inputs = [(tensor, value) for tensor, value in read if is_bad(value)]
        record.bad_in = bool(bad_inputs)
        record.nan_in = any(has_nan(value) for _, value in bad_inputs)
        record.bad = any(is_bad(out) for out in outputs)
        record.nan_out = record.bad and any(has_nan(out) for out in outputs)
        record.sources = [source for tensor, value in bad_inputs for source in self._writers_of(tensor, value)]
        if bad_inputs and record.phase in ("forward", "loss") and self._asks(name, args):
            self._keep_values(record, func, args, kwargs, inputs, given, tagged, outputs, tags)
            self.asks.append(record)
        if record.bad and (not record.bad_in or (record.nan_out and not record.nan_in)):
            self._keep_values(record, func, args, kwargs, inputs, given, tagged, outputs, tags)
        self._remember(record, name, inputs, outputs, tags, mutable=mutable)

    def _asks(self, name: str, args: Any) -> bool:
        if name in NAN_TESTS or name in ABSORBERS:
            return True
        same = len(args) > 1 and isinstance(args[0], torch.Tensor) and isinstance(args[1], torch.Tensor)
        if name in ("ne", "eq") and same:  # x != x is how NaN is asked for without its name
            return bool(args[0].data_ptr() == args[1].data_ptr() and args[0].shape == args[1].shape)
        return name in ("local_scalar_dense", "is_nonzero")

    def _keep_values(
        self, record: OpRecord, func: Any, args: Any, kwargs: Any, inputs: Any, given: Any, tagged: Any, outputs: Any,
        tags: Any,
    ) -> None:  # fmt: skip
        record.made_by = tuple(self._made_by.get(memory_of(tensor)) for tensor in inputs)
        copies = {id(tensor): value.detach().clone() for tensor, value in zip(inputs, given, strict=True)}

        def replace(value: Any) -> Any:
            if isinstance(value, torch.Tensor):
                return copies.get(id(value), value)
            if isinstance(value, (list, tuple)):
                return type(value)(replace(part) for part in value)
            return value

        record.func = func
        record.args = tuple(replace(arg) for arg in args)
        record.kwargs = {key: replace(value) for key, value in kwargs.items()}
        by_id = {id(tensor): tag for tensor, tag in tagged}
        named = [argument.name for argument in func._schema.arguments]
        operands: list[tuple[str, Any, Tag]] = []
        for position, value in enumerate(args):
            label = named[position] if position < len(named) else str(position)
            for tensor in tensors_in(value) or [value]:
                operands.append((label, replace(tensor), by_id.get(id(tensor), UNKNOWN)))
        operands += [(key, replace(value), by_id.get(id(value), UNKNOWN)) for key, value in kwargs.items()]
        record.operands = operands
        record.outputs = [(out.detach().clone(), tag) for out, tag in zip(outputs, tags, strict=True)]

    def _remember(
        self, record: OpRecord, name: str, inputs: Any, outputs: Any, tags: list[Tag], *, mutable: bool
    ) -> None:
        known = {memory_of(tensor) for tensor in inputs}
        for out, tag in zip(outputs, tags, strict=True):
            memory = memory_of(out)
            if memory not in known or mutable:
                self._made_by[memory] = name
            if memory not in known:  # fresh memory: whatever was there before is gone
                self._writers.pop(memory, None)
                self._leaves.pop(memory, None)
                self._tags[memory] = {}
                if record.bad and is_bad(out):
                    self._writers[memory] = [record]
                    self._kept.append(out)
            elif mutable:
                whole = out.numel() * out.element_size() == out.untyped_storage().nbytes()
                if whole:
                    self._writers.pop(memory, None)
                    self._leaves.pop(memory, None)
                if is_bad(out):
                    self._writers.setdefault(memory, []).append(record)
                    self._kept.append(out)
            if tag.known:
                self._tags.setdefault(memory, {})[_shape_key(out)] = tag
        if record.bad or record.bad_in:
            self.records.append(record)

    def _writers_of(self, tensor: Any, value: Any) -> list[OpRecord | Leaf]:
        memory = memory_of(tensor)
        if memory in self._writers:
            return list(self._writers[memory])
        if memory not in self._leaves:
            self._leaves[memory] = Leaf(value.detach().clone())
            self._kept.append(tensor)
        return [self._leaves[memory]]

    def sources_of(self, tensor: torch.Tensor) -> list[OpRecord | Leaf]:
        """Who wrote the bad values of a tensor that the step left behind."""
        return self._writers_of(tensor, tensor)

    def _tag(self, tensor: Any) -> Tag:
        memory = memory_of(tensor)
        if memory in self._tags:
            found = self._tags[memory].get(_shape_key(tensor))
            if found is not None or self._tags[memory]:
                return found or UNKNOWN
            return UNKNOWN
        tag = self.batch.tag_of(tensor)
        self._tags[memory] = {_shape_key(tensor): tag} if tag.known else {}
        if tag.known:
            self._kept.append(tensor)
        return tag

    # -- where we are ---------------------------------------------------------------------------------------------

    def _place(self, name: str, node: Any) -> OpRecord:
        file = line = own_layer = None
        own = inside_layer = False
        in_loss = in_update = in_metrics = False
        frame = sys._getframe(3)
        while frame is not None:
            code = frame.f_code
            kind = code_kind(code.co_filename)
            if kind == "replay" and code.co_name == "run":
                break
            if kind == "user" and file is None:
                file, line, own = code.co_filename, frame.f_lineno, not inside_layer
                if code.co_name == "call" and own:
                    own_layer = self._called_directly(frame)
            elif kind == "layer" and file is None:
                inside_layer = True
            if code.co_name in ("compute_loss", "_compute_loss"):
                in_loss = True
            elif code.co_name == "_apply" and kind == "seam":
                in_update = True
            elif code.co_name == "compute_metrics":
                in_metrics = True
            next_frame = frame.f_back
            if next_frame is None:
                break
            frame = next_frame
        if node is not None:
            phase = "backward"
        elif in_update:
            phase = "update"
        elif in_metrics:
            phase = "after"
        elif in_loss or not self._layers:
            phase = "loss"
        else:
            phase = "forward"
        top = self._layers[-1] if self._layers and phase in ("forward", "loss") else None
        if top is not None and file is None and not is_layer(top):
            own = True  # an operation of a functional graph: the user put it there
        path = (
            layer_path(self._layers if own_layer is None else [*self._layers, own_layer]) if top is not None else None
        )
        return OpRecord(
            self.count, name, phase, path, own, file, line,
            batch_size=self.batch.size,
        )  # fmt: skip

    def _called_directly(self, frame: Any) -> Any:
        """A layer whose `call` runs without its `__call__`: TimeDistributed does that with the layer it wraps."""
        layer = frame.f_locals.get("self")
        if layer is None or any(layer is known for known in self._layers) or not is_layer(layer):
            return None
        return layer


def base_name(func: Any) -> str:
    """The aten name without overload, and without the underscores of in-place and private variants."""
    return str(func._schema.name).split("::")[-1].strip("_").removeprefix("foreach_")


def _at_time(tag: Tag, time: int) -> Tag:
    if all(kind != TIMESTEP or value == time for kind, value in tag.fixed):
        return tag
    return Tag(tag.axes, tuple((kind, time if kind == TIMESTEP else value) for kind, value in tag.fixed))


def _written(func: Any, args: Any, kwargs: Any) -> list[torch.Tensor]:
    """What an in-place operation wrote: fused ones (`_foreach_add_`) return nothing."""
    found: list[torch.Tensor] = []
    for position, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            found += tensors_in(args[position] if position < len(args) else kwargs.get(argument.name))
    return found


def _shape_key(tensor: torch.Tensor) -> Any:
    return (tensor.storage_offset(), tuple(tensor.shape), tensor.stride())
