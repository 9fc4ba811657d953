"""The first steps of a run, under the guard's own eyes, before the run: a check for the preflight.

A model that makes a NaN on its first batches is told so before it costs anything, with layer, operation and element.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tsguard.checks.registry import Check, Context
from tsguard.findings import Finding, Status
from tsguard.guard.callback import Guard

STEPS = 3
"""Enough for the first update to show; what needs hundreds of steps is the guard's business during the run."""

CODES = ("nonfinite-forward", "nonfinite-loss", "nonfinite-backward", "nonfinite-update", "precision-overflow")


def first_steps(context: Context) -> Iterator[Finding]:
    """Train a few steps on the first batches, watched; what breaks comes back as the guard words it."""
    guard = Guard(out=None, diagnose=False, repro=False)
    model = context.model
    assert context.data is not None
    # What the model's own step raises is told by the check that asks whether it can be taken at all.
    with contextlib.suppress(Exception), guard.watching(model):
        for x, y, weight in context.data.batches(STEPS):
            model.train_on_batch(x, y, sample_weight=weight)
            if model.stop_training:
                break
    outcome = guard.outcome
    if outcome is None:
        return
    for finding in outcome.findings:
        if finding.code in CODES and finding.status in (Status.FAIL, Status.ERROR):
            yield finding


CHECK = Check("first steps", CODES, first_steps, needs=("model", "data", "y"), cost=3)
