"""One thing changed for the length of a trial, and put back: the rate, clipping, decay, dropout, penalties,
activations.

Each is a context manager on a live compiled model. What a change cannot reach (a rate that is computed inside an own
train step) it leaves alone; a trial then shows no effect, which is the truth.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from tsguard.backend import attributes, optimizers_of
from tsguard.dataset import leaves
from tsguard.probes.gradients import addends
from tsguard.probes.stage import all_variables


@contextlib.contextmanager
def rate_times(model: Any, factor: float) -> Iterator[None]:
    """Every optimizer's learning rate (or schedule) multiplied."""
    from keras.src.optimizers.base_optimizer import BaseOptimizer

    own = BaseOptimizer._get_current_learning_rate
    BaseOptimizer._get_current_learning_rate = lambda self: own(self) * factor
    try:
        yield
    finally:
        BaseOptimizer._get_current_learning_rate = own


@contextlib.contextmanager
def rate_held(model: Any) -> Iterator[None]:
    """Every schedule held at the highest rate of its first steps."""
    from keras.src.optimizers.base_optimizer import BaseOptimizer

    own = BaseOptimizer._get_current_learning_rate
    highest: dict[int, Any] = {}

    def held(self: Any) -> Any:
        now = own(self)
        before = highest.get(id(self))
        highest[id(self)] = now if before is None or float(now) > float(before) else before
        return highest[id(self)]

    BaseOptimizer._get_current_learning_rate = held
    try:
        yield
    finally:
        BaseOptimizer._get_current_learning_rate = own


@contextlib.contextmanager
def without_term(number: int) -> Iterator[None]:
    """The gradient of one addend of the loss stopped, whichever step computes it; the loss that is told stays whole."""
    import torch

    own = torch.autograd.backward

    def backward(tensors: Any, *args: Any, **kwargs: Any) -> Any:
        root = tensors[0] if isinstance(tensors, list | tuple) else tensors
        parts = addends(root) if getattr(root, "grad_fn", None) is not None else []
        if number >= len(parts):
            return own(tensors, *args, **kwargs)
        stop = parts[number][0].register_prehook(lambda grads: tuple(None if g is None else g * 0 for g in grads))
        try:
            return own(tensors, *args, **kwargs)
        finally:
            stop.remove()

    torch.autograd.backward = backward
    try:
        yield
    finally:
        torch.autograd.backward = own


def without_clipping(model: Any) -> Any:
    """Gradients as they are."""
    names = ("clipnorm", "global_clipnorm", "clipvalue")
    return attributes([(o, name, None) for o in optimizers_of(model) for name in names if name in o.__dict__])


def without_decay(model: Any) -> Any:
    """No weight decay in the optimizer."""
    return attributes([(o, "weight_decay", None) for o in optimizers_of(model) if "weight_decay" in o.__dict__])


def with_clipping(model: Any, threshold: float) -> Any:
    """Gradients clipped by their global norm."""
    clipping = [one for one in optimizers_of(model) if "global_clipnorm" in one.__dict__]
    return attributes([(one, "global_clipnorm", threshold) for one in clipping])


@contextlib.contextmanager
def without_dropout(model: Any) -> Iterator[None]:
    """Every rate of dropout at zero."""
    layers = list(model._flatten_layers(include_self=True, recursive=True))
    pairs = [
        (layer, name, 0.0 if isinstance(layer.__dict__[name], float) else 0)
        for layer in layers
        for name in ("rate", "dropout", "recurrent_dropout", "_dropout")
        if isinstance(layer.__dict__.get(name), int | float) and not isinstance(layer.__dict__.get(name), bool)
    ]
    with attributes(pairs):
        yield


@contextlib.contextmanager
def without_constraints(model: Any) -> Iterator[None]:
    """No constraint on any weight."""
    held = [(v, v.constraint) for v in model.variables if getattr(v, "constraint", None) is not None]
    for variable, _ in held:
        variable.constraint = None
    try:
        yield
    finally:
        for variable, constraint in held:
            variable.constraint = constraint


