"""Reduction against plain delta debugging over batch rows, on planted faults: scalars left, seconds, lines of script.

KERAS_BACKEND=torch python -m benchmarks.repro [NAME …]
"""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import statistics
import sys
import time
import warnings

import keras

from fixtures.operations.faults import BATCH, FAULTS, STEP
from tsguard.backend import preserved
from tsguard.dataset import map_leaves
from tsguard.repro import emit
from tsguard.repro.case import Batch, from_batch
from tsguard.repro.find import reduced
from tsguard.repro.passes import drop_samples

BUDGET_S = 60


def case_of(fault):
    """The failing batch of a planted fault; None where a single first step does not fail."""
    keras.utils.set_random_seed(3)
    model, x, y = fault.build(True)  # noqa: FBT003 - the fixtures' own signature
    rows = slice(STEP * BATCH, (STEP + 1) * BATCH)
    batch = Batch(*(map_leaves(lambda leaf: leaf[rows], part) for part in (x, y)))
    model(batch.x)
    return from_batch(model, batch, weights=tuple(model.get_weights()), name=fault.name, hidden="hidden" in fault.name)


def measured(fault):
    """One line of the table."""
    case = case_of(fault)
    if case is None:
        return None
    began = time.perf_counter()
    with preserved(case.model):
        rows_only = drop_samples(case, lambda candidate: candidate.fails())
    rows_s = time.perf_counter() - began
    began = time.perf_counter()
    small = reduced(case, budget_s=BUDGET_S)
    seconds = time.perf_counter() - began
    script = emit.emit(small)
    return case.original_size, rows_only.size, rows_s, small.size, seconds, 0 if script.refused else script.lines


def main(names):
    """Every planted fault, or those named."""
    warnings.simplefilter("ignore")
    print(f"{'fault':36} {'whole':>6} {'rows only':>9} {'s':>6} {'reduced':>8} {'s':>6} {'lines':>6}")
    table = []
    for fault in FAULTS:
        if names and not any(name in fault.name for name in names):
            continue
        row = measured(fault)
        if row is None:
            print(f"{fault.name:36} does not fail on a first step")
            continue
        table.append(row)
        whole, rows_only, rows_s, size, seconds, lines = row
        told = lines or "README"
        print(f"{fault.name:36} {whole:6} {rows_only:9} {rows_s:6.1f} {size:8} {seconds:6.1f} {told:>6}", flush=True)
    if table:
        lines = [row[5] for row in table if row[5]]
        print(
            f"\n{len(table)} failures, {len(lines)} scripts; medians: rows only keeps "
            f"{statistics.median(row[1] / row[0] for row in table):.0%} of the scalars in "
            f"{statistics.median(row[2] for row in table):.1f} s, all passes keep "
            f"{statistics.median(row[3] / row[0] for row in table):.1%} in "
            f"{statistics.median(row[4] for row in table):.1f} s; {statistics.median(lines):.0f} lines of script."
        )


if __name__ == "__main__":
    main(sys.argv[1:])
