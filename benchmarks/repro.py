"""Reproductions of everything that fails here, beside plain delta debugging over batch rows.

KERAS_BACKEND=torch python -m benchmarks.repro [GROUP …] [--only NAME] [--every N] [--write]

Groups: operations (planted values that are not finite), laws (padding zoo), incidents (whole guarded runs), trainings
(sick without a NaN), tables (unmet expectations). Each script is confirmed in a fresh process, fingerprint included,
and run once more with the model or the data that its author would put in its place.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa

import tsguard
from fixtures.faults import find as find_fault
from fixtures.incidents import variants
from fixtures.operations.faults import BACKWARD, BATCH, FAULTS, FORWARD, STEP
from fixtures.padding import ZOO
from fixtures.program import Program
from tsguard.backend import preserved
from tsguard.dataset import Data, map_leaves
from tsguard.repro.case import Batch, Case, from_batch
from tsguard.repro.find import other_case, reduced
from tsguard.repro.passes import drop_samples

BUDGET_S = 60
ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "repro.md"


@dataclass
class Row:
    """One failure, reduced."""

    group: str
    name: str
    whole: int
    rows_only: int | None
    rows_s: float | None
    left: int
    seconds: float
    """Of the processor, in this process."""
    wall_s: float
    lines: int | None
    """None: no script."""
    confirmed: bool
    heals: bool | None
    """Whether it passes with what its author would put in its place; None: nothing was tried."""


def saved(
    group: str, name: str, make: Callable[[], Any], mend: Callable[[str], str | None], case: Case | None = None
) -> Row | None:
    """Reduce, write, confirm, heal."""
    rows_only = rows_s = None
    if case is not None:
        began = time.process_time()
        with preserved(case.model):
            rows_only = drop_samples(case, lambda candidate: candidate.fails()).size
        rows_s = time.process_time() - began
    began, wall = time.process_time(), time.perf_counter()
    small = make()
    if small is None:
        return None
    seconds, wall = time.process_time() - began, time.perf_counter() - wall
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        script = small.save(folder)
        if script.name != "repro.py":
            return Row(
                group, name, small.original_size, rows_only, rows_s, small.size, seconds, wall, None,
                confirmed=False, heals=None,
            )  # fmt: skip
        return _row(
            group, name, script, mend, whole=small.original_size, left=small.size, seconds=seconds, wall_s=wall,
            rows_only=rows_only, rows_s=rows_s,
        )  # fmt: skip


def _row(group: str, name: str, script: Path, mend: Callable[[str], str | None], **sizes: Any) -> Row:
    text = script.read_text()
    return Row(
        group,
        name,
        lines=sum(1 for line in re.sub(r'""".*?"""', "", text, flags=re.S).splitlines() if line.strip()),
        confirmed="confirmed in a fresh process | yes" in script.with_name("README.md").read_text(),
        heals=healed(script, mend(text)),
        **{"rows_only": None, "rows_s": None, **sizes},
    )


def healed(script: Path, mended: str | None) -> bool | None:
    """Whether the script passes with the `build` of a module beside it."""
    if mended is None:
        return None
    (script.parent / "mended.py").write_text(mended)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(script.parent), str(ROOT)])}
    command = [sys.executable, str(script), "--use", "mended:build"]
    done = subprocess.run(command, capture_output=True, cwd=ROOT, env=environment, check=False)
    return done.returncode == 0


def edited(*pairs: tuple[str, str]) -> Callable[[str], str | None]:
    """The script's own `build`, with edits that its author would make; None where none of them applies."""

    def mend(text: str) -> str | None:
        changed = text
        for old, new in pairs:
            changed = changed.replace(old, new)
        end = min(at for at in (changed.find(f"\n{mark}") for mark in ("def step(", "def finite(", "build =", "made ="))
                  if at > 0)  # fmt: skip
        return changed[:end] if changed != text else None

    return mend


# -- operations -------------------------------------------------------------------------------------------------------


