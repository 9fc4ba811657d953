"""How good predictions are and in what way they are not, as plain numbers with the contract's names.

For a regression R² = 2ρs − s² − bias²/σ², with ρ the correlation and s the ratio of standard deviations: the three
numbers say whether answers are unrelated, too flat (or too wild), or off by a constant. For a given ρ the best s is ρ.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def regression(predictions: Any, targets: Any) -> dict[str, float]:
    """r2 std_ratio correlation bias2_over_var rmse mae spread, over all values."""
    p, y = _flat(predictions), _flat(targets)
    keep = np.isfinite(y)
    p, y = p[keep], y[keep]
    if len(y) == 0 or not np.isfinite(p).all():
        return {}
    error = p - y
    found = {
        "rmse": float(np.sqrt(np.mean(error**2))),
        "mae": float(np.mean(np.abs(error))),
        "spread": float(p.max() - p.min()),
    }
    variance = float(y.var())
    if variance > 0:
        deviation = float(p.std())
        flat = deviation <= 1e-12 * max(float(np.abs(p).max()), 1e-30)
        found["std_ratio"] = 0.0 if flat else deviation / variance**0.5
        found["correlation"] = (
            0.0 if flat else float(np.mean((p - p.mean()) * (y - y.mean())) / (deviation * variance**0.5))
        )
        found["bias2_over_var"] = float(error.mean() ** 2 / variance)
        found["r2"] = float(1 - np.mean(error**2) / variance)
    return found


def classes_of(predictions: Any, targets: Any, *, from_logits: bool = False) -> tuple[Any, Any]:
    """Chosen and true class numbers, from scores and from labels of whatever encoding."""
    p, y = np.asarray(predictions, dtype="float64"), np.asarray(targets)
    if y.size == p.size and set(np.unique(y).tolist()) <= {-1.0, 1.0} and y.min() < 0:
        # Signs, as hinge losses want them: the answer's sign is the class.
        return (p.reshape(-1) > 0).astype(int), (y.reshape(-1) > 0).astype(int)
    if p.ndim >= 2 and p.shape[-1] > 1:
        chosen = p.argmax(-1)
    else:
        # One answer for each row, or (samples, time, 1): one for each of its steps.
        chosen = (p.reshape(-1) > (0.0 if from_logits else 0.5)).astype(int)
    wide = y.ndim >= 2 and y.shape[-1] > 1 and y.shape == p.shape
    true = y.argmax(-1) if wide else y.reshape(chosen.shape) if y.size == chosen.size else y.reshape(-1)
    return chosen.reshape(-1), true.reshape(-1).astype(int)


def classification(predictions: Any, targets: Any, *, from_logits: bool = False) -> dict[str, float]:
    """accuracy recall_min majority_share, and the share of the class most often answered."""
    chosen, true = classes_of(predictions, targets, from_logits=from_logits)
    if len(true) == 0 or len(chosen) != len(true):
        return {}
    names, counts = np.unique(true, return_counts=True)
    _, answered = np.unique(chosen, return_counts=True)
    return {
        "accuracy": float(np.mean(chosen == true)),
        "recall_min": float(min(np.mean(chosen[true == name] == name) for name in names)),
        "majority_share": float(counts.max() / len(true)),
        "most_answered": float(answered.max() / len(chosen)),
    }


def _flat(values: Any) -> Any:
    return np.asarray(values, dtype="float64").reshape(-1)
