"""The document and its codec: what goes in comes out, whatever it holds."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsguard import catalogue
from tsguard.errors import StoreError
from tsguard.evidence import Curve, Evidence, Proof
from tsguard.report import SCHEMA, Moment, Provenance, Report, Run, Series, Verdict, dumps, loads

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.sampled_from(["$float", "$dict"]), inner)
    ),
    max_leaves=12,
)


def same(left, right):
    if isinstance(left, float) and isinstance(right, float):
        return left == right or (math.isnan(left) and math.isnan(right))
    if isinstance(left, dict):
        return isinstance(right, dict) and left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, list):
        return isinstance(right, list) and len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and left == right


@given(values)
def test_every_value_survives_the_codec(value):
    assert same(loads(dumps(value)), value)


def full_report():
    proof = Proof("e", "s", Curve("sick", (0, 1), (1, math.nan)), Curve("mended", (0, 1), (1, 0)), 1.0, 1.0, 3)
    finding = catalogue.finding(
        "lr-too-high",
        "the loss grew",
        where={"step": 3, "layer": "a/b"},
        evidence=[Evidence("value", math.inf, "loss", 3)],
        proof=proof,
    )
    return Report(
        kind="train",
        name="run",
        findings=(finding,),
        metrics={"loss": math.nan, "r2": -math.inf},
        series={"loss": Series((1.0, math.nan)), "val_loss": Series((1.0,), (4.0,), "epoch")},
        verdict=Verdict("FAIL", ("because",)),
        provenance=Provenance(command="x", seeds={"seed": 1}, commit=None, dirty=True),
        timeline=(Moment(0.5, "trip", "loss", 3),),
        figures={"histogram": [[0, 1], [2, math.inf]]},
        plan={"samples": 3},
        run=Run("1", "run", "reports/run"),
    )


def test_a_full_report_round_trips_to_the_same_bytes():
    text = full_report().to_json()
    again = Report.from_json(text)
    assert again.to_json() == text
    assert again.findings[0].proof.before.name == "sick"
    assert math.isnan(again.metrics["loss"])
    assert again.verdict.status == "FAIL"


def test_json_in_a_report_is_strict():
    import json

    json.loads(full_report().to_json(), parse_constant=lambda name: pytest.fail(f"found {name}"))


def test_a_newer_schema_says_upgrade():
    text = full_report().to_json().replace(f'"schema": {SCHEMA}', f'"schema": {SCHEMA + 1}')
    with pytest.raises(StoreError, match="Upgrade tsguard"):
        Report.from_json(text)


def test_an_older_schema_still_opens():
    tree = loads(full_report().to_json())
    for name in ("timeline", "figures", "plan", "run"):
        del tree[name]
    tree["stage"], tree["schema"] = tree.pop("kind"), 0
    old = Report.from_json(dumps(tree))
    assert old.kind == "train"
    assert [f.code for f in old.findings] == ["lr-too-high"]
    assert old.schema == SCHEMA


@pytest.mark.parametrize("text", ["", "[]", "{", '{"schema": 1}'])
def test_a_file_that_is_no_report_is_named_as_such(text):
    with pytest.raises(StoreError, match=r"received"):
        Report.from_json(text)


def test_exit_codes_follow_the_verdict():
    codes = {status: Verdict(status).exit_code for status in ("PASS", "WARN", "FAIL", "ERROR", "NOT_RUN")}
    assert codes == {"PASS": 0, "WARN": 0, "FAIL": 1, "ERROR": 3, "NOT_RUN": 3}


def test_a_series_reads_as_its_values():
    series = Series((3.0, 2.0), (10, 20), "epoch")
    assert list(series) == [3.0, 2.0]
    assert series[-1] == 2.0
    assert len(series) == 2


def test_a_report_without_findings_is_not_healthy():
    assert not Report().healthy
    assert not full_report().healthy
    assert Report(findings=(catalogue.finding("below-baseline", "m"),)).healthy


def test_a_console_shows_the_verdict_and_what_was_found_and_not_the_document():
    found = [catalogue.finding("lr-too-high", f"number {k}", status="FAIL") for k in range(8)]
    report = full_report().with_(findings=tuple(found), verdict=Verdict("FAIL"))
    text = repr(report)
    assert "FAIL; findings: 8 FAIL" in text
    assert "FAIL lr-too-high (cause): number 0" in text
    assert "… and 2 more" in text
    assert len(text) < 600
    assert repr(Report()) == "<Report check '': NOT_RUN; findings: none>"


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: tree.pop("metrics"),
        lambda tree: tree.update(schema=-1),
        lambda tree: tree.update(schema="1"),
        lambda tree: tree.update(findings=[{"code": "lr-too-high"}]),
        lambda tree: tree.update(series=[1.0]),
        lambda tree: tree["verdict"].update(status="FINE"),
    ],
)
def test_a_document_that_is_not_whole_is_told_in_words(change):
    tree = json.loads(full_report().to_json())
    change(tree)
    with pytest.raises(StoreError, match="Expected"):
        Report.from_json(json.dumps(tree))
