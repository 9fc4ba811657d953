"""An encoder taught on single frames, labelled or not."""

import keras
import numpy as np

from models.cloud.layers import FrameEncoder


def autoencoder(encoder: FrameEncoder, frame_shape) -> keras.Model:
    """A frame through the encoder and back, for frames without a target. The encoder is shared, not copied."""
    inputs = keras.Input(tuple(frame_shape), name="frame")
    code = encoder(inputs)
    x = keras.layers.Dense(int(np.prod(encoder.field)), activation="gelu", name="expand")(code)
    x = keras.layers.Reshape(encoder.field, name="field")(x)
    for i, count in enumerate((*encoder.filters[-2::-1], frame_shape[-1])):
        x = keras.layers.UpSampling2D(2, name=f"up_{i}")(x)
        last = i == len(encoder.filters) - 1
        x = keras.layers.Conv2D(count, 3, padding="same", activation=None if last else "gelu", name=f"deconv_{i}")(x)
    height, width = x.shape[1] - frame_shape[0], x.shape[2] - frame_shape[1]
    return keras.Model(inputs, keras.layers.Cropping2D(((0, height), (0, width)), name="crop")(x), name="autoencoder")


def pretrain(
    model: keras.Model,
    frames,
    *,
    mask=None,
    epochs: int = 50,
    patience: int = 5,
    validation_share: float = 0.2,
    batch_size: int = 32,
    learning_rate: float = 3e-3,
) -> dict[str, float]:
    """Teaches the model's encoder to describe single frames, labelled or not, and stops when it no longer learns.

    `frames` is (n, height, width, channels) in order of time, or sequences of them with their `mask`; every valid
    frame takes part, the last share of them as validation. The best weights are kept. Returns what was used and
    reached; `explained` is the share of the validation frames' variance that the reconstruction holds.
    """
    frames = np.asarray(frames)
    if frames.ndim == 5:
        frames = frames[np.asarray(mask, bool)] if mask is not None else frames.reshape(-1, *frames.shape[2:])
    split = len(frames) - int(validation_share * len(frames))
    train, held = frames[:split], frames[split:]
    if not len(held):
        raise ValueError(f"patience needs validation frames; {len(frames)} frames × {validation_share} leave none.")
    both = autoencoder(model.get_layer("encoder"), model.settings["frame_shape"])
    both.compile(optimizer=keras.optimizers.Adam(learning_rate), loss="mse")
    stop = keras.callbacks.EarlyStopping(patience=patience, restore_best_weights=True)
    fitted = both.fit(
        train, train, validation_data=(held, held), epochs=epochs, batch_size=batch_size, callbacks=[stop], verbose=0
    )
    best = float(np.min(fitted.history["val_loss"]))
    return {
        "frames": len(frames),
        "frames_trained": len(train),
        "epochs": len(fitted.history["loss"]),
        "val_loss": best,
        "explained": 1.0 - best / float(np.mean((held - train.mean(axis=0)) ** 2)),
    }
