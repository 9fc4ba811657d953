import importlib.util

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from models import cloud
from tests.models import oracles

SMALL = {"frame_shape": (6, 9, 2), "num_frames": 4, "filters": (3, 4), "units": 4, "num_heads": 2, "dropout": 0.0}


def small_batch(dtype="float32", seed=0):
    rng = np.random.default_rng(seed)
    mask = np.arange(4) < np.array([4, 2, 1])[:, None]
    x = {
        "frames": rng.normal(size=(3, 4, 6, 9, 2)).astype(dtype),
        "mask": mask,
        "aux": rng.normal(size=(3, 2)).astype(dtype),
    }
    return x, rng.normal(size=(3, 1)).astype(dtype)


def array(tensor):
    return ops.convert_to_numpy(tensor)


# --- the model ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("filling", [5.0, np.nan, -np.inf])
def test_absent_frames_have_no_influence_on_output_loss_or_gradients(filling):
    model, (x, y) = cloud.build(**SMALL), small_batch()
    there = x["mask"][..., None, None, None]
    clean = {**x, "frames": np.where(there, x["frames"], 0).astype("float32")}
    dirty = {**x, "frames": np.where(there, x["frames"], filling).astype("float32")}
    oracles.assert_same(oracles.evaluate(model, clean, y), oracles.evaluate(model, dirty, y), rtol=1e-6)


@pytest.mark.parametrize("num_frames", [1, 4])
@pytest.mark.parametrize("side", ["left", "right"])
def test_more_padding_changes_nothing(num_frames, side):
    model, (x, _) = cloud.build(**{**SMALL, "num_frames": num_frames}), small_batch()
    width = ((0, 0), (3, 0) if side == "left" else (0, 3))
    longer = {**x, "frames": np.pad(x["frames"], (*width, (0, 0), (0, 0), (0, 0))), "mask": np.pad(x["mask"], width)}
    np.testing.assert_allclose(model.predict(x, verbose=0), model.predict(longer, verbose=0), atol=1e-6)


def test_rows_do_not_see_each_other():
    model, (x, _) = cloud.build(**SMALL), small_batch()
    alone = model.predict({k: v[1:2] for k, v in x.items()}, verbose=0)
    np.testing.assert_allclose(model.predict(x, verbose=0)[1:2], alone, atol=1e-6)


def test_a_row_without_frames_is_finite():
    model, (x, y) = cloud.build(**SMALL), small_batch()
    oracles.assert_finite(oracles.evaluate(model, {**x, "mask": np.zeros_like(x["mask"])}, y))


def test_the_order_of_frames_matters():
    model, (x, _) = cloud.build(**SMALL), small_batch()
    turned = {**x, "frames": x["frames"].copy()}
    turned["frames"][0, :3] = x["frames"][0, :3][::-1]
    one, other = model.predict(x, verbose=0), model.predict(turned, verbose=0)
    assert abs(one - other)[0, 0] > 1e-5 * abs(one).max()  # a hundred times rounding


def test_attention_by_hand():
    layer = cloud.TemporalAttention(max_frames=3, num_heads=1)
    layer.build((None, 3, 1), (None, 3))
    layer.age.assign(np.zeros((3, 1)))
    for dense in (layer.query, layer.key, layer.value):
        dense.kernel.assign(np.ones((1, 1, 1)))
    frames = np.array([[[1.0], [2.0], [9.0]]], "float32")
    out, weights = layer(frames, np.array([[True, True, False]]))
    expected = np.exp([2.0, 4.0]) / np.exp([2.0, 4.0]).sum()
    np.testing.assert_allclose(array(weights)[0, 0], [*expected, 0.0], atol=1e-6)
    np.testing.assert_allclose(array(out)[0], [2.0, expected @ [1.0, 2.0]], atol=1e-5)


def test_explain_reads_weights_that_skip_absent_frames():
    model, (x, _) = cloud.build(**SMALL), small_batch()
    weights = model.explain(x)["attention"]
    assert weights.shape == (3, 2, 4)
    assert (weights[~np.repeat(x["mask"][:, None], 2, axis=1)] == 0).all()
    np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-5)


