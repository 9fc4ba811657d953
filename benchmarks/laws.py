"""How long all laws take on the small configuration of each family, and on the zoo's largest twin.

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


def main() -> None:
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores\n")
    print("| family | seconds | laws held | examples | broken | bar of 20 s |\n|---|---|---|---|---|---|")
    for name in FAMILIES:
        model, data, padding = family(name)
        start = time.perf_counter()
        results = laws.run(model, data, padding)
        spent = time.perf_counter() - start
        held = [row for row in results if row.outcome == "holds"]
        wrong = [row.code for row in results if row.outcome in ("broken", "crashed")]
        verdict = "met" if spent < BAR_S else "missed"
        examples = sum(row.examples for row in results)
        print(f"| {name} | {spent:.1f} | {len(held)} | {examples} | {', '.join(wrong) or 'none'} | {verdict} |")


if __name__ == "__main__":
    main()
