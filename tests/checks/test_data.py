"""Checks of the data: each catches its sick subject, names the place, and passes its healthy one."""

from __future__ import annotations

import numpy as np
import pytest

from tsguard.checks import data as data_checks
from tsguard.checks import registry
from tsguard.checks.runner import run_checks
from tsguard.data.synthetic import servers, transformer
from tsguard.data.windows import Windows
from tsguard.dataset import Data
from tsguard.findings import Status
from tsguard.padding import Padding
from tsguard.subject import Subject

MINE = tuple(one for one in registry.all_checks() if one.ask.__module__.startswith("tsguard.checks.data"))


def ask(x, y=None, *, validation=None, padding=None, declared=None, names=(), model=None, fit=None):
    subject = None if model is None else Subject.from_model(model)
    facts = {"fit": fit or {}}
    context = registry.Context(
        subject, Data(x, y, validation=validation, names=names), padding, declared or {}, facts=facts
    )
    findings = run_checks(context, MINE)
    assert not [f for f in findings if f.status == "ERROR"], [f.evidence[0].value for f in findings if f.evidence][-1:]
    return [finding for finding in findings if finding.status >= Status.WARN]


def only(findings, code):
    assert [f.code for f in findings] == [code] * len(findings), [f.message for f in findings]
    assert findings
    return findings[0]


def windows(seed=0, samples=300, steps=12, features=3):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((samples, steps, features)).astype("float32")
    y = (x[:, -4:, 0].mean(axis=1) + 0.1 * rng.standard_normal(samples)).astype("float32")
    return x, y[:, None]


def compiled(*layers, loss="mse"):
    import keras

    model = keras.Sequential(list(layers))
    model.compile("adam", loss)
    return model


HEALTHY = {
    "windows": lambda: windows(),
    "overlapping windows in time order": lambda: _cut(transformer(1200).values()),
    "servers": lambda: _cut(servers(1, rows=900).values(["cpu", "memory", "disk", "load"])),
    "classes": lambda: (windows()[0], np.random.default_rng(0).integers(0, 3, 300)),
    "one-hot": lambda: (windows()[0], np.eye(4)[np.random.default_rng(0).integers(0, 4, 300)]),
    "reconstruction": lambda: (windows()[0], windows()[0]),
    "next step": lambda: (windows()[0][:, :-1], windows()[0][:, 1:]),
    "ids": lambda: (np.random.default_rng(0).integers(1, 5000, (300, 20)), np.arange(300) % 2),
    "padded with zeros": lambda: (_padded(windows()[0]), windows()[1]),
    "images with black margins": lambda: (_images(), np.arange(200) % 10),
    "flattened images": lambda: (_images().reshape(200, -1), np.arange(200) % 10),
    "white noise to forecast": lambda: _cut(
        np.random.default_rng(5).standard_normal((800, 1)).astype("float32"), raw=True
    ),
    "counts": lambda: (np.random.default_rng(1).poisson(3, (400, 6)).astype("float32"), windows(samples=400)[1]),
    "two samples": lambda: (np.array([[0.1, 0.2], [0.3, 0.5]]), np.array([0.0, 1.0])),
    "exclusive or": lambda: (np.array([[0, 0], [0, 1], [1, 0], [1, 1]] * 20, "float32"), np.array([0, 1, 1, 0] * 20)),
    "a line": lambda: (np.linspace(-1, 1, 200)[:, None], 2 * np.linspace(-1, 1, 200)[:, None] + 1),
    "sorted by time with a trend": lambda: (
        np.linspace(-2, 2, 300)[:, None] + 0.01 * windows()[1],
        np.linspace(-2, 2, 300),
    ),
    "dummy targets": lambda: (windows()[0], None),
}


def _cut(values, *, raw=False):
    if not raw:
        values = (values - values.mean(axis=0)) / values.std(axis=0)
    cut = Windows(values, length=24, horizon=1, targets=[0])
    batch = cut.take(np.arange(len(cut)))
    return batch.x, batch.y[:, 0]


