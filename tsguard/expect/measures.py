"""Plain measurements of series and windows: numpy arrays in, numbers out, no judgement and no Great Expectations.

Series run along the first axis; windows are (N, T) or (N, T, F). The expectations of `tsguard.expect.timeseries`
judge by these, and so may any other layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

MAX_ORDER = 12
"""Longest autoregression fitted for the long-run variance; a longer memory than twelve steps is seen as a root near
one."""
LARGEST_ROOT = 0.9999
"""Persistence is cut here: beyond it a series is a random walk, of which no stretch says anything about a mean."""
SENTINEL_REPEATS = 3
"""A code for "missing" is written again and again; twice may be chance."""
SENTINEL_ISOLATION = 5.0
"""A code lies apart from the data by several times the spacing of almost all neighbouring values."""
SENTINEL_DISTINCT = 10
"""Fewer distinct values than this are labels or levels, among which "far apart" means nothing."""
TINY = 1e-12
"""Relative to the size of the numbers: below this a spread is rounding."""
FEWEST = 8
"""Fewer numbers than this have no autocorrelation to speak of."""
LEAST_KNOWN = 0.2
"""A stretch worth about one sample says nothing of its variance; its estimate is raised at most fivefold."""
MEAN_WEIGHT = 2 / 3
"""Share of the error that the test of the means may spend; the rest belongs to the spread."""
DRIFT_LEVEL = 0.03
"""p below which stretches have drifted: a stationary series alarms in three cases of a hundred. Five are allowed; the
rest is kept for what is estimated (the memory of a short stretch)."""


# --- values


def nonfinite(values: Array) -> Array:
    """True where a number is NaN or infinite."""
    return ~np.isfinite(np.asarray(values, dtype=np.float64))


@dataclass(frozen=True)
class Runs:
    """Stretches of one repeated value: where they begin and how long they are."""

    starts: Array
    lengths: Array

    @property
    def longest(self) -> int:
        return int(self.lengths.max(initial=0))


def stuck_runs(values: Array, *, at_least: int = 2, entities: Array | None = None) -> Runs:
    """Runs of `at_least` equal consecutive values; NaN ends a run, and so does a new entity."""
    values = np.asarray(values)
    if not len(values):
        return Runs(np.empty(0, np.int64), np.empty(0, np.int64))
    same = values[1:] == values[:-1]
    if entities is not None:
        same &= np.asarray(entities)[1:] == np.asarray(entities)[:-1]
    edges = np.flatnonzero(np.concatenate([[True], ~same, [True]]))
    lengths = np.diff(edges)
    long = lengths >= at_least
    starts = edges[:-1][long]
    known = values[starts] == values[starts]  # a lone NaN is no run
    return Runs(starts[known], lengths[long][known])


@dataclass(frozen=True)
class Sentinel:
    """A value that seems to stand for "missing", and how often."""

    value: float
    count: int


def sentinels(values: Array) -> list[Sentinel]:
    """Extreme values that recur and lie apart from all other data by far more than the data lie from each other.

    Both ends are looked at, again and again until none is found (−9999 may hide −999).
    """
    known = np.asarray(values, dtype=np.float64).ravel()
    distinct, counts = np.unique(known[np.isfinite(known)], return_counts=True)
    found: list[Sentinel] = []
    while len(distinct) > SENTINEL_DISTINCT:
        for end, rest in ((0, slice(1, None)), (-1, slice(None, -1))):
            spacing = np.diff(distinct[rest])
            gap = abs(distinct[end] - distinct[rest][0 if end == 0 else -1])
            if counts[end] >= SENTINEL_REPEATS and gap > SENTINEL_ISOLATION * np.quantile(spacing, 0.99):
                found.append(Sentinel(float(distinct[end]), int(counts[end])))
                distinct, counts = distinct[rest], counts[rest]
                break
        else:
            break
    return found


# --- time


def steps(times: Array, entities: Array | None = None) -> Array:
    """Differences of consecutive times in int64 or float64, NaN where a new entity begins; times of numpy in
    nanoseconds."""
    times = as_time(times)
    with np.errstate(over="ignore"):
        found = np.diff(times).astype(np.float64)
    if times.dtype.kind == "i" and len(times):  # a difference beyond int64 wraps around, and would run the other way
        wrapped = (times[1:] >= times[:-1]) != (found >= 0)
        found[wrapped] = times[1:][wrapped].astype(np.float64) - times[:-1][wrapped].astype(np.float64)
    if entities is not None:
        found[np.asarray(entities)[1:] != np.asarray(entities)[:-1]] = np.nan
    return found


def as_time(times: Array) -> Array:
    """Times as int64 (nanoseconds of a datetime64) or as the numbers that they are, never narrowed to float32."""
    times = np.asarray(times)
    if times.dtype.kind == "M":
        return times.astype("datetime64[ns]").astype(np.int64)
    if times.dtype.kind == "u":  # differences of unsigned numbers never fall
        fits = times.dtype.itemsize < 8 or not len(times) or int(times.max()) <= np.iinfo(np.int64).max
        return times.astype(np.int64 if fits else np.float64)
    return times.astype(np.int64) if times.dtype.kind == "i" else times.astype(np.float64)


def sorted_by_entity(times: Array, entities: Array) -> tuple[Array, Array, Array]:
    """Times and entities with each entity's rows together, in their order of appearance, and the rows they came
    from."""
    order = np.argsort(np.unique(np.asarray(entities), return_inverse=True)[1], kind="stable")
    return np.asarray(times)[order], np.asarray(entities)[order], order


def out_of_order(times: Array, entities: Array | None = None, *, strictly: bool = True) -> Array:
    """Rows whose time does not come after that of the entity's row before."""
    rows = np.arange(len(times))
    if entities is not None:
        times, entities, rows = sorted_by_entity(times, entities)
    found = steps(times, entities)
    late = found <= 0 if strictly else found < 0
    return np.sort(rows[1:][late])


