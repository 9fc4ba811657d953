"""One training step of any Keras model, taken apart: the loss, the graph behind it, the gradients that were fed.

The model's own `train_step` is run, so functional, subclassed and hand-written steps are seen alike. Two doors of torch
and Keras are held while it runs: `torch.autograd.backward` (its root is the step's loss, whatever logs say) and
`Optimizer.apply` (its arguments are what the optimizer really gets). The update itself happens only when asked for.
Callers keep the model preserved; `Snapshot` is the light way back between two measurements.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tsguard.backend import (
    TorchStates,
    attributes,
    carried_states,
    is_own,
    optimizers_of,
    plain_attributes,
    restore_rng,
    rng_state,
)
from tsguard.dataset import Data, leaves, map_leaves

BATCH_ROWS = 64
"""Rows per measured batch: enough for a spread over units, little enough for a CPU."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch as tensors, in the structure that the model's `train_step` gets."""

    x: Any
    y: Any = None
    sample_weight: Any = None

    @property
    def packed(self) -> Any:
        """What Keras hands to `train_step`."""
        if self.sample_weight is not None:
            return (self.x, self.y, self.weights)
        return (self.x, self.y) if self.y is not None else (self.x,)

    @property
    def weights(self) -> Any:
        """The weights of the rows, to give away: Keras multiplies them by the mask of the answers, in place."""
        return copied(self.sample_weight)

    @property
    def rows(self) -> int:
        return int(next(leaves(self.x)).shape[0])


def batch_of(raw: Iterable[Any]) -> Batch:
    """x, y and weights of rows, as a user's data gives them, on the device."""
    return Batch(*(map_leaves(as_tensor, part) for part in raw))


def as_tensor(leaf: Any) -> Any:
    """A copy on the device, floats as Keras' own adapters give them."""
    import keras
    import numpy as np
    import torch

    if isinstance(leaf, torch.Tensor):
        value = leaf.detach().to(_device())
        return value.to(torch.float32) if value.dtype == torch.float64 else value.clone()
    array = np.asarray(leaf)
    if array.dtype == np.float64:
        array = array.astype(keras.config.floatx())
    if array.dtype.kind in "OUSM":
        return leaf
    return torch.from_numpy(np.array(array)).to(_device())


def _device() -> str:
    from keras.src.backend.torch.core import get_device

    return str(get_device())


def measured_batches(
    data: Data, *, count: int = 3, rows: int = BATCH_ROWS, batch_size: int | None = None
) -> list[Batch]:
    """A few batches from places spread over the data. Arrays are cut where they stand; iterables are read in order.

    `batch_size` is the user's own: what depends on the size of a batch must see that size.
    """
    import numpy as np

    if not data.is_arrays:
        return [batch_of(raw) for raw in data.batches(count)]
    total = len(data)
    size = max(1, min(rows if batch_size is None else min(batch_size, rows), total))
    # Strided rows show every part of sorted data; the generator is our own, so no global one is touched.
    order = np.random.default_rng(0).permutation(total)
    picked = [order[i * size : (i + 1) * size] for i in range(count)]
    return [batch_of(data.take(np.sort(index))) for index in picked if len(index)]


class Snapshot:
    """Every variable of model and optimizer, and every generator, as they stand; cheap to go back to."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._bits = [(v, v.value.detach().clone()) for v in all_variables(model)]
        self._torch = TorchStates(model)
        self._rng = rng_state()

    def restore(self, model: Any = None, *, keep_gradients: bool = False) -> None:
        """Put values and generators back, and drop gradients."""
        import torch

        with torch.no_grad():
            for variable, bits in self._bits:
                variable.value.copy_(bits)
        self._torch.restore()
        if not keep_gradients:
            (model or self._model).zero_grad()
            for variable, _ in self._bits:
                variable.value.grad = None
        restore_rng(self._rng)


@contextlib.contextmanager
def counts_kept(model: Any) -> Iterator[None]:
    """What own layers and models count or scale with in plain attributes is put back afterwards.

    Around one step and not around more: an experiment may have set an attribute for as long as it lasts.
    """
    own = [one for one in model._flatten_layers(include_self=True, recursive=True) if is_own(one)]
    kept = [(one, plain_attributes(one)) for one in own]
    try:
        yield
    finally:
        for thing, attributes in kept:
            for name in plain_attributes(thing).keys() - attributes.keys():
                if name in vars(type(thing)):  # counted on from what the class says
                    del thing.__dict__[name]
            thing.__dict__.update(attributes)


def all_variables(model: Any) -> list[Any]:
    """Variables of model, optimizer and inner optimizer, and the states that layers carry, each once."""
    found = {id(v): v for v in (*model.variables, *carried_states(model))}
    for optimizer in optimizers_of(model):
        found.update({id(v): v for v in optimizer.variables})
    return list(found.values())


def get_ready(model: Any, batch: Batch) -> None:
    """Build what `fit` would build before its first step."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model._symbolic_build(data_batch=batch.packed)


