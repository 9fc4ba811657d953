"""How long `tsguard check` takes for each family's small configuration: whole, and which checks take it.

    KERAS_BACKEND=torch python -m benchmarks.preflight [--write] [models/duet.yaml …]

Every run is a process of its own, so that the import of Keras and the making of the data count, as they do for a user.
Wall time is what a user waits; processor time is what it would be on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
SMALL = ["duet", "duet_pretrain", "moola", "moola_pretrain", "tft", "cloud", "ss4rec"]
BAR_S = 30.0
SHOWN = 3


def measured(run: Path) -> str:
    """A row of the table."""
    with tempfile.TemporaryDirectory() as place:
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "tsguard", "check", str(run), "--json", "--out", place],
            cwd=ROOT,
            env={**os.environ, "KERAS_BACKEND": "torch"},
            capture_output=True,
            text=True,
            check=False,
        )
        wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)
    report = json.loads(done.stdout)
    seconds: dict[str, float] = {}
    for finding in report["findings"]:
        seconds[finding["check"]] = max(seconds.get(finding["check"], 0.0), finding.get("seconds") or 0.0)
    slowest = sorted(seconds.items(), key=lambda pair: -pair[1])[:SHOWN]
    unasked = sorted({f["check"] for f in report["findings"] if "time budget" in f["message"]})
    words = ", ".join(f"{name} {took:.1f}" for name, took in slowest)
    late = f"; out of time: {', '.join(unasked)}" if unasked else ""
    return f"| {run.stem} | {wall:.1f} | {spent:.1f} | {report['verdict']['status']} | {words}{late} |"


def main() -> None:
    """Print the table; keep it where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="*", default=[ROOT / "models" / f"{name}.yaml" for name in SMALL])
    parser.add_argument("--write", action="store_true", help="Keep the table in benchmarks/results/preflight.md.")
    given = parser.parse_args()
    lines = [
        f"| run | wall s (bar {BAR_S:g}) | processor s | verdict | slowest checks, s |",
        "| --- | --- | --- | --- | --- |",
    ]
    print("\n".join(lines), flush=True)
    for run in given.runs:
        lines.append(measured(run))
        print(lines[-1], flush=True)
    if given.write:
        text = f"# The preflight\n\n`python -m benchmarks.preflight --write`, {os.cpu_count()} shared cores\n\n"
        (Path(__file__).parent / "results" / "preflight.md").write_text(
            text + "\n".join(lines) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
