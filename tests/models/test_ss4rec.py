import importlib.util
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from models import ss4rec
from models.ss4rec import layers, ranking, scan
from tests.models import oracles

SMALL = {"num_items": 12, "units": 4, "state": 4, "num_blocks": 1, "dropout": 0.0, "time_unit": 60.0}
EPOCH = 1_500_000_000


def array(tensor):
    return ops.convert_to_numpy(tensor)


def small_batch(seed=0):
    rng = np.random.default_rng(seed)
    histories = [rng.integers(1, 13, n).astype(np.int32) for n in (7, 4, 2)]
    times = [EPOCH + np.cumsum(rng.integers(0, 500, len(h))).astype(np.int64) for h in histories]
    return ranking.training_windows(histories, times, 6)


# --- the scan -------------------------------------------------------------------------------------------------------


def plain_scan(a, b):
    h, out = np.zeros_like(b[:, 0]), []
    for t in range(b.shape[1]):
        h = a[:, t] * h + b[:, t]
        out.append(h)
    return np.stack(out, axis=1)


@pytest.mark.parametrize("method", ["auto", "loop", "tree"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-13)])
@settings(max_examples=15, deadline=None)
@given(length=st.integers(1, 70), seed=st.integers(0, 10_000))
def test_scan_equals_the_recurrence_for_real_and_complex_numbers(method, dtype, tolerance, length, seed):
    rng = np.random.default_rng(seed)
    parts = rng.uniform(-0.9, 0.9, (4, 2, length, 3)).astype(dtype)
    a, b = parts[0] + 1j * parts[1] * 0.3, parts[2] + 1j * parts[3]
    give = ops.convert_to_tensor
    real = scan.linear_scan((give(parts[0]),), (give(parts[2]),), method)
    np.testing.assert_allclose(array(real[0]), plain_scan(parts[0], parts[2]), atol=tolerance)
    both = scan.linear_scan((give(parts[0]), give(parts[1] * 0.3)), (give(parts[2]), give(parts[3])), method)
    np.testing.assert_allclose(array(both[0]) + 1j * array(both[1]), plain_scan(a, b), atol=tolerance)
    if keras.backend.backend() == "torch":
        assert keras.backend.standardize_dtype(both[0].dtype) == dtype


