"""Labels: three classes, thresholds that only the training part has seen, no class where there is no future."""

from __future__ import annotations

import numpy as np
import pytest

from tsguard.data.labels import carbon_monoxide, market_move, oil_temperature
from tsguard.errors import DataError


def test_thresholds_do_not_see_the_future_of_the_training_part():
    series = np.cumsum(np.random.default_rng(0).standard_normal(500))
    maker = oil_temperature(24)
    fitted = maker.fit(series, rows=slice(0, 300))
    changed = series.copy()
    changed[300:] += 1e6
    assert maker.fit(changed, rows=slice(0, 300)).thresholds == fitted.thresholds


def test_classes_are_balanced_on_the_training_part_and_ordered():
    series = np.cumsum(np.random.default_rng(1).standard_normal(3000))
    labels = oil_temperature(5).fit(series, rows=slice(None)).transform(series)
    known = labels >= 0
    assert np.allclose(np.bincount(labels[known]) / known.sum(), 1 / 3, atol=0.01)
    change = np.append(series[5:] - series[:-5], [np.nan] * 5)
    assert change[labels == 0].max() < change[labels == 2].min()
    assert (labels[-5:] == -1).all()


def test_minus_200_is_missing_and_never_a_low_level():
    series = np.array([1.0, 2.0, -200.0, 3.0, 4.0, 5.0, 6.0])
    labels = carbon_monoxide().fit(series, rows=slice(None)).transform(series)
    assert labels[1] == -1
    assert labels[0] == 0
    assert labels[-1] == -1
    assert set(labels[labels >= 0]) == {0, 1, 2}


def test_market_moves_do_not_depend_on_the_level():
    series = np.exp(np.cumsum(np.random.default_rng(2).standard_normal(400) * 0.1))
    labels = market_move().fit(series, rows=slice(0, 300)).transform(series)
    scaled = market_move().fit(series * 1000, rows=slice(0, 300)).transform(series * 1000)
    assert (labels == scaled).mean() > 0.99


def test_labels_without_thresholds_or_rows_are_refused_in_words():
    with pytest.raises(DataError, match="fit"):
        market_move().transform(np.ones(10))
    with pytest.raises(DataError, match="Expected three or more"):
        market_move().fit(np.ones(10), rows=slice(0, 3))
