"""Scalers: fitted on the training part only, saved as JSON, exactly inverted for metrics.

A scaler is two small arrays, centre and scale, one row per group (entity or data set) and a last row for all together.
A group of one row, a group never seen and a constant column fall back to what is known; no scale is ever 0 or NaN.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tsguard.errors import DataError

Floats = npt.NDArray[np.float64]
Kind = Literal["standard", "robust", "minmax"]

CONSTANT_ULPS = 16.0
"""A spread below this many rounding steps of the column's largest value is no spread: summing a constant column
leaves a few ulps, and dividing by them blows noise up to size one."""

IQR_OF_NORMAL = 1.3489795003921634
"""Interquartile range of the standard normal: with it the robust scale agrees with the standard one on normal data."""


@dataclass(frozen=True, eq=False)
class Scaler:
    """(values − centre) / scale, by group and column. The last row of `centre` and `scale` is that of all groups."""

    kind: Kind
    names: tuple[str, ...]
    groups: tuple[str, ...]
    centre: Floats
    scale: Floats
    fitted_rows: int
    fitted_from: int
    fitted_to: int
    """First and last row (of the whole data set) that was fitted on: what the audit compares with the split."""

    def transform(self, values: Any, groups: Any = None, columns: Sequence[str] | None = None) -> npt.NDArray[Any]:
        """Scaled values, of the dtype that was given (integers become float64). The feature axis is the last one."""
        array, dtype = _floating(values)
        centre, scale = self._rows(array, groups, columns)
        return ((array - centre) / scale).astype(dtype)

    def inverse(self, values: Any, groups: Any = None, columns: Sequence[str] | None = None) -> npt.NDArray[Any]:
        """Back to the units of the data. `columns` names the features that `values` holds (targets are some of all)."""
        array, dtype = _floating(values)
        centre, scale = self._rows(array, groups, columns)
        return (array * scale + centre).astype(dtype)

    def _rows(self, array: npt.NDArray[Any], groups: Any, columns: Sequence[str] | None) -> tuple[Floats, Floats]:
        which = [self._column(name) for name in columns] if columns is not None else list(range(len(self.names)))
        if array.shape[-1:] != (len(which),):
            expected = f"{len(which)} on the last axis ({', '.join(self.names[i] for i in which)})"
            raise DataError(
                f"scaler: received shape {array.shape}. Expected {expected}. Pass columns= for some of them."
            )
        centre, scale = self.centre[:, which], self.scale[:, which]
        if groups is None:
            return centre[-1], scale[-1]
        places = {name: row for row, name in enumerate(self.groups)}
        asked = np.asarray(groups)
        rows = np.array([places.get(str(group), len(self.groups)) for group in asked.ravel()]).reshape(asked.shape)
        shape = rows.shape + (1,) * (array.ndim - 1 - rows.ndim) + (len(which),)
        return centre[rows].reshape(shape), scale[rows].reshape(shape)

    def _column(self, name: str) -> int:
        if name not in self.names:
            raise DataError(f"scaler: received column {name!r}. Expected one of {list(self.names)}. Mend the name.")
        return self.names.index(name)

    def to_json(self) -> str:
        """Everything, exactly: floats are written so that they come back bit for bit."""
        held = {
            "format": 1,
            "kind": self.kind,
            "names": self.names,
            "groups": self.groups,
            "centre": self.centre.tolist(),
            "scale": self.scale.tolist(),
            "fitted": [self.fitted_rows, self.fitted_from, self.fitted_to],
        }
        return json.dumps(held, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Scaler:
        """What `to_json` wrote."""
        try:
            held = json.loads(text)
            rows, first, last = held["fitted"]
            return cls(
                held["kind"],
                tuple(held["names"]),
                tuple(held["groups"]),
                np.asarray(held["centre"], np.float64),
                np.asarray(held["scale"], np.float64),
                rows,
                first,
                last,
            )
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"scaler: received text that is no scaler ({error}). Expected what to_json wrote."
            ) from error


def fit_scaler(
    values: Any,
    *,
    rows: Any,
    kind: Kind = "standard",
    names: Sequence[str] | None = None,
    groups: Any = None,
) -> Scaler:
    """Fit on `rows` of `values` (N, F) and on nothing else: pass `split.train`. `groups` has one label a row.

    Missing and infinite values are left out of the statistics.
    """
    array, _ = _floating(values)
    array = array[:, None] if array.ndim == 1 else array
    if kind not in ("standard", "robust", "minmax"):
        raise DataError(f"scaler: received kind={kind!r}. Expected 'standard', 'robust' or 'minmax'. Choose one.")
    rows = np.arange(len(array))[rows] if isinstance(rows, slice) else np.asarray(rows)
    if rows.dtype == bool:
        rows = np.flatnonzero(rows)
    if len(rows) == 0:
        raise DataError("scaler: received no training rows. Expected at least one. Pass rows=split.train.")
    labels = tuple(names) if names is not None else tuple(str(i) for i in range(array.shape[1]))
    if len(labels) != array.shape[1]:
        raise DataError(f"scaler: received {len(labels)} names. Expected {array.shape[1]}, one a column. Mend `names`.")
    train = np.where(np.isfinite(array[rows]), array[rows], np.nan)
    centre, scale, _ = _statistics(train, kind)
    if groups is None:
        return Scaler(kind, labels, (), centre[None], scale[None], len(rows), int(rows.min()), int(rows.max()))
    member = np.asarray(groups)[rows].astype(str)
    known = np.unique(member)
    centres, scales = [], []
    for group in known:
        own_centre, own_scale, enough = _statistics(train[member == group], kind)
        seen = np.isfinite(train[member == group]).any(axis=0)
        centres.append(np.where(seen, own_centre, centre))
        scales.append(np.where(enough, own_scale, scale))  # one value has no spread of its own
    all_centres, all_scales = np.stack([*centres, centre]), np.stack([*scales, scale])
    return Scaler(
        kind, labels, tuple(known.tolist()), all_centres, all_scales, len(rows), int(rows.min()), int(rows.max())
    )


def _statistics(train: Floats, kind: Kind) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
    """Centre, scale, and where there were two values or more to take a spread from."""
    count = np.isfinite(train).sum(axis=0)
    centre, scale = np.zeros(train.shape[1]), np.ones(train.shape[1])
    for column in range(train.shape[1]):
        held = train[:, column][np.isfinite(train[:, column])]
        if len(held) == 0:
            continue
        centre[column], spread = _one(held, kind)
        size = float(np.abs(held).max())
        if np.isfinite(spread) and spread > CONSTANT_ULPS * np.finfo(np.float64).eps * size:
            scale[column] = spread
    return centre, scale, count >= 2


def _one(held: Floats, kind: Kind) -> tuple[float, float]:
    unit = float(np.abs(held).max()) or 1.0
    unit = unit if unit > 1e150 else 1.0  # squares of larger values overflow float64
    scaled = held / unit
    if kind == "standard":
        return float(scaled.mean()) * unit, float(scaled.std()) * unit
    if kind == "minmax":
        low = float(scaled.min())
        return low * unit, float(scaled.max() - low) * unit
    low, middle, high = (float(q) for q in np.quantile(scaled, [0.25, 0.5, 0.75]))
    spread = (high - low) / IQR_OF_NORMAL
    if spread <= CONSTANT_ULPS * np.finfo(np.float64).eps * float(np.abs(scaled).max()):
        spread = float(scaled.std())  # more than half of the values are one value: the quartiles see no spread
    return middle * unit, spread * unit


def _floating(values: Any) -> tuple[npt.NDArray[Any], npt.DTypeLike]:
    """As float64 for the arithmetic, and the dtype to give back."""
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise DataError(f"scaler: received {array.dtype}. Expected numbers. Convert or leave out the column.")
    return array.astype(np.float64), array.dtype if array.dtype.kind == "f" else np.dtype(np.float64)