@contextlib.contextmanager
def without_penalties(model: Any) -> Iterator[None]:
    """No regulariser on weights or activities."""
    variables = [v for v in model.variables if getattr(v, "regularizer", None) is not None]
    layers = [
        layer
        for layer in model._flatten_layers(include_self=True, recursive=True)
        if getattr(layer, "activity_regularizer", None) is not None
    ]
    kept = [v.regularizer for v in variables]
    activity = [layer.activity_regularizer for layer in layers]
    for variable in variables:
        variable.regularizer = None
    for layer in layers:
        layer.__dict__["activity_regularizer"] = None
    try:
        yield
    finally:
        for variable, one in zip(variables, kept, strict=True):
            variable.regularizer = one
        for layer, one in zip(layers, activity, strict=True):
            layer.__dict__["activity_regularizer"] = one


@contextlib.contextmanager
def twice_as_precise(model: Any) -> Iterator[None]:
    """Layers that compute in half precision in float32; where there are none, everything in float64."""
    import keras
    import torch

    from tsguard.backend import true_float64

    layers = list(model._flatten_layers(include_self=True, recursive=True))
    half = [one for one in layers if str(getattr(one, "compute_dtype", "")) in ("float16", "bfloat16")]
    if half:
        with attributes([(one, "_dtype_policy", keras.dtype_policies.DTypePolicy("float32")) for one in half]):
            yield
        return
    wide = keras.dtype_policies.DTypePolicy("float64")
    losses = [one.loss for one in getattr(getattr(model, "_compile_loss", None), "_flat_losses", None) or ()]
    variables = [v for v in all_variables(model) if v.value.dtype == torch.float32]
    told = [(one, name, value) for one in layers for name, value in (("_dtype_policy", wide),)]
    told += [(one, name, value) for one in losses for name, value in (("_dtype_policy", wide), ("dtype", "float64"))]
    told += [(v, "_dtype", "float64") for v in variables]
    with true_float64(), attributes(told):
        for variable in variables:
            variable.value.grad = None
            variable.value.data = variable.value.data.double()
        try:
            yield
        finally:
            for variable in variables:
                variable.value.grad = None
                variable.value.data = variable.value.data.float()


def rebuilt_optimizer(model: Any) -> Any:
    """A new optimizer of the same settings that knows every trainable variable."""
    optimizer = type(model.optimizer).from_config(model.optimizer.get_config())
    optimizer.build(model.trainable_variables)
    return attributes([(model, "optimizer", optimizer)])


@contextlib.contextmanager
def unfrozen(model: Any) -> Iterator[None]:
    """Every layer trainable, and an optimizer that knows them all; flags are put back."""
    layers = list(model._flatten_layers(include_self=True, recursive=True))
    flags = [(layer, layer.__dict__.get("_trainable", True)) for layer in layers]
    trained = [(variable, variable.trainable) for variable in model.variables]
    for layer in layers:
        layer.trainable = True
    try:
        with rebuilt_optimizer(model):
            yield
    finally:
        for layer, flag in flags:
            layer.__dict__["_trainable"] = flag
        for variable, flag in trained:
            variable.trainable = flag


def with_kerass_step(model: Any) -> contextlib.AbstractContextManager[None]:
    """The instance's step is that of `keras.Model`, whatever its class says."""
    import keras

    return attributes([(model, "train_step", keras.Model.train_step.__get__(model))])


@contextlib.contextmanager
def all_at_once(*changes: Any) -> Iterator[None]:
    """Several changes together."""
    with contextlib.ExitStack() as stack:
        for change in changes:
            stack.enter_context(change)
        yield


def loss_replaced(model: Any, function: Callable[[Any, Any], Any]) -> contextlib.AbstractContextManager[None]:
    """While open, the loss is this function of targets and answers."""
    return attributes(
        [
            (
                model,
                "compute_loss",
                lambda x=None, y=None, y_pred=None, sample_weight=None, training=True: function(y, y_pred),
            ),
            (model, "_compute_loss_has_training_arg", True),
        ]
    )


def cross_entropy(y: Any, p: Any) -> Any:
    """The loss that asks for one class of several, of shares or of logits."""
    import keras
    from keras import ops

    target, answer = next(leaves(y)), next(leaves(p))
    if target.numel() * answer.shape[-1] == answer.numel():
        target = ops.one_hot(ops.cast(ops.reshape(target, answer.shape[:-1]), "int32"), answer.shape[-1])
    positive = bool((answer.detach() >= 0).all()) and bool(((answer.detach().sum(-1) - 1).abs() < 1e-3).all())
    return ops.mean(keras.losses.categorical_crossentropy(target, answer, from_logits=not positive))
