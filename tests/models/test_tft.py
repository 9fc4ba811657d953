import importlib.util

import keras
import numpy as np
import pytest
from keras import ops

from models import common, tft
from tests.models import oracles

SMALL = {"num_values": 3, "num_targets": 2, "horizon": 4, "num_known": 2, "num_static": 2, "units": 4, "dropout": 0.0}


def small_batch(dtype="float32", seed=0):
    rng = np.random.default_rng(seed)
    mask = np.arange(6) < np.array([6, 4, 1])[:, None]
    x = {
        "values": rng.normal(size=(3, 6, 3)).astype(dtype),
        "mask": mask,
        "known": rng.normal(size=(3, 4, 2)).astype(dtype),
        "static": rng.normal(size=(3, 2)).astype(dtype),
    }
    return x, rng.normal(size=(3, 4, 2)).astype(dtype)


def array(tensor):
    return ops.convert_to_numpy(tensor)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def layer_norm(x):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-3)


def test_gated_linear_unit_is_value_times_sigmoid_of_gate():
    glu = tft.GatedLinearUnit(1)
    glu.build((None, 2))
    glu.set_weights([np.array([[1.0], [2.0]]), np.array([0.5]), np.array([[0.0], [1.0]]), np.array([-1.0])])
    assert array(glu(np.array([[3.0, 1.0]], "float32"))) == pytest.approx(5.5 * 0.5)


def test_gated_residual_network_matches_its_formula_by_hand():
    rng = np.random.default_rng(0)
    grn = tft.GatedResidualNetwork(3, output_units=2)
    x, c = rng.normal(size=(2, 5, 4)).astype("float32"), rng.normal(size=(2, 3)).astype("float32")
    grn(x, c)
    w = {v.path.split("/", 1)[1]: rng.normal(size=v.shape) for v in grn.trainable_variables}
    w["gate/norm/gamma"], w["gate/norm/beta"] = np.ones(2), np.zeros(2)
    for v in grn.trainable_variables:
        v.assign(w[v.path.split("/", 1)[1]])
    hidden = x @ w["hidden/kernel"] + w["hidden/bias"] + (c @ w["context/kernel"])[:, None]
    elu = np.where(hidden > 0, hidden, np.expm1(np.minimum(hidden, 0)))
    eta = elu @ w["linear/kernel"] + w["linear/bias"]
    gated = (eta @ w["gate/glu/value/kernel"] + w["gate/glu/value/bias"]) * sigmoid(
        eta @ w["gate/glu/gate/kernel"] + w["gate/glu/gate/bias"]
    )
    expected = layer_norm(x @ w["skip/kernel"] + w["skip/bias"] + gated)
    np.testing.assert_allclose(array(grn(x, c)), expected, atol=1e-5)


def test_variable_selection_weights_are_a_distribution_over_the_variables():
    layer = tft.VariableSelection(4)
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
    combined, weights = layer(x)
    assert tuple(combined.shape) == (2, 5, 4)
    assert tuple(weights.shape) == (2, 5, 3)
    np.testing.assert_allclose(array(weights).sum(-1), 1, atol=1e-6)


def test_variable_selection_that_chooses_one_variable_returns_its_network():
    layer = tft.VariableSelection(4)
    x = np.random.default_rng(0).normal(size=(2, 3)).astype("float32")
    layer(x)
    layer.chooser.gate.norm.beta.assign([0.0, 60.0, 0.0])
    combined, _ = layer(x)
    alone = layer.networks[1](layer.embeddings[1](x[:, 1:2]))
    np.testing.assert_allclose(array(combined), array(alone), atol=1e-5)


def test_attention_by_hand_on_a_tiny_case():
    attention = tft.InterpretableAttention(units=2, num_heads=2)
    attention.build((None, 2, 2), (None, 3, 2))
    one = np.ones((2, 2, 1))
    attention.set_weights([0.0 * one, one, np.array([[1.0], [0.0]]), np.array([[1.0, 2.0]])])
    key = np.array([[[3.0, 0.0], [6.0, 0.0], [9.0, 0.0]]], "float32")
    out, weights = attention(key[:, -2:], key, np.ones((1, 3), bool))
    # Queries are zero, so every allowed key counts the same: the second step sees two keys, the third three.
    np.testing.assert_allclose(array(weights), [[[0.5, 0.5, 0.0], [1 / 3, 1 / 3, 1 / 3]]], atol=1e-6)
    np.testing.assert_allclose(array(out), [[[4.5, 9.0], [6.0, 12.0]]], atol=1e-5)


