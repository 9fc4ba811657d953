"""Invariants between columns, steps, parts and the order of rows: each with sick data and its healthy neighbours."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from tests.checks.test_data import ask, only, windows
from tsguard.checks import data_weights, registry
from tsguard.checks.runner import run_checks
from tsguard.dataset import Data
from tsguard.findings import Status
from tsguard.subject import Subject


def walk(seed=0, samples=200, steps=16):
    """Windows of a course with a random level, and the value that follows each."""
    line = np.cumsum(np.random.default_rng(seed).standard_normal((samples, steps + 2)), axis=1) / 4
    return line.astype("float32")


def smoothed(line, *, centred, cut_at_the_end=False):
    steps = line.shape[1] - 2
    back, on = (1, 1) if centred else (2, 0)
    end = steps if cut_at_the_end else line.shape[1]
    mean = np.stack([line[:, max(0, t - back) : min(end, t + on + 1)].mean(1) for t in range(steps)], axis=1)
    return np.stack([line[:, :steps], mean], axis=-1).astype("float32"), line[:, steps : steps + 1]


def test_windows_that_repeat_one_reading_are_named():
    x, y = windows()
    assert only(ask(np.repeat(x[:, :1], 12, axis=1), y), "data-constant").status == "FAIL"


def test_what_is_known_once_for_a_row_may_be_repeated_beside_what_moves():
    x, y = windows()
    x[..., 2] = x[:, :1, 2]
    assert ask(x, y) == []
    assert ask({"past": x, "store": np.repeat(x[:, :1, :2], 12, axis=1)}, y) == []


def test_a_channel_that_was_smoothed_over_both_sides_knows_the_next_step():
    found = only(ask(*smoothed(walk(), centred=True)), "data-leak")
    assert (found.where["feature"], found.where["timestep"]) == (1, 15)


@pytest.mark.parametrize("options", [{"centred": False}, {"centred": True, "cut_at_the_end": True}])
def test_a_channel_that_was_smoothed_over_what_the_window_holds_does_not(options):
    assert ask(*smoothed(walk(), **options)) == []


def test_smoothing_over_both_sides_gives_no_label_away():
    x, _ = smoothed(walk(), centred=True)
    assert ask(x, np.random.default_rng(0).integers(0, 3, len(x))) == []


def test_amounts_in_rising_order_matter_only_without_shuffling():
    x = np.random.default_rng(0).standard_normal((400, 4)).astype("float32")
    y = (x @ np.array([1.0, -0.5, 0.2, 0.0], "float32"))[:, None]
    order = np.argsort(y[:, 0])
    assert ask(x[order], y[order]) == []
    assert only(ask(x[order], y[order], fit={"shuffle": False}), "data-order").status == "WARN"
    assert ask(x, y, fit={"shuffle": False}) == []


def test_a_split_off_the_end_of_sorted_classes_asks_what_was_never_taught():
    x, _ = windows()
    y = np.sort(np.random.default_rng(0).integers(0, 3, 300))
    assert only(ask(x, y, fit={"validation_split": 0.2}), "data-order").status == "FAIL"
    assert ask(x, np.random.default_rng(0).permutation(y), fit={"validation_split": 0.2}) == []


def related(seed, samples=300):
    rng = np.random.default_rng(seed)
    past, store = rng.standard_normal((samples, 8, 1)), rng.standard_normal((samples, 2))
    y = past[:, -1] + 1.2 * store[:, :1] - 0.8 * store[:, 1:] + 0.1 * rng.standard_normal((samples, 1))
    return {"past": past.astype("float32"), "store": store.astype("float32")}, y.astype("float32")


@pytest.mark.parametrize("how", ["sorted", "shuffled"])
def test_a_table_that_was_put_in_order_alone_has_lost_its_meaning(how):
    (x, y), held = related(0), related(1)
    assert ask(x, y, validation=held) == []
    order = np.argsort(x["store"][:, 0]) if how == "sorted" else np.random.default_rng(2).permutation(300)
    found = only(ask({**x, "store": x["store"][order]}, y, validation=held), "data-mispaired")
    assert found.where["input"] == "store"


def test_one_column_of_a_table_that_was_shuffled_is_named():
    rng = np.random.default_rng(0)
    x, held = rng.standard_normal((2, 400, 4)).astype("float32")
    weights = np.array([[1.0], [0.7], [-0.6], [0.3]], "float32")
    y, held_y = x @ weights, held @ weights
    x[:, 2] = rng.permutation(x[:, 2])
    assert only(ask(x, y, validation=(held, held_y)), "data-mispaired").where["feature"] == 2


def test_a_validation_part_that_numbers_its_classes_otherwise_is_told():
    rng = np.random.default_rng(0)
    x, held = (rng.standard_normal((400, 4)).astype("float32") for _ in range(2))
    y, held_y = (np.digitize(part[:, 0], [-0.5, 0.5]).astype("int32") for part in (x, held))
    assert ask(x, y, validation=(held, held_y)) == []
    assert only(ask(x, y, validation=(held, (held_y + 1) % 3)), "data-labels").where["split"] == "validation"


def test_classes_numbered_anew_in_a_part_that_lacks_one_are_told():
    rng = np.random.default_rng(1)
    kind, held_kind = rng.integers(0, 5, 500), rng.integers(1, 5, 250)
    centre = rng.standard_normal((5, 6)) * 2
    x, held = ((centre[which] + rng.standard_normal((len(which), 6))).astype("float32") for which in (kind, held_kind))
    assert ask(x, kind, validation=(held, held_kind)) == []
    assert only(ask(x, kind, validation=(held, held_kind - 1)), "data-labels").status == "FAIL"


def test_ids_numbered_anew_in_the_validation_part_are_told():
    def texts(seed):
        rng = np.random.default_rng(seed)
        words = rng.integers(3, 60, (400, 12))
        return words.astype("int32"), ((words < 30).mean(axis=1) > 0.5).astype("int32")

    (x, y), (held, held_y) = texts(0), texts(1)
    assert ask(x, y, validation=(held, held_y)) == []
    other = np.random.default_rng(2).permutation(60)
    assert only(ask(x, y, validation=(other[held].astype("int32"), held_y)), "input-encoding").status == "FAIL"


def test_a_validation_part_with_its_columns_in_another_order_is_told():
    (x, y), (held, held_y) = ((part, part[:, :1] - 0.6 * part[:, 1:2]) for part in _parts())
    assert ask(x, y, validation=(held, held_y)) == []
    found = ask(x, y, validation=(held[:, [2, 3, 0, 1]], held_y))
    assert {f.code for f in found} == {"data-mispaired"}


def _parts():
    return np.random.default_rng(7).standard_normal((2, 400, 4)).astype("float32")


def test_parts_in_different_units_are_named_and_tails_are_not():
    x, y = windows()
    held_x, held_y = windows(1)
    assert only(ask(x, y, validation=(50 * held_x + 20, held_y)), "data-drift").where["split"] == "validation"
    tails = np.random.default_rng(3).standard_t(1.5, size=(300, 5)).astype("float32")
    other = np.random.default_rng(4).standard_t(1.5, size=(300, 5)).astype("float32")
    found = ask(np.clip(tails, -25, 25), y, validation=(np.clip(other, -25, 25), held_y))
    assert [f.message for f in found if f.code == "data-drift"] == []


def test_weights_with_other_keys_than_the_labels_weigh_nothing():
    x, _ = windows()
    y = (np.random.default_rng(0).random(300) < 0.2).astype("int32")
    assert ask(x, y, fit={"class_weight": {0: 1.0, 1: 4.0}}) == []
    assert only(ask(x, y, fit={"class_weight": {"0": 1.0, "1": 4.0}}), "data-imbalance").where["config_key"]
    even = ask(x, np.arange(300) % 2, fit={"class_weight": {"0": 2.0, "1": 3.0}})
    assert only(even, "config-unused-key").status == "WARN"


def test_the_first_step_of_windows_of_one_series_is_no_riddle():
    t, rng = np.arange(400), np.random.default_rng(0)
    order = rng.permutation(380)
    for line, named in (
        (np.sin(t / 3) + 0.2 * rng.standard_normal(400), True),
        (np.tile(rng.standard_normal(20), 20), False),
    ):
        x = np.stack([line[s : s + 20] for s in order])[..., None].astype("float32")
        found = [f for f in ask(x, line[order][:, None].astype("float32")) if f.code == "data-leak"]
        assert bool(found) == named  # a series that repeats itself is also what stood there a period before
    alone = rng.standard_normal((380, 20, 1)).astype("float32")
    assert ask(alone, alone[:, 0]) == []  # independent sequences: to remember what came first is a task


def test_windows_of_rare_counts_are_equal_by_chance_and_copies_are_not():
    rng = np.random.default_rng(0)
    x = rng.poisson(rng.gamma(0.5, 1.0, (2000, 1)), (2000, 18))[..., None].astype("float32")
    y = rng.standard_normal((2000, 1)).astype("float32")
    apart = ask(x[:1700], y[:1700], validation=(x[1700:], y[1700:]))
    assert [f.message for f in apart if f.code == "data-leak"] == []
    busy = np.flatnonzero((x[:1700] > 0).sum((1, 2)) > 8)[:60]
    held = np.concatenate([x[1700:], x[busy]]), np.concatenate([y[1700:], y[busy]])
    assert [f.code for f in ask(x[:1700], y[:1700], validation=held) if f.code == "data-leak"] == ["data-leak"]


def test_weights_counted_from_one_belong_to_other_classes():
    x, _ = windows()
    y = np.random.default_rng(0).choice(3, 300, p=(0.6, 0.2, 0.2)).astype("int32")
    head = keras.Sequential([keras.Input(x.shape[1:]), layers.Flatten(), layers.Dense(3, "softmax")])
    head.compile("adam", "sparse_categorical_crossentropy")

    def asked(weights, labels=y):
        return [f.message for f in _of(head, x, labels, weights) if f.status == Status.FAIL]

    assert "outputs do not know" in asked({1: 0.5, 2: 1.7, 3: 1.6})[0]
    assert asked({0: 0.5, 1: 1.7, 2: 1.6}) == []
    assert asked({1: 1.7, 2: 1.6}) == []  # the common class weighs 1
    assert asked({0: 0.5, 1: 1.7, 2: 1.6}, np.minimum(y, 1)) == []  # a class that this part lacks


def _of(model, x, y, weights):
    data = Data(x, y)
    context = registry.Context(
        subject=Subject.from_model(model, data), data=data, facts={"fit": {"class_weight": weights}}
    )
    return list(data_weights.weights_without_effect(context))


def test_steps_that_weigh_must_hold_something():
    x = np.random.default_rng(0).standard_normal((200, 10, 2)).astype("float32")
    exists = np.arange(10) < np.random.default_rng(1).integers(3, 11, (200, 1))
    y = x.sum(-1, keepdims=True)

    def said(x, y, weight):
        context = registry.Context(data=Data(x, y, weight.astype("float32")))
        return [f.code for f in data_weights.weights_on_nothing(context)]

    padded = x * exists[..., None], y * exists[..., None]
    assert said(*padded, ~exists) == ["mask-inverted"]
    assert said(*padded, exists) == []
    assert said(*padded, np.ones_like(exists)) == []
    assert said(padded[0], y, ~exists) == []  # steps that are hidden, to be filled in


def test_a_column_that_is_the_label_in_other_numbers_is_a_leak():
    x, _ = windows()
    y = np.random.default_rng(0).integers(0, 3, 300)
    code = np.random.default_rng(1).standard_normal((300, 2)).astype("float32")
    assert ask({"past": x, "code": code}, y) == []
    code[:, 1] = 10.0 * y + 0.01 * code[:, 1]
    assert only(ask({"past": x, "code": code}, y), "data-leak").where["feature"] == 1


def test_to_remember_the_first_step_is_a_task():
    x, _ = windows()
    y = np.random.default_rng(0).integers(0, 2, 300)
    x[:, 0, 0] = 2 * y - 1
    assert ask(x, y) == []
    x[:, -1, 0] = 2 * y - 1
    assert only(ask(x, y), "data-leak").where["timestep"] == 11


def test_a_window_that_ends_with_its_target_leaks():
    x, y = windows()
    x[:, -1, 0] = y[:, 0]
    assert only(ask(x, y), "data-leak").where["timestep"] == 11


class Rows(keras.utils.PyDataset):
    """Batches of rows in order."""

    def __init__(self, x, y, size=20, count=None):
        super().__init__()
        self.x, self.y, self.size, self.count = x, y, size, count

    def __len__(self):
        return self.count or len(self.y) // self.size

    def __getitem__(self, index):
        rows = slice(self.size * index, self.size * (index + 1))
        return self.x[rows], self.y[rows]


def asked(loader, *codes, validation=None, fit=None):
    model = keras.Sequential([layers.Flatten(), layers.Dense(3)])
    model.compile("adam", "mse")
    data = Data(loader, validation=validation)
    context = registry.Context(Subject.from_model(model, data), data, facts={"fit": fit or {}})
    chosen = [one for one in registry.all_checks() if set(one.codes) & set(codes)]
    return [f for f in run_checks(context, chosen) if f.status >= Status.WARN and f.code in codes]


def strokes(seed, samples):
    """Level or upright strokes at a random place: no line on cells tells them apart."""
    rng = np.random.default_rng(seed)
    label, x = rng.integers(0, 2, samples), 0.05 * rng.random((samples, 9, 9, 1))
    for row, kind in enumerate(label):
        top, left = rng.integers(0, 5, 2)
        along = np.arange(4)
        x[row, top + (along if kind else 0), left + (0 if kind else along), 0] = 1.0
    return x.astype("float32"), label.astype("int32")


def test_rows_of_a_loader_are_asked_as_arrays_are():
    x, y = windows()
    assert asked(Rows(x, y), "data-scale", "data-labels", "data-mispaired") == []
    assert {f.code for f in asked(Rows(5000 * x + 9000, y), "data-scale")} == {"data-scale"}


def test_a_loader_that_shuffles_pictures_alone_is_told_by_its_validation_part():
    (x, y), held = strokes(0, 400), strokes(1, 240)
    assert asked(Rows(x, y), "data-mispaired", validation=held) == []
    order = np.random.default_rng(2).permutation(400)
    assert [f.code for f in asked(Rows(x[order], y), "data-mispaired", validation=held)] == ["data-mispaired"]


def drawn(*args, **options):
    """A loader of its own class, whose generator draws the rows of a batch."""

    class Drawn(Rows):
        rng = np.random.default_rng(5)

        def __getitem__(self, index):
            rows = self.rng.integers(0, len(self.y), self.size)
            return self.x[rows], self.y[rows]

    return Drawn(*args, **options)


def test_reading_a_loader_leaves_its_generator_where_it_was():
    loader = drawn(*windows())
    before = str(loader.rng.bit_generator.state)
    asked(loader, "data-scale")
    assert str(loader.rng.bit_generator.state) == before


def test_a_loader_that_counts_too_few_batches_is_named():
    x, y = windows()
    assert asked(drawn(x, y, count=2), "data-volume", fit={"epochs": 30}) == []
    assert asked(Rows(x, y), "data-volume") == []
    assert [f.code for f in asked(Rows(x, y, count=1), "data-volume")] == ["data-volume"]


def test_time_along_the_features_is_seen_in_a_model_that_reads_along_time():
    line = np.cumsum(np.random.default_rng(0).standard_normal((3, 150, 24)), axis=2).transpose(1, 2, 0)
    x = ((line - line.mean((0, 1))) / line.std((0, 1))).astype("float32")
    y = x[:, -1:, 0] + 0.1 * np.random.default_rng(1).standard_normal((150, 1)).astype("float32")
    model = keras.Sequential([layers.GRU(4), layers.Dense(1)])
    model.compile("adam", "mse")
    assert "input-encoding" not in {f.code for f in ask(x, y, model=model)}
    swapped = ask(x.transpose(0, 2, 1).copy(), y, model=model)
    assert "input-encoding" in {f.code for f in swapped}


def test_a_plan_that_repeats_the_past_is_told_and_a_closer_look_at_it_is_not():
    rng = np.random.default_rng(0)
    line = rng.standard_normal((200, 24, 2)).astype("float32")
    past, y = line[:, :18], line[:, 18:, 0]
    plans = {"ahead": line[:, 18:, 1:], "behind": line[:, 12:18, 1:], "closer": line[:, 10:18, 1:]}
    for name, plan in plans.items():
        found = [f for f in ask({"past": past, "plan": plan}, y) if f.code == "data-mispaired"]
        assert bool(found) == (name == "behind"), name
    assert (
        "steps 12 … 17 of input 'past'"
        in only(ask({"past": past, "plan": plans["behind"]}, y), "data-mispaired").message
    )


def test_copies_that_were_made_before_a_split_are_told_also_of_validation_split():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((300, 6)).astype("float32")
    answers = (rows[:, :1] - rows[:, 1:2]).astype("float32")
    order = rng.permutation(600) % 300
    x, y = rows[order], answers[order]
    assert only(ask(x[:480], y[:480], validation=(x[480:], y[480:])), "data-leak").where["split"] == "validation"
    assert only(ask(x, y, fit={"validation_split": 0.2}), "data-leak").where["split"] == "validation"
    assert ask(rows, answers, fit={"validation_split": 0.2}) == []
    kinds = np.round(rows[:, :4]).clip(-1, 1)
    assert ask(kinds, answers, fit={"validation_split": 0.2}) == []


@pytest.mark.parametrize("filled", ["towards the next", "with the last", "not at all"])
def test_half_steps_that_were_drawn_towards_the_target_are_told(filled):
    line = np.cumsum(np.random.default_rng(0).standard_normal(300)) / 4
    later = np.append(line[1:], line[-1])
    half = {"towards the next": (line + later) / 2, "with the last": line, "not at all": line + 0.1 * np.sin(line * 9)}
    fine = np.stack([line, half[filled]], axis=1).reshape(-1)
    x = np.stack([fine[2 * e : 2 * e + 16] for e in range(280)])[..., None].astype("float32")
    y = (3 * line[8:288, None] + 5).astype("float32")
    found = [f for f in ask(x, y) if f.code == "data-leak"]
    assert bool(found) == (filled == "towards the next")


def test_a_wave_without_noise_is_no_interpolation():
    t = np.arange(400)
    line = np.sin(t / 5).astype("float32")
    x = np.stack([line[s : s + 16] for s in range(300)])[..., None]
    assert ask(x, line[16:316, None]) == []


def test_numbers_of_stations_are_no_weights():
    rng = np.random.default_rng(0)
    x, y = windows()

    class Loader(keras.utils.PyDataset):
        def __init__(self, third):
            super().__init__()
            self.third = third

        def __len__(self):
            return 10

        def __getitem__(self, index):
            part = slice(30 * index, 30 * index + 30)
            return x[part], y[part], self.third[part]

    stations = rng.integers(0, 6, 300)
    assert "whole numbers from 0 to 5" in only(ask(Loader(stations)), "loss-degenerate").message
    assert ask(Loader((stations > 0).astype("float32"))) == []  # a mask
    assert ask(Loader(1.0 + stations)) == []  # counts


def test_windows_that_were_reshaped_in_place_of_transposed_are_told_and_patches_are_not():
    rng = np.random.default_rng(0)
    t, phase = np.arange(30), rng.uniform(0, 6.28, (300, 4, 1))
    courses = np.sin(0.3 * t + phase) * rng.uniform(0.5, 1.5, (300, 4, 1)) + 0.05 * rng.standard_normal((300, 4, 30))
    courses = courses.astype("float32")
    assert "4 courses of 30 steps" in only(ask(courses.reshape(300, 30, 4)), "input-encoding").message
    assert ask(courses.transpose(0, 2, 1)) == []
    one = np.sin(0.1 * np.arange(120) + phase[:, 0]) + 0.02 * rng.standard_normal((300, 120))
    assert ask(one.reshape(300, 30, 4).astype("float32")) == []


def test_labels_that_were_overwritten_in_half_of_the_rows_are_told():
    x = np.random.default_rng(0).standard_normal((1000, 5)).astype("float32")
    y = np.digitize(x[:, 0], [-0.5, 0.5]).astype("int32")
    assert ask(x, y) == []
    order = np.argsort(y, kind="stable")
    assert ask(x[order], y[order]) == []
    y[:500] = np.random.default_rng(1).permutation(y[:500])
    assert only(ask(x, y), "data-mispaired").where["row"] == 0


def test_what_is_only_there_for_one_answer_was_written_after_it():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((400, 5))
    unpaid = (rows[:, 0] + 0.5 * rng.standard_normal(400) > 0).astype("float32")
    sent = unpaid * (1 + 0.1 * rng.standard_normal(400))
    known = np.abs(rng.standard_normal(400)) * (rng.random(400) < 0.5)
    for column, named in ((sent, True), (known, False)):
        x = np.column_stack([rows, column]).astype("float32")
        assert bool([f for f in ask(x, unpaid[:, None]) if f.code == "data-leak"]) == named