ON_JAX = """
import jax
import numpy as np
from models.ss4rec import scan
from tests.models.test_ss4rec import plain_scan
rng = np.random.default_rng(0)
for dtype, tolerance in (("float32", 1e-5), ("float64", 1e-13)):
    for length in (1, 9, 18):
        p = rng.uniform(-0.9, 0.9, (4, 2, length, 3)).astype(dtype)
        for method in ("loop", "tree"):
            run = jax.jit(lambda a, b, c, d: scan.linear_scan((a, b), (c, d), method))
            real, imaginary = run(p[0], (0.3 * p[1]).astype(dtype), p[2], p[3])
            assert real.dtype == dtype, real.dtype
            exact = plain_scan(p[0] + 0.3j * p[1], p[2] + 1j * p[3])
            np.testing.assert_allclose(np.asarray(real) + 1j * np.asarray(imaginary), exact, atol=tolerance)
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")
def test_scan_equals_the_recurrence_on_jax_too():
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "JAX_ENABLE_X64": "1"}
    done = subprocess.run([sys.executable, "-c", ON_JAX], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_scan_refuses_an_unknown_method():
    with pytest.raises(ValueError, match="'auto', 'loop' or 'tree'"):
        scan.linear_scan((np.ones((1, 2)),), (np.ones((1, 2)),), "parallel")


# --- S5 -------------------------------------------------------------------------------------------------------------


def test_hippo_has_real_part_minus_one_half_and_diagonalises_the_normal_part():
    poles, vectors = layers.hippo(8)
    assert poles.shape == (4,)
    np.testing.assert_allclose(poles.real, -0.5)
    n = np.arange(8)
    legs = -np.where(
        n[:, None] > n, np.sqrt((2 * n[:, None] + 1) * (2 * n + 1)), np.where(n[:, None] == n, n + 1.0, 0.0)
    )
    normal = legs + np.sqrt((n[:, None] + 0.5) * (n + 0.5))
    np.testing.assert_allclose(normal @ vectors, vectors * poles, atol=1e-10)


def dense_s5(layer, u, steps):
    """The full (not halved) state space by matrix exponential of its diagonal, in complex128."""
    w = {v.name: array(v).astype(np.float64) for v in layer.variables}
    poles = -(layers.MIN_DECAY + np.log1p(np.exp(w["raw_decay"]))) + 1j * w["frequency"]
    poles = np.concatenate([poles, poles.conj()])
    b = w["b_real"] + 1j * w["b_imaginary"]
    c = w["c_real"] + 1j * w["c_imaginary"]
    b, c = np.concatenate([b, b.conj()], 1), np.concatenate([c, c.conj()], 0)
    scale = np.exp(np.concatenate([w["log_step"]] * 2))
    x, out, states = np.zeros((len(u), len(poles)), complex), [], []
    for t in range(u.shape[1]):
        dense = np.stack([np.diag(np.exp(poles * s * scale)) for s in steps[:, t]])
        hold = np.stack([(np.exp(poles * s * scale) - 1) / poles for s in steps[:, t]])
        x = np.einsum("bij,bj->bi", dense, x) + hold * (u[:, t] @ b)
        out.append((x @ c).real + w["d"] * u[:, t])
        states.append(x[:, : len(poles) // 2])
    return np.stack(out, 1), np.stack(states, 1)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("float64", 1e-11)])
def test_s5_equals_a_dense_recurrence(dtype, tolerance):
    rng = np.random.default_rng(0)
    with oracles.policy(dtype):
        layer = layers.S5(state=8)
        u, steps = rng.normal(size=(2, 21, 3)).astype(dtype), rng.exponential(5, (2, 21)).astype(dtype)
        got = array(layer(u, steps))
        expected, states = dense_s5(layer, u, steps)
        np.testing.assert_allclose(got, expected, atol=tolerance)
        real, imaginary = layer.states(ops.convert_to_tensor(u), ops.convert_to_tensor(steps))
        np.testing.assert_allclose(array(real) + 1j * array(imaginary), states, atol=tolerance)


def last_state(layer, u, steps):
    real, imaginary = layer.states(ops.convert_to_tensor(u), ops.convert_to_tensor(steps))
    return array(real)[:, -1], array(imaginary)[:, -1]


@settings(max_examples=20, deadline=None)
@given(length=st.integers(1, 12), extra=st.integers(1, 9), seed=st.integers(0, 10_000))
def test_steps_of_zero_do_not_change_the_state_whatever_their_input(length, extra, seed):
    rng = np.random.default_rng(seed)
    with oracles.policy("float64"):
        layer = layers.S5(state=4)
        u, steps = rng.normal(size=(2, length, 3)), rng.exponential(10, (2, length))
        layer(u, steps)
        longer = np.concatenate([u, 100 * rng.normal(size=(2, extra, 3))], 1), np.pad(steps, ((0, 0), (0, extra)))
        np.testing.assert_allclose(last_state(layer, u, steps), last_state(layer, *longer), rtol=1e-10, atol=1e-13)


@settings(max_examples=20, deadline=None)
@given(parts=st.lists(st.floats(0, 50), min_size=1, max_size=12), seed=st.integers(0, 10_000))
def test_irregular_steps_compose_to_one_step_of_their_sum_for_a_constant_input(parts, seed):
    rng = np.random.default_rng(seed)
    with oracles.policy("float64"):
        layer = layers.S5(state=4)
        u, steps = np.tile(rng.normal(size=(1, 1, 3)), (1, len(parts), 1)), np.array([parts])
        layer(u, steps)
        whole = last_state(layer, u[:, :1], steps.sum(axis=1, keepdims=True))
        np.testing.assert_allclose(last_state(layer, u, steps), whole, rtol=1e-9, atol=1e-12)


def test_no_weights_and_no_step_can_make_the_state_grow():
    layer = layers.S5(state=8)
    u, steps = np.ones((2, 5, 3), "float32"), np.full((2, 5), 1.7e9, "float32")
    layer(u, steps)
    for raw in (-1e6, -50.0, 0.0, 1e6):
        layer.raw_decay.assign(np.full(4, raw))
        assert (array(layer.decay) >= layers.MIN_DECAY * (1 - 1e-6)).all()
        assert np.isfinite(array(layer(u, steps))).all()


@pytest.mark.parametrize("size", [1e-12, 1e-8, 1e-4, 1.0])
def test_held_input_is_accurate_for_small_steps_in_float32(size):
    decay, frequency, step = np.float32([0.5]), np.float32([3.0]), np.float32([size])
    _, hold = layers.discretise(*map(ops.convert_to_tensor, (decay, frequency, step)))
    z = complex(-0.5, 3.0) * np.float64(step[0])
    exact = np.float64(step[0]) * (1 + z / 2 + z**2 / 6) if size < 1e-3 else (np.exp(z) - 1) / complex(-0.5, 3.0)
    got = complex(array(hold[0])[0], array(hold[1])[0])
    assert abs(got - exact) / abs(exact) < 1e-5


# --- Mamba ----------------------------------------------------------------------------------------------------------


def plain_mamba(layer, u, mask):
    """The block as the paper's pseudo-code has it: one position, one state at a time, in float64."""
    w = {v.name: array(v).astype(np.float64) for v in layer.variables}
    inner, rank, state = layer.inner, layer.used_rank, layer.state
    silu = lambda z: z / (1 + np.exp(-z))  # noqa: E731
    out = np.zeros(u.shape)
    for row in range(len(u)):
        projected = u[row] @ w["kernel_in"]
        x, gate = projected[:, :inner] * mask[row][:, None], projected[:, inner:]
        h = np.zeros((inner, state))
        for t in range(u.shape[1]):
            taps = [x[t - j] * w["kernel_conv"][layer.width - 1 - j] for j in range(layer.width) if t - j >= 0]
            c_in = silu(np.sum(taps, axis=0) + w["bias_conv"])
            chosen = c_in @ w["kernel_select"]
            step = np.log1p(np.exp(chosen[:rank] @ w["kernel_step"] + w["bias_step"])) * mask[row, t]
            b, c = chosen[rank : rank + state], chosen[rank + state :]
            h = np.exp(step[:, None] * -np.exp(w["a_log"])) * h + (step * c_in)[:, None] * b
            y = h @ c + w["d"] * c_in
            out[row, t] = (y * silu(gate[t])) @ w["kernel_out"]
    return out


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-12)])
def test_mamba_equals_a_plain_selective_scan(dtype, tolerance):
    rng = np.random.default_rng(0)
    with oracles.policy(dtype):
        layer = layers.Mamba(state=3)
        u = 2 * rng.normal(size=(2, 9, 5)).astype(dtype)
        mask = np.array([[True] * 9, [False, False] + [True] * 5 + [False, False]])
        got = array(layer(u, mask))
        np.testing.assert_allclose(got, plain_mamba(layer, u, mask), atol=tolerance)


