"""Synthetic tables and series with the look of the real sets, and faults that can be switched on. Numpy only.

Each maker returns the columns and the list of what was planted: column, count and first row of every fault, so that an
audit can be judged by whether it finds exactly that. Without `faults` a maker's data is sound.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tsguard.errors import DataError

Array = npt.NDArray[Any]
Rng = np.random.Generator


@dataclass(frozen=True, slots=True)
class Planted:
    """A fault that a maker put into the data."""

    kind: str
    column: str
    count: int
    first_row: int


@dataclass(frozen=True)
class Made:
    """Columns (or arrays) by name, and the faults that are in them."""

    columns: Mapping[str, Array]
    planted: tuple[Planted, ...] = ()

    def values(self, names: Sequence[str] | None = None) -> Array:
        """Columns of numbers side by side, as float32."""
        chosen = names or [name for name, column in self.columns.items() if column.dtype.kind == "f"]
        return np.stack([np.asarray(self.columns[name], np.float32) for name in chosen], axis=1)


Columns = dict[str, Array]
Fault = Callable[[Columns, Rng], tuple[Columns, Planted]]


def _apply(columns: Columns, faults: Sequence[str], known: Mapping[str, Fault], rng: Rng) -> Made:
    unknown = sorted(set(faults) - set(known))
    if unknown:
        raise DataError(f"faults: received {unknown}. Expected some of {sorted(known)}. This maker knows no others.")
    planted = []
    for name in known:  # in the order of the table, so that the same faults give the same data however they are named
        if name in faults:
            columns, what = known[name](columns, rng)
            planted.append(what)
    return Made(columns, tuple(planted))


def _put(kind: str, column: str, value: float, count: int) -> Fault:
    """Put one value into `count` scattered rows of a column."""

    def fault(columns: Columns, rng: Rng) -> tuple[Columns, Planted]:
        size = len(columns[column])
        rows = np.sort(rng.choice(size, min(count, size // 2), replace=False))
        spoiled = columns[column].astype(np.float64)
        spoiled[rows] = value
        return {**columns, column: spoiled}, Planted(kind, column, len(rows), int(rows[0]))

    return fault


def _stick(column: str, count: int) -> Fault:
    """A sensor that repeats its last value for `count` rows."""

    def fault(columns: Columns, rng: Rng) -> tuple[Columns, Planted]:
        first = int(rng.integers(len(columns[column]) // 4, len(columns[column]) // 2))
        spoiled = columns[column].copy()
        spoiled[first : first + count] = spoiled[first]
        return {**columns, column: spoiled}, Planted("stuck", column, count, first)

    return fault


def _rows(kind: str, time: str, choose: Callable[[int], Array], first: Callable[[int], int], count: int) -> Fault:
    """Leave out, repeat or exchange rows: `choose` gives the rows to keep, in order."""

    def fault(columns: Columns, rng: Rng) -> tuple[Columns, Planted]:
        size = len(columns[time])
        order = choose(size)
        return {name: values[order] for name, values in columns.items()}, Planted(kind, time, count, first(size))

    return fault


def _gap(time: str, count: int) -> Fault:
    def keep(size: int) -> Array:
        return np.delete(np.arange(size), slice(size // 2, size // 2 + count))

    return _rows("gap", time, keep, lambda size: size // 2, 1)


def _repeat(time: str, count: int) -> Fault:
    def keep(size: int) -> Array:
        return np.asarray(np.insert(np.arange(size), size // 3, [size // 3 - 1] * count))

    return _rows("duplicate-time", time, keep, lambda size: size // 3, count)


def _back(time: str) -> Fault:
    def swap(size: int) -> Array:
        order = np.arange(size)
        place = 2 * size // 3
        order[[place, place + 1]] = order[[place + 1, place]]
        return order

    return _rows("not-monotone", time, swap, lambda size: 2 * size // 3 + 1, 1)


def _seasonal(rng: Rng, size: int, period: float, *, level: float, swing: float, noise: float) -> Array:
    """A level with a period, a slow drift and autocorrelated noise: never constant, never repeating."""
    steps = rng.standard_normal(size) * noise
    red = np.empty(size)
    last = 0.0
    for i in range(size):
        last = 0.9 * last + steps[i]
        red[i] = last
    phase = rng.uniform(0, 2 * np.pi)
    return np.asarray(level + swing * np.sin(2 * np.pi * np.arange(size) / period + phase) + red)


def transformer(rows: int = 2_000, *, seed: int = 0, faults: Sequence[str] = ()) -> Made:
    """Seven hourly series of an electricity transformer (ETTh1): loads with a daily period and the oil temperature."""
    rng = np.random.default_rng([seed, 1])
    start = np.datetime64("2016-07-01T00:00:00", "s")
    columns: Columns = {"date": start + np.arange(rows) * np.timedelta64(3600, "s")}
    levels = {"HUFL": (7, 5), "HULL": (2, 1.5), "MUFL": (4, 5), "MULL": (1, 1.2), "LUFL": (3, 1), "LULL": (0.9, 0.5)}
    for name, (level, swing) in levels.items():
        columns[name] = _seasonal(rng, rows, 24, level=level, swing=swing, noise=0.2 * swing)
    lagged = np.convolve(columns["HUFL"], np.exp(-np.arange(48) / 12), mode="full")[:rows]
    columns["OT"] = 10 + 0.15 * lagged + _seasonal(rng, rows, 24 * 365, level=0, swing=8, noise=0.2)
    known = {
        "nan": _put("nan", "HUFL", float("nan"), 12),
        "inf": _put("inf", "MUFL", float("inf"), 2),
        "stuck": _stick("LUFL", 60),
        "zeros": _put("zeros", "HULL", 0.0, rows // 20),
        "gap": _gap("date", 12),
        "duplicate-time": _repeat("date", 3),
        "not-monotone": _back("date"),
    }
    return _apply(columns, faults, known, rng)


ACTIVITIES = ("bending1", "bending2", "cycling", "lying", "sitting", "standing", "walking")


def activity(files: int = 14, *, rows: int = 480, seed: int = 0, faults: Sequence[str] = ()) -> Made:
    """Human activity from radio signal strength (AReM): six features every 250 ms, a file a recording, seven labels."""
    rng = np.random.default_rng([seed, 2])
    parts: list[Columns] = []
    for number in range(files):
        label = number % len(ACTIVITIES)
        part: Columns = {
            "file": np.full(rows, f"{ACTIVITIES[label]}/dataset{number // len(ACTIVITIES) + 1}.csv"),
            "time": np.arange(rows, dtype=np.int64) * 250,
        }
        restless = 0.3 + label * 0.6
        for pair in ("12", "13", "23"):
            mean = _seasonal(rng, rows, 40 + label, level=15 + 4 * label, swing=restless, noise=0.3 * restless)
            part[f"avg_rss{pair}"] = np.clip(mean, 0, None)
            part[f"var_rss{pair}"] = np.abs(rng.standard_normal(rows)) * restless + 1e-3 * rng.random(rows)
        part["label"] = np.full(rows, ACTIVITIES[label])
        parts.append(part)
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def duplicate_file(held: Columns, rng: Rng) -> tuple[Columns, Planted]:
        chosen = held["file"] == parts[0]["file"][0]
        copy = {name: values[chosen] for name, values in held.items()}
        copy["file"] = np.full(int(chosen.sum()), "lying/dataset99.csv")
        first = len(held["file"])
        joined = {name: np.concatenate([held[name], copy[name]]) for name in held}
        return joined, Planted("duplicate-file", "file", 1, first)

    def short_file(held: Columns, rng: Rng) -> tuple[Columns, Planted]:
        rows_of_last = np.flatnonzero(held["file"] == parts[-1]["file"][0])
        keep = np.ones(len(held["file"]), bool)
        keep[rows_of_last[-1]] = False
        return {name: values[keep] for name, values in held.items()}, Planted("short-file", "file", 1, rows_of_last[0])

    return _apply(columns, faults, {"short-file": short_file, "duplicate-file": duplicate_file}, rng)


GASES = (
    "CO(GT) PT08.S1(CO) NMHC(GT) C6H6(GT) PT08.S2(NMHC) NOx(GT) PT08.S3(NOx) NO2(GT) PT08.S4(NO2) PT08.S5(O3) T RH AH"
).split()


def air_quality(rows: int = 2_000, *, seed: int = 0, faults: Sequence[str] = ()) -> Made:
    """Thirteen hourly series of gas sensors and weather (Air Quality); −200 can stand for missing in CO(GT)."""
    rng = np.random.default_rng([seed, 3])
    start = np.datetime64("2004-03-10T18:00:00", "s")
    columns: Columns = {"time": start + np.arange(rows) * np.timedelta64(3600, "s")}
    for number, name in enumerate(GASES):
        level = 2.0 if name == "CO(GT)" else 20.0 if name in ("T", "RH", "AH") else 100.0 + 100 * number
        columns[name] = np.abs(_seasonal(rng, rows, 24, level=level, swing=0.3 * level, noise=0.05 * level)) + 0.01
    known = {
        "sentinel": _put("sentinel", "CO(GT)", -200.0, rows // 10),
        "nan": _put("nan", "RH", float("nan"), 5),
        "stuck": _stick("T", 48),
    }
    return _apply(columns, faults, known, rng)


def market(rows: int = 2_000, *, seed: int = 0, faults: Sequence[str] = ()) -> Made:
    """Daily open, high, low and close of an index (VIX): a mean-reverting level, weekdays only."""
    rng = np.random.default_rng([seed, 4])
    days = np.arange("1990-01-02", np.datetime64("1990-01-02") + rows * 2, dtype="datetime64[D]")
    days = days[np.is_busday(days)][:rows]
    level, log = np.log(19.0), np.log(19.0)
    close = np.empty(rows)
    for i in range(rows):
        log += 0.03 * (level - log) + 0.06 * rng.standard_normal()
        close[i] = np.exp(log)
    opened = np.r_[close[0] * 1.01, close[:-1]] * np.exp(0.01 * rng.standard_normal(rows))
    spread = 1 + 0.02 * rng.random(rows) + 1e-4
    columns: Columns = {
        "date": days,
        "open": opened,
        "high": np.maximum(opened, close) * spread,
        "low": np.minimum(opened, close) / spread,
        "close": close,
    }

    def flat(held: Columns, rng: Rng) -> tuple[Columns, Planted]:
        chosen = np.arange(min(50, rows // 4))
        held = {name: values.copy() for name, values in held.items()}
        for name in ("open", "high", "low"):
            held[name][chosen] = held["close"][chosen]
        return held, Planted("flat-ohlc", "high", len(chosen), 0)

    def high_below(held: Columns, rng: Rng) -> tuple[Columns, Planted]:
        chosen = np.sort(rng.choice(np.arange(rows // 2, rows), 5, replace=False))
        held = {name: values.copy() for name, values in held.items()}
        held["high"][chosen] = np.maximum(held["open"], held["close"])[chosen] * 0.999
        return held, Planted("high-below-max", "high", 5, int(chosen[0]))

    return _apply(columns, faults, {"flat-ohlc": flat, "high-below-max": high_below}, rng)


def servers(machines: int = 3, *, rows: int = 1_000, seed: int = 0, faults: Sequence[str] = ()) -> Made:
    """Cpu, memory, disk and load of several servers every 300 s (NAB): bursts on a quiet ground."""
    rng = np.random.default_rng([seed, 5])
    parts: list[Columns] = []
    for machine in range(machines):
        start = np.datetime64("2014-02-14T14:30:00", "s")
        cpu = _seasonal(rng, rows, 288, level=30, swing=8, noise=2) + (rng.random(rows) < 0.01) * 40
        parts.append(
            {
                "machine": np.full(rows, f"server_{machine}"),
                "timestamp": start + np.arange(rows) * np.timedelta64(300, "s"),
                "cpu": np.clip(cpu, 0.01, 100),
                "memory": _seasonal(rng, rows, 2000, level=60, swing=5, noise=0.5),
                "disk": np.cumsum(rng.random(rows)) / rows * 20 + 40,
                "load": np.clip(cpu, 0.01, 100) / 25 + 0.1 * np.abs(rng.standard_normal(rows)),
            }
        )
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    known: dict[str, Fault] = {
        "nan": _put("nan", "load", float("nan"), 7),
        "gap": _gap("timestamp", 12),
        "duplicate-time": _repeat("timestamp", 11),
        "not-monotone": _back("timestamp"),
    }

    def constant(held: Columns, rng: Rng) -> tuple[Columns, Planted]:
        size = len(held["memory"])
        return {**held, "memory": np.full(size, 50.0)}, Planted("constant", "memory", size, 0)

    return _apply(columns, faults, {**known, "constant": constant}, rng)


def ratings(users: int = 40, *, items: int = 200, seed: int = 0, faults: Sequence[str] = ()) -> Made:
    """Ratings with epoch seconds, sorted by user and time (MovieLens): sessions of seconds, pauses of years."""
    rng = np.random.default_rng([seed, 6])
    parts: list[Columns] = []
    for user in range(1, users + 1):
        count = int(rng.integers(20, 60))
        steps = np.where(rng.random(count) < 0.1, rng.integers(10**5, 10**8, count), rng.integers(1, 60, count))
        parts.append(
            {
                "user": np.full(count, user, np.int64),
                "item": rng.choice(items, count, replace=False).astype(np.int64) + 1,
                "rating": rng.integers(1, 11, count) / 2,
                "timestamp": 828_124_600 + int(rng.integers(0, 5 * 10**8)) + np.cumsum(steps).astype(np.int64),
            }
        )
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def ties(held: Columns, rng: Rng) -> tuple[Columns, Planted]:
        inner = np.flatnonzero(np.diff(held["user"]) == 0)[::6]
        stamps = held["timestamp"].copy()
        stamps[inner] = stamps[inner + 1]
        return {**held, "timestamp": stamps}, Planted("ties", "timestamp", len(inner), int(inner[0]) + 1)

    def narrow(held: Columns, rng: Rng) -> tuple[Columns, Planted]:
        stamps = held["timestamp"].astype(np.float32)
        lost = int((stamps.astype(np.float64) != held["timestamp"]).sum())
        return {**held, "timestamp": stamps}, Planted("float32-time", "timestamp", lost, 0)

    return _apply(columns, faults, {"ties": ties, "float32-time": narrow}, rng)


def vowels(cases: int = 90, *, channels: int = 12, classes: int = 9, seed: int = 0) -> tuple[list[Array], Array]:
    """Sequences of 7 to 29 steps with 12 channels and 9 speakers (Japanese Vowels): a list of (T, C), and labels."""
    rng = np.random.default_rng([seed, 7])
    voices = rng.standard_normal((classes, channels))
    labels = np.arange(cases) % classes
    sequences = []
    for label in labels:
        length = int(rng.integers(7, 30))
        glide = np.linspace(-1, 1, length)[:, None] * voices[(label + 1) % classes] * 0.3
        sequences.append((voices[label] + glide + 0.2 * rng.standard_normal((length, channels))).astype(np.float32))
    return sequences, labels.astype(np.int64)


def fields(frames: int = 96, *, height: int = 12, width: int = 16, seed: int = 0, faults: Sequence[str] = ()) -> Made:
    """Hourly temperature fields (ERA5): a smooth pattern that drifts, with a day in it. Column "field": (T, H, W)."""
    rng = np.random.default_rng([seed, 8])
    t, y, x = np.meshgrid(np.arange(frames), np.linspace(0, 3, height), np.linspace(0, 3, width), indexing="ij")
    field = 281 + 3 * np.sin(2 * np.pi * t / 24) + 2 * np.sin(x + 0.05 * t) + 1.5 * np.cos(y - 0.03 * t)
    field = (field + 0.2 * rng.standard_normal(field.shape)).astype(np.float32)

    def dead(held: Columns, rng: Rng) -> tuple[Columns, Planted]:
        spoiled = held["field"].copy()
        spoiled[:, 2, 3] = 281.0
        return {"field": spoiled}, Planted("dead-pixel", "field", 1, 0)

    def frozen(held: Columns, rng: Rng) -> tuple[Columns, Planted]:
        spoiled = held["field"].copy()
        spoiled[10] = 0.0
        return {"field": spoiled}, Planted("constant-frame", "field", 1, 10)

    def clipped(held: Columns, rng: Rng) -> tuple[Columns, Planted]:
        limit = float(np.quantile(held["field"], 0.9))
        spoiled = np.minimum(held["field"], np.float32(limit))
        return {"field": spoiled}, Planted("saturation", "field", int((spoiled == np.float32(limit)).sum()), 0)

    def holes(held: Columns, rng: Rng) -> tuple[Columns, Planted]:
        spoiled = held["field"].copy()
        spoiled[20:25, 4, 4] = np.nan
        return {"field": spoiled}, Planted("nan", "field", 5, 20)

    known = {"saturation": clipped, "dead-pixel": dead, "constant-frame": frozen, "nan": holes}
    return _apply({"field": field}, faults, known, rng)
