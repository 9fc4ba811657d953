"""How long all laws take on the small configuration of each family, and which of them do not apply, and why.

    KERAS_BACKEND=torch python -m benchmarks.laws

The bar: under 20 s a family on two cores.
"""

from __future__ import annotations

import importlib
import os
import platform
import time
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")

import yaml

from tsguard import Padding, laws
from tsguard.dataset import Data

BAR_S = 20.0
"""Judged by processor time: what other processes on the two cores take is not the laws'."""
BUDGET_S = 300.0
"""Enough that no law is left out on a busy machine."""
FAMILIES = ("duet", "tft", "cloud", "ss4rec", "moola")


def named(place: str):
    module, name = place.split(":")
    return getattr(importlib.import_module(module), name)


def family(name: str):
    """Model, data and padding as the family's run file says."""
    text = yaml.safe_load((Path(__file__).parent.parent / "models" / f"{name}.yaml").read_text(encoding="utf-8"))
    model = named(text["model"]["use"])(**(text["model"].get("args") or {}))
    data = Data.of(named(text["data"]["use"])(**(text["data"].get("args") or {})))
    return model, data, Padding(**text["padding"]) if text.get("padding") else None


def judged(name: str) -> tuple[list[laws.LawResult], float, float]:
    """What the laws answer about a family, with the processor and the wall seconds that they took."""
    model, data, padding = family(name)
    wall, processor = time.perf_counter(), time.process_time()
    results = laws.run(model, data, padding, budget_s=BUDGET_S)
    return results, time.process_time() - processor, time.perf_counter() - wall


def reasons(answers: dict[str, list[laws.LawResult]]) -> dict[tuple[str, str], list[str]]:
    """The families to which laws do not apply, by these laws and the reason why."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, results in answers.items():
        why: dict[str, list[str]] = {}
        for row in results:
            if row.outcome == "not-applicable":
                why.setdefault(row.reason, []).append(row.law)
        for reason, which in why.items():
            found.setdefault((reason, "; ".join(which)), []).append(name)
    return found


def main() -> None:
    answers = {name: judged(name) for name in FAMILIES}
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    print(
        "| family | processor s | wall s | laws held | examples | broken | bar of 20 s |\n|---|---|---|---|---|---|---|"
    )
    for name, (results, processor, wall) in answers.items():
        held = [row for row in results if row.outcome == "holds"]
        wrong = [row.code for row in results if row.outcome in ("broken", "crashed")]
        verdict = "met" if processor < BAR_S else "missed"
        examples = sum(row.examples for row in results)
        cells = (name, f"{processor:.1f}", f"{wall:.1f}", len(held), examples, ", ".join(wrong) or "none", verdict)
        print(f"| {' | '.join(map(str, cells))} |")
    print("\n| laws that do not apply | to | reason |\n|---|---|---|")
    for (reason, which), names in reasons({name: results for name, (results, _, _) in answers.items()}).items():
        print(f"| {which} | {', '.join(names)} | {reason} |")


if __name__ == "__main__":
    main()