def test_fresh_mamba_steps_lie_in_their_range():
    layer = layers.Mamba(state=4)
    layer(np.zeros((1, 3, 64), "float32"))
    step = np.log1p(np.exp(array(layer.bias_step)))
    assert step.min() >= layers.STEP_RANGE[0] * 0.99
    assert step.max() <= layers.STEP_RANGE[1] * 1.01
    np.testing.assert_allclose(np.exp(array(layer.a_log)[0]), [1, 2, 3, 4], rtol=1e-6)


# --- time -----------------------------------------------------------------------------------------------------------


def test_differences_of_epoch_seconds_are_exact_where_float32_loses_them():
    times = np.array([[EPOCH, EPOCH + 7, EPOCH + 7]], np.int64)
    steps = layers.TimeSteps(unit=1.0)(times, np.array([[43]], np.int64), np.ones((1, 3), bool))
    np.testing.assert_array_equal(array(steps), [[7, 0, 43]])
    assert (np.diff(np.float32(times)) == 0).all()


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="jax keeps 32 bits unless jax_enable_x64 is set")
def test_times_in_milliseconds_do_not_overflow():
    times = 1000 * np.array([[EPOCH, EPOCH + 10_000_000]], np.int64)
    steps = layers.TimeSteps(unit=1000.0)(times, np.array([[5 * 10**9]], np.int64), np.ones((1, 2), bool))
    np.testing.assert_array_equal(array(steps), [[1e7, 5e6]])


