"""One failure, one cause."""

from tsguard import catalogue
from tsguard.checks.depth import deepest


def test_a_proven_cause_makes_the_nonfinite_value_its_symptom():
    empty = catalogue.finding("loss-empty-selection", "mean of nothing")
    shown = catalogue.finding("nonfinite-loss", "the loss is NaN", role="cause")
    cause, symptom = deepest([empty, shown])
    assert cause.explains == ("nonfinite-loss",)
    assert (cause.role, symptom.role) == ("cause", "symptom")


def test_without_a_deeper_cause_it_stays_the_cause():
    (alone,) = deepest([catalogue.finding("nonfinite-forward", "log of 0", role="cause")])
    assert alone.role == "cause"


def test_the_same_value_is_told_once_by_whoever_knows_more():
    short = catalogue.finding("nonfinite-loss", "NaN", where={"phase": "loss"})
    full = catalogue.finding("nonfinite-loss", "NaN at step 0", where={"phase": "loss", "op": "log", "step": 0})
    assert deepest([short, full]) == (full,)
    passed = catalogue.finding("data-leak", "m")
    assert deepest([passed, full, short]) == (passed, full)