@dataclass(slots=True)
class Call:
    """One call of a layer during the step."""

    layer: Any
    inputs: Any
    """The positional arguments: the one, or a tuple of several."""
    output: Any
    """None where the call failed."""
    kwargs: dict[str, Any]
    first_node: int
    """Autograd sequence numbers: nodes made inside this call lie in [first_node, last_node)."""
    last_node: int
    depth: int


@dataclass(slots=True)
class Step:
    """What one training step did."""

    root: Any = None
    """The tensor that backward started from: the loss (scaled, under float16)."""
    roots: list[Any] = field(default_factory=list)
    fed: list[tuple[Any, list[Any], list[Any]]] = field(default_factory=list)
    """(optimizer, gradients, variables) of every outermost `apply`."""
    calls: list[Call] = field(default_factory=list)
    answer: Any = None
    """What the model's last outermost call returned."""
    outside: int = 0
    """Sequence number at which the model's last outermost call ended: later nodes belong to the loss."""
    error: BaseException | None = None
    inside: int = 0
    """While the step runs: how many layer calls are open."""

    @property
    def loss(self) -> float:
        """The loss as a number; NaN where there was none."""
        if self.root is None:
            return float("nan")
        return float(self.root.detach().float().mean()) / self.scale

    scale: float = 1.0
    """What the optimizer multiplied the loss by."""

    def gradient_of(self, variable: Any) -> Any:
        """The gradient that the optimizer was fed for a variable; None where it got none."""
        for _, gradients, variables in self.fed:
            for gradient, candidate in zip(gradients, variables, strict=False):
                if candidate is variable:
                    return gradient
        return None

    @property
    def fed_variables(self) -> list[Any]:
        return [variable for _, _, variables in self.fed for variable in variables]


def take_step(
    model: Any,
    batch: Batch,
    *,
    update: bool = False,
    record_calls: bool = True,
    answer: Any = None,
    into: Step | None = None,
) -> Step:
    """Run the model's own `train_step` on a batch and keep what went by.

    With `update=False` the optimizer is asked for nothing. With `answer`, the model's outermost call returns that in
    place of its own prediction (after computing its own, so that added losses exist): the loss as a function of
    answers. `into` is a Step to fill, for those who watch it while it runs.
    """
    step = Step() if into is None else into
    kept = contextlib.nullcontext() if update else counts_kept(model)
    apart = contextlib.nullcontext() if batch.sample_weight is None else _weights_apart(model)
    doors = _doors(model, step, update=update, record_calls=record_calls, answer=answer)
    with kept, apart, doors, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.train()
        try:
            model.train_step(batch.packed)
        except _Stop:
            pass
        except Exception as error:  # a user's step may fail in any way; the failure is a measurement
            step.error = error
    step.root = step.roots[-1] if step.roots else None
    return step