def usual_interval(times: Array, entities: Array | None = None) -> float:
    """The most common step (of irregular times: the median one)."""
    if entities is not None:
        times, entities, _ = sorted_by_entity(times, entities)
    found = steps(times, entities)
    found = found[found > 0]
    if not len(found):
        return math.nan
    values, counts = np.unique(found, return_counts=True)
    common = counts.argmax()
    return float(values[common]) if counts[common] * 2 > len(found) else float(np.median(found))


def irregular(times: Array, interval: float, entities: Array | None = None, *, tolerance: float = 0.0) -> Array:
    """Rows that do not come one interval (± tolerance, as a share of it) after the entity's row before."""
    rows = np.arange(len(times))
    if entities is not None:
        times, entities, rows = sorted_by_entity(times, entities)
    found = steps(times, entities)
    off = np.abs(found - interval) > tolerance * interval
    return np.sort(rows[1:][off])


def gaps(times: Array, longest: float, entities: Array | None = None) -> Array:
    """Rows that come more than `longest` after the entity's row before."""
    rows = np.arange(len(times))
    if entities is not None:
        times, entities, rows = sorted_by_entity(times, entities)
    return np.sort(rows[1:][steps(times, entities) > longest])


def float32_loss(times: Array, entities: Array | None = None) -> float:
    """Share of the nonzero steps, from row to row (of entities: in order of time), that become zero in float32."""
    exact = as_time(times)
    within = np.ones(max(len(exact) - 1, 0), dtype=bool)
    if entities is not None:
        groups = np.unique(np.asarray(entities), return_inverse=True)[1]
        order = np.lexsort((exact, groups))
        exact, groups = exact[order], groups[order]
        within = groups[1:] == groups[:-1]
    moved = within & (np.diff(exact) != 0)
    if not moved.any():
        return 0.0
    narrow = np.diff(exact.astype(np.float32))
    return float(np.mean(narrow[moved] == 0))


# --- splits


def block_hashes(series: Array, length: int) -> Array:
    """A 64-bit hash of every block of `length` consecutive steps: (T,) or (T, F) gives T − length + 1 hashes, windows
    (N, T, F) give the blocks within each window. −0.0 equals 0.0, and every NaN equals every other."""
    series = np.asarray(series)
    if series.dtype.kind == "f":
        series = np.where(np.isnan(series), np.nan, series + 0.0).astype(np.float64)
    elif series.dtype.kind not in "iub":
        series = np.unique(series, return_inverse=True)[1].reshape(series.shape)
    windows = series[None] if series.ndim < 3 else series
    if series.ndim == 1:
        windows = windows[..., None]
    bits = np.ascontiguousarray(windows.astype(np.float64 if series.dtype.kind == "f" else np.int64)).view(np.uint64)
    flat = bits.reshape(bits.shape[0], bits.shape[1], -1)
    row = np.zeros(flat.shape[:2], dtype=np.uint64)
    for feature in range(flat.shape[2]):
        row = _scrambled(row ^ flat[:, :, feature], feature)
    count = max(0, flat.shape[1] - length + 1)
    block = np.zeros((flat.shape[0], count), dtype=np.uint64)
    for step in range(length if count else 0):
        block = _scrambled(block ^ row[:, step : step + count], step)
    result: Array = block[0] if series.ndim < 3 else block
    return result