def test_attention_shares_one_value_projection_over_all_heads():
    attention = tft.InterpretableAttention(units=8, num_heads=4)
    attention.build((None, 2, 8), (None, 3, 8))
    assert tuple(attention.value.kernel.shape) == (8, 2)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_forbidden_keys_get_exactly_no_attention_in_every_dtype(dtype):
    attention = tft.InterpretableAttention(units=4, num_heads=2, dtype=dtype)
    key = 30 * np.random.default_rng(0).normal(size=(2, 5, 4))
    mask = np.array([[True, True, False, True, True], [False] * 5])
    out, weights = attention(ops.cast(key[:, -3:], dtype), ops.cast(key, dtype), mask)
    weights = array(ops.cast(weights, "float32"))
    assert np.isfinite(array(ops.cast(out, "float32"))).all()
    assert (weights[0, :, 2] == 0).all()
    assert (weights[0, 0, 3:] == 0).all()
    np.testing.assert_allclose(weights[0].sum(-1), 1, atol=1e-2)
    assert (weights[1] == 0).all()


def test_lowest_is_finite_in_its_own_dtype_where_minus_one_billion_is_not():
    assert np.isfinite(np.float16(common.lowest("float16")))
    assert np.isfinite(np.float32(common.lowest("float32")))
    with np.errstate(over="ignore"):
        assert np.isinf(np.float16(-1e9))


def test_explain_reads_attention_that_is_causal_and_ignores_padding():
    model, (x, _) = tft.build(**SMALL), small_batch()
    readings = model.explain(x)
    assert readings["attention"].shape == (3, 4, 10)
    assert (readings["attention"][1, :, 4:6] == 0).all()
    for step in range(4):
        assert (readings["attention"][:, step, 7 + step :] == 0).all()
    np.testing.assert_allclose(readings["attention"].sum(-1), 1, atol=1e-5)
    assert readings["static_variables"].shape == (3, 2)


def test_a_horizon_step_knows_nothing_of_covariates_after_it():
    model, (x, _) = tft.build(**SMALL), small_batch()
    changed = {**x, "known": x["known"].copy()}
    changed["known"][:, 2:] += 5
    before, after = model.predict(x, verbose=0), model.predict(changed, verbose=0)
    np.testing.assert_array_equal(before[:, :2], after[:, :2])
    assert np.abs(before[:, 2:] - after[:, 2:]).max() > 1e-3


def test_static_contexts_start_the_states_of_the_encoder():
    model, (x, _) = tft.build(**SMALL), small_batch()
    states = keras.Model(model.inputs, model.get_layer("encoder").output[1])
    other = {**x, "static": x["static"] + 1, "mask": np.zeros_like(x["mask"])}
    without_past = {**x, "mask": np.zeros_like(x["mask"])}
    assert np.abs(states.predict(other, verbose=0) - states.predict(without_past, verbose=0)).max() > 1e-4


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("filling", [7.0, np.nan, np.inf])
def test_padded_steps_have_no_influence_on_output_loss_or_gradients(filling, relative):
    model, (x, y) = tft.build(**SMALL, relative=relative), small_batch()
    dirty = {**x, "values": np.where(x["mask"][..., None], x["values"], filling).astype("float32")}
    clean = {**x, "values": np.where(x["mask"][..., None], x["values"], 0).astype("float32")}
    oracles.assert_same(oracles.evaluate(model, clean, y), oracles.evaluate(model, dirty, y), rtol=1e-6)


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("side", ["left", "right"])
def test_more_padding_changes_nothing(side, relative):
    model, (x, _) = tft.build(**SMALL, relative=relative), small_batch()
    width = ((0, 0), (3, 0) if side == "left" else (0, 3))
    longer = {**x, "values": np.pad(x["values"], (*width, (0, 0))), "mask": np.pad(x["mask"], width)}
    np.testing.assert_allclose(model.predict(x, verbose=0), model.predict(longer, verbose=0), atol=1e-6)


def test_relative_forecasts_move_with_the_level_of_the_series():
    model, (x, _) = tft.build(**SMALL, relative=True), small_batch()
    level = np.array([100.0, -3.0, 7.0], "float32")
    moved = model.predict({**x, "values": x["values"] + level}, verbose=0)
    np.testing.assert_allclose(moved, model.predict(x, verbose=0) + level[:2, None], atol=1e-3)
    with pytest.raises(ValueError, match="received 4 of 3"):
        tft.build(**{**SMALL, "num_targets": 4}, relative=True)


def test_a_row_without_any_past_is_finite():
    model, (x, y) = tft.build(**SMALL), small_batch()
    oracles.assert_finite(oracles.evaluate(model, {**x, "mask": np.zeros_like(x["mask"])}, y))


