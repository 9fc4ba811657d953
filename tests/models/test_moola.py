"""Moola: what is hidden, what the masks keep out, what a transfer carries over, and the public data."""

import itertools

import keras
import numpy as np
import pytest
from keras import ops

from models import moola
from models.transfer import FreezeSchedule
from tests.models.oracles import policy
from tests.models.parity import (
    array,
    assert_finite,
    assert_run_trains,
    assert_same,
    derivative_error,
    evaluate,
    in_float64,
    on_jax,
    real,
)

# torch tensors warn about numpy 2's copy keyword whenever Keras reads one back.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")

SMALL = {"features": 3, "units": 5}
ENCODER = {**SMALL, "layers": 2, "patch": 3}
KINDS = ["classifier", "autoencoder"]
RECIPE = {"classifier": "models.moola:build", "autoencoder": "models.moola:build_pretraining"}
ARGS = {"classifier": {**SMALL, "layers": 2, "dropout": 0.0}, "autoencoder": ENCODER}


def make(kind, **changes):
    keras.utils.set_random_seed(0)
    function = moola.build if kind == "classifier" else moola.build_pretraining
    return function(**{**ARGS[kind], **changes})


def batch(steps=14, seed=0):
    """Four samples: whole, padded on the right, with a gap, padded on the left."""
    rng = np.random.default_rng(seed)
    mask = np.ones((4, steps), bool)
    mask[1, 8:] = False
    mask[2, 4:7] = False
    mask[3, :5] = False
    values = np.where(mask[..., None], rng.normal(5, 2, (4, steps, 3)), 0).astype("float32")
    return {"values": values, "mask": mask}, np.array([0, 1, 1, 0], "int32")


def target(kind, y):
    return y if kind == "classifier" else None


def problem(kind):
    x, y = batch()
    return x, target(kind, y)


def valid_outputs(found, mask):
    """The outputs where there is a step to have one for."""
    kept = {}
    for name, value in found.items():
        per_step = name in ("output/reconstruction", "output/selected")
        kept[name] = value[mask] if per_step else value
    return kept


# What is hidden


def hidden(kind, lengths, ratio=0.15, training=False, patch=3, steps=20):
    model = make("autoencoder", mask=kind, ratio=ratio, patch=patch)
    mask = np.arange(steps)[None, :] < np.asarray(lengths)[:, None]
    return array(model.select(ops.convert_to_tensor(mask), training))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", moola.MASKS)
def test_something_is_hidden_but_never_everything(kind, training):
    lengths = np.array([20, 9, 6, 2, 1, 0])
    selected = hidden(kind, lengths, training=training, ratio=0.9)
    counts = selected.sum(axis=1)
    size = 3 if kind == "patch" else 1
    assert np.all(counts[lengths >= 2 * size] >= 1)
    assert np.all(counts < np.maximum(lengths, 1))
    assert counts[-2:].tolist() == [0, 0]
    assert not np.any(selected & (np.arange(20)[None, :] >= lengths[:, None]))


@pytest.mark.parametrize(("kind", "expected"), [("random", 6), ("block", 6), ("patch", 6)])
def test_the_share_of_hidden_steps_is_the_ratio(kind, expected):
    assert hidden(kind, [20] * 8, ratio=0.3, training=True).sum(axis=1) == pytest.approx([expected] * 8, abs=1)


def test_a_block_is_one_run_and_patches_are_whole():
    block = hidden("block", [20] * 8, ratio=0.3, training=True)
    assert np.all(np.abs(np.diff(np.pad(block, ((0, 0), (1, 1))).astype(int), axis=1)).sum(axis=1) == 2)
    patches = hidden("patch", [18] * 8, ratio=0.3, training=True)[:, :18].reshape(8, 6, 3)
    assert np.all(patches.all(axis=2) == patches.any(axis=2))


def test_training_draws_and_evaluation_does_not():
    model, (x, _) = make("autoencoder", mask="random", ratio=0.4), batch()
    fixed = [array(model(x)["selected"]) for _ in range(2)]
    drawn = [array(model(x, training=True)["selected"]) for _ in range(4)]
    assert np.array_equal(*fixed)
    assert any(np.any(drawn[0] != other) for other in drawn[1:])


def test_the_value_of_a_hidden_step_has_no_influence_without_scaling():
    model, (x, _) = make("autoencoder", scale=False), batch()
    first = {name: array(value) for name, value in model(x).items()}
    other = {**x, "values": np.where(first["selected"][..., None] > 0, 1e3, x["values"]).astype("float32")}
    assert np.array_equal(first["reconstruction"], array(model(other)["reconstruction"]))


