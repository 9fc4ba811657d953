"""One number for how well a model answers, whatever its loss: the share of what could be known that it knows.

An experiment may change the loss, so the loss cannot judge it. Regression outputs are judged by R², classes by accuracy
above the majority; several outputs by the worst of them, because a head that is not trained hides behind one that is;
outputs that the model works against on purpose, and targets that never vary, are measured and not judged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tsguard.dataset import Data, joined, leaves, map_leaves
from tsguard.probes.answers import heads, labels_of, predict, question
from tsguard.probes.opposed import opposed
from tsguard.probes.predictions import classification, regression
from tsguard.probes.stage import Batch, as_tensor, batch_of, flat

JUDGED_ROWS = 512
"""Rows on which a trial is judged: a standard error of two to four per cent."""


MEASURED_ROWS = 10_000
"""Rows on which a finished run is measured: what a gate compares is no estimate unless there are more."""
MEASURED_CELLS = 20_000_000
"""Numbers in these rows at most: 80 MB in float32."""
RARE = 0.9
"""Share of the commonest class from which accuracy cannot see a class that is never answered; the worst recall can."""


@dataclass(frozen=True, slots=True)
class Judged:
    """Predictions of one state of the model, measured."""

    skill: float
    """1: everything that varies is explained; 0: no better than a constant; None of it is below 0 here."""
    metrics: dict[str, float]
    outputs: dict[str, dict[str, float]] = field(default_factory=dict)
    kind: str = "regression"
    opposed: tuple[str, ...] = ()
    """Outputs that the model works against on purpose, and targets that never vary: measured and not judged."""


def sample(data: Data, rows: int = JUDGED_ROWS, *, weighted: bool = False) -> Batch | None:
    """Rows spread over the data, as one batch; where they are `weighted`, as often as their weights say."""
    if data.is_arrays:
        total = len(data)
        index = np.unique(np.linspace(0, total - 1, min(total, rows)).astype(int))
        weights = _row_weights(data.sample_weight, total) if weighted else None
        if weights is not None:
            upto = np.cumsum(weights / weights.sum())
            index = np.minimum(np.searchsorted(upto, (np.arange(len(index)) + 0.5) / len(index)), total - 1)
        return batch_of(data.take(index))
    raws = list(data.batches(max(16, rows // 32)))
    if not raws:
        return None
    import torch

    def whole(place: int) -> Any:
        return joined([map_leaves(as_tensor, raw[place]) for raw in raws], lambda column: torch.cat(column)[:rows])

    return Batch(whole(0), whole(1))


def _row_weights(given: Any, total: int) -> Any:
    """One weight for each row, where they say something."""
    if given is None or not hasattr(given, "shape") or tuple(given.shape) not in ((total,), (total, 1)):
        return None
    weights = np.asarray(given, dtype=np.float64).reshape(-1)
    usable = bool(np.isfinite(weights).all()) and weights.min() >= 0 and weights.max() > weights.min()
    return weights if usable else None


def every_row(data: Data) -> Batch | None:
    """All rows as one batch, as far as memory and patience reach; beyond, rows spread over the data."""
    if not data.is_arrays:
        return sample(data, MEASURED_ROWS)
    each = sum(math.prod(leaf.shape[1:]) for leaf in leaves([data.x, data.y])) or 1
    return sample(data, max(JUDGED_ROWS, min(MEASURED_ROWS, MEASURED_CELLS // each)))


def in_pieces(model: Any, batch: Batch) -> Any:
    """The model's answer to a batch of any size, in pieces of as many rows as a trial has."""
    if batch.rows <= JUDGED_ROWS:
        return predict(model, batch.x)
    import torch

    pieces = []
    for start in range(0, batch.rows, JUDGED_ROWS):
        pieces.append(predict(model, _cut(batch.x, slice(start, start + JUDGED_ROWS))))
    answer = joined(pieces, torch.cat)
    if any(len(column) != batch.rows for column in leaves(answer)):
        raise ValueError("an output that does not have one entry for each row")
    return answer


def _cut(structure: Any, rows: slice) -> Any:
    return map_leaves(lambda leaf: leaf[rows], structure)