def test_gradients_agree_with_finite_differences_in_float64():
    with oracles.policy("float64"):
        model = tft.build(**SMALL)
        assert oracles.derivative_error(model, *small_batch("float64")) < 1e-7


def test_every_layer_is_built_so_that_keras_does_not_trace_the_model_at_every_batch():
    model, (x, y) = tft.build(**SMALL), small_batch()
    model.train_on_batch(x, y)
    assert [layer.path for layer in model._flatten_layers() if not layer.built] == []


def test_every_weight_gets_a_gradient():
    model, (x, y) = tft.build(**SMALL), small_batch()
    for path, gradient in oracles.evaluate(model, x, y)["gradients"].items():
        assert np.abs(gradient).max() > 1e-9, path


def test_quantile_loss_by_hand():
    loss = tft.QuantileLoss((0.1, 0.9))
    y, y_pred = np.array([[[10.0]]], "float32"), np.array([[[[8.0, 13.0]]]], "float32")
    terms = loss.terms(y, y_pred)
    assert float(terms["target_0/q0.1"]) == pytest.approx(0.1 * 2)
    assert float(terms["target_0/q0.9"]) == pytest.approx(0.1 * 3)
    assert float(loss(y, y_pred)) == pytest.approx(0.5)


def test_quantile_loss_is_smallest_at_the_quantile():
    sample = np.random.default_rng(0).exponential(size=(2000, 1, 1)).astype("float32")
    loss, grid = tft.QuantileLoss((0.9,)), np.linspace(1, 4, 61, dtype="float32")
    values = [float(loss(sample, np.full((2000, 1, 1, 1), g, "float32"))) for g in grid]
    assert grid[int(np.argmin(values))] == pytest.approx(np.quantile(sample, 0.9), abs=0.06)


def test_a_target_of_weight_zero_may_be_missing():
    model, (x, y) = tft.build(**SMALL), small_batch()
    weight = np.ones(y.shape, "float32")
    weight[0, 1], weight[2] = 0, 0
    missing = np.where(weight > 0, y, np.nan).astype("float32")
    oracles.assert_same(oracles.evaluate(model, x, y, weight), oracles.evaluate(model, x, missing, weight))
    empty = oracles.evaluate(model, x, missing, np.zeros_like(weight))
    assert empty["loss"] == 0
    oracles.assert_finite(empty)


def test_loss_terms_add_up_to_the_loss_of_the_step():
    model, (x, y) = tft.build(**SMALL), small_batch()
    terms = model.loss_terms(x, y, model.predict(x, verbose=0))
    assert len(terms) == 2 * 3
    assert sum(map(float, terms.values())) == pytest.approx(model.evaluate(x, y, verbose=0), rel=1e-5)


def test_q_risk_by_hand_for_each_target_and_quantile():
    y = np.array([[10.0, -4.0], [20.0, 0.0]])
    y_pred = np.stack([y - 2, y + 1], axis=-1)
    risk = tft.q_risk(y, y_pred, (0.1, 0.9))
    np.testing.assert_allclose(risk[0], [2 * 0.1 * 4 / 30, 2 * 0.1 * 2 / 30])
    np.testing.assert_allclose(risk[1], [2 * 0.1 * 4 / 4, 2 * 0.1 * 2 / 4])


def test_q_risk_leaves_out_what_has_no_weight_and_has_no_value_without_scale():
    y = np.array([[np.nan, 0.0], [20.0, 0.0]])
    risk = tft.q_risk(y, np.zeros((2, 2, 1)), (0.5,), weight=[[0, 1], [1, 1]])
    assert risk[0, 0] == pytest.approx(1.0)
    assert np.isnan(risk[1, 0])


def test_normaliser_treats_every_target_and_group_by_itself():
    rng = np.random.default_rng(0)
    y = np.concatenate([rng.normal([5, 1e6], [2, 1e5], (50, 2)), rng.normal([-5, 0], [1, 1], (50, 2))])
    normalizer = tft.TargetNormalizer().fit(y, groups=["a"] * 50 + ["b"] * 50)
    for group, rows in (("a", y[:50]), ("b", y[50:])):
        scaled = normalizer.transform(rows, group)
        np.testing.assert_allclose(scaled.mean(0), 0, atol=1e-9)
        np.testing.assert_allclose(scaled.std(0), 1, atol=1e-9)
        np.testing.assert_allclose(normalizer.inverse(scaled, group), rows, rtol=1e-9)


