"""Callbacks that end or steer a run by the wrong measure. Read off their own settings; no training is needed."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from tsguard import catalogue
from tsguard.checks.bench import set_up
from tsguard.checks.registry import Context, check
from tsguard.findings import Finding

FALLS = ("loss", "error", "mse", "mae", "rmse", "mape", "perplexity")
"""Words in the name of a quantity that is better when smaller."""

RISES = ("acc", "auc", "precision", "recall", "f1", "r2", "iou")
"""… and of one that is better when greater."""


@check(
    "callback that watches the wrong way round",
    codes=("metric-disagrees", "lr-too-low", "off-plan"),
    needs=("model",),
    cost=0,
)
def watched_upside_down(context: Context) -> Iterable[Finding]:
    """EarlyStopping and its like with `mode="max"` on a loss, or `mode="min"` on a score."""
    import keras

    for callback in context.fit.get("callbacks") or ():
        monitor, direction = str(getattr(callback, "monitor", "") or ""), _direction(callback)
        if not monitor or direction is None:
            continue
        words = monitor.lower()
        falls, rises = any(w in words for w in FALLS), any(w in words for w in RISES)
        if (direction == "max" and falls and not rises) or (direction == "min" and rises and not falls):
            kind, right = type(callback).__name__, "min" if direction == "max" else "max"
            # What is wrong is what follows: who cuts the rate at each better epoch trains at a rate of nothing, and
            # who stops there ends the run.
            code, follows = "metric-disagrees", "keeps or stops at the worst moment"
            if isinstance(callback, keras.callbacks.ReduceLROnPlateau):
                code, follows = "lr-too-low", "cuts the rate while the run gets better"
            elif isinstance(callback, keras.callbacks.EarlyStopping) and _stops_in_time(context, callback):
                code, follows = "off-plan", "ends the run while it gets better"
            yield catalogue.finding(
                code,
                f"{kind} watches {monitor!r} with mode={direction!r}: it takes worse for better, so that it {follows}. "
                f"Expected mode={right!r}.",
                where={"config_key": f"callbacks.{kind}.mode"},
                status="FAIL",
                role="cause",
                remedy=f"{kind}(monitor={monitor!r}, mode={right!r})",
                score=1.0,
            )
            return


def _stops_in_time(context: Context, stop: Any) -> bool:
    """Whether its patience is shorter than the run."""
    epochs = context.fit.get("epochs")
    return not isinstance(epochs, int) or int(stop.patience) < epochs


SHORTEST = 0.5
"""A run that has to end before half of its planned epochs was not meant to be planned so long."""


@check("early stop that must come", codes=("off-plan",), needs=("model", "data"), cost=2)
def impatient_stop(context: Context) -> Iterable[Finding]:
    """EarlyStopping whose `min_delta` a loss can improve by only a few times, from where it starts down to nothing."""
    import keras

    epochs = context.fit.get("epochs")
    stops = [c for c in context.fit.get("callbacks") or () if isinstance(c, keras.callbacks.EarlyStopping)]
    if not stops or not isinstance(epochs, int):
        return
    bench = set_up(context)
    first = bench.step.loss
    if bench.step.error is not None or not math.isfinite(first) or first <= 0:
        return
    for stop in stops:
        step = abs(float(stop.min_delta))
        if stop.monitor not in ("loss", "val_loss") or step == 0 or _direction(stop) == "max":
            continue
        # Each improvement buys `patience` epochs; a loss that ends at nothing has had first/step of them.
        most = (int(first / step) + 1) * max(1, int(stop.patience)) + int(getattr(stop, "start_from_epoch", 0) or 0)
        if most < SHORTEST * epochs:
            yield catalogue.finding(
                "off-plan",
                f"EarlyStopping counts only improvements of {step:g}, and {stop.monitor} starts at {first:.3g}: even a "
                f"loss that falls to nothing improves {int(first / step)} times, so that the run ends by epoch {most} "
                f"of {epochs}. Lower min_delta (0 counts every improvement), or raise the patience.",
                where={"config_key": "callbacks.EarlyStopping.min_delta"},
                status="FAIL",
                role="cause",
                remedy=f"EarlyStopping(monitor={stop.monitor!r}, min_delta=0, patience={max(5, int(stop.patience))})",
                score=0.9,
            )
            return


def _direction(callback: Any) -> str | None:
    """The direction that a callback was told, or has worked out."""
    told = getattr(callback, "mode", None)
    if told in ("min", "max"):
        return str(told)
    operation = getattr(callback, "monitor_op", None)
    name = getattr(operation, "__name__", "")
    return {"less": "min", "greater": "max"}.get(str(name))
