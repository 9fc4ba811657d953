"""Each expectation for time series passes a healthy series and catches a sick one, here and in stock GX."""

from __future__ import annotations

import datetime
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import tsguard.expect
from tests.expect.agreement import disagreements
from tsguard.expect import timeseries as ts

ROWS = 400
RNG = np.random.default_rng(3)
HOURLY = np.datetime64("2024-01-01", "ms") + np.arange(ROWS) * np.timedelta64(1, "h")
NOISE = RNG.standard_normal(ROWS)
HALVES = ["train"] * 200 + ["test"] * 200


def _changed(values: Any, **places: Any) -> Any:
    values = values.copy()
    for place, value in places.items():
        values[[int(number) for number in place.strip("_").split("_")]] = value
    return values


LATE = HOURLY.copy()
LATE[[50, 51]] = LATE[[51, 50]]
GAP = HOURLY.copy()
GAP[300:] += np.timedelta64(5, "h")
STUCK = NOISE.copy()
STUCK[100:130] = STUCK[100]
CODED = NOISE.round(2)
MISSING = CODED.copy()
MISSING[::40] = -200.0
SHIFTED = NOISE.copy()
SHIFTED[200:] += 1.0
REPEATED = NOISE.copy()
REPEATED[250:280] = NOISE[20:50]
EPOCH = 1.7e9 + np.arange(ROWS) * 10.0
TRAIN_SCALE = {"center": [float(SHIFTED[:200].mean())], "scale": [float(SHIFTED[:200].std())]}
LEAKED_SCALE = {"center": [float(SHIFTED.mean())], "scale": [float(SHIFTED.std())]}

