"""One step under full instrumentation: every operation, what it was given, where it stands, whom it belongs to.

A `TorchDispatchMode` sees each aten operation of forward, loss, backward and update. Around it the calls of Keras
layers
are wrapped, so that the layer is known, and the Python stack names the user's line. An operation of the backward pass
carries the sequence number of its autograd node, by which it finds the forward operation it belongs to.

Values are kept only where something goes wrong; the links between operations run through the memory they write and
read.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tsguard.guard.axes import TIMESTEP, UNKNOWN, Tag, batch_tag, follow
from tsguard.guard.recorder import leaves

VIEWS = frozenset(
    "view unsafe_view reshape t transpose permute expand squeeze unsqueeze select slice detach alias unbind split "
    "split_with_sizes lift_fresh as_strided diagonal unfold view_as_real view_as_complex".split()
)
"""Operations that hand on the very same memory."""

NAN_TESTS = frozenset("isnan isfinite isinf".split())
"""Operations by which a program asks whether something went wrong."""

ABSORBERS = frozenset("nan_to_num nansum nanmean nanmedian fmax fmin".split())
"""Operations that swallow a NaN on purpose."""


@dataclass(eq=False)
class Leaf:
    """A bad tensor that nothing in this step wrote: a batch, a weight, a constant."""

    value: torch.Tensor


@dataclass(eq=False)
class OpRecord:
    """One operation that ran."""

    index: int
    name: str
    phase: str
    layer: str | None
    own: bool
    file: str | None
    line: int | None
    node: str | None = None
    forward: OpRecord | None = None
    bad: bool = False
    """Some output holds NaN or an infinity."""
    bad_in: bool = False
    nan_in: bool = False
    nan_out: bool = False
    operands: list[tuple[str, Any, Tag]] = field(default_factory=list)
    """Name, value and meaning of what went in; filled for operations that may have made the first bad value."""
    outputs: list[tuple[Any, Tag]] = field(default_factory=list)
    sources: list[OpRecord | Leaf] = field(default_factory=list)
    """Who wrote the bad values that came in."""
    tags_in: list[tuple[tuple[int, ...], Tag]] = field(default_factory=list)
    func: Any = None
    args: Any = None
    kwargs: Any = None
    batch_size: int | None = None
    made_by: tuple[str | None, ...] = ()
    """Names of the operations that made the tensors that went in."""


@dataclass(frozen=True)
class Margin:
    """How near an operation came to where it is no longer finite: 0 is on the edge."""

    distance: float
    op: str
    layer: str | None
    value: float
    what: str
    file: str | None
    line: int | None


def _margin(record: OpRecord, args: Any, outputs: Any) -> Margin | None:
    """Smallest divisor or argument of a root or logarithm, largest argument of an exponential, nearest to float16's
    end."""
    first = args[0] if args and isinstance(args[0], torch.Tensor) else None
    if first is None or first.numel() == 0 or not first.is_floating_point():
        return None
    place = (record.layer, record.file, record.line)

    def margin(distance: float, value: float, what: str) -> Margin:
        return Margin(distance, record.name, place[0], value, what, place[1], place[2])

    if record.name in ("log", "log2", "log10", "rsqrt", "sqrt", "reciprocal"):
        low = float(first.detach().min())
        return margin(low, low, "smallest argument")
    if record.name == "div" and len(args) > 1 and isinstance(args[1], torch.Tensor) and args[1].numel():
        low = float(args[1].detach().abs().min())
        return margin(low, low, "smallest divisor")
    if record.name in ("exp", "expm1"):
        high = float(first.detach().max())
        limit = float(torch.tensor(torch.finfo(first.dtype).max).double().log())
        return margin(max(limit - high, 0.0) / limit, high, "largest argument")
    half = next((out for out in outputs if out.dtype == torch.float16 and out.numel()), None)
    if half is not None:
        high = float(half.detach().abs().max())
        return margin(1.0 - high / 65504.0, high, "largest float16 value")
    return None


class Trace(TorchDispatchMode):
    """Listens to one step. Use as `with Trace(model, batch).listening(): …`."""

    def __init__(self, model: Any, batch: Any, *, margins: bool = False) -> None:
        super().__init__()
        self.model = model
        self.margins: list[Margin] | None = [] if margins else None
        self.batch = _BatchLeaves(batch)
        self.records: list[OpRecord] = []
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
            timed = any(tag.fixed for tag in map(self._known_tag, _tensors((args, kwargs))))
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
        first = next(iter(_tensors(args[:1])), None)
        if self._time is not None or first is None:
            return False
        self._time = dict(self._known_tag(first).fixed).get(TIMESTEP)
        return self._time is not None

    def _known_tag(self, tensor: torch.Tensor) -> Tag:
        return self._tags.get(_memory(tensor), {}).get(_shape_key(tensor), UNKNOWN)

    def _leave_time(self, out: Any) -> None:
        """What leaves a recurrent layer no longer belongs to the timestep at which its cell stood last."""
        for tensor in _tensors(out):
            tag = self._known_tag(tensor)
            if tag.fixed:
                self._tags[_memory(tensor)][_shape_key(tensor)] = Tag(tag.axes)

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
        inputs = _tensors((args, kwargs))
        mutable = func._schema.is_mutable
        before = [tensor.detach().clone() for tensor in inputs] if mutable else None
        result = func(*args, **kwargs)
        outputs = _written(func, args, kwargs) if mutable else _tensors(result)
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
            margin = _margin(record, args, outputs)
            if margin is not None:
                self.margins.append(margin)
        bad_inputs = [(tensor, value) for tensor, value in read if _is_bad(value)]
        record.bad_in = bool(bad_inputs)
        record.nan_in = any(_has_nan(value) for _, value in bad_inputs)
        record.bad = any(_is_bad(out) for out in outputs)
        record.nan_out = record.bad and any(_has_nan(out) for out in outputs)
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
        record.made_by = tuple(self._made_by.get(_memory(tensor)) for tensor in inputs)
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
            for tensor in _tensors(value) or [value]:
                operands.append((label, replace(tensor), by_id.get(id(tensor), UNKNOWN)))
        operands += [(key, replace(value), by_id.get(id(value), UNKNOWN)) for key, value in kwargs.items()]
        record.operands = operands
        record.outputs = [(out.detach().clone(), tag) for out, tag in zip(outputs, tags, strict=True)]

    def _remember(
        self, record: OpRecord, name: str, inputs: Any, outputs: Any, tags: list[Tag], *, mutable: bool
    ) -> None:
        known = {_memory(tensor) for tensor in inputs}
        for out, tag in zip(outputs, tags, strict=True):
            memory = _memory(out)
            if memory not in known or mutable:
                self._made_by[memory] = name
            if memory not in known:  # fresh memory: whatever was there before is gone
                self._writers.pop(memory, None)
                self._leaves.pop(memory, None)
                self._tags[memory] = {}
                if record.bad and _is_bad(out):
                    self._writers[memory] = [record]
                    self._kept.append(out)
            elif mutable:
                whole = out.numel() * out.element_size() == out.untyped_storage().nbytes()
                if whole:
                    self._writers.pop(memory, None)
                    self._leaves.pop(memory, None)
                if _is_bad(out):
                    self._writers.setdefault(memory, []).append(record)
                    self._kept.append(out)
            if tag.known:
                self._tags.setdefault(memory, {})[_shape_key(out)] = tag
        if record.bad or record.bad_in:
            self.records.append(record)

    def _writers_of(self, tensor: Any, value: Any) -> list[OpRecord | Leaf]:
        memory = _memory(tensor)
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
        memory = _memory(tensor)
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
            kind = _kind(code.co_filename)
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
        if top is not None and file is None and not _is_layer(top):
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
        if layer is None or any(layer is known for known in self._layers) or not _is_layer(layer):
            return None
        return layer


class _BatchLeaves:
    """The arrays of the batch, recognised again by their content wherever they turn up as tensors."""

    def __init__(self, batch: Any) -> None:
        self.parts = named_leaves(batch)
        self.size = next((value.shape[0] for _, _, value in self.parts if value.ndim), None)
        timed = [value.shape[1] for kind, _, value in self.parts if kind == "x" and value.ndim >= 3]
        self.timesteps = timed[0] if timed else None
        integer_steps = [value.shape[1] for _, _, value in self.parts if value.ndim == 2 and _integer(value)]
        if self.timesteps is None and integer_steps:
            self.timesteps = integer_steps[0]
        self.tags = [
            batch_tag(value.shape, integer=_integer(value), timesteps=self.timesteps, of=(kind, name))
            for kind, name, value in self.parts
        ]

    def tag_of(self, tensor: torch.Tensor) -> Tag:
        """The tag of the batch array that this tensor is, if it is one."""
        if self.size is None or tensor.ndim == 0 or tensor.shape[0] != self.size:
            return UNKNOWN
        for (_, _, value), tag in zip(self.parts, self.tags, strict=True):
            if tuple(value.shape) == tuple(tensor.shape) and same_content(value, tensor):
                return tag
        return UNKNOWN

    def find(self, value: torch.Tensor) -> tuple[str, str | None, torch.Tensor, Tag] | None:
        """The batch array whose bad places are those of `value`: kind (x, y, sample_weight), name, array, tag."""
        bad = ~torch.isfinite(value.detach().double().flatten().cpu())
        for (kind, name, part), tag in zip(self.parts, self.tags, strict=True):
            if part.numel() == value.numel() and part.is_floating_point():
                if torch.equal(~torch.isfinite(part.double().flatten()), bad):
                    return kind, name, part, tag
        for (kind, name, part), tag in zip(self.parts, self.tags, strict=True):
            if part.is_floating_point() and _is_bad(part):
                return kind, name, part, tag
        return None


def named_leaves(batch: Any) -> list[tuple[str, str | None, torch.Tensor]]:
    """Every array of a batch with its role and, in a dict, its name."""
    batch = batch[0] if isinstance(batch, list) and len(batch) == 1 else batch
    roles = ("x", "y", "sample_weight")
    parts = list(zip(roles, batch, strict=False)) if isinstance(batch, tuple) else [("x", batch)]
    found: list[tuple[str, str | None, torch.Tensor]] = []
    for role, part in parts:
        for name, value in _walk(part, None):
            tensor = _as_tensor(value)
            if tensor is not None:
                found.append((role, name, tensor))
    return found


def _walk(part: Any, name: str | None) -> Iterator[tuple[str | None, Any]]:
    if isinstance(part, dict):
        for key, value in part.items():
            yield from _walk(value, str(key))
    elif isinstance(part, (tuple, list)):
        for position, value in enumerate(part):
            yield from _walk(value, name or str(position))
    elif part is not None:
        yield name, part


def _as_tensor(value: Any) -> torch.Tensor | None:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        return torch.from_numpy(np.ascontiguousarray(value).copy())
    return None


def same_content(value: torch.Tensor, tensor: torch.Tensor) -> bool:
    """Whether two tensors hold the same numbers, a NaN being the same as a NaN, up to the precision of the coarser."""
    left, right = value.detach().cpu().double(), tensor.detach().cpu().double()
    half = torch.finfo(tensor.dtype).bits == 16 if tensor.is_floating_point() else False
    return bool(torch.allclose(left, right, rtol=1e-2 if half else 1e-6, atol=1e-2 if half else 0.0, equal_nan=True))


def _integer(value: torch.Tensor) -> bool:
    return not value.is_floating_point()


def base_name(func: Any) -> str:
    """The aten name without overload, and without the underscores of in-place and private variants."""
    return str(func._schema.name).split("::")[-1].strip("_").removeprefix("foreach_")


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, (list, tuple)):
        return [tensor for part in value for tensor in _tensors(part)]
    if isinstance(value, dict):
        return [tensor for part in value.values() for tensor in _tensors(part)]
    return []


def _at_time(tag: Tag, time: int) -> Tag:
    if all(kind != TIMESTEP or value == time for kind, value in tag.fixed):
        return tag
    return Tag(tag.axes, tuple((kind, time if kind == TIMESTEP else value) for kind, value in tag.fixed))


def _written(func: Any, args: Any, kwargs: Any) -> list[torch.Tensor]:
    """What an in-place operation wrote: fused ones (`_foreach_add_`) return nothing."""
    found: list[torch.Tensor] = []
    for position, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            found += _tensors(args[position] if position < len(args) else kwargs.get(argument.name))
    return found


def _is_bad(tensor: Any) -> bool:
    if not isinstance(tensor, torch.Tensor) or not (tensor.is_floating_point() or tensor.is_complex()):
        return False
    return tensor.numel() > 0 and not bool(torch.isfinite(tensor.detach()).all())


def _has_nan(tensor: Any) -> bool:
    return isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and bool(torch.isnan(tensor.detach()).any())


def _memory(tensor: torch.Tensor) -> int:
    try:
        return int(tensor.untyped_storage().data_ptr()) or id(tensor)
    except (RuntimeError, NotImplementedError):
        return id(tensor)


def _shape_key(tensor: torch.Tensor) -> Any:
    return (tensor.storage_offset(), tuple(tensor.shape), tensor.stride())


def _is_layer(thing: Any) -> bool:
    from keras.src.layers.layer import Layer

    return isinstance(thing, Layer)


def layer_path(stack: list[Any]) -> str | None:
    """The Keras path of the innermost layer; an operation of a functional graph is named below its model."""
    top = stack[-1]
    path = getattr(top, "path", None)
    if path and str(path).split("/")[-1] == top.name:
        return str(path)
    above = str(path) if path else layer_path(stack[:-1]) if len(stack) > 1 else None
    return f"{above}/{top.name}" if above else str(top.name)


@functools.lru_cache(maxsize=4096)
def _kind(filename: str) -> str:
    """Whose code a file holds."""
    name = filename.replace("\\", "/")
    if name.startswith(_HERE):
        return "replay" if name.endswith(_RUNNERS) else "seam" if name.endswith("/seam.py") else "library"
    if "/keras/src/layers/" in name and not name.endswith(("/layers/layer.py", "/core/lambda_layer.py")):
        return "layer"
    if "/site-packages/" in name or "/dist-packages/" in name or name.startswith(("<string", "<frozen", "<__array")):
        return "library"
    if name.startswith(tuple(_LIBRARY)):
        return "library"
    return "user"


_RUNNERS = ("/replay.py", "/every_row.py", "/loose.py")
"""Modules whose `run` runs a model again: what stands above them on the stack is not the program."""

_HERE = __file__.replace("\\", "/").rsplit("/", 1)[0] + "/"
_LIBRARY = {sysconfig.get_paths()[key].replace("\\", "/") + "/" for key in ("stdlib", "platstdlib")}
# Packages may lie anywhere (an editable install, --target): where they were imported from says it for certain.
_LIBRARY |= {str(module.__file__).replace("\\", "/").rsplit("/", 1)[0] + "/" for module in (keras, torch, np)}


def batch_is_finite(batch: Any) -> bool:
    """Whether no array of a batch holds NaN or an infinity."""
    return not any(_is_bad(_as_tensor(leaf)) for leaf in leaves(batch))
