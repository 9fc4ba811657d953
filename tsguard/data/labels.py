"""Three-class labels from a series: the future change or level of a column, cut at thresholds of the training part.

A row whose future is missing, or lies outside the data, has no label: −1, never a class. Thresholds are learned from
training rows whose *future* also lies in the training part, so that not even a threshold has seen the test data.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tsguard.errors import DataError

Measure = Literal["change", "level", "log-return"]
NO_LABEL = -1


@dataclass(frozen=True)
class LabelMaker:
    """What is measured, how far ahead, and where the classes part."""

    measure: Measure
    horizon: int
    classes: tuple[str, str, str]
    sentinel: float | None = None
    """A number that stands for missing in this column."""
    shares: tuple[float, float] = (1 / 3, 2 / 3)
    thresholds: tuple[float, float] | None = None

    def measured(self, values: Any) -> npt.NDArray[np.float64]:
        """The measured future of every row; NaN where there is none."""
        series = np.asarray(values, np.float64).copy()
        if series.ndim != 1:
            raise DataError(f"labels: received shape {series.shape}. Expected one column. Choose it.")
        if self.sentinel is not None:
            series[series == self.sentinel] = np.nan
        ahead = np.full(len(series), np.nan)
        if self.horizon < len(series):
            ahead[: len(series) - self.horizon] = series[self.horizon :]
        if self.measure == "level":
            return ahead
        if self.measure == "change":
            return ahead - series
        good = (series > 0) & (ahead > 0)
        result = np.full(len(series), np.nan)
        result[good] = np.log(ahead[good]) - np.log(series[good])
        return result

    def fit(self, values: Any, *, rows: Any) -> LabelMaker:
        """The same maker with thresholds at quantiles of the training rows `rows`."""
        rows = np.arange(len(values))[rows] if isinstance(rows, slice) else np.asarray(rows)
        inside = np.zeros(len(values) + self.horizon, bool)
        inside[rows] = True
        usable = rows[inside[rows + self.horizon]]
        known = self.measured(values)[usable]
        known = known[np.isfinite(known)]
        if len(known) < 3:
            received = f"{len(known)} training rows with a known future"
            raise DataError(f"labels: received {received}. Expected three or more. Use a longer part.")
        low, high = (float(q) for q in np.quantile(known, self.shares))
        return replace(self, thresholds=(low, high))

    def transform(self, values: Any) -> npt.NDArray[np.int64]:
        """0, 1, 2, or −1 where there is no label."""
        if self.thresholds is None:
            raise DataError("labels: received no thresholds. Expected fit() on the training part first. Call it.")
        measured = self.measured(values)
        known = np.isfinite(measured)
        classes = np.full(len(measured), NO_LABEL, np.int64)
        classes[known] = np.searchsorted(np.asarray(self.thresholds), measured[known], side="right")
        return classes


def oil_temperature(horizon: int = 24) -> LabelMaker:
    """ETTh1: will the oil temperature (OT) have fallen, stayed or risen a day from now?"""
    return LabelMaker("change", horizon, ("falls", "stays", "rises"))


def carbon_monoxide(horizon: int = 1) -> LabelMaker:
    """Air Quality: will CO(GT) be low, middling or high in an hour? −200 is missing, never a low level."""
    return LabelMaker("level", horizon, ("low", "middle", "high"), sentinel=-200.0)


def market_move(horizon: int = 5) -> LabelMaker:
    """VIX: will the close have gone down, sideways or up in a week of trading?"""
    return LabelMaker("log-return", horizon, ("down", "flat", "up"))
