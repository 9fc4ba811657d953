"""Weights of classes, as a trial hands them on: by rows as `fit` does it, or by the label of every step."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tsguard.probes.predictions import classification
from tsguard.probes.stage import Batch
from tsguard.probes.trial import STEP_WEIGHT, weighted

TAGS = torch.tensor([[0, 1, 0], [0, 0, 1]])
TOLD = {STEP_WEIGHT: {0: 0.5, 1: 4.0}}
WANTED = [[0.5, 4.0, 0.5], [0.5, 0.5, 4.0]]


@pytest.mark.parametrize("y", [TAGS, TAGS[..., None].float(), torch.eye(2)[TAGS]], ids=["flat", "column", "one-hot"])
def test_every_step_is_weighed_by_its_label(y):
    assert weighted(Batch(None, y), TOLD).sample_weight.tolist() == WANTED


def test_weights_that_are_given_stay():
    rows = weighted(Batch(None, TAGS, torch.tensor([1.0, 2.0])), TOLD).sample_weight
    steps = weighted(Batch(None, TAGS, torch.tensor([[1.0, 0.0, 1.0], [2.0, 2.0, 2.0]])), TOLD).sample_weight
    assert rows.tolist() == [[0.5, 4.0, 0.5], [1.0, 1.0, 8.0]]
    assert steps.tolist() == [[0.5, 0.0, 0.5], [1.0, 1.0, 8.0]]


def test_weights_of_rows_are_those_of_fit():
    x, y = torch.zeros(3, 2), torch.tensor([[0], [1], [1]])
    assert weighted(Batch(x, y), {"class_weight": {0: 1.0, 1: 3.0}}).sample_weight.tolist() == [1.0, 3.0, 3.0]
    assert weighted(Batch(x, y), {}).sample_weight is None


@pytest.mark.parametrize("written", ["flat", "column"])
def test_one_probability_for_each_step_is_judged_at_each_step(written):
    y = TAGS.numpy() if written == "flat" else TAGS.numpy()[..., None]
    never = classification(np.full((2, 3, 1), 0.1), y)
    assert never["recall_min"] == 0.0
    assert never["most_answered"] == 1.0
    assert never["majority_share"] == pytest.approx(4 / 6)
    assert classification(TAGS.numpy()[..., None].astype(float), y)["accuracy"] == 1.0
