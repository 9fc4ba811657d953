"""The demo's subject: masked-patch pre-training of a small transformer on short padded series.

Its sick variant has the fault that stopped a real training effort: the number of patches to hide is
`int(patches * 0.15)`, which is 0 for six patches or fewer, and the mean over an empty selection is NaN.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

STEPS, FEATURES, PATCH = 24, 3, 4
PATCHES = STEPS // PATCH
HIDDEN_SHARE = 0.15


@keras.saving.register_keras_serializable(package="tsguard_demo")
class HidePatches(keras.layers.Layer):
    """Replaces the chosen patches by a learned token."""

    def __init__(self, count: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.count = count

    def build(self, shape: tuple[int | None, ...]) -> None:
        self.token = self.add_weight(shape=(shape[-1],), initializer="zeros", name="token")

    def call(self, patches: Any) -> Any:
        hidden = ops.cast(ops.arange(ops.shape(patches)[1]) < self.count, patches.dtype)[None, :, None]
        return patches * (1 - hidden) + self.token * hidden

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "count": self.count}


@keras.saving.register_keras_serializable(package="tsguard_demo")
class MaskedPatchLoss(keras.losses.Loss):
    """Squared error of the hidden patches alone."""

    def __init__(self, count: int, name: str = "masked_patch", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.count = count

    def call(self, y_true: Any, y_pred: Any) -> Any:
        error = ops.square(y_true - y_pred)[:, : self.count]
        return ops.mean(error, axis=(1, 2))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "count": self.count}


def build(*, sick: bool = False, width: int = 32) -> keras.Model:
    """The compiled model. In the sick variant nothing makes sure that a patch is hidden; that is all."""
    count = int(PATCHES * HIDDEN_SHARE) if sick else max(1, int(PATCHES * HIDDEN_SHARE))
    values = keras.Input((STEPS, FEATURES), name="values")
    mask = keras.Input((STEPS,), dtype="bool", name="mask")
    shown = keras.layers.Reshape((PATCHES, PATCH))(mask)
    valid = keras.layers.Lambda(lambda m: ops.any(m, axis=-1), output_shape=(PATCHES,), name="valid_patches")(shown)
    clean = keras.layers.Lambda(
        lambda pair: ops.where(pair[1][..., None], pair[0], 0.0), output_shape=(STEPS, FEATURES), name="without_padding"
    )([values, mask])
    patches = keras.layers.Reshape((PATCHES, PATCH * FEATURES), name="patches")(clean)
    hidden = HidePatches(count, name="hide")(keras.layers.Dense(width, name="embed")(patches))
    attended = keras.layers.MultiHeadAttention(4, width // 4, name="attention")(
        hidden, hidden, key_mask=valid, query_mask=valid
    )
    state = keras.layers.LayerNormalization(name="norm")(keras.layers.Add(name="residual")([hidden, attended]))
    state = keras.layers.Dense(2 * width, activation="gelu", name="mix")(state)
    outputs = keras.layers.Dense(PATCH * FEATURES, name="reconstruct")(state)
    model = keras.Model({"values": values, "mask": mask}, outputs, name="masked_patches")
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss=MaskedPatchLoss(count))
    return model


def data(samples: int = 512, seed: int = 7) -> dict[str, Any]:
    """Seasonal series of 12 to 24 steps, padded to 24; the targets are the patches themselves."""
    rng = np.random.default_rng(seed)
    time = np.arange(STEPS)[None, :, None]
    phase = rng.uniform(0, 2 * np.pi, (samples, 1, FEATURES))
    values = np.sin(2 * np.pi * time / 12 + phase) + 0.1 * rng.normal(size=(samples, STEPS, FEATURES))
    mask = np.arange(STEPS)[None, :] < rng.integers(12, STEPS + 1, samples)[:, None]
    values = np.where(mask[..., None], values, 0.0).astype("float32")
    target = values.reshape(samples, PATCHES, PATCH * FEATURES)
    cut = int(samples * 0.8)
    return {
        "x": {"values": values[:cut], "mask": mask[:cut]},
        "y": target[:cut],
        "validation_data": ({"values": values[cut:], "mask": mask[cut:]}, target[cut:]),
        "names": ("load", "temperature", "price"),
    }