def _some(batch: Batch) -> Batch:
    """As many rows as a trial has: what asks for gradients holds all of them in memory."""
    first = slice(0, JUDGED_ROWS)
    return Batch(_cut(batch.x, first), _cut(batch.y, first), _cut(batch.sample_weight, first))


def judge(model: Any, batch: Batch) -> Judged | None:
    """Predictions on a batch against its targets (the inputs themselves, where there are none)."""
    try:
        answer = in_pieces(model, batch)
    except Exception:  # a user's model may refuse inference; then there is nothing to judge
        return None
    found = {}
    kinds = set()
    skills = []
    settled: set[str] = set()
    listed = heads(model, batch, answer)
    x_leaves = list(leaves(batch.x))
    for head in listed:
        target = head.target
        if target is None and len(listed) == 1 and len(x_leaves) == 1 and x_leaves[0].shape == head.answer.shape:
            target = x_leaves[0]
        if target is None:
            continue
        metrics, kind = of_output(head, target)
        if metrics:
            found[head.name] = metrics
            kinds.add(kind)
            skills.append((head.name, skill_of(metrics)))
            if float(target.float().max()) == float(target.float().min()):
                settled.add(head.name)
    if not found:
        return None
    first = next(iter(found.values()))
    flat_metrics = dict(first) if len(found) == 1 else {f"{n}/{k}": v for n, m in found.items() for k, v in m.items()}
    against = opposed(model, _some(batch)) if len(skills) > 1 else ()
    worked_for = {name: skill for name, skill in skills if name not in against}
    # A target that never varies (a constraint, a sum of shares) leaves nothing to explain.
    told = [skill for name, skill in worked_for.items() if name not in settled]
    kind = "classes" if "classes" in kinds else "regression"
    return Judged(min(told or worked_for.values()), flat_metrics, found, kind, (*against, *settled))


def of_output(head: Any, target: Any) -> tuple[dict[str, float], str]:
    asked = question(head.loss) if head.loss is not None else None
    written = labels_of(target)
    p = head.answer.detach().float().cpu().numpy()
    y = target.detach().cpu().numpy()
    units = p.shape[-1] if p.ndim > 1 else 1
    chooses = asked is not None and asked.kind in ("sparse", "categorical", "binary", "hinge")
    looks = written in ("one-hot",) or (written in ("integer", "binary") and units > 1 and y.size * units == p.size)
    if chooses or looks or (written == "binary" and units == 1):
        if asked is not None and asked.kind == "binary" and written in ("real", "shares"):
            return _regression(as_shares(p) if asked.from_logits else p, y), "regression"
        if asked is not None and asked.kind == "binary" and units > 1 and written == "binary":
            agree = (p > (0.0 if asked.from_logits else 0.5)) == (y > 0.5)
            share = float(max(y.mean(), 1 - y.mean()))
            return {"accuracy": float(agree.mean()), "majority_share": share}, "classes"
        return classification(p, y, from_logits=bool(asked and asked.from_logits)), "classes"
    return _regression(p, y), "regression"


def as_shares(logits: Any) -> Any:
    """Logits as what they are held against where targets are shares."""
    return 1 / (1 + np.exp(-np.clip(logits, -60.0, 60.0)))


def _regression(p: Any, y: Any) -> dict[str, float]:
    if p.size != y.size:
        return {}
    return regression(p, y) or {"r2": -math.inf}


def skill_of(metrics: dict[str, float]) -> float:
    if "accuracy" in metrics:
        base = metrics["majority_share"]
        above = (metrics["accuracy"] - base) / max(1 - base, 1e-9)
        return max(0.0, min(above, 1.0)) if base < RARE else max(0.0, metrics.get("recall_min", 0.0))
    value = metrics.get("r2", 0.0)
    return max(0.0, value) if math.isfinite(value) else 0.0


def answers_and_targets(model: Any, batch: Batch) -> tuple[list[Any], list[Any]]:
    """The first output's predictions and targets as numpy lists, for those who draw them."""
    return [a.detach().cpu().numpy() for a in flat(predict(model, batch.x))], [
        t.detach().cpu().numpy() for t in leaves(batch.y)
    ]