def test_padded_or_reversed_times_are_steps_of_zero():
    times = np.array([[EPOCH, EPOCH - 60, 0], [0, EPOCH, EPOCH + 60]], np.int64)
    mask = np.array([[True, True, False], [False, True, True]])
    steps = layers.TimeSteps(unit=60.0)(times, np.array([[120], [180]], np.int64), mask)
    np.testing.assert_array_equal(array(steps), [[0, 2, 0], [0, 1, 3]])


def test_batches_pad_with_the_last_time():
    x = ranking.batch([np.array([3, 4])], [np.array([EPOCH, EPOCH + 5])], 4, waits=[25])
    np.testing.assert_array_equal(x["timestamps"] - EPOCH, [[0, 5, 5, 5]])
    np.testing.assert_array_equal(x["items"], [[3, 4, 0, 0]])
    assert x["wait"].tolist() == [[25]]
    assert x["timestamps"].dtype == np.int64


def test_timestamps_in_float32_are_refused():
    with pytest.raises(ValueError, match="float32 merges them"):
        ranking.sequences([1, 1], [1, 2], np.array([EPOCH, EPOCH + 1], np.float32))


# --- the model ------------------------------------------------------------------------------------------------------


def test_padded_steps_have_no_influence_on_valid_logits_loss_or_gradients():
    model, (x, y) = ss4rec.build(**SMALL), small_batch()
    rng, padded = np.random.default_rng(1), ~x["mask"]
    dirty = {k: v.copy() for k, v in x.items()}
    dirty["items"][padded] = rng.integers(1, 13, padded.sum())
    dirty["timestamps"][padded] = rng.integers(0, 2 * EPOCH, padded.sum())
    clean, same = oracles.evaluate(model, x, y), oracles.evaluate(model, dirty, y)
    oracles.assert_same(clean, same, rtol=1e-6, valid=x["mask"])


def test_padded_targets_have_no_influence_on_the_loss():
    model, (x, y) = ss4rec.build(**SMALL), small_batch()
    noisy = np.where(x["mask"], y, 5)
    assert oracles.evaluate(model, x, noisy)["loss"] == oracles.evaluate(model, x, y)["loss"]
    assert model.evaluate(x, noisy, verbose=0) == model.evaluate(x, y, verbose=0)


@pytest.mark.parametrize("side", ["left", "right"])
def test_more_padding_changes_nothing(side):
    model, (x, _) = ss4rec.build(**SMALL), small_batch()
    width = ((0, 0), (5, 0) if side == "left" else (0, 5))
    longer = model.predict({k: v if k == "wait" else np.pad(v, width) for k, v in x.items()}, verbose=0)
    kept = longer[:, 5:] if side == "left" else longer[:, :-5]
    np.testing.assert_allclose(kept[x["mask"]], model.predict(x, verbose=0)[x["mask"]], atol=1e-5)


def test_an_event_knows_nothing_of_later_ones():
    model, (x, _) = ss4rec.build(**SMALL), small_batch()
    changed = {k: v.copy() for k, v in x.items()}
    changed["items"][:, 3:] = 1 + changed["items"][:, 3:] % 12
    changed["timestamps"][:, 4:] += 1000  # that of event 3 is when the question at event 2 is asked
    changed["wait"] += 50_000
    before, after = model.predict(x, verbose=0), model.predict(changed, verbose=0)
    np.testing.assert_allclose(before[0, :3], after[0, :3], atol=1e-6)  # the one row with six events
    assert np.abs(before[0, 3:] - after[0, 3:]).max() > 1e-4


def test_only_differences_of_times_count():
    model, (x, _) = ss4rec.build(**SMALL), small_batch()
    earlier = {**x, "timestamps": x["timestamps"] - EPOCH}
    np.testing.assert_array_equal(model.predict(x, verbose=0), model.predict(earlier, verbose=0))


def test_when_the_question_is_asked_matters():
    model, (x, _) = ss4rec.build(**SMALL), small_batch()
    later = {**x, "wait": x["wait"] + 3600}
    assert np.abs(model.predict(x, verbose=0) - model.predict(later, verbose=0)).max() > 1e-5


