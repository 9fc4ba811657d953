"""Ids that start at 0 in a table that takes 0 for padding, and zeros that are padding."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from tsguard.checks.data_ids import real_ids_masked
from tsguard.checks.laws import broken_laws
from tsguard.checks.registry import Context, all_checks
from tsguard.checks.runner import run_checks
from tsguard.dataset import Data
from tsguard.subject import Subject


def context(ids, *, masks=True):
    keras.utils.set_random_seed(1)
    given = keras.Input((ids.shape[1],), dtype="int32")
    h = layers.GlobalAveragePooling1D()(layers.Embedding(13, 4, mask_zero=masks)(given))
    model = keras.Model(given, layers.Dense(1, activation="sigmoid")(h))
    model.compile("adam", "binary_crossentropy")
    data = Data(ids.astype("int32"), (ids[:, :1] % 2).astype("float32"))
    return Context(subject=Subject.from_model(model, data), data=data)


def named(ids, **options):
    return [(f.code, str(f.status)) for f in real_ids_masked(context(ids, **options))]


def usual(samples=400, steps=12):
    return np.random.default_rng(0).integers(0, 12, (samples, steps))


def in_runs():
    """A state that lasts for some steps, so that rows may well begin and end with a run of zeros."""
    rng = np.random.default_rng(2)
    return np.repeat(rng.integers(0, 6, (400, 8)), 3, axis=1)[:, 1:21]


@pytest.mark.parametrize("ids", [usual(), in_runs()], ids=["anywhere", "in runs"])
def test_a_real_id_that_is_taken_for_padding_is_named(ids):
    assert named(ids) == [("input-encoding", "FAIL")]
    assert not named(ids + 1)
    assert not named(ids, masks=False)


@pytest.mark.parametrize("side", ["behind", "in front"])
def test_padding_at_an_end_is_padding(side):
    rng = np.random.default_rng(1)
    ids = usual() + 1
    lengths = rng.integers(4, 13, len(ids))
    place = np.arange(12) if side == "behind" else np.arange(12)[::-1]
    assert not named(np.where(place < lengths[:, None], ids, 0))
    seldom = np.where(rng.random(len(ids)) < 0.1, 9, 12)
    assert not named(np.where(place < seldom[:, None], ids, 0))


def test_a_code_for_what_is_not_known_comes_more_often_than_any_word():
    rng = np.random.default_rng(1)
    assert not named(np.where(rng.random((400, 12)) < 0.4, 0, usual() + 1))


@pytest.mark.slow
def test_the_holes_in_the_mask_are_its_symptom():
    checks = [one for one in all_checks() if one.ask in (real_ids_masked, broken_laws)]
    found = [f for f in run_checks(context(usual()), checks, budget_s=30) if f.status in ("WARN", "FAIL")]
    roles = {f.code: str(f.role) for f in found}
    assert roles["input-encoding"] == "cause"
    assert roles["data-sentinel"] == "symptom"
