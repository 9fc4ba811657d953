"""Small programs with one fault each, and the same program without it: what the checks of model and loss are "
"held to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import torch
from keras import layers, ops

from tsguard.checks.registry import Context
from tsguard.dataset import Data
from tsguard.subject import Subject


@dataclass(frozen=True)
class Case:
    """A pair: `build(sick)` gives (model, x, y, fit)."""

    code: str
    says: str
    """Words that the message must hold: what was received or where."""
    build: Callable[[bool], tuple[Any, Any, Any, dict[str, Any]]]

    def context(self, *, sick: bool) -> Context:
        keras.utils.set_random_seed(3)
        model, x, y, fit = self.build(sick)
        data = Data(x, y, batch_size=fit.get("batch_size", 32))
        return Context(subject=Subject.from_model(model, data), data=data, facts={"fit": fit}, budget_s=20)


CASES: list[Case] = []


def case(code: str, says: str) -> Callable[[Any], Any]:
    def keep(build: Any) -> Any:
        CASES.append(Case(code, says, build))
        return build

    return keep


def rows(samples: int = 160, columns: int = 5) -> Any:
    return np.random.default_rng(0).normal(size=(samples, columns)).astype("float32")


def values(x: Any) -> Any:
    return (x[:, :1] - 0.5 * x[:, 1:2] + 0.1 * x[:, 2:3]).astype("float32")


def labels(x: Any, classes: int = 3) -> Any:
    return np.digitize(x[:, 0], np.quantile(x[:, 0], np.arange(1, classes) / classes)).astype("int32")


def dense(*stack: Any, loss: Any = "mse", optimizer: Any = "adam", **compile_: Any) -> Any:
    model = keras.Sequential([keras.Input((5,)), *stack])
    model.compile(optimizer=optimizer, loss=loss, **compile_)
    return model


@case("output-activation", "R² cannot exceed")
def closed_output(sick):
    x = rows()
    return dense(layers.Dense(8, "tanh"), layers.Dense(1, "sigmoid" if sick else None)), x, values(x), {}


@case("output-activation", "takes it for a probability")
def missing_softmax(sick):
    x = rows()
    stack = (layers.Dense(8, "relu"), layers.Dense(3, None if sick else "softmax"))
    return dense(*stack, loss="sparse_categorical_crossentropy"), x, labels(x), {}


@case("output-activation", "for every input")
def softmax_of_one(sick):
    x = rows()
    last = layers.Dense(1, "softmax" if sick else "sigmoid")
    return dense(layers.Dense(8, "relu"), last, loss="binary_crossentropy"), x, labels(x, 2)[:, None], {}


@case("double-softmax", "even perfect answers cost")
def softmax_twice(sick):
    x = rows()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=sick)
    return dense(layers.Dense(8, "relu"), layers.Dense(3, "softmax"), loss=loss), x, labels(x), {}


@case("data-labels", "labels run from 1 to 3")
def labels_from_one(sick):
    x = rows()
    stack = (layers.Dense(8, "relu"), layers.Dense(3, "softmax"))
    return dense(*stack, loss="sparse_categorical_crossentropy"), x, labels(x) + int(sick), {}


@case("loss-mismatch", "class numbers")
def distance_to_a_class(sick):
    x = rows()
    loss = "mse" if sick else "sparse_categorical_crossentropy"
    return dense(layers.Dense(8, "relu"), layers.Dense(3, "softmax"), loss=loss), x, labels(x)[:, None], {}


class Raw(keras.losses.Loss):
    """A loss of raw operations, which broadcasts whatever it gets."""

    def call(self, truth, guess):
        return ops.mean(ops.square(truth - guess))


@case("loss-broadcast", "dealt to other samples")
def column_against_row(sick):
    x = rows()
    y = values(x)
    return dense(layers.Dense(8, "relu"), layers.Dense(1), loss=Raw()), x, y[:, 0] if sick else y, {}


@case("loss-broadcast", "dealt to other samples")
def column_against_row_in_watts(sick):
    x = rows()
    y = 500.0 + 40.0 * values(x)
    return dense(layers.Dense(8, "relu"), layers.Dense(1), loss=Raw()), x, y[:, 0] if sick else y, {"epochs": 1}


class OwnSoftmax(keras.losses.Loss):
    """A loss of one's own that makes probabilities of what it gets."""

    def call(self, truth, guess):
        return -ops.mean(ops.sum(truth * ops.log_softmax(guess), axis=-1))


@case("double-softmax", "own loss applies another")
def softmax_in_model_and_own_loss(sick):
    x = rows()
    last = layers.Dense(3, "softmax" if sick else None)
    y = np.eye(3, dtype="float32")[labels(x)]
    return dense(layers.Dense(8, "relu"), last, loss=OwnSoftmax()), x, y, {}


@case("loss-degenerate", "has no lower bound")
def loss_without_a_floor(sick):
    x = rows()

    def reward(truth, guess):
        return ops.mean(-guess * truth if sick else ops.square(guess - truth))

    return dense(layers.Dense(8, "relu"), layers.Dense(1), loss=reward), x, values(x), {}


@case("loss-degenerate", "whatever the model answers")
def loss_of_nothing(sick):
    x = rows()

    def zero(truth, guess):
        return ops.mean(ops.square(guess - (guess if sick else truth)))

    return dense(layers.Dense(8, "relu"), layers.Dense(1), loss=zero), x, values(x), {}


@case("loss-empty-selection", "zero divided by zero")
def nothing_selected(sick):
    x = rows()

    def above(truth, guess):
        chosen = ops.cast(truth > (50.0 if sick else 0.0), "float32")
        return ops.sum(chosen * ops.square(truth - guess)) / ops.sum(chosen)

    return dense(layers.Dense(8, "relu"), layers.Dense(1), loss=above), x, values(x), {}


@case("nan-hidden", "NaN in every weight")
def answers_that_hide_nan(sick):
    x = rows()

    class Hide(layers.Layer):
        def call(self, value):
            return ops.nan_to_num(value) if sick else value

    return dense(layers.Dense(8, "relu"), layers.Dense(1), Hide()), x, values(x), {}


@case("loss-term-dominates", "less than a thousandth")
def one_target_in_watts(sick):
    x = rows()
    window = keras.Input((5,))
    h = layers.Dense(8, "tanh")(window)
    model = keras.Model(window, {"small": layers.Dense(1, name="small")(h), "large": layers.Dense(1, name="large")(h)})
    model.compile(loss={"small": "mse", "large": "mse"}, optimizer="adam")
    y = values(x)
    return model, x, {"small": y, "large": y * (1e4 if sick else 1.0)}, {}


