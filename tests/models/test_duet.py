"""Duet: each objective by hand, masks that hold, transfer that says what it did, and the public data."""

import keras
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from benchmarks.models_embedded import FOLDER
from models import common, duet
from models.duet import data as duet_data
from models.duet import losses
from models.duet.finetune import STRATEGIES
from models.duet.linear import moving_average_matrix
from models.transfer import RatedAdam, apply_freeze, copy_weights
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

SMALL = {"context": 24, "horizon": 6, "patch": 4, "width": 8, "heads": 2, "depth": 1, "dropout": 0.0}
EVERYTHING = {name: 1.0 + 0.1 * i for i, name in enumerate(duet.OBJECTIVES)}
KINDS = {
    "duet": {**SMALL},
    "patchtst": {**SMALL, "patch": 8, "stride": 4},
    "dlinear": {"context": 24, "horizon": 6},
    "nlinear": {"context": 24, "horizon": 6},
    "pretraining": {**SMALL, "objectives": EVERYTHING},
}


def make(kind, **changes):
    keras.utils.set_random_seed(0)
    return duet.build(kind="duet" if kind == "pretraining" else kind, **{**KINDS[kind], **changes})


def batch(steps=30, features=5, seed=0):
    """Four samples with padding on the right and one padded feature in two of them."""
    rng = np.random.default_rng(seed)
    mask = np.arange(steps)[None, :] < np.array([steps, 17, 9, 25])[:, None]
    feature_mask = np.ones((4, features), bool)
    feature_mask[:2, -1] = False
    values = rng.normal(3, 2, (4, steps, features)).astype("float32")
    real_cells = mask[..., None] & feature_mask[:, None, :]
    x = {"values": np.where(real_cells, values, 0).astype("float32"), "mask": mask, "feature_mask": feature_mask}
    x["domain"] = np.array([0, 0, 1, 1], "int32")
    return x, rng.normal(3, 2, (4, 6, features)).astype("float32")


def outputs(found):
    return {name: value for name, value in found.items() if name.startswith("output/")}


def tensor(value, dtype="float32"):
    return ops.convert_to_tensor(np.asarray(value, dtype))


# The objectives, by hand


@pytest.mark.parametrize(("kind", "expected"), [("mse", (4 + 9) / 2), ("huber", (1.5 + 2.5) / 2), ("mae", 2.5)])
def test_masked_patch_loss_is_the_mean_over_hidden_real_cells(kind, expected):
    patches, predicted = np.zeros((1, 1, 2, 3)), np.array([[[[2.0, 3.0, 50.0], [70.0, 80.0, 90.0]]]])
    cells = np.array([[[[1, 1, 0], [1, 1, 1]]]])
    found = losses.masked_patch_loss(
        tensor(patches), tensor(predicted), tensor([[[1, 0]]], "bool"), tensor(cells, "bool"), kind=kind
    )
    assert float(found) == pytest.approx(expected)


def test_masked_patch_loss_of_no_selected_patch_is_zero_with_zero_gradient():
    predicted = keras.Variable(np.ones((2, 1, 3, 4)))
    found = losses.masked_patch_loss(
        tensor(np.zeros((2, 1, 3, 4))),
        predicted,
        tensor(np.zeros((2, 1, 3)), "bool"),
        tensor(np.ones((2, 1, 3, 4)), "bool"),
    )
    found.backward()
    assert array(found) == 0.0
    assert not np.any(array(predicted.value.grad))


def test_masked_patch_loss_ignores_nan_outside_the_selection_and_shows_it_inside():
    patches = np.zeros((1, 1, 2, 2))
    patches[0, 0, 1] = np.nan
    everywhere = tensor(np.ones((1, 1, 2, 2)), "bool")
    outside = losses.masked_patch_loss(
        tensor(patches), tensor(np.ones((1, 1, 2, 2))), tensor([[[1, 0]]], "bool"), everywhere
    )
    inside = losses.masked_patch_loss(
        tensor(patches), tensor(np.ones((1, 1, 2, 2))), tensor([[[0, 1]]], "bool"), everywhere
    )
    assert np.isfinite(float(outside))
    assert np.isnan(float(inside))


