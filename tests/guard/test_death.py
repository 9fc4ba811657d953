"""However a run ends, its folder says what was known at the last flush, and the process ends as it was meant to."""

import signal
import subprocess
import sys
import time

import pytest

from tests.guard.dying import LAST
from tsguard.commands import rewrite
from tsguard.report import Report

pytestmark = pytest.mark.slow


def died(folder, how):
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "tests.guard.dying", str(folder), how], capture_output=True, text=True, timeout=240
    )
    (run,) = [path for path in folder.iterdir() if (path / "run.json").is_file()]
    return run, done, time.monotonic() - start


def test_after_kill_nine_the_report_holds_the_last_flush(tmp_path):
    run, done, _ = died(tmp_path, "kill")
    assert done.returncode == -signal.SIGKILL
    assert not (run / "report.json").exists()
    report = rewrite(run)
    assert report.verdict.status == "ERROR"
    known = report.series["loss"].x
    assert known[0] == 0
    assert LAST - 3 <= known[-1] <= LAST
    assert len(report.series["grad_norm"]) == len(known)
    (finding,) = [f for f in report.findings if f.code == "child-failed"]
    assert finding.where["step"] == known[-1]
    assert (run / "index.html").is_file() or any(run.glob("*.html"))


@pytest.mark.parametrize(
    ("how", "code", "words"),
    [
        ("term", -signal.SIGTERM, "SIGTERM"),
        ("raise", 1, "RuntimeError: the callback broke"),
        ("memory", 1, "MemoryError: no room"),
        ("exit", 3, "ended before the run did"),
    ],
)
def test_a_run_that_is_ended_writes_its_report_and_ends_as_it_was_told(tmp_path, how, code, words):
    run, done, _ = died(tmp_path, how)
    assert done.returncode == code, done.stderr[-800:]
    report = Report.from_json((run / "report.json").read_text())
    (finding,) = [f for f in report.findings if f.code == "interrupted"]
    assert words in finding.message
    assert finding.where["step"] == LAST - 1
    assert len(report.series["loss"]) == LAST
    assert rewrite(run).series["loss"].y == report.series["loss"].y