def _scrambled(bits: Array, salt: int) -> Array:
    """One round of splitmix64: every bit of the input moves half the bits of the output."""
    bits = bits + np.uint64((0x9E3779B97F4A7C15 * (salt + 1)) & 0xFFFFFFFFFFFFFFFF)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    result: Array = bits ^ (bits >> np.uint64(31))
    return result


def shared_blocks(first: Array, second: Array, length: int) -> Array:
    """Where in `second` a block of `length` steps begins that also occurs in `first`; blocks that never change do not
    count. For windows the answer names windows, for series steps."""
    ours, theirs = (_told_apart(part, length) for part in (first, second))
    found = np.isin(theirs[0], ours[0][ours[1]]) & theirs[1]
    return np.flatnonzero(found if np.ndim(second) < 3 else found.any(axis=1))


def _told_apart(part: Array, length: int) -> tuple[Array, Array]:
    """Hashes of the blocks of `part`, and which of these blocks vary at all."""
    part = np.asarray(part, dtype=np.float64) if np.asarray(part).dtype.kind == "f" else np.asarray(part)
    hashes = block_hashes(part, length)
    windows = part[None] if part.ndim < 3 else part
    if part.ndim == 1:
        windows = windows[..., None]
    if part.dtype.kind == "f":
        windows = np.where(np.isnan(windows), np.inf, windows)  # NaN beside NaN is no change
    changed = np.any(windows[:, 1:] != windows[:, :-1], axis=2)
    sums = np.concatenate([np.zeros((len(changed), 1), dtype=np.int64), np.cumsum(changed, axis=1)], axis=1)
    count = hashes.shape[-1]
    vary = (
        sums[:, length - 1 : length - 1 + count] > sums[:, :count]
        if length > 1
        else np.ones((len(windows), count), dtype=bool)
    )
    return hashes, vary[0] if part.ndim < 3 else vary


def scaler_source(center: Array, scale: Array, train: Array, rest: Array, *, tolerance: float = 1e-3) -> str:
    """On which rows a standard scaler was fitted: "train", "everything" (train and rest together) or "neither".

    `train` and `rest` are (rows, features), unscaled. The tolerance is a share of the training deviation.
    """
    train, rest = (np.asarray(part, dtype=np.float64).reshape(len(part), -1) for part in (train, rest))
    spread = np.where(np.nanstd(train, axis=0) > 0, np.nanstd(train, axis=0), 1.0)

    def distance(rows: Array) -> float:
        away = np.abs(np.asarray(center) - np.nanmean(rows, axis=0)) + np.abs(np.asarray(scale) - _scale_of(rows))
        return float(np.max(away / spread))

    from_train, from_all = distance(train), distance(np.concatenate([train, rest]))
    if min(from_train, from_all) > tolerance:
        return "neither"
    return "train" if from_train <= from_all else "everything"


def _scale_of(rows: Array) -> Array:
    """The deviation that scalers divide by: 1 where a column is constant."""
    deviation = np.nanstd(rows, axis=0)
    return np.where(deviation > 0, deviation, 1.0)


# --- labels, volume, ranges


def class_shares(labels: Array) -> dict[Any, float]:
    """Share of each class, most common first; the first share is what a constant answer scores."""
    values, counts = np.unique(np.asarray(labels), return_counts=True)
    plain = values.tolist()
    return {plain[index]: float(counts[index] / counts.sum()) for index in np.argsort(-counts, kind="stable")}


def batches_per_epoch(samples: int, batch_size: int, *, drop_last: bool = False) -> int:
    return samples // batch_size if drop_last else -(-samples // batch_size)


def typical_magnitudes(sets: Mapping[str, Array]) -> dict[str, float]:
    """Of each set (rows, features): how far its values typically lie from zero (the median over rows and features)."""
    told = {}
    for name, rows in sets.items():
        sizes = np.abs(np.asarray(rows, dtype=np.float64))
        sizes = sizes[np.isfinite(sizes)]
        told[name] = float(np.median(sizes)) if len(sizes) else math.nan
    return told


# --- drift


def autocovariance(values: Array, lags: int) -> Array:
    """Autocovariance at lags 0…lags about the mean of the stretch itself."""
    values = np.asarray(values, dtype=np.float64)
    values = values - values.mean()
    size = 1 << (2 * len(values) - 1).bit_length()
    spectrum = np.fft.rfft(values, size)
    result: Array = np.fft.irfft(spectrum * np.conj(spectrum), size)[: lags + 1] / len(values)
    return result


