"""How long the audit of each real set takes, imports apart: `python benchmarks/audits.py`. The bar is 3 s for each."""

from __future__ import annotations

import time
from pathlib import Path

import tsguard.expect.timeseries
import tsguard.expect.validation  # noqa: F401  imports are not what is timed
from tsguard.checks.audit import audit_data
from tsguard.checks.registry import all_checks
from tsguard.data import sets

RESULT = Path(__file__).parent / "results" / "audits.md"
ROUNDS = 3


def main() -> None:
    all_checks()
    lines = [
        "# Audit of each real set",
        "",
        f"Reading, every expectation, and the figures of the page; the best and the worst of {ROUNDS} rounds, imports "
        "apart. `python benchmarks/audits.py`; the bar is 3 s.",
        "",
        "| set | size | expectations | unmet | best s | worst s |",
        "|---|---|---|---|---|---|",
    ]
    for name, one in sets.SETS.items():
        if sets.locate(name) is None:
            lines.append(f"| {name} | NOT_RUN: not here, see `tsguard data where {name}` | | | | |")
            continue
        spent = []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            audit = audit_data(name)
            spent.append(time.perf_counter() - started)
        counts = f"{audit.metrics['expectations']:.0f} | {audit.metrics['unmet']:.0f}"
        lines.append(f"| {name} | {one.size} | {counts} | {min(spent):.2f} | {max(spent):.2f} |")
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
