"""The encoder of duet: patches of every feature are tokens, which attend over time and then over features.

No weight belongs to a feature, so one encoder reads sets of any width, and a padded feature is a masked token.
Shapes are (batch, features, patches, …) throughout.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from models.common import lowest, register

NORM_EPSILON = 1e-3
"""Added to the variance of a token, as `keras.layers.LayerNormalization` does."""


def patchify(values, length, stride):
    """(batch, steps, features) to (batch, features, patches, length); the steps must be covered exactly."""
    count = (values.shape[1] - length) // stride + 1
    values = ops.transpose(values, (0, 2, 1))
    if stride == length:
        return ops.reshape(values, (-1, ops.shape(values)[1], count, length))
    return ops.take(values, np.arange(count)[:, None] * stride + np.arange(length), axis=2)


def rows_of(bias):
    """The bias (…, tokens) on scores, for attention over its last axis in every row before it."""
    return ops.reshape(bias, (-1, 1, 1, ops.shape(bias)[-1]))


def project(values, kernel, bias):
    """A linear map of the last axis."""
    mapped = ops.matmul(values, kernel)
    # In place where a backend can (torch): nobody else holds the product, and another array of its size has its price.
    mapped += ops.convert_to_tensor(bias)
    return mapped


class Branch(keras.layers.Layer):
    """A residual branch, norm first, that holds all of its weights itself.

    Keras asks the same of every layer, however small: at its call, and whenever a step walks over all layers to find
    their weights, losses and metrics. Norm and projections as layers of their own are twice as many layers to ask.
    """

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width = width

    def add_projection(self, name, inputs, units):
        """The weights of one linear map, begun as `keras.layers.Dense` begins: `name`_kernel and `name`_bias."""
        kernel = self.add_weight(shape=(inputs, units), initializer="glorot_uniform", name=f"{name}_kernel")
        return kernel, self.add_weight(shape=(units,), initializer="zeros", name=f"{name}_bias")

    def add_norm(self):
        """The weights of the norm, which stay what they are under a half policy."""
        self.gamma = self.add_weight(shape=(self.width,), initializer="ones", name="gamma", autocast=False)
        self.beta = self.add_weight(shape=(self.width,), initializer="zeros", name="beta", autocast=False)

    def normalised(self, tokens):
        """Each token over its own mean and deviation."""
        return ops.layer_normalization(tokens, self.gamma, self.beta, axis=-1, epsilon=NORM_EPSILON)

    def get_config(self):
        return {**super().get_config(), "width": self.width}


@register
class AttentionBranch(Branch):
    """Self-attention over axis 2 of (batch, rows, tokens, width), for every row by itself.

    `bias` (batch · rows, 1, 1, tokens) is added to the scores. A row without anything to attend to is a plain mean,
    which the encoder replaces by 0.
    """

    def __init__(self, width, heads, **kwargs):
        super().__init__(width, **kwargs)
        if width % heads:
            raise ValueError(f"AttentionBranch: width {width} is not a multiple of heads {heads}.")
        self.heads = heads

    def build(self, input_shape):
        self.project_kernel, self.project_bias = self.add_projection("project", self.width, 3 * self.width)
        self.output_kernel, self.output_bias = self.add_projection("output", self.width, self.width)
        self.add_norm()
        self.built = True

    def call(self, tokens, bias):
        rows, count = ops.shape(tokens)[1], ops.shape(tokens)[2]
        asked = project(self.normalised(tokens), self.project_kernel, self.project_bias)
        asked = ops.reshape(asked, (-1, count, 3, self.heads, self.width // self.heads))
        # Unstacked, not sliced: the gradient of a slice is an array of full length, and there would be three.
        # Flash attention takes no bias; said here, Keras need not find out at every call.
        mixed = ops.dot_product_attention(*ops.unstack(asked, axis=2), bias=bias, flash_attention=False)
        mixed = ops.reshape(mixed, (-1, rows, count, self.width))
        return project(mixed, self.output_kernel, self.output_bias)

    def get_config(self):
        return {**super().get_config(), "heads": self.heads}


@register
class DenseBranch(Branch):
    """Two linear maps of each token, the first to twice the width."""

    def build(self, input_shape):
        self.widen_kernel, self.widen_bias = self.add_projection("widen", self.width, 2 * self.width)
        self.narrow_kernel, self.narrow_bias = self.add_projection("narrow", 2 * self.width, self.width)
        self.add_norm()
        self.built = True

    def call(self, tokens):
        wide = ops.gelu(project(self.normalised(tokens), self.widen_kernel, self.widen_bias), approximate=False)
        return project(wide, self.narrow_kernel, self.narrow_bias)


@register
class PatchEncoder(keras.layers.Layer):
    """Patches and their cell masks to tokens; an empty patch is masked.

    `depth` times: attention over the patches of each feature, over the features of each patch, two linear maps. With
    `hides`, a selected patch is replaced by a learnt token; without, there is no such token: nothing would train it.
    """

    def __init__(self, patches, length, width, heads, depth, dropout=0.0, mix_features=True, hides=True, **kwargs):
        super().__init__(**kwargs)
        self.settings = {"patches": patches, "length": length, "width": width, "heads": heads, "depth": depth}
        self.settings |= {"dropout": dropout, "mix_features": mix_features, "hides": hides}
        self.hides, self.mix_features = hides, mix_features
        self.patches, self.length, self.width = patches, length, width
        policy = self.dtype_policy
        self.embed = keras.layers.Dense(width, name="embed", dtype=policy)
        self.over_time, self.over_features, self.dense = [], [], []
        for i in range(depth):
            self.over_time.append(AttentionBranch(width, heads, name=f"over_time_{i}", dtype=policy))
            if mix_features:
                self.over_features.append(AttentionBranch(width, heads, name=f"over_features_{i}", dtype=policy))
            self.dense.append(DenseBranch(width, name=f"dense_{i}", dtype=policy))
        self.norm = keras.layers.LayerNormalization(name="norm", dtype=policy)
        self.drop = keras.layers.Dropout(dropout, name="drop", dtype=policy)

    def build(self, input_shape):
        self.embed.build((None, None, None, 2 * self.length))
        small = keras.initializers.RandomNormal(stddev=0.02)
        self.position = self.add_weight(shape=(self.patches, self.width), initializer=small, name="position")
        if self.hides:
            self.hidden = self.add_weight(shape=(self.width,), initializer=small, name="hidden")
        for branch in (*self.over_time, *self.over_features, *self.dense):
            branch.build((None, None, self.patches, self.width))
        self.norm.build((None, None, self.patches, self.width))
        self.drop.build((None, None, self.patches, self.width))
        self.built = True

    # Whether this is training Keras hands down to Dropout by itself; said as an argument it costs a call twice.

    def call(self, patches, cells, selected=None):
        """Tokens (batch, features, patches, width) and the mask of those that hold a real cell."""
        mask = ops.any(cells, axis=-1)
        tokens = self.embed(ops.concatenate([patches, ops.cast(cells, patches.dtype)], axis=-1))
        if selected is not None:
            tokens = ops.where(selected[..., None], ops.cast(self.hidden, tokens.dtype), tokens)
        tokens = self.drop(tokens + ops.cast(self.position, tokens.dtype))
        # One bias serves every branch: made of the mask anew in each of them, it costs as much as the softmax.
        bias = ops.cast(ops.where(mask, 0.0, lowest(tokens.dtype)), tokens.dtype)
        time_bias = rows_of(bias)
        feature_bias = rows_of(ops.transpose(bias, (0, 2, 1))) if self.mix_features else None
        for i, over_time in enumerate(self.over_time):
            tokens = tokens + self.drop(over_time(tokens, time_bias))
            if self.mix_features:
                across = self.drop(self.over_features[i](ops.transpose(tokens, (0, 2, 1, 3)), feature_bias))
                tokens = tokens + ops.transpose(across, (0, 2, 1, 3))
            tokens = tokens + self.drop(self.dense[i](tokens))
        tokens = self.norm(tokens)
        return ops.where(mask[..., None], tokens, ops.zeros_like(tokens)), mask

    def get_config(self):
        return {**super().get_config(), **self.settings}