def persistence_ratio(stretches: Sequence[Array]) -> float:
    """Long-run variance over variance: how many steps of the series are worth one independent sample.

    An autoregression, chosen by BIC, is fitted to all stretches together, each about its own mean, so that a
    shift between them is not taken for memory. Its persistence is corrected for Kendall's bias
    (1 + 3ρ)/n: every short stretch looks less persistent than it is, and that is what makes a stationary
    series seem to drift.
    """
    count = sum(len(stretch) for stretch in stretches)
    lags = min(MAX_ORDER, min(len(stretch) for stretch in stretches) // 4)
    covariance = np.sum([autocovariance(stretch, lags) * len(stretch) for stretch in stretches], axis=0) / count
    rho = covariance / covariance[0]
    coefficients, error = np.empty(0), 1.0
    best, chosen = math.inf, (0.0, 1.0)
    for order in range(len(rho)):
        if order:  # Levinson and Durbin's recursion
            reflection = (rho[order] - coefficients @ rho[order - 1 : 0 : -1]) / error if order > 1 else rho[1]
            coefficients = np.append(coefficients - reflection * coefficients[::-1], reflection)
            error *= max(1.0 - reflection * reflection, TINY)
        score = count * math.log(error) + order * math.log(count)
        if score < best:
            best, chosen = score, (float(coefficients.sum()), error)
    persistence, error = chosen
    if persistence > 0:
        persistence += (1.0 + 3.0 * persistence) * len(stretches) / count
    return float(error / (1.0 - min(persistence, LARGEST_ROOT)) ** 2)


def effective_sample_size(values: Array) -> float:
    """How many independent samples would know the mean as well as this series does."""
    values = _finite(values)
    if len(values) < FEWEST or not np.ptp(values) > 0:
        return float(len(values))
    return float(np.clip(len(values) / persistence_ratio([values]), 1.0, len(values)))


@dataclass(frozen=True)
class Drift:
    """How far two stretches of a series lie apart, and how surprising that is for series with such a memory."""

    shift: float  # difference of the means, in pooled standard deviations
    spread: float  # logarithm of the ratio of the standard deviations
    p_value: float
    effective: tuple[float, float]  # independent samples that each stretch is worth


def drift(first: Array, second: Array) -> Drift:
    """A test of the means and one of the mean absolute deviations, both aware of autocorrelation, as one p-value.

    The means have twice the weight of the spread: a shift is what models suffer from most. Of less than eight numbers
    in a stretch nothing can be said, and the p-value is NaN.
    """
    first, second = _finite(first), _finite(second)
    if min(len(first), len(second)) < FEWEST:
        return Drift(math.nan, math.nan, math.nan, (float(len(first)), float(len(second))))
    pooled = math.sqrt((np.var(first) + np.var(second)) / 2)
    if not pooled > TINY * max(abs(first[0]), abs(second[0])):
        moved = bool(abs(first[0] - second[0]) > TINY * max(abs(first[0]), abs(second[0])))
        return Drift(math.inf if moved else 0.0, 0.0, 0.0 if moved else 1.0, (float(len(first)), float(len(second))))
    of_mean, effective = _means_differ(first, second)
    of_spread, _ = _means_differ(np.abs(first - np.median(first)), np.abs(second - np.median(second)))
    floor = TINY * pooled
    return Drift(
        shift=float((second.mean() - first.mean()) / pooled),
        spread=math.log((np.std(second) + floor) / (np.std(first) + floor)),
        p_value=min(1.0, of_mean / MEAN_WEIGHT, of_spread / (1.0 - MEAN_WEIGHT)),
        effective=effective,
    )


def _means_differ(first: Array, second: Array) -> tuple[float, tuple[float, float]]:
    """Two-sided p of equal means by Student's t, with effective sample sizes in place of the counts."""
    from scipy.special import stdtr

    if not np.ptp(np.concatenate([first - first.mean(), second - second.mean()])) > 0:
        return 1.0, (float(len(first)), float(len(second)))
    ratio = max(persistence_ratio([first, second]), TINY)
    effective = [float(np.clip(len(part) / ratio, 1.0, len(part))) for part in (first, second)]
    # a stretch worth n samples underestimates its variance by the factor 1 − 1/n, since it is taken about its own mean
    variances = [
        np.var(part) / max(1.0 - 1.0 / size, LEAST_KNOWN) for part, size in zip((first, second), effective, strict=True)
    ]
    error = math.sqrt(variances[0] / effective[0] + variances[1] / effective[1])
    freedom = max(sum(effective) - 2.0, 1.0)
    return float(2.0 * stdtr(freedom, -abs(first.mean() - second.mean()) / error)), (effective[0], effective[1])


def _finite(values: Array) -> Array:
    values = np.asarray(values, dtype=np.float64).ravel()
    return values[np.isfinite(values)]
