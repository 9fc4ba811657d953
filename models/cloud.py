"""A number from a short sequence of images: each frame is encoded by itself, the newest one asks the others, a head
answers.

Sequences of one to `num_frames` frames may be mixed in a batch; `mask` says which frames are there. The collapse that
this family is known for is a matter of what can be known (see `RegressionLoss`), so the decomposition of R² comes with
it.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from models.common import lowest
from models.precise import at_least_float32

LOSSES = ("mse", "huber", "variance", "ccc")
# Added to the ratio of predicted to true variance, so that its root has a gradient when predictions are flat.
FLAT_SHARE = 1e-6
# Targets whose variance is below this share of their squared mean differ by float32's rounding only.
CONSTANT_SHARE = 1e-12

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


@_register
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


@_register
class Cloud(keras.Model):
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
        outputs, weights = _network(inputs, settings)
        super().__init__(inputs=inputs, outputs=outputs, **kwargs)
        self.settings, self.readings = settings, {"attention": weights}

    def explain(self, x) -> dict[str, np.ndarray]:
        """How much each head of the newest frame looked at each frame: (batch, heads, frames)."""
        return keras.Model(self.inputs, dict(self.readings)).predict(x, verbose=0)

    def loss_terms(self, x, y, y_pred, sample_weight=None):
        """The parts of the loss; the sum is the loss."""
        return self.loss.terms(y, y_pred, sample_weight)

    def get_config(self):
        return {"name": self.name, "trainable": self.trainable, **self.settings}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**config)


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
        dtype=at_least_float32(keras.config.dtype_policy().compute_dtype),
        name="output",
    )
    return head(x), weights


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
    model: Cloud,
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


def simple_features(frames, mask=None, grid: int = 4) -> np.ndarray:
    """What boosted trees or a ridge get: of each frame, newest first, mean, spread, extremes and a coarse grid.

    Absent frames repeat the oldest valid one.
    """
    frames = np.asarray(frames, np.float64)[..., 0]
    count, time = frames.shape[:2]
    mask = np.ones((count, time), bool) if mask is None else np.asarray(mask, bool)
    order = np.argsort(~mask[:, ::-1], axis=1, kind="stable")
    last = np.maximum(mask.sum(axis=1), 1) - 1
    order = np.take_along_axis(order, np.minimum(np.arange(time), last[:, None]), axis=1)
    frames = np.take_along_axis(frames[:, ::-1], order[..., None, None], axis=1)
    rows = [np.array_split(part, grid, axis=-1) for part in np.array_split(frames, grid, axis=-2)]
    cells = [cell.mean(axis=(-2, -1)) for row in rows for cell in row]
    whole = [getattr(frames, name)(axis=(-2, -1)) for name in ("mean", "std", "min", "max")]
    return np.stack(whole + cells, axis=-1).reshape(count, -1)


def sequences(fields, *, num_frames: int, ahead: int) -> tuple[np.ndarray, np.ndarray]:
    """Every run of `num_frames` consecutive fields, and the index of the field that lies `ahead` steps after its last
    one."""
    starts = np.arange(len(fields) - num_frames - ahead + 1)
    return np.asarray(fields)[starts[:, None] + np.arange(num_frames)], starts + num_frames - 1 + ahead


def synthetic(
    *, num_samples: int = 320, size: int = 16, num_frames: int = 5, short_share: float = 0.3, seed: int = 0
) -> dict[str, Any]:
    """Clouds that drift, grow and fade over a field; the target is the cover over its middle two steps later,
    standardised.

    Drift differs from sample to sample, so one frame is not enough. A share of the samples has fewer frames, down to
    one, padded on the right. `aux` holds sine and cosine of the hour, on which the growth depends.
    """
    rng = np.random.default_rng(seed)
    axis = np.arange(size)
    moments = np.arange(num_frames + 2)
    place = rng.uniform(-0.3 * size, 1.3 * size, (num_samples, 6, 2))
    drift = rng.normal(0, 0.06 * size, (num_samples, 1, 2)) + rng.normal(0, 0.01 * size, (num_samples, 6, 2))
    width = rng.uniform(0.08, 0.2, (num_samples, 6)) * size
    hour = rng.uniform(0, 2 * np.pi, num_samples)
    centre = place[:, None] + drift[:, None] * moments[:, None, None]
    growth = np.exp(0.12 * np.sin(hour)[:, None] * moments)
    squared = (axis[:, None] - centre[..., 0][..., None, None]) ** 2 + (axis - centre[..., 1][..., None, None]) ** 2
    blobs = np.exp(-squared / (2 * width[:, None, :, None, None] ** 2)).sum(axis=2)
    cover = np.tanh(blobs * growth[..., None, None])
    middle = slice(size // 4, size - size // 4)
    target = cover[:, -1, middle, middle].mean(axis=(1, 2))
    frames = cover[:, :num_frames, ..., None] + rng.normal(0, 0.02, (num_samples, num_frames, size, size, 1))
    count = np.where(rng.random(num_samples) < short_share, rng.integers(1, num_frames, num_samples), num_frames)
    mask = np.arange(num_frames) < count[:, None]
    source = np.minimum(np.arange(num_frames) + (num_frames - count)[:, None], num_frames - 1)
    frames = np.take_along_axis(frames, source[..., None, None, None], axis=1) * mask[..., None, None, None]
    split = int(0.8 * num_samples)
    y = ((target - target[:split].mean()) / target[:split].std()).astype("float32")[:, None]
    x = {
        "frames": ((frames - 0.3) * mask[..., None, None, None]).astype("float32"),
        "mask": mask,
        "aux": np.stack([np.sin(hour), np.cos(hour)], axis=-1).astype("float32"),
    }
    return {
        "x": {k: v[:split] for k, v in x.items()},
        "y": y[:split],
        "validation_data": ({k: v[split:] for k, v in x.items()}, y[split:]),
        "names": {"frames": ["cover"], "aux": ["hour_sin", "hour_cos"], "targets": ["cover ahead"]},
    }