def _weights_apart(model: Any) -> contextlib.AbstractContextManager[None]:
    """Metrics are handed weights of their own: Keras multiplies them by masks in place, and the graph of the loss,
    which may be asked again, holds the others."""
    compute_metrics = model.compute_metrics

    def apart(x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        return compute_metrics(x, y, y_pred, sample_weight=copied(sample_weight))

    return attributes([(model, "compute_metrics", apart)])


def copied(weights: Any) -> Any:
    """Weights of rows, to give away."""
    return map_leaves(lambda leaf: leaf.clone() if hasattr(leaf, "clone") else leaf, weights)


class _Stop(Exception):
    """Ends a step once its loss is known."""


@contextlib.contextmanager
def _doors(model: Any, step: Step, *, update: bool, record_calls: bool, answer: Any) -> Iterator[None]:
    import keras
    import torch

    layer_call = keras.layers.Layer.__call__
    backward = torch.autograd.backward
    applied = {kind: kind.apply for kind in _kinds_with_apply()}
    stepped = {kind: kind.step for kind in _kinds_with_step()} if has_own_step(model) else {}
    depth = {"layers": 0, "model": 0, "apply": 0}

    def watched_call(self: Any, *args: Any, **kwargs: Any) -> Any:
        first = torch._C._autograd._get_sequence_nr()
        outermost = self is model and depth["model"] == 0
        depth["model"] += self is model
        depth["layers"] += 1
        step.inside = depth["layers"]
        given = args if len(args) > 1 else (args[0] if args else next(iter(kwargs.values()), None))
        try:
            output = layer_call(self, *args, **kwargs)
        except Exception:
            step.calls.append(Call(self, given, None, kwargs, first, first, depth["layers"]))
            raise
        finally:
            depth["layers"] -= 1
            step.inside = depth["layers"]
            depth["model"] -= self is model
        last = torch._C._autograd._get_sequence_nr()
        if outermost:
            output = output if answer is None else answer
            step.answer, step.outside = output, last
        if record_calls:
            step.calls.append(Call(self, given, output, kwargs, first, last, depth["layers"]))
        return output

    def watched_backward(tensors: Any, *args: Any, **kwargs: Any) -> Any:
        listed = list(tensors) if isinstance(tensors, Sequence) else [tensors]
        step.roots.extend(listed)
        kwargs["retain_graph"] = True
        return backward(tensors, *args[:1], **kwargs)

    def watched_apply(kind: type) -> Any:
        def apply(self: Any, grads: Any, trainable_variables: Any = None) -> Any:
            outermost = depth["apply"] == 0
            if outermost:
                variables = list(trainable_variables) if trainable_variables is not None else None
                if variables is None:
                    variables = list(getattr(self, "_trainable_variables", ()) or ())
                step.fed.append((self, [None if g is None else g.detach().clone() for g in grads], variables))
                step.scale = _scale_of(self)
                if not update:
                    return None
            depth["apply"] += 1
            try:
                return applied[kind](self, grads, trainable_variables)
            finally:
                depth["apply"] -= 1

        return apply

    def watched_step(kind: Any) -> Any:
        """A step of an optimizer of torch, which an own `train_step` may take in place of Keras' own."""

        def step_of_torch(self: Any, closure: Any = None) -> Any:
            ours = {id(variable.value): variable for variable in model.variables}
            weights = [weight for group in self.param_groups for weight in group["params"]]
            known = [weight for weight in weights if id(weight) in ours]
            grads = [None if weight.grad is None else weight.grad.detach().clone() for weight in known]
            step.fed.append((self, grads, [ours[id(weight)] for weight in known]))
            if update:
                return stepped[kind](self, closure)
            return None if closure is None else closure()

        return step_of_torch

    keras.layers.Layer.__call__ = watched_call
    torch.autograd.backward = watched_backward
    for kind in applied:
        kind.apply = watched_apply(kind)
    for kind in stepped:
        kind.step = watched_step(kind)
    try:
        yield
    finally:
        keras.layers.Layer.__call__ = layer_call
        torch.autograd.backward = backward
        for kind, own in applied.items():
            kind.apply = own
        for kind, own in stepped.items():
            kind.step = own


def _kinds_with_apply() -> list[Any]:
    """Every optimizer class that defines `apply` itself: the base, wrappers such as loss scaling, the user's own."""
    from keras.src.optimizers.base_optimizer import BaseOptimizer

    return _defining("apply", [BaseOptimizer])


def _kinds_with_step() -> list[Any]:
    """The same of torch's optimizers, by the `step` that each defines."""
    import torch

    return _defining("step", torch.optim.Optimizer.__subclasses__())


def _defining(name: str, roots: list[Any]) -> list[Any]:
    """Which of some classes, and of all that are made from them, define a method themselves."""
    found, waiting = [], list(roots)
    while waiting:
        kind = waiting.pop()
        waiting.extend(kind.__subclasses__())
        if name in vars(kind) and kind not in found:
            found.append(kind)
    return found


def _scale_of(optimizer: Any) -> float:
    """The factor that `optimizer.scale_loss` puts on the loss."""
    import torch

    scaler = getattr(optimizer, "scale_loss", None)
    if scaler is None:
        return 1.0
    with torch.no_grad():
        return float(scaler(torch.ones((), device=_device()))) or 1.0


def flat(structure: Any) -> list[Any]:
    """The tensors of a structure, without None."""
    return list(leaves(structure))


def has_own_step(model: Any) -> bool:
    """Whether the user wrote `train_step`."""
    import keras

    return type(model).train_step is not keras.Model.train_step


def has_own_loss(model: Any) -> bool:
    """Whether the loss is computed by the user's own `compute_loss` (or inside an own step)."""
    import keras

    return has_own_step(model) or type(model).compute_loss is not keras.Model.compute_loss
