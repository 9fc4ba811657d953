"""The catalogue of real sets: where each comes from, under which licence, what its files must hash to, how it is read.

No file of them is part of the project. They are looked for in the folder that `TSGUARD_DATA` names, or in `shared/data`
beside the project; a file that is found is compared with its SHA-256 before anything is said about it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tsguard.data.readers import read
from tsguard.data.reading import Reading
from tsguard.errors import DataError

VARIABLE = "TSGUARD_DATA"


@dataclass(frozen=True)
class RealSet:
    """One public data set."""

    name: str
    title: str
    folder: str
    """Where it lies in the data folder, and the pattern of the files that count."""
    pattern: str
    address: str
    licence: str
    sha256: str
    """Of the one file; of several files, of the lines `digest  path` in the order of their paths."""
    size: str
    features: tuple[str, ...]
    time: str | None
    entity: str | None
    load_from: Callable[[Path], Reading]

    def load(self, root: Path | None = None) -> Reading:
        """The set as an Arrow table, with what was repaired; a DataError that says how to get it where it is absent."""
        place = locate(self.name, root)
        if place is None:
            raise DataError(where(self.name, root))
        return self.load_from(place)


def data_root() -> Path | None:
    """The folder that `TSGUARD_DATA` names, or `shared/data` beside the project; None where there is neither."""
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named) if Path(named).is_dir() else None
    for base in (Path.cwd(), Path(__file__).resolve().parents[2]):
        candidate = base.parent / "shared" / "data"
        if candidate.is_dir():
            return candidate
    return None


def files_of(name: str, root: Path | None = None) -> list[Path]:
    """The set's files that are there."""
    root = root or data_root()
    found = entry(name)
    return [] if root is None else sorted((root / found.folder).glob(found.pattern))


def locate(name: str, root: Path | None = None) -> Path | None:
    """The folder of a set, or None where it is not there."""
    files = files_of(name, root)
    root = root or data_root()
    return None if not files or root is None else root / entry(name).folder


