"""Callbacks that watch a quantity the wrong way round. Read off their own settings; no training is needed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tsguard import catalogue
from tsguard.checks.bench import fit_arguments
from tsguard.checks.registry import Context, check
from tsguard.findings import Finding

FALLS = ("loss", "error", "mse", "mae", "rmse", "mape", "perplexity")
"""Words in the name of a quantity that is better when smaller."""

RISES = ("acc", "auc", "precision", "recall", "f1", "r2", "iou")
"""… and of one that is better when greater."""


@check("callback that watches the wrong way round", codes=("metric-disagrees",), needs=("model",), cost=0)
def watched_upside_down(context: Context) -> Iterable[Finding]:
    """EarlyStopping and its like with `mode="max"` on a loss, or `mode="min"` on a score."""
    for callback in fit_arguments(context).get("callbacks") or ():
        monitor, direction = str(getattr(callback, "monitor", "") or ""), _direction(callback)
        if not monitor or direction is None:
            continue
        words = monitor.lower()
        falls, rises = any(w in words for w in FALLS), any(w in words for w in RISES)
        if (direction == "max" and falls and not rises) or (direction == "min" and rises and not falls):
            kind = type(callback).__name__
            yield catalogue.finding(
                "metric-disagrees",
                f"{kind} watches {monitor!r} with mode={direction!r}: it takes worse for better, so that it keeps "
                f"or stops at "
                f"the worst moment. Expected mode={'min' if direction == 'max' else 'max'!r}.",
                where={"config_key": f"callbacks.{kind}.mode"},
                status="FAIL",
                role="cause",
                remedy=f"{kind}(monitor={monitor!r}, mode={'min' if direction == 'max' else 'max'!r})",
                score=1.0,
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
