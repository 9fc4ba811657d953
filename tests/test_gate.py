"""Policies: what blocks, what passes, and what could not be evaluated."""

from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsguard import catalogue
from tsguard.errors import GateError
from tsguard.findings import Finding
from tsguard.gate import Condition, Gate
from tsguard.report import Report, Series

TODAY = date(2026, 3, 1)
PASSED = Finding("data-scale", "PASS", "note", "fine", check="scale")


def judged(gates, *findings, metrics=None, series=None, baseline=None):
    report = Report(findings=(PASSED, *findings), metrics=metrics or {}, series=series or {})
    return Gate.of(gates).judge(report, baseline=baseline, today=TODAY)


@pytest.mark.parametrize(
    ("demand", "good", "bad"),
    [
        (">= 0.3", 0.3, 0.29),
        ("<0.01", 0.009, 0.01),
        ("10..20", 10, 20.1),
        ("> -1.5e-3", 0, -0.002),
        ("!= 0", 1, 0),
        (True, 1.0, 0.0),
    ],
)
def test_demands_hold_or_block(demand, good, bad):
    assert judged({"r2": demand}, metrics={"r2": good}).status == "PASS"
    verdict = judged({"r2": demand}, metrics={"r2": bad})
    assert verdict.status == "FAIL"
    assert "r2 is" in verdict.reasons[0]


BANDS = {
    "r2": ">= 0.3",
    "std_ratio": ">= 0.7",
    "recall_min": ">= 0.3",
    "val_loss": "< 0.01",
    "artifact_mb": "10..20",
    "duration_min": "25..50",
    "skill_vs_baseline": "> 0",
    "gpu_used": True,
}
GOOD = {"r2": 0.31, "std_ratio": 0.7, "recall_min": 0.4, "val_loss": 0.009, "artifact_mb": 15, "duration_min": 30}
GOOD |= {"skill_vs_baseline": 0.1, "gpu_used": 1.0}
MISSED = {"r2": 0.2, "std_ratio": 0.04, "recall_min": 0, "val_loss": 0.05, "artifact_mb": 0.3, "duration_min": 2.5}
MISSED |= {"skill_vs_baseline": 0, "gpu_used": 0.0}


def test_the_success_bands_of_the_field_hold_together_and_each_can_be_missed():
    assert judged(BANDS, metrics=GOOD).status == "PASS"
    for name, value in MISSED.items():
        verdict = judged(BANDS, metrics={**GOOD, name: value})
        assert verdict.status == "FAIL"
        assert verdict.reasons[0].startswith(f"{name} is")


def test_train_and_validation_may_not_part_after_some_progress():
    gates = {"val_over_train": "< 2 after epoch 25"}
    early = Series((9.0, 1.1, 1.2), (3, 25, 30), "epoch")
    assert judged(gates, series={"epoch/val_over_train": early}).status == "PASS"
    parted = Series((1.0, 1.1, 2.4), (3, 25, 30), "epoch")
    assert judged(gates, series={"epoch/val_over_train": parted}).status == "FAIL"


@given(st.sampled_from([">= 0", "< 0", "0..1", "!= 3"]))
def test_nan_meets_no_demand(demand):
    assert not Condition.parse("m", demand).judge(float("nan"))


def test_a_metric_that_was_not_measured_could_not_be_evaluated():
    verdict = judged({"r2": "> 0"}, metrics={"loss": 1.0})
    assert verdict.exit_code == 3
    assert "loss" in verdict.reasons[0]


def test_a_demand_after_an_epoch_waits_for_it():
    curve = {"val_loss": Series((1.0, 0.5, 0.2), (1, 2, 3), "epoch")}
    assert judged({"val_loss": "< 0.6 after epoch 2"}, series=curve).status == "PASS"
    assert judged({"val_loss": "< 0.3 after epoch 2"}, series=curve).status == "FAIL"
    assert judged({"val_loss": "< 0.3 after epoch 9"}, series=curve).status == "PASS"


