"""What a CI service gets: JUnit XML that any reader takes, a step summary within its limit, ten annotations."""

from xml.etree import ElementTree as xml

import pytest

from tsguard import catalogue
from tsguard.findings import Finding, Role, Status
from tsguard.render import junit, markdown
from tsguard.report import Report, Verdict


def findings(fails=1):
    return (
        *(
            catalogue.finding("lr-too-high", f"rate {number} is <too> high | 100%\nsecond line", where={"step": number})
            for number in range(fails)
        ),
        catalogue.finding("loss-spike", "a spike", status="WARN"),
        Finding("off-plan", Status.NOT_RUN, Role.NOTE, "not asked: no plan"),
        Finding("dead-units", Status.PASS, Role.NOTE, "none"),
        Finding("data-leak", Status.ERROR, Role.NOTE, "the check\x00 crashed"),
    )


def report(**changes):
    fields = {"findings": findings(), "metrics": {"r2": 0.25}, "verdict": Verdict("FAIL", ("lr-too-high: it is",))}
    return Report(name="<run> & *co*", **{**fields, **changes})


def test_junit_has_a_case_for_every_finding_and_one_for_the_verdict():
    suite = xml.fromstring(junit.document(report())).find("testsuite")
    counts = {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "6", "failures": "2", "errors": "1", "skipped": "1"}
    cases = {case.get("name"): case for case in suite.iter("testcase")}
    assert "<too> high" in cases["lr-too-high (step 0)"].find("failure").get("message")
    assert cases["loss-spike"].find("system-out").text.startswith("WARN")
    assert cases["verdict"].find("failure") is not None
    assert suite.find("properties/property").attrib == {"name": "r2", "value": "0.25"}


def test_a_verdict_that_could_not_be_reached_is_an_error_and_a_pass_is_clean():
    unknown = xml.fromstring(junit.document(report(verdict=Verdict("NOT_RUN", ("no check ran",)))))
    assert unknown.find(".//testcase[@name='verdict']/error").get("message") == "no check ran"
    clean = xml.fromstring(junit.document(report(findings=(), verdict=Verdict("PASS"))))
    assert (clean.get("failures"), clean.get("errors")) == ("0", "0")


def test_the_summary_says_the_verdict_first_and_draws_nothing_that_a_message_holds():
    text = markdown.summary(report())
    assert text.splitlines()[0] == "## tsguard check · &lt;run&gt; &amp; \\*co\\*: ❌ FAIL"
    row = next(line for line in text.splitlines() if "lr-too-high" in line and line.startswith("|"))
    assert "&lt;too&gt; high \\| 100% second line" in row
    assert row.count(" | ") == 3
    assert "| r2 | 0.25 |" in text


@pytest.mark.parametrize("limit", [markdown.MOST_BYTES, 3000, 300])
def test_the_summary_never_outgrows_its_limit_and_counts_what_it_leaves_out(limit):
    text = markdown.summary(report(findings=findings(fails=9000)), limit=limit)
    assert len(text.encode()) <= limit
    if limit >= 3000:
        assert "more; see the page" in text
        assert "Metrics" in text


def test_at_most_ten_annotations_failures_first_on_one_line_each():
    lines = markdown.workflow_commands(report(findings=findings(fails=30)))
    assert len(lines) == 10
    assert all(line.startswith("::error ") and "\n" not in line for line in lines)
    last = markdown.workflow_commands(report())[-1]
    assert last.startswith("::warning title=tsguard loss-spike::")


def test_an_annotation_points_at_its_file():
    found = catalogue.finding("config-unused-key", "x: 50%", where={"file": "a,b.yaml", "line": 3})
    (line,) = markdown.workflow_commands(report(findings=(found,)))
    assert line.startswith("::error file=a%2Cb.yaml,line=3,title=") or line.startswith(
        "::warning file=a%2Cb.yaml,line=3"
    )
    assert line.endswith("::x: 50%25")


def test_a_run_and_the_command_line_leave_all_three_where_the_service_looks(tmp_path, monkeypatch, capsys):
    import typer

    from tsguard import cli
    from tsguard.desk import written
    from tsguard.store import RunFolder

    folder = RunFolder.create(tmp_path, "r")
    told = written(report(), folder)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    for json in (False, True):
        with pytest.raises(typer.Exit) as ended:
            cli._finish(told, json)
        assert ended.value.exit_code == 1
        assert ("::error title=" in capsys.readouterr().out) is not json
    assert (tmp_path / "summary.md").read_text().count("## tsguard check") == 2
    assert xml.parse(folder.path / "junit.xml").getroot().tag == "testsuites"
