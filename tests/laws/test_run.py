"""The laws leave the model as they found it, shrink, speak plainly, and emit a test that fails today."""

from __future__ import annotations

import random

import keras
import numpy as np
import pytest
from keras import layers, ops

from fixtures.padding import ZOO
from fixtures.padding.zoo import FEATURES, values
from tsguard import backend, laws
from tsguard.checks.laws import findings_of
from tsguard.errors import TsguardError
from tsguard.padding import Padding


def asked(name, *, sick=True, **options):
    subject = ZOO[name].build(sick)
    return laws.run(subject.model, {"x": subject.x, "y": subject.y}, subject.padding, **options)


def test_weights_seeds_and_generators_are_left_as_they_were():
    subject = ZOO["conv1d_drops_mask"].build(True)
    before = [keras.ops.convert_to_numpy(v).copy() for v in subject.model.variables]
    trainable = [v.trainable for v in subject.model.variables]
    random.seed(3)
    state = backend.rng_state()
    call = layers.Layer.__call__
    laws.run(subject.model, {"x": subject.x, "y": subject.y}, subject.padding)
    assert all(
        np.array_equal(a, keras.ops.convert_to_numpy(v)) for a, v in zip(before, subject.model.variables, strict=True)
    )
    assert [v.trainable for v in subject.model.variables] == trainable
    assert not subject.model.optimizer.built
    assert backend.rng_state().same_as(state)
    assert layers.Layer.__call__ is call


def test_the_counterexample_is_the_smallest_and_in_words():
    found = next(r.counterexample for r in asked("pooling_without_mask", only=["pad-leak-value"]) if r.counterexample)
    assert found.before["values"].shape == (1, 2, FEATURES)
    assert found.words.startswith("1 sample, 2 steps, the second padded; the pooled output of sample 0 moved by ")
    assert "`pool`" in found.words
    assert np.array_equal(found.before["values"][:, :1], found.after["values"][:, :1])


def test_ids_in_a_table_of_floats_stay_ids():
    class Match(keras.Model):
        def __init__(self):
            super().__init__()
            self.user, self.item, self.out = layers.Embedding(9, 4), layers.Embedding(7, 4), layers.Dense(1)

        def call(self, ids):
            return self.out(self.user(ids[:, 0]) * self.item(ids[:, 1]))

    rng, model = np.random.default_rng(0), Match()
    x = np.column_stack([rng.integers(0, 9, 60), rng.integers(0, 7, 60)]).astype("float32")
    model.compile("adam", "mse")
    rows = [row for row in laws.run(model, {"x": x, "y": x[:, :1]}) if row.code == "batch-coupling"]
    assert {row.outcome for row in rows} == {"holds"}


def test_the_same_profile_gives_the_same_answer_twice():
    one, two = (asked("fill_too_weak", only=["pad-leak-value"]) for _ in range(2))
    assert [r.reason for r in one] == [r.reason for r in two]


@pytest.mark.parametrize("name", ["pooling_without_mask", "loss_averaged_over_padding"])
def test_the_emitted_test_fails_on_the_sick_model_and_passes_on_its_twin(name):
    entry = ZOO[name]
    found = next(r.counterexample for r in asked(name) if r.counterexample and r.code == entry.code)
    space: dict = {}
    exec(compile(found.test, "emitted", "exec"), space)
    emitted = next(value for key, value in space.items() if key.startswith("test_"))

    class Given:
        def __init__(self, sick):
            self.sick = sick

        def model(self):
            return entry.build(self.sick).model

    emitted(Given(False))
    with pytest.raises(AssertionError, match=r"moved|went from"):
        emitted(Given(True))


def test_a_law_that_crashes_says_so_and_stops_no_other():
    class Fussy(layers.Layer):
        def call(self, x, training=False):
            if training:
                raise RuntimeError("no training today")
            return x

    model = keras.Sequential([keras.Input((4,)), Fussy(), layers.Dense(1)])
    results = laws.run(model, {"x": np.ones((4, 4), "float32")})
    assert any(row.outcome == "crashed" and "no training today" in row.reason for row in results)
    assert any(row.outcome == "holds" for row in results)
    errors = [f for f in findings_of(results) if f.status == "ERROR"]
    assert errors
    assert "Traceback" in errors[0].evidence[0].value


def test_unknown_laws_and_profiles_are_refused():
    with pytest.raises(TsguardError, match="pad-leek"):
        asked("pooling_without_mask", only=["pad-leek"])
    with pytest.raises(TsguardError, match=r"'fast'.*ci"):
        asked("pooling_without_mask", profile="fast")