def _lagged():
    noise = np.random.default_rng(8).standard_normal(401)
    return np.stack([noise[:-1], np.random.default_rng(9).standard_normal(400)], axis=1), noise[1:]


def _padded(x):
    lengths = np.random.default_rng(3).integers(2, x.shape[1], len(x))
    return np.where(np.arange(x.shape[1])[None, :, None] < lengths[:, None, None], x, 0)


def _images():
    image = np.zeros((200, 28, 28, 1), "float32")
    image[:, 6:22, 6:22] = np.random.default_rng(0).random((200, 16, 16, 1))
    return image


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_set_is_not_accused(name):
    x, y = HEALTHY[name]()
    assert [f.message for f in ask(x, y)] == []


def test_a_split_in_time_with_a_shared_border_is_no_leak():
    x, y = _cut(transformer(1500).values())
    assert ask(x[:1000], y[:1000], validation=(x[1000:], y[1000:])) == []


def test_nonfinite_values_are_named_with_row_step_and_feature():
    x, y = windows()
    x[7, 3, 1], x[9, 0, 0] = np.nan, np.inf
    found = only(ask(x, y, names=("u", "v", "w")), "data-nonfinite")
    assert found.where == {"phase": "data", "row": 7, "timestep": 3, "feature": "v", "column": "v"}
    assert "2 values that are not finite" in found.message
    y[5] = np.nan
    assert [f.where.get("row") for f in ask(x, y)][:2] == [7, 5]


def test_nan_where_the_mask_says_padded_is_the_laws_business():
    x, y = windows()
    mask = np.ones((300, 12), bool)
    mask[:, 9:] = False
    x[:, 9:] = np.nan
    padding = Padding(inputs={"values": 1}, mask="mask")
    assert ask({"values": x, "mask": mask}, y, padding=padding) == []
    x[4, 2, 0] = np.nan
    assert only(ask({"values": x, "mask": mask}, y, padding=padding), "data-nonfinite").where["row"] == 4


@pytest.mark.parametrize("code", [-200.0, -999.0, 9999.0, 1e20])
def test_a_code_for_missing_is_found_with_its_count(code):
    x, y = windows()
    x[::10, 2, 1] = code
    found = only(ask(x, y), "data-sentinel")
    assert found.where["feature"] == 1
    assert "stands in 30 places" in found.message


def test_a_declared_pad_value_is_no_code():
    x, y = windows()
    x[::10, 6:] = -999
    assert only(ask(x, y), "data-sentinel")
    assert ask(x, y, padding=Padding(pad_value=-999.0)) == []


@pytest.mark.parametrize(("factor", "status"), [(100.0, "WARN"), (19_789.0, "FAIL"), (1e-6, "WARN")])
def test_values_out_of_scale_are_named(factor, status):
    x, y = windows()
    x[..., 2] *= factor
    found = only(ask(x, y), "data-scale")
    assert (found.status, found.where["feature"]) == (status, 2)


def test_a_model_that_normalises_first_may_get_any_scale():
    import keras

    x, y = windows()
    x = x * 50 + 300
    plain = compiled(keras.Input((12, 3)), keras.layers.Flatten(), keras.layers.Dense(1))
    layers = keras.layers
    normed = compiled(keras.Input((12, 3)), layers.BatchNormalization(), layers.Flatten(), layers.Dense(1))
    assert only(ask(x, y, model=plain), "data-scale")
    assert ask(x, y, model=normed) == []


def test_what_counts_is_what_arrives_at_the_weights_whatever_kind_of_layer_scales_it():
    import keras

    class Unit(keras.layers.Layer):
        def call(self, x):
            return (x - 300.0) / 50.0

    x, y = windows()
    own = compiled(keras.Input((12, 3)), Unit(), keras.layers.Flatten(), keras.layers.Dense(1))
    assert ask(x * 50 + 300, y, model=own) == []