@pytest.mark.parametrize(("loss", "axes"), [(losses.next_patch_loss, 3), (losses.autoencoder_loss, 4)])
def test_next_patch_and_autoencoder_losses_are_the_mean_over_real_cells(loss, axes):
    shape = (1,) * (axes - 2) + (2, 2)
    target, predicted = np.zeros(shape), np.reshape([1.0, 2.0, 9.0, 3.0], shape)
    cells = np.reshape([1, 1, 0, 1], shape)
    found = [float(loss(tensor(target), tensor(predicted), tensor(cells, "bool"), kind=k)) for k in ("mse", "huber")]
    assert found == pytest.approx([(1 + 4 + 9) / 3, (0.5 + 1.5 + 2.5) / 3])
    assert float(loss(tensor(target), tensor(predicted), tensor(0 * cells, "bool"))) == 0.0


def test_order_loss_is_the_binary_cross_entropy_of_both_versions():
    logits = np.array([[0.0, 0.0], [-3.0, 2.0], [9.0, -9.0]])
    by_hand = np.mean([np.log(2), (np.log1p(np.exp(-3)) + np.log1p(np.exp(-2))) / 2])
    assert float(losses.order_loss(tensor(logits), tensor([1, 1, 0], "bool"))) == pytest.approx(by_hand, rel=1e-6)


def test_order_loss_without_an_eligible_sample_is_zero():
    assert float(losses.order_loss(tensor([[5.0, 5.0]]), tensor([0], "bool"))) == 0.0


def test_contrastive_loss_agrees_with_the_definition():
    rng = np.random.default_rng(0)
    views = rng.normal(size=(3, 2, 4))
    flat = np.concatenate([views[:, 0], views[:, 1]])
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    similar = np.exp(flat @ flat.T / 0.5)
    by_hand = [-np.log(similar[i, (i + 3) % 6] / (similar[i].sum() - similar[i, i])) for i in range(6)]
    found = losses.contrastive_loss(tensor(views), tensor([1, 1, 1], "bool"), temperature=0.5)
    assert float(found) == pytest.approx(np.mean(by_hand), rel=1e-5)


def test_contrastive_loss_neither_asks_nor_hears_an_empty_sample():
    views = np.random.default_rng(0).normal(size=(3, 2, 4))
    other = views.copy()
    other[2] = 7.0
    valid = tensor([1, 1, 0], "bool")
    found = [float(losses.contrastive_loss(tensor(v), valid)) for v in (views, other, views[:2])[:2]]
    alone = float(losses.contrastive_loss(tensor(views[:2]), tensor([1, 1], "bool")))
    assert found == pytest.approx([alone, alone], rel=1e-5)


@pytest.mark.parametrize("domain", [None, [4, 4]])
def test_contrastive_loss_without_a_negative_is_zero(domain):
    views = np.random.default_rng(0).normal(size=(1 if domain is None else 2, 2, 4))
    found = losses.contrastive_loss(
        tensor(views), tensor(np.ones(len(views)), "bool"), domain=None if domain is None else tensor(domain, "int32")
    )
    assert float(found) == pytest.approx(0.0, abs=1e-6)


def test_contrastive_gradient_at_a_zero_vector_is_finite():
    views = keras.Variable(np.zeros((2, 2, 3)))
    losses.contrastive_loss(views, tensor([1, 1], "bool")).backward()
    assert np.isfinite(array(views.value.grad)).all()


def test_cross_domain_negatives_come_from_other_sets_only():
    views = np.random.default_rng(0).normal(size=(3, 2, 4))
    valid, domain = tensor([1, 1, 1], "bool"), tensor([0, 0, 1], "int32")
    moved = views.copy()
    moved[1] = [[9, 0, 0, 0], [9, 0, 0, 0]]

    def of_first(v):
        weight = tensor([1.0, 0.0, 0.0])
        return float(losses.contrastive_loss(tensor(v), valid, domain=domain, sample_weight=weight))

    assert of_first(views) == pytest.approx(of_first(moved), rel=1e-5)
    moved[2] = views[0]
    assert of_first(moved) > of_first(views)


def test_sample_weight_zero_on_a_nan_target_of_a_padded_feature_is_finite():
    y = np.full((1, 2, 2), np.nan)
    y[..., 0] = 1.0
    found = losses.forecast_loss(tensor(y), tensor(np.zeros((1, 2, 2))), tensor([[1, 0]], "bool"), tensor([2.0]))
    assert float(found) == pytest.approx(2.0)


