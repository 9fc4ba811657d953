"""What is inferred about a model, and that it is said."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, ops

from fixtures.padding.zoo import FEATURES, STEPS, MaskedMean, ids, lengths, masks, values
from tsguard import laws
from tsguard.errors import SubjectError
from tsguard.padding import Padding


def read(model, x, padding=None, y=None):
    return laws.read_model(model, {"x": x, "y": y}, padding)


def implicit():
    x = keras.Input((None,), dtype="int32", name="ids")
    h = layers.Embedding(20, 4, mask_zero=True, name="embed")(x)
    return keras.Model(x, layers.Dense(1)(MaskedMean()(h)))


def test_an_implicit_mask_is_found_at_the_layer_that_makes_it():
    reading = read(implicit(), ids())
    assert reading.mask_kind == "keras"
    assert [maker.path for maker in reading.makers] == ["embed"]
    assert reading.valid.sum(axis=1).tolist() == lengths().tolist()
    assert reading.output_time == (None,)
    assert any("embed" in sentence for sentence in reading.inferred)


def explicit(named="mask"):
    x, m = keras.Input((None, FEATURES), name="values"), keras.Input((None,), name=named)
    return keras.Model({"values": x, named: m}, layers.Dense(1)(ops.where(m[..., None] > 0, x, 0.0)))


def test_a_mask_input_is_inferred_from_its_name_and_values():
    reading = read(explicit("padding_mask"), {"values": values(), "padding_mask": masks()})
    assert (reading.mask, reading.mask_kind, reading.mask_is) == ("padding_mask", "input", 1)
    assert reading.output_time == (1,)


def test_a_mask_that_is_one_at_padding_is_recognised_from_the_data():
    reading = read(explicit(), {"values": values(), "mask": 1 - masks()})
    assert reading.mask_is == 0
    assert reading.valid.sum() == lengths().sum()


def test_time_on_an_odd_axis_is_taken_as_declared():
    x, m = keras.Input((FEATURES, None), name="signal"), keras.Input((None,), name="valid")
    kept = ops.where(m[:, None, :] > 0, x, 0.0)
    pooled = ops.sum(kept, axis=2) / ops.maximum(ops.sum(m, axis=1, keepdims=True), 1.0)
    model = keras.Model([x, m], layers.Dense(2)(pooled))
    data = [values().transpose(0, 2, 1), masks()]
    told = Padding({"signal": 2}, mask="valid", outputs=None)
    assert read(model, data, told).time == {"signal": 2, "valid": 1}
    results = laws.run(model, {"x": data}, told)
    assert {row.outcome for row in results} == {"holds", "not-applicable"}


def test_a_model_of_one_width_is_read_as_such():
    x = keras.Input((STEPS, FEATURES))
    reading = read(keras.Model(x, layers.Dense(1)(layers.Flatten()(x))), values())
    assert reading.widths == (STEPS,)


def test_an_unpadded_model_is_never_accused_of_padding():
    model = keras.Sequential([keras.Input((STEPS, FEATURES)), layers.Conv1D(4, 3), layers.LSTM(3), layers.Dense(1)])
    model.compile("adam", "mse")
    x = np.random.default_rng(0).normal(size=(8, STEPS, FEATURES)).astype("float32")
    results = laws.run(model, {"x": x, "y": x[:, :1, 0]})
    held = {row.code for row in results if row.outcome == "holds"}
    assert held == {"batch-coupling", "nondeterministic", "train-eval-gap"}
    reasons = {row.reason for row in results if row.code == "pad-leak-value"}
    assert any("not padded" in reason for reason in reasons)
    assert not [row for row in results if row.outcome in ("broken", "crashed")]


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(SubjectError, match=r"'maske'.*mask.*values"):
        read(explicit(), {"values": values(), "mask": masks()}, Padding({"values": 1}, mask="maske"))


def test_without_a_declaration_time_is_the_axis_that_the_mask_has():
    x, m = keras.Input((FEATURES, None), name="signal"), keras.Input((None,), name="mask")
    model = keras.Model({"signal": x, "mask": m}, layers.Dense(2)(ops.where(m[:, None, :] > 0, x, 0.0)[..., 0]))
    reading = read(model, {"signal": values().transpose(0, 2, 1), "mask": masks()})
    assert reading.time == {"signal": 2, "mask": 1}


def test_without_a_mask_time_is_the_axis_that_the_model_leaves_open():
    x = keras.Input((FEATURES, None), name="signal")
    model = keras.Model(x, layers.Dense(2)(ops.mean(x, axis=2)))
    assert read(model, values().transpose(0, 2, 1)).time == {"signal": 2}


def test_of_two_sequences_the_padded_one_is_judged():
    asked, told = (keras.Input((None,), dtype="int32", name=name) for name in ("asked", "told"))
    embed = layers.Embedding(20, 4, mask_zero=True)
    h = layers.Attention()([embed(asked), embed(told)])
    model = keras.Model([asked, told], layers.Dense(1)(MaskedMean()(h)))
    reading = read(model, [ids()[:, :4].clip(1), ids()])
    assert reading.time == {"told": 1}
    assert reading.valid.sum(axis=1).tolist() == lengths().tolist()


@pytest.mark.parametrize("padded", [False, True])
def test_a_value_that_steps_have_as_others_do_is_no_padding_and_a_padded_end_is(padded):
    x = np.random.default_rng(0).integers(-4, 5, (64, 20, 1)).astype("float32")  # one step in nine is 0
    if padded:
        x[:, 14:] = 0.0
    steps = keras.Input((20, 1))
    model = keras.Model(steps, layers.Conv1D(3, 2, padding="causal")(steps))
    reading = read(model, x, Padding(causal=True))
    assert bool(reading.valid.all()) is not padded
    assert any("no more often than they hold it elsewhere" in sentence for sentence in reading.inferred) is not padded
