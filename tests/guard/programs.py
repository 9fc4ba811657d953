"""Small training programs of every shape that the guard has to leave alone. Each returns a model and the arguments
of fit."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np
import torch
from keras import layers, ops

SAMPLES, STEPS, FEATURES = 96, 6, 3


def arrays(seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(SAMPLES, STEPS, FEATURES)).astype("float32")
    y = (x.sum(axis=(1, 2), keepdims=False)[:, None] * 0.3 + 0.1 * rng.normal(size=(SAMPLES, 1))).astype("float32")
    return x, y


def _compiled(model, **kwargs):
    model.compile(**{"optimizer": keras.optimizers.Adam(1e-2), "loss": "mse", "metrics": ["mae"], **kwargs})
    return model


def sequential():
    x, y = arrays()
    model = keras.Sequential([keras.Input((STEPS, FEATURES)), layers.LSTM(5), layers.Dense(1)])
    return _compiled(model), {"x": x, "y": y}


def functional():
    x, y = arrays()
    inputs = keras.Input((STEPS, FEATURES))
    h = layers.Dense(8, activation="relu")(inputs)
    h = layers.BatchNormalization()(h)
    h = layers.Dropout(0.3)(h)
    h = layers.MultiHeadAttention(2, 4, dropout=0.1)(h, h)
    outputs = layers.Dense(1)(layers.GlobalAveragePooling1D()(h))
    return _compiled(keras.Model(inputs, outputs)), {"x": x, "y": y, "validation_split": 0.2}


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.inner = layers.GRU(4, return_sequences=True)
        self.drop = layers.Dropout(0.2, seed=3)
        self.head = layers.Dense(1)

    def call(self, x, training=None):
        h = self.drop(self.inner(x), training=training)
        self.add_loss(1e-3 * ops.mean(ops.square(h)))
        return self.head(ops.mean(h, axis=1))


def subclassed():
    x, y = arrays()
    return _compiled(Subclassed()), {"x": x, "y": y}


class OwnStep(Subclassed):
    def train_step(self, data):
        x, y = data
        self.zero_grad()
        noise = torch.randn(x.shape) * 0.01 + float(np.random.rand()) * 0.01
        loss = ops.mean(ops.square(self(x + noise, training=True) - y)) + ops.sum(self.losses)
        loss.backward()
        weights = list(self.trainable_weights)
        with torch.no_grad():
            self.optimizer.apply([w.value.grad for w in weights], weights)
        return {"loss": loss.detach()}


def own_train_step():
    x, y = arrays()
    return _compiled(OwnStep()), {"x": x, "y": y}


def mixed_float16():
    x, y = arrays()
    with_policy = {"dtype": "mixed_float16"}
    model = keras.Sequential(
        [
            keras.Input((STEPS, FEATURES)),
            layers.Dense(8, activation="gelu", **with_policy),
            layers.Flatten(**with_policy),
            layers.Dense(1, dtype="float32"),
        ]
    )
    return _compiled(model, optimizer=keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(1e-2))), {
        "x": x,
        "y": y,
    }


def accumulation():
    x, y = arrays()
    model, _ = sequential()
    return _compiled(model, optimizer=keras.optimizers.Adam(1e-2, gradient_accumulation_steps=3, clipnorm=1.0)), {
        "x": x,
        "y": y,
    }


def ema_and_schedule():
    x, y = arrays()
    model, _ = functional()
    rate = keras.optimizers.schedules.CosineDecay(1e-2, 40)
    return _compiled(model, optimizer=keras.optimizers.AdamW(rate, use_ema=True, ema_overwrite_frequency=7)), {
        "x": x,
        "y": y,
    }


class Pairs(torch.utils.data.Dataset):
    def __init__(self):
        self.x, self.y = arrays()

    def __len__(self):
        return SAMPLES

    def __getitem__(self, index):
        return self.x[index] + 0.01 * torch.rand(1).numpy(), self.y[index]


def data_loader():
    loader = torch.utils.data.DataLoader(Pairs(), batch_size=16, shuffle=True)
    return functional()[0], {"x": loader, "shuffle": False}


def data_loader_with_workers():
    loader = torch.utils.data.DataLoader(Pairs(), batch_size=16, shuffle=True, num_workers=2)
    return functional()[0], {"x": loader, "shuffle": False}


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 6

    def __getitem__(self, index):
        x, y = arrays(index)
        return x[:16], y[:16]


def py_dataset():
    return functional()[0], {"x": Batches()}


def generator():
    x, y = arrays()
    buffer = np.empty((16, STEPS, FEATURES), "float32")

    def batches():
        while True:
            chosen = np.random.permutation(SAMPLES)[:16]
            buffer[:] = x[chosen]  # the same memory again and again
            yield buffer, y[chosen]

    return functional()[0], {"x": batches(), "steps_per_epoch": 6, "shuffle": False}


def class_weight():
    x, _ = arrays()
    model = keras.Sequential([keras.Input((STEPS, FEATURES)), layers.Flatten(), layers.Dense(3, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    return model, {"x": x, "y": np.arange(SAMPLES) % 3, "class_weight": {0: 1.0, 1: 2.0, 2: 0.5}}


def sample_weight():
    model, fit = sequential()
    return model, {**fit, "sample_weight": np.linspace(0, 1, SAMPLES)}


def carried_states():
    x, y = arrays()
    inputs = keras.Input(batch_shape=(16, STEPS, FEATURES))
    model = keras.Model(inputs, layers.Dense(1)(layers.GRU(4, stateful=True, use_cudnn=False)(inputs)))
    return _compiled(model), {"x": x[: SAMPLES // 16 * 16], "y": y[: SAMPLES // 16 * 16], "shuffle": False}


def dict_inputs():
    x, y = arrays()
    values, mask = keras.Input((STEPS, FEATURES), name="values"), keras.Input((STEPS,), name="mask", dtype="bool")
    pooled = layers.GlobalAveragePooling1D()(layers.Dense(6)(values), mask=mask)
    model = keras.Model(
        {"values": values, "mask": mask},
        {"a": layers.Dense(1, name="a")(pooled), "b": layers.Dense(2, name="b")(pooled)},
    )
    model.compile("adam", {"a": "mse", "b": "mae"})
    present = np.arange(STEPS)[None] < (np.arange(SAMPLES) % STEPS + 1)[:, None]
    return model, {"x": {"values": x, "mask": present}, "y": {"a": y, "b": np.repeat(y, 2, axis=1)}}


PROGRAMS = {
    function.__name__: function
    for function in (
        sequential,
        functional,
        subclassed,
        own_train_step,
        mixed_float16,
        accumulation,
        ema_and_schedule,
        data_loader,
        py_dataset,
        generator,
        class_weight,
        sample_weight,
        dict_inputs,
        carried_states,
    )
}


def run(program, callbacks=(), epochs=3, seed=7, **fit_arguments):
    """Build and train under one seed; returns the model."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    model, fit = program()
    fit = (
        {"batch_size": 16, **fit}
        if not hasattr(fit["x"], "__next__") and isinstance(fit["x"], (np.ndarray, dict))
        else fit
    )
    model.fit(**{**fit, **fit_arguments}, epochs=epochs, verbose=0, callbacks=list(callbacks))
    return model


def bits(model):
    """Every weight and optimizer variable, as bytes."""
    variables = list(model.variables) + list(model.optimizer.variables)
    return [v.value.detach().cpu().numpy().tobytes() for v in variables]
