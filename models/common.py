"""Pieces that the families share: means over what is real, instance scaling, alignment, attention, transfer.

One rule runs through all of them: what is masked is replaced by `where` *before* any arithmetic, because 0 · NaN is
NaN, and every mean over a selection is a sum divided by max(count, 1), because the selection may be empty.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import keras
from keras import ops

from models.precise import at_least_float32, precise

register = keras.saving.register_keras_serializable(package="tsguard_models")

SCALE_EPSILON = 1e-5
"""Added to the variance of a window: a constant window is divided by 0.003, not by zero. RevIN uses the same."""


def widened(values):
    """The values in at least float32: what is summed or squared must not be in half."""
    values = ops.convert_to_tensor(values)
    return ops.cast(values, at_least_float32(values.dtype))


def masked_mean(values, mask, axis=None, keepdims=False):
    """Mean of `values` where the bool `mask` (it broadcasts); of an empty selection it is 0, its gradient too."""
    values = widened(values)
    mask = ops.broadcast_to(mask, ops.shape(values))
    total = ops.sum(ops.where(mask, values, 0.0), axis=axis, keepdims=keepdims)
    return total / ops.maximum(ops.sum(ops.cast(mask, values.dtype), axis=axis, keepdims=keepdims), 1.0)


def lowest(dtype):
    """The most negative finite score of a dtype: −1e9 is −inf in float16, and inf − inf is NaN."""
    return {"float16": -6e4, "bfloat16": -3e38}.get(keras.backend.standardize_dtype(dtype), -3e38)


def masked_softmax(scores, mask, axis=-1):
    """Softmax over `axis` where `mask`; a row without anything to attend to gets zeros, not NaN."""
    scores = ops.softmax(ops.where(mask, scores, lowest(scores.dtype)), axis=axis)
    return ops.where(mask, scores, ops.zeros_like(scores))


def point_error(error, kind, delta=1.0):
    """Squared ("mse"), absolute ("mae") or Huber ("huber") error, element by element."""
    size = ops.abs(error)
    if kind == "mse":
        return ops.square(error)
    if kind == "mae":
        return size
    if kind == "huber":
        inside = ops.minimum(size, delta)
        return 0.5 * ops.square(inside) + delta * (size - inside)
    raise ValueError(f"point loss: received {kind!r}, expected 'mse', 'mae' or 'huber'.")


def weighted_error(target, predicted, mask, sample_weight=None, kind="mse"):
    """Mean point error where `mask`; 0 where nothing is selected. Weights multiply, as in Keras: no normalisation."""
    predicted = widened(predicted)
    mask = ops.broadcast_to(mask, ops.shape(predicted))
    error = point_error(ops.where(mask, predicted - ops.cast(target, predicted.dtype), 0.0), kind)
    if sample_weight is not None:
        error = error * expand_to(ops.cast(sample_weight, error.dtype), len(ops.shape(error)))
    return masked_mean(error, mask)


def expand_to(values, rank):
    """Add axes of 1 at the end until `values` has `rank` axes."""
    while len(ops.shape(values)) < rank:
        values = ops.expand_dims(values, -1)
    return values


def cells_of(inputs, dtype="float32"):
    """(values, cells) of the inputs: an array, or a dict of values, mask and feature_mask.

    `mask` is (batch, time), or (batch, time, feature) where single cells are missing; `feature_mask` is
    (batch, feature). What is not a real cell is 0 in `values` from here on, whatever it was.
    """
    values = inputs["values"] if isinstance(inputs, dict) else inputs
    cells = which_cells(inputs)
    return ops.where(cells, ops.cast(values, dtype), 0.0), cells


def which_cells(inputs):
    """(batch, time, feature): the real cells of the inputs, as `cells_of`."""
    if not isinstance(inputs, dict):
        return ops.ones_like(inputs, dtype="bool")
    cells = ops.ones_like(inputs["values"], dtype="bool")
    mask, feature_mask = inputs.get("mask"), inputs.get("feature_mask")
    if mask is not None:
        cells = ops.logical_and(cells, expand_to(ops.cast(mask, "bool"), 3))
    if feature_mask is not None:
        cells = ops.logical_and(cells, ops.expand_dims(ops.cast(feature_mask, "bool"), 1))
    return cells


def last_step(cells):
    """(batch, 1): the last step of each sample with a real cell; −1 where there is none."""
    time = ops.arange(ops.shape(cells)[1], dtype="int32")[None, :]
    return ops.max(ops.where(ops.any(cells, axis=-1), time, -1), axis=1, keepdims=True)


@register
class AlignLast(keras.layers.Layer):
    """The last `steps` steps of each sample, counted back from its own last valid step.

    More padding, on either side, changes nothing after this layer; a shorter sample is filled up in front, masked.
    """

    def __init__(self, steps, **kwargs):
        super().__init__(**kwargs)
        self.steps = steps

    def build(self, input_shape):
        self.built = True

    def call(self, values, cells):
        last = last_step(cells)
        index = ops.arange(self.steps, dtype="int32")[None, :] + (last - self.steps + 1)
        real = ops.logical_and(index >= 0, last >= 0)[:, :, None]
        index = ops.clip(index, 0, ops.shape(values)[1] - 1)[:, :, None]
        index = ops.broadcast_to(index, (ops.shape(values)[0], self.steps, ops.shape(values)[2]))
        cells = ops.logical_and(ops.take_along_axis(cells, index, axis=1), real)
        return ops.where(cells, ops.take_along_axis(values, index, axis=1), 0.0), cells

    def features(self, cells):
        """(batch, features) with a real cell among the last steps: what `call` would leave, without moving a value."""
        time = ops.arange(ops.shape(cells)[1], dtype="int32")[None, :]
        return ops.any(ops.logical_and(cells, (time > last_step(cells) - self.steps)[:, :, None]), axis=1)

    def get_config(self):
        return {**super().get_config(), "steps": self.steps}


@register
class InstanceScaling(keras.layers.Layer):
    """Each window's feature minus its own mean, over its own deviation, of the real cells (as RevIN, without affine).

    It computes in float32 under any half policy: the square of a price of 19,789 does not fit into float16.
    Returns the scaled values, 0 where there is no cell, and (mean, deviation) to scale back with.
    """

    def __init__(self, **kwargs):
        super().__init__(**{"dtype": precise(), "autocast": False, **kwargs})

    def build(self, input_shape):
        self.built = True

    def call(self, values, cells):
        count = ops.maximum(ops.sum(ops.cast(cells, values.dtype), axis=1, keepdims=True), 1.0)
        mean = ops.sum(ops.where(cells, values, 0.0), axis=1, keepdims=True) / count
        centred = ops.where(cells, values - mean, 0.0)
        deviation = ops.sqrt(ops.sum(ops.square(centred), axis=1, keepdims=True) / count + SCALE_EPSILON)
        return centred / deviation, mean, deviation


def mask_bias(mask, dtype):
    """What to add to the scores of attention over the last axis of `mask` (…, tokens), for every row before it.

    One bias serves every block: made of the mask anew in each of them, it costs as much as the softmax.
    """
    mask = ops.reshape(mask, (-1, 1, 1, ops.shape(mask)[-1]))
    return ops.cast(ops.where(mask, 0.0, lowest(dtype)), dtype)


@register
class MaskedAttention(keras.layers.Layer):
    """Self-attention over axis 1 of (batch, tokens, width); `bias` is what `mask_bias` makes of the mask of tokens.

    A row without anything to attend to is a plain mean, which the encoder replaces by 0.
    """

    def __init__(self, width, heads, **kwargs):
        super().__init__(**kwargs)
        if width % heads:
            raise ValueError(f"MaskedAttention: width {width} is not a multiple of heads {heads}.")
        self.width, self.heads = width, heads
        self.project = keras.layers.Dense(3 * width, name="project", dtype=self.dtype_policy)
        self.output_dense = keras.layers.Dense(width, name="output", dtype=self.dtype_policy)

    def build(self, input_shape):
        self.project.build((*input_shape[:-1], self.width))
        self.output_dense.build((*input_shape[:-1], self.width))
        self.built = True

    def call(self, tokens, bias):
        steps = ops.shape(tokens)[1]
        split = ops.reshape(self.project(tokens), (-1, steps, 3, self.heads, self.width // self.heads))
        mixed = ops.dot_product_attention(split[:, :, 0], split[:, :, 1], split[:, :, 2], bias=bias)
        return self.output_dense(ops.reshape(mixed, (-1, steps, self.width)))

    def get_config(self):
        return {**super().get_config(), "width": self.width, "heads": self.heads}


class TermLossModel(keras.Model):
    """A model whose loss is the sum of named terms: `loss_terms(x, y, y_pred, sample_weight)` is a pure function.

    Everything random happens in the forward pass and travels in `y_pred`, so that terms can be computed again, dropped
    or compared without another pass. Each term is logged under its own name beside the loss.
    """

    term_names = ()

    def track_terms(self, names):
        """Create the metrics, one for each term; called once, while the model is built."""
        self.term_names = tuple(names)
        self.term_metrics = [keras.metrics.Mean(name=name) for name in self.term_names]

    def loss_terms(self, x, y, y_pred, sample_weight=None):
        """The named terms, weighted as in the loss: their sum is the loss."""
        raise NotImplementedError

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        terms = self.loss_terms(x, y, y_pred, sample_weight)
        for name, metric in zip(self.term_names, self.term_metrics, strict=True):
            metric.update_state(ops.stop_gradient(terms[name]))
        total = sum(terms.values()) if terms else ops.zeros(())
        return total + sum(self.losses) if self.losses else total


@dataclass(frozen=True)
class Transfer:
    """What a transfer of weights did, tensor by tensor."""

    loaded: tuple[str, ...] = ()
    """Target tensors that now hold the source's values."""
    not_loaded: dict[str, str] = field(default_factory=dict)
    """Target tensors that stayed as they were, with the reason."""
    unused: dict[str, str] = field(default_factory=dict)
    """Source tensors that went nowhere, with the reason."""

    @property
    def nothing(self):
        """True where not one tensor was loaded: the pre-training had no influence at all (`transfer-nothing`)."""
        return not self.loaded

    def __str__(self):
        lines = [f"loaded {len(self.loaded)}, not loaded {len(self.not_loaded)}, unused {len(self.unused)}"]
        lines += [f"  loaded      {name}" for name in self.loaded]
        lines += [f"  not loaded  {name}: {why}" for name, why in self.not_loaded.items()]
        lines += [f"  unused      {name}: {why}" for name, why in self.unused.items()]
        return "\n".join(lines)

    def __add__(self, other):
        return Transfer(
            self.loaded + other.loaded, {**self.not_loaded, **other.not_loaded}, {**self.unused, **other.unused}
        )


