"""Pairs that teach nothing as they stand, in a few lines: the right order is found, noise is left alone."""

import numpy as np
import pytest

from tsguard.evidence import Proof
from tsguard.findings import Finding, Role, Status
from tsguard.repro.asked import finds
from tsguard.repro.asked_pairs import in_another_order, taught_in_stretches
from tsguard.repro.case import Batch, Case, Fingerprint

ROWS = 240


def tables(seed):
    x = np.random.default_rng(seed).normal(size=(ROWS, 5))
    return x, x[:, :1] - 2 * x[:, 1:2] ** 2


def windows(seed):
    """Two classes of waves of any phase: values tell nothing of them, the spectrum does."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, 2, ROWS)
    turn = rng.uniform(0, 6.28, (ROWS, 1)) + (0.5 + 0.7 * kinds[:, None]) * np.arange(16)
    return np.sin(turn)[..., None], kinds


def ids(seed):
    rng = np.random.default_rng(seed)
    words = rng.integers(1, 12, (ROWS, 6))
    return words, (words == 3).sum(axis=1, keepdims=True).astype(float)


def said(form, x, y, summary=""):
    """Whether the lines find something."""
    proof = Proof("re-pair", summary)
    finding = Finding("data-mispaired", Status.FAIL, Role.CAUSE, "sick", where={"phase": "data"}, proof=proof)
    lines = form(finding, Case(None, Batch(x, y), Fingerprint("data-mispaired", "check", None, None)))
    return lines is not None and finds(lines, {"x": x, "y": y})


ORDERS = {
    "R² 0.01 as they are, 0.95 with the targets reversed": lambda y: y[::-1],
    "R² 0.01 as they are, 0.95 with the targets moved by -3 rows": lambda y: np.roll(y, 3, axis=0),
    "R² 0.01, 0.95 with the targets moved up by 117 rows, the first ones last": lambda y: np.roll(y, 117, axis=0),
    "R² 0.01, 0.95 with the targets read by columns from a table of 12 × 20": (
        lambda y: y.reshape(12, 20, -1).swapaxes(0, 1).reshape(y.shape)
    ),
}


@pytest.mark.parametrize("make", [tables, windows, ids])
@pytest.mark.parametrize("summary", ORDERS)
def test_pairs_belong_together_in_the_order_that_is_told(make, summary):
    x, y = make(0)
    assert said(in_another_order, x, ORDERS[summary](y), summary)
    assert not said(in_another_order, x, y, summary)


@pytest.mark.parametrize("make", [tables, windows, ids])
@pytest.mark.parametrize("summary", ORDERS)
def test_targets_of_which_nothing_tells_are_in_no_order(make, summary):
    x, _ = make(0)
    _, y = make(1)
    assert not said(in_another_order, x, y, summary)


def test_an_order_without_a_name_is_not_asked():
    x, y = tables(0)
    assert not said(in_another_order, x, y[::-1], "R² 0.9 with the targets sorted by numbers as text (1, 10, 11 …)")


@pytest.mark.parametrize("make", [tables, windows, ids])
def test_stretches_are_held_against_each_other(make):
    x, y = (np.concatenate([part, part]) for part in make(0))
    shuffled = y.copy()
    shuffled[: len(y) // 4] = np.random.default_rng(5).permutation(y[: len(y) // 4])
    assert said(taught_in_stretches, x, shuffled)
    assert not said(taught_in_stretches, x, y)
    assert not said(taught_in_stretches, x, np.random.default_rng(6).permutation(y))


def test_several_inputs_are_asked_through_the_check():
    x, y = tables(0)
    assert not said(in_another_order, {"a": x, "b": x}, y[::-1], "reversed")


@pytest.mark.parametrize("x", [np.full((ROWS, 4), 10**9), np.zeros((ROWS, 200, 9)), np.zeros((ROWS, 5_000))])
def test_views_that_would_be_too_wide_are_not_made(x):
    assert not said(taught_in_stretches, x, np.zeros((ROWS, 1)))
