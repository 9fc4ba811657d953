"""Reproductions of everything that fails here, beside plain delta debugging over batch rows.

KERAS_BACKEND=torch python -m benchmarks.repro [GROUP …] [--only NAME] [--every N] [--new] [--seconds S] [--write]
    [--keep FOLDER]

Groups: operations (planted values that are not finite), laws (padding zoo), incidents (whole guarded runs), trainings
(sick without a NaN), faults (the fault library: what the preflight stops, or else the whole run), tables (unmet
expectations). Each script is confirmed in a fresh process, fingerprint included,
and run once more with the model or the data that its author would put in its place; every reduction is made twice, and
must come to the same script. `--write` adds what was measured to benchmarks/results, so that a whole run may be made in
pieces.
"""

from __future__ import annotations

import argparse
import json
import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import platform
import re
import runpy
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa

import tsguard
from fixtures.faults import find as find_fault
from fixtures.faults import library
from fixtures.incidents import variants
from fixtures.operations.faults import BACKWARD, BATCH, FAULTS, FORWARD, STEP
from fixtures.padding import ZOO
from fixtures.program import Program
from tsguard.backend import preserved
from tsguard.dataset import Data, leaves, map_leaves
from tsguard.repro.case import Batch, Case, from_batch
from tsguard.repro.emit import emit
from tsguard.repro.find import other_case, reduced
from tsguard.repro.found import FoundCase
from tsguard.repro.passes import drop_samples

BUDGET_S = 60
ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "repro.md"
ROWS = RESULT.with_suffix(".json")
KEPT: list[Path] = []
"""Where the scripts are kept to be read; nowhere unless a folder is named."""

DONE: dict[str, Any] = {}
"""Failures that are left out, because an earlier piece has measured them."""


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
    same: bool | None = None
    """Whether a second reduction comes to the same script."""
    alone: bool = True
    """Whether the script needs nothing of tsguard."""
    exhausted: bool = False
    """Whether the budget ended one of the two reductions: then they may differ."""
    why: str = ""
    """Why there is no script: the codes that were found, none of which has one."""


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
            rows_only=rows_only, rows_s=rows_s, again=make(),
        )  # fmt: skip


def _row(group: str, name: str, script: Path, mend: Callable[[str], str | None], *, again: Any, **sizes: Any) -> Row:
    text, page = script.read_text(), script.with_name("README.md").read_text()
    for folder in KEPT:
        shutil.copytree(script.parent, folder / group / name.replace("/", "-"), dirs_exist_ok=True)
    return Row(
        group,
        name,
        lines=sum(1 for line in re.sub(r'""".*?"""', "", text, flags=re.S).splitlines() if line.strip()),
        confirmed="confirmed in a fresh process | yes" in page,
        same=None if again is None else comes_again(again, script),
        exhausted="within the budget" in page or getattr(again, "exhausted", False),
        heals=healed(script, mend(text)),
        alone="tsguard" not in text,
        **{"rows_only": None, "rows_s": None, **sizes},
    )


def comes_again(again: Any, script: Path) -> bool:
    """Whether another reduction of the same failure can be written as the same script."""
    makers = again.makers if isinstance(again, FoundCase) else (lambda: emit(again), lambda: emit(with_weights(again)))
    return any(make().files.get("repro.py") == script.read_bytes() for make in makers)


def with_weights(case: Case) -> Case:
    """The case with the weights that it has."""
    return case.with_(weights=tuple(case.model.get_weights()))


def healed(script: Path, mended: str | None) -> bool | None:
    """Whether the script passes with the `build` of a module beside it: in a copy of this process, which has all
    imports behind it, and where that does not pass in a fresh one."""
    if mended is None:
        return None
    (script.parent / "mended.py").write_text(mended)
    if _in_a_copy(script) == 0:
        return True
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(script.parent), str(ROOT)])}
    command = [sys.executable, str(script), "--use", "mended:build"]
    done = subprocess.run(command, capture_output=True, cwd=ROOT, env=environment, check=False)
    return done.returncode == 0


