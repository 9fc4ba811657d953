"""A leak of 1e-3 at outputs of 1e3 is caught in float32; another order of summation is not called a leak."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, ops

from fixtures.padding.zoo import masks, values
from tsguard import laws
from tsguard.laws import tolerance
from tsguard.padding import Padding


class Offset(layers.Layer):
    """A masked mean on top of a thousand, with a share of the mean over everything."""

    def __init__(self, share, **kwargs):
        super().__init__(**kwargs)
        self.share = share

    def call(self, x, m):
        w = m[..., None]
        kept = ops.where(w > 0, x, 0.0)
        mean = ops.sum(kept, axis=1) / ops.maximum(ops.sum(w, axis=1), 1.0)
        return 1e3 + mean + self.share * ops.mean(ops.tanh(x), axis=1)


def offset_model(share):
    x, m = keras.Input((None, 3), name="values"), keras.Input((None,), name="mask")
    return keras.Model({"values": x, "mask": m}, Offset(share, name="offset")(x, m))


def codes(results):
    return {row.code for row in results if row.outcome == "broken"}


def test_a_leak_of_a_thousandth_at_a_thousand_is_caught():
    told = Padding({"values": 1}, mask="mask", outputs=None)
    results = laws.run(offset_model(2e-3), {"x": {"values": values(), "mask": masks()}}, told, only=["pad-leak-value"])
    found = next(row.counterexample for row in results if row.counterexample)
    assert found.moved <= 2.1e-3
    assert found.layer == "offset"
    healthy = laws.run(offset_model(0.0), {"x": {"values": values(), "mask": masks()}}, told, only=["pad-leak-value"])
    assert not codes(healthy)


def attention_of_any_width(blocks, width):
    """Attention whose keys grow with the padding: the same sum, in another order for each width."""
    x, m = keras.Input((None, 3), name="values"), keras.Input((None,), name="mask")
    keep = ops.cast(m, "bool")
    h = layers.Dense(width)(ops.where(m[..., None] > 0, x, 0.0))
    for _ in range(blocks):
        pairs = ops.logical_and(keep[:, None, :], ops.ones_like(keep)[:, :, None])
        seen = layers.MultiHeadAttention(4, width // 4)(h, h, attention_mask=pairs)
        h = layers.LayerNormalization()(layers.Add()([h, seen]))
        h = layers.LayerNormalization()(layers.Add()([h, layers.Dense(width, activation="gelu")(h)]))
    return keras.Model({"values": x, "mask": m}, layers.Dense(1)(h))


@pytest.mark.parametrize(("blocks", "width"), [(1, 8), (3, 32)])
def test_attention_whose_width_changes_with_padding_is_no_leak(blocks, width):
    keras.utils.set_random_seed(2)
    model = attention_of_any_width(blocks, width)
    told = Padding({"values": 1}, mask="mask")
    results = laws.run(model, {"x": {"values": values(), "mask": masks()}}, told, only=["pad-length", "pad-leak-value"])
    assert {row.outcome for row in results} <= {"holds", "not-applicable"}
    assert any(row.outcome == "holds" for row in results)


def test_an_output_that_is_a_small_difference_of_large_numbers_rounds_like_the_large_ones():
    x, m = keras.Input((None, 3), name="values"), keras.Input((None,), name="mask")
    felt = layers.Conv1D(64, 3, padding="same", use_bias=False)(x * m[..., None])
    summed = layers.Dense(1, use_bias=False)(ops.sum(felt * m[..., None], axis=1))
    head = layers.Dense(1, kernel_initializer="ones", name="head")
    model = keras.Model({"values": x, "mask": m}, head(summed))
    data = {"values": values(), "mask": np.ones_like(masks())}
    alone = {name: leaf[:1] for name, leaf in data.items()}
    head.bias.assign(-ops.convert_to_numpy(model(alone))[0])
    small, large = (float(model.predict(x, verbose=0)[-1, 0]) for x in (alone, data))
    assert abs(small) < 1e-5 < abs(large)
    told = Padding({"values": 1}, mask="mask")
    for _ in range(8):
        results = laws.run(model, {"x": data}, told, only=["pad-length"], profile="explore")
        assert not codes(results), [row.reason for row in results]


def test_movement_from_finite_to_nan_is_infinite_and_nan_to_nan_is_none():
    before = np.array([1.0, np.nan, np.inf, 2.0])
    assert tolerance.movement(before, np.array([np.nan, np.nan, np.inf, 2.5])).tolist() == [np.inf, 0.0, 0.0, 0.5]


def test_the_coarsest_dtype_sets_the_unit():
    assert tolerance.eps_of(["float32", "bfloat16"]) == 2.0**-7
    assert tolerance.eps_of([]) == 2.0**-23
