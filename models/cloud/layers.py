"""What reads frames: an encoder of single ones, and an attention by which the newest asks the others."""

from typing import Any

import keras
import numpy as np
from keras import ops

from models.common import lowest

_register = keras.saving.register_keras_serializable(package="cloud")


@_register
class FrameEncoder(keras.layers.Layer):
    """Halving convolutions and a Dense over the whole field: (…, height, width, channels) to (…, units).

    Frames never see each other here, and nothing is normalised: the level of a frame is often what decides.
    """

    def __init__(self, filters=(8, 16, 16), units: int = 32, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filters, self.units = tuple(filters), units
        self.convolutions = [
            keras.layers.Conv2D(count, 3, strides=2, padding="same", name=f"conv_{i}")
            for i, count in enumerate(filters)
        ]
        self.dense = keras.layers.Dense(units, name="dense")

    def build(self, frames_shape):
        shape = (None, *frames_shape[-3:])
        for convolution in self.convolutions:
            convolution.build(shape)
            shape = convolution.compute_output_shape(shape)
        self.field = shape[1:]
        self.dense.build((None, int(np.prod(self.field))))

    def call(self, frames):
        leading = ops.shape(frames)[:-3]
        x = ops.reshape(frames, (-1, *frames.shape[-3:]))
        for convolution in self.convolutions:
            x = ops.gelu(convolution(x))
        x = self.dense(ops.reshape(x, (-1, int(np.prod(self.field)))))
        return ops.reshape(x, (*leading, self.units))

    def compute_output_shape(self, frames_shape):
        return (*frames_shape[:-3], self.units)

    def get_config(self):
        return {**super().get_config(), "filters": list(self.filters), "units": self.units}


@_register
class PresentFrames(keras.layers.Layer):
    """Absent frames become zero by selection, so that not even NaN in them reaches a sum or a gradient."""

    def call(self, frames, mask):
        return ops.where(ops.cast(mask, "bool")[..., None, None, None], frames, ops.zeros_like(frames))

    def compute_output_shape(self, frames_shape, mask_shape=None):
        return frames_shape


@_register
class TemporalAttention(keras.layers.Layer):
    """The newest frame asks all frames; every head answers for itself, so that the head behind can take differences.

    A frame's age is the number of valid frames after it, so padding on either side does not move it. Returns the newest
    encoding with the answers behind it, and the weights (batch, heads, frames). Of a row without frames both are zero.
    """

    def __init__(self, max_frames: int = 7, num_heads: int = 4, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.max_frames, self.num_heads = max_frames, num_heads

    def build(self, frames_shape, mask_shape=None):
        units = frames_shape[-1]
        if units % self.num_heads:
            raise ValueError(f"units must be a multiple of num_heads; received {units} and {self.num_heads}.")
        self.size = units // self.num_heads
        if self.max_frames > 1:  # a softmax over one frame would leave query, key and age without gradient
            self.age = self.add_weight(shape=(self.max_frames, units), initializer="glorot_uniform", name="age")
            for name in ("query", "key", "value"):
                dense = keras.layers.EinsumDense("...d,dhe->...he", (self.num_heads, self.size), name=name)
                setattr(self, name, dense)
            self.query.build((None, units))
            self.key.build(frames_shape)
            self.value.build(frames_shape)

    def call(self, frames, mask):
        mask = ops.cast(mask, "bool")
        count = ops.cumsum(ops.cast(mask, "int32"), axis=1)
        age = ops.clip(count[:, -1:] - count, 0, self.max_frames - 1)
        is_newest = ops.logical_and(mask, age == 0)
        newest = ops.sum(_keep(frames, is_newest), axis=1)
        if self.max_frames == 1:
            return newest, ops.cast(is_newest, frames.dtype)[:, None, :]
        frames = frames + ops.take(self.age, age, axis=0)
        scores = ops.einsum("bhe,bthe->bht", self.query(newest) / self.size**0.5, self.key(frames))
        allowed = ops.broadcast_to(mask[:, None, :], ops.shape(scores))
        weights = ops.softmax(ops.where(allowed, scores, ops.full_like(scores, lowest(scores.dtype))), axis=-1)
        weights = ops.where(allowed, weights, ops.zeros_like(weights))
        answers = ops.einsum("bht,bthe->bhe", weights, self.value(frames))
        answers = ops.reshape(answers, (-1, self.num_heads * self.size))
        return ops.concatenate([newest, answers], axis=-1), weights

    def compute_output_shape(self, frames_shape, mask_shape=None):
        batch, time, units = frames_shape
        if self.max_frames == 1:
            return (batch, units), (batch, 1, time)
        return (batch, 2 * units), (batch, self.num_heads, time)

    def get_config(self):
        return {**super().get_config(), "max_frames": self.max_frames, "num_heads": self.num_heads}


def _keep(frames, chosen):
    return ops.where(chosen[..., None], frames, ops.zeros_like(frames))
