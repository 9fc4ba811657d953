"""The pytest plugin: options, fixtures, and one page, also across workers."""

import pytest

SUITE = """
from tsguard import catalogue

def test_one(record_finding):
    record_finding(catalogue.finding("data-leak", "windows are shared", where={"column": "a"}))

def test_two(not_run):
    not_run("data-order", "the file is not there")
"""


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "workers"])
def test_findings_of_all_tests_reach_one_page(pytester, workers):
    pytester.makepyfile(SUITE)
    result = pytester.runpytest_subprocess("--report", "out", "-p", "no:cacheprovider", *workers)
    result.assert_outcomes(passed=1, skipped=1)
    pages = list((pytester.path / "out").glob("suites-*/suite.html"))
    assert len(pages) == 1
    text = pages[0].read_text(encoding="utf-8")
    assert "windows are shared" in text
    assert "the file is not there" in text
    result.stdout.fnmatch_lines(["*suite.html*"])


def test_nothing_is_written_unless_asked(pytester):
    pytester.makepyfile("def test_it(): pass")
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)
    assert not (pytester.path / "reports").exists()


def test_without_a_run_its_fixtures_say_so(pytester):
    pytester.makepyfile("def test_it(subject): pass")
    result = pytester.runpytest_subprocess("-rs", "-p", "no:cacheprovider")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*add --run RUN.yaml*"])
