"""Temporal Fusion Transformer (Lim et al., 2021): several targets, several quantiles, one forecast that explains
itself.

Past observations (`values`, with a `mask`), covariates known ahead (`known`) and facts about the series (`static`)
each pass a variable selection; two LSTMs read past and future, started by the static contexts; an attention whose
heads share one value projection lets every horizon step look back. What was selected and attended to can be read with
`TFT.explain`.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from models.common import lowest
from models.precise import at_least_float32

QUANTILES = (0.1, 0.5, 0.9)
# A series whose spread is below this share of its own size is constant for every practical purpose: it is only centred.
CONSTANT_SPREAD = 1e-8

_register = keras.saving.register_keras_serializable(package="tft")


@_register
class GatedLinearUnit(keras.layers.Layer):
    """`sigmoid(W4 x + b4) ⊙ (W5 x + b5)`: a layer that can close itself."""

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.value = keras.layers.Dense(units, name="value")
        self.gate = keras.layers.Dense(units, activation="sigmoid", name="gate")

    def build(self, input_shape):
        self.value.build(input_shape)
        self.gate.build(input_shape)

    def call(self, x):
        return self.value(x) * self.gate(x)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@_register
class GateAddNorm(keras.layers.Layer):
    """`LayerNorm(skip + GLU(dropout(x)))`: how every block of the network may be passed by."""

    def __init__(self, units: int, dropout: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units, self.rate = units, dropout
        self.dropout = keras.layers.Dropout(dropout, name="dropout")
        self.glu = GatedLinearUnit(units, name="glu")
        self.norm = keras.layers.LayerNormalization(name="norm")

    def build(self, x_shape, skip_shape=None):
        self.glu.build(x_shape)
        self.norm.build((*x_shape[:-1], self.units))

    def call(self, x, skip, training=None):
        return self.norm(skip + self.glu(self.dropout(x, training=training)))

    def compute_output_shape(self, x_shape, skip_shape=None):
        return (*x_shape[:-1], self.units)

    def get_config(self):
        return {**super().get_config(), "units": self.units, "dropout": self.rate}


@_register
class GatedResidualNetwork(keras.layers.Layer):
    """`LayerNorm(skip(x) + GLU(W1 ELU(W2 x + W3 c + b2) + b1))`, with an optional context c that holds for all
    steps."""

    def __init__(self, units: int, output_units: int | None = None, dropout: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units, self.output_units, self.rate = units, output_units or units, dropout
        self.hidden = keras.layers.Dense(units, name="hidden")
        self.linear = keras.layers.Dense(units, name="linear")
        self.gate = GateAddNorm(self.output_units, dropout, name="gate")

    def build(self, x_shape, context_shape=None):
        inner = (*x_shape[:-1], self.units)
        self.hidden.build(x_shape)
        # A layer that is never built keeps the model unbuilt, and Keras traces it anew at every train_on_batch.
        if context_shape is not None:
            self.context = keras.layers.Dense(self.units, use_bias=False, name="context")
            self.context.build(context_shape)
        self.linear.build(inner)
        if x_shape[-1] != self.output_units:
            self.skip = keras.layers.Dense(self.output_units, name="skip")
            self.skip.build(x_shape)
        self.gate.build(inner, (*x_shape[:-1], self.output_units))

    def call(self, x, context=None, training=None):
        hidden = self.hidden(x)
        if context is not None:
            shift = self.context(context)
            for _ in range(len(x.shape) - len(shift.shape)):
                shift = ops.expand_dims(shift, 1)
            hidden = hidden + shift
        skip = x if x.shape[-1] == self.output_units else self.skip(x)
        return self.gate(self.linear(ops.elu(hidden)), skip, training=training)

    def compute_output_shape(self, x_shape, context_shape=None):
        return (*x_shape[:-1], self.output_units)

    def get_config(self):
        own = {"units": self.units, "output_units": self.output_units, "dropout": self.rate}
        return {**super().get_config(), **own}


@_register
class VariableSelection(keras.layers.Layer):
    """Each scalar variable gets an embedding and a network of its own; a softmax decides how much of each is used.

    Returns the combination `(…, units)` and the selection weights `(…, variables)`, which sum to one.
    """

    def __init__(self, units: int, dropout: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units, self.rate = units, dropout

    def build(self, x_shape, context_shape=None):
        leading, variables = tuple(x_shape[:-1]), x_shape[-1]
        names = [f"variable_{i}" for i in range(variables)]
        self.embeddings = [keras.layers.Dense(self.units, name=f"embed_{name}") for name in names]
        self.networks = [GatedResidualNetwork(self.units, dropout=self.rate, name=name) for name in names]
        # One variable leaves nothing to choose: a softmax of one has no gradient.
        self.chooser = GatedResidualNetwork(self.units, variables, self.rate, name="chooser") if variables > 1 else None
        for embedding, network in zip(self.embeddings, self.networks, strict=True):
            embedding.build((*leading, 1))
            network.build((*leading, self.units))
        if self.chooser is not None:
            self.chooser.build((*leading, self.units * variables), context_shape)

    def call(self, x, context=None, training=None):
        embedded = [layer(x[..., i : i + 1]) for i, layer in enumerate(self.embeddings)]
        if self.chooser is None:
            weights = ops.ones_like(x)
        else:
            scores = self.chooser(ops.concatenate(embedded, axis=-1), context, training=training)
            weights = ops.softmax(scores, axis=-1)
        passed = [network(e, training=training) for network, e in zip(self.networks, embedded, strict=True)]
        combined = ops.sum(ops.stack(passed, axis=-1) * ops.expand_dims(weights, -2), axis=-1)
        return combined, weights

    def compute_output_shape(self, x_shape, context_shape=None):
        return (*x_shape[:-1], self.units), tuple(x_shape)

    def get_config(self):
        return {**super().get_config(), "units": self.units, "dropout": self.rate}


@_register
class InterpretableAttention(keras.layers.Layer):
    """Multi-head attention whose heads share the value projection, so that the mean of their weights *is* the
    attention.

    Queries are the last steps of the keys' time axis. A query sees a key that is not later than itself and that `mask`
    marks as valid. Returns the output and the weights `(batch, queries, keys)`, the mean over the heads before dropout.
    """

    def __init__(self, units: int, num_heads: int, dropout: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if units % num_heads:
            raise ValueError(f"units must be a multiple of num_heads; received units={units}, num_heads={num_heads}.")
        self.units, self.num_heads, self.rate = units, num_heads, dropout
        self.size = units // num_heads
        self.query = keras.layers.EinsumDense("btd,dhe->bhte", (num_heads, None, self.size), name="query")
        self.key = keras.layers.EinsumDense("btd,dhe->bhte", (num_heads, None, self.size), name="key")
        self.value = keras.layers.Dense(self.size, use_bias=False, name="value")
        self.output_dense = keras.layers.Dense(units, use_bias=False, name="output")
        self.dropout = keras.layers.Dropout(dropout, name="dropout")

    def build(self, query_shape, key_shape, mask_shape=None):
        self.query.build(query_shape)
        self.key.build(key_shape)
        self.value.build(key_shape)
        self.output_dense.build((*query_shape[:-1], self.size))

    def call(self, query, key, mask, training=None):
        scores = ops.einsum("bhqe,bhke->bhqk", self.query(query) / self.size**0.5, self.key(key))
        num_queries, num_keys = ops.shape(query)[1], ops.shape(key)[1]
        when = ops.arange(num_keys)
        not_later = ops.expand_dims(when, 0) <= ops.expand_dims(when[-num_queries:], 1)
        allowed = ops.logical_and(not_later[None, None], ops.cast(mask, "bool")[:, None, None, :])
        weights = ops.softmax(ops.where(allowed, scores, ops.full_like(scores, lowest(scores.dtype))), axis=-1)
        # A row without one allowed key would be spread evenly over forbidden ones.
        weights = ops.mean(ops.where(allowed, weights, ops.zeros_like(weights)), axis=1)
        attended = ops.matmul(self.dropout(weights, training=training), self.value(key))
        return self.output_dense(attended), weights

    def compute_output_shape(self, query_shape, key_shape, mask_shape=None):
        return (*query_shape[:-1], self.units), (query_shape[0], query_shape[1], key_shape[1])

    def get_config(self):
        own = {"units": self.units, "num_heads": self.num_heads, "dropout": self.rate}
        return {**super().get_config(), **own}


@_register
class NeutralPadding(keras.layers.Layer):
    """Sets padded steps to zero by selection, not multiplication: `0 · NaN` would be NaN, here and in every
    gradient."""

    def call(self, values, mask):
        return ops.where(ops.expand_dims(ops.cast(mask, "bool"), -1), values, ops.zeros_like(values))

    def compute_output_shape(self, values_shape, mask_shape=None):
        return values_shape


@_register
class LastValue(keras.layers.Layer):
    """The last valid step, (batch, 1, variables); zero for a row without one."""

    def call(self, values, mask):
        count = ops.cumsum(ops.cast(mask, "int32"), axis=1)
        newest = ops.logical_and(ops.cast(mask, "bool"), count == count[:, -1:])
        return ops.sum(ops.where(ops.expand_dims(newest, -1), values, ops.zeros_like(values)), axis=1, keepdims=True)

    def compute_output_shape(self, values_shape, mask_shape=None):
        return (values_shape[0], 1, values_shape[2])


@_register
class HorizonPosition(keras.layers.Layer):
    """The one covariate that is always known: how far ahead a step lies, from 1/horizon to 1."""

    def __init__(self, horizon: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.horizon = horizon

    def call(self, values):
        steps = ops.cast(ops.arange(1, self.horizon + 1) / self.horizon, self.compute_dtype)
        return ops.broadcast_to(steps[None, :, None], (ops.shape(values)[0], self.horizon, 1))

    def compute_output_shape(self, values_shape):
        return (values_shape[0], self.horizon, 1)

    def get_config(self):
        return {**super().get_config(), "horizon": self.horizon}


@_register
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


@_register
class TFT(keras.Model):
    """The network as a Functional model over `values`, `mask` and, where declared, `known` and `static`.

    `values` (batch, past, num_values) and `mask` (batch, past; true where a step is valid) may be padded on either
    side; `known` (batch, horizon, num_known); `static` (batch, num_static), categories as one-hot. Output: (batch,
    horizon, num_targets, quantiles).

    With `relative` the network sees and forecasts differences to the last valid step, so a level that moves on after
    training does no harm; the targets must then be the first variables of `values`. The paper has it not.
    """

    def __init__(
        self,
        *,
        num_values: int,
        num_targets: int,
        horizon: int,
        num_known: int = 0,
        num_static: int = 0,
        units: int = 16,
        num_heads: int = 2,
        dropout: float = 0.1,
        quantiles=QUANTILES,
        relative: bool = False,
        **kwargs: Any,
    ) -> None:
        if num_targets > num_values and relative:
            raise ValueError(f"relative needs the targets first in values; received {num_targets} of {num_values}.")
        settings = {
            "num_values": num_values,
            "num_targets": num_targets,
            "horizon": horizon,
            "num_known": num_known,
            "num_static": num_static,
            "units": units,
            "num_heads": num_heads,
            "dropout": dropout,
            "quantiles": list(quantiles),
            "relative": relative,
        }
        inputs = {
            "values": keras.Input((None, num_values), name="values"),
            "mask": keras.Input((None,), dtype="bool", name="mask"),
        }
        if num_known:
            inputs["known"] = keras.Input((horizon, num_known), name="known")
        if num_static:
            inputs["static"] = keras.Input((num_static,), name="static")
        outputs, readings = _network(inputs, settings)
        super().__init__(inputs=inputs, outputs=outputs, **kwargs)
        self.settings, self.readings = settings, readings

    def explain(self, x) -> dict[str, np.ndarray]:
        """Attention `(batch, horizon, past + horizon)` and the selection weights of every group of variables."""
        return keras.Model(self.inputs, dict(self.readings)).predict(x, verbose=0)

    def loss_terms(self, x, y, y_pred, sample_weight=None):
        """The loss by target and quantile; the sum is the loss."""
        return self.loss.terms(y, y_pred, sample_weight)

    def get_config(self):
        return {"name": self.name, "trainable": self.trainable, **self.settings}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**config)


def _network(inputs, settings):
    units, dropout, horizon = settings["units"], settings["dropout"], settings["horizon"]
    grn = lambda name: GatedResidualNetwork(units, dropout=dropout, name=name)  # noqa: E731
    mask = inputs["mask"]
    past = NeutralPadding(name="neutral_padding")(inputs["values"], mask)
    if settings["relative"]:
        last = LastValue(name="last_value")(past, mask)
        past = NeutralPadding(name="relative")(past - last, mask)
    future = inputs.get("known")
    if future is None:
        future = HorizonPosition(horizon, name="horizon_position")(past)
    readings, choose, enrich, start = {}, None, None, None
    if "static" in inputs:
        static, readings["static_variables"] = VariableSelection(units, dropout, name="select_static")(inputs["static"])
        choose, enrich = grn("context_selection")(static), grn("context_enrichment")(static)
        start = [grn("context_hidden")(static), grn("context_cell")(static)]
    past, readings["past_variables"] = VariableSelection(units, dropout, name="select_past")(past, choose)
    future, readings["future_variables"] = VariableSelection(units, dropout, name="select_future")(future, choose)

    encoder = keras.layers.LSTM(units, return_sequences=True, return_state=True, name="encoder")
    decoder = keras.layers.LSTM(units, return_sequences=True, name="decoder")
    read, *state = encoder(past, mask=mask, initial_state=start)
    # ops.concatenate rather than the layer: from here the mask is an explicit argument, not a tag on tensors.
    local = GateAddNorm(units, dropout, name="gate_local")(
        ops.concatenate([read, decoder(future, initial_state=state)], axis=1), ops.concatenate([past, future], axis=1)
    )
    enriched = grn("enrichment")(local, enrich)
    ahead = ops.ones_like(future[..., 0], dtype="bool")
    attention = InterpretableAttention(units, settings["num_heads"], dropout, name="attention")
    attended, readings["attention"] = attention(
        enriched[:, -horizon:], enriched, ops.concatenate([mask, ahead], axis=1)
    )
    attended = GateAddNorm(units, dropout, name="gate_attention")(attended, enriched[:, -horizon:])
    decided = GateAddNorm(units, dropout, name="gate_output")(grn("position_wise")(attended), local[:, -horizon:])
    shape = (horizon, settings["num_targets"], len(settings["quantiles"]))
    precise = at_least_float32(keras.config.dtype_policy().compute_dtype)
    flat = keras.layers.Dense(shape[1] * shape[2], dtype=precise, name="quantiles")(decided)
    forecast = keras.layers.Reshape(shape, dtype=precise, name="forecast")(flat)
    if settings["relative"]:
        forecast = forecast + ops.expand_dims(ops.cast(last[..., : settings["num_targets"]], precise), -1)
    return forecast, readings


def build(
    *,
    num_values: int = 4,
    num_targets: int = 4,
    horizon: int = 12,
    num_known: int = 2,
    num_static: int = 3,
    units: int = 16,
    num_heads: int = 2,
    dropout: float = 0.1,
    quantiles=QUANTILES,
    relative: bool = False,
    learning_rate: float = 3e-3,
    clipnorm: float | None = 1.0,
) -> TFT:
    """A compiled TFT; the defaults fit `synthetic()`."""
    model = TFT(
        num_values=num_values,
        num_targets=num_targets,
        horizon=horizon,
        num_known=num_known,
        num_static=num_static,
        units=units,
        num_heads=num_heads,
        dropout=dropout,
        quantiles=quantiles,
        relative=relative,
    )
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate, global_clipnorm=clipnorm), loss=QuantileLoss(quantiles)
    )
    return model


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


class TargetNormalizer:
    """Mean and spread of every target by itself, and by group where groups (hosts, series) are given.

    Fit it on the training rows only. A group of one row, or a constant one, has no spread: it takes the spread over
    all groups, and 1 where there is none at all, so that nothing is ever divided by zero or NaN. Missing values are
    left out. `log` names the targets (one bool each) that are taken as log(1 + y): counts and rates with heavy tails.
    Quantiles pass through any rising function unharmed, so this costs a quantile forecast nothing.
    """

    def __init__(self, log=()) -> None:
        self.log = np.asarray(log, bool)

    def fit(self, y, groups=None) -> "TargetNormalizer":
        y = self._compressed(np.asarray(y, np.float64).reshape(-1, np.shape(y)[-1]))
        self.mean, self.scale = _moments(y, np.zeros(y.shape[1]), np.ones(y.shape[1]))
        self.by_group = {}
        if groups is not None:
            groups = np.asarray(groups)
            self.by_group = {g: _moments(y[groups == g], self.mean, self.scale) for g in np.unique(groups).tolist()}
        return self

    def transform(self, y, group=None) -> np.ndarray:
        mean, scale = self.by_group.get(group, (self.mean, self.scale))
        return (self._compressed(np.asarray(y, np.float64)) - mean) / scale

    def inverse(self, y, group=None, *, quantiles: bool = False) -> np.ndarray:
        """Back to the units of the target; `quantiles=True` where a quantile axis follows the targets."""
        mean, scale = self.by_group.get(group, (self.mean, self.scale))
        log = self.log if self.log.size else np.zeros(mean.shape, bool)
        if quantiles:
            mean, scale, log = mean[:, None], scale[:, None], log[:, None]
        y = np.asarray(y, np.float64) * scale + mean
        return np.where(log, np.expm1(np.where(log, y, 0.0)), y)

    def _compressed(self, y: np.ndarray) -> np.ndarray:
        if not self.log.any():
            return y
        if np.nanmin(y[..., self.log]) <= -1:
            raise ValueError(f"log=True needs targets above -1; received {np.nanmin(y[..., self.log]):g}.")
        return np.where(self.log, np.log1p(np.where(self.log, y, 0.0)), y)


def _moments(y: np.ndarray, default_mean: np.ndarray, default_scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    present = np.isfinite(y)
    count = present.sum(axis=0)
    filled = np.where(present, y, 0.0)
    mean = np.where(count > 0, filled.sum(axis=0) / np.maximum(count, 1), default_mean)
    spread = np.sqrt((np.where(present, y - mean, 0.0) ** 2).sum(axis=0) / np.maximum(count, 1))
    varies = spread > CONSTANT_SPREAD * np.maximum(np.abs(mean), 1.0)
    return mean, np.where(varies, spread, default_scale)


def windows(series, *, past: int, horizon: int, stride: int = 1, known=None) -> dict[str, np.ndarray]:
    """Cuts rows (time, variables) into `values`, `target` and, from covariates (time, known), the `known` of the
    horizon."""
    series = np.asarray(series)
    starts = np.arange(0, len(series) - past - horizon + 1, stride)
    cut = {
        "values": series[starts[:, None] + np.arange(past)],
        "target": series[starts[:, None] + past + np.arange(horizon)],
        "origin": starts + past - 1,
    }
    if known is not None:
        cut["known"] = np.asarray(known)[starts[:, None] + past + np.arange(horizon)]
    return cut


def hour_of_day(hours) -> np.ndarray:
    """Sine and cosine of the hour, for `known`."""
    angle = 2 * np.pi * np.asarray(hours, np.float64) / 24
    return np.stack([np.sin(angle), np.cos(angle)], axis=-1).astype(np.float32)


def synthetic(
    *, num_windows: int = 256, past: int = 48, horizon: int = 12, short_share: float = 0.25, seed: int = 0
) -> dict[str, Any]:
    """Server metrics of three kinds of host: a daily load that drives cpu, memory, disk and request load, with bursts.

    Five-minute steps; disk follows memory late, load has heavy tails. A share of the windows is younger than `past`
    steps and padded on the right. Windows of the last fifth of the time are for validation.
    """
    rng = np.random.default_rng(seed)
    steps_per_day, kinds = 288, 3
    length = 6 * steps_per_day
    hours = np.arange(length) * 24 / steps_per_day
    every = [_host(rng, kind, length, steps_per_day) for kind in range(kinds)]
    rows = {key: [] for key in ("values", "known", "static", "mask", "target", "origin")}
    for kind, series in enumerate(every):
        normalizer = TargetNormalizer().fit(series[: int(0.8 * length)])
        cut = windows(normalizer.transform(series), past=past, horizon=horizon, known=hour_of_day(hours))
        pick = np.sort(rng.choice(len(cut["origin"]), num_windows // kinds + 1, replace=False))
        valid = np.where(rng.random(len(pick)) < short_share, rng.integers(past // 4, past, len(pick)), past)
        mask = np.arange(past) < valid[:, None]
        source = np.minimum(np.arange(past) + (past - valid)[:, None], past - 1)  # the newest steps, moved to the left
        values = np.take_along_axis(cut["values"][pick], source[..., None], axis=1)
        rows["values"].append(np.where(mask[..., None], values, 0.0))
        rows["mask"].append(mask)
        rows["static"].append(np.tile(np.eye(kinds)[kind], (len(pick), 1)))
        for key in ("known", "target", "origin"):
            rows[key].append(cut[key][pick])
    data = {key: np.concatenate(parts) for key, parts in rows.items()}
    order = np.argsort(data.pop("origin"), kind="stable")[:num_windows]
    data = {k: v[order] if v.dtype == bool else v[order].astype("float32") for k, v in data.items()}
    y, split = data.pop("target"), int(0.8 * num_windows)
    names = {
        "values": ["cpu", "memory", "disk", "load"],
        "known": ["hour_sin", "hour_cos"],
        "static": ["web", "database", "batch"],
        "targets": ["cpu", "memory", "disk", "load"],
    }
    return {
        "x": {k: v[:split] for k, v in data.items()},
        "y": y[:split],
        "validation_data": ({k: v[split:] for k, v in data.items()}, y[split:]),
        "names": names,
    }


def _host(rng: np.random.Generator, kind: int, length: int, steps_per_day: int) -> np.ndarray:
    time = np.arange(length)
    daily = np.sin(2 * np.pi * (time / steps_per_day - 0.3 - 0.1 * kind))
    drive = 0.6 * daily + _autoregressive(rng, length, 0.95, 0.15)
    bursts = np.convolve((rng.random(length) < 0.01) * rng.exponential(2.0, length), 0.8 ** np.arange(12))[:length]
    cpu = 35 + 10 * kind + 15 * drive + 8 * bursts + rng.normal(0, 1.5, length)
    memory = 60 + 6 * _autoregressive(rng, length, 0.99, 0.1) + 5 * drive
    disk = 200 + 40 * np.roll(memory - 60, 3) / 6 + rng.normal(0, 6, length)
    load = np.exp(2 + 0.5 * drive + 0.3 * bursts + rng.normal(0, 0.15, length))
    return np.stack([cpu, memory, disk, load], axis=-1)


def _autoregressive(rng: np.random.Generator, length: int, coefficient: float, scale: float) -> np.ndarray:
    out = np.zeros(length)
    for i, noise in enumerate(rng.normal(0, scale, length - 1)):
        out[i + 1] = coefficient * out[i] + noise
    return out