def case_of(fault: Any) -> Case | None:
    """The failing batch of a planted fault; None where a single first step does not fail."""
    keras.utils.set_random_seed(3)
    model, x, y = fault.build(True)  # noqa: FBT003 - the fixtures' own signature
    rows = slice(STEP * BATCH, (STEP + 1) * BATCH)
    batch = Batch(*(map_leaves(lambda leaf: leaf[rows], part) for part in (x, y)))
    model(batch.x)
    hidden = fault.code == "nan-hidden"
    return from_batch(model, batch, weights=tuple(model.get_weights()), name=fault.name, hidden=hidden)


def _safe_operation(name: str) -> Callable[[str], str | None]:
    """The library's own safe operation in place of the sick one, wherever the script names it."""
    table = "FORWARD" if name in FORWARD else "BACKWARD" if name in BACKWARD else None
    if table is None:
        return edited(("is_sick = True", "is_sick = False"))
    sick = {**FORWARD, **BACKWARD}[name][0]
    public = f"keras.ops.{getattr(sick, '__name__', '')}"
    safe = f'{table}["{name}"][1]'

    def mend(text: str) -> str | None:
        own = re.findall(r"lambda z: (?!function)[^\n]*?(?=, name=|\)\]\)|\)\(|\), keras|\)$)", text)
        told = edited(*((one, safe) for one in own), (public, safe), ("is_sick = True", "is_sick = False"))(text)
        return None if told is None else f"from fixtures.operations.faults import {table}\n{told}"

    return mend


def operations(every: int, only: str) -> Iterator[Row | None]:
    for fault in [one for one in FAULTS if only in one.name][::every]:
        case = case_of(fault)
        if case is None:
            print(f"{fault.name:40} does not fail on a first step")
            continue
        mend = _safe_operation(fault.name.split("/")[1])
        yield saved("operations", fault.name, lambda case=case: reduced(case, budget_s=BUDGET_S), mend, case)


# -- laws -------------------------------------------------------------------------------------------------------------


def laws(every: int, only: str) -> Iterator[Row | None]:
    from tsguard.checks.laws import findings_of
    from tsguard.laws import run

    for entry in [one for name, one in sorted(ZOO.items()) if only in name][::every]:
        subject = entry.build(True)  # noqa: FBT003
        data = Data(subject.x, subject.y)
        broken = findings_of(run(subject.model, (subject.x, subject.y), subject.padding, budget_s=20))
        broken = [one for one in broken if one.status in ("FAIL", "WARN") and one.code in (entry.code, *entry.accepts)]

        def make(subject: Any = subject, data: Data = data, broken: Any = broken) -> Any:
            return other_case(broken, model=subject.model, data=data, name="law", budget_s=BUDGET_S)

        mended = (
            f"from fixtures.padding import ZOO\n\ndef build():\n    return ZOO[{entry.name!r}].build(False).model\n"
        )
        yield saved("laws", entry.name, make, lambda text, mended=mended: mended)


# -- whole runs -------------------------------------------------------------------------------------------------------

EDITS = {
    "empty_masked_patches": ("self.hidden = 0", "self.hidden = 1"),
    "nan_replaced_by_zero": ("self.hidden = 0", "self.hidden = 1"),
    "nan_shown_as_constant": ("sick = True", "sick = False"),
    "mask_value_overflows_half": ("sick = True", "sick = False"),
    "growth_not_bounded": ("bounded=False", "bounded=True"),
}
"""What the author of an incident changed, where a step fails. Elsewhere the whole healthy variant serves."""

TRAININGS = (
    "raw_inputs_and_a_high_rate",
    "sigmoid_output_for_raw_targets",
    "double_softmax_and_a_rare_class",
    "gradient_cut_and_heavy_decay",
)