class OwnStep(keras.Model):
    """A hand-written step that may forget one thing."""

    def __init__(self, *, reset=True, updates=True):
        super().__init__()
        self.body, self.head = layers.Dense(8, "tanh"), layers.Dense(1)
        self.reset, self.updates = reset, updates

    def call(self, x):
        return self.head(self.body(x))

    def train_step(self, data):
        x, y = data
        if self.reset:
            self.zero_grad()
        loss = self.compute_loss(x=x, y=y, y_pred=self(x))
        loss.backward()
        kept = self.trainable_weights if self.updates else self.head.trainable_weights
        self.optimizer.apply([v.value.grad for v in kept], kept)
        return {"loss": loss}


@case("gradient-accumulates", "zero_grad")
def no_reset(sick):
    x = rows()
    model = OwnStep(reset=not sick)
    model.compile(optimizer="sgd", loss="mse")
    return model, x, values(x), {}


@case("untracked-parameters", "do not move")
def head_alone_is_updated(sick):
    x = rows()
    model = OwnStep(updates=not sick)
    model.compile(optimizer="sgd", loss="mse")
    return model, x, values(x), {}


class LateLayer(keras.Model):
    """A layer made inside `call` where Keras does not look."""

    def __init__(self, *, late):
        super().__init__()
        self.late = late
        self.body = layers.Dense(8, "tanh")
        self.known = layers.Dense(1)
        self.box = [{}]

    def call(self, x):
        h = self.body(x)
        return layers.Dense(1, name="made_late")(h) if self.late else self.known(h)


@case("untracked-parameters", "made_late")
def layer_made_in_call(sick):
    x = rows()
    model = LateLayer(late=sick)
    model.compile(optimizer="adam", loss="mse")
    return model, x, values(x), {}


class Cut(keras.Model):
    """A branch that a stop_gradient cuts off."""

    def __init__(self, *, cut):
        super().__init__()
        self.cut, self.body, self.head = cut, layers.Dense(8, "tanh", name="body"), layers.Dense(1)

    def call(self, x):
        h = self.body(x)
        return self.head(ops.stop_gradient(h) if self.cut else h)


@case("disconnected-parameters", "body")
def gradient_cut(sick):
    x = rows()
    model = Cut(cut=sick)
    model.compile(optimizer="adam", loss="mse")
    return model, x, values(x), {}


@case("degenerate-attention", "one position to choose from")
def attention_over_one(sick):
    x = rows(columns=5)[:, :, None].repeat(4, axis=2)
    steps = keras.Input((5, 4))
    h = steps[:, -1:, :] if sick else steps
    h = layers.MultiHeadAttention(2, 4)(h, h)
    model = keras.Model(steps, layers.Dense(1)(layers.GlobalAveragePooling1D()(h)))
    model.compile(optimizer="adam", loss="mse")
    return model, x, x[:, :, :1].mean(1), {}


@case("symmetric-init", "one unit wide for ever")
def equal_units(sick):
    x = rows()
    start = "ones" if sick else "glorot_uniform"
    return (
        dense(layers.Dense(8, "tanh", kernel_initializer=start), layers.Dense(1, kernel_initializer=start)),
        x,
        values(x),
        {},
    )


@case("init-scale", "unusual size")
def enormous_kernels(sick):
    x = rows()
    start = keras.initializers.RandomNormal(stddev=40.0 if sick else 0.4)
    return (
        dense(layers.Dense(16, "relu", kernel_initializer=start), layers.Dense(1, kernel_initializer=start)),
        x,
        values(x),
        {},
    )


@case("dead-units", "zero for every sample")
def relu_below_zero(sick):
    x = rows()
    bias = keras.initializers.Constant(-30.0 if sick else 0.0)
    return dense(layers.Dense(16, "relu", bias_initializer=bias, name="gate"), layers.Dense(1)), x, values(x), {}


@case("vanishing-gradient", "fades")
def deep_sigmoids(sick):
    x = rows()
    kind = "sigmoid" if sick else "relu"
    return dense(*[layers.Dense(8, kind) for _ in range(12)], layers.Dense(1)), x, values(x), {}


@case("data-scale", "standardised")
def raw_levels(sick):
    x = rows() + (400.0 if sick else 0.0)
    return dense(layers.Dense(16, "tanh"), layers.Dense(1)), x, values(rows()), {}


@case("over-regularised", "times as hard as the task")
def enormous_penalty(sick):
    x = rows()
    weight = keras.regularizers.L2(30.0 if sick else 1e-4)
    return dense(layers.Dense(16, "relu", kernel_regularizer=weight), layers.Dense(1)), x, values(x), {}


@case("over-regularised", "from mask to mask")
def hardly_any_unit_left(sick):
    x = rows()
    return dense(layers.Dense(16, "relu"), layers.Dropout(0.95 if sick else 0.2), layers.Dense(1)), x, values(x), {}


@case("lr-too-high", "Lower the rate")
def descent_that_explodes(sick):
    x = rows()
    stack = (layers.Dense(16, "tanh"), layers.Dense(1))
    return dense(*stack, optimizer=keras.optimizers.SGD(20.0 if sick else 0.05)), x, values(x), {"epochs": 5}


@case("lr-too-low", "Raise the rate")
def steps_that_go_nowhere(sick):
    x = rows()
    stack = (layers.Dense(16, "tanh"), layers.Dense(1))
    return dense(*stack, optimizer=keras.optimizers.Adam(1e-8 if sick else 1e-2)), x, values(x), {"epochs": 5}


@case("clip-saturated", "cuts every gradient")
def clipped_to_nothing(sick):
    x = rows()
    optimizer = keras.optimizers.SGD(0.1, global_clipnorm=1e-5 if sick else 1.0)
    return dense(layers.Dense(16, "tanh"), layers.Dense(1), optimizer=optimizer), x, values(x), {"epochs": 5}


@case("under-capacity", "straight line")
def straight_model_of_a_product(sick):
    x = rows(samples=400)
    kind = None if sick else "relu"
    return dense(layers.Dense(16, kind), layers.Dense(1)), x, (x[:, :1] * x[:, 1:2]).astype("float32"), {}


@case("metric-disagrees", "quantile")
def far_quantile(sick):
    x = rows()
    q = 0.98 if sick else 0.5

    def pinball(truth, guess):
        return ops.mean(ops.maximum(q * (truth - guess), (q - 1) * (truth - guess)))

    return dense(layers.Dense(16, "tanh"), layers.Dense(1), loss=pinball, metrics=["mae"]), x, values(x), {}


@case("off-plan", "watches")
def stops_at_the_worst(sick):
    x = rows()
    stop = keras.callbacks.EarlyStopping("val_loss", mode="max" if sick else "min")
    return dense(layers.Dense(16, "tanh"), layers.Dense(1)), x, values(x), {"callbacks": [stop]}


