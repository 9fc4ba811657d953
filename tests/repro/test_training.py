"""A sick training is reduced until no pass and no row can be left out, and stops in time with the best so far."""

import itertools

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers

from tests.repro.programs import too_fast
from tests.repro.test_minimal import smaller_by_one
from tsguard.dataset import Data
from tsguard.evidence import Proof
from tsguard.findings import Finding, Role, Status
from tsguard.repro.case import Batch, Case, Fingerprint
from tsguard.repro.training import ROWS_LEAST, Shown, _Search, steps_in_a_pass, training_case

FINDING = Finding(
    "lr-too-high", Status.FAIL, Role.CAUSE, "the rate is too high", proof=Proof("learning rate × 0.01", "heals")
)


class Told(_Search):
    """Shows the cause wherever some rows are there and enough passes are made."""

    def __init__(self, rows, needed, passes, ticks=None):
        data = Data(np.arange(rows)[:, None], np.zeros(rows), batch_size=8)
        clock = (lambda: next(ticks)) if ticks else lambda: 0
        super().__init__(FINDING, data, 1000 if ticks else float("inf"), clock, lambda words: None)
        self.needed, self.passes = needed, passes

    def shows(self, model, data, passes):
        if self.clock() > self.deadline:
            from tsguard.repro.reduce import OutOfTime

            raise OutOfTime
        there = set(np.asarray(data.x)[:, 0].tolist())
        return Shown(data, passes, 0.0, 1.0) if self.needed <= there and passes >= self.passes else None


@given(st.integers(16, 64).flatmap(lambda rows: st.tuples(
    st.just(rows), st.sets(st.integers(0, rows - 1), max_size=24), st.integers(1, 12), st.integers(0, 9))))  # fmt: skip
def test_no_pass_and_no_row_can_be_left_out(drawn):
    rows, needed, passes, more = drawn
    search = Told(rows, needed, passes)
    least = search._least(None, Shown(search.data, passes + more, 0.0, 1.0))
    kept = set(np.asarray(least.data.x)[:, 0].tolist())
    assert least.passes == passes
    assert needed <= kept
    assert len(kept) == max(ROWS_LEAST, len(needed))


@given(st.sets(st.integers(0, 255), max_size=8), st.integers(1, 5))
def test_halving_keeps_what_shows_the_cause(needed, passes):
    search = Told(256, needed, passes)
    shown = search.halved(None)
    assert shown is None or search.shows(None, shown.data, shown.passes) is not None


class Planted(_Search):
    """Shows the cause wherever some layers, timesteps, rows and passes are there; one layer only beside one row."""

    def __init__(self, fault):
        rows, steps = fault["rows"], fault["steps"]
        x = np.broadcast_to(np.arange(1.0, steps + 1)[None, :, None], (rows, steps, 2)).astype("float32")
        super().__init__(FINDING, Data(x, np.arange(rows), batch_size=8), float("inf"), lambda: 0, lambda words: None)
        self.fault = fault

    def shows(self, model, data, passes):
        fault = self.fault
        names, rows, steps = (
            {layer.name for layer in model.layers},
            set(data.y.tolist()),
            set(data.x[0, :, 0].tolist()),
        )
        beside = fault["linked_row"] not in rows or fault["linked_layer"] in names
        there = fault["layers"] <= names and fault["needed"] <= rows and fault["when"] in steps
        return Shown(data, passes, 0.0, 1.0) if there and beside and passes >= fault["passes"] else None


@st.composite
def sick_trainings(draw):
    """Which layers, rows, timesteps and passes a cause needs."""
    count, rows, steps = draw(st.integers(2, 4)), draw(st.integers(3, 9)), draw(st.integers(1, 5))
    some = st.sets(st.integers(0, rows - 1), min_size=2, max_size=3)
    return {
        "count": count, "rows": rows, "steps": steps, "passes": draw(st.integers(1, 3)),
        "layers": {f"layer_{i}" for i in draw(st.sets(st.integers(0, count - 1), max_size=2))},
        "needed": draw(some), "when": float(draw(st.integers(1, steps))),
        "linked_row": draw(st.integers(0, rows - 1)), "linked_layer": f"layer_{draw(st.integers(0, count - 1))}",
    }  # fmt: skip


@pytest.mark.slow
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(sick_trainings())
def test_a_sick_training_is_one_minimal_in_passes_rows_timesteps_and_layers(fault):
    keras.utils.set_random_seed(0)
    entry = keras.Input((fault["steps"], 2))
    h = entry
    for i in range(fault["count"]):
        h = layers.Dense(2, name=f"layer_{i}")(h)
    model = keras.Model(entry, layers.Dense(1, name="head")(layers.GlobalAveragePooling1D()(h)))
    model.compile("sgd", "mse")
    search = Planted(fault)
    small, shown = search.fixpoint(model, Shown(search.data, fault["passes"] + 2, 0.0, 1.0), "planted")
    assert not search.exhausted
    assert search.shows(small, shown.data, shown.passes) is not None
    assert shown.passes == fault["passes"]
    case = Case(small, Batch.of((shown.data.x, shown.data.y)), Fingerprint("planted", "training", None, None))
    for one in smaller_by_one(case):
        data = Data(one.batch.x, one.batch.y, batch_size=8)
        assert len(data) < ROWS_LEAST or search.shows(one.model, data, shown.passes) is None


def test_few_rows_must_show_it_from_other_weights_too(monkeypatch):
    model, x, y = too_fast()
    asked = []

    def shown(self, one, data, passes):
        asked.append(one)
        return Shown(data, passes, 0.0, 1.0) if one is model else None

    monkeypatch.setattr(_Search, "_shown", shown)
    search = _Search(FINDING, Data(x, y), float("inf"), lambda: 0, lambda words: None)
    assert search.shows(model, Data(x, y), 1) is not None
    assert search.shows(model, Data(x[:4], y[:4]), 1) is None
    assert len(asked) == 3


def test_a_spent_budget_keeps_the_best_so_far():
    model, x, y = too_fast()
    data = Data(x, y, batch_size=32)
    ticks = itertools.count()
    case = training_case([FINDING], model, data, name="late", recipe=None, budget_s=800, clock=lambda: next(ticks))
    assert case is not None
    assert case.exhausted
    assert case.size < case.original_size


def test_no_budget_gives_nothing():
    model, x, y = too_fast()
    data = Data(x, y, batch_size=32)
    assert training_case([FINDING], model, data, name="none", recipe=None, budget_s=-1) is None


@pytest.mark.slow
def test_a_real_training_needs_all_of_its_passes():
    model, x, y = too_fast()
    data = Data(x, y, batch_size=32)
    case = training_case([FINDING], model, data, name="sick", recipe=None, budget_s=60)
    assert case is not None
    text = case.makers[0]().files["repro.py"].decode()
    assert '"epochs":' in text
    assert case.size <= (ROWS_LEAST + 1) * 5
    assert steps_in_a_pass(data) == 8
