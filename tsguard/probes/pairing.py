"""Does one thing tell of another? A straight line on simple views of a sample, judged on samples it has not seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tsguard.probes.data import correlations
from tsguard.probes.patches import patch_columns

Floats = npt.NDArray[np.float64]

LEAST_PAIRS = 100
"""Fewer pairs cannot carry a proof: half of them test, and 50 leave R² uncertain by more than a tenth."""

UNRELATED = 0.1
"""Out-of-sample R² up to which x says nothing about y for this predictor."""

RELATED = 0.35
"""Out-of-sample R² from which x plainly tells of y. Between the two nothing is claimed. On 50 test pairs an R² of 0.35
by chance is out of the question, also as the best of a dozen tries."""

MOST_COMPONENTS = 64
"""Components of a target that pairs are looked for by."""

MOST_PAIRS = 3_000
"""Pairs that are asked: R² is known to a hundredth then."""

VIEW = 256
"""Widest view of a sample; wider ones are projected at random, from a fixed seed."""

SERIAL = 0.2
"""Autocorrelation from which rows are a series: there the past predicts the future, and a shift proves nothing."""


class Line:
    """Ridge regression on a view: half of the rows teach, the other half judge. What is of the view alone is worked out
    once, so that many targets can be asked."""

    def __init__(self, view: Floats) -> None:
        order = np.random.default_rng(0).permutation(len(view))
        self.fit, self.test = order[: len(order) // 2], order[len(order) // 2 :]
        spread = view[self.fit].std(axis=0)
        kept = spread > 1e-9 * max(1.0, float(np.abs(view[self.fit]).max(initial=0.0)))
        x = (view[:, kept] - view[self.fit][:, kept].mean(axis=0)) / spread[kept]
        self.known = bool(kept.any())
        if self.known:
            self.left, self.values, right = np.linalg.svd(x[self.fit], full_matrices=False)
            self.asked = x[self.test] @ right.T

    def skill(self, y: Floats) -> float:
        """Out-of-sample R², the best of a few strengths; 0 where y does not vary."""
        answers = y - y[self.fit].mean(axis=0)
        power = float((answers[self.test] ** 2).sum())
        if not self.known or power <= 0 or float((answers[self.fit] ** 2).sum()) <= 0:
            return 0.0
        projected = self.left.T @ answers[self.fit]
        best = -np.inf
        for strength in (1e-2, 1e-1, 1.0, 10.0):
            damp = self.values / (self.values**2 + strength * len(self.fit))
            guess = self.asked @ (damp[:, None] * projected)
            best = max(best, 1.0 - float(((answers[self.test] - guess) ** 2).sum()) / power)
        return float(best)


def skill(view: Floats, y: Floats) -> float:
    """Out-of-sample R² of ridge regression: see `Line`."""
    return Line(view).skill(y)


def view_of(arrays: list[Any]) -> Floats:
    """Simple views of a sample side by side: values, squares, patches, its spectrum, and counts of its ids."""
    views: list[Floats] = []
    for array in arrays:
        if array.dtype.kind in "iu" and array.ndim >= 2 and array.max(initial=0) > 1:
            bins = np.asarray(array.reshape(len(array), -1), np.int64) % VIEW
            counts = np.zeros((len(array), VIEW))
            np.add.at(counts, (np.repeat(np.arange(len(array)), bins.shape[1]), bins.ravel()), 1.0)
            views.append(counts)
            continue
        values = np.nan_to_num(array.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
        answers = patch_columns(array) if values.ndim == 4 else None
        if answers is not None:  # pictures: what is in them, wherever it stands, and how bright they are
            views += [answers, values.mean(axis=(1, 2)), values.std(axis=(1, 2))]
            continue
        flat = _narrow(values.reshape(len(values), -1))
        centred = (flat - flat.mean(axis=0)) / np.maximum(flat.std(axis=0), 1e-12)
        views += [centred, centred**2]
        if values.ndim == 3 and values.shape[1] >= 8:
            spectrum = np.abs(np.fft.rfft(values - values.mean(axis=1, keepdims=True), axis=1))
            views.append(_narrow(spectrum.reshape(len(values), -1)))
    return np.concatenate(views, axis=1)


def _narrow(flat: Floats) -> Floats:
    if flat.shape[1] <= VIEW:
        return flat
    mix = np.random.default_rng(1).standard_normal((flat.shape[1], VIEW)) / np.sqrt(flat.shape[1])
    return np.asarray(flat @ mix)


LAGGED = 0.999
"""Correlation with one cell from which that cell is the (moved) target itself: a lag feature, not a relation."""
COMPARED = 32
"""Cells of a row that its neighbour is asked about."""


def held_within(view: Floats, moved: Floats) -> bool:
    """Whether a cell is the moved target itself: a lag feature, not a relation."""
    return bool(np.abs(correlations(view, moved)).max() > LAGGED)


def neighbours_tell(view: Floats, moved: Floats, shift: int) -> bool:
    """Whether rows hold their neighbours' content: overlapping windows, or the target of an earlier row as a feature.
    Then predicting another row's target is no proof of anything."""
    if held_within(view, moved):
        return True
    if shift >= len(view) // 2:
        return False
    some = np.random.default_rng(2).permutation(view.shape[1])[:COMPARED]
    return any(skill(view[:-k], view[k:][:, some]) > UNRELATED for k in {1, shift})


def serial(columns: Floats) -> bool:
    """Whether neighbouring rows resemble each other more than chance allows (median over columns)."""
    moving = columns[:, columns.std(axis=0) > 0]
    if moving.shape[1] == 0:
        return False
    centred = moving - moving.mean(axis=0)
    power = np.maximum((centred**2).sum(axis=0), np.finfo(np.float64).tiny)
    alike = [np.abs((centred[k:] * centred[:-k]).sum(axis=0) / power) for k in (1, 2, 3)]
    return bool(np.median(np.stack(alike).max(axis=0)) > SERIAL)