def test_an_unknown_point_loss_is_refused():
    with pytest.raises(ValueError, match="received 'l3', expected 'mse', 'mae' or 'huber'"):
        common.point_error(tensor([1.0]), "l3")


# The model


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="the twin is written in torch")
@pytest.mark.parametrize("changes", [{}, {"patch": 8, "stride": 4, "mix_features": False}])
def test_the_twin_that_speed_is_measured_against_computes_the_same(changes):
    recipes = pytest.importorskip("benchmarks.models_steps")
    model, (x, y) = make("duet", **changes), batch()
    twin, step = recipes.torch_twin(model)
    recipes.share_weights(model, twin)
    inputs = {name: ops.convert_to_tensor(x[name]) for name in ("values", "mask", "feature_mask")}
    assert array(twin(**inputs)[0]) == pytest.approx(model.predict(x, verbose=0), abs=1e-5)
    assert step(inputs, tensor(y)) == pytest.approx(model.evaluate(x, y, verbose=0, return_dict=True)["loss"], rel=1e-5)


@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(0, 12), min_size=1, max_size=3), left=st.integers(0, 4), steps=st.integers(1, 10))
def test_alignment_keeps_the_last_valid_steps_wherever_the_padding_is(lengths, left, steps):
    total = left + 12
    values = np.full((len(lengths), total, 1), np.nan, "float32")
    mask = np.zeros((len(lengths), total), bool)
    for sample, length in enumerate(lengths):
        values[sample, left : left + length, 0] = np.arange(1, length + 1)
        mask[sample, left : left + length] = True
    inputs = {"values": tensor(values), "mask": tensor(mask, "bool")}
    found, cells = common.align_last(inputs, steps)
    for sample, length in enumerate(lengths):
        kept = np.arange(1, length + 1)[-steps:]
        assert array(found)[sample, :, 0].tolist() == [0.0] * (steps - len(kept)) + kept.tolist()
        assert array(cells)[sample, :, 0].tolist() == [False] * (steps - len(kept)) + [True] * len(kept)


@pytest.mark.parametrize("kind", KINDS)
def test_the_sum_of_the_loss_terms_is_the_loss(kind):
    model, (x, y) = make(kind), batch()
    y_pred = model(x, training=True)
    for weight in (None, np.array([1.0, 0.0, 2.0, 0.5], "float32")):
        terms = model.loss_terms(x, tensor(y), y_pred, weight)
        again = model.loss_terms(x, tensor(y), y_pred, weight)
        loss = array(model.compute_loss(x, tensor(y), y_pred, weight))
        assert array(sum(terms.values())) == pytest.approx(loss, rel=1e-6)
        assert all(array(terms[name]) == array(again[name]) for name in terms)
    assert list(terms) == (list(duet.OBJECTIVES) if kind == "pretraining" else ["forecast"])


@pytest.mark.parametrize("objective", [name for name in duet.OBJECTIVES if name != "forecast"])
def test_each_objective_can_be_trained_alone_and_leaves_no_parameter_without_gradient(objective):
    model, (x, _) = make("pretraining", objectives={objective: 1.0}), batch()
    found = evaluate(model, x)
    assert_finite(found)
    silent = [n for n, g in found.items() if n.startswith("gradient/") and not np.any(g)]
    assert silent == []
    history = model.fit(x, None, epochs=2, batch_size=4, verbose=0).history
    assert set(history) == {"loss", objective}
    assert np.isfinite(history["loss"]).all()


def test_every_head_is_known_to_the_optimizer_before_the_first_step():
    model, (x, y) = make("pretraining"), batch()
    before = {v.path for v in model.trainable_variables}
    model.train_on_batch(x, y)
    assert {v.path for v in model.trainable_variables} == before
    assert len(model.optimizer._trainable_variables) == len(before)


