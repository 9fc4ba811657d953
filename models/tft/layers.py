"""The blocks of a Temporal Fusion Transformer, after the paper's equations (Lim et al., 2021)."""

from typing import Any

import keras
from keras import ops

from models.common import lowest

_register = keras.saving.register_keras_serializable(package="tft")


@_register
class GatedLinearUnit(keras.layers.Layer):
    """`sigmoid(W4 x + b4) ⊙ (W5 x + b5)`: a layer that can close itself."""

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.value = keras.layers.Dense(units, name="value")
        self.gate = keras.layers.Dense(units, activation="sigmoid", name="gate")

    def build(self, input_shape):
        self.value.build(input_shape)
        self.gate.build(input_shape)

    def call(self, x):
        return self.value(x) * self.gate(x)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@_register
class GateAddNorm(keras.layers.Layer):
    """`LayerNorm(skip + GLU(dropout(x)))`: how every block of the network may be passed by."""

    def __init__(self, units: int, dropout: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units, self.rate = units, dropout
        self.dropout = keras.layers.Dropout(dropout, name="dropout")
        self.glu = GatedLinearUnit(units, name="glu")
        self.norm = keras.layers.LayerNormalization(name="norm")

    def build(self, x_shape, skip_shape=None):
        self.glu.build(x_shape)
        self.norm.build((*x_shape[:-1], self.units))

    def call(self, x, skip, training=None):
        return self.norm(skip + self.glu(self.dropout(x, training=training)))

    def compute_output_shape(self, x_shape, skip_shape=None):
        return (*x_shape[:-1], self.units)

    def get_config(self):
        return {**super().get_config(), "units": self.units, "dropout": self.rate}


@_register
class GatedResidualNetwork(keras.layers.Layer):
    """`LayerNorm(skip(x) + GLU(W1 ELU(W2 x + W3 c + b2) + b1))`, with an optional context c that holds for all
    steps."""

    def __init__(self, units: int, output_units: int | None = None, dropout: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units, self.output_units, self.rate = units, output_units or units, dropout
        self.hidden = keras.layers.Dense(units, name="hidden")
        self.linear = keras.layers.Dense(units, name="linear")
        self.gate = GateAddNorm(self.output_units, dropout, name="gate")

    def build(self, x_shape, context_shape=None):
        inner = (*x_shape[:-1], self.units)
        self.hidden.build(x_shape)
        # A layer that is never built keeps the model unbuilt, and Keras traces it anew at every train_on_batch.
        if context_shape is not None:
            self.context = keras.layers.Dense(self.units, use_bias=False, name="context")
            self.context.build(context_shape)
        self.linear.build(inner)
        if x_shape[-1] != self.output_units:
            self.skip = keras.layers.Dense(self.output_units, name="skip")
            self.skip.build(x_shape)
        self.gate.build(inner, (*x_shape[:-1], self.output_units))

    def call(self, x, context=None, training=None):
        hidden = self.hidden(x)
        if context is not None:
            shift = self.context(context)
            for _ in range(len(x.shape) - len(shift.shape)):
                shift = ops.expand_dims(shift, 1)
            hidden = hidden + shift
        skip = x if x.shape[-1] == self.output_units else self.skip(x)
        return self.gate(self.linear(ops.elu(hidden)), skip, training=training)

    def compute_output_shape(self, x_shape, context_shape=None):
        return (*x_shape[:-1], self.output_units)

    def get_config(self):
        own = {"units": self.units, "output_units": self.output_units, "dropout": self.rate}
        return {**super().get_config(), **own}


@_register
class VariableSelection(keras.layers.Layer):
    """Each scalar variable gets an embedding and a network of its own; a softmax decides how much of each is used.

    Returns the combination `(…, units)` and the selection weights `(…, variables)`, which sum to one.
    """

    def __init__(self, units: int, dropout: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units, self.rate = units, dropout

    def build(self, x_shape, context_shape=None):
        leading, variables = tuple(x_shape[:-1]), x_shape[-1]
        names = [f"variable_{i}" for i in range(variables)]
        self.embeddings = [keras.layers.Dense(self.units, name=f"embed_{name}") for name in names]
        self.networks = [GatedResidualNetwork(self.units, dropout=self.rate, name=name) for name in names]
        # One variable leaves nothing to choose: a softmax of one has no gradient.
        self.chooser = GatedResidualNetwork(self.units, variables, self.rate, name="chooser") if variables > 1 else None
        for embedding, network in zip(self.embeddings, self.networks, strict=True):
            embedding.build((*leading, 1))
            network.build((*leading, self.units))
        if self.chooser is not None:
            self.chooser.build((*leading, self.units * variables), context_shape)

    def call(self, x, context=None, training=None):
        embedded = [layer(x[..., i : i + 1]) for i, layer in enumerate(self.embeddings)]
        if self.chooser is None:
            weights = ops.ones_like(x)
        else:
            scores = self.chooser(ops.concatenate(embedded, axis=-1), context, training=training)
            weights = ops.softmax(scores, axis=-1)
        passed = [network(e, training=training) for network, e in zip(self.networks, embedded, strict=True)]
        combined = ops.sum(ops.stack(passed, axis=-1) * ops.expand_dims(weights, -2), axis=-1)
        return combined, weights

    def compute_output_shape(self, x_shape, context_shape=None):
        return (*x_shape[:-1], self.units), tuple(x_shape)

    def get_config(self):
        return {**super().get_config(), "units": self.units, "dropout": self.rate}


@_register
class InterpretableAttention(keras.layers.Layer):
    """Multi-head attention whose heads share the value projection, so that the mean of their weights *is* the
    attention.

    Queries are the last steps of the keys' time axis. A query sees a key that is not later than itself and that `mask`
    marks as valid. Returns the output and the weights `(batch, queries, keys)`, the mean over the heads before dropout.
    """

    def __init__(self, units: int, num_heads: int, dropout: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if units % num_heads:
            raise ValueError(f"units must be a multiple of num_heads; received units={units}, num_heads={num_heads}.")
        self.units, self.num_heads, self.rate = units, num_heads, dropout
        self.size = units // num_heads
        self.query = keras.layers.EinsumDense("btd,dhe->bhte", (num_heads, None, self.size), name="query")
        self.key = keras.layers.EinsumDense("btd,dhe->bhte", (num_heads, None, self.size), name="key")
        self.value = keras.layers.Dense(self.size, use_bias=False, name="value")
        self.output_dense = keras.layers.Dense(units, use_bias=False, name="output")
        self.dropout = keras.layers.Dropout(dropout, name="dropout")

    def build(self, query_shape, key_shape, mask_shape=None):
        self.query.build(query_shape)
        self.key.build(key_shape)
        self.value.build(key_shape)
        self.output_dense.build((*query_shape[:-1], self.size))

    def call(self, query, key, mask, training=None):
        scores = ops.einsum("bhqe,bhke->bhqk", self.query(query) / self.size**0.5, self.key(key))
        num_queries, num_keys = ops.shape(query)[1], ops.shape(key)[1]
        when = ops.arange(num_keys)
        not_later = ops.expand_dims(when, 0) <= ops.expand_dims(when[-num_queries:], 1)
        allowed = ops.logical_and(not_later[None, None], ops.cast(mask, "bool")[:, None, None, :])
        weights = ops.softmax(ops.where(allowed, scores, ops.full_like(scores, lowest(scores.dtype))), axis=-1)
        # A row without one allowed key would be spread evenly over forbidden ones.
        weights = ops.mean(ops.where(allowed, weights, ops.zeros_like(weights)), axis=1)
        attended = ops.matmul(self.dropout(weights, training=training), self.value(key))
        return self.output_dense(attended), weights

    def compute_output_shape(self, query_shape, key_shape, mask_shape=None):
        return (*query_shape[:-1], self.units), (query_shape[0], query_shape[1], key_shape[1])

    def get_config(self):
        own = {"units": self.units, "num_heads": self.num_heads, "dropout": self.rate}
        return {**super().get_config(), **own}


@_register
class NeutralPadding(keras.layers.Layer):
    """Sets padded steps to zero by selection, not multiplication: `0 · NaN` would be NaN, here and in every
    gradient."""

    def call(self, values, mask):
        return ops.where(ops.expand_dims(ops.cast(mask, "bool"), -1), values, ops.zeros_like(values))

    def compute_output_shape(self, values_shape, mask_shape=None):
        return values_shape


@_register
class LastValue(keras.layers.Layer):
    """The last valid step, (batch, 1, variables); zero for a row without one."""

    def call(self, values, mask):
        count = ops.cumsum(ops.cast(mask, "int32"), axis=1)
        newest = ops.logical_and(ops.cast(mask, "bool"), count == count[:, -1:])
        return ops.sum(ops.where(ops.expand_dims(newest, -1), values, ops.zeros_like(values)), axis=1, keepdims=True)

    def compute_output_shape(self, values_shape, mask_shape=None):
        return (values_shape[0], 1, values_shape[2])


@_register
class HorizonPosition(keras.layers.Layer):
    """The one covariate that is always known: how far ahead a step lies, from 1/horizon to 1."""

    def __init__(self, horizon: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.horizon = horizon

    def call(self, values):
        steps = ops.cast(ops.arange(1, self.horizon + 1) / self.horizon, self.compute_dtype)
        return ops.broadcast_to(steps[None, :, None], (ops.shape(values)[0], self.horizon, 1))

    def compute_output_shape(self, values_shape):
        return (values_shape[0], self.horizon, 1)

    def get_config(self):
        return {**super().get_config(), "horizon": self.horizon}
