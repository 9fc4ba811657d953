"""Every sick padded model is caught with its code at its layer, and no healthy twin is accused."""

from __future__ import annotations

import re

import pytest

from fixtures.padding import BUILT_ON, HELD_OUT, ZOO
from tsguard import laws
from tsguard.laws import LawResult

QUICK = (
    "conv1d_drops_mask",
    "raw_mean_over_all_positions",
    "attention_mask_wrong_polarity",
    "centred_convolution",
    "batch_mean_in_inference",
    "padded_features_through_dense",
)


def asked(name: str, *, sick: bool, **options) -> list[LawResult]:
    subject = ZOO[name].build(sick)
    return laws.run(subject.model, {"x": subject.x, "y": subject.y}, subject.padding, budget_s=120, **options)


def broken(results: list[LawResult]) -> list[tuple[str, str | None]]:
    crashed = [f"{row.law}: {row.reason}" for row in results if row.outcome == "crashed"]
    assert not crashed, crashed
    return [(row.code, _name(row.counterexample.layer)) for row in results if row.counterexample is not None]


def _name(path: str | None) -> str | None:
    """The layer's own name, without its parents and the number that Keras gives to operations."""
    return None if path is None else re.sub(r"_\d+$", "", path.rsplit("/", 1)[-1])


def assert_caught(name: str) -> None:
    entry = ZOO[name]
    found = broken(asked(name, sick=True))
    places = [layer for code, layer in found if code == entry.code]
    assert places, f"{name}: expected {entry.code}, found {found}"
    assert entry.layer is None or entry.layer in places, f"{name}: expected layer {entry.layer}, found {found}"
    beside = {code for code, _ in found} - {entry.code, *entry.accepts}
    assert not beside, f"{name}: also accused of {beside}"


@pytest.mark.parametrize("name", QUICK)
def test_sick_models_are_caught_at_their_layer(name):
    assert_caught(name)


@pytest.mark.parametrize("name", QUICK)
def test_healthy_twins_obey_every_law(name):
    assert broken(asked(name, sick=False)) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILT_ON)
def test_the_half_that_laws_were_built_on_is_caught(name):
    assert_caught(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", HELD_OUT)
def test_the_held_out_half_is_caught(name):
    assert_caught(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO)
def test_no_healthy_twin_is_accused_over_500_examples(name):
    judged, rounds = 0, 0
    while judged < 500 and rounds < 8:
        results = asked(name, sick=False, profile="explore")
        assert broken(results) == []
        judged, rounds = judged + sum(row.examples for row in results), rounds + 1
    assert judged >= 500


def test_the_zoo_is_large_and_both_halves_are_too():
    assert len(ZOO) >= 20
    assert min(len(BUILT_ON), len(HELD_OUT)) >= 10