def test_the_reconstruction_loss_is_the_mean_over_hidden_real_cells():
    model, (x, _) = make("autoencoder", scale=False, loss="mse"), batch()
    selected = np.zeros((4, 14), "float32")
    selected[0, 2] = selected[1, 9] = 1  # the second is padding: it does not count
    prediction = {"reconstruction": ops.zeros((4, 14, 3)), "selected": ops.convert_to_tensor(selected)}
    found = model.loss_terms(x, None, prediction)
    assert float(found["reconstruction"]) == pytest.approx(np.mean(x["values"][0, 2] ** 2), rel=1e-6)
    prediction["selected"] = ops.zeros((4, 14))
    assert float(model.loss_terms(x, None, prediction)["reconstruction"]) == 0.0


def test_the_sum_of_the_loss_terms_is_the_loss():
    model, (x, _) = make("autoencoder"), batch()
    y_pred = {name: ops.stop_gradient(value) for name, value in model(x, training=True).items()}
    weight = np.array([1, 0, 2, 1], "float32")
    terms = model.loss_terms(x, None, y_pred, weight)
    assert array(sum(terms.values())) == pytest.approx(array(model.compute_loss(x, None, y_pred, weight)))


# Masks


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("junk", [1e6, np.nan, np.inf])
def test_padded_values_have_no_influence(kind, junk):
    model, (x, y) = make(kind), batch()
    poisoned = {**x, "values": np.where(x["mask"][..., None], x["values"], junk).astype("float32")}
    found = evaluate(model, poisoned, target(kind, y))
    assert_finite(found)
    assert_same(evaluate(model, x, target(kind, y)), found, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_training_on_nan_padding_leaves_finite_weights(kind):
    model, (x, y) = make(kind), batch()
    poisoned = {**x, "values": np.where(x["mask"][..., None], x["values"], np.nan).astype("float32")}
    model.fit(poisoned, target(kind, y), epochs=2, batch_size=2, verbose=0)
    assert all(np.isfinite(array(v)).all() for v in model.weights)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["right", "left"])
