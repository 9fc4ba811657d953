"""The audit of each real set finds exactly the faults that are known to be in it, each named with column and count.

A set that is not here shows as skipped with the way to get it: `tsguard data where NAME`.
"""

from __future__ import annotations

import pytest

from tsguard.checks.audit import audit_data
from tsguard.data import sets

ETTH1_STUCK = {"HUFL": 15, "HULL": 15, "MUFL": 15, "MULL": 15, "LUFL": 16, "LULL": 16, "OT": 14}
GASES = {"CO(GT)": 1683, "NMHC(GT)": 8443, "NOx(GT)": 1639, "NO2(GT)": 1642, "codes_in_row": 8530}
SENSORS = ("PT08.S1(CO)", "C6H6(GT)", "PT08.S2(NMHC)", "PT08.S3(NOx)", "PT08.S4(NO2)", "PT08.S5(O3)", "T", "RH", "AH")

KNOWN = {
    "etth1": {
        *(("data-constant", column, runs) for column, runs in ETTH1_STUCK.items()),
        ("data-sentinel", "HULL", 410),
    },
    "air_quality": {
        *(("data-sentinel", column, rows) for column, rows in GASES.items()),
        *(("data-sentinel", column, 366) for column in SENSORS),
    },
    "arem": {
        ("data-format", "comment-header", 88),
        ("data-format", "delimiter", 480),
        ("data-order", "time", 1),
        ("data-volume", "rows_in_file", 3 * 479),
        ("data-leak", "content", 6),
    },
    "nab": {
        ("data-order", "timestamp", 22),
        ("data-order", "timestamp", 17),
        ("data-constant", "repeats_in_file", 4730),
    },
    "movielens": {
        ("data-order", "timestamp", 15_790),
        ("data-order", "timestamp", 61),
        ("data-precision", "float32_step", 73_957),
    },
    "vix": {("data-constant", "range", 506), ("data-order", "upper_shadow", 20)},
    "japanese_vowels": set(),
    "era5_uk": set(),
}
"""(code, column or kind, count) of every fault."""


def real(name):
    absent = sets.locate(name) is None
    reason = f"NOT_RUN: {name} is not here, see `tsguard data where {name}`"
    return pytest.param(name, marks=[pytest.mark.realdata, pytest.mark.skipif(absent, reason=reason)])


def faults(audit):
    found = set()
    for finding in audit.findings:
        if finding.status not in ("WARN", "FAIL"):
            assert finding.status == "PASS", finding.message
            continue
        facts = finding.evidence[0].value
        count = facts["lines"] if "lines" in facts else facts["count"]
        found.add((finding.code, finding.where.get("column") or facts["kind"], count or facts["observed"]))
    return found


@pytest.mark.parametrize("name", [real(name) for name in KNOWN])
def test_the_audit_finds_the_known_faults_and_no_others(name):
    assert faults(audit_data(name)) == KNOWN[name]


@pytest.mark.parametrize("name", [real("arem")])
def test_the_six_pairs_of_equal_files_are_named(name):
    (leak,) = [finding for finding in audit_data(name).findings if finding.code == "data-leak"]
    shared = [entry["splits"] for entry in leak.evidence[0].value["details"]["shared"]]
    assert len(shared) == 6
    assert sum(pair[0].startswith("lying/") for pair in shared) == 5
    assert ["cycling/dataset1.csv", "cycling/dataset15.csv"] in shared


@pytest.mark.parametrize("name", [real("etth1")])
def test_the_longest_stuck_run_is_lufl_with_140_hours(name):
    runs = {
        finding.where["column"]: finding.evidence[0].value["observed"]
        for finding in audit_data(name).findings
        if finding.code == "data-constant" and finding.status == "FAIL"
    }
    assert max(runs.values()) == runs["LUFL"] == 141  # 141 equal readings span 140 hours


def test_every_real_set_has_a_suite():
    assert set(KNOWN) == set(sets.SETS)