def _in_a_copy(script: Path) -> int:
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code: Any = 2
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
        sys.path[:0] = [str(script.parent), str(ROOT)]
        sys.argv = [str(script), "--use", "mended:build"]
        runpy.run_path(str(script), run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code or 0
    finally:
        os._exit(code if isinstance(code, int) else 1)


def chosen(group: str, entries: Iterable[Any], every: int, only: str) -> list[Any]:
    """Those of a group that are asked for and were not measured yet."""
    named = [(one if isinstance(one, str) else one.name, one) for one in entries]
    wanted = [(name, one) for name, one in named if any(part in name for part in only.split(","))]
    return [one for name, one in wanted if f"{group}/{name}" not in DONE][::every]


def edited(*pairs: tuple[str, str]) -> Callable[[str], str | None]:
    """The script's own `build`, with edits that its author would make; None where none of them applies."""

    def mend(text: str) -> str | None:
        changed = text
        for old, new in pairs:
            changed = changed.replace(old, new)
        end = re.search(r"\ndef build\(\):\n(?:    .*\n)+", changed)
        return changed[: end.end()] if end is not None and changed != text else None

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
        own = re.findall(r"lambda z: (?!function)[^\n]*?(?=, name=|\)\]\)|\)\(|\), keras|\)$|\n)", text)
        told = edited(*((one, safe) for one in own), (public, safe), ("is_sick = True", "is_sick = False"))(text)
        named = f"\nimport keras\nfrom fixtures.operations.faults import {table}\n"
        return None if told is None else told.replace("\nimport keras\n", named, 1)

    return mend


def _mended_operation(fault: Any) -> Callable[[str], str | None]:
    """The safe operation in the script's own model, or else the twin as a whole, where the script takes that."""
    edit = _safe_operation(fault.name.split("/")[1])
    whole = _whole(
        f"from fixtures.operations.faults import FAULTS\n"
        f"[model, x, y] = next(one for one in FAULTS if one.name == {fault.name!r}).build(False)",
        "",
    )
    return lambda text: edit(text) or whole(text)


def operations(every: int, only: str) -> Iterator[Row | None]:
    for fault in chosen("operations", FAULTS, every, only):
        case = case_of(fault)
        if case is None:
            print(f"{fault.name:40} does not fail on a first step")
            continue
        mend = _mended_operation(fault)
        yield saved("operations", fault.name, lambda case=case: reduced(case, budget_s=BUDGET_S), mend, case)


# -- laws -------------------------------------------------------------------------------------------------------------


def laws(every: int, only: str) -> Iterator[Row | None]:
    from tsguard.checks.laws import findings_of
    from tsguard.laws import run

    for entry in chosen("laws", [one for _, one in sorted(ZOO.items())], every, only):
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
    "empty_masked_patches": ("at_least=0", "at_least=1"),
    "nan_replaced_by_zero": ("at_least=0", "at_least=1"),
    "nan_shown_as_constant": ("/ (deviation)", "/ (deviation + 1.0)"),
    "mask_value_overflows_half": ("-1e9", "-1e4"),
    "growth_not_bounded": ("bounded=False", "bounded=True"),
    "transfer_that_loads_nothing": ("Conv1D(6,", "Conv1D(12,"),
}
"""What the author of an incident changed, where a step fails. Elsewhere the whole healthy variant serves."""

TRAININGS = (
    "raw_inputs_and_a_high_rate",
    "sigmoid_output_for_raw_targets",
    "double_softmax_and_a_rare_class",
    "gradient_cut_and_heavy_decay",
)


def run_of(program: Program, place: str, gates: str | None) -> tuple[Any, float, float]:
    """The report of a whole guarded run, and the seconds (processor, wall) that its reproduction took."""
    padding = tsguard.Padding(**program.padding) if program.padding else None
    began = [time.process_time(), time.perf_counter()]

    def noted(words: str) -> None:
        if words.startswith("reducing the failure"):
            began[:] = [time.process_time(), time.perf_counter()]

    report = tsguard.fit(
        program.model, program.x, program.y, program.validation_data, padding=padding, plan=program.declared or {},
        gates=gates, out=place, progress=noted, **{"verbose": 0, **program.fit},
    )  # fmt: skip
    return report, time.process_time() - began[0], time.perf_counter() - began[1]


OF_A_PROGRAM = """
from tsguard.dataset import Data
from tsguard.repro.find import as_arrays
data = as_arrays(Data(program.x, program.y, program.fit.get("sample_weight")))
model, x, y, weight, fit = program.model, data.x, data.y, data.sample_weight, program.fit
held = program.validation_data or ()
if not isinstance(held, tuple):
    held = as_arrays(Data(held))
    held = held.x, held.y
held_x, held_y, *_ = [*held, None, None]
"""
"""The parts of a program by the names that a script gives them; batches of a loader as arrays."""