def test_more_padding_changes_nothing(kind, side):
    model, (x, y) = make(kind), batch()
    more = (0, 5) if side == "right" else (5, 0)
    longer = {
        "values": np.pad(x["values"], ((0, 0), more, (0, 0)), constant_values=9.0),
        "mask": np.pad(x["mask"], ((0, 0), more)),
    }
    first = valid_outputs(evaluate(model, x, target(kind, y)), x["mask"])
    assert_same(first, valid_outputs(evaluate(model, longer, target(kind, y)), longer["mask"]), rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_samples_do_not_read_each_other(kind):
    model, (x, _) = make(kind), batch()
    alone = {name: part[2:3] for name, part in x.items()}
    outputs = (model(x), model(alone))
    pairs = zip(*(keras.tree.flatten(part) for part in outputs), strict=True)
    assert all(np.abs(array(a)[2:3] - array(b)).max() < 1e-6 for a, b in pairs)


@pytest.mark.parametrize("kind", KINDS)
def test_fully_masked_samples_give_a_finite_loss(kind):
    model, (x, y) = make(kind), batch()
    for rows in ([0], [0, 1, 2, 3]):
        empty = {"values": x["values"].copy(), "mask": x["mask"].copy()}
        empty["mask"][rows] = False
        empty["values"][rows] = np.nan
        assert_finite(evaluate(model, empty, target(kind, y)))


def test_valid_steps_read_as_an_lstm_reads_the_sequence_without_its_padding():
    layer = moola.ValidSteps(5)
    backward = moola.ValidSteps(5, reverse=True)
    x, _ = batch()
    values, mask = ops.convert_to_tensor(x["values"]), ops.convert_to_tensor(x["mask"])
    found, found_back = array(layer(values, mask)), array(backward(values, mask))
    for sample in range(4):
        alone = ops.convert_to_tensor(x["values"][sample][x["mask"][sample]][None])
        assert np.abs(found[sample][x["mask"][sample]] - array(layer.lstm(alone))[0]).max() < 1e-6
        reversed_ = array(backward.lstm(ops.flip(alone, axis=1)))[0][::-1]
        assert np.abs(found_back[sample][x["mask"][sample]] - reversed_).max() < 1e-6
        assert not np.any(found[sample][~x["mask"][sample]])


def test_the_states_of_the_classifier_do_not_read_the_future():
    model, (x, _) = make("classifier", scale=False), batch()
    states = keras.Model(model.inputs, model.get_layer("forward_1").output)
    other = {**x, "values": x["values"].copy()}
    other["values"][:, 9:] += 10
    assert np.array_equal(array(states(x))[:, :9], array(states(other))[:, :9])
    assert np.any(array(states(x))[:, 9:] != array(states(other))[:, 9:])


def test_attention_weighs_all_valid_steps_and_learns():
    model, (x, y) = make("classifier"), batch()
    weights = moola.attention_weights(model, x)
    assert weights.sum(axis=1) == pytest.approx(np.ones(4), rel=1e-5)
    assert np.all((weights > 0) == x["mask"])
    found = evaluate(model, x, y)
    assert np.any(found["gradient/attention/query/kernel"])
    assert np.any(found["gradient/attention/key/kernel"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_computes_the_same(kind, tmp_path):
    model, (x, y) = make(kind), batch()
    model.fit(x, target(kind, y), epochs=1, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_same(evaluate(model, x, target(kind, y)), evaluate(loaded, x, target(kind, y)), rtol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_trains_and_takes_its_steps(kind, precision):
    keras.config.set_dtype_policy(precision)
    try:
        model = make(kind)
    finally:
        keras.config.set_dtype_policy("float32")
    x, y = batch()
    prices = {**x, "values": np.where(x["mask"][..., None], x["values"] + 19_789, 0).astype("float32")}
    history = model.fit(prices, target(kind, y), epochs=8, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert all(np.isfinite(array(v)).all() for v in model.weights)
    if precision == "mixed_float16":
        # The loss scaling starts high and may skip some steps to find its scale; it must not skip for ever.
        assert int(array(model.optimizer.inner_optimizer.iterations)) >= 4


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_agree_with_finite_differences_in_float64(kind):
    with policy("float64"):
        assert derivative_error(*in_float64(lambda: make(kind), problem(kind))) < 1e-7


@pytest.mark.parametrize("kind", KINDS)
def test_float32_differs_from_float64_by_its_rounding_only(kind):
    model, (x, y) = make(kind), problem(kind)
    with policy("float64"):
        exact = evaluate(*in_float64(lambda: make(kind), (x, y), [array(w) for w in model.weights]))
    assert exact["loss"].dtype == np.float64
    assert_same(exact, evaluate(model, x, y))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_jax_computes_the_same(kind, tmp_path):
    model, (x, y) = make(kind), batch()
    here = evaluate(model, x, target(kind, y))
    there = on_jax(RECIPE[kind], ARGS[kind], model, x, target(kind, y), tmp_path)
    assert_same(here, there)


def test_an_unknown_mask_is_refused():
    with pytest.raises(ValueError, match="received mask 'stripes', expected one of"):
        moola.build_pretraining(mask="stripes")


# Transfer


def test_the_forward_half_goes_over_exactly():
    encoder, model = make("autoencoder", layers=1, scale=False), make("classifier", layers=1, scale=False)
    transfer = moola.transfer(encoder, model)
    assert transfer.loaded == (
        "forward_0/lstm/lstm_cell/kernel", "forward_0/lstm/lstm_cell/recurrent_kernel", "forward_0/lstm/lstm_cell/bias",
    )  # fmt: skip
    assert set(transfer.not_loaded) == {"attention/query/kernel", "attention/key/kernel", "head/kernel", "head/bias"}
    assert sum("reads the future" in why for why in transfer.unused.values()) == 3
    x, _ = batch()
    states = keras.Model(model.inputs, model.get_layer("forward_0").output)
    theirs = encoder.forward_layers[0](ops.convert_to_tensor(x["values"]), ops.convert_to_tensor(x["mask"]))
    assert np.array_equal(array(states(x)), array(theirs))


def test_only_the_first_of_several_layers_goes_over_and_the_report_says_why():
    encoder, model = make("autoencoder", layers=2), make("classifier", layers=2)
    before = [array(w).copy() for w in model.get_layer("forward_1").weights]
    transfer = moola.transfer(encoder, model)
    assert {path.split("/")[0] for path in transfer.loaded} == {"forward_0"}
    why = transfer.not_loaded["forward_1/lstm/lstm_cell/kernel"]
    assert "kernel (10, 20) in the encoder, (5, 20) here" in why
    assert "the encoder reads both directions" in why
    after = [array(w) for w in model.get_layer("forward_1").weights]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_second_encoder_layer_without_a_place_is_reported():
    transfer = moola.transfer(make("autoencoder", layers=2), make("classifier", layers=1))
    assert sum(why == "the classifier has no layer 'forward_1'" for why in transfer.unused.values()) == 3


@pytest.mark.parametrize("change", [{"units": 7}, {"features": 4}])
def test_a_transfer_that_loads_nothing_says_so(change):
    transfer = moola.transfer(make("autoencoder", layers=1, **change), make("classifier", layers=1))
    assert transfer.nothing
    assert "here" in transfer.not_loaded["forward_0/lstm/lstm_cell/kernel"]


def test_the_transferred_layer_is_frozen_and_then_trained():
    model, (x, y) = make("classifier"), batch()
    schedule = moola.unfreeze_after(model, 1)
    assert isinstance(schedule, FreezeSchedule)
    kernel = model.get_layer("forward_0").lstm.cell.kernel
    states = [array(kernel).copy()]
    record = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: states.append(array(kernel).copy()))
    history = model.fit(x, y, epochs=3, verbose=0, callbacks=[schedule, record]).history
    assert [bool(np.any(a != b)) for a, b in itertools.pairwise(states)] == [False, True, True]
    assert set(history) == {"loss", "accuracy"}  # the metrics are there after the recompilation


def test_a_schedule_without_a_beginning_is_refused():
    with pytest.raises(ValueError, match=r"received epochs \[3\], expected what holds from epoch 0 on"):
        FreezeSchedule({3: "all"})


# Data


def test_augmented_windows_keep_length_order_and_level():
    made = moola.synthetic(samples=8, labels=False)["x"]
    values, mask = moola.augment(made["values"], made["mask"], copies=4)
    assert len(values) == 32
    assert np.array_equal(values[:8], made["values"])
    assert np.array_equal(mask[8:16], made["mask"])
    assert np.array_equal(values[8:16][~made["mask"]], made["values"][~made["mask"]])
    moved = values[8:16][made["mask"]] - made["values"][made["mask"]]
    assert 0 < np.abs(moved).max() < 0.05 * 20_000
    level = np.abs(values[8:16].sum(axis=1) / made["values"].sum(axis=1) - 1)
    assert level.max() < 0.01


def test_each_augmentation_can_be_switched_off():
    made = moola.synthetic(samples=4, labels=False)["x"]
    values, _ = moola.augment(made["values"], made["mask"], copies=2, warp=0, jitter=0, scaling=0)
    assert values[4:] == pytest.approx(values[:4], rel=1e-6)


def test_a_time_warp_keeps_the_ends():
    ramp = np.linspace(0, 1, 30).reshape(1, 30, 1)
    values, _ = moola.augment(ramp, copies=2, warp=0.5, jitter=0, scaling=0)
    assert values[1, [0, -1], 0] == pytest.approx([0, 1], abs=1e-6)
    assert np.all(np.diff(values[1, :, 0]) > 0)
    assert np.abs(values[1] - values[0]).max() > 0.01


def test_recall_is_counted_per_class():
    found = moola.recall_per_class([0, 0, 1, 1], [0, 1, 0, 0], classes=3)
    assert found[:2].tolist() == [0.5, 0.0]
    assert np.isnan(found[2])


def test_the_maker_is_seeded_and_balanced():
    first, again = moola.synthetic(samples=64), moola.synthetic(samples=64)
    assert np.array_equal(first["x"]["values"], again["x"]["values"])
    assert 20 < first["y"].sum() < 44
    assert first["names"] == ("open", "high", "low", "close")


@pytest.mark.slow
@pytest.mark.parametrize("mask", moola.MASKS)
def test_the_autoencoder_learns_to_fill_in(mask):
    made = moola.synthetic(labels=False)
    keras.utils.set_random_seed(0)
    model = moola.build_pretraining(mask=mask)
    losses = model.fit(made["x"], validation_data=made["validation_data"], epochs=5, verbose=0).history["val_loss"]
    assert losses[-1] < 0.6 * losses[0]


def test_the_embedded_run_learns():
    made = moola.synthetic()
    keras.utils.set_random_seed(0)
    model = moola.build()
    history = model.fit(made["x"], made["y"], validation_data=made["validation_data"], epochs=4, verbose=0).history
    assert history["val_accuracy"][-1] > 0.7


@pytest.mark.parametrize("name", ["moola.yaml", pytest.param("moola_pretrain.yaml", marks=pytest.mark.slow)])
def test_the_run_beside_the_model_trains(name):
    assert_run_trains(name)


@pytest.mark.realdata
@pytest.mark.slow
def test_speakers_are_told_apart_with_every_class_found(record_testsuite_property):
    found = real("japanese_vowels").run_vowels()
    record_testsuite_property("speakers_are_told_apart_with_every_class_found", found)
    for name in ("scratch", "transferred"):
        assert found[name]["accuracy"] > found["majority"]["accuracy"] + 0.5
        assert found[name]["recall_min"] >= 0.3
