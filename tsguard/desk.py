"""The desk: where documents become files and pages. Doors hand it to the reports that they give out."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from tsguard.comparison import Comparison
from tsguard.errors import StoreError
from tsguard.render import html, junit
from tsguard.report import Report, dumps, loads
from tsguard.store import RunFolder, load_report, locked, write_whole

SUMMARY = "summary.json"
PAGES = {"check": "before.html", "train": "after.html", "audit": "audit.html", "suite": "suite.html"}


@dataclass(frozen=True, slots=True)
class PageDesk:
    """Writes report.json and the page beside it."""

    def save(self, report: Report, folder: str | Path) -> Path:
        """Both files into a folder; the document last, so that a report.json always has its page."""
        target = Path(folder)
        text = html.page(report, earlier=_earlier(report, target))
        path = write_whole(target / PAGES.get(report.kind, "report.html"), text.encode("utf-8"))
        write_whole(target / "report.json", report.to_json().encode("utf-8"))
        return path

    def first_screen(self, report: Report) -> str:
        """The verdict and findings as HTML for a notebook."""
        return html.first_screen(report)


DESK = PageDesk()


def written(report: Report, folder: RunFolder) -> Report:
    """The report, saved in its run's folder and listed in the index beside it."""
    report = report.with_(desk=DESK, run=folder.run)
    if report.kind == "check":
        folder.write_text("before.json", report.to_json())
    path = DESK.save(report, folder.path)
    folder.write_text(SUMMARY, dumps(html.summary(report, f"{folder.path.name}/{path.name}")))
    if report.kind == "train":
        folder.write_bytes("history.parquet", history(report))
    folder.write_text("junit.xml", junit.document(report))
    list_runs(folder.path.parent)
    return report.with_(path=path)


def _earlier(report: Report, folder: Path) -> dict[str, Report]:
    """What a run's page is held against: its own page before the run, and the last run of the same name and stage."""
    if report.run is None:
        return {}
    found = {}
    with contextlib.suppress(OSError, StoreError):
        if report.kind == "train":
            found["the page before the run"] = load_report(folder / "before.json")
    rows = []
    for file in folder.parent.glob(f"*/{SUMMARY}"):
        with contextlib.suppress(OSError, StoreError, KeyError, TypeError):
            row = loads(file.read_text(encoding="utf-8"))
            if file.parent != folder and (row["name"], row["kind"]) == (report.name, report.kind):
                rows.append((str(row["started"]), file.parent))
    with contextlib.suppress(OSError, StoreError):
        if rows:
            found["the run before"] = load_report(max(rows)[1])
    return found


def history(report: Report) -> bytes:
    """Every recorded quantity as one Parquet table: name, per (step or epoch), at, value."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [(name, one.per, x, y) for name, one in report.series.items() for x, y in zip(one.x, one.y, strict=True)]
    names, pers, places, values = zip(*rows, strict=True) if rows else ((), (), (), ())
    table = pa.table(
        {
            "name": pa.array(names, pa.string()),
            "per": pa.array(pers, pa.string()),
            "at": pa.array(places, pa.float64()),
            "value": pa.array(values, pa.float64()),
        }
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue())


def list_runs(out: Path) -> Path:
    """Write the index of a folder of runs anew. Runs that end at the same time wait for each other."""
    with locked(out):
        rows = []
        for file in out.glob(f"*/{SUMMARY}"):
            with contextlib.suppress(OSError, StoreError):
                rows.append(loads(file.read_text(encoding="utf-8")))
        return write_whole(out / "index.html", html.index(rows).encode("utf-8"))


def save_comparison(found: Comparison, path: Path) -> Path:
    """Runs side by side as a page."""
    return write_whole(path, html.comparison(found).encode("utf-8"))
