"""The two state spaces: S5, whose steps are real time (Smith et al., 2023), and Mamba, whose steps are chosen (Gu &
Dao, 2023).

Both hold their state where a step is padding: Δ = 0 gives Ā = 1 and B̄ = 0 under zero-order hold. Both run in at least
float32 under any policy.
"""

import math
import random
from typing import Any

import keras
import numpy as np
from keras import ops

from models.precise import at_least_float32
from models.ss4rec.scan import linear_scan, multiply

# Re Λ stays below −MIN_DECAY whatever the optimizer does: exp(Re Λ · Δ) never exceeds 1, and 1/Λ never exceeds 10⁴.
MIN_DECAY = 1e-4
# Steps start between these, so that the memories of a fresh layer spread over two decades of time.
STEP_RANGE = (1e-3, 1e-1)
# Mamba's initial Δ is not allowed below this: a channel with Δ = 0 would never see its input.
STEP_FLOOR = 1e-4

_register = keras.saving.register_keras_serializable(package="ss4rec")


def hippo(state: int) -> tuple[np.ndarray, np.ndarray]:
    """HiPPO-N diagonalised: the eigenvalues with positive imaginary part, and their eigenvectors `(state, state / 2)`.

    HiPPO-LegS plus its rank-one term is −½ I plus a skew-symmetric matrix, so every real part is −½.
    """
    if state % 2:
        raise ValueError(f"state must be even, for conjugate pairs; received {state}.")
    n = np.arange(state)
    root = np.sqrt(2 * n + 1)
    legs = -np.where(n[:, None] > n, root[:, None] * root, np.diag(n + 1.0))
    rank_one = np.sqrt(n + 0.5)
    normal = legs + rank_one[:, None] * rank_one
    skew = normal + 0.5 * np.eye(state)
    frequency, vectors = np.linalg.eigh(-1j * skew)
    keep = frequency > 0
    return -0.5 + 1j * frequency[keep], vectors[:, keep]


def discretise(decay, frequency, step):
    """Zero-order hold of Λ = −decay + i·frequency over `step`: Ā = exp(z) and (exp(z) − 1)/Λ with z = Λ·step, as pairs.

    exp(z) − 1 is written with expm1 and sin², because the difference cancels for small z: in float32 nothing of it is
    left at |z| = 1e-8.
    """
    real, angle = -decay * step, frequency * step
    size, shrink = ops.exp(real), ops.expm1(real)
    cosine, sine = ops.cos(angle), ops.sin(angle)
    half = ops.sin(angle / 2)
    grown = (shrink * cosine - 2 * half * half, size * sine)
    norm = decay * decay + frequency * frequency
    return (size * cosine, size * sine), multiply(grown, (-decay / norm, -frequency / norm))