def test_a_mask_lost_in_the_code_between_layers_is_found():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.embed = layers.Embedding(20, 6, mask_zero=True)
            self.head = layers.Dense(1)

        def call(self, x):
            return self.head(ops.mean(self.embed(x) * 2.0, axis=1))

    model = Own()
    results = laws.run(model, {"x": ZOO["conv1d_drops_mask"].build(True).x})
    found = {r.code: r.counterexample.layer for r in results if r.counterexample}
    assert {"mask-dropped", "pad-length", "pad-leak-value"} <= set(found)
    assert found["pad-leak-value"] == model.name


def test_half_precision_models_obey_the_same_laws():
    x, m = keras.Input((None, FEATURES), name="values"), keras.Input((None,), name="mask")
    keep = ops.where(m[..., None] > 0, x, 0.0)
    h = layers.Dense(8, dtype="mixed_bfloat16")(keep)
    h = layers.LayerNormalization(dtype="mixed_bfloat16")(h)
    model = keras.Model({"values": x, "mask": m}, layers.Dense(1, dtype="mixed_bfloat16")(h))
    subject = ZOO["scaling_over_padding"].build(False)
    results = laws.run(model, {"x": subject.x}, Padding({"values": 1}, mask="mask"))
    assert not [row for row in results if row.outcome in ("broken", "crashed")]
    assert any(row.law == "half precision agrees with float32" and row.outcome == "holds" for row in results)


def test_an_overflow_in_half_precision_is_named():
    class Power(layers.Layer):
        def call(self, x):
            return ops.sum(ops.square(x), axis=-1, keepdims=True)

    model = keras.Sequential([keras.Input((4,)), Power(name="power", dtype="mixed_float16")])
    results = laws.run(model, {"x": np.full((4, 4), 300.0, "float32")}, only=["precision-overflow"])
    found = results[0].counterexample
    assert found is not None
    assert (found.code, found.layer.rsplit("/", 1)[-1]) == ("precision-overflow", "power")


def test_findings_name_code_layer_law_and_carry_both_batches_and_the_test():
    findings = findings_of(asked("pooling_without_mask"), ["time is axis 1"])
    leak = next(f for f in findings if f.code == "pad-leak-value")
    assert (leak.status, leak.role, leak.where["layer"]) == ("FAIL", "cause", "pool")
    assert {e.name for e in leak.evidence} >= {"before", "after", "pytest", "inferred"}
    poison = next(f for f in findings if f.code == "pad-nan-poison")
    assert poison.status == "WARN"
    assert next(f for f in findings if f.code == "future-leak").status == "NOT_RUN"
    assert next(f for f in findings if f.code == "batch-coupling").status == "PASS"


def test_shifted_timestamps_in_integers_change_nothing_and_in_float32_they_do():
    assert [r.outcome for r in asked("timestamps_in_float32", sick=False, only=["data-precision"])] == ["holds"]
    assert [r.outcome for r in asked("timestamps_in_float32", only=["data-precision"])] == ["broken"]


def test_nan_in_the_users_own_padding_is_grave_and_otherwise_a_warning():
    own = next(r.counterexample for r in asked("lstm_backward_nan") if r.counterexample)
    assert own.grave
    other = next(r.counterexample for r in asked("nan_in_masked_keys", only=["pad-nan-poison"]) if r.counterexample)
    assert not other.grave
    assert np.isfinite(values()).all()


@pytest.mark.slow
def test_another_process_agrees_and_a_layer_that_does_not_is_named(monkeypatch):
    from tsguard.laws import halves

    monkeypatch.setattr(halves, "BACKENDS", ("torch",))
    model = keras.Sequential([keras.Input((4,)), layers.Dense(5, "gelu", name="first"), layers.Dense(1, name="last")])
    x = np.random.default_rng(0).normal(size=(4, 4)).astype("float32")
    [agreed] = laws.run(model, {"x": x}, only=["backend-mismatch"])
    assert agreed.outcome == "holds", agreed.reason

    elsewhere = halves._layers_elsewhere
    monkeypatch.setattr(
        halves,
        "_layers_elsewhere",
        lambda *a: [(path, array + 0.1 * path.endswith("last")) for path, array in elsewhere(*a)],
    )
    [apart] = laws.run(model, {"x": x}, only=["backend-mismatch"])
    assert apart.counterexample.layer.endswith("last")