@case("lr-too-low", "schedule takes the rate away")
def rate_that_fades_at_once(sick):
    x = rows()
    schedule = keras.optimizers.schedules.ExponentialDecay(5e-3, 1 if sick else 50, 0.3 if sick else 0.9)
    wide = keras.initializers.RandomNormal(stddev=1.0, seed=1)
    stack = [layers.Dense(16, "tanh", kernel_initializer=wide), layers.Dense(1, kernel_initializer=wide)]
    return dense(*stack, optimizer=keras.optimizers.Adam(schedule)), x, values(x), {"epochs": 30}


@case("loss-broadcast", "dealt to others")
def one_of_two_outputs_broadcasts(sick):
    x = rows()
    inputs = keras.Input((5,))
    h = layers.Dense(12, "relu")(inputs)
    model = keras.Model(inputs, [layers.Dense(1, name="first")(h), layers.Dense(1, name="second")(h)])

    def own(truth, guess):
        return ops.mean(ops.square(guess - (ops.reshape(truth, (-1,)) if sick else truth)))

    model.compile("adam", [own, "mse"])
    return model, x, [values(x), values(x[:, ::-1])], {}


@case("exploding-gradient", "grows by")
def loop_of_ones_own_that_grows(sick):
    class Loop(layers.Layer):
        def build(self, shape):
            size = keras.initializers.Orthogonal(1.7 if sick else 0.9)
            self.turn = self.add_weight(shape=(4, 4), initializer=size)
            self.inward = self.add_weight(shape=(2, 4))

        def call(self, x):
            state = ops.zeros((ops.shape(x)[0], 4))
            for step in range(x.shape[1]):
                state = ops.matmul(state, self.turn) + ops.matmul(x[:, step], self.inward)
            return state

    x = np.random.default_rng(0).normal(size=(120, 40, 2)).astype("float32")
    model = keras.Sequential([keras.Input((40, 2)), Loop(), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(1e-3), "mse")
    return model, x, x[:, -4:, 0].mean(1, keepdims=True), {}


@case("init-scale", "certain and wrong")
def certain_before_it_knows(sick):
    x = rows()
    size = keras.initializers.RandomNormal(stddev=6.0 if sick else 0.4, seed=1)
    stack = [layers.Dense(32, "relu", kernel_initializer=size), layers.Dense(3, "softmax", kernel_initializer=size)]
    return dense(*stack, loss="sparse_categorical_crossentropy"), x, labels(x), {}


@case("amp-steps-skipped", "halvings")
def scale_that_overflows(sick):
    x = rows()
    half = keras.DTypePolicy("mixed_float16")
    stack = [layers.Dense(16, "relu", dtype=half), layers.Dense(1, dtype=half), layers.Activation("linear")]
    optimizer = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.Adam(1e-3), initial_scale=2.0 ** (90 if sick else 12)
    )
    return dense(*stack, optimizer=optimizer), x, values(x), {"epochs": 10}


@case("disconnected-parameters", "frozen at random")
def encoder_frozen_as_it_was_drawn(sick):
    x = rows()
    encoder = layers.Dense(2 if sick else 40, "relu")
    model = dense(encoder, layers.Dense(1))
    # Many random features hold all that a readout needs; two of them do not.
    encoder.trainable = False
    model.compile("adam", "mse")
    return model, x, values(x), {}


@case("off-plan", "min_delta")
def stop_that_must_come(sick):
    x = rows()
    stop = keras.callbacks.EarlyStopping("loss", min_delta=0.5 if sick else 1e-4, patience=1 if sick else 10)
    return dense(layers.Dense(16, "tanh"), layers.Dense(1)), x, values(x), {"callbacks": [stop], "epochs": 20}


@case("nondeterministic", "made without a seed")
def noise_layer_without_a_seed(sick):
    class Noise(layers.Layer):
        def __init__(self):
            super().__init__()
            self.draws = np.random.default_rng(None if sick else 7)

        def call(self, x):
            noise = self.draws.normal(0, 0.1, tuple(x.shape)) if x.shape[0] else np.zeros((1, 5))
            return x + ops.convert_to_tensor(noise.astype("float32"))

    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.noise, self.out = Noise(), layers.Dense(1)

        def call(self, x):
            return self.out(self.noise(x))

    x = rows()
    model = Net()
    model.compile("adam", "mse")
    return model, x, values(x), {}


@case("loss-degenerate", "compares the answers with nothing")
def autoencoder_that_looks_at_nothing(sick):
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner, self.out = layers.Dense(4, "relu"), layers.Dense(5)

        def call(self, x):
            return self.out(self.inner(x))

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return ops.mean(ops.abs(y_pred - (0.0 if sick else x)))

    x = rows()
    model = Net()
    model.compile("adam")
    return model, x, x, {}


@case("loss-degenerate", "opposite is rewarded")
def correlation_that_is_minimised(sick):
    def agreement(truth, guess):
        a, b = truth - ops.mean(truth), guess - ops.mean(guess)
        r = ops.sum(a * b) / (ops.sqrt(ops.sum(a**2) * ops.sum(b**2)) + 1e-6)
        return (r if sick else 1.0 - r) + 0.05 * ops.mean(ops.square(truth - guess))

    x = rows()
    return dense(layers.Dense(16, "tanh"), layers.Dense(1), loss=agreement), x, values(x), {}


@case("loss-mismatch", "directions and not amounts")
def direction_of_an_amount(sick):
    x = rows()
    y = np.concatenate([values(x), values(x[:, ::-1]), values(x[:, 1:])], axis=1)
    loss = "cosine_similarity" if sick else "mse"
    return dense(layers.Dense(16, "tanh"), layers.Dense(3), loss=loss, metrics=["mae"]), x, y, {}


@case("over-regularised", "constraints cut")
def kernels_cut_short(sick):
    short = keras.constraints.MaxNorm(0.01 if sick else 3.0)
    stack = [layers.Dense(16, "relu", kernel_constraint=short), layers.Dense(1, kernel_constraint=short)]
    x = rows()
    return dense(*stack), x, values(x), {}


@case("under-capacity", "dealt in another order")
def order_that_nobody_reads(sick):
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 200)
    angle = rng.uniform(0, 6, (200, 1)) + np.where(label, 0.6, -0.6)[:, None] * np.arange(8)
    x = np.stack([np.cos(angle), np.sin(angle)], -1).astype("float32")
    width = 1 if sick else 3
    model = keras.Sequential([keras.Input((8, 2)), layers.Conv1D(12, width, activation="relu")])
    model.add(layers.GlobalAveragePooling1D())
    model.add(layers.Dense(2, activation="softmax"))
    model.compile("adam", "sparse_categorical_crossentropy")
    return model, x, label.astype("int32"), {}


