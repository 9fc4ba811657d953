"""How often the right cause is named: preflight alone, and with the run and its experiments, on the fault library.

    python benchmarks/diagnosis.py --half tuned            # the half that rules were made on
    python benchmarks/diagnosis.py --half held-out         # the half that nobody looked at
    python benchmarks/diagnosis.py --half unseen           # programs written apart from the rules, and measured once
    python benchmarks/diagnosis.py --half apart            # a second such set, written after the first was mended
    python benchmarks/diagnosis.py --half third            # a third one
    python benchmarks/diagnosis.py --half field_a          # common faults, written apart: the half that was mended by
    python benchmarks/diagnosis.py --half field_b          # common faults, written apart: the half held out from that
    python benchmarks/diagnosis.py --half field_c          # common faults, written apart later, by two more people
    python benchmarks/diagnosis.py --half field_d          # common faults in many styles of program, by two others
    python benchmarks/diagnosis.py --half field_e          # the same list once more, by two others still
    python benchmarks/diagnosis.py --half field_f          # one program for each fault on the task's list
    python benchmarks/diagnosis.py --healthy               # programs and twins that must be left alone
    python benchmarks/diagnosis.py --healthy --half unseen # the same, of that part alone

One process, one program after another. Budgets and seconds are processor time, because the machine may be shared. A
program is *detected* when a cause is found at all (WARN or FAIL), *first* when the first cause is one that the library
accepts, *in three* when one of the first three is.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")


@dataclass(frozen=True)
class Row:
    name: str
    accepts: tuple[str, ...]
    preflight: tuple[str, ...]
    causes: tuple[str, ...]
    statuses: tuple[str, ...]
    seconds: float

    @property
    def detected(self) -> bool:
        return bool(self.causes)

    def named(self, first: int) -> bool:
        return any(code in self.accepts for code in self.causes[:first])

    @property
    def named_before_training(self) -> bool:
        return bool(self.preflight) and self.preflight[0] in self.accepts


def session(
    program: Any, *, budget_s: float, clock: Callable[[], float] = time.process_time
) -> tuple[tuple[Any, ...], tuple[Any, ...], float]:
    """Preflight findings, findings of the whole session, and the seconds that judging took (training not counted)."""
    import keras

    from fixtures.program import train
    from tsguard.checks.outturn import batches_made, ran_dry
    from tsguard.checks.registry import Context
    from tsguard.checks.runner import run_checks
    from tsguard.dataset import Data
    from tsguard.diagnosis import Record, diagnose, settled
    from tsguard.guard.callback import Guard
    from tsguard.padding import Padding
    from tsguard.subject import Subject
    from tsguard.train.judgement import proven
    from tsguard.train.start import TrainStart

    fit = dict(program.fit)
    data = Data(
        program.x,
        program.y,
        sample_weight=fit.get("sample_weight"),
        validation=program.validation_data,
        batch_size=fit.get("batch_size") or 32,
    )
    padding = Padding(**program.padding) if program.padding else None
    context = Context(
        subject=Subject.from_model(program.model, data),
        data=data,
        padding=padding,
        declared=program.declared or {},
        facts={"fit": fit},
    )
    began = clock()
    before = run_checks(context, budget_s=budget_s, clock=clock)
    seconds = clock() - began

    class Keep(keras.callbacks.Callback):
        start: Any = None
        losses: list[float]

        def on_train_begin(self, logs: Any = None) -> None:
            self.start, self.losses = TrainStart(self.model), []

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.losses.append(float((logs or {}).get("loss", float("nan"))))

    keep, guard = Keep(), Guard(out=None, repro=False, diagnose=False)
    try:
        history = train(program, callbacks=(guard, keep))
    except Exception as error:  # some sick programs cannot be trained at all; then the preflight is all there is
        print(f"    {type(error).__name__} in training: {str(error).splitlines()[0][:100]}")
        return before, before, seconds
    if history is None or keep.start is None:
        return before, before, seconds
    watched = (
        () if guard.report is None else (*guard.report.findings, *ran_dry(context, batches_made(guard.report.series)))
    )
    if proven(guard.outcome, watched):  # as in a session: what replay has shown needs no experiment
        return before, (*before, *watched), seconds + clock() - began
    series = {**history.history, "epoch/loss": history.history.get("loss", ()), "loss": keep.losses}
    began = clock()
    record = Record(program.model, data, keep.start, series, fit, padding)
    stands = tuple(settled(record, (*before, *watched)))
    after = diagnose(record, stands, budget_s=budget_s, clock=clock)
    return tuple(settled(record, before)), after or stands, seconds + clock() - began


def accused(findings: tuple[Any, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Codes of the causes, most likely first and each once, with their statuses."""
    from tsguard.findings import causes

    seen: dict[str, str] = {}
    for finding in causes(findings):
        seen.setdefault(finding.code, str(finding.status))
    return tuple(seen), tuple(seen.values())