def test_a_demand_relative_to_an_accepted_report():
    accepted = Report(metrics={"val_loss": 1.0})
    gates = {"val_loss": "<= 1.02 x baseline"}
    assert judged(gates, metrics={"val_loss": 1.01}, baseline=accepted).status == "PASS"
    assert judged(gates, metrics={"val_loss": 1.03}, baseline=accepted).status == "FAIL"
    assert judged(gates, metrics={"val_loss": 1.0}).exit_code == 3


def test_a_failed_finding_blocks_and_a_warning_does_not():
    assert judged(None, catalogue.finding("data-leak", "m")).exit_code == 1
    assert judged(None, catalogue.finding("data-leak", "m", status="WARN")).exit_code == 0


def test_our_own_crash_never_looks_like_a_pass():
    assert judged(None, Finding("data-leak", "ERROR", "note", "crashed")).exit_code == 3


def test_no_findings_is_not_a_pass():
    assert Gate().judge(Report(), today=TODAY).exit_code == 3


def test_a_required_check_that_did_not_run_blocks():
    skipped = Finding("pad-length", "NOT_RUN", "note", "not asked: no padding", check="padding laws")
    verdict = judged({"required": ["padding laws", "scale"]}, skipped)
    assert verdict.exit_code == 3
    assert "no padding" in verdict.reasons[0]


def test_report_never_blocks_and_says_what_it_would_have():
    verdict = judged("report", catalogue.finding("data-leak", "m"))
    assert verdict.exit_code == 0
    assert verdict.reasons[0].startswith("not enforced")


def test_a_waiver_lets_through_until_its_day_and_shows():
    leak = catalogue.finding("data-leak", "m")
    waiver = {"code": "data-leak", "reason": "known, tracked", "until": "2026-03-01"}
    verdict = judged({"waivers": [waiver]}, leak)
    assert verdict.status == "PASS"
    assert "known, tracked" in verdict.reasons[0]
    assert judged({"waivers": [{**waiver, "until": "2026-02-28"}]}, leak).status == "FAIL"


@pytest.mark.parametrize("gates", [3, ["r2"], {"r2": "about 3"}, {"waivers": [{"code": "x"}]}])
def test_a_policy_that_cannot_be_read_is_refused(gates):
    with pytest.raises(GateError, match="gates"):
        Gate.of(gates)


def test_a_policy_from_a_file(tmp_path):
    path = tmp_path / "gates.yaml"
    path.write_text("r2: '>= 0.3'\nrequired: [scale]\n")
    assert Gate.load(path).conditions[0].metric == "r2"


def test_a_check_that_is_required_alone_needs_no_list():
    assert judged({"required": "data-scale"}).status == "PASS"
    assert judged({"required": "data-leak"}).reasons == ("required check 'data-leak' did not run",)


@pytest.mark.parametrize("until", ["2026-03-02", date(2026, 3, 2), datetime(2026, 3, 2, 12, tzinfo=UTC)])
def test_the_end_of_a_waiver_may_be_written_in_any_way(until):
    failed = Finding("lr-too-high", "FAIL", "cause", "runs away")
    waiver = {"code": "lr-too-high", "reason": "known", "until": until}
    assert judged({"waivers": [waiver]}, failed).status == "PASS"
    assert judged({"waivers": waiver}, failed).status == "PASS"


@pytest.mark.parametrize(
    ("waivers", "words"),
    [
        ([{"code": "a", "reason": "b", "until": "soon"}], "'soon'.*the last day"),
        ([{"code": "a", "reason": "b", "until": None}], "the last day"),
        (["lr-too-high"], "a list of"),
        ("lr-too-high", "a list of"),
    ],
)
def test_a_waiver_that_cannot_be_read_is_told_in_words(waivers, words):
    with pytest.raises(GateError, match=words):
        judged({"waivers": waivers})