@case("data-labels", "rows labelled 0")
def hinge_without_a_minus(sick):
    def hinge(truth, guess):
        return ops.mean(ops.relu(1.0 - truth * guess), axis=-1)

    x = rows()
    y = (values(x) > 0).astype("float32")
    return dense(layers.Dense(16, "relu"), layers.Dense(1), loss=hinge), x, y if sick else 2 * y - 1, {}


@case("untracked-parameters", "plain tensor")
def kernel_as_a_plain_tensor(sick):
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            start = keras.random.normal((5, 8), stddev=0.4, seed=1)
            table = ops.sin(ops.reshape(ops.arange(40, dtype="float32"), (5, 8)) * 0.2)
            # A table of sines is meant to stay as it is.
            self.mix = start if sick else table
            self.out = layers.Dense(1)

        def call(self, x):
            return self.out(ops.tanh(ops.matmul(x, self.mix)))

    x = rows()
    model = Net()
    model.compile("adam", "mse")
    return model, x, values(x), {}


@case("input-encoding", "channels")
def pictures_the_wrong_way_round(sick):
    x = np.random.default_rng(0).normal(size=(64, 3, 12, 12)).astype("float32")
    x = x if sick else np.moveaxis(x, 1, -1)
    model = keras.Sequential([layers.Conv2D(4, 3, padding="same"), layers.GlobalMaxPooling2D(), layers.Dense(1)])
    model.compile("adam", "mse")
    return model, x, x.mean((1, 2, 3))[:, None], {}


@case("gradient-accumulates", "does not reset gradients")
def reset_by_the_count_of_updates(sick):
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner, self.out = layers.Dense(8, "tanh"), layers.Dense(1)

        def call(self, x):
            return self.out(self.inner(x))

        def train_step(self, data):
            x, y = data
            if not sick or int(self.optimizer.iterations) % 10 == 0:
                self.zero_grad()
            loss = ops.mean(ops.square(self(x, training=True) - y))
            loss.backward()
            weights = self.trainable_weights
            self.optimizer.apply([w.value.grad for w in weights], weights)
            return {"loss": loss}

    x = rows()
    model = Net()
    model.compile(keras.optimizers.SGD(0.05), "mse")
    return model, x, values(x), {}


@case("output-activation", "highest value at once")
def every_class_may_be_high(sick):
    def surprise(truth, guess):
        return -ops.sum(truth * ops.log(guess + 1e-7), axis=-1)

    x = rows()
    y = np.eye(3, dtype="float32")[labels(x)]
    stack = [layers.Dense(16, "relu"), layers.Dense(3, "sigmoid" if sick else "softmax")]
    return dense(*stack, loss=surprise), x, y, {}


@case("metric-disagrees", "nearly right answers")
def accuracy_of_an_amount(sick):
    x = rows()
    return dense(layers.Dense(8, "tanh"), layers.Dense(1), metrics=["accuracy" if sick else "mae"]), x, values(x), {}


@case("metric-disagrees", "nearly right answers")
def accuracy_that_reads_numbers_as_indicators(sick):
    x = rows()
    metric = keras.metrics.CategoricalAccuracy() if sick else keras.metrics.SparseCategoricalAccuracy()
    stack = (layers.Dense(8, "relu"), layers.Dense(3, "softmax"))
    loss = "sparse_categorical_crossentropy"
    return dense(*stack, loss=loss, metrics=[metric]), x, labels(x)[:, None], {}


class Silent(keras.Model):
    """An own step that forgets to say that it trains."""

    def __init__(self, sick):
        super().__init__()
        self.sick = sick
        self.body, self.norm, self.head = layers.Dense(8), layers.BatchNormalization(), layers.Dense(1)

    def call(self, x, training=False):
        return self.head(ops.relu(self.norm(self.body(x), training=training)))

    def train_step(self, data):
        x, y = data
        self.zero_grad()
        loss = ops.mean(ops.square(self(x, training=not self.sick) - y))
        loss.backward()
        self.optimizer.apply([v.value.grad for v in self.trainable_weights], self.trainable_weights)
        return {"loss": loss.detach()}


@case("train-eval-gap", "initial statistics")
def step_that_does_not_say_that_it_trains(sick):
    x = 3 * rows()
    model = Silent(sick)
    model.compile(optimizer=keras.optimizers.Adam(1e-2))
    return model, x, values(x), {}


@case("off-plan", "too few for any settings")
def batches_as_large_as_the_data(sick):
    x = rows(samples=400)
    return (
        dense(layers.Dense(8, "tanh"), layers.Dense(1)),
        x,
        values(x),
        {"epochs": 8, "batch_size": 400 if sick else 20},
    )


@case("output-activation", "takes its logarithm")
def counts_from_a_straight_line(sick):
    x = rows()
    counts = np.random.default_rng(1).poisson(np.exp(x[:, :1])).astype("float32")
    return dense(layers.Dense(1, "linear" if sick else "exponential"), loss=keras.losses.Poisson()), x, counts, {}


@case("output-activation", "hold no label or more than one")
def labels_that_do_not_exclude_each_other(sick):
    x = rows()
    return dense(layers.Dense(3, "softmax" if sick else "sigmoid"), loss="binary_crossentropy"), x, values_above(x), {}


def values_above(x):
    """Three indicators, each by itself."""
    return (x[:, :3] > 0).astype("float32")


@case("loss-broadcast", "all learn the same number")
def one_value_for_four_steps(sick):
    x = rows()
    y = values(x) if sick else np.repeat(values(x), 4, axis=1) * np.array([1, 2, 3, 4], "float32")
    return dense(layers.Dense(4), loss="mae"), x, y, {}


@case("loss-degenerate", "does not depend on column(s) [1]")
def likelihood_without_its_spread(sick):
    x = rows()

    def likelihood(y, p):
        spread = keras.ops.softplus(p[:, 0:1] if sick else p[:, 1:2]) + 0.1
        return keras.ops.mean(keras.ops.log(spread) + keras.ops.square(y - p[:, 0:1]) / (2 * keras.ops.square(spread)))

    return dense(layers.Dense(2), loss=likelihood), x, values(x), {}


@case("loss-broadcast", "spread over all of them")
def weight_column_without_its_axis(sick):
    x = rows()
    y = np.concatenate([values(x), 1 + (x[:, 3:4] > 0)], axis=1).astype("float32")

    def weighed(y, p):
        weight = keras.ops.squeeze(y[:, 1:], -1) if sick else y[:, 1:]
        return keras.ops.mean(weight * keras.ops.abs(y[:, :1] - p))

    return dense(layers.Dense(1), loss=weighed), x, y, {}


