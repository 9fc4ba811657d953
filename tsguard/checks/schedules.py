"""A schedule or an average that belongs to another run: it has not come to its point when the training is over."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from tsguard import catalogue
from tsguard.backend import optimizers_of
from tsguard.checks.registry import Context, check
from tsguard.evidence import Evidence
from tsguard.findings import Finding

REACHED = 0.1
"""Share of its peak that a rate comes to within the run, below which the run is another one than it was made for: below
it the rate is off by the factor that is tried first when a rate is in doubt."""

LONGER = 1e6
"""How many times as long a run is imagined: steps counted as samples, seconds or bytes stay below that."""

START_KEPT = 0.5
"""Share of the first weights in an average at the end of a run, above which it is more start than run."""

LEAST_STEPS = 20
"""Planned steps below which a run is a trial and no training."""


@check("warm-up that never ends", codes=("lr-too-low",), needs=("model", "data"), cost=1)
def endless_warmup(context: Context) -> Iterable[Finding]:
    """The rate over the planned steps against the rate that the schedule comes to later."""
    steps = context.planned_steps
    if steps is None or steps < LEAST_STEPS:
        return
    for optimizer in optimizers_of(context.model):
        schedule = getattr(optimizer, "_learning_rate", None)
        if not callable(schedule):
            continue
        within = _rates(schedule, np.linspace(0, steps, 65))
        beyond = _rates(schedule, np.geomspace(steps, steps * LONGER, 121))
        if within is None or beyond is None or within.max() >= REACHED * beyond.max():
            continue
        yield catalogue.finding(
            "lr-too-low",
            f"the schedule {type(schedule).__name__} comes to a rate of {within.max():.3g} within the {steps:,} "
            f"planned steps, and to {beyond.max():.3g} afterwards: its warm-up is not over when the training is. "
            "Expected a warm-up of a few per cent of the steps; count it in updates, not in samples or epochs.",
            where={"phase": "update", "config_key": "learning_rate"},
            evidence=[Evidence("curve", within.tolist(), name="rate over the planned steps")],
            score=0.9,
        )


@check("average that is still the start", codes=("train-eval-gap",), needs=("model", "data"), cost=1)
def average_of_the_start(context: Context) -> Iterable[Finding]:
    """Weights averaged over far more steps than the run has: `fit` puts the average in place of what was learnt."""
    steps = context.planned_steps
    if steps is None or steps < LEAST_STEPS:
        return
    for optimizer in optimizers_of(context.model):
        momentum = float(getattr(optimizer, "ema_momentum", 0.0) or 0.0)
        kept = momentum**steps
        if not getattr(optimizer, "use_ema", False) or kept <= START_KEPT:
            continue
        yield catalogue.finding(
            "train-eval-gap",
            f"the optimizer averages the weights with ema_momentum={momentum:g}, and after the {steps:,} planned steps "
            f"{kept:.0%} of that average are the weights of the start. `fit` leaves the average behind, and not what "
            f"was learnt. Expected a memory shorter than the run: ema_momentum of {1 - 10 / steps:.3g} or less.",
            where={"phase": "update", "config_key": "ema_momentum"},
            evidence=[Evidence("value", {"of the start": kept}, name="share in the average at the end")],
            status="FAIL",
            role="cause",
            remedy=f"ema_momentum={max(0.9, round(1 - 10 / steps, 3)):g}",
            score=1.0,
        )


def _rates(schedule: Any, steps: Any) -> Any:
    import keras

    try:
        made = np.array([float(keras.ops.convert_to_numpy(schedule(int(step)))) for step in steps])
    except Exception:  # a schedule of the user's own may refuse a step; then nothing is said of it
        return None
    return made if np.isfinite(made).all() and (made >= 0).all() else None
