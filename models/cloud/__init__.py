"""A number from a short sequence of images: each frame is encoded by itself, the newest one asks the others, a head
answers.

Sequences of one to `num_frames` frames may be mixed in a batch; `mask` says which frames are there. The collapse that
this family is known for is a matter of what can be known (see `RegressionLoss`), so the decomposition of R² comes with
it.
"""

from typing import Any

import keras

from models.cloud.data import sequences, simple_features, synthetic
from models.cloud.layers import FrameEncoder, PresentFrames, TemporalAttention
from models.cloud.losses import LOSSES, RegressionLoss, decompose
from models.cloud.pretraining import autoencoder, pretrain
from models.common import ReadableModel
from models.precise import precise


@keras.saving.register_keras_serializable(package="cloud")
class Cloud(ReadableModel):
    """Functional model over `frames` (batch, time, height, width, channels), `mask` (batch, time) and, where declared,
    `aux`."""

    def __init__(
        self,
        *,
        frame_shape,
        num_frames: int = 7,
        num_aux: int = 0,
        filters=(8, 16, 16),
        units: int = 32,
        num_heads: int = 4,
        dropout: float = 0.1,
        output_init: float | None = None,
        output_bias: float = 0.0,
        **kwargs: Any,
    ) -> None:
        if not 1 <= num_frames <= 7:
            raise ValueError(f"num_frames must be 1 to 7; received {num_frames}.")
        settings = {
            "frame_shape": list(frame_shape),
            "num_frames": num_frames,
            "num_aux": num_aux,
            "filters": list(filters),
            "units": units,
            "num_heads": num_heads,
            "dropout": dropout,
            "output_init": output_init,
            "output_bias": output_bias,
        }
        inputs = {
            "frames": keras.Input((None, *frame_shape), name="frames"),
            "mask": keras.Input((None,), dtype="bool", name="mask"),
        }
        if num_aux:
            inputs["aux"] = keras.Input((num_aux,), name="aux")
        super().__init__(_network, inputs, settings, **kwargs)

    def explain(self, x, batch_size=None):
        """How much each head of the newest frame looked at each frame: (batch, heads, frames)."""
        return super().explain(x, batch_size)

    def loss_terms(self, x, y, y_pred, sample_weight=None):
        """The parts of the loss; the sum is the loss."""
        return self.loss.terms(y, y_pred, sample_weight)


def _network(inputs, settings):
    mask = inputs["mask"]
    frames = PresentFrames(name="present_frames")(inputs["frames"], mask)
    encoded = FrameEncoder(settings["filters"], settings["units"], name="encoder")(frames)
    attention = TemporalAttention(settings["num_frames"], settings["num_heads"], name="attention")
    x, weights = attention(encoded, mask)
    if "aux" in inputs:
        x = keras.layers.Concatenate(name="with_aux")([x, inputs["aux"]])
    x = keras.layers.Dense(settings["units"], activation="gelu", name="hidden")(x)
    x = keras.layers.Dropout(settings["dropout"], name="dropout")(x)
    spread = settings["output_init"]
    head = keras.layers.Dense(
        1,
        kernel_initializer="glorot_uniform" if spread is None else keras.initializers.RandomNormal(stddev=spread),
        bias_initializer=keras.initializers.Constant(settings["output_bias"]),
        dtype=precise(),
        name="output",
    )
    return head(x), {"attention": weights}


def build(
    *,
    frame_shape=(16, 16, 1),
    num_frames: int = 5,
    num_aux: int = 2,
    filters=(8, 16, 16),
    units: int = 32,
    num_heads: int = 4,
    dropout: float = 0.1,
    output_init: float | None = None,
    output_bias: float = 0.0,
    loss: str = "mse",
    delta: float = 1.0,
    variance_weight: float = 0.1,
    overweight: float = 0.0,
    overweight_above: float = 1.0,
    learning_rate: float = 3e-3,
    weight_decay: float = 0.0,
) -> Cloud:
    """A compiled Cloud; the defaults fit `synthetic()`. `output_init` is the spread of the last kernel, `output_bias`
    its start.

    `output_bias` is best the mean of the training targets.
    """
    model = Cloud(
        frame_shape=frame_shape,
        num_frames=num_frames,
        num_aux=num_aux,
        filters=filters,
        units=units,
        num_heads=num_heads,
        dropout=dropout,
        output_init=output_init,
        output_bias=output_bias,
    )
    model.compile(
        optimizer=keras.optimizers.AdamW(learning_rate, weight_decay=weight_decay),
        loss=RegressionLoss(loss, delta, variance_weight, overweight, overweight_above),
    )
    return model


__all__ = [
    "LOSSES",
    "Cloud",
    "FrameEncoder",
    "RegressionLoss",
    "TemporalAttention",
    "autoencoder",
    "build",
    "decompose",
    "pretrain",
    "sequences",
    "simple_features",
    "synthetic",
]
