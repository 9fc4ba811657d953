"""What the data look like before the run: by feature, bounded, and never at the cost of the preflight."""

import json

import numpy as np
import pytest

from tsguard.checks import pictures
from tsguard.checks.registry import Context
from tsguard.dataset import Data
from tsguard.report import dumps


def drawn(x, y=None, **more):
    return pictures.of_data(Context(data=Data(x, y, **more)))


def values(*shape):
    return np.random.default_rng(0).normal(size=shape)


@pytest.mark.parametrize(
    ("x", "y", "names"),
    [
        (values(50, 12, 2), values(50, 2), [f"{part}, feature {n}" for part in ("input", "target") for n in (0, 1)]),
        (values(50, 3), np.arange(50), ["input, feature 0", "input, feature 1", "input, feature 2", "target"]),
        ({"load": values(9, 4, 1), "site": np.arange(9)}, None, ["load", "site"]),
        ([values(9, 1), values(9, 30)], values(9, 1), ["input 0", "input 1", "target"]),
    ],
)  # fmt: skip
def test_columns_are_named_by_part_and_feature(x, y, names):
    assert list(drawn(x, y)["distributions"]) == names


def test_features_with_names_carry_them():
    assert list(drawn(values(20, 5, 2), names=("wind", "load"))["distributions"]) == ["wind", "load"]


def test_missing_values_are_placed_by_row():
    x = values(100, 5, 2)
    x[40:60, :, 1] = np.nan
    found = drawn(x)
    assert max(found["missing"]["share"]["input, feature 1"]) == 1.0
    assert max(found["missing"]["share"]["input, feature 0"]) == 0.0
    assert "missing" not in drawn(values(10, 2))


def test_much_data_makes_a_small_figure_soon():
    found = drawn(values(60_000, 8, 4), values(60_000, 1))
    assert found["distributions"]["target"]["count"] <= pictures.ROWS
    assert len(dumps(found)) < 20_000
    assert json.loads(dumps(found))


@pytest.mark.parametrize("x", [iter([1]), np.array(["a", "b"]), np.array([[None, 1]], dtype=object)])
def test_what_cannot_be_drawn_is_left_out(x):
    assert drawn(x) == {}