def test_a_program_that_deals_with_its_holes_is_told_and_not_accused():
    import keras
    from keras import ops

    class Fill(keras.layers.Layer):
        def call(self, x):
            return ops.where(ops.isnan(x), ops.zeros_like(x), x)

    x, y = windows()
    x[::7, 2, 1] = np.nan
    filled = compiled(keras.Input((12, 3)), Fill(), keras.layers.Flatten(), keras.layers.Dense(1))
    found = only(ask(x, y, model=filled), "data-nonfinite")
    assert (found.status, found.role) == ("WARN", "note")
    plain = compiled(keras.Input((12, 3)), keras.layers.Flatten(), keras.layers.Dense(1))
    assert only(ask(x, y, model=plain), "data-nonfinite").status == "FAIL"


def test_counts_are_no_classes_and_weighed_classes_are_dealt_with():
    import keras

    x, _ = windows()
    counts = np.random.default_rng(0).poisson(3, 300)
    model = compiled(keras.Input((12, 3)), keras.layers.Flatten(), keras.layers.Dense(1), loss="poisson")
    assert ask(x, counts, model=model) == []
    rare = (np.arange(300) % 50 == 0).astype(int)
    assert ask(x, rare, fit={"class_weight": {0: 1.0, 1: 49.0}}) == []


def test_targets_far_from_the_output_are_named():
    x, y = windows()
    assert only(ask(x, 250_000 + 20_000 * y), "data-scale").where == {"phase": "data", "feature": 0}


def test_windows_at_a_level_where_float16_has_no_steps_are_named():
    x, y = windows()
    price = 20_000 + 300 * x[:, :1, 1:2] + 6 * x[..., :1]
    found = [f for f in ask(price.astype("float16"), y) if f.code == "data-precision"]
    assert "float16" in only(found, "data-precision").message
    assert [f for f in ask(x.astype("float16"), y) if f.code == "data-precision"] == []
    still = np.where(
        np.arange(len(x))[:, None, None] < 200, 0.5, x[..., :1]
    )  # most stand still, and say so in any dtype
    assert [f for f in ask(still.astype("float16"), y) if f.code == "data-precision"] == []


def test_a_flag_of_presence_may_stand_where_nothing_is_ever_missing():
    x, y = windows()
    known = np.random.default_rng(5).random((*x.shape[:2], 2)) < np.array([0.7, 1.0])
    assert ask(np.concatenate([x[..., :2] * known, known], axis=-1).astype("float32"), y) == []
    loose = np.concatenate([x[..., :2], known], axis=-1).astype("float32")
    assert only(ask(loose, y), "data-constant").where["feature"] == 3


def test_constant_and_copied_features_and_equal_samples():
    x, y = windows()
    x[..., 1] = 3.5
    assert only(ask(x, y), "data-constant").where["feature"] == 1
    x, y = windows()
    x[..., 2] = x[..., 0]
    assert "copies of feature 0" in only(ask(x, y), "data-constant").message
    x, y = windows()
    found = only(ask(np.broadcast_to(x[:1], x.shape).copy(), y), "data-constant")
    assert found.status == "FAIL"


def test_time_that_runs_backwards_is_named_with_row_and_step():
    x, y = windows()
    clock = np.tile(np.arange(12, dtype=np.int64), (300, 1))
    assert ask({"x": x, "timestamps": clock}, y) == []
    clock[5, [3, 4]] = clock[5, [4, 3]]
    found = only(ask({"x": x, "timestamps": clock}, y), "data-order")
    assert found.where == {"phase": "data", "input": "timestamps", "row": 5, "timestep": 4}


def test_zero_padded_clocks_do_not_count_as_running_backwards():
    x, y = windows()
    clock = np.tile(np.arange(1, 13, dtype=np.int64), (300, 1))
    clock[:, 8:] = 0
    assert ask({"x": x, "timestamps": clock}, y) == []


