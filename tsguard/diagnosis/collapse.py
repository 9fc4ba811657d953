"""Representations that have become one point: an objective without targets that a constant satisfies.

A supervised model that answers the same for all inputs is told by its predictions. Where there are no targets, the
answers are the representation: they are held against what they were when training began.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tsguard import catalogue
from tsguard.diagnosis.record import Record
from tsguard.evidence import Evidence
from tsguard.findings import Finding, Role
from tsguard.probes.activations import effective_rank
from tsguard.probes.answers import LossOfAnswers, predict
from tsguard.probes.stage import Batch, Snapshot, flat, take_step
from tsguard.probes.trial import stream

ONE_POINT = 0.01
"""Spread between samples over the size of the answers, below which inputs are no longer told apart."""

SHRUNK = 0.05
"""Share of the spread at the start that is left where answers have moved together, be it onto a point or onto zero."""


def collapsed(record: Record) -> list[Finding]:
    """The finding where answers of different inputs have become one; empty where they differ, or always were one."""
    batch = next(stream(record.data, record.fit), None)
    if batch is None or batch.rows < 4:
        return []
    end = Snapshot(record.model)
    now = _spread(record.model, batch)
    record.start.restore(record.model)
    before = _spread(record.model, batch)
    end.restore()
    if before is None or now is None or not before.size > 0 or not math.isfinite(now.spread):
        return []
    together = now.spread < SHRUNK * before.spread
    one_point = now.size == 0 or now.spread < ONE_POINT * now.size
    if not together and not (one_point and before.spread > ONE_POINT * before.size):
        return []
    constant, at_first = _losses(record, batch, end)
    satisfied = math.isfinite(constant) and constant <= at_first
    return [
        catalogue.finding(
            "representation-collapse",
            f"answers of different inputs lie {now.spread:.2g} apart; when training began it was {before.spread:.2g} "
            f"(their size went from {before.size:.2g} to {now.size:.2g}, their rank from {before.rank:.1f} to "
            f"{now.rank:.1f} directions)."
            + (
                f" The objective is satisfied by a constant: one answer for all inputs costs {constant:.4g}, the "
                f"answers at the start cost {at_first:.4g}."
                if satisfied
                else ""
            ),
            role=Role.CAUSE if satisfied else Role.SYMPTOM,
            evidence=(
                Evidence("value", {"start": before.spread, "end": now.spread}, name="spread between samples"),
                Evidence("value", {"start": before.rank, "end": now.rank}, name="effective rank"),
            ),
            score=1.0 - min(1.0, now.spread / before.spread),
        )
    ]


@dataclass(frozen=True, slots=True)
class _Spread:
    """How far answers of different samples lie apart, how large they are, and in how many directions they differ."""

    spread: float
    size: float
    rank: float


def _spread(model: Any, batch: Batch) -> _Spread | None:
    try:
        told = predict(model, batch.x)
    except Exception:  # what an own step feeds the model need not be what `fit` was given
        return None
    answers = [a.detach().float() for a in flat(told) if a.ndim >= 2 and a.shape[-1] > 1]
    if not answers or not all(bool(a.isfinite().all()) for a in answers):
        return None
    answer = max(answers, key=lambda a: int(a[0].numel()))
    return _Spread(
        float(answer.std(0, correction=0).pow(2).mean().sqrt()),
        float(answer.pow(2).mean().sqrt()),
        effective_rank(answer),
    )


def _losses(record: Record, batch: Batch, end: Snapshot) -> tuple[float, float]:
    """The loss where every sample gets the same answer, and that of the answers at the start."""
    record.start.restore(record.model)
    step = take_step(record.model, batch, record_calls=False)
    if step.error is not None or step.answer is None:
        end.restore()
        return math.nan, math.nan
    same = [a.detach().float().mean(0, keepdim=True).expand_as(a).contiguous() for a in flat(step.answer)]
    constant = LossOfAnswers(record.model, batch, step.answer)(same)
    end.restore()
    return constant, step.loss