def test_every_layer_is_built_so_that_keras_does_not_trace_the_model_at_every_batch():
    model, (x, y) = cloud.build(**SMALL), small_batch()
    model.train_on_batch(x, y)
    assert [layer.path for layer in model._flatten_layers() if not layer.built] == []


@pytest.mark.parametrize("num_frames", [1, 4])
def test_every_weight_gets_a_gradient(num_frames):
    model, (x, y) = cloud.build(**{**SMALL, "num_frames": num_frames}), small_batch()
    for path, gradient in oracles.evaluate(model, x, y)["gradients"].items():
        assert np.abs(gradient).max() > 1e-9, path


def test_output_starts_at_the_mean_with_the_spread_that_was_asked_for():
    x, _ = small_batch()
    narrow = cloud.build(**SMALL, output_init=1e-4, output_bias=3.0).predict(x, verbose=0)
    wide = cloud.build(**SMALL, output_init=5.0, output_bias=3.0).predict(x, verbose=0)
    np.testing.assert_allclose(narrow, 3.0, atol=0.01)
    assert wide.std() > 100 * narrow.std()


def test_auxiliary_inputs_matter_and_may_be_left_out():
    x, _ = small_batch()
    model = cloud.build(**SMALL)
    other = {**x, "aux": x["aux"] + 1}
    assert np.abs(model.predict(x, verbose=0) - model.predict(other, verbose=0)).max() > 1e-4
    without = cloud.build(**{**SMALL, "num_aux": 0})
    assert without.predict({k: x[k] for k in ("frames", "mask")}, verbose=0).shape == (3, 1)


@pytest.mark.parametrize("num_frames", [0, 8])
def test_more_frames_than_seven_or_fewer_than_one_are_refused(num_frames):
    with pytest.raises(ValueError, match=f"1 to 7; received {num_frames}"):
        cloud.build(**{**SMALL, "num_frames": num_frames})


def test_gradients_agree_with_finite_differences_in_float64():
    with oracles.policy("float64"):
        model = cloud.build(**SMALL, loss="variance")
        assert oracles.derivative_error(model, *small_batch("float64")) < 1e-7


def test_saved_model_returns_the_same_predictions_and_loss(tmp_path):
    model, (x, y) = cloud.build(**SMALL, loss="huber", delta=0.3), small_batch()
    model.fit(x, y, epochs=1, verbose=0)
    model.save(tmp_path / "cloud.keras")
    loaded = keras.saving.load_model(tmp_path / "cloud.keras")
    np.testing.assert_array_equal(model.predict(x, verbose=0), loaded.predict(x, verbose=0))
    assert loaded.evaluate(x, y, verbose=0) == pytest.approx(model.evaluate(x, y, verbose=0))


@pytest.mark.parametrize("kind", cloud.LOSSES)
def test_half_precision_runs_finite(kind):
    with oracles.policy("mixed_float16"):
        model, (x, y) = cloud.build(**SMALL, loss=kind), small_batch()
        history = model.fit(x, y, epochs=3, verbose=0).history["loss"]
        assert np.isfinite(history).all()
        assert np.isfinite(model.predict(x, verbose=0)).all()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")
def test_torch_and_jax_agree_on_forward_loss_and_gradients(tmp_path):
    model = cloud.build()
    here = oracles.evaluate(model, *oracles.first_rows("models.cloud"))
    oracles.assert_same(here, oracles.on_jax("models.cloud", model.get_weights(), tmp_path))


# --- the losses -----------------------------------------------------------------------------------------------------

Y = np.array([[0.0], [1.0], [2.0], [3.0]], "float32")