def test_rows_sorted_by_class_matter_only_without_shuffling():
    x, _ = windows()
    y = np.repeat([0, 1, 2], 100)
    x[..., 0] += y[:, None]
    assert ask(x, y) == []
    assert only(ask(x, y, fit={"shuffle": False}), "data-order")


def test_samples_shared_with_validation_are_counted():
    x, y = windows()
    other = windows(1)
    assert ask(x, y, validation=other) == []
    held = np.concatenate([other[0][:90], x[:10]]), np.concatenate([other[1][:90], y[:10]])
    found = only(ask(x, y, validation=held), "data-leak")
    assert "10 of 100 validation samples" in found.message
    assert found.where["row"] == 90


def test_overlapping_windows_dealt_at_random_leak():
    x, y = _cut(transformer(1500).values())
    order = np.random.default_rng(0).permutation(len(x))
    train, held = order[:1200], order[1200:]
    found = only(ask(x[train], y[train], validation=(x[held], y[held])), "data-leak")
    assert "overlapping windows" in found.message


def test_a_target_among_the_features_is_named():
    x, y = windows()
    bill = 0.3 * y + 7
    found = only(ask({"meter": x, "bill": bill}, y), "data-leak")
    assert found.where["input"] == "bill"
    x[:, 5, 1] = 2 * y[:, 0] - 1
    found = only(ask(x, y), "data-leak")
    assert (found.where["timestep"], found.where["feature"]) == (5, 1)
    line = np.cumsum(np.random.default_rng(0).standard_normal(300)) / 10
    late = np.lib.stride_tricks.sliding_window_view(line, 12)[..., None]
    assert only(ask(late, late[:, -1, 0]), "data-leak").where["timestep"] == 11


def test_reading_one_pixel_of_independent_frames_is_a_task():
    frames = np.random.default_rng(0).standard_normal((200, 3, 6, 6)).astype("float32")
    assert ask(frames, frames[:, -1, 2, 3][:, None]) == []


def test_a_series_that_repeats_itself_does_not_leak():
    x, y = _cut(np.tile(np.random.default_rng(0).standard_normal((25, 2)), (40, 1)))
    assert ask(x[:600], y[:600], validation=(x[600:], y[600:])) == []
    hours = np.tile(np.stack([np.sin(np.arange(24) / 3), np.cos(np.arange(24) / 3)], axis=1), (60, 1))
    x, y = _cut(np.concatenate([hours[:1200], np.random.default_rng(1).standard_normal((1200, 1))], axis=1), raw=True)
    both = {"hours": x[..., :2], "values": x[..., 2:]}
    train, held = ({key: part[rows] for key, part in both.items()} for rows in (slice(0, 900), slice(900, None)))
    assert ask(train, y[:900], validation=(held, y[900:])) == []
    sine = np.tile(np.sin(2 * np.pi * np.arange(12) / 12), 60)[:, None]
    x, y = _cut(sine, raw=True)
    assert ask(x[:500], y[:500], validation=(x[500:], y[500:])) == []


def test_features_that_are_padded_by_declaration_may_be_empty():
    x, y = windows(features=5)
    x[..., 4] = 0
    data = {"values": x, "widths": np.tile([1, 1, 1, 1, 0], (300, 1)).astype(bool)}
    assert only(ask(data, y), "data-constant")
    assert ask(data, y, padding=Padding(inputs={"values": 1}, features=(2, "widths"))) == []


@pytest.mark.parametrize(
    ("declared", "bad"),
    [
        ({"samples": 300}, False),
        ({"samples": "250..350"}, False),
        ({"samples": 11_873}, True),
        ({"batches_per_epoch": 10}, False),
        ({"batches_per_epoch": 24}, True),
    ],
)
def test_volume_is_held_against_the_plan(declared, bad):
    found = ask(*windows(), declared=declared)
    assert bool(found) == bad
    if bad:
        key = next(iter(declared))
        assert only(found, "data-volume").where["config_key"] == f"plan.{key}"


