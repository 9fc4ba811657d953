"""What going back finds, and how long it takes: the planted faults one by one, and the time from trip to answer.

    KERAS_BACKEND=torch python benchmarks/guard_answers.py [--only NAME…] [--write]

Every planted fault (`fixtures/operations`) is trained once sick and once as its healthy twin. Right is: code,
operation, layer, phase, step and loss term; the element by itself; a twin is right where nothing fails. The time from
trip to answer is held against that of the replayed steps once more, plus one instrumented step, on the models of
`benchmarks/guard.py` with a NaN in one batch.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import guard as models
import keras
import numpy as np
import torch

from fixtures.operations.faults import BATCH, FAULTS, STEP, Fault
from fixtures.operations.programs import PROGRAMS
from tsguard.findings import Status
from tsguard.guard import investigate
from tsguard.guard.callback import Guard

TRIPS_AT = 40
"""The step whose batch holds the NaN: in the middle of a window."""


def answered(fault: Fault, *, sick: bool) -> tuple[Any, float]:
    """The first finding of one run, and the seconds from trip to answer."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(1)
    model, x, y = fault.build(sick)
    watch = Guard(out=None, stall_s=None)
    model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0, callbacks=[watch])
    return watch.report.findings[0], watch.outcome.facts["answer_seconds"] or 0.0


def judged(fault: Fault) -> tuple[bool, bool, bool, float]:
    """Producer right, element right, twin left alone, seconds."""
    found, seconds = answered(fault, sick=True)
    where = found.where

    def tail(key: str) -> Any:
        value = where.get(key)
        return None if value is None else str(value).split("/")[-1]

    producer = (found.code, where.get("op"), where.get("phase"), where.get("step")) == (
        fault.code, fault.op, fault.phase, STEP,
    )  # fmt: skip
    producer = producer and fault.layer in (None, tail("layer")) and fault.loss_term in (None, tail("loss_term"))
    element = tuple(where.get(key) for key in ("sample", "timestep", "feature"))
    twin, _ = answered(fault, sick=False)
    return producer, element == (fault.sample, fault.timestep, fault.feature), twin.status < Status.FAIL, seconds


def faults(only: list[str]) -> list[str]:
    """The rows of the table of planted faults."""
    sums: dict[tuple[str, str], list[tuple[bool, bool, bool, float]]] = defaultdict(list)
    for name, group in (("operation × place", FAULTS), ("whole programs", PROGRAMS)):
        for fault in group:
            if only and fault.name not in only:
                continue
            answer = judged(fault)
            sums[name, "held out" if fault.held_out else "open"].append(answer)
            if not all(answer[:3]):
                print(f"missed: {fault.name} (producer, element, twin) = {answer[:3]}", flush=True)
    rows = []
    for (name, half), answers in sums.items():
        counts = [sum(answer[k] for answer in answers) for k in range(3)]
        slowest = max(answer[3] for answer in answers)
        rows.append(f"| {name} | {half} | {len(answers)} | {counts[0]} | {counts[1]} | {counts[2]} | {slowest:.2f} s |")
        print(rows[-1], flush=True)
    return rows


def trip(name: str) -> str:
    """One row: how long the answer takes on one model, against the steps that it replays."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(1)
    model, shape, target = {"transformer": models.transformer, "lstm": models.lstm, "tft": models.tft}[name]()
    model.compile(keras.optimizers.Adam(1e-3), "mse")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(models.BATCH * (TRIPS_AT + 4), *shape)).astype("float32")
    y = rng.normal(size=(models.BATCH * (TRIPS_AT + 4), *target)).astype("float32")
    x[models.BATCH * TRIPS_AT + 3, 5, 1] = np.nan
    spent: list[float] = []
    instrumented = investigate._instrumented

    def timed(*args: Any) -> Any:
        start = time.perf_counter()
        try:
            return instrumented(*args)
        finally:
            spent.append(time.perf_counter() - start)

    investigate._instrumented = timed
    try:
        watch = Guard(out=None, stall_s=None)
        model.fit(x, y, batch_size=models.BATCH, shuffle=False, verbose=0, callbacks=[watch])
    finally:
        investigate._instrumented = instrumented
    records = watch.outcome.replay.records
    steps = watch.report.series["step_seconds"].y[records[0].step : records[-1].step + 1]
    replayed, answer = sum(steps), watch.outcome.facts["answer_seconds"]
    over = answer - replayed - spent[0]
    row = (
        f"| {name} | {len(records)} | {replayed:.2f} s | {spent[0]:.2f} s | {answer:.2f} s | {over:+.2f} s | "
        f"{'yes' if over <= 2.0 else 'NO'} |"
    )
    print(row, flush=True)
    return row


FAULT_HEAD = (
    "| faults | half | number | producer, layer, phase, step | element | twins left alone | slowest answer |\n"
    "|---|---|---|---|---|---|---|"
)
TRIP_HEAD = (
    "| model | steps replayed | their time in the run | instrumented step | trip to answer | beyond both | "
    "within 2 s |\n"
    "|---|---|---|---|---|---|---|"
)


def main() -> None:
    """Measure, print, and write the tables where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], help="names of faults")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/guard_answers.md")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    print(TRIP_HEAD)
    trips = [trip(name) for name in ("transformer", "lstm", "tft")]
    print(FAULT_HEAD)
    found = faults(options.only)
    if options.write:
        text = (
            "# What going back finds\n\n"
            f"`python benchmarks/guard_answers.py --write`: torch {torch.__version__}, keras {keras.__version__}, "
            f"{torch.get_num_threads()} thread(s), load of the machine {os.getloadavg()[1]:.0f} on {os.cpu_count()} "
            f"cores.\n\n## Planted faults\n\n{FAULT_HEAD}\n" + "\n".join(found) + "\n\n"
            "Each is trained sick and as its healthy twin. “Held out” faults were written down before the code that "
            "finds them was run on them.\n\n"
            f"## From trip to answer\n\n{TRIP_HEAD}\n" + "\n".join(trips) + "\n\n"
            "The bar: the replayed steps once more, one instrumented step, and two seconds.\n"
        )
        Path(__file__).with_name("results").joinpath("guard_answers.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
