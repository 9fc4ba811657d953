"""Pieces that the families share: means over what is real, alignment, instance scaling, the shells of the models.

One rule runs through all of them: what is masked is replaced by `where` *before* any arithmetic, because 0 · NaN is
NaN, and every mean over a selection is a sum divided by max(count, 1), because the selection may be empty.
"""

from __future__ import annotations

import keras
from keras import ops

from models.precise import at_least_float32

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
        weight = expand_to(ops.cast(sample_weight, error.dtype), len(ops.shape(error)))
        error = ops.where(mask, error * weight, 0.0)
    return ops.sum(error) / ops.maximum(ops.sum(ops.cast(mask, error.dtype)), 1.0)


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


def align_last(inputs, steps, dtype="float32"):
    """(values, cells), as `cells_of`, of the last `steps` steps of each sample, counted back from its last valid step.

    More padding, on either side, changes nothing after this; a shorter sample is filled up in front, masked.
    """
    values, cells = inputs["values"] if isinstance(inputs, dict) else inputs, which_cells(inputs)
    last = last_step(cells)
    index = ops.arange(steps, dtype="int32")[None, :] + (last - steps + 1)
    real = ops.logical_and(index >= 0, last >= 0)[:, :, None]
    index = ops.clip(index, 0, ops.shape(values)[1] - 1)[:, :, None]
    index = ops.broadcast_to(index, (ops.shape(values)[0], steps, ops.shape(values)[2]))
    cells = ops.logical_and(ops.take_along_axis(cells, index, axis=1), real)
    values = ops.take_along_axis(ops.cast(values, dtype), index, axis=1)
    return ops.where(cells, values, 0.0), cells


def features_of_last(cells, steps):
    """(batch, features) with a real cell among the last steps: what `align_last` leaves, without moving a value."""
    time = ops.arange(ops.shape(cells)[1], dtype="int32")[None, :]
    return ops.any(ops.logical_and(cells, (time > last_step(cells) - steps)[:, :, None]), axis=1)


def scale_instances(values, cells):
    """Each window's feature minus its own mean, over its own deviation, of the real cells (as RevIN, without affine).

    `values`, 0 where there is no cell, in at least float32: the square of a price of 19,789 does not fit into float16.
    Returns the scaled values, 0 where there is no cell, and (mean, deviation) to scale back with.
    """
    count = ops.maximum(ops.sum(ops.cast(cells, values.dtype), axis=1, keepdims=True), 1.0)
    mean = ops.sum(values, axis=1, keepdims=True) / count
    centred = ops.where(cells, values - mean, 0.0)
    deviation = ops.sqrt(ops.sum(ops.square(centred), axis=1, keepdims=True) / count + SCALE_EPSILON)
    return centred / deviation, mean, deviation


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
        added = self.losses  # a walk over all layers
        return total + sum(added) if added else total


class ReadableModel(keras.Model):
    """A Functional model that is made of its `settings` alone, and keeps tensors on the way that can be read.

    A family gives its network, a function of (inputs, settings) to (outputs, readings by name).
    """

    def __init__(self, network, inputs, settings, **kwargs):
        outputs, readings = network(inputs, settings)
        super().__init__(inputs=inputs, outputs=outputs, **kwargs)
        self.settings, self.readings = settings, readings

    def explain(self, x, batch_size=None):
        """The readings of x by name, as arrays."""
        reader = keras.Model(self.inputs, dict(self.readings))
        return reader.predict(x, batch_size=batch_size, verbose=0)

    def get_config(self):
        return {"name": self.name, "trainable": self.trainable, **self.settings}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**config)
