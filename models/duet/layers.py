"""The encoder of duet: patches of every feature are tokens, which attend over time and then over features.

No weight belongs to a feature, so one encoder reads sets of any width, and a padded feature is a masked token.
Shapes are (batch, features, patches, …) throughout.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from models.common import MaskedAttention, mask_bias, register


def patchify(values, length, stride):
    """(batch, steps, features) to (batch, features, patches, length); the steps must be covered exactly."""
    count = (values.shape[1] - length) // stride + 1
    values = ops.transpose(values, (0, 2, 1))
    if stride == length:
        return ops.reshape(values, (-1, ops.shape(values)[1], count, length))
    return ops.take(values, np.arange(count)[:, None] * stride + np.arange(length), axis=2)


@register
class EncoderBlock(keras.layers.Layer):
    """Attention over the patches of each feature, attention over the features of each patch, two Dense layers."""

    def __init__(self, width, heads, dropout=0.0, mix_features=True, **kwargs):
        super().__init__(**kwargs)
        self.width, self.heads, self.dropout, self.mix_features = width, heads, dropout, mix_features
        policy = self.dtype_policy
        self.over_time = MaskedAttention(width, heads, name="over_time", dtype=policy)
        self.norm_time = keras.layers.LayerNormalization(name="norm_time", dtype=policy)
        if mix_features:
            self.over_features = MaskedAttention(width, heads, name="over_features", dtype=policy)
            self.norm_features = keras.layers.LayerNormalization(name="norm_features", dtype=policy)
        self.widen = keras.layers.Dense(2 * width, activation="gelu", name="widen", dtype=policy)
        self.narrow = keras.layers.Dense(width, name="narrow", dtype=policy)
        self.norm_dense = keras.layers.LayerNormalization(name="norm_dense", dtype=policy)
        self.drop = keras.layers.Dropout(dropout, name="drop", dtype=policy)

    def build(self, input_shape):
        tokens = (None, None, self.width)
        self.over_time.build(tokens)
        self.norm_time.build(tokens)
        if self.mix_features:
            self.over_features.build(tokens)
            self.norm_features.build(tokens)
        self.widen.build(tokens)
        self.narrow.build((None, None, 2 * self.width))
        self.norm_dense.build(tokens)
        self.drop.build(tokens)
        self.built = True

    # Whether this is training Keras hands down to Dropout by itself; said as an argument it costs a call twice.

    def call(self, tokens, time_bias, feature_bias=None):
        tokens = tokens + self.attend(self.over_time, self.norm_time, tokens, time_bias)
        if self.mix_features:
            turned = ops.transpose(tokens, (0, 2, 1, 3))
            across = self.attend(self.over_features, self.norm_features, turned, feature_bias)
            tokens = tokens + ops.transpose(across, (0, 2, 1, 3))
        return tokens + self.drop(self.narrow(self.widen(self.norm_dense(tokens))))

    def attend(self, attention, norm, tokens, bias):
        """Attention over axis 2, for every entry of axes 0 and 1 by itself."""
        rows, inner = ops.shape(tokens)[1], ops.shape(tokens)[2]
        mixed = attention(ops.reshape(norm(tokens), (-1, inner, self.width)), bias)
        return self.drop(ops.reshape(mixed, (-1, rows, inner, self.width)))

    def get_config(self):
        mine = {"width": self.width, "heads": self.heads, "dropout": self.dropout, "mix_features": self.mix_features}
        return {**super().get_config(), **mine}


@register
class PatchEncoder(keras.layers.Layer):
    """Patches and their cell masks to tokens; an empty patch is masked.

    With `hides`, a selected patch is replaced by a learnt token; without, there is no such token: nothing would train
    it.
    """

    def __init__(self, patches, length, width, heads, depth, dropout=0.0, mix_features=True, hides=True, **kwargs):
        super().__init__(**kwargs)
        self.settings = {"patches": patches, "length": length, "width": width, "heads": heads, "depth": depth}
        self.settings |= {"dropout": dropout, "mix_features": mix_features, "hides": hides}
        self.hides, self.mix_features = hides, mix_features
        self.patches, self.length, self.width = patches, length, width
        policy = self.dtype_policy
        self.embed = keras.layers.Dense(width, name="embed", dtype=policy)
        self.blocks = [
            EncoderBlock(width, heads, dropout, mix_features, name=f"block_{i}", dtype=policy) for i in range(depth)
        ]
        self.norm = keras.layers.LayerNormalization(name="norm", dtype=policy)
        self.drop = keras.layers.Dropout(dropout, name="drop", dtype=policy)

    def build(self, input_shape):
        self.embed.build((None, None, None, 2 * self.length))
        small = keras.initializers.RandomNormal(stddev=0.02)
        self.position = self.add_weight(shape=(self.patches, self.width), initializer=small, name="position")
        if self.hides:
            self.hidden = self.add_weight(shape=(self.width,), initializer=small, name="hidden")
        for block in self.blocks:
            block.build((None, None, self.patches, self.width))
        self.norm.build((None, None, self.patches, self.width))
        self.drop.build((None, None, self.patches, self.width))
        self.built = True

    def call(self, patches, cells, selected=None):
        """Tokens (batch, features, patches, width) and the mask of those that hold a real cell."""
        mask = ops.any(cells, axis=-1)
        tokens = self.embed(ops.concatenate([patches, ops.cast(cells, patches.dtype)], axis=-1))
        if selected is not None:
            tokens = ops.where(selected[..., None], ops.cast(self.hidden, tokens.dtype), tokens)
        tokens = self.drop(tokens + ops.cast(self.position, tokens.dtype))
        time_bias = mask_bias(mask, tokens.dtype)
        feature_bias = mask_bias(ops.transpose(mask, (0, 2, 1)), tokens.dtype) if self.mix_features else None
        for block in self.blocks:
            tokens = block(tokens, time_bias, feature_bias)
        tokens = self.norm(tokens)
        return ops.where(mask[..., None], tokens, ops.zeros_like(tokens)), mask

    def get_config(self):
        return {**super().get_config(), **self.settings}