def _whole(source: str, names: str = OF_A_PROGRAM) -> Callable[[str], str | None]:
    """The healthy variant as what the script takes: its model, its data, its arguments of `fit`."""

    def mend(text: str) -> str | None:
        if "tries mended data" in text:
            wanted = re.findall(r"\n([\w, ]+) = \(pkgutil", text)[0]
        elif "the law holds" in text or ("tries a mended model." in text and "wrong: {wrong}" in text):
            wanted = "model"
        elif found := re.findall(r"\n(model, [\w, ]+) = \(\*mended", text):
            wanted = found[0]
        elif "isinstance(mended, tuple)" in text or "isinstance(model, tuple)" in text:
            wanted = "model, x, y"
        else:
            return None
        return f"{source}\n{names}\n\ndef build():\n    return {wanted}\n"

    return mend


def incidents(every: int, only: str) -> Iterator[Row | None]:
    for one in chosen("incidents", variants(), every, only):
        program = one.sick(0)
        if not isinstance(program, Program):
            print(f"{one.name:40} goes wrong around the model: there is no step, law or training to reproduce")
            continue
        source = f"from fixtures.incidents import find\nprogram = find({one.incident!r}, {one.name!r}).healthy(0)"
        mend = edited(EDITS[one.name]) if one.name in EDITS else _whole(source)
        yield _run_row("incidents", one.name, program, mend)


def trainings(every: int, only: str) -> Iterator[Row | None]:
    for name in chosen("trainings", TRAININGS, every, only):
        source = f"from fixtures.faults import find\nprogram = find({name!r}).twin(0)"
        yield _run_row("trainings", name, find_fault(name).sick(0), _whole(source))


def faults(every: int, only: str) -> Iterator[Row | None]:
    """As `tsguard.fit` leaves them: most are stopped before training."""
    first = sorted(library(), key=lambda one: one.evident != "preflight")
    for fault in chosen("faults", first, every, only):
        source = f"from fixtures.faults import find\nprogram = find({fault.name!r}).twin(0)"
        try:
            row = _run_row("faults", fault.name, fault.sick(0), _whole(source), gates=None)
        except Exception:  # of a hundred failures the others are to be measured all the same
            traceback.print_exc()
            continue
        yield row


def _run_row(
    group: str, name: str, program: Program, mend: Callable[[str], str | None], gates: str | None = "report"
) -> Row | None:
    with tempfile.TemporaryDirectory() as place:
        report, seconds, wall = run_of(program, place, gates)
        page = next(Path(place).rglob("repro/README.md"), None)
        if page is None and (asked := saved(group, name, lambda: _reduce(report), mend)) is not None:
            return asked  # a check's finding, or data: reduced when asked for
        if page is None:
            codes = dict.fromkeys(one.code for one in report.findings if one.role == "cause" and one.status != "PASS")
            whole = sum(int(np.size(leaf)) for leaf in leaves([program.x, program.y]) if hasattr(leaf, "shape"))
            why = ", ".join(codes) or "nothing found"
            return Row(
                group, name, whole, None, None, whole, 0.0, 0.0, None, confirmed=False, heals=None, alone=False, why=why
            )
        said = page.read_text()
        whole, left = (
            int(number.replace(",", "")) for number in re.findall(r"([\d,]+) scalars .* to ([\d,]+)", said)[0]
        )
        script = page.with_name("repro.py")
        if not script.exists():
            return Row(group, name, whole, None, None, left, seconds, wall, None, confirmed=False, heals=None)
        again = _reduce(report)
        return _row(group, name, script, mend, whole=whole, left=left, seconds=seconds, wall_s=wall, again=again)


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
    for name in chosen("tables", sick, every, only):
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
    "faults": faults,
    "tables": tables,
}

WORDS = {True: "yes", False: "no", None: ""}


def told(row: Row) -> str:
    """One line of the table."""
    rows_only = "" if row.rows_only is None else f"{row.rows_only / row.whole:.0%} in {row.rows_s:.1f} s"
    if row.lines is None:
        return f"| {row.name} | {row.whole:,} |  |  |  |  | none: {row.why or 'README only'} |  |  |  |  |"
    same = WORDS[row.same] + (" (budget spent)" if row.exhausted else "")
    return (
        f"| {row.name} | {row.whole:,} | {rows_only} | {row.left:,} | {row.left / row.whole:.2%} | {row.seconds:.1f} "
        f"| {row.lines} | {WORDS[row.confirmed]} | {WORDS[row.heals]} | {same} | {WORDS[row.alone]} |"
    )