@pytest.mark.parametrize("gap", [0, 1, 17_000_000, 210_000_000])
def test_any_real_gap_gives_finite_gradients(gap):
    model, (x, y) = ss4rec.build(**SMALL, learning_rate=0.1), small_batch()
    times = EPOCH - 6 * 210_000_000 + gap * np.arange(6, dtype=np.int64)
    x = {**x, "timestamps": np.tile(times, (len(y), 1)), "wait": np.full((len(y), 1), gap)}
    oracles.assert_finite(oracles.evaluate(model, x, y))
    assert np.isfinite(model.fit(x, y, epochs=5, verbose=0).history["loss"]).all()


def test_raw_epoch_seconds_as_unit_stay_finite():
    model, (x, y) = ss4rec.build(**{**SMALL, "time_unit": 1.0}), small_batch()
    oracles.assert_finite(oracles.evaluate(model, {**x, "wait": np.full((len(y), 1), EPOCH)}, y))


def test_rows_without_any_event_are_finite_and_cost_nothing():
    model, (x, y) = ss4rec.build(**SMALL), small_batch()
    empty = oracles.evaluate(model, {**x, "mask": np.zeros_like(x["mask"])}, np.zeros_like(y))
    assert empty["loss"] == 0
    oracles.assert_finite(empty)


def test_loss_by_hand_is_the_mean_over_events_with_a_next_item():
    logits = np.log(np.array([[[0.2, 0.3, 0.5], [0.1, 0.8, 0.1], [0.6, 0.2, 0.2]]], "float32"))
    loss = ss4rec.NextItemLoss()
    assert float(loss(np.array([[2, 1, 0]]), logits)) == pytest.approx(-(np.log(0.5) + np.log(0.8)) / 2, rel=1e-5)
    weighted = loss(np.array([[2, 1, 0]]), logits, np.array([[0.0, 2.0, 1.0]], "float32"))
    assert float(weighted) == pytest.approx(-np.log(0.8), rel=1e-5)


def test_gradients_agree_with_finite_differences_in_float64():
    with oracles.policy("float64"):
        assert oracles.derivative_error(ss4rec.build(**SMALL), *small_batch()) < 1e-7


def test_every_layer_is_built_so_that_keras_does_not_trace_the_model_at_every_batch():
    model, (x, y) = ss4rec.build(**SMALL), small_batch()
    model.train_on_batch(x, y)
    assert [layer.path for layer in model._flatten_layers() if not layer.built] == []


def test_every_weight_gets_a_gradient():
    model, (x, y) = ss4rec.build(**SMALL), small_batch()
    for path, gradient in oracles.evaluate(model, x, y)["gradients"].items():
        assert np.abs(gradient).max() > 0, path


def test_saved_model_returns_the_same_scores(tmp_path):
    model, (x, y) = ss4rec.build(**SMALL), small_batch()
    model.fit(x, y, epochs=1, verbose=0)
    model.save(tmp_path / "ss4rec.keras")
    loaded = keras.saving.load_model(tmp_path / "ss4rec.keras")
    np.testing.assert_array_equal(model.predict(x, verbose=0), loaded.predict(x, verbose=0))
    assert loaded.evaluate(x, y, verbose=0) == pytest.approx(model.evaluate(x, y, verbose=0))


def test_half_precision_runs_finite_with_the_scan_in_float32():
    with oracles.policy("mixed_float16"):
        model, (x, y) = ss4rec.build(**SMALL), small_batch()
        history = model.fit(x, y, epochs=3, verbose=0).history["loss"]
        assert np.isfinite(history).all()
        assert np.isfinite(model.predict(x, verbose=0)).all()
        assert {str(v.dtype) for v in model.get_layer("s5_0").variables} == {"float32"}


def test_scores_are_the_logits_of_the_last_valid_event():
    model, (x, _) = ss4rec.build(**SMALL), small_batch()
    logits = model.predict(x, verbose=0)
    last = x["mask"].sum(axis=1) - 1
    np.testing.assert_allclose(model.scores(x), logits[np.arange(len(last)), last], rtol=1e-5, atol=1e-6)