def test_imbalance_names_both_classes():
    x, _ = windows()
    y = (np.arange(300) % 50 == 0).astype(int)
    found = only(ask(x, y), "data-imbalance")
    assert found.status == "WARN"
    assert "class 0 holds 98.0%" in found.message


def test_float32_epoch_seconds_lose_their_steps():
    x, y = windows()
    clock = 1_537_799_000.0 + np.cumsum(np.random.default_rng(0).integers(1, 60, (300, 12)), axis=1)
    padding = Padding(inputs={"x": 1}, timestamps="when")
    codes = {f.code for f in ask({"x": x, "when": clock.astype("float32")}, y, padding=padding)}
    assert "data-precision" in codes
    assert ask({"x": x, "when": clock.astype("int64")}, y, padding=padding) == []


@pytest.mark.parametrize("how", ["shifted", "reversed", "sorted", "shuffled"])
def test_pairs_that_do_not_belong_together_are_proven(how):
    x, y = windows(samples=400)
    change = {
        "shifted": lambda y: np.roll(y, 2, axis=0),
        "reversed": lambda y: y[::-1].copy(),
        "sorted": lambda y: np.sort(y, axis=0),
        "shuffled": lambda y: np.random.default_rng(0).permutation(y),
    }[how]
    held = windows(9, samples=300) if how == "shuffled" else None
    found = only(ask(x, change(y), validation=held), "data-mispaired")
    assert found.proof is not None or how == "sorted"


@pytest.mark.parametrize("seed", range(5))
def test_targets_that_nothing_explains_are_not_called_mispaired(seed):
    x, _ = windows(seed)
    noise = np.random.default_rng(100 + seed).standard_normal((300, 1))
    assert ask(x, noise, validation=(windows(seed + 50)[0], noise[::-1].copy())) == []


def test_what_an_embedding_is_given_is_looked_at():
    import keras

    layers = keras.layers
    ids = np.random.default_rng(0).integers(0, 40, (200, 8))
    y = np.arange(200) % 2

    def model():
        return compiled(layers.Embedding(40, 4), layers.GlobalAveragePooling1D(), layers.Dense(1), loss="mse")

    assert ask(ids, y, model=model()) == []
    assert ask(ids.astype("float32"), y, model=model()) == []
    found = only(ask((ids - 20) / 7.0, y, model=model()), "input-encoding")
    assert "not whole" in found.message
    ids[150, 3] = 40
    found = only(ask(ids, y, model=model()), "input-encoding")
    assert found.where["row"] == 150
    assert "embedding" in found.where["layer"]


def test_swapped_axes_are_told_by_the_plan():
    x, y = windows()
    declared = {"timesteps": 12, "features": 3}
    assert ask(x, y, declared=declared) == []
    found = only(ask(x.transpose(0, 2, 1), y, declared=declared), "input-encoding")
    assert "transpose" in found.remedy


def test_asking_leaves_the_model_and_embedding_class_as_they_were():
    import keras

    original = keras.layers.Embedding.call
    model = compiled(keras.Input((8,)), keras.layers.Embedding(40, 4), keras.layers.Flatten(), keras.layers.Dense(1))
    before = [w.value.detach().numpy().copy() for w in model.weights]
    ask(np.zeros((50, 8), int), np.zeros(50), model=model)
    assert keras.layers.Embedding.call is original
    after = [w.value.detach().numpy() for w in model.weights]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_every_data_code_has_a_check():
    spoken = {code for one in MINE for code in one.codes}
    codes = "nonfinite sentinel scale constant order leak volume imbalance precision mispaired".split()
    assert {f"data-{code}" for code in codes} | {"input-encoding"} <= spoken
    assert data_checks.ALSO
