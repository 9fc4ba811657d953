"""A sick training is reduced until no pass and no row can be left out, and stops in time with the best so far."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.repro.programs import too_fast
from tsguard.dataset import Data
from tsguard.evidence import Proof
from tsguard.findings import Finding, Role, Status
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


def test_a_spent_budget_keeps_the_best_so_far():
    model, x, y = too_fast()
    data = Data(x, y, batch_size=32)
    ticks = itertools.count()
    case = training_case([FINDING], model, data, name="late", recipe=None, budget_s=400, clock=lambda: next(ticks))
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
    assert "epochs=" in text
    assert case.size <= (ROWS_LEAST + 1) * 5
    assert steps_in_a_pass(data) == 8
