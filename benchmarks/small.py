"""Two small models that several benchmarks train: what a step costs shows on them."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers


def transformer() -> tuple[Any, tuple[int, ...]]:
    """Two blocks, width 64, 64 timesteps."""
    inputs = keras.Input((64, 8))
    h = layers.Dense(64)(inputs)
    for _ in range(2):
        h = layers.LayerNormalization()(h + layers.MultiHeadAttention(4, 16, dropout=0.1)(h, h))
        h = layers.LayerNormalization()(h + layers.Dense(64)(layers.Dense(128, activation="gelu")(h)))
    return keras.Model(inputs, layers.Dense(1)(layers.GlobalAveragePooling1D()(h))), (64, 8)


def lstm() -> tuple[Any, tuple[int, ...]]:
    """Two layers of 64 units, 48 timesteps."""
    model = keras.Sequential(
        [keras.Input((48, 8)), layers.LSTM(64, return_sequences=True), layers.LSTM(64), layers.Dense(1)]
    )
    return model, (48, 8)
