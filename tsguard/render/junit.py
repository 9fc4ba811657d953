"""A report as JUnit XML: one test case per finding, so that every CI service shows which check said what.

FAIL is a failure, ERROR an error, NOT_RUN skipped with its reason; a WARN passes with its words in system-out, because
it lets the gate pass. The verdict is a case of its own: it can fail by a metric that no finding is about.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from xml.etree import ElementTree as xml

from tsguard.findings import Finding, Status
from tsguard.report import Report

_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold, not even escaped: a control character in a message would make the file unreadable."""


def document(report: Report) -> str:
    """The whole file."""
    cases = [_case(report, finding) for finding in report.findings]
    cases.append(_verdict(report))
    suite = xml.Element("testsuite", _counts(cases), name=_clean(f"tsguard {report.kind}: {report.name}"))
    if report.provenance.started:
        suite.set("timestamp", report.provenance.started)
    properties = xml.SubElement(suite, "properties")
    for name, value in sorted(report.metrics.items()):
        xml.SubElement(properties, "property", name=_clean(name), value=f"{value:.6g}")
    suite.extend(cases)
    whole = xml.Element("testsuites", _counts(cases))
    whole.append(suite)
    xml.indent(whole)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + xml.tostring(whole, encoding="unicode") + "\n"


def _counts(cases: Iterable[xml.Element]) -> dict[str, str]:
    listed = list(cases)
    found = {"tests": len(listed)}
    for tag, name in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        found[name] = sum(case.find(tag) is not None for case in listed)
    found_time = sum(float(case.get("time", "0")) for case in listed)
    return {**{name: str(value) for name, value in found.items()}, "time": f"{found_time:.3f}"}


def _case(report: Report, finding: Finding) -> xml.Element:
    place = ", ".join(f"{key} {value}" for key, value in finding.where.items())
    name = _clean(f"{finding.code} ({place})" if place else finding.code)
    case = xml.Element("testcase", classname=_clean(f"tsguard.{report.kind}.{finding.check or 'check'}"), name=name)
    case.set("time", f"{finding.seconds or 0.0:.3f}")
    message, whole = _clean(finding.message), _clean(f"{finding.message}\n{finding.remedy}".strip())
    if finding.status is Status.FAIL:
        xml.SubElement(case, "failure", message=message, type=finding.code).text = whole
    elif finding.status is Status.ERROR:
        trace = next((str(e.value) for e in finding.evidence if e.kind == "traceback"), "")
        xml.SubElement(case, "error", message=message, type=finding.code).text = _clean(f"{whole}\n{trace}")
    elif finding.status is Status.NOT_RUN:
        xml.SubElement(case, "skipped", message=message)
    elif finding.status is Status.WARN:
        xml.SubElement(case, "system-out").text = f"WARN: {whole}"
    return case


def _verdict(report: Report) -> xml.Element:
    case = xml.Element("testcase", classname=f"tsguard.{report.kind}.gate", name="verdict", time="0.000")
    reasons = _clean("\n".join(report.verdict.reasons))
    first = reasons.splitlines()[0] if reasons else f"verdict {report.verdict.status}"
    if report.verdict.status is Status.FAIL:
        xml.SubElement(case, "failure", message=first, type="gate").text = reasons
    elif not report.verdict:
        xml.SubElement(case, "error", message=first, type="gate").text = reasons
    return case


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("�", text)