# name: (expectation, healthy columns, sick columns, what the sick answer observes)
CASES: dict[str, tuple[Any, dict[str, Any], dict[str, Any], Any]] = {
    "finite": (
        ts.ExpectColumnValuesToBeFinite(column="x"),
        {"x": NOISE},
        {"x": _changed(NOISE, _7=np.nan, _9=np.inf)},
        None,
    ),
    "order": (
        ts.ExpectColumnTimeToIncreasePerEntity(column="t", entity="who"),
        {"t": np.repeat(HOURLY[:200], 2), "who": ["a", "b"] * 200},
        {"t": LATE, "who": ["a"] * ROWS},
        1,
    ),
    "interval": (ts.ExpectColumnIntervalToBeRegular(column="t", interval=3600), {"t": HOURLY}, {"t": GAP}, 1 - 1 / 399),
    "gaps": (ts.ExpectColumnGapsToBeShorterThan(column="t", longest=7200), {"t": HOURLY}, {"t": GAP}, 6 * 3600.0),
    "stuck": (ts.ExpectColumnStuckRunsToBeShorterThan(column="x", longest=10), {"x": NOISE}, {"x": STUCK}, 30),
    "sentinel": (ts.ExpectColumnSentinelValuesToBeAbsent(column="x"), {"x": CODED}, {"x": MISSING}, [-200.0]),
    "declared sentinel": (
        ts.ExpectColumnSentinelValuesToBeAbsent(column="x", sentinels=[-200, -999]),
        {"x": CODED},
        {"x": MISSING},
        [-200.0],
    ),
    "shares": (
        ts.ExpectColumnClassSharesToBeBetween(column="y", min_share=0.1, max_share=0.8, classes=["up", "down"]),
        {"y": ["up", "down"] * 200},
        {"y": ["up"] * 380 + ["down"] * 20},
        0.95,
    ),
    "float32": (
        ts.ExpectColumnTimestampsToSurviveFloat32(column="t"),
        {"t": EPOCH - EPOCH[0]},
        {"t": EPOCH},
        pytest.approx(0.92, abs=0.05),
    ),
    "volume": (
        ts.ExpectTableVolumeToBeAsDeclared(samples=ROWS, batch_size=32, batches=13),
        {"x": NOISE},
        {"x": NOISE[:98]},
        98,
    ),
    "drift": (
        ts.ExpectColumnNotToDriftBetweenSplits(column="x", split="split"),
        {"x": NOISE, "split": HALVES},
        {"x": SHIFTED, "split": HALVES},
        pytest.approx(0.0, abs=1e-6),
    ),
    "windows": (
        ts.ExpectSplitsNotToShareWindows(column_list=["x"], split="split", length=16),
        {"x": NOISE, "split": HALVES},
        {"x": REPEATED, "split": HALVES},
        15,
    ),
    "entities": (
        ts.ExpectSplitsNotToShareValues(column="who", split="split"),
        {"who": ["a"] * 200 + ["b"] * 200, "split": HALVES},
        {"who": ["a"] * 210 + ["b"] * 190, "split": HALVES},
        1,
    ),
    "ranges": (
        ts.ExpectColumnRangesToAgreeAcrossSets(column_list=["x"], set_column="set", max_ratio=10),
        {"x": NOISE, "set": HALVES},
        {"x": np.concatenate([NOISE[:200], 1e4 * NOISE[:200]]), "set": HALVES},
        pytest.approx(1e4),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_healthy_passes_and_the_sick_is_caught_with_its_figure(name: str) -> None:
    expectation, healthy, sick, observed = CASES[name]
    assert tsguard.expect.validate([expectation], pa.table(healthy)).success
    result = tsguard.expect.validate([expectation], pa.table(sick))
    assert not result.success
    assert result.meta["tsguard"]["handed_over"] == []
    assert result.results[0].result.get("observed_value") == observed


@pytest.mark.parametrize("name", CASES)
def test_stock_gx_gives_the_same_answer(name: str) -> None:
    expectation, _, sick, _ = CASES[name]
    table = pa.table(sick)
    assert disagreements([expectation], table, table.to_batches(max_chunksize=77), "COMPLETE") == []


@pytest.mark.parametrize(("fitted", "source"), [(TRAIN_SCALE, "train"), (LEAKED_SCALE, "everything")])
def test_a_scaler_that_saw_the_test_rows_is_told(fitted: dict[str, list[float]], source: str) -> None:
    expectation = ts.ExpectScalerToBeFittedOnTrainOnly(column_list=["x"], cut=0.5, **fitted)
    result = tsguard.expect.validate([expectation], pa.table({"x": SHIFTED}))
    assert (result.success, result.results[0].result["observed_value"]) == (source == "train", source)


def test_null_is_not_finite_and_is_named_by_row() -> None:
    table = pa.table({"x": pa.array([1.0, None, 2.0, float("nan")])})
    result = tsguard.expect.validate([CASES["finite"][0]], table, result_format="COMPLETE").results[0].result
    assert (result["unexpected_count"], result["unexpected_index_list"]) == (2, [1, 3])
    assert result["unexpected_percent"] == 50.0


def test_a_suite_of_them_survives_json() -> None:
    suite = tsguard.expect.load_suite([case[0] for case in CASES.values()])
    again = tsguard.expect.load_suite(json.loads(json.dumps(suite.to_json_dict())))
    assert [each.configuration for each in again.expectations] == [each.configuration for each in suite.expectations]


def test_a_split_that_is_not_there_could_not_be_evaluated() -> None:
    expectation = ts.ExpectColumnNotToDriftBetweenSplits(column="x", split="split", train="learn")
    result = tsguard.expect.validate([expectation], pa.table({"x": NOISE, "split": HALVES}))
    assert not result.success
    assert "never says 'learn'" in result.results[0].exception_info["exception_message"]


def test_days_are_times():
    days = [datetime.date(2020, 1, 1) + datetime.timedelta(days=day) for day in (0, 1, 3, 2)]
    table = pa.table({"day": pa.array(days, pa.date32())})
    result = tsguard.expect.validate([ts.ExpectColumnTimeToIncreasePerEntity(column="day")], table).results[0]
    assert not result.exception_info["raised_exception"], result.exception_info
    assert not result.success