def test_losses_by_hand():
    flat, off = np.full_like(Y, 1.5), Y + 2
    assert float(cloud.RegressionLoss("mse")(Y, flat)) == pytest.approx(1.25)
    assert float(cloud.RegressionLoss("huber", delta=1.0)(Y, flat)) == pytest.approx((2 * 0.125 + 2 * (1.5 - 0.5)) / 4)
    assert float(cloud.RegressionLoss("ccc")(Y, Y)) == pytest.approx(0, abs=1e-6)
    assert float(cloud.RegressionLoss("ccc")(Y, off)) == pytest.approx(1 - 2 * 1.25 / (1.25 + 1.25 + 4))
    half = cloud.RegressionLoss("variance", variance_weight=0.5).terms(Y, 1.5 + (Y - 1.5) / 2)
    assert float(half["mse"]) == pytest.approx(1.25 / 4)
    assert float(half["variance"]) == pytest.approx(0.5 * (1 - 2 * 0.5 / 1.25), rel=1e-4)


@settings(max_examples=40, deadline=None)
@given(scale=st.floats(0, 1e4), shift=st.floats(-1e3, 1e3))
def test_the_variance_term_is_bounded_whatever_is_predicted(scale, shift):
    loss = cloud.RegressionLoss("variance", variance_weight=1.0)
    term = float(loss.terms(Y, (Y * scale + shift).astype("float32"))["variance"])
    assert -1e-5 <= term <= 1.0


@pytest.mark.parametrize("kind", cloud.LOSSES)
def test_constant_predictions_and_constant_targets_leave_finite_gradients(kind):
    model, (x, y) = cloud.build(**SMALL, loss=kind, output_init=1e-9), small_batch()
    oracles.assert_finite(oracles.evaluate(model, x, y))
    oracles.assert_finite(oracles.evaluate(model, x, np.ones_like(y)))
    first = {k: v[:1] for k, v in x.items()}
    oracles.assert_finite(oracles.evaluate(model, first, y[:1]))


@pytest.mark.parametrize("kind", cloud.LOSSES)
def test_rows_of_weight_zero_may_be_missing_and_count_for_nothing(kind):
    loss = cloud.RegressionLoss(kind, overweight=2.0)
    y_pred, weight = Y[::-1] * 0.4, np.array([1.0, 0.0, 2.0, 1.0], "float32")
    missing = Y.copy()
    missing[1] = np.nan
    expected = loss(Y[[0, 2, 2, 3]], y_pred[[0, 2, 2, 3]])
    assert float(loss(missing, y_pred, weight)) == pytest.approx(float(expected), rel=1e-5)
    assert float(loss(missing, y_pred, 0 * weight)) == pytest.approx(0)


def test_overweighting_counts_high_targets_more():
    y_pred = Y + np.array([[0.0], [0.0], [1.0], [1.0]], "float32")
    loss = cloud.RegressionLoss("mse", overweight=3.0, overweight_above=1.5)
    assert float(loss(Y, y_pred)) == pytest.approx(8 / 10)


def test_targets_without_a_trailing_axis_do_not_broadcast():
    loss = cloud.RegressionLoss("mse")
    assert float(loss(Y[:, 0], Y)) == 0


@pytest.mark.parametrize("kind", cloud.LOSSES)
def test_loss_terms_add_up_to_the_loss_of_the_step(kind):
    model, (x, y) = cloud.build(**SMALL, loss=kind), small_batch()
    terms = model.loss_terms(x, y, model.predict(x, verbose=0))
    assert sum(map(float, terms.values())) == pytest.approx(model.evaluate(x, y, verbose=0), rel=1e-5)


def test_an_unknown_loss_is_refused():
    with pytest.raises(ValueError, match="'r2'"):
        cloud.build(**SMALL, loss="r2")


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.01, 3), shift=st.floats(-2, 2))
def test_r2_is_its_decomposition(seed, scale, shift):
    y, noise = np.random.default_rng(seed).normal(size=(2, 50))
    parts = cloud.decompose(y, scale * (y + noise) + shift)
    rho, s = parts["correlation"], parts["std_ratio"]
    assert parts["r2"] == pytest.approx(2 * rho * s - s**2 - parts["bias2_over_var"], rel=1e-9, abs=1e-9)