@case("over-regularised", "adds noise of deviation")
def noise_larger_than_the_signal(sick):
    x = rows() * 0.1
    return dense(layers.GaussianNoise(0.8 if sick else 0.02), layers.Dense(1)), x, values(10 * x), {}


@case("lr-too-low", "its warm-up is not over")
def cosine_with_a_warmup_in_samples(sick):
    x = rows()
    steps = 160 * 20 if sick else 10
    schedule = keras.optimizers.schedules.CosineDecay(1e-6, 200, warmup_target=1e-2, warmup_steps=steps)
    return (
        dense(layers.Dense(1), optimizer=keras.optimizers.Adam(schedule)),
        x,
        values(x),
        {"epochs": 20, "batch_size": 16},
    )


def windows(samples: int = 160, steps: int = 12) -> Any:
    return np.random.default_rng(1).normal(size=(samples, steps, 1)).astype("float32")


def on_windows(*stack: Any, **compile_: Any) -> Any:
    model = keras.Sequential([keras.Input((12, 1)), *stack])
    model.compile(optimizer="adam", **{"loss": "mse", **compile_})
    return model


@case("under-capacity", "own is added to all steps")
def level_taken_off_for_good(sick):
    level = 2 * np.random.default_rng(2).normal(size=(160, 1, 1)).astype("float32")
    x = level + 0.3 * windows()
    given = keras.Input((12, 1))
    mean = ops.mean(given, axis=1)
    answer = layers.Dense(1)(layers.Flatten()(given - ops.expand_dims(mean, 1)))
    model = keras.Model(given, answer if sick else answer + mean)
    model.compile(loss="mse")
    return model, x, x[:, -1] + 0.3 * windows()[:, 0], {}


@case("under-capacity", "no answer depends on steps 0 to")
def kernels_that_end_too_soon(sick):
    x = windows()
    last = layers.Lambda(lambda h: h[:, -1])
    stack = [layers.Conv1D(6, 2, padding="causal", dilation_rate=1 if sick else 2**i) for i in range(4)]
    return on_windows(*stack, last, layers.Dense(1)), x, x[:, 2] + 0.3 * x[:, -1], {}


@case("data-leak", "every trainable weight at zero")
def shortcut_round_the_code(sick):
    x = rows()
    row = keras.Input((5,))
    again = layers.Dense(5)(layers.Dense(2)(row))
    model = keras.Model(row, layers.Add()([again, row]) if sick else again)
    model.compile(loss="mse")
    return model, x, x, {}


@case("data-leak", "shift the decoder's input")
def forced_without_a_shift(sick):
    past, ahead = windows(), windows(160, 13)[:, 1:]
    before = np.concatenate([past[:, -1:], ahead[:, :-1]], axis=1)
    given = {name: keras.Input((12, 1), name=name) for name in ("past", "fed")}
    state = layers.Dense(4)(layers.Flatten()(given["past"]))
    model = keras.Model(given, layers.Dense(1)(layers.GRU(4, return_sequences=True)(given["fed"], initial_state=state)))
    model.compile(loss="mse")
    return model, {"past": past, "fed": ahead if sick else before}, ahead, {}


@case("batch-coupling", "starts from it the next time")
def state_kept_between_shuffled_batches(sick):
    x = windows()
    series = keras.Input(batch_shape=(32, 12, 1))
    model = keras.Model(series, layers.Dense(1)(layers.GRU(4, stateful=sick, use_cudnn=False)(series)))
    model.compile(loss="mse")
    return model, x, x[:, -1] + x[:, -2], {}


@case("data-volume", "it trains on one batch")
def first_batch_for_ever(sick):
    class Kept(keras.Model):
        kept = None

        def train_step(self, data):
            self.kept = data if self.kept is None or not sick else self.kept
            return super().train_step(self.kept)

    x, row = rows(), keras.Input((5,))
    model = Kept(row, layers.Dense(1)(row))
    model.compile(loss="mse")
    return model, x, values(x), {}


@case("vanishing-gradient", "at every step")
def state_without_a_gradient(sick):
    class Cut(layers.SimpleRNNCell):
        def call(self, sequence, states, training=False):
            kept = [ops.stop_gradient(state) if sick else state for state in states]
            return super().call(sequence, kept, training=training)

    x = windows()
    return on_windows(layers.RNN(Cut(8)), layers.Dense(1)), x, x[:, -1] - 0.5 * x[:, -2], {}


@case("representation-collapse", "nothing that keeps rows apart")
def agreement_alone(sick):
    class Pair(keras.Model):
        def __init__(self):
            super().__init__()
            self.read = layers.Dense(4)

        def call(self, x):
            return self.read(x)

        def train_step(self, data):
            x = keras.utils.unpack_x_y_sample_weight(data)[0]
            self.zero_grad()
            one, two = self.read(x), self.read(x * 0.9)
            floor = 0.0 if sick else ops.mean(ops.relu(1.0 - ops.std(one, axis=0)))
            loss = ops.mean(ops.square(one - two)) + floor
            loss.backward()
            self.optimizer.apply([v.value.grad for v in self.trainable_weights], self.trainable_weights)
            return {"loss": loss}

    model = Pair()
    model.compile(optimizer="adam")
    return model, rows(), None, {}


@case("loss-mismatch", "the loss divides by it")
def percentages_of_nothing(sick):
    x = rows()
    y = np.where(x[:, :1] > 0, 1 + x[:, :1], 0.0).astype("float32")
    return dense(layers.Dense(8, "relu"), layers.Dense(1), loss="mape" if sick else "mae"), x, y, {}


@case("loss-mismatch", "cut off below zero")
def logarithms_of_frost(sick):
    x = rows()
    y = values(x) - 1.5
    return (
        dense(layers.Dense(1, bias_initializer=keras.initializers.Constant(-1.5)), loss="msle" if sick else "mse"),
        x,
        y,
        {},
    )


@case("output-activation", "wants one beyond")
def exponential_before_an_exponential(sick):
    x = rows()
    y = np.random.default_rng(3).poisson(0.3, size=(160, 1)).astype("float32")

    def likelihood(count, log_rate):
        return ops.mean(ops.exp(log_rate) - count * log_rate)

    return dense(layers.Dense(1, "exponential" if sick else None), loss=likelihood), x, y, {}


@case("train-eval-gap", "are the weights of the start")
def average_longer_than_the_run(sick):
    x = rows()
    optimizer = keras.optimizers.Adam(1e-2, use_ema=True, ema_momentum=0.9999 if sick else 0.9)
    return dense(layers.Dense(1), optimizer=optimizer), x, values(x), {"epochs": 20, "batch_size": 16}