def sick(half: str, *, budget_s: float, only: list[str], seed: int, part: slice) -> None:
    from fixtures.faults import library

    rows = []
    for fault in [one for one in library() if one.half == half][part]:
        if only and fault.name not in only:
            continue
        before, after, seconds = session(fault.sick(seed), budget_s=budget_s)
        early, _ = accused(before)
        codes, statuses = accused(after)
        row = Row(fault.name, fault.accepts, early, codes or early, statuses, seconds)
        rows.append(row)
        mark = "first" if row.named(1) else "in 3 " if row.named(3) else "-    "
        print(
            f"{mark} {row.name:42s} {fault.code:24s} before: {', '.join(early) or '-':50s} after: "
            f"{', '.join(row.causes)} {seconds:.0f} s",
            flush=True,
        )
    total = max(1, len(rows))
    print(f"\n{half}: {len(rows)} programs, seed {seed}")
    for name, count in (
        ("detected", sum(r.detected for r in rows)),
        ("first cause accepted", sum(r.named(1) for r in rows)),
        ("in the first three", sum(r.named(3) for r in rows)),
        ("first cause accepted before training", sum(r.named_before_training for r in rows)),
    ):
        print(f"  {name:40s} {count:3d} of {len(rows)}  {count / total:.0%}")
    if rows:
        print(
            f"  seconds of judging: median {sorted(r.seconds for r in rows)[len(rows) // 2]:.0f}, worst "
            f"{max(r.seconds for r in rows):.0f}"
        )


def well(half: str | None, *, budget_s: float, only: list[str], seed: int, part: slice, twins_too: bool) -> None:
    """Healthy programs and the twins of the faults, of one part or of all: nobody may be accused."""
    from fixtures.faults import library
    from fixtures.healthy import programs

    listed = [
        (one.name, lambda one=one: one.build(seed), one.may_say) for one in programs() if half in (None, one.half)
    ]
    twins = [fault for fault in library() if twins_too and half in (None, fault.half)]
    listed += [(f"twin of {fault.name}", lambda fault=fault: fault.twin(seed), ()) for fault in twins]
    tally: Counter[str] = Counter()
    for name, build, may_say in listed[part]:
        if only and name not in only:
            continue
        before, after, seconds = session(build(), budget_s=budget_s)
        said = {
            (f.code, str(f.status))
            for f in (*before, *after)
            if f.status in ("WARN", "FAIL", "ERROR") and f.code not in may_say
        }
        worst = "FAIL" if any(s in ("FAIL", "ERROR") for _, s in said) else "WARN" if said else "silent"
        tally[worst] += 1
        if said:
            print(f"{worst:6s} {name:60s} {sorted(said)} {seconds:.0f} s", flush=True)
    total = sum(tally.values())
    print(
        f"\n{total} healthy programs: FAIL {tally['FAIL']}, WARN {tally['WARN']} ({tally['WARN'] / max(1, total):.1%})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    from fixtures import faults, healthy

    halves = dict.fromkeys(("tuned", "held-out", *faults.STANDING_APART, *healthy.STANDING_APART))
    parser.add_argument("--half", choices=halves, help="default: tuned; with --healthy: all")
    parser.add_argument("--healthy", action="store_true")
    parser.add_argument("--budget", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--slice", default=":", help="which of them, as in `20:40`: a long run in parts")
    parser.add_argument("--no-twins", action="store_true", help="with --healthy: the healthy programs alone")
    parser.add_argument("only", nargs="*")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    first, _, last = given.slice.partition(":")
    part = slice(int(first or 0), int(last) if last else None)
    shared = {"budget_s": given.budget, "only": given.only, "seed": given.seed, "part": part}
    if given.healthy:
        well(given.half, twins_too=not given.no_twins, **shared)
    else:
        sick(given.half or "tuned", **shared)


if __name__ == "__main__":
    main()
