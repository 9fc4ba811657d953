"""Quantiles: the loss that finds them, and the risk they are judged by."""

from typing import Any

import keras
import numpy as np
from keras import ops

from models.precise import at_least_float32

QUANTILES = (0.1, 0.5, 0.9)


@keras.saving.register_keras_serializable(package="tft")
class QuantileLoss(keras.losses.Loss):
    """Pinball loss of several targets: `max(q (y − ŷ), (q − 1)(y − ŷ))`, summed over quantiles, averaged over targets.

    `y` is `(batch, horizon, targets)`, `ŷ` has the quantiles behind it. The mean runs over what `sample_weight` keeps;
    targets of weight zero may hold NaN. A batch in which nothing is kept has loss zero.
    """

    def __init__(self, quantiles=QUANTILES, name: str = "quantile_loss", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.quantiles = tuple(float(q) for q in quantiles)

    def terms(self, y, y_pred, sample_weight=None) -> dict[str, Any]:
        """The share of every target and quantile in the loss; the shares add up to it."""
        y_pred = ops.convert_to_tensor(y_pred)
        dtype = at_least_float32(y_pred.dtype)
        y, y_pred = ops.cast(y, dtype), ops.cast(y_pred, dtype)
        weight = ops.ones_like(y)
        if sample_weight is not None:
            sample_weight = ops.cast(sample_weight, dtype)
            for _ in range(len(y.shape) - len(sample_weight.shape)):
                sample_weight = ops.expand_dims(sample_weight, -1)
            weight = weight * sample_weight
        kept = weight > 0
        y = ops.where(kept, y, ops.zeros_like(y))
        shares = {}
        total = ops.sum(weight)
        total = ops.where(total > 0, total, ops.ones_like(total))
        for k, q in enumerate(self.quantiles):
            error = y - ops.where(kept, y_pred[..., k], ops.zeros_like(y))
            pinball = ops.maximum(q * error, (q - 1.0) * error) * weight
            for j in range(y.shape[-1]):
                shares[f"target_{j}/q{q:g}"] = ops.sum(pinball[..., j]) / total
        return shares

    def __call__(self, y_true, y_pred, sample_weight=None):
        return sum(self.terms(y_true, y_pred, sample_weight).values())

    def call(self, y_true, y_pred):
        return self(y_true, y_pred)

    def get_config(self):
        return {**super().get_config(), "quantiles": list(self.quantiles)}


def q_risk(y, y_pred, quantiles=QUANTILES, weight=None) -> np.ndarray:
    """`2 Σ QL / Σ |y|` by target and quantile: `(targets, quantiles)`; lower is better.

    `y` is `(…, targets)` and `y_pred` `(…, targets, quantiles)`; `weight` is like `y`. A target that is zero
    throughout has no scale to be judged on: its risk is NaN.
    """
    y, y_pred = np.asarray(y, np.float64), np.asarray(y_pred, np.float64)
    kept = np.ones_like(y) if weight is None else np.broadcast_to(np.asarray(weight, np.float64), y.shape)
    y = np.where(kept > 0, y, 0.0)
    error = y[..., None] - np.where(kept[..., None] > 0, y_pred, 0.0)
    q = np.asarray(quantiles)
    loss = np.maximum(q * error, (q - 1) * error) * kept[..., None]
    axes = tuple(range(y.ndim - 1))
    size = (np.abs(y) * kept).sum(axis=axes)[:, None]
    return np.divide(2 * loss.sum(axis=axes), size, out=np.full((y.shape[-1], q.size), np.nan), where=size > 0)
