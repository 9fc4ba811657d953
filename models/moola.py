"""Moola: a bidirectional LSTM learns windows by filling masked steps; its forward half starts a causal LSTM classifier.

Both read the valid steps of a sample one after another, wherever its padding is: steps are gathered, read, and put
back. So the LSTMs need no mask, which would take Keras' slow loop, and make every gradient NaN with NaN padding.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from models.common import (
    TermLossModel,
    cells_of,
    masked_softmax,
    register,
    scale_instances,
    weighted_error,
)
from models.precise import at_least_float32, precise
from models.transfer import FreezeSchedule, Transfer

MASKS = ("random", "block", "patch")
"""What is hidden: single steps; one run of steps; whole patches of a fixed grid."""


@register
class ValidSteps(keras.layers.Layer):
    """An LSTM over the valid steps alone, in time order or (`reverse`) from the last back; masked steps come out 0."""

    def __init__(self, units, reverse=False, **kwargs):
        super().__init__(**kwargs)
        self.units, self.reverse = units, reverse
        self.lstm = keras.layers.LSTM(units, return_sequences=True, name="lstm", dtype=self.dtype_policy)

    def build(self, input_shape):
        self.lstm.build(input_shape)
        self.built = True

    def call(self, values, mask):
        time = ops.arange(ops.shape(values)[1], dtype="int32")[None, :]
        place = -time if self.reverse else time
        # Valid steps first, in reading order; the rest behind them, where a causal pass cannot be disturbed by it.
        order = ops.argsort(ops.where(mask, place, place + 4 * ops.shape(values)[1]), axis=1)
        values = ops.where(mask[..., None], values, ops.zeros_like(values))
        read = self.lstm(ops.take_along_axis(values, spread(order, values.shape[-1]), axis=1))
        back = ops.take_along_axis(read, spread(ops.argsort(order, axis=1), self.units), axis=1)
        return ops.where(mask[..., None], back, ops.zeros_like(back))

    def get_config(self):
        return {**super().get_config(), "units": self.units, "reverse": self.reverse}


def spread(index, width):
    """(batch, time) to (batch, time, width), as take_along_axis wants it."""
    return ops.broadcast_to(index[..., None], (*ops.shape(index), width))


@register
class AttentionOverSteps(keras.layers.Layer):
    """The last valid state asks, every valid step answers: the weighted sum beside the last state itself.

    Softmax over all valid steps; over one step it would be 1 whatever the query, which then gets no gradient.
    """

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.query = keras.layers.Dense(units, use_bias=False, name="query", dtype=self.dtype_policy)
        self.key = keras.layers.Dense(units, use_bias=False, name="key", dtype=self.dtype_policy)

    def build(self, input_shape):
        self.query.build((input_shape[0], input_shape[-1]))
        self.key.build(input_shape)
        self.built = True

    def call(self, states, mask):
        weights, last = self.weights_of(states, mask)
        mixed = ops.sum(states * weights[..., None], axis=1)
        return ops.concatenate([mixed, last], axis=-1)

    def weights_of(self, states, mask):
        """(batch, time) attention weights, and the last valid state."""
        time = ops.arange(ops.shape(states)[1], dtype="int32")[None, :]
        final = time == ops.max(ops.where(mask, time, -1), axis=1, keepdims=True)
        last = ops.sum(ops.where(final[..., None], states, ops.zeros_like(states)), axis=1)
        scores = ops.sum(self.query(last)[:, None, :] * self.key(states), axis=-1) / self.units**0.5
        return masked_softmax(scores, mask), last

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@register
class MaskedAutoencoder(TermLossModel):
    """Stage 1: hide steps, read the window in both directions, fill them in. The loss is over hidden, real cells only.

    Inputs: an array (batch, time, features), or a dict of values and mask. Output: dict of `reconstruction`, in units
    of the scaled window, and `selected` (batch, time). In evaluation the hidden steps are fixed.
    """

    def __init__(
        self, features=4, units=32, layers=1, mask="patch", ratio=0.15, patch=4, scale=True, loss="huber", **kwargs
    ):
        super().__init__(autocast=False, **kwargs)
        if mask not in MASKS:
            raise ValueError(f"moola: received mask {mask!r}, expected one of {list(MASKS)}.")
        self.settings = {"features": features, "units": units, "layers": layers, "mask": mask, "ratio": ratio}
        self.settings |= {"patch": patch, "scale": scale, "loss": loss}
        self.features, self.units, self.depth, self.kind, self.ratio, self.patch = (
            features, units, layers, mask, ratio, patch
        )  # fmt: skip
        self.point_kind, policy = loss, self.dtype_policy
        self.scaled = scale
        self.forward_layers = [ValidSteps(units, name=f"forward_{i}", dtype=policy) for i in range(layers)]
        self.backward_layers = [
            ValidSteps(units, reverse=True, name=f"backward_{i}", dtype=policy) for i in range(layers)
        ]
        self.fill = keras.layers.Dense(features, name="fill", dtype=policy)
        self.noise = keras.random.SeedGenerator(name="noise")
        self.track_terms(["reconstruction"])
        self.build((None, None, features))

    def build(self, input_shape):
        if self.built:
            return
        self.hidden = self.add_weight(shape=(self.features,), initializer="zeros", name="hidden")
        width = self.features
        for forward, backward in zip(self.forward_layers, self.backward_layers, strict=True):
            forward.build((None, None, width))
            backward.build((None, None, width))
            width = 2 * self.units
        self.fill.build((None, None, width))
        self.built = True

    def prepare(self, x):
        """Scaled values, real cells, and the steps that have any."""
        values, cells = cells_of(x, at_least_float32(self.compute_dtype))
        if self.scaled:
            values = scale_instances(values, cells)[0]
        return values, cells, ops.any(cells, axis=-1)

    def call(self, x, training=False):
        values, _, steps = self.prepare(x)
        selected = self.select(steps, training)
        values = ops.where(selected[..., None], ops.cast(self.hidden, values.dtype), values)
        for forward, backward in zip(self.forward_layers, self.backward_layers, strict=True):
            values = ops.concatenate([forward(values, steps), backward(values, steps)], axis=-1)
        return {"reconstruction": self.fill(values), "selected": ops.cast(selected, "float32")}

    def select(self, steps, training):
        """The steps to hide, among the valid ones: at least one of a sample with two or more, never all."""
        batch, length = ops.shape(steps)
        rank = ops.cumsum(ops.cast(steps, "int32"), axis=1) - 1
        count = ops.max(rank + 1, axis=1, keepdims=True)
        size = self.patch if self.kind == "patch" else 1
        groups = ops.floor_divide(count + size - 1, size)
        hide = ops.maximum(ops.cast(ops.floor(ops.cast(groups, "float32") * self.ratio + 0.5), "int32"), 1)
        hide = ops.where(groups >= 2, ops.minimum(hide, groups - 1), 0)
        if self.kind == "block":
            start = ops.floor(self.draw(batch, 1, training) * ops.cast(groups - hide + 1, "float32"))
            start = ops.cast(start, "int32")
            chosen = ops.logical_and(rank >= start, rank < start + hide)
        else:
            noise = self.draw(batch, length, training)
            slots = ops.arange(length, dtype="int32")[None, :]
            noise = ops.where(slots < groups, noise, 2.0)
            place = ops.argsort(ops.argsort(noise, axis=1), axis=1)
            group = ops.clip(ops.floor_divide(rank, size), 0, length - 1)
            chosen = ops.take_along_axis(place, group, axis=1) < hide
        return ops.logical_and(steps, chosen)

    def draw(self, batch, length, training):
        """(batch, length) in (0, 1): random in training, an even fixed pattern in evaluation."""
        if training:
            return keras.random.uniform((batch, length), dtype="float32", seed=self.noise)
        even = (ops.arange(1, length + 1, dtype="float32") * 0.6180339887498949)[None, :]
        return ops.broadcast_to(even - ops.floor(even), (batch, length))

    def loss_terms(self, x, y, y_pred, sample_weight=None):
        """The one term: the error over the hidden cells. `y` may hold clean values to restore; None means x itself."""
        values, cells, _ = self.prepare(x)
        hidden = ops.logical_and(cells, (y_pred["selected"] > 0.5)[..., None])
        error = weighted_error(values, y_pred["reconstruction"], hidden, sample_weight, self.point_kind)
        return {"reconstruction": error}

    def get_config(self):
        return {**super().get_config(), **self.settings}


@register
class Scaled(keras.layers.Layer):
    """Instance scaling as a layer of one output; masked cells are 0. In float32 under any half policy."""

    def __init__(self, scale=True, **kwargs):
        super().__init__(**{"dtype": precise(), "autocast": False, **kwargs})
        self.scale = scale

    def build(self, input_shape):
        self.built = True

    def call(self, values, mask):
        values, cells = cells_of({"values": values, "mask": mask}, self.compute_dtype)
        return scale_instances(values, cells)[0] if self.scale else values

    def get_config(self):
        return {**super().get_config(), "scale": self.scale}


def classifier(features=4, classes=2, units=32, layers=1, dropout=0.1, scale=True):
    """Stage 2, not compiled: causal LSTM, attention over all valid steps, logits (batch, classes).

    Inputs: dict of `values` (batch, time, features) and `mask` (batch, time).
    """
    values = keras.Input((None, features), name="values")
    mask = keras.Input((None,), dtype="bool", name="mask")
    states = Scaled(scale, name="scale")(values, mask)
    for i in range(layers):
        states = ValidSteps(units, name=f"forward_{i}")(states, mask)
    pooled = AttentionOverSteps(units, name="attention")(states, mask)
    pooled = keras.layers.Dropout(dropout, name="drop")(pooled)
    logits = keras.layers.Dense(classes, name="head", dtype=precise())(pooled)
    return keras.Model({"values": values, "mask": mask}, logits, name="moola")


def build(rate=3e-3, clipnorm=1.0, **settings):
    """A compiled classifier; `settings` go to `classifier`."""
    model = classifier(**settings)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(rate, clipnorm=clipnorm), loss=loss, metrics=["accuracy"])
    return model


def build_pretraining(rate=3e-3, clipnorm=1.0, **settings):
    """A compiled masked autoencoder; `settings` go to `MaskedAutoencoder`."""
    model = MaskedAutoencoder(**settings)
    model.compile(optimizer=keras.optimizers.Adam(rate, clipnorm=clipnorm))
    return model


def transfer(encoder, model):
    """Copy the forward half of a MaskedAutoencoder into a classifier; says what was loaded, what not, and why.

    Only the first layer can go over from an encoder of several: from the second on, a bidirectional layer reads both
    directions (2 · units inputs), a causal one only the past (units inputs).
    """
    loaded, not_loaded, unused = [], {}, {}
    for i, layer in enumerate(encoder.forward_layers):
        try:
            target = model.get_layer(layer.name)
        except ValueError:
            unused.update({v.path: f"the classifier has no layer {layer.name!r}" for v in layer.weights})
            continue
        pairs = list(zip(layer.weights, target.weights, strict=True))
        wrong = [
            f"{v.name} {tuple(v.shape)} in the encoder, {tuple(w.shape)} here" for v, w in pairs if v.shape != w.shape
        ]
        if wrong:
            # All or nothing for one LSTM: a recurrent kernel without its input kernel is noise.
            why = "; ".join(wrong) + (": above the first layer the encoder reads both directions" if i else "")
            not_loaded.update({w.path: why for _, w in pairs})
            unused.update({v.path: why for v, _ in pairs})
            continue
        for given, wanted in pairs:
            wanted.assign(ops.convert_to_numpy(given.value))
            loaded.append(wanted.path)
    done = set(loaded) | set(not_loaded)
    fresh = "not part of the encoder: it starts fresh"
    not_loaded.update({v.path: fresh for v in model.trainable_variables + model.non_trainable_variables
                       if v.path not in done and not v.path.startswith("seed_generator")})  # fmt: skip
    for layer in encoder.backward_layers:
        unused.update({v.path: "reads the future, which a causal classifier may not" for v in layer.weights})
    unused.update(
        {v.path: "fills in masked steps; a classifier has none" for v in [encoder.hidden, *encoder.fill.weights]}
    )
    return Transfer(tuple(loaded), not_loaded, unused)


def attention_weights(model, x):
    """(batch, time): what each step counted for in the pooled state of a classifier."""
    states = keras.Model(model.inputs, model.get_layer("attention").input[0])
    weights, _ = model.get_layer("attention").weights_of(
        states({"values": x["values"], "mask": x["mask"]}), ops.cast(x["mask"], "bool")
    )
    return ops.convert_to_numpy(weights)


def unfreeze_after(model, epochs):
    """The callback that trains the attention and the head alone for `epochs` epochs, then everything."""
    fresh = [layer.name for layer in model.layers if layer.weights and not layer.name.startswith("forward_")]
    return FreezeSchedule({0: fresh, epochs: "all"})


def recall_per_class(y, predicted, classes):
    """(classes,): the share of each class that was found; NaN for a class that does not occur."""
    y, predicted = np.asarray(y), np.asarray(predicted)
    found = [np.mean(predicted[y == c] == c) if np.any(y == c) else np.nan for c in range(classes)]
    return np.asarray(found)


def augment(values, mask=None, copies=4, warp=0.12, jitter=0.03, scaling=0.1, seed=0):
    """The windows and `copies` − 1 augmented ones of each: time warp, a factor per feature, and noise.

    `warp` is the deviation of the logarithm of the local speed; `jitter` is in units of each window's own deviation, so
    that raw prices are not drowned and returns are not drowned out. Masked steps stay where and what they are.
    """
    values = np.asarray(values, "float32")
    mask = np.ones(values.shape[:2], bool) if mask is None else np.asarray(mask, bool)
    rng = np.random.default_rng(seed)
    parts = [values] + [_augmented(values, mask, warp, jitter, scaling, rng) for _ in range(copies - 1)]
    return np.concatenate(parts), np.concatenate([mask] * copies)


def _augmented(values, mask, warp, jitter, scaling, rng):
    out = values.copy()
    for sample, steps in enumerate(mask):
        place = np.flatnonzero(steps)
        if len(place) < 2:
            continue
        window = values[sample, place]
        middle, size = window.mean(axis=0), window.std(axis=0)
        knots = rng.normal(0, warp, 4)
        speed = np.exp(np.interp(np.linspace(0, 3, len(place) - 1), np.arange(4), knots))
        clock = np.concatenate([[0.0], np.cumsum(speed)])
        clock *= (len(place) - 1) / clock[-1]
        warped = np.stack([np.interp(clock, np.arange(len(place)), column) for column in window.T], axis=1)
        factor = rng.normal(1, scaling, window.shape[1])
        out[sample, place] = middle + (warped - middle) * factor + rng.normal(0, 1, window.shape) * jitter * size
    return out


def synthetic(samples=256, steps=48, features=4, classes=2, labels=True, seed=0):
    """Windows of prices (open, high, low, close …) of varying length; the classes are ranges, trends and reversals.

    x holds values and mask, padded on the right with zeros; y is the class. Prices start at about 20,000, as raw prices
    do. `labels=False` leaves y out, for the first stage.
    """
    rng = np.random.default_rng(seed)
    total = samples + max(1, samples // 4)
    y = rng.permutation(np.arange(total) % classes)
    lengths = rng.integers(steps // 2, steps + 1, total)
    mask = np.arange(steps)[None, :] < lengths[:, None]
    share = np.linspace(0, 1, steps)[None, :]
    shapes = np.stack([np.sin(2 * np.pi * 3 * share), 4 * share - 2, 2 - 4 * share, np.cos(2 * np.pi * share) * 2])[
        :, 0
    ]
    path = shapes[y % 4] * rng.uniform(0.5, 1.5, (total, 1)) + np.cumsum(rng.normal(0, 0.15, (total, steps)), axis=1)
    price = 20_000 * (1 + 0.002 * path)[..., None]
    spread = np.abs(rng.normal(0, 4, (total, steps, features))) * np.where(np.arange(features) % 2, 1, -1)
    values = np.where(mask[..., None], price + spread, 0.0).astype("float32")
    y = y.astype("int32")
    halves = [slice(0, samples), slice(samples, total)]
    train, held = (({"values": values[half], "mask": mask[half]}, y[half] if labels else None) for half in halves)
    names = ("open", "high", "low", "close", *(f"extra_{i}" for i in range(features)))[:features]
    return {"x": train[0], "y": train[1], "validation_data": held if labels else (held[0],), "names": names}