def copy_weights(source, target):
    """Copy every tensor of layer `source` into the one of `target` at the same place below it, where shapes agree."""
    given, wanted = _tensors(source), _tensors(target)
    loaded, not_loaded, unused = [], {}, {}
    for name, variable in wanted.items():
        if name not in given:
            not_loaded[variable.path] = f"the source has no tensor {name!r}"
        elif tuple(given[name].shape) != tuple(variable.shape):
            shapes = f"shape {tuple(given[name].shape)} in the source, {tuple(variable.shape)} here"
            not_loaded[variable.path] = shapes
            unused[given[name].path] = shapes
        else:
            variable.assign(ops.convert_to_numpy(given[name].value))
            loaded.append(variable.path)
    unused.update({given[name].path: f"the target has no tensor {name!r}" for name in given if name not in wanted})
    return Transfer(tuple(loaded), not_loaded, unused)


def _tensors(layer):
    """Trainable and other weights by their path below the layer; generators' seeds are state, not weights."""
    depth = len(layer.path.split("/"))
    return {"/".join(variable.path.split("/")[depth:]): variable for variable in layer.weights}


def recompile(model, optimizer=None):
    """Compile again with the model's own settings, so that the optimizer knows what is trainable now.

    Keras' optimizer fixes its variables when it is first used; a layer unfrozen later raises "Unknown variable". The
    moments and the step count of the variables that stay are carried over, and `fit` may be under way.
    """
    old = model.optimizer
    inner = getattr(old, "inner_optimizer", old)
    new = optimizer or inner.__class__.from_config(inner.get_config())
    settings = model.get_compile_config() or {}
    kept = {key: settings[key] for key in ("loss", "loss_weights", "weighted_metrics", "metrics") if key in settings}
    kept = {key: keras.saving.deserialize_keras_object(value) for key, value in kept.items()}
    model.compile(
        optimizer=new, run_eagerly=model.run_eagerly, jit_compile=model.jit_compile, auto_scale_loss=True, **kept
    )
    fresh = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    model.optimizer.build(model.trainable_variables)
    if inner.built and type(inner) is type(fresh):
        _carry_state(inner, fresh)
    if model.optimizer is not fresh and hasattr(old, "dynamic_scale"):
        model.optimizer.dynamic_scale.assign(old.dynamic_scale.value)
    model.make_train_function(force=True)