def run_of(program: Program, place: str) -> tuple[Any, float, float]:
    """The report of a whole guarded run, and the seconds (processor, wall) that its reproduction took."""
    padding = tsguard.Padding(**program.padding) if program.padding else None
    plan = {
        key: value for key, value in (program.declared or {}).items() if isinstance(value, bool | int | float | str)
    }
    began = [time.process_time(), time.perf_counter()]

    def noted(words: str) -> None:
        if words.startswith("reducing the failure"):
            began[:] = [time.process_time(), time.perf_counter()]

    report = tsguard.fit(
        program.model, program.x, program.y, program.validation_data, padding=padding, plan=plan, gates="report",
        out=place, progress=noted, **{"verbose": 0, **program.fit},
    )  # fmt: skip
    return report, time.process_time() - began[0], time.perf_counter() - began[1]


def _whole(source: str) -> Callable[[str], str | None]:
    """The healthy variant as (model, x, y), where the script takes that."""

    def mend(text: str) -> str | None:
        if "isinstance(made, tuple)" not in text and "isinstance(model, tuple)" not in text:
            return None
        return f"{source}\n\ndef build():\n    return program.model, program.x, program.y\n"

    return mend


def incidents(every: int, only: str) -> Iterator[Row | None]:
    for one in [one for one in variants() if only in one.name][::every]:
        program = one.sick(0)
        if not isinstance(program, Program):
            print(f"{one.name:40} goes wrong around the model: there is no step, law or training to reproduce")
            continue
        source = f"from fixtures.incidents import find\nprogram = find({one.incident!r}, {one.name!r}).healthy(0)"
        mend = edited(EDITS[one.name]) if one.name in EDITS else _whole(source)
        yield _run_row("incidents", one.name, program, mend)


def trainings(every: int, only: str) -> Iterator[Row | None]:
    for name in [name for name in TRAININGS if only in name][::every]:
        source = f"from fixtures.faults import find\nprogram = find({name!r}).twin(0)"
        yield _run_row("trainings", name, find_fault(name).sick(0), _whole(source))


def _run_row(group: str, name: str, program: Program, mend: Callable[[str], str | None]) -> Row | None:
    with tempfile.TemporaryDirectory() as place:
        report, seconds, wall = run_of(program, place)
        page = next(Path(place).rglob("repro/README.md"), None)
        if page is None and (asked := saved(group, name, lambda: _reduce(report), mend)) is not None:
            return asked  # a check's finding, or data: reduced when asked for
        if page is None:
            print(f"{name:40} found: {[f.code for f in report.causes][:3]}; nothing to reproduce")
            return None
        said = page.read_text()
        whole, left = (
            int(number.replace(",", "")) for number in re.findall(r"([\d,]+) scalars .* to ([\d,]+)", said)[0]
        )
        script = page.with_name("repro.py")
        if not script.exists():
            return Row(group, name, whole, None, None, left, seconds, wall, None, confirmed=False, heals=None)
        return _row(group, name, script, mend, whole=whole, left=left, seconds=seconds, wall_s=wall)


def _reduce(report: Any) -> Any:
    try:
        return tsguard.reduce(report, budget_s=BUDGET_S)
    except tsguard.TsguardError:
        return None


# -- tables -----------------------------------------------------------------------------------------------------------


def tables(every: int, only: str) -> Iterator[Row | None]:
    rng = np.random.default_rng(0)
    count = 5_000
    load = rng.normal(50, 5, count)
    sick = {
        "out_of_range": ({"load": _with(load, 1234, -200.0)}, _expected(
            "values_to_be_between", column="load", min_value=0, max_value=100)),
        "missing": ({"load": _with(load, 77, np.nan)}, _expected("values_to_not_be_null", column="load")),
        "not_increasing": ({"time": _with(np.arange(count), 2500, 7)}, _expected(
            "values_to_be_increasing", column="time")),
        "not_unique": ({"key": _with(np.arange(count), 4000, 17)}, _expected("values_to_be_unique", column="key")),
    }  # fmt: skip
    more = {f"other_{number}": rng.normal(size=count) for number in range(8)}
    for name in [name for name in sick if only in name][::every]:
        columns, expectation = sick[name]
        report = tsguard.audit(pa.table({**more, **columns}), suite={"expectations": [expectation]})
        sound = "import pyarrow as pa\n\ndef build():\n    return pa.table({'load': [50.0], 'time': [1], 'key': [1]})\n"
        yield saved("tables", name, lambda report=report: _reduce(report), lambda text, sound=sound: sound)