@case("lr-too-low", "cuts the rate while the run gets better")
def rate_cut_by_every_success(sick):
    x = rows()
    cut = keras.callbacks.ReduceLROnPlateau("val_loss", mode="max" if sick else "min")
    return dense(layers.Dense(16, "tanh"), layers.Dense(1)), x, values(x), {"callbacks": [cut]}


@case("loss-mismatch", "names exactly one of 4 classes")
def exclusive_classes_asked_one_by_one(sick):
    x = rows()
    y = np.eye(4, dtype="float32")[labels(x, 4)]
    if not sick:
        y[::9, 0] = 1.0  # some rows have two labels: each is a question of its own
    return dense(layers.Dense(4, "sigmoid"), loss="binary_crossentropy"), x, y, {}


@case("output-activation", "no class can be spoken against")
def logits_behind_a_relu(sick):
    x = rows()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return dense(layers.Dense(8, "relu"), layers.Dense(3, "relu" if sick else None), loss=loss), x, labels(x), {}


@case("data-labels", "labels run from -1 to 2")
def one_label_of_many_that_no_unit_stands_for(sick):
    x = rows(2000)
    y = labels(x)
    y[777] = -1
    ignored = None if sick else -1
    return dense(layers.Dense(3, "softmax"), loss=_sparse(ignored)), x, y, {}


def _sparse(ignored):
    return keras.losses.SparseCategoricalCrossentropy(ignore_class=ignored)


@case("metric-disagrees", "it takes them for probabilities")
def hits_counted_beyond_a_half(sick):
    x = rows()
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    hits = keras.metrics.BinaryAccuracy(threshold=0.5 if sick else 0.0)
    return dense(layers.Dense(1), loss=loss, metrics=[hits]), x, labels(x, 2)[:, None], {}


@case("data-labels", "each other's targets")
def two_heads_with_crossed_targets(sick):
    x = rows()
    share, which = 1 / (1 + np.exp(-values(x))), labels(x, 2)[:, None].astype("float32")
    entry = keras.Input((5,))
    hidden = layers.Dense(8, "relu")(entry)
    model = keras.Model(entry, [layers.Dense(1, "sigmoid", name="which")(hidden), layers.Dense(1, name="how")(hidden)])
    model.compile("adam", ["binary_crossentropy", "mse"])
    return model, x, [share, which] if sick else [which, share], {}


class _ClipsItself(keras.Model):
    def __init__(self, threshold):
        super().__init__()
        self.threshold, self.out = threshold, layers.Dense(1)

    def call(self, x):
        return self.out(x)

    def train_step(self, data):
        x, y = data
        self.zero_grad()
        loss = self.compute_loss(x, y, self(x, training=True))
        loss.backward()
        torch.nn.utils.clip_grad_norm_([v.value for v in self.trainable_weights], self.threshold)
        self.optimizer.apply([v.value.grad for v in self.trainable_weights], self.trainable_weights)
        return {"loss": loss.detach()}


@case("clip-saturated", "whatever the batch")
def gradients_cut_in_an_own_step(sick):
    x = rows()
    model = _ClipsItself(1e-4 if sick else 10.0)
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model, x, values(x), {"epochs": 20, "batch_size": 16}


def error_of_nothing(truth, answer):
    return ops.mean(ops.abs(truth - truth))


def error_of_answers(truth, answer):
    return ops.mean(ops.abs(truth - answer))


def size_of_a_rate(truth, answer):
    return 0.003


@case("metric-disagrees", "does not see whether the model is right")
def own_metric_that_hears_no_answer(sick):
    x = rows()
    watched = [error_of_nothing if sick else error_of_answers, size_of_a_rate]
    return dense(layers.Dense(1), metrics=watched), x, values(x), {}


@case("under-capacity", "one number has to tell all classes apart")
def classes_through_one_unit(sick):
    x = rows()
    stack = [layers.Dense(16, "relu"), layers.Dense(1 if sick else 3, "tanh"), layers.Dense(5, "softmax")]
    return dense(*stack, loss="sparse_categorical_crossentropy"), x, labels(x, 5), {}


@case("under-capacity", "the model is a straight line")
def classes_by_planes_alone(sick):
    x = rows(400)
    inside = (np.abs(x[:, 0]) > 0.67).astype("int32")
    bend = None if sick else "relu"
    stack = [layers.Dense(32, bend), layers.Dense(16, bend), layers.Dense(2, "softmax")]
    return dense(*stack, loss="sparse_categorical_crossentropy"), x, inside, {}


@case("input-encoding", "runs along nothing")
def two_channels_for_steps(sick):
    x = np.random.default_rng(0).normal(size=(160, 60, 2)).astype("float32")
    y = x[:, :20, 0].max(axis=1, keepdims=True)
    x = x.transpose(0, 2, 1) if sick else x
    model = keras.Sequential([keras.Input(x.shape[1:]), layers.Conv1D(8, 4, padding="same", activation="relu")])
    model.add(layers.GlobalMaxPooling1D())
    model.add(layers.Dense(1))
    model.compile("adam", "mse")
    return model, x, y, {}


@case("mask-dropped", "has gone through nothing")
def words_read_on_into_padding(sick):
    rng = np.random.default_rng(0)
    ids = rng.integers(1, 30, (160, 24)) * (np.arange(24) < rng.integers(3, 9, (160, 1)))
    y = (ids[:, :1] > 15).astype("float32")
    stack = [layers.Embedding(30, 4, mask_zero=not sick), layers.LSTM(6), layers.Dense(1, "sigmoid")]
    model = keras.Sequential([keras.Input((24,), dtype="int32"), *stack])
    model.compile("adam", "binary_crossentropy")
    return model, ids.astype("int32"), y, {}


@case("metric-disagrees", "EarlyStopping acts by it")
def stopped_by_a_metric_that_sees_nothing(sick):
    x = rows()
    stop = keras.callbacks.EarlyStopping("accuracy" if sick else "mae", mode="auto", patience=2)
    return dense(layers.Dense(1), metrics=["accuracy" if sick else "mae"]), x, values(x), {"callbacks": [stop]}


@case("output-activation", "outside")
def sums_over_time_that_overflow(sick):
    x = np.random.default_rng(0).normal(size=(160, 60, 2)).astype("float32")
    y = 3 * x[:, -5:, :1].mean(axis=1)
    unit = layers.SimpleRNN(8, activation="relu", recurrent_initializer=keras.initializers.Orthogonal(0.7))
    model = keras.Sequential([keras.Input((60, 2)), unit, layers.Dense(1, "tanh" if sick else None)])
    model.compile("adam", "mse")
    return model, x, y, {}


