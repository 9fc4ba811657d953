"""The audit against stock Great Expectations: 50 expectations (audit_mix.json) on 12 columns.

    python benchmarks/audit.py table  [--rows 5000000]    time of both engines in one run; peak memory of ours
    python benchmarks/audit.py folder [--rows 50000000]   a Parquet folder larger than the memory allowed; time by rows

Imports are not counted (one small validation warms both engines up); the making of the data is not either. Peak
memory is that of a fresh process that imports, holds the table, and validates.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

MIX = Path(__file__).with_name("audit_mix.json")
FILE_ROWS = 2_500_000
MEGA = 1 << 20


def make(rows: int, start: int = 0, seed: int = 0) -> pa.Table:
    """Six normal floats (the last one with nulls), two counts, a label, a site, a row number and a shuffled key."""
    rng = np.random.default_rng([seed, start])
    columns = {f"x{number}": pa.array(rng.standard_normal(rows)) for number in range(5)}
    columns["x5"] = pa.array(rng.standard_normal(rows), mask=rng.random(rows) < 0.01)
    columns |= {f"n{number}": pa.array(rng.integers(0, 1_000_000_000, rows)) for number in range(2)}
    columns["label"] = pa.array(rng.integers(0, 3, rows))
    sites = pa.DictionaryArray.from_arrays(
        rng.integers(0, 4, rows).astype(np.int32), ["north", "south", "east", "west"]
    )
    columns["site"] = sites.dictionary_decode()
    columns["row"] = pa.array(np.arange(start, start + rows))
    columns["key"] = pa.array(start + rng.permutation(rows))
    return pa.table(columns)


def peak_mb() -> float:
    """The most memory that this program has held; `ru_maxrss` would count the parent before the exec too."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / MEGA


def timed(suite: object, data: object, engine: str) -> tuple[float, float, object]:
    """Seconds on the clock, seconds of processor (of all threads; a busy machine does not stretch them), the result."""
    import tsguard.expect

    begin, work = time.perf_counter(), time.process_time()
    result = tsguard.expect.validate(suite, data, engine=engine)
    return time.perf_counter() - begin, time.process_time() - work, result


def machine() -> str:
    return f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, pyarrow {pa.__version__}"


def table(rows: int) -> None:
    import tsguard.expect

    suite = tsguard.expect.load_suite(MIX)
    small = make(1000)
    timed(suite, small, "arrow"), timed(suite, small.to_pandas(), "pandas")
    data = make(rows)
    runs = [timed(suite, data, "arrow") for _ in range(5)]
    ours, work, result = min(run[0] for run in runs), min(run[1] for run in runs), runs[0][2]
    frame = data.to_pandas()
    stock, stock_work, other = timed(suite, frame, "pandas")
    agree = [each.success for each in result.results] == [each.success for each in other.results]
    size = data.nbytes / MEGA
    child = json.loads(
        subprocess.run(
            [sys.executable, __file__, "memory", "--rows", str(rows)], capture_output=True, text=True, check=True
        ).stdout
    )
    print(machine())
    print(f"{len(result.results)} expectations, {data.num_columns} columns, {rows:,} rows; the same verdicts: {agree}")
    print(f"clock      stock GX {stock:.2f} s   tsguard {ours:.2f} s (best of 5)   ratio {stock / ours:.1f}")
    print(f"processor  stock GX {stock_work:.2f} s   tsguard {work:.2f} s (best of 5)   ratio {stock_work / work:.1f}")
    print(
        f"table {size:.0f} MB   peak of the process {child['peak']:.0f} MB   ratio {child['peak'] / size:.2f}   "
        f"(before the validation: {child['before']:.0f} MB)"
    )


def memory(rows: int) -> None:
    import tsguard.expect

    suite = tsguard.expect.load_suite(MIX)
    tsguard.expect.validate(suite, make(1000))
    with tempfile.TemporaryDirectory() as folder:  # made elsewhere, so that its making does not count
        path = Path(folder) / "table.arrow"
        subprocess.run([sys.executable, __file__, "write", "--rows", str(rows), "--path", str(path)], check=True)
        with pa.OSFile(str(path)) as handle:
            data = pa.ipc.open_file(handle).read_all()
        before = peak_mb()
        tsguard.expect.validate(suite, data)
        print(json.dumps({"before": before, "peak": peak_mb()}))


def write(rows: int, path: Path) -> None:
    data = make(rows)
    with pa.OSFile(str(path), "wb") as handle, pa.ipc.new_file(handle, data.schema) as writer:
        writer.write_table(data)


def folder(rows: int, scratch: str | None) -> None:
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        steps = [rows // 4, rows // 2, rows]
        for start in range(0, rows, FILE_ROWS):
            part = make(min(FILE_ROWS, rows - start), start)
            pq.write_table(part, Path(name) / f"part-{start:012d}.parquet", row_group_size=1 << 18, compression="none")
        del part
        print(machine())
        for step in steps:
            run = subprocess.run(
                [sys.executable, __file__, "stream", "--rows", str(step), "--path", name],
                capture_output=True,
                text=True,
                check=True,
            )
            told = json.loads(run.stdout)
            print(
                f"{step:>11,} rows   {told['seconds']:6.1f} s   processor {told['processor']:6.1f} s   "
                f"peak {told['peak']:.0f} MB"
            )


def stream(rows: int, path: Path) -> None:
    import pyarrow.dataset

    import tsguard.expect

    suite = tsguard.expect.load_suite(MIX)
    tsguard.expect.validate(suite, make(1000))
    files = sorted(path.glob("*.parquet"))[: max(1, rows // FILE_ROWS)]
    whole = len(files) == len(list(path.glob("*.parquet")))
    data = path if whole else pyarrow.dataset.dataset([str(file) for file in files])
    seconds, work, result = timed(suite, data, "arrow")
    assert result.meta["tsguard"]["served"] == len(result.results)
    print(json.dumps({"seconds": seconds, "processor": work, "peak": peak_mb()}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["table", "folder", "memory", "write", "stream"])
    parser.add_argument("--rows", type=int)
    parser.add_argument("--path", type=Path)
    parser.add_argument("--scratch", help="where the Parquet folder is made")
    given = parser.parse_args()
    rows = given.rows or (50_000_000 if given.what in ("folder", "stream") else 5_000_000)
    match given.what:
        case "table":
            table(rows)
        case "memory":
            memory(rows)
        case "write":
            write(rows, given.path)
        case "folder":
            folder(rows, given.scratch)
        case "stream":
            stream(rows, given.path)


if __name__ == "__main__":
    main()
