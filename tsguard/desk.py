"""The desk: where documents become files and pages. Doors hand it to the reports that they give out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tsguard.render import html
from tsguard.report import Report
from tsguard.store import RunFolder, write_whole

PAGES = {"check": "before.html", "train": "after.html", "audit": "audit.html", "suite": "suite.html"}


@dataclass(frozen=True, slots=True)
class PageDesk:
    """Writes report.json and the page beside it."""

    def save(self, report: Report, folder: str | Path) -> Path:
        """Both files into a folder; the document last, so that a report.json always has its page."""
        target = Path(folder)
        path = write_whole(target / PAGES.get(report.kind, "report.html"), html.page(report).encode("utf-8"))
        write_whole(target / "report.json", report.to_json().encode("utf-8"))
        return path

    def first_screen(self, report: Report) -> str:
        """The verdict and findings as HTML for a notebook."""
        return html.first_screen(report)


DESK = PageDesk()


def written(report: Report, folder: RunFolder) -> Report:
    """The report, saved in its run's folder, knowing its page and able to be saved elsewhere."""
    report = report.with_(desk=DESK, run=folder.run)
    if report.kind == "check":
        folder.write_text("before.json", report.to_json())
    return report.with_(path=DESK.save(report, folder.path))