@_register
class S5(keras.layers.Layer):
    """`x' = Λ x + B u`, `y = 2 Re(C x) + D u`, sampled at irregular times: `call(u, steps)` with steps ≥ 0 in units of
    time.

    The input of a step acts from that step on for `steps`; the output is read at its end. A step of zero changes
    nothing.
    """

    def __init__(self, state: int = 32, method: str = "auto", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.state, self.method = state, method

    def build(self, u_shape, steps_shape=None):
        units, pairs = u_shape[-1], self.state // 2
        poles, vectors = hippo(self.state)

        def add(name, shape, initializer):
            dtype = at_least_float32(self.variable_dtype)
            return self.add_weight(shape=shape, initializer=initializer, dtype=dtype, autocast=False, name=name)

        inverse_softplus = math.log(math.expm1(0.5 - MIN_DECAY))
        self.raw_decay = add("raw_decay", (pairs,), keras.initializers.Constant(inverse_softplus))
        self.frequency = add("frequency", (pairs,), _given(poles.imag))
        self.log_step = add("log_step", (pairs,), keras.initializers.RandomUniform(*map(math.log, STEP_RANGE)))
        into, out = Projected(vectors.conj(), units), Projected(vectors, self.state, transpose=True)
        self.b_real = add("b_real", (units, pairs), into)
        self.b_imaginary = add("b_imaginary", (units, pairs), into.imaginary())
        self.c_real = add("c_real", (pairs, units), out)
        self.c_imaginary = add("c_imaginary", (pairs, units), out.imaginary())
        self.d = add("d", (units,), keras.initializers.RandomNormal(stddev=1.0))

    @property
    def decay(self):
        """−Re Λ: above zero by construction."""
        return MIN_DECAY + ops.softplus(self.raw_decay)

    def states(self, u, steps):
        """The complex states `(batch, time, pairs)` after every step, as a pair of real arrays."""
        steps = ops.expand_dims(ops.cast(steps, self.log_step.dtype), -1) * ops.exp(self.log_step)
        a, hold = discretise(self.decay, self.frequency, steps)
        driven = (ops.matmul(u, self.b_real), ops.matmul(u, self.b_imaginary))
        return linear_scan(a, multiply(hold, driven), self.method)

    def call(self, u, steps):
        wide = ops.cast(u, self.log_step.dtype)
        real, imaginary = self.states(wide, steps)
        y = 2 * (ops.matmul(real, self.c_real) - ops.matmul(imaginary, self.c_imaginary)) + self.d * wide
        return ops.cast(y, u.dtype)

    def compute_output_shape(self, u_shape, steps_shape=None):
        return u_shape

    def get_config(self):
        return {**super().get_config(), "state": self.state, "method": self.method}


@_register
class Mamba(keras.layers.Layer):
    """A selective state space: Δ, B and C depend on the input; A = −exp(A_log), so the state always decays."""

    def __init__(
        self,
        state: int = 32,
        width: int = 4,
        expand: int = 2,
        rank: int | None = None,
        method: str = "auto",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.state, self.width, self.expand, self.rank, self.method = state, width, expand, rank, method

    def build(self, u_shape, mask_shape=None):
        units = u_shape[-1]
        self.inner = self.expand * units
        self.used_rank = self.rank or math.ceil(units / 16)
        wide = {"dtype": at_least_float32(self.variable_dtype), "autocast": False}
        self.kernel_in = self.add_weight(shape=(units, 2 * self.inner), name="kernel_in")
        fan_in = keras.initializers.RandomUniform(-1 / math.sqrt(self.width), 1 / math.sqrt(self.width))
        self.kernel_conv = self.add_weight(shape=(self.width, self.inner), initializer=fan_in, name="kernel_conv")
        self.bias_conv = self.add_weight(shape=(self.inner,), initializer="zeros", name="bias_conv")
        self.kernel_select = self.add_weight(shape=(self.inner, self.used_rank + 2 * self.state), name="kernel_select")
        spread = keras.initializers.RandomUniform(-(self.used_rank**-0.5), self.used_rank**-0.5)
        self.kernel_step = self.add_weight((self.used_rank, self.inner), spread, name="kernel_step", **wide)
        self.bias_step = self.add_weight((self.inner,), StepBias(), name="bias_step", **wide)
        orders = np.tile(np.log(np.arange(1, self.state + 1.0)), (self.inner, 1))
        self.a_log = self.add_weight((self.inner, self.state), _given(orders), name="a_log", **wide)
        self.d = self.add_weight((self.inner,), "ones", name="d", **wide)
        self.kernel_out = self.add_weight(shape=(self.inner, units), name="kernel_out")

    def call(self, u, mask=None):
        valid = None if mask is None else ops.expand_dims(ops.cast(mask, "bool"), -1)
        x, gate = ops.split(ops.matmul(u, self.kernel_in), 2, axis=-1)
        x = ops.silu(self.convolve(_keep(x, valid)))
        y = self.select(x, valid)
        return ops.matmul(ops.cast(y, u.dtype) * ops.silu(gate), self.kernel_out)

    def convolve(self, x):
        """Depthwise and causal: the last `width` steps, zeros before the first."""
        length = x.shape[1]
        padded = ops.pad(x, [[0, 0], [self.width - 1, 0], [0, 0]])
        return sum(padded[:, i : i + length] * self.kernel_conv[i] for i in range(self.width)) + self.bias_conv

    def select(self, x, valid=None):
        """The selective scan: `h = exp(Δ A) h + Δ B x`, `y = C h + D x`; padded steps have Δ = 0."""
        chosen = ops.cast(ops.matmul(x, self.kernel_select), self.a_log.dtype)
        x = ops.cast(x, self.a_log.dtype)
        low_rank = chosen[..., : self.used_rank]
        b, c = ops.split(chosen[..., self.used_rank :], 2, axis=-1)
        step = _keep(ops.softplus(ops.matmul(low_rank, self.kernel_step) + self.bias_step), valid)
        a = ops.exp(-ops.expand_dims(step, -1) * ops.exp(self.a_log))
        driven = ops.expand_dims(step * x, -1) * ops.expand_dims(b, 2)
        (h,) = linear_scan((a,), (driven,), self.method)
        return ops.sum(h * ops.expand_dims(c, 2), axis=-1) + self.d * x

    def compute_output_shape(self, u_shape, mask_shape=None):
        return u_shape

    def get_config(self):
        own = {
            "state": self.state,
            "width": self.width,
            "expand": self.expand,
            "rank": self.rank,
            "method": self.method,
        }
        return {**super().get_config(), **own}


@_register
class StepBias(keras.initializers.Initializer):
    """The bias whose softplus is uniform in the logarithm over STEP_RANGE, and not below STEP_FLOOR."""

    def __call__(self, shape, dtype=None):
        low, high = map(math.log, STEP_RANGE)
        step = ops.exp(keras.random.uniform(shape, low, high, dtype=dtype))
        return ops.log(ops.expm1(ops.maximum(step, STEP_FLOOR)))


class Projected(keras.initializers.Initializer):
    """One part of a real random matrix brought into the eigenbasis: Vᴴ B, or C V when transposed."""

    def __init__(self, vectors, fan_in, *, transpose=False, part="real", seed=None) -> None:
        self.vectors, self.fan_in, self.transpose, self.part = vectors, fan_in, transpose, part
        # Both parts must come from the same real matrix. Keras takes its default seeds from `random`, too.
        self.seed = random.randint(0, 2**31 - 1) if seed is None else seed

    def imaginary(self) -> "Projected":
        return Projected(self.vectors, self.fan_in, transpose=self.transpose, part="imaginary", seed=self.seed)

    def __call__(self, shape, dtype=None):
        units = shape[1] if self.transpose else shape[0]
        real = keras.random.normal(
            (units, self.vectors.shape[0]), stddev=self.fan_in**-0.5, dtype=dtype, seed=self.seed
        )
        basis = self.vectors.real if self.part == "real" else self.vectors.imag
        matrix = ops.matmul(real, ops.convert_to_tensor(basis, dtype=dtype))
        return ops.cast(ops.transpose(matrix) if self.transpose else matrix, dtype)


@_register
class TimeSteps(keras.layers.Layer):
    """How long each event acts, in units of `unit` seconds: until the next event, the last one for `wait`.

    Padding acts for 0. Times must arrive as integers: in float32 epoch seconds are multiples of 64 or 128, and most
    differences vanish. They are subtracted as integers and only then cast; selections come after that, for `ops.where`
    of two int64 gives int32. An event earlier than its predecessor counts as simultaneous.
    """

    def __init__(self, unit: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.unit = unit

    def call(self, timestamps, wait, mask):
        dtype = at_least_float32(self.compute_dtype)
        mask = ops.cast(mask, "bool")
        gaps = ops.pad(ops.cast(timestamps[:, 1:] - timestamps[:, :-1], dtype), [[0, 0], [0, 1]])
        followed = ops.pad(mask[:, 1:], [[0, 0], [0, 1]])
        elapsed = ops.where(followed, gaps, ops.cast(wait, dtype))
        return _keep(ops.relu(elapsed) / self.unit, mask)

    def compute_output_spec(self, timestamps, wait, mask):
        return keras.KerasTensor(timestamps.shape, at_least_float32(self.compute_dtype))

    def get_config(self):
        return {**super().get_config(), "unit": self.unit}


def _keep(x, valid):
    return x if valid is None else ops.where(valid, x, ops.zeros_like(x))


def _given(values):
    return lambda shape, dtype=None: ops.convert_to_tensor(values, dtype=dtype)