def summary(group: str, rows: list[Row]) -> str:
    """The counts and medians of one group."""
    scripts = [row for row in rows if row.lines is not None]
    if not scripts:
        return f"**{group}**: {len(rows)} failures, no scripts."
    tried, twice = ([row for row in scripts if getattr(row, fact) is not None] for fact in ("heals", "same"))
    whole = [row for row in twice if not row.exhausted]
    words = (
        f"{len(rows)} failures, {len(scripts)} scripts, {sum(row.confirmed for row in scripts)} confirmed in a fresh "
        f"process, {sum(bool(row.heals) for row in tried)} of {len(tried)} pass with the mended variant, "
        f"{sum(bool(row.same) for row in twice)} of {len(twice)} come again on a second call "
        f"({sum(bool(row.same) for row in whole)} of the {len(whole)} whose budget was not spent), "
        f"{sum(row.alone for row in scripts)} need nothing of tsguard. Medians: "
        f"{statistics.median(1 - row.left / row.whole for row in scripts):.1%} of the scalars gone, "
        f"{statistics.median(row.seconds for row in scripts):.1f} s of the processor (slowest "
        f"{max(row.seconds for row in scripts):.0f}), {statistics.median(row.lines or 0 for row in scripts):.0f} lines"
    )
    beside = [row for row in rows if row.rows_only is not None]
    if beside:
        kept = statistics.median((row.rows_only or 0) / row.whole for row in beside)
        took = statistics.median(row.rows_s or 0.0 for row in beside)
        words += f". Delta debugging over rows alone leaves {kept:.0%} in {took:.1f} s"
    return f"**{group}**: {words}."


HEAD = (
    "| failure | scalars | rows only | left | share | s | lines | confirmed | heals | same | alone |\n"
    + "|---" * 11
    + "|"
)

INTRODUCTION = f"""# Reproductions

`python -m benchmarks.repro --write` (in pieces), Python {platform.python_version()}, keras {keras.__version__}, two \
shared cores, CPU. Seconds are of the processor, for the reduction alone; the fresh process that confirms a script \
takes about five more. “rows only”: what plain delta debugging over the rows of the batch leaves. “heals”: the script \
ends with 0 when the model or the data that its author would put in place is given with `--use`. “same”: a second \
reduction comes to the same script. “alone”: the script needs nothing of tsguard. “lines”: those of the script without \
blank ones and without the docstring."""


def known() -> dict[str, Row]:
    """What earlier pieces have measured, by group and name."""
    if not ROWS.exists():
        return {}
    return {key: Row(**told) for key, told in json.loads(ROWS.read_text()).items()}


def write(rows: list[Row]) -> None:
    """Add rows to what is known, and write the page anew."""
    held = {**known(), **{f"{row.group}/{row.name}": row for row in rows}}
    held = dict(sorted(held.items()))
    ROWS.write_text(json.dumps({key: asdict(row) for key, row in held.items()}, indent=1) + "\n")
    text = [INTRODUCTION]
    for group in GROUPS:
        mine = [row for row in held.values() if row.group == group]
        if mine:
            text += ["", f"## {group}", "", summary(group, mine), "", HEAD, *map(told, mine)]
    RESULT.write_text("\n".join(text) + "\n")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("groups", nargs="*", choices=[*GROUPS, []], default=list(GROUPS))
    parser.add_argument("--only", default="", help="names that hold one of these texts, by commas")
    parser.add_argument("--every", type=int, default=1, help="every n-th of a group")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no further failure after so long")
    parser.add_argument("--new", action="store_true", help="leave out what was measured already")
    parser.add_argument("--write", action="store_true", help=f"add to {RESULT.relative_to(ROOT)}")
    parser.add_argument("--keep", type=Path, help="keep the scripts in this folder")
    given = parser.parse_args(arguments)
    KEPT.extend([given.keep] if given.keep else [])
    warnings.simplefilter("ignore")
    began = time.monotonic()
    if given.new:
        DONE.update(known())
    for group in given.groups:
        print(f"\n{group}\n{HEAD}", flush=True)
        rows = []
        for row in GROUPS[group](given.every, given.only):
            if row is not None:
                rows.append(row)
                print(told(row), flush=True)
                if given.write:
                    write([row])
            if time.monotonic() - began > given.seconds:
                break
        if rows:
            print(f"\n{summary(group, rows)}")


if __name__ == "__main__":
    main(sys.argv[1:])