def test_forcing_the_full_spread_harms_a_weak_correlation_as_the_docstring_says():
    assert 2 * 0.143 * 1 - 1 == pytest.approx(-0.714)
    spreads = np.linspace(0, 1, 1001)
    assert spreads[np.argmax(2 * 0.143 * spreads - spreads**2)] == pytest.approx(0.143, abs=1e-3)


# --- pre-training, baselines, data ----------------------------------------------------------------------------------


def test_pretraining_uses_every_valid_frame_changes_only_the_encoder_and_learns():
    keras.utils.set_random_seed(0)
    data, model = cloud.synthetic(num_samples=60), cloud.build()
    before = {v.path: array(v).copy() for v in model.variables}
    result = cloud.pretrain(model, data["x"]["frames"], mask=data["x"]["mask"], epochs=4)
    assert result["frames"] == data["x"]["mask"].sum()
    assert result["explained"] > 0.1
    changed = {v.path for v in model.variables if (array(v) != before[v.path]).any()}
    assert changed == {path for path in before if path.startswith("encoder/")}
    model.fit(data["x"], data["y"], epochs=1, verbose=0)


def test_pretraining_stops_with_patience_and_keeps_the_best_weights():
    keras.utils.set_random_seed(0)
    frames = np.random.default_rng(0).normal(size=(20, 6, 9, 2)).astype("float32")  # noise: nothing carries over
    model = cloud.build(**SMALL)
    result = cloud.pretrain(model, frames, epochs=60, patience=2, learning_rate=0.05)
    assert result["epochs"] < 60
    with pytest.raises(ValueError, match="leave none"):
        cloud.pretrain(model, frames, validation_share=0.0)


@pytest.mark.slow
def test_synthetic_data_is_seeded_and_learned_as_well_as_by_boosted_trees():
    ensemble = pytest.importorskip("sklearn.ensemble")
    keras.utils.set_random_seed(0)
    data, again = cloud.synthetic(), cloud.synthetic()
    np.testing.assert_array_equal(data["x"]["frames"], again["x"]["frames"])
    held, truth = data["validation_data"]
    features = [
        np.concatenate([cloud.simple_features(x["frames"], x["mask"]), x["aux"]], axis=1) for x in (data["x"], held)
    ]
    trees = ensemble.GradientBoostingRegressor(random_state=0).fit(features[0], data["y"][:, 0])
    boosted = cloud.decompose(truth, trees.predict(features[1]))
    model = cloud.build()
    model.fit(data["x"], data["y"], epochs=8, verbose=0)
    reached = cloud.decompose(truth, model.predict(held, verbose=0))
    assert boosted["r2"] > 0.5
    assert reached["r2"] > boosted["r2"] - 0.1


def test_simple_features_begin_with_the_newest_valid_frame():
    frames = np.arange(3.0)[None, :, None, None, None] * np.ones((1, 3, 4, 4, 1))
    whole = cloud.simple_features(frames, grid=2).reshape(3, 8)
    assert whole[:, 0].tolist() == [2, 1, 0]
    padded = cloud.simple_features(frames, mask=[[True, True, False]], grid=2).reshape(3, 8)
    assert padded[:, 0].tolist() == [1, 0, 0]


def test_sequences_join_frames_to_the_field_that_lies_ahead():
    frames, target = cloud.sequences(np.arange(12.0), num_frames=3, ahead=6)
    assert (frames[:, -1] + 6 == target).all()
    assert target.max() == 11


@pytest.mark.slow
@pytest.mark.realdata
def test_temperature_six_hours_ahead_is_forecast_with_positive_skill(record_testsuite_property):
    bench = pytest.importorskip("benchmarks.models_tft_cloud_ss4rec")
    if not bench.data_folder().is_dir():
        pytest.skip(f"no real data at {bench.data_folder()}; set TSGUARD_DATA")
    figures = bench.COMMANDS["cloud-era5"]()
    record_testsuite_property("temperature_six_hours_ahead_is_forecast_with_positive_skill", figures)
    assert figures["r2"] > 0.2
    assert figures["r2_persistence"] < 0