@case("loss-empty-selection", "nothing is selected")
def hardly_ever_a_batch_of_dry_hours(sick):
    x = rows(2400)
    y = np.exp(x[:, :1]) * (np.random.default_rng(1).random((2400, 1)) < 0.25)

    def rain_only(truth, answer):
        wet = ops.cast(truth > 0, "float32")
        return ops.sum(wet * ops.square(truth - answer)) / (ops.sum(wet) if sick else ops.maximum(ops.sum(wet), 1.0))

    fit = {"epochs": 20, "batch_size": 32, "shuffle": True}
    return dense(layers.Dense(8, "relu"), layers.Dense(1, "softplus"), loss=rain_only), x, y.astype("float32"), fit


@case("over-regularised", "resists a change")
def level_that_a_penalty_takes_half_of(sick):
    x = rows()
    held = keras.regularizers.L2(5.0 if sick else 0.01)
    return dense(layers.Dense(1, bias_regularizer=held)), x, values(x) + 4, {}


@case("input-encoding", "put an Embedding before them")
def numbers_of_words_as_amounts(sick):
    ids = np.random.default_rng(0).integers(1, 400, (160, 18)).astype("int32")
    y = (ids[:, :1] > 200).astype("float32")
    first = layers.Reshape((18, 1)) if sick else layers.Embedding(400, 6)
    stack = [keras.Input((18,), dtype="int32"), first, layers.LSTM(8), layers.Dense(1, "sigmoid")]
    model = keras.Sequential(stack)
    model.compile("adam", "binary_crossentropy")
    return model, ids, y, {}


def sequences(steps: int, samples: int = 120) -> Any:
    x = np.random.default_rng(0).normal(size=(samples, steps, 2)).astype("float32")
    return x, (0.3 * x[..., :1].sum(1)).astype("float32")


@case("vanishing-gradient", "fades")
def eight_gated_storeys(sick):
    x, y = sequences(6)
    given = keras.Input((6, 2))
    h = layers.LSTM(12, return_sequences=True)(given)
    for _ in range(7):
        storey = layers.LSTM(12, return_sequences=True)(h)
        h = storey if sick else layers.Add()([h, storey])
    model = keras.Model(given, layers.Dense(1)(h[:, -1]))
    model.compile("adam", "mse")
    return model, x, y, {}


@case("exploding-gradient", "grows by")
def state_that_grows_by_half_at_each_step(sick):
    x, y = sequences(22)
    start = keras.initializers.Identity(gain=1.5 if sick else 1.0)
    stack = [layers.SimpleRNN(16, activation="relu", recurrent_initializer=start), layers.Dense(1)]
    model = keras.Sequential([keras.Input((22, 2)), *stack])
    model.compile(keras.optimizers.Adam(1e-4), "mse")
    return model, x, y, {}


@case("dead-units", "zero for every sample")
def kernels_below_zero_for_amounts_above_it(sick):
    x = np.random.default_rng(0).gamma(1.0, 1.0, (160, 5)).astype("float32")
    drawn = keras.initializers.RandomUniform(-0.3, 0.0 if sick else 0.3, seed=1)
    return dense(layers.Dense(16, "relu", kernel_initializer=drawn), layers.Dense(1)), x, values(x), {}


@case("batch-coupling", "from batch to batch")
def normalised_by_pairs(sick):
    x = rows()
    stack = (layers.Dense(16), layers.BatchNormalization(), layers.ReLU(), layers.Dense(1))
    return dense(*stack), x, values(x), {"batch_size": 2 if sick else 8}


@case("output-activation", "expected over the classes (axis 1)")
def classes_before_time(sick):
    x = np.random.default_rng(0).normal(size=(96, 12, 3)).astype("float32")
    y = x.argmax(-1).astype("int32")

    def own(truth, share):
        chosen = ops.one_hot(truth, 3, axis=1)
        return -ops.mean(ops.sum(chosen * ops.log(share + 1e-7), axis=1))

    stack = [layers.Conv1D(3, 3, padding="same"), layers.Permute((2, 1)), layers.Softmax(axis=-1 if sick else 1)]
    model = keras.Sequential([keras.Input((12, 3)), *stack])
    model.compile("adam", own)
    return model, x, y, {}


@case("over-regularised", "resists a change")
def own_penalty_on_the_biases_alone(sick):
    x = rows()

    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.line = layers.Dense(1)

        def call(self, x):
            return self.line(x)

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            loss = ops.mean(ops.square(y - y_pred))
            for weight in self.trainable_variables:
                if (weight.name == "bias") == sick:
                    loss = loss + 0.1 * ops.sum(ops.square(weight))
            return loss

    model = Own()
    model.compile("adam")
    return model, x, values(x) + 30, {}


@case("over-regularised", "times as hard as the task")
def own_penalty_on_all_kernels(sick):
    x = rows()

    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden, self.line = layers.Dense(24, "relu"), layers.Dense(1)

        def call(self, x):
            return self.line(self.hidden(x))

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            size = sum(ops.sum(ops.square(weight)) for weight in self.trainable_variables if weight.name == "kernel")
            return ops.mean(ops.square(y - y_pred)) + (30.0 if sick else 1e-3) * size

    model = Own()
    model.compile("adam")
    return model, x, values(x), {}


@case("over-regularised", "times as hard as the task")
def own_step_with_a_penalty_on_sizes(sick):
    x = rows()

    class Own(keras.Model):
        def train_step(self, data):
            x, y = data
            size = sum(weight.value.abs().sum() for weight in self.trainable_variables)
            loss = ops.mean(ops.square(y - self(x, training=True))) + (20.0 if sick else 1e-4) * size
            self.zero_grad()
            loss.backward()
            self.optimizer.apply([v.value.grad for v in self.trainable_variables], self.trainable_variables)
            return {"loss": loss}

    inputs = keras.Input(x.shape[1:])
    model = Own(inputs, layers.Dense(1)(layers.Dense(24, "relu")(inputs)))
    model.compile("adam")
    return model, x, values(x), {}


@case("nonfinite-forward", "not finite before the first step")
def weights_that_come_with_a_nan(sick):
    x = rows()
    model = dense(layers.Dense(16, "relu"), layers.Dense(1))
    model.build((None, *x.shape[1:]))
    kernel, *others = model.get_weights()
    kernel[0, 0] = np.nan if sick else 0.0
    model.set_weights([kernel, *others])
    return model, x, values(x), {}