def test_training_on_synthetic_sessions_ranks_far_above_popularity():
    keras.utils.set_random_seed(0)
    data, model = ss4rec.synthetic(), ss4rec.build()
    losses = model.fit(data["x"], data["y"], validation_data=data["validation_data"], epochs=3, verbose=0).history
    histories, times = ss4rec.interactions()
    x, targets, _ = ss4rec.leave_one_out(histories, times, 50)
    counts = np.bincount(np.concatenate(histories), minlength=121)
    popular = ranking.ranking_metrics(ranking.target_ranks(np.tile(counts, (len(targets), 1)), targets))
    assert losses["val_loss"][-1] < losses["val_loss"][0]
    assert model.rank(x, targets)["ndcg@10"] > 3 * popular["ndcg@10"]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")
def test_torch_and_jax_agree_on_forward_loss_and_gradients(tmp_path):
    model = ss4rec.build()
    here = oracles.evaluate(model, *oracles.first_rows("models.ss4rec"))
    oracles.assert_same(here, oracles.on_jax("models.ss4rec", model.get_weights(), tmp_path))


# --- ranking --------------------------------------------------------------------------------------------------------


def test_core_filter_repeats_until_nothing_is_left_to_drop():
    # Without item 9 user 3 has one row too few, and without user 3 item 1 has.
    users, items = np.array([1, 1, 2, 2, 3, 3, 1]), np.array([2, 3, 2, 3, 1, 9, 1])
    np.testing.assert_array_equal(ranking.core_filter(users, items, 2), [1, 1, 1, 1, 0, 0, 0])
    assert not ranking.core_filter([1, 2], [1, 2], 2).any()


def test_sequences_are_in_time_order_and_ties_keep_the_order_of_the_table():
    histories, times, catalogue = ranking.sequences([7, 3, 7, 7], [50, 10, 20, 40], [9, 1, 5, 9])
    assert [catalogue[h - 1].tolist() for h in histories] == [[10], [20, 50, 40]]
    assert [t.tolist() for t in times] == [[1], [5, 9, 9]]


def test_training_windows_join_each_event_to_the_next_one_and_lose_none():
    history, moments = np.arange(1, 9, dtype=np.int32), EPOCH + 10 * np.arange(8, dtype=np.int64)
    x, y = ranking.training_windows([history], [moments], 3)
    np.testing.assert_array_equal(y[x["mask"]], x["items"][x["mask"]] + 1)
    assert sorted(y[y > 0].tolist()) == list(range(2, 9))
    assert x["wait"].tolist() == [[10]] * 3


def test_leave_one_out_hides_the_target_and_knows_only_when_it_came():
    histories, times = [np.array([1, 2, 3, 4])], [EPOCH + np.array([0, 10, 20, 99])]
    x, targets, seen = ranking.leave_one_out(histories, times, 5)
    assert targets.tolist() == [4]
    assert seen[0].tolist() == [1, 2, 3]
    np.testing.assert_array_equal(x["items"], [[1, 2, 3, 0, 0]])
    assert x["wait"].tolist() == [[79]]


def test_ranks_and_metrics_by_hand():
    scores = np.array([[9.0, 0.1, 0.9, 0.5, 0.4], [9.0, 0.3, 0.3, 0.3, 0.3]])
    ranks = ranking.target_ranks(scores, np.array([3, 1]), seen=[[2], []])
    np.testing.assert_array_equal(ranks, [1, 2.5])
    metrics = ranking.ranking_metrics([1, 3, 11], k=10)
    assert metrics["hr@10"] == pytest.approx(2 / 3)
    assert metrics["ndcg@10"] == pytest.approx((1 + 0.5) / 3)
    assert metrics["mrr@10"] == pytest.approx((1 + 1 / 3) / 3)


def test_scores_that_are_not_numbers_cannot_be_ranked():
    with pytest.raises(ValueError, match="1 of 1 targets"):
        ranking.target_ranks(np.array([[0.0, np.nan]]), np.array([1]))


@pytest.mark.slow
@pytest.mark.realdata
def test_movielens_is_ranked_better_than_by_popularity(record_testsuite_property):
    bench = pytest.importorskip("benchmarks.models_tft_cloud_ss4rec")
    if not bench.data_folder().is_dir():
        pytest.skip(f"no real data at {bench.data_folder()}; set TSGUARD_DATA")
    figures = bench.COMMANDS["ss4rec-movielens"]()
    record_testsuite_property("movielens_is_ranked_better_than_by_popularity", figures)
    assert figures["ndcg@10"] > figures["ndcg@10_popularity"]
