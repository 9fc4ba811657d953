"""DLinear and NLinear (Zeng et al., 2023) in the interface of duet: what a transformer has to beat.

One linear map over time, shared by all features, on the window that is aligned to its last valid step.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from models.common import TermLossModel, align_last, features_of_last, masked_mean, register, which_cells
from models.duet.losses import forecast_loss
from models.precise import at_least_float32


def moving_average_matrix(steps, kernel):
    """(steps, steps): row t averages the `kernel` neighbours of t, the ends repeated, as DLinear decomposes."""
    matrix = np.zeros((steps, steps))
    half = (kernel - 1) // 2
    for row in range(steps):
        for offset in range(-half, kernel - half):
            matrix[row, min(max(row + offset, 0), steps - 1)] += 1.0 / kernel
    return matrix


@register
class LinearForecaster(TermLossModel):
    """`kind="nlinear"`: subtract the last value, map, add it again. `kind="dlinear"`: map trend and rest apart.

    Same inputs, output, `loss_terms` and padding as `Duet` with the objective "forecast". Steps without a cell count as
    the last value of their feature (nlinear) or its mean (dlinear).
    """

    def __init__(self, context=96, horizon=24, kind="nlinear", kernel=25, loss="mse", **kwargs):
        super().__init__(autocast=False, **kwargs)
        if kind not in ("nlinear", "dlinear"):
            raise ValueError(f"LinearForecaster: received kind {kind!r}, expected 'nlinear' or 'dlinear'.")
        self.settings = {"context": context, "horizon": horizon, "kind": kind, "kernel": kernel, "loss": loss}
        self.context, self.kind, self.forecast_kind = context, kind, loss
        # At least float32: one matrix gains nothing from half, and DLinear reads the values as they are.
        self.precise = at_least_float32(self.compute_dtype)
        # A mean over the context to begin with, as published: small, and the same for every seed.
        start = keras.initializers.Constant(1.0 / context)
        self.map = keras.layers.Dense(horizon, kernel_initializer=start, name="map", dtype=self.precise)
        if kind == "dlinear":
            self.map_rest = keras.layers.Dense(horizon, kernel_initializer=start, name="map_rest", dtype=self.precise)
            self.average = moving_average_matrix(context, kernel)
        self.track_terms(["forecast"])
        self.build((None, context, None))

    def build(self, input_shape):
        if self.built:
            return
        self.map.build((None, None, self.context))
        if self.kind == "dlinear":
            self.map_rest.build((None, None, self.context))
        self.built = True

    def call(self, x, training=False):
        values, cells = align_last(x, self.context, self.precise)
        if self.kind == "nlinear":
            level = last_of(values, cells)
            ahead = turn(self.map(turn(ops.where(cells, values - level, 0.0)))) + level
        else:
            filled = turn(ops.where(cells, values, masked_mean(values, cells, axis=1, keepdims=True)))
            trend = ops.matmul(filled, ops.convert_to_tensor(self.average.T, dtype=filled.dtype))
            ahead = turn(self.map(trend) + self.map_rest(filled - trend))
        return ops.where(ops.any(cells, axis=1, keepdims=True), ahead, 0.0)

    def loss_terms(self, x, y, y_pred, sample_weight=None):
        """The one term: the error of the forecast over the features that are real."""
        features = features_of_last(which_cells(x), self.context)
        return {"forecast": forecast_loss(y, y_pred, features, sample_weight, self.forecast_kind)}

    def get_config(self):
        return {**super().get_config(), **self.settings}


def last_of(values, cells):
    """(batch, 1, features): the last real value of each feature; 0 where it has none."""
    place = ops.arange(values.shape[1], dtype="int32")[None, :, None]
    last = ops.max(ops.where(cells, place, -1), axis=1, keepdims=True)
    return ops.sum(ops.where(place == last, values, 0.0), axis=1, keepdims=True)


def turn(values):
    """Swap time and features."""
    return ops.transpose(values, (0, 2, 1))