def _expected(what: str, **kwargs: Any) -> dict[str, Any]:
    return {"type": f"expect_column_{what}", "kwargs": kwargs}


def _with(values: Any, row: int, value: Any) -> Any:
    changed = np.array(values)
    changed[row] = value
    return changed


# -- the table --------------------------------------------------------------------------------------------------------

GROUPS: dict[str, Callable[[int, str], Iterator[Row | None]]] = {
    "operations": operations,
    "laws": laws,
    "incidents": incidents,
    "trainings": trainings,
    "tables": tables,
}


def told(row: Row) -> str:
    """One line of the table."""
    rows_only = "" if row.rows_only is None else f"{row.rows_only / row.whole:.0%} in {row.rows_s:.1f} s"
    script = "README only" if row.lines is None else str(row.lines)
    heals = {True: "yes", False: "no", None: ""}[row.heals]
    return (
        f"| {row.name} | {row.whole:,} | {rows_only} | {row.left:,} | {row.left / row.whole:.2%} | {row.seconds:.1f} "
        f"| {script} | {'yes' if row.confirmed else 'no'} | {heals} |"
    )


def summary(group: str, rows: list[Row]) -> str:
    """The medians of one group."""
    scripts = [row for row in rows if row.lines is not None]
    tried = [row for row in scripts if row.heals is not None]
    words = (
        f"{len(rows)} failures, {len(scripts)} scripts, {sum(row.confirmed for row in scripts)} confirmed in a fresh "
        f"process, {sum(bool(row.heals) for row in tried)} of {len(tried)} pass with the mended variant. Medians: "
        f"{statistics.median(1 - row.left / row.whole for row in rows):.1%} of the scalars gone, "
        f"{statistics.median(row.seconds for row in rows):.1f} s of the processor"
    )
    if scripts:
        words += f", {statistics.median(row.lines or 0 for row in scripts):.0f} lines"
    beside = [row for row in rows if row.rows_only is not None]
    if beside:
        kept = statistics.median((row.rows_only or 0) / row.whole for row in beside)
        took = statistics.median(row.rows_s or 0.0 for row in beside)
        words += f". Delta debugging over rows alone leaves {kept:.0%} in {took:.1f} s"
    return f"**{group}**: {words}."


HEAD = "| failure | scalars | rows only | left | share | s | lines | confirmed | heals |\n" + "|---" * 9 + "|"


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("groups", nargs="*", choices=[*GROUPS, []], default=list(GROUPS))
    parser.add_argument("--only", default="", help="names that hold this text")
    parser.add_argument("--every", type=int, default=1, help="every n-th of a group")
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.relative_to(ROOT)}")
    given = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    text = [
        "# Reproductions",
        "",
        f"`python -m benchmarks.repro {' '.join(arguments)}`, Python {platform.python_version()}, keras "
        f"{keras.__version__}, two shared cores, CPU. Seconds are of the processor, for the reduction alone; the fresh "
        "process that confirms a script takes about five more. “heals”: the script ends with 0 when the model or the "
        "data that its author would put in place is given with `--use`.",
    ]
    for group in given.groups:
        print(f"\n{group}\n{HEAD}", flush=True)
        rows = []
        for row in GROUPS[group](given.every, given.only):
            if row is not None:
                rows.append(row)
                print(told(row), flush=True)
        if rows:
            print(f"\n{summary(group, rows)}")
            text += ["", f"## {group}", "", summary(group, rows), "", HEAD, *map(told, rows)]
    if given.write:
        RESULT.write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
