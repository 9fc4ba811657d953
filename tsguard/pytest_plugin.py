"""`pytest suites/`: options, fixtures, and one page at the end with every finding, also across xdist's workers.

Findings travel as properties of the test's own report, which pytest-xdist carries to the controller anyway. Nothing
heavy is imported when the plugin loads: a project that only has tsguard installed pays nothing for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tsguard.findings import Finding
    from tsguard.opening import Opened
    from tsguard.padding import Padding
    from tsguard.report import Report
    from tsguard.subject import Subject

_PROPERTY = "tsguard.finding"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The two options of a suite."""
    group = parser.getgroup("tsguard", "tsguard: suites over a run")
    group.addoption("--run", dest="tsguard_run", metavar="RUN.yaml", help="the run whose model and data are judged")
    group.addoption(
        "--report",
        dest="tsguard_report",
        metavar="FOLDER",
        nargs="?",
        const="reports",
        help="write one page with every finding into a new folder under FOLDER (default: reports)",
    )


class _Collected:
    """What the controller hears from all tests, its own or its workers'."""

    def __init__(self) -> None:
        self.findings: list[dict[str, Any]] = []
        self.tests: list[dict[str, Any]] = []


_COLLECTED = pytest.StashKey[_Collected]()
_OPENED = pytest.StashKey["Opened"]()


def pytest_configure(config: pytest.Config) -> None:
    """Room for what will be heard."""
    config.stash[_COLLECTED] = _Collected()
    config.pluginmanager.register(_Listener(config), "tsguard-listener")


class _Listener:
    """Hears every test's report; on a worker of xdist the controller hears it instead."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        collected = self.config.stash[_COLLECTED]
        if report.when == "call" or (report.when == "setup" and report.outcome != "passed"):
            words = _words(report)
            collected.tests.append(
                {"test": report.nodeid, "outcome": report.outcome, "seconds": round(report.duration, 3), "words": words}
            )
        if report.when == "teardown":
            # The test that told a finding is its check: the page puts findings beside their suite.
            collected.findings.extend(
                {**json.loads(str(text)), "check": report.nodeid}
                for name, text in report.user_properties
                if name == _PROPERTY
            )


WORDS_MAX = 2000
"""Characters of what a failed test said that go onto the page: the end, where the assertion is."""


def _words(report: pytest.TestReport) -> str:
    """What a test said: of a skipped one its reason alone."""
    if report.outcome == "passed":
        return ""
    if report.outcome == "skipped" and isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")[:WORDS_MAX]
    return report.longreprtext[-WORDS_MAX:]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """One page, written by the controller alone."""
    folder = session.config.getoption("tsguard_report")
    if folder is None or hasattr(session.config, "workerinput"):
        return
    session.config.stash[_PAGE] = _write_page(session.config, Path(folder))


_PAGE = pytest.StashKey[Path]()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say where the page is."""
    page = config.stash.get(_PAGE, None)
    if page is not None:
        terminalreporter.write_line(f"tsguard: {page}")


def _write_page(config: pytest.Config, folder: Path) -> Path:
    from tsguard import provenance
    from tsguard.desk import written
    from tsguard.gate import Gate
    from tsguard.report import Report, finding_from
    from tsguard.store import RunFolder

    collected = config.stash[_COLLECTED]
    report = Report(
        kind="suite",
        name="suites",
        findings=tuple(finding_from(tree) for tree in collected.findings),
        figures={"tests": sorted(collected.tests, key=lambda test: test["test"])},
        provenance=provenance.gather(),
    )
    report = report.with_(verdict=Gate().judge(report, today=provenance.today()))
    path = written(report, RunFolder.create(folder, "suites")).path
    assert path is not None
    return path


@pytest.fixture
def record_finding(request: pytest.FixtureRequest) -> Callable[[Finding], None]:
    """Put a finding on the suite's page."""
    from tsguard.report import dumps, fields_of

    def record(finding: Finding) -> None:
        request.node.user_properties.append((_PROPERTY, dumps(fields_of(finding), indent=None)))

    return record


@pytest.fixture
def not_run(record_finding: Callable[[Finding], None]) -> Callable[[str, str], None]:
    """Say that a question could not be asked: a NOT_RUN finding on the page, a skip in the terminal."""

    def skip(code: str, reason: str) -> None:
        from tsguard.findings import Finding, Role, Status

        record_finding(Finding(code, Status.NOT_RUN, Role.NOTE, f"not asked: {reason}"))
        pytest.skip(f"NOT_RUN: {reason}")

    return skip


@pytest.fixture(scope="session")
def opened_run(request: pytest.FixtureRequest) -> Opened:
    """The run that `--run` names, read and built once."""
    path = request.config.getoption("tsguard_run")
    if path is None:
        pytest.skip("NOT_RUN: no run was named; add --run RUN.yaml")
    if _OPENED not in request.config.stash:
        from tsguard.opening import open_run

        request.config.stash[_OPENED] = open_run(Path(path))
    return request.config.stash[_OPENED]


@pytest.fixture
def subject(opened_run: Opened) -> Subject:
    """The Subject of the run."""
    return opened_run.subject


@pytest.fixture
def padding(opened_run: Opened) -> Padding | None:
    """The declared Padding of the run."""
    return opened_run.subject.padding


@pytest.fixture
def batch(subject: Subject) -> tuple[Any, Any, Any]:
    """The first batch of the run's data: (x, y, sample_weight)."""
    if subject.data is None:
        pytest.skip("NOT_RUN: the run names no data")
    return next(subject.data.batches(1))


@pytest.fixture(scope="session")
def preflight_report(opened_run: Opened) -> Report:
    """The whole preflight of the run, asked once."""
    from tsguard.commands import check_opened

    return check_opened(opened_run, progress=lambda name: None)