class ByHand(layers.Layer):
    """Attention over the steps, its exponentials taken as they are."""

    def build(self, shape):
        self.score = layers.Dense(1)
        self.score.build(shape)

    def call(self, x):
        weight = ops.exp(self.score(x))
        return ops.sum(x * weight / ops.sum(weight, axis=1, keepdims=True), axis=1)


@case("data-scale", "starts at nan")
def exponentials_of_raw_amounts(sick):
    x, y = sequences(12)
    model = keras.Sequential([keras.Input(x.shape[1:]), ByHand(), layers.Dense(1)])
    model.compile("adam", "mse")
    return model, x * (200 if sick else 1), y, {}


@case("output-activation", "expected over the classes (axis 1)")
def bins_before_hours(sick):
    x = np.random.default_rng(0).normal(size=(96, 12)).astype("float32")
    bins = np.digitize(x[:, :6], [-0.8, -0.2, 0.4, 1.0])
    y = np.eye(5, dtype="float32")[bins].transpose(0, 2, 1)

    def surprise(truth, share):
        return -ops.mean(ops.sum(truth * ops.log(share + 1e-7), axis=1))

    stack = [layers.Dense(30), layers.Reshape((5, 6)), layers.Softmax(axis=-1 if sick else 1)]
    model = keras.Sequential([keras.Input((12,)), *stack])
    model.compile("adam", surprise)
    return model, x, y, {}


@case("clip-saturated", "something before it cuts them")
def gradients_cut_entry_by_entry(sick):
    x = rows(320)

    class Own(keras.Model):
        def train_step(self, data):
            x, y = data
            self.zero_grad()
            loss = self.compute_loss(x, y, self(x, training=True))
            loss.backward()
            torch.nn.utils.clip_grad_value_(self.parameters(), 5e-5 if sick else 10.0)
            with torch.no_grad():
                self.optimizer.apply([v.value.grad for v in self.trainable_variables], self.trainable_variables)
            return {"loss": loss}

    inputs = keras.Input((5,))
    model = Own(inputs, layers.Dense(1)(layers.Dense(24, "relu")(inputs)))
    model.compile(keras.optimizers.SGD(0.03, momentum=0.9), "mse")
    return model, x, 3 * values(x), {"epochs": 8}


@case("loss-broadcast", "answers that equal the targets cost")
def steps_against_other_windows(sick):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(128, 32, 2)).astype("float32")
    y = (x[..., 0] - 0.6 * x[..., 1] - 0.8 + 0.2 * rng.normal(size=(128, 32))).astype("float32")

    class Trimmed(keras.losses.Loss):
        def call(self, truth, guess):
            guess = guess if sick else ops.squeeze(guess, -1)
            return ops.mean(ops.abs(truth - guess), axis=-1)

    model = keras.Sequential([keras.Input((32, 2)), layers.Conv1D(8, 3, padding="same"), layers.Dense(1)])
    model.compile("adam", Trimmed())
    return model, x, y, {"batch_size": 32}


class Endpoint(layers.Layer):
    """Compares the answer with a truth that came in as an input."""

    def call(self, truth, answer):
        self.add_loss(ops.mean(ops.square(truth - answer)))
        return answer


@case("loss-broadcast", "a table of 32 by 32")
def truth_that_enters_without_its_axis(sick):
    x = rows()
    row, truth = keras.Input((5,), name="row"), keras.Input(() if sick else (1,), name="truth")
    answer = Endpoint()(truth, layers.Dense(1)(layers.Dense(8, "relu")(row)))
    model = keras.Model({"row": row, "truth": truth}, answer)
    model.compile("adam")
    return model, {"row": x, "truth": values(x)[:, 0] if sick else values(x)}, None, {}


@case("loss-mismatch", "reads that one as a class number")
def indicators_read_as_a_number(sick):
    x = rows()

    class Focal(keras.losses.Loss):
        def call(self, truth, share):
            picked = ops.one_hot(ops.cast(truth[:, 0], "int32"), share.shape[-1])
            chance = ops.clip(ops.sum(picked * share, axis=-1), 1e-6, 1.0)
            return -ops.square(1 - chance) * ops.log(chance)

    y = labels(x, 5)
    given = np.eye(5, dtype="float32")[y] if sick else y[:, None]
    return dense(layers.Dense(8, "relu"), layers.Dense(5, "softmax"), loss=Focal()), x, given, {}


@case("precision-overflow", "epsilon")
def weights_kept_in_half(sick):
    x = rows()
    kind = "float16" if sick else "float32"
    stack = (layers.Dense(16, "relu", dtype=kind), layers.Dense(1, dtype=kind))
    return dense(*stack, optimizer=keras.optimizers.Adam(3e-3, epsilon=1e-8)), x, values(x), {}


@case("transfer-nothing", "rows are the same")
def table_that_was_never_filled(sick):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 30, (160, 8)).astype("int32")
    known = rng.normal(size=(30, 6)) * (0.0 if sick else 1.0)
    table = layers.Embedding(30, 6, embeddings_initializer=keras.initializers.Constant(known), trainable=False)
    stack = [table, layers.GlobalAveragePooling1D(), layers.Dense(8, "tanh"), layers.Dense(1)]
    model = keras.Sequential([keras.Input((8,), dtype="int32"), *stack])
    model.compile("adam", "mse")
    return model, x, known[x].mean(1)[:, :1].astype("float32") + 0.1 * rng.normal(size=(160, 1)).astype("float32"), {}


@case("untracked-parameters", "take part in the loss and do not move")
def torch_optimizer_made_before_the_layers(sick):
    x = rows()

    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden, self.line = layers.Dense(16, "relu"), layers.Dense(1)
            self.line.build((None, 16))

        def call(self, x):
            return self.line(self.hidden(x))

        def train_step(self, data):
            x, y = data
            loss = self.compute_loss(x, y, self(x, training=True))
            self.steps.zero_grad()
            loss.backward()
            self.steps.step()
            return {"loss": loss.detach()}

    model = Own()
    model.compile(loss="mse")
    if not sick:
        model(x[:1])
    model.steps = torch.optim.Adam([v.value for v in model.trainable_variables], lr=4e-3)
    return model, x, values(x), {}


@case("loss-mismatch", "Use a loss for classes")
def squared_error_on_the_shares_of_many_classes(sick):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 60, (640, 6)).astype("int32")
    y = np.eye(60, dtype="float32")[rng.permutation(60)[x[:, -1]]]
    stack = [layers.Embedding(60, 16), layers.Flatten(), layers.Dense(32, "relu"), layers.Dense(60, "softmax")]
    model = keras.Sequential([keras.Input((6,), dtype="int32"), *stack])
    model.compile(keras.optimizers.SGD(0.1), "mse" if sick else "categorical_crossentropy")
    return model, x, y, {"epochs": 10}
