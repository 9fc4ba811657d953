"""What pages cost: bytes and seconds of the largest report, of the list of a thousand runs, and the first paint.

Run it with `python -m benchmarks.pages [--json FILE]` from the root. The bars: a page of at most 1 MB in at most 2 s,
the list in at most 3 s, first paint in headless Chromium within 0.5 s. The largest report has 5,000 steps, 200
parameters, a hundred findings, three of four with a proof, and ten counterexamples.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.render.reports import large_report, train_report
from tsguard.render import html

REPEATS = 5
BARS = {"page_mb": 1.0, "page_s": 2.0, "index_s": 3.0, "first_paint_s": 0.5}


def timed(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """The best of a few repetitions, because other work only adds; the first, which imports, does not count."""
    work()
    seconds = []
    for _ in range(REPEATS):
        start = clock()
        work()
        seconds.append(clock() - start)
    return min(seconds)


def first_paint(text: str) -> float | None:
    """Seconds to the first contentful paint of a page on disk, the best of a few; None where there is no chromium."""
    if not (shutil.which("/usr/bin/chromium") and shutil.which("/usr/bin/chromedriver")):
        return None
    from selenium import webdriver

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        page = Path(folder) / "page.html"
        page.write_text(text, encoding="utf-8")
        options = webdriver.ChromeOptions()
        options.binary_location = "/usr/bin/chromium"
        for flag in ("headless", "no-sandbox", "disable-gpu", "disable-background-networking", "no-first-run"):
            options.add_argument(f"--{flag}")
        options.add_argument(f"--user-data-dir={folder}/profile")
        browser = webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))
        times = []
        try:
            for _ in range(REPEATS):
                browser.get(page.as_uri())
                time.sleep(1)
                painted = browser.execute_script(
                    "return performance.getEntriesByName('first-contentful-paint').map(e => e.startTime)[0] || null"
                )
                if painted is not None:
                    times.append(painted / 1000)
        finally:
            browser.quit()
    return min(times) if times else None  # other work on the machine only adds


def measure() -> dict[str, float | None]:
    """Every figure by its name."""
    report = large_report()
    text = html.page(report)
    row = html.summary(train_report(steps=5000), "run/after.html")
    rows = [{**row, "name": f"run-{n}", "started": f"2026-01-01T00:{n % 60:02}:00"} for n in range(1000)]
    return {
        "page_mb": len(text.encode()) / 1e6,
        "page_s": timed(lambda: html.page(report)),
        "page_cpu_s": timed(lambda: html.page(report), time.process_time),
        "document_cpu_s": timed(report.to_json, time.process_time),
        "index_s": timed(lambda: html.index(rows)),
        "index_cpu_s": timed(lambda: html.index(rows), time.process_time),
        "index_mb": len(html.index(rows).encode()) / 1e6,
        "first_paint_s": first_paint(text),
    }


def main() -> int:
    """Print the figures; 1 where one is over its bar."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    found = measure()
    target = parser.parse_args().json
    if target is not None:
        target.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    over = False
    for name, value in found.items():
        bar = BARS.get(name)
        late = value is not None and bar is not None and value > bar
        over = over or late
        told = "not measured: no chromium" if value is None else f"{value:.3f}"
        print(f"{name:14} {told}" + (f"  (bar {bar})" if bar is not None else "") + ("  OVER" if late else ""))
    return int(over)


if __name__ == "__main__":
    sys.exit(main())