def _carry_state(old, new):
    """Copy the optimizer variables that both have, matched by their paths."""
    state = {variable.path.split("/", 1)[-1]: variable for variable in old.variables}
    for variable in new.variables:
        before = state.get(variable.path.split("/", 1)[-1])
        if before is not None and tuple(before.shape) == tuple(variable.shape):
            variable.assign(ops.convert_to_numpy(before.value))


class FreezeSchedule(keras.callbacks.Callback):
    """What is trainable from which epoch on: `FreezeSchedule({0: ["head"], 10: "all"})`.

    The names are those of the model's own layers. At every epoch's beginning the schedule compares what should be
    trainable with what the optimizer knows, and recompiles where they differ: so it holds after a recompilation by
    someone else, and after a resumption in the middle.
    """

    def __init__(self, schedule):
        super().__init__()
        if 0 not in schedule:
            raise ValueError(
                f"FreezeSchedule: received epochs {sorted(schedule)}, expected what holds from epoch 0 on."
            )
        self.schedule = dict(schedule)

    def on_epoch_begin(self, epoch, logs=None):
        stage = max(start for start in self.schedule if start <= epoch)
        apply_freeze(self.model, self.schedule[stage])


def apply_freeze(model, trainable):
    """Make exactly the named sublayers trainable ("all": every one); recompile if the optimizer must learn of it."""
    parts = {layer.name: layer for layer in model.layers if layer.weights}
    names = list(parts) if trainable == "all" else list(trainable)
    unknown = sorted(set(names) - set(parts))
    if unknown:
        raise ValueError(f"freeze: {model.name!r} has no layer {unknown}; its layers with weights are {sorted(parts)}.")
    for name, layer in parts.items():
        layer.trainable = name in names
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        return
    known = getattr(optimizer, "inner_optimizer", optimizer)
    tracked = {id(variable) for variable in getattr(known, "_trainable_variables", ())}
    if known.built and tracked != {id(variable) for variable in model.trainable_variables}:
        recompile(model)


@register
class RatedAdam(keras.optimizers.Adam):
    """Adam with a rate for each part of the model: `RatedAdam(1e-3, rates={"encoder": 0.1})`.

    The factor of the longest key found in a variable's path counts; 1 where none is found.
    """

    def __init__(self, learning_rate=1e-3, rates=None, **kwargs):
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.rates = dict(rates or {})

    def factor(self, path):
        """The factor on the learning rate of the variable at this path."""
        parts = f"/{path}/"
        found = [key for key in self.rates if f"/{key}/" in parts]
        return self.rates[max(found, key=len)] if found else 1.0

    def update_step(self, gradient, variable, learning_rate):
        super().update_step(gradient, variable, learning_rate * self.factor(variable.path))

    def get_config(self):
        return {**super().get_config(), "rates": self.rates}