def digest(name: str, root: Path | None = None) -> str | None:
    """SHA-256 of the files that are there, to be compared with the catalogue; None where there are none."""
    files = files_of(name, root)
    if not files:
        return None
    if len(files) == 1:
        return hashlib.sha256(files[0].read_bytes()).hexdigest()
    base = locate(name, root)
    assert base is not None
    lines = {file.relative_to(base).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    text = "".join(f"{lines[path]}  {path}\n" for path in sorted(lines, key=lambda path: path.encode()))
    return hashlib.sha256(text.encode()).hexdigest()


def verified(name: str, root: Path | None = None) -> bool | None:
    """Whether the files are the ones the catalogue knows; None where they are absent."""
    found = digest(name, root)
    return None if found is None else found == entry(name).sha256


def entry(name: str) -> RealSet:
    """The catalogue's entry, or a DataError that lists the names."""
    if name not in SETS:
        raise DataError(f"data set: received {name!r}. Expected one of {', '.join(SETS)}. See `tsguard data list`.")
    return SETS[name]


_WORDS = {True: "verified", False: "differs", None: "absent"}


def row(name: str, root: Path | None = None) -> dict[str, str]:
    """Name, title, size, licence of a set, and whether it is here (`verified`, `differs`, `absent`)."""
    one = entry(name)
    known = {"name": one.name, "title": one.title, "size": one.size, "licence": one.licence}
    return {**known, "here": _WORDS[verified(name, root)]}


def listing(root: Path | None = None) -> list[dict[str, str]]:
    """A row for each set."""
    return [row(name, root) for name in SETS]


def where(name: str, root: Path | None = None) -> str:
    """How to get a set and where to put it, or where it was found and whether it is the same."""
    one = entry(name)
    root = root or data_root()
    target = (root or Path(f"${VARIABLE}")) / one.folder
    lines = [f"{one.name}: {one.title} ({one.size})", f"licence: {one.licence}", f"source: {one.address}"]
    state = verified(name, root)
    if state is None:
        lines.append(f"It is not here. Fetch it from the source and put its files ({one.pattern}) into {target}.")
        if root is None:
            lines.append(f"Set {VARIABLE} to the folder that holds it.")
        lines.append(f"SHA-256 {one.sha256}" + ("" if len(one.pattern.split("*")) == 1 else " (over all files)"))
    elif state:
        lines.append(f"Found in {target}, SHA-256 verified.")
    else:
        lines.append(f"Found in {target}, but its SHA-256 is {digest(name, root)}; the catalogue knows {one.sha256}.")
        lines.append("Another version, or a damaged copy: the suite of this set may not hold for it.")
    return "\n".join(lines)


# --- readers -----------------------------------------------------------------------------------------------------


def _single(folder: Path, name: str, *columns: str) -> Reading:
    return read(folder / name, columns=columns)


def _with(reading: Reading, columns: Mapping[str, Any], drop: tuple[str, ...] = ()) -> Reading:
    table = reading.table
    for name, values in columns.items():
        array = values if isinstance(values, (pa.Array, pa.ChunkedArray)) else pa.array(values)
        if name in table.column_names:
            table = table.set_column(table.column_names.index(name), name, array)
        else:
            table = table.append_column(name, array)
    return Reading(table.drop_columns(list(drop)), reading.source, reading.repairs)


def _etth1(folder: Path) -> Reading:
    return _single(folder, "ETTh1.csv", "date", *ETTH1)


def _arem(folder: Path) -> Reading:
    reading = read(folder, pattern="*/*.csv", repair=("comment-header", "unnamed-column", "delimiter"))
    file = reading.table.column("file")
    activity = pc.list_element(pc.split_pattern(file, "/"), 0)
    names, owner = np.unique(np.asarray(file.to_pylist()), return_inverse=True)
    values = np.stack([reading.column(name).astype(np.float64) for name in AREM], axis=1)
    content = [hashlib.sha256(values[owner == i].tobytes()).hexdigest()[:12] for i in range(len(names))]
    counted = np.bincount(owner)[owner].astype(np.int64)
    added = {"activity": activity, "content": pa.array(np.asarray(content)[owner].tolist()), "rows_in_file": counted}
    return _with(reading, added, drop=("column_0", "Lable"))


def _air_quality(folder: Path) -> Reading:
    reading = _single(folder, "AirQuality.csv", "Date", "Time", *AIR_QUALITY)
    day = reading.table.column("Date").cast(pa.timestamp("s")).cast(pa.int64())
    second = reading.table.column("Time").cast(pa.time32("s")).cast(pa.int32()).cast(pa.int64())
    moment = pc.add(day, second).cast(pa.timestamp("s"))
    coded = np.sum([reading.column(name) == -200 for name in reading.table.column_names[2:]], axis=0).astype(np.int64)
    return _with(reading, {"moment": moment, "codes_in_row": coded}, drop=("Date", "Time"))


def _vix(folder: Path) -> Reading:
    reading = _single(folder, "vix-daily.csv", "DATE", "OPEN", "HIGH", "LOW", "CLOSE")
    opened, high, low, close = (reading.column(name).astype(np.float64) for name in ("OPEN", "HIGH", "LOW", "CLOSE"))
    day = reading.table.column("DATE").cast(pa.timestamp("s"))
    return _with(reading, {"DATE": day, **derived_prices(opened, high, low, close)})


def derived_prices(opened: Any, high: Any, low: Any, close: Any) -> dict[str, Any]:
    """Eight causal features of daily prices; the first rows look back as far as there are rows."""
    logs = np.log(close)
    back = np.maximum(np.arange(len(close)) - 5, 0)
    window = np.lib.stride_tricks.sliding_window_view(np.concatenate([np.full(9, logs[0]), logs]), 10)
    return {
        "range": high - low,
        "body": close - opened,
        "upper_shadow": high - np.maximum(opened, close),
        "lower_shadow": np.minimum(opened, close) - low,
        "log_return": np.diff(logs, prepend=logs[0]),
        "log_return_5": logs - logs[back],
        "log_mean_10": window.mean(axis=1),
        "log_std_10": window.std(axis=1),
    }


def _nab(folder: Path) -> Reading:
    """Under each other; `repeats_in_file` is the share of rows of the file that repeat the value before."""
    reading = read(folder, pattern="*.csv", columns=("timestamp", "value"))
    _, owner = np.unique(np.asarray(reading.table.column("file").to_pylist()), return_inverse=True)
    value = reading.column("value")
    again = np.append(False, (value[1:] == value[:-1]) & (owner[1:] == owner[:-1]))
    shares = np.bincount(owner, again) / np.maximum(np.bincount(owner) - 1, 1)
    return _with(reading, {"repeats_in_file": shares[owner]})


def _movielens(folder: Path) -> Reading:
    """Sorted by user and time (stable): the file itself is sorted by user and film, so that its own Δt mean nothing.

    `float32_step` is the time since the user's rating before, as it comes out of float32 time stamps.
    """
    reading = _single(folder, "ratings.csv", "userid", "movieid", "rating", "timestamp")
    order = pc.sort_indices(reading.table, sort_keys=[("userid", "ascending"), ("timestamp", "ascending")])
    ordered = Reading(reading.table.take(order), reading.source, reading.repairs)
    stamps, users = ordered.column("timestamp"), ordered.column("userid")
    narrow = np.diff(stamps.astype(np.float32), prepend=np.float32(0)).astype(np.float64)
    first = np.append(True, users[1:] != users[:-1])
    return _with(ordered, {"float32_step": pa.array(narrow, mask=first)})


def _vowels(folder: Path) -> Reading:
    return read(folder, pattern="*.ts")


def _era5(folder: Path) -> Reading:
    """One row an hour; `t2m` is an Arrow tensor of 33 × 49 kelvins."""
    path = folder / "era5_uk_t2m_2019_03.npz"
    with np.load(path, allow_pickle=False) as held:
        fields, stamps = held["t2m"], held["date"]
    iso = [f"{s[:4]}-{s[4:6]}-{s[6:8]}T{s[9:11]}:{s[11:13]}" for s in stamps.tolist()]
    moments = np.array(iso, "datetime64[s]")
    tensor = pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(fields))
    return Reading(pa.table({"time": moments, "t2m": tensor}), str(path))