def test_normaliser_of_a_group_of_one_and_of_a_constant_is_finite():
    y = np.array([[1.0, 3.0], [2.0, 3.0], [9.0, 3.0]])
    normalizer = tft.TargetNormalizer().fit(y, groups=[0, 0, 1])
    scaled = normalizer.transform(y[2:], 1)
    assert np.isfinite(scaled).all()
    np.testing.assert_allclose(normalizer.inverse(scaled, 1), y[2:])
    assert np.isfinite(normalizer.transform(y, group="never seen")).all()


def test_log_targets_come_back_and_keep_the_order_of_quantiles():
    y = np.random.default_rng(0).lognormal(8, 2, (100, 2))
    normalizer = tft.TargetNormalizer(log=(True, False)).fit(y)
    np.testing.assert_allclose(normalizer.inverse(normalizer.transform(y)), y, rtol=1e-9)
    rising = normalizer.inverse(np.array([[[-1.0, 0.0, 2.0]] * 2]), quantiles=True)
    assert (np.diff(rising) > 0).all()
    with pytest.raises(ValueError, match="above -1"):
        normalizer.transform(-y)


def test_windows_join_the_past_to_the_steps_that_follow_it():
    series = np.arange(20.0)[:, None]
    cut = tft.windows(series, past=5, horizon=3, stride=2, known=10 * series)
    assert (cut["target"][:, 0, 0] == cut["values"][:, -1, 0] + 1).all()
    assert (cut["known"] == 10 * cut["target"]).all()
    assert cut["target"].max() <= 19
    assert len(cut["origin"]) == 7


def test_a_model_without_covariates_or_static_facts_trains():
    model = tft.build(**{**SMALL, "num_known": 0, "num_static": 0})
    x, y = small_batch()
    model.fit({k: x[k] for k in ("values", "mask")}, y, epochs=1, verbose=0)
    assert set(model.explain({k: x[k] for k in ("values", "mask")})) == {
        "attention",
        "past_variables",
        "future_variables",
    }


def test_units_that_heads_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="units=5, num_heads=2"):
        tft.build(**{**SMALL, "units": 5})


def test_saved_model_returns_the_same_forecast_and_keeps_training(tmp_path):
    model, (x, y) = tft.build(**SMALL), small_batch()
    model.fit(x, y, epochs=1, verbose=0)
    model.save(tmp_path / "tft.keras")
    loaded = keras.saving.load_model(tmp_path / "tft.keras")
    np.testing.assert_array_equal(model.predict(x, verbose=0), loaded.predict(x, verbose=0))
    model.fit(x, y, epochs=1, shuffle=False, verbose=0)
    loaded.fit(x, y, epochs=1, shuffle=False, verbose=0)
    np.testing.assert_array_equal(model.predict(x, verbose=0), loaded.predict(x, verbose=0))


def test_half_precision_runs_finite():
    with oracles.policy("mixed_float16"):
        model, (x, y) = tft.build(**SMALL), small_batch()
        x = {**x, "values": np.where(x["mask"][..., None], x["values"], np.nan).astype("float32")}
        history = model.fit(x, y, epochs=3, verbose=0).history["loss"]
    assert np.isfinite(history).all()
    assert np.isfinite(model.predict(x, verbose=0)).all()


def test_synthetic_data_is_seeded_padded_and_learned():
    keras.utils.set_random_seed(0)
    data, again = tft.synthetic(), tft.synthetic()
    np.testing.assert_array_equal(data["x"]["values"], again["x"]["values"])
    assert not data["x"]["mask"].all()
    assert data["x"]["mask"].any(axis=1).all()
    history = (
        tft.build().fit(data["x"], data["y"], validation_data=data["validation_data"], epochs=3, verbose=0).history
    )
    assert history["val_loss"][-1] < 0.9 * history["val_loss"][0]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")
def test_torch_and_jax_agree_on_forward_loss_and_gradients(tmp_path):
    model = tft.build()
    here = oracles.evaluate(model, *oracles.first_rows("models.tft"))
    oracles.assert_same(here, oracles.on_jax("models.tft", model.get_weights(), tmp_path))


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.parametrize("recipe", ["tft-nab", "tft-etth1"])
def test_forecasts_of_real_series_beat_the_last_value_in_q_risk(recipe, record_testsuite_property):
    bench = pytest.importorskip("benchmarks.models_tft_cloud_ss4rec")
    if not bench.data_folder().is_dir():
        pytest.skip(f"no real data at {bench.data_folder()}; set TSGUARD_DATA")
    figures = bench.COMMANDS[recipe]()
    record_testsuite_property(recipe, figures)
    assert figures["q_risk"] < figures["q_risk_last_value"]
