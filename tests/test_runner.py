"""Asking the checks: a crash is an ERROR with its traceback, what cannot be asked says why, nothing is lost."""

import keras
import numpy as np
import pytest

from tsguard import catalogue
from tsguard.checks.registry import Check, Context
from tsguard.checks.runner import run_checks
from tsguard.dataset import Data
from tsguard.subject import Subject


@pytest.fixture
def context():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    return Context(subject=Subject.from_model(model), data=Data(np.zeros((4, 2)), np.zeros((4, 1))))


def asked(context, *checks, **options):
    return run_checks(context, checks, **options)


def crash(context):
    raise RuntimeError("inside a check")


def test_a_crash_is_an_error_finding_and_the_others_are_still_asked(context):
    found = asked(
        context,
        Check("crashing", ("data-scale",), crash),
        Check("finding", ("data-leak",), lambda context: [catalogue.finding("data-leak", "seen")]),
    )
    assert [str(f.status) for f in found] == ["ERROR", "FAIL"]
    assert "inside a check" in found[0].evidence[0].value
    assert "Traceback" in found[0].evidence[0].value


def test_a_check_that_finds_nothing_passes_under_each_of_its_codes(context):
    found = asked(context, Check("quiet", ("data-scale", "data-leak"), lambda context: ()))
    assert {(f.code, str(f.status)) for f in found} == {("data-scale", "PASS"), ("data-leak", "PASS")}
    assert all(f.seconds is not None and f.check == "quiet" for f in found)


def test_what_a_check_needs_and_does_not_get_is_said(context):
    found = asked(context, Check("picky", ("pad-length",), lambda context: (), needs=("padding", "validation")))
    assert found[0].status == "NOT_RUN"
    assert "no tsguard.Padding was given; no validation data was given" in found[0].message


def test_out_of_time_is_not_a_pass(context):
    found = asked(context, Check("late", ("data-scale",), lambda context: ()), budget_s=0)
    assert found[0].status == "NOT_RUN"
    assert "budget" in found[0].message


def test_a_check_leaves_the_model_as_it_was(context):
    before = context.model.get_weights()

    def disturb(context):
        context.model.fit(context.data.x, context.data.y, verbose=0)
        return ()

    asked(context, Check("rude", ("data-scale",), disturb))
    for left, right in zip(before, context.model.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)
    assert not context.model.optimizer.built
