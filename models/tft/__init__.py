"""Temporal Fusion Transformer (Lim et al., 2021): several targets, several quantiles, one forecast that explains
itself.

Past observations (`values`, with a `mask`), covariates known ahead (`known`) and facts about the series (`static`)
each pass a variable selection; two LSTMs read past and future, started by the static contexts; an attention whose
heads share one value projection lets every horizon step look back. What was selected and attended to can be read with
`TFT.explain`.
"""

from typing import Any

import keras
from keras import ops

from models.common import ReadableModel
from models.precise import precise
from models.tft.data import TargetNormalizer, hour_of_day, synthetic, windows
from models.tft.layers import (
    GateAddNorm,
    GatedLinearUnit,
    GatedResidualNetwork,
    HorizonPosition,
    InterpretableAttention,
    LastValue,
    NeutralPadding,
    VariableSelection,
)
from models.tft.quantiles import QUANTILES, QuantileLoss, q_risk


@keras.saving.register_keras_serializable(package="tft")
class TFT(ReadableModel):
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
        super().__init__(_network, inputs, settings, **kwargs)

    def explain(self, x, batch_size=None):
        """Attention `(batch, horizon, past + horizon)` and the selection weights of every group of variables."""
        return super().explain(x, batch_size)

    def loss_terms(self, x, y, y_pred, sample_weight=None):
        """The loss by target and quantile; the sum is the loss."""
        return self.loss.terms(y, y_pred, sample_weight)


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
    dtype = precise()
    flat = keras.layers.Dense(shape[1] * shape[2], dtype=dtype, name="quantiles")(decided)
    forecast = keras.layers.Reshape(shape, dtype=dtype, name="forecast")(flat)
    if settings["relative"]:
        forecast = forecast + ops.expand_dims(ops.cast(last[..., : settings["num_targets"]], dtype), -1)
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


__all__ = [
    "QUANTILES",
    "TFT",
    "GatedLinearUnit",
    "GatedResidualNetwork",
    "InterpretableAttention",
    "QuantileLoss",
    "TargetNormalizer",
    "VariableSelection",
    "build",
    "hour_of_day",
    "q_risk",
    "synthetic",
    "windows",
]