def test_at_least_one_patch_is_hidden_where_there_are_two_and_none_where_there_is_one():
    model = make("duet", objectives={"masked": 1.0}, mask_ratio=0.01)
    mask = np.arange(24)[None, :] < np.array([24, 8, 4, 0])[:, None]
    x = {"values": np.random.default_rng(0).normal(size=(4, 24, 2)).astype("float32"), "mask": mask}
    for training in (False, True):
        assert array(model(x, training=training)["selected"]).sum(axis=2)[:, 0].tolist() == [1, 1, 0, 0]
    only_one = {"values": x["values"][2:], "mask": mask[2:]}
    found = evaluate(model, only_one)
    assert found["loss"] == 0.0
    assert_finite(found)


def test_a_hidden_patch_has_no_influence_on_its_own_prediction():
    model = make("duet", objectives={"masked": 1.0})
    encoder = model.encoder
    rng = np.random.default_rng(0)
    patches = rng.normal(size=(1, 2, 6, 4)).astype("float32")
    cells, selected = np.ones((1, 2, 6, 4), bool), np.zeros((1, 2, 6), bool)
    selected[0, 0, 3] = True
    other = patches.copy()
    other[0, 0, 3] += 100
    first, second = (
        array(encoder(tensor(p), tensor(cells, "bool"), tensor(selected, "bool"))[0]) for p in (patches, other)
    )
    assert np.array_equal(first, second)


def test_the_withheld_patch_has_no_influence_on_its_own_prediction():
    model = make("duet", objectives={"next_patch": 1.0})
    x, _ = batch()
    other = {**x, "values": x["values"].copy()}
    other["values"][0, -4:] += 100  # sample 0 has no padding: these are its last real steps
    first, second = (array(model(part)["next_patch"])[0] for part in (x, other))
    assert np.array_equal(first, second)


def test_the_swapped_view_puts_the_later_part_first():
    model = make("duet", objectives={"order": 1.0})
    patches = np.arange(6.0).reshape(1, 1, 6, 1).repeat(4, axis=3)
    cells = np.ones((1, 1, 6, 4), bool)
    cells[:, :, :2] = False
    found = array(model.swap(tensor(patches), tensor(cells, "bool"), False)[0])[0, 0, :, 0]
    assert found.tolist() == [0, 1, 4, 5, 2, 3]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("junk", [1e6, -7.0, np.nan, np.inf])
def test_padded_values_and_features_have_no_influence(kind, junk):
    model, (x, y) = make(kind), batch()
    cells = x["mask"][..., None] & x["feature_mask"][:, None, :]
    poisoned = {**x, "values": np.where(cells, x["values"], junk).astype("float32")}
    y_poisoned = np.where(x["feature_mask"][:, None, :], y, junk).astype("float32")
    found = evaluate(model, poisoned, y_poisoned)
    assert_finite(found)
    assert_same(evaluate(model, x, y), found, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_training_on_nan_padding_leaves_finite_weights(kind):
    model, (x, y) = make(kind, **({} if "linear" in kind else {"dropout": 0.1})), batch()
    cells = x["mask"][..., None] & x["feature_mask"][:, None, :]
    poisoned = {**x, "values": np.where(cells, x["values"], np.nan).astype("float32")}
    model.fit(poisoned, np.where(x["feature_mask"][:, None, :], y, np.nan), epochs=3, batch_size=2, verbose=0)
    assert all(np.isfinite(array(v)).all() for v in model.weights)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["right", "left"])
