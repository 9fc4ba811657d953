"""Duet: a patch transformer for sets of any width, pre-trained on several at once, and baselines in its interface."""

from __future__ import annotations

import keras

from models.duet.data import synthetic, unify, windows
from models.duet.finetune import finetune, freeze_schedule, sample_efficiency
from models.duet.linear import LinearForecaster
from models.duet.model import OBJECTIVES, Duet

__all__ = [
    "OBJECTIVES", "Duet", "LinearForecaster", "build", "build_pretraining", "finetune", "freeze_schedule",
    "sample_efficiency", "synthetic", "unify", "windows",
]  # fmt: skip

PRETEXTS = {"masked": 1.0, "order": 0.2, "contrastive": 0.1, "next_patch": 0.5}
"""The default of self-supervised training. Weights put the terms within a factor of ten of each other at the start."""


def build(kind="duet", rate=1e-3, clipnorm=None, seed=None, **settings):
    """A compiled model: "duet", "patchtst" (channel-independent, overlapping patches), "dlinear" or "nlinear".

    `settings` go to `Duet` or `LinearForecaster`; `clipnorm` bounds the gradient of each
    variable; `seed` seeds the weights where nothing outside does.
    """
    if seed is not None:
        keras.utils.set_random_seed(seed)
    if kind in ("dlinear", "nlinear"):
        model = LinearForecaster(kind=kind, **settings)
    elif kind == "patchtst":
        model = Duet(**{"patch": 16, "stride": 8, "mix_features": False, **settings})
    elif kind == "duet":
        model = Duet(**settings)
    else:
        raise ValueError(f"duet build: received kind {kind!r}, expected 'duet', 'patchtst', 'dlinear' or 'nlinear'.")
    model.compile(optimizer=keras.optimizers.Adam(rate, clipnorm=clipnorm))
    return model


def build_pretraining(objectives=None, **settings):
    """A compiled duet for self-supervised training; with "forecast" among the objectives, combined with supervised."""
    return build(objectives=dict(objectives or PRETEXTS), **settings)