ETTH1 = ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")
AREM = ("avg_rss12", "var_rss12", "avg_rss13", "var_rss13", "avg_rss23", "var_rss23")
AIR_QUALITY = (
    "CO(GT)",
    "PT08.S1(CO)",
    "PT08.S2(NMHC)",
    "NOx(GT)",
    "PT08.S3(NOx)",
    "NO2(GT)",
    "PT08.S4(NO2)",
    "PT08.S5(O3)",
    "T",
    "RH",
)
"""Ten of the thirteen: without NMHC(GT), which is missing in 90 % of the rows; without C6H6(GT), which is a function of
PT08.S2(NMHC); without AH, which is a function of T and RH."""
VIX = (
    "OPEN",
    "HIGH",
    "LOW",
    "CLOSE",
    "range",
    "body",
    "upper_shadow",
    "lower_shadow",
    "log_return",
    "log_return_5",
    "log_mean_10",
    "log_std_10",
)

SETS: Mapping[str, RealSet] = {
    one.name: one
    for one in (
        RealSet(
            "etth1",
            "electricity transformer, hourly",
            "ett",
            "ETTh1.csv",
            "https://github.com/zhouhaoyi/ETDataset (ETT-small/ETTh1.csv)",
            "CC BY-ND 4.0",
            "f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066",
            "17,420 rows × 7",
            ETTH1,
            "date",
            None,
            _etth1,
        ),
        RealSet(
            "arem",
            "human activity from radio signal strength",
            "arem",
            "*/*.csv",
            "https://archive.ics.uci.edu/dataset/366",
            "CC BY 4.0",
            "674020e66007a0c69ccb40177349c56fd7cfe6c097286378f25ff521d7a72e18",
            "88 files of about 480 rows × 6",
            AREM,
            "time",
            "file",
            _arem,
        ),
        RealSet(
            "air_quality",
            "gas sensors and weather, hourly",
            "air_quality",
            "AirQuality.csv",
            "https://archive.ics.uci.edu/dataset/360",
            "CC BY 4.0",
            "1075efde89b8c1cfc54e1941fc1f177ba8808c95e890ac42a8290b8f3f4a38da",
            "9,357 rows × 13, of which 10 are features",
            AIR_QUALITY,
            "moment",
            None,
            _air_quality,
        ),
        RealSet(
            "vix",
            "volatility index, daily",
            "vix",
            "vix-daily.csv",
            "https://github.com/datasets/finance-vix (data/vix-daily.csv)",
            "PDDL 1.0",
            "fa8f8119bb2fa785bb408bcae541a1e630fef97f3acb160b94ed3115c1318db5",
            "9,235 rows × 4, with 8 derived features 12",
            VIX,
            "DATE",
            None,
            _vix,
        ),
        RealSet(
            "nab",
            "server metrics, every five minutes",
            "nab/realAWSCloudwatch",
            "*.csv",
            "https://github.com/numenta/NAB (data/realAWSCloudWatch)",
            "MIT",
            "46fde2ae163ff1049a3ad8842a7a72279d6bf103b5cc4f90ee486e436193dd1d",
            "17 series of 1.2k to 4.7k rows",
            ("value",),
            "timestamp",
            "file",
            _nab,
        ),
        RealSet(
            "movielens",
            "film ratings with time stamps",
            "movielens_latest_small",
            "ratings.csv",
            "https://grouplens.org/datasets/movielens/latest/ (ml-latest-small)",
            "GroupLens terms, non-commercial",
            "2f8fd2116cbb4ef7ddbfd8537a4dd1209fffa15092cb28ec4c03a950827068ad",
            "100,836 ratings",
            ("rating",),
            "timestamp",
            "userid",
            _movielens,
        ),
        RealSet(
            "japanese_vowels",
            "speech, sequences of variable length",
            "japanese_vowels",
            "*.ts",
            "https://archive.ics.uci.edu/dataset/128 (in .ts form: timeseriesclassification.com)",
            "CC BY 4.0",
            "074b982a14983c905fd65212a358e7bc06feeb5ae951291663a5a4512e518914",
            "640 cases of 7 to 29 steps × 12",
            tuple(f"dim_{i}" for i in range(12)),
            None,
            None,
            _vowels,
        ),
        RealSet(
            "era5_uk",
            "hourly 2 m temperature over the UK, March 2019",
            "era5_uk_t2m",
            "*.npz",
            "https://cds.climate.copernicus.eu (reanalysis-era5-single-levels, 2m_temperature)",
            "Copernicus licence; contains modified Copernicus Climate Change Service information",
            "19b3153902dad28fe4fedf3259795948e82c0d81eaf473ce854e85e8b76f4e67",
            "744 frames of 33 × 49",
            ("t2m",),
            "time",
            None,
            _era5,
        ),
    )
}