def test_more_padding_in_time_changes_nothing(kind, side):
    model, (x, y) = make(kind), batch()
    more = (0, 7) if side == "right" else (7, 0)
    longer = {**x, "values": np.pad(x["values"], ((0, 0), more, (0, 0)), constant_values=9.0)}
    longer["mask"] = np.pad(x["mask"], ((0, 0), more))
    assert_same(evaluate(model, x, y), evaluate(model, longer, y), rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_more_padded_features_change_nothing(kind):
    model, (x, y) = make(kind), batch()
    wide = {**x, "values": np.pad(x["values"], ((0, 0), (0, 0), (0, 3)), constant_values=9.0)}
    wide["feature_mask"] = np.pad(x["feature_mask"], ((0, 0), (0, 3)))
    first, second = evaluate(model, x, y), evaluate(model, wide, np.pad(y, ((0, 0), (0, 0), (0, 3))))
    assert float(first["loss"]) == pytest.approx(float(second["loss"]), rel=1e-5)
    for name, value in outputs(first).items():
        axis = {"output/": 2, "output/forecast": 2, "output/order": None, "output/views": None}.get(name, 1)
        other = second[name] if axis is None else np.take(second[name], np.arange(5), axis=axis)
        assert np.abs(value - other).max() < 1e-5, name


@pytest.mark.parametrize("kind", KINDS)
def test_samples_do_not_read_each_other(kind):
    model, (x, y) = make(kind), batch()
    alone = {name: part[1:2] for name, part in x.items()}
    first, second = outputs(evaluate(model, x, y)), outputs(evaluate(model, alone, y[1:2]))
    for name, value in first.items():
        assert np.abs(value[1:2] - second[name]).max() < 1e-5, name


@pytest.mark.parametrize("kind", KINDS)
def test_fully_masked_samples_give_a_finite_loss(kind):
    model, (x, y) = make(kind), batch()
    for mask in (np.zeros_like(x["mask"]), x["mask"] * np.array([0, 1, 1, 0])[:, None]):
        empty = {**x, "mask": mask.astype(bool), "values": np.full_like(x["values"], np.nan)}
        empty["values"] = np.where(mask[..., None], x["values"], np.nan)
        assert_finite(evaluate(model, empty, y))
    none = {**x, "feature_mask": np.zeros_like(x["feature_mask"])}
    assert_finite(evaluate(model, none, y))


@pytest.mark.parametrize("kind", ["duet", "nlinear", "dlinear"])
def test_a_missing_cell_is_not_read(kind):
    model, (x, y) = make(kind), batch()
    cells = np.repeat(x["mask"][..., None], 5, axis=2)
    cells[:, 5:8, 1] = False
    first = {**x, "mask": cells, "values": np.where(cells, x["values"], -200).astype("float32")}
    second = {**x, "mask": cells, "values": np.where(cells, x["values"], np.nan).astype("float32")}
    assert_same(evaluate(model, first, y), evaluate(model, second, y), rtol=1e-6)


@pytest.mark.parametrize("kind", ["duet", "patchtst", "nlinear"])
def test_a_shift_of_the_level_shifts_the_forecast(kind):
    model, (x, _) = make(kind), batch()
    shifted = {**x, "values": x["values"] + 50}
    real_features = x["feature_mask"][:, None, :]
    gap = np.where(real_features, array(model(shifted)) - array(model(x)), 50)
    assert np.abs(gap - 50).max() < 1e-2


@pytest.mark.parametrize("kind", ["duet", "patchtst", "nlinear", "dlinear"])
def test_other_units_give_the_same_forecast_in_them(kind):
    model, (x, _) = make(kind), batch()
    first, second = array(model(x)), array(model({**x, "values": x["values"] * 8}))
    assert np.abs(second / 8 - first).max() < 1e-3


def test_evaluation_is_not_a_draw():
    model, (x, y) = make("pretraining"), batch()
    assert_same(evaluate(model, x, y), evaluate(model, x, y), rtol=1e-7)
    assert np.any(array(model(x, training=True)["selected"]) != array(model(x, training=True)["selected"]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_computes_the_same(kind, tmp_path):
    model, (x, y) = make(kind), batch()
    model.fit(x, y, epochs=1, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.get_config() == model.get_config()
    assert_same(evaluate(model, x, y), evaluate(loaded, x, y), rtol=1e-7)
    # The optimizer's state came back too: the next steps agree. (A file does not hold generators: draws would differ.)
    for _ in range(0 if kind == "pretraining" else 2):
        assert loaded.train_on_batch(x, y) == pytest.approx(model.train_on_batch(x, y), rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_trains_and_takes_its_steps(kind, precision):
    keras.config.set_dtype_policy(precision)
    try:
        model = make(kind)
    finally:
        keras.config.set_dtype_policy("float32")
    x, y = batch()
    # Prices as they are: their squares do not fit into float16.
    x = {**x, "values": np.where(x["values"] == 0, 0, x["values"] + 19_789).astype("float32")}
    history = model.fit(x, y + 19_789, epochs=16, batch_size=4, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert all(np.isfinite(array(v)).all() for v in model.weights)
    if precision == "mixed_float16":
        # The loss scaling starts high and may skip some steps to find its scale; it must not skip for ever.
        assert int(array(model.optimizer.inner_optimizer.iterations)) >= 8


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_agree_with_finite_differences_in_float64(kind):
    with policy("float64"):
        assert derivative_error(*in_float64(lambda: make(kind), batch())) < 1e-7


@pytest.mark.parametrize("kind", KINDS)
def test_float32_differs_from_float64_by_its_rounding_only(kind):
    model, (x, y) = make(kind), batch()
    with policy("float64"):
        exact = evaluate(*in_float64(lambda: make(kind), (x, y), [array(w) for w in model.weights]))
    assert exact["loss"].dtype == np.float64
    assert_same(exact, evaluate(model, x, y))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_jax_computes_the_same(kind, tmp_path):
    model, (x, y) = make(kind), batch()
    args = {**KINDS[kind], "kind": "duet" if kind == "pretraining" else kind}
    here = evaluate(model, x, y)
    assert_same(here, on_jax("models.duet:build", args, model, x, y, tmp_path))


def test_plain_arrays_are_accepted():
    model = make("duet")
    plain = np.random.default_rng(0).normal(size=(4, 30, 5)).astype("float32")
    whole = {"values": plain, "mask": np.ones((4, 30), bool)}
    assert np.array_equal(array(model(plain)), array(model(whole)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objectives": {"guess": 1.0}}, "received \\['guess'\\]"),
        ({"context": 25}, "do not cover a context of 25 steps"),
        ({"patch": 8, "stride": 4, "objectives": {"masked": 1.0}}, "the patches overlap"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        duet.build(**{**SMALL, **changes})


def test_cross_domain_without_domains_says_what_is_missing():
    model, (x, _) = make("duet", objectives={"cross_domain": 1.0}), batch()
    del x["domain"]
    with pytest.raises(ValueError, match="needs the input 'domain'"):
        model.loss_terms(x, None, model(x))


def test_the_decomposition_averages_neighbours_with_repeated_ends():
    found = moving_average_matrix(4, 3) @ np.array([0.0, 3.0, 6.0, 9.0])
    assert found == pytest.approx([1.0, 3.0, 6.0, 8.0])
    assert moving_average_matrix(50, 25).sum(axis=1) == pytest.approx(np.ones(50))


def test_nlinear_of_zero_weights_is_the_last_valid_value():
    model, (x, _) = make("nlinear"), batch()
    model.set_weights([np.zeros(w.shape) for w in model.get_weights()])
    last = x["values"][1, 16, :4]
    assert array(model(x))[1, :, :4] == pytest.approx(np.tile(last, (6, 1)))


# Transfer and fine-tuning


def test_from_pretrained_copies_the_encoder_and_says_what_is_fresh(tmp_path):
    source, (x, _) = make("duet", objectives={"masked": 1.0}), batch()
    source.fit(x, None, epochs=1, verbose=0)
    source.save(tmp_path / "source.keras")
    model, transfer = duet.Duet.from_pretrained(str(tmp_path / "source.keras"), horizon=3)
    for mine, theirs in zip(model.encoder.dense[0].weights, source.encoder.dense[0].weights, strict=True):
        assert np.array_equal(array(mine), array(theirs))
    assert len(transfer.loaded) == len(model.encoder.weights)
    assert [name.split("/", 1)[1] for name in transfer.not_loaded] == ["forecast_head/kernel", "forecast_head/bias"]
    assert any("hidden" in name for name in transfer.unused)
    assert any("masked_head" in name for name in transfer.unused)
    assert not transfer.nothing
    assert "starts fresh" in str(transfer)


def test_a_transfer_that_loads_nothing_says_so():
    source, target = keras.layers.Dense(3, use_bias=False), keras.layers.Dense(4, use_bias=False)
    source.build((None, 2))
    target.build((None, 2))
    transfer = copy_weights(source, target)
    assert transfer.nothing
    assert list(transfer.not_loaded.values()) == ["shape (2, 3) in the source, (2, 4) here"]


@pytest.mark.parametrize("strategy", ["none", "encoder", "gradual"])
def test_freezing_holds_the_encoder_for_as_long_as_it_says(strategy):
    model, (x, y) = make("duet"), batch()
    schedule = duet.freeze_schedule(model, strategy, unfreeze_at=1)
    moved = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.before = array(model.encoder.embed.kernel).copy()

        def on_epoch_end(self, epoch, logs=None):
            moved.append(bool(np.any(array(model.encoder.embed.kernel) != self.before)))

    head = array(model.forecast_head.kernel).copy()
    model.fit(x, y, epochs=2, verbose=0, callbacks=[schedule, Watch()])
    assert moved == {"none": [True, True], "encoder": [False, False], "gradual": [False, True]}[strategy]
    assert np.any(array(model.forecast_head.kernel) != head)


def test_the_schedule_survives_a_recompilation_and_a_resumption():
    model, (x, y) = make("duet"), batch()
    schedule = duet.freeze_schedule(model, "gradual", unfreeze_at=2)
    model.fit(x, y, epochs=1, verbose=0, callbacks=[schedule])
    model.compile(optimizer=keras.optimizers.SGD(0.1))
    model.fit(x, y, epochs=2, initial_epoch=1, verbose=0, callbacks=[schedule])
    assert not model.encoder.trainable
    before = array(model.encoder.embed.kernel).copy()
    model.fit(x, y, epochs=3, initial_epoch=2, verbose=0, callbacks=[schedule])
    assert model.encoder.trainable
    assert isinstance(model.optimizer, keras.optimizers.SGD)
    assert np.any(array(model.encoder.embed.kernel) != before)


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_unfreezing_keeps_the_moments_of_what_was_trained(precision):
    keras.config.set_dtype_policy(precision)
    try:
        model = make("duet")
    finally:
        keras.config.set_dtype_policy("float32")
    x, y = batch()
    apply_freeze(model, ["forecast_head"])
    model.fit(x, y, epochs=3, verbose=0)

    def moments():
        inner = getattr(model.optimizer, "inner_optimizer", model.optimizer)
        named = {v.path.split("/", 1)[1]: array(v).copy() for v in inner.variables if "forecast_head" in v.path}
        return named, int(inner.iterations.numpy())

    before, steps = moments()
    apply_freeze(model, "all")
    after, kept = moments()
    assert (steps, kept) == (3, 3)
    assert before
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert any(np.any(value) for value in after.values())
    model.fit(x, y, epochs=1, verbose=0)


def test_freezing_an_unknown_layer_names_those_there_are():
    with pytest.raises(
        ValueError, match=r"no layer \['body'\]; its layers with weights are \['encoder', 'forecast_head'\]"
    ):
        apply_freeze(make("duet"), ["body"])


def test_rates_differ_by_part():
    moves = {}
    for factor in (1.0, 0.1):
        model, (x, y) = make("duet"), batch()
        model.compile(optimizer=RatedAdam(1e-3, rates={"encoder": factor}))
        parts = {"encoder": model.encoder.embed.kernel, "head": model.forecast_head.kernel}
        before = {name: array(v).copy() for name, v in parts.items()}
        model.train_on_batch(x, y)
        moves[factor] = {name: np.abs(array(v) - before[name]).max() for name, v in parts.items()}
    assert moves[0.1]["encoder"] == pytest.approx(0.1 * moves[1.0]["encoder"], rel=1e-3)
    assert moves[0.1]["head"] == pytest.approx(moves[1.0]["head"], rel=1e-3)


def test_rates_come_back_from_a_file(tmp_path):
    model, (x, y) = make("duet"), batch()
    model.compile(optimizer=RatedAdam(1e-3, rates={"encoder": 0.5}))
    model.train_on_batch(x, y)
    model.save(tmp_path / "model.keras")
    assert keras.saving.load_model(tmp_path / "model.keras").optimizer.rates == {"encoder": 0.5}


def test_sample_efficiency_compares_at_every_share():
    made = duet.synthetic(samples=48, context=24, horizon=6, sets=("transformer",))
    source = make("duet", objectives={"masked": 1.0})
    rows = duet.sample_efficiency(source, made["x"], made["y"], made["validation_data"], fractions=(0.5, 1.0), epochs=1)
    assert [row["samples"] for row in rows] == [24, 48]
    assert all(set(row) == {"samples", "scratch", *STRATEGIES} for row in rows)
    assert np.isfinite([list(row.values()) for row in rows]).all()


# The embedded sets


def test_sets_of_every_width_make_one_batch():
    made = duet.synthetic(samples=64, cells=True, domain=True)
    x = made["x"]
    assert x["values"].shape[2] == 12
    widths = {int(d): int(x["feature_mask"][x["domain"] == d].sum(axis=1).max()) for d in np.unique(x["domain"])}
    assert widths == dict(enumerate(duet_data.WIDTHS.values()))
    assert not x["mask"][x["domain"] == 2][..., :10].all()
    assert np.isfinite(x["values"]).all()
    assert np.isfinite(made["y"]).all()


def test_truncation_keeps_what_all_sets_have():
    x = duet.synthetic(samples=64, how="truncate")["x"]
    assert x["values"].shape[2] == min(duet_data.WIDTHS.values())
    assert x["feature_mask"].all()


def test_one_set_alone_keeps_its_own_width():
    assert duet.synthetic(samples=16, sets=("air",))["x"]["values"].shape[2] == 10


def test_the_maker_is_seeded():
    first, again, other = (duet.synthetic(samples=16, seed=s)["x"]["values"] for s in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_shortened_windows_keep_their_last_steps():
    x = {"values": np.arange(5.0).reshape(1, 5, 1), "mask": np.ones((1, 5), bool)}
    short = duet_data.shorten(x, [3])
    assert short["values"].ravel().tolist() == [2, 3, 4, 0, 0]
    assert short["mask"].tolist() == [[True, True, True, False, False]]


def test_a_missing_value_repeats_the_last_one_when_cells_cannot_be_masked():
    x = np.array([[[np.nan], [3.0], [np.nan], [5.0]]])
    assert duet_data.repeat_last(x).ravel().tolist() == [0, 3, 3, 5]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "bound"), [("duet", 1.0), ("patchtst", 0.8), ("nlinear", 0.6)])
def test_the_embedded_run_learns(kind, bound):
    made = duet.synthetic()
    keras.utils.set_random_seed(0)
    model = duet.build(kind=kind)
    history = model.fit(made["x"], made["y"], validation_data=made["validation_data"], epochs=3, verbose=0).history
    assert history["val_loss"][-1] < min(bound, history["val_loss"][0])


@pytest.mark.parametrize("name", ["duet.yaml", pytest.param("duet_pretrain.yaml", marks=pytest.mark.slow)])
def test_the_run_beside_the_model_trains(name):
    assert_run_trains(name)


def test_the_long_recipe_starts_at_a_reduced_size():
    settings = yaml.safe_load((FOLDER / "duet_long.yaml").read_text(encoding="utf-8"))
    assert settings["data"]["use"] == "benchmarks.models_duet_moola:ett"
    args = {**settings["model"]["args"], "width": 16, "heads": 2, "depth": 1}
    model = duet.build(**args)
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(8, steps, 7)).astype("float32") for steps in (args["context"], args["horizon"]))
    history = model.fit(x, y, batch_size=4, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert set(settings["gates"]) == {"val_loss"}


# Public data


@pytest.mark.realdata
@pytest.mark.slow
def test_four_public_sets_train_every_objective_without_a_non_finite_value(record_testsuite_property):
    found, _ = real("ett").run_pretrain()
    record_testsuite_property("four_public_sets_train_every_objective_without_a_non_finite_value", found)
    assert found["finite"]
    falling = {name: (first, last) for name, (first, last) in found["first and last tenth"].items() if last >= first}
    assert falling == {}


@pytest.mark.realdata
@pytest.mark.slow
def test_linear_models_reach_the_published_figure_on_etth1(record_testsuite_property):
    found = real("ett").run_linear()
    record_testsuite_property("linear_models_reach_the_published_figure_on_etth1", found)
    assert found["nlinear"]["mse"] <= 0.385
    assert found["dlinear"]["mse"] <= 0.385


@pytest.mark.realdata
@pytest.mark.slow
def test_supervised_duet_reaches_its_bound_on_etth1(record_testsuite_property):
    found = real("ett").run_duet()["duet"]
    record_testsuite_property("supervised_duet_reaches_its_bound_on_etth1", found)
    assert found["mse"] <= 0.42
    assert found["seconds"] <= 300
    assert found["val_loss"][-1] == min(found["val_loss"])  # the curve still falls when the time is over
