"""The error of a regression, what may be asked of it besides, and what R² is made of."""

from typing import Any

import keras
import numpy as np
from keras import ops

from models.precise import at_least_float32

LOSSES = ("mse", "huber", "variance", "ccc")
# Added to the ratio of predicted to true variance, so that its root has a gradient when predictions are flat.
FLAT_SHARE = 1e-6
# Targets whose variance is below this share of their squared mean differ by float32's rounding only.
CONSTANT_SHARE = 1e-12


@keras.saving.register_keras_serializable(package="cloud")
class RegressionLoss(keras.losses.Loss):
    """The error of a regression, and what may be asked of it besides.

    - `mse`, `huber`: the error alone; `huber` bounds the pull of outliers at `delta`.
    - `variance`: mse plus `variance_weight · (1 − 2 σp σt / (σp² + σt²))`, which is 0 where predictions vary as much
    as targets and 1 where they are constant. It is bounded: the squared ratio of variances, used elsewhere, took
    losses from 1e3 to 3e4. - `ccc`: one minus the concordance, `1 − 2 cov / (σt² + σp² + bias²)`: it punishes flat,
    biased and uncorrelated alike.

    What a variance term can and cannot do. With ρ the correlation and s = σp/σt, R² = 2ρs − s² − bias²/σ². The best s
    for a given ρ is ρ *itself*: predictions should be flatter than the truth, by as much as is unknown. Forcing s = 1
    at ρ = 0.143 gives R² = −0.71; s > 0.7 with R² > 0.3 needs ρ ≥ 0.564. So the term helps a model that is flatter
    than its ρ (s < ρ), and harms every other. It cannot raise ρ. Look at s beside ρ before asking for it.

    `overweight` adds that much to the weight of targets above `overweight_above`; it biases the mean towards them.
    Moments are those of the batch, weighted; a batch whose targets are constant has no variance term. Rows of weight
    zero may hold NaN.
    """

    def __init__(
        self,
        kind: str = "mse",
        delta: float = 1.0,
        variance_weight: float = 0.1,
        overweight: float = 0.0,
        overweight_above: float = 1.0,
        name: str = "regression_loss",
        **kwargs: Any,
    ) -> None:
        if kind not in LOSSES:
            raise ValueError(f"kind must be one of {', '.join(LOSSES)}; received {kind!r}.")
        super().__init__(name=name, **kwargs)
        self.kind, self.delta, self.variance_weight = kind, delta, variance_weight
        self.overweight, self.overweight_above = overweight, overweight_above

    def terms(self, y, y_pred, sample_weight=None) -> dict[str, Any]:
        """The parts of the loss by name; they add up to it."""
        y_pred = ops.convert_to_tensor(y_pred)
        dtype = at_least_float32(y_pred.dtype)
        y_pred = ops.reshape(ops.cast(y_pred, dtype), (-1,))
        y = ops.reshape(ops.cast(y, dtype), (-1,))
        weight = ops.ones_like(y) if sample_weight is None else ops.reshape(ops.cast(sample_weight, dtype), (-1,))
        kept = weight > 0
        y, y_pred = ops.where(kept, y, ops.zeros_like(y)), ops.where(kept, y_pred, ops.zeros_like(y))
        weight = weight * (1.0 + self.overweight * ops.cast(y > self.overweight_above, dtype))
        weight = weight / _or_one(ops.sum(weight))
        error = y_pred - y
        if self.kind == "huber":
            size = ops.abs(error)
            inside = ops.minimum(size, self.delta)
            return {"huber": ops.sum(weight * inside * (size - 0.5 * inside))}
        if self.kind == "mse":
            return {"mse": ops.sum(weight * error * error)}
        mean_true, mean_pred = ops.sum(weight * y), ops.sum(weight * y_pred)
        true, pred = y - mean_true, y_pred - mean_pred
        var_true, var_pred = ops.sum(weight * true * true), ops.sum(weight * pred * pred)
        if self.kind == "ccc":
            bias = mean_pred - mean_true
            spread = var_true + var_pred + bias * bias
            concordance = 2 * ops.sum(weight * true * pred) / _or_one(spread)
            return {"ccc": ops.where(spread > 0, 1.0 - concordance, ops.zeros_like(spread))}
        varies = var_true > CONSTANT_SHARE * mean_true * mean_true
        ratio = ops.where(varies, var_pred, ops.ones_like(var_true)) / _or_one(
            ops.where(varies, var_true, 0.0 * var_true)
        )
        flatness = 1.0 - 2.0 * ops.sqrt(ratio + FLAT_SHARE) / (1.0 + ratio + FLAT_SHARE)
        flatness = ops.where(varies, flatness, ops.zeros_like(flatness))
        return {"mse": ops.sum(weight * error * error), "variance": self.variance_weight * flatness}

    def __call__(self, y_true, y_pred, sample_weight=None):
        return sum(self.terms(y_true, y_pred, sample_weight).values())

    def call(self, y_true, y_pred):
        return self(y_true, y_pred)

    def get_config(self):
        own = ("kind", "delta", "variance_weight", "overweight", "overweight_above")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}


def _or_one(x):
    """A denominator that is never zero, chosen before the division so that gradients stay finite."""
    return ops.where(x > 0, x, ops.ones_like(x))


def decompose(y, y_pred) -> dict[str, float]:
    """R² and what it is made of: `r2 = 2 · correlation · std_ratio − std_ratio² − bias2_over_var`."""
    y, y_pred = np.asarray(y, np.float64).ravel(), np.asarray(y_pred, np.float64).ravel()
    variance, spread = y.var(), y_pred.std()
    covariance = ((y - y.mean()) * (y_pred - y_pred.mean())).mean()
    return {
        "r2": 1.0 - ((y - y_pred) ** 2).mean() / variance,
        "std_ratio": spread / np.sqrt(variance),
        "correlation": covariance / (spread * np.sqrt(variance)) if spread > 0 else 0.0,
        "bias2_over_var": (y_pred.mean() - y.mean()) ** 2 / variance,
        "mae": np.abs(y - y_pred).mean(),
        "spread": np.ptp(y_pred),
    }
