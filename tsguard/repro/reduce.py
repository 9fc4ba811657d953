"""The engine: passes to a fixpoint under a budget, every candidate asked once, the best so far always at hand."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from tsguard.dataset import leaves
from tsguard.repro.case import Case, fingerprint_of
from tsguard.repro.contrast import float64_query, nearest_healthy
from tsguard.repro.passes import PASSES


class OutOfTime(Exception):
    """The budget is spent; what has been kept so far stands."""


class Reduction:
    """One reduction: remembers what was asked, and tells how far it has come."""

    def __init__(
        self,
        case: Case,
        *,
        budget_s: float,
        clock: Callable[[], float] = time.monotonic,
        progress: Callable[[str], None] = lambda words: None,
    ) -> None:
        self.case = case
        self.deadline = clock() + budget_s
        self.clock, self.progress = clock, progress
        self.asked = 0
        self.exhausted = False
        self._answers: dict[tuple[int, str], bool] = {}
        self._models: list[Any] = []
        self._best: Case | None = None

    def keep(self, candidate: Case) -> bool:
        """Whether a candidate fails in the same way."""
        key = (self._model_number(candidate.model), _digest(candidate))
        if key not in self._answers:
            if self.clock() > self.deadline:
                raise OutOfTime
            self.asked += 1
            self._answers[key] = candidate.fails()
            if self._answers[key]:
                self.progress(f"reducing: {candidate.size:,} scalars left")
        return self._answers[key]

    def run(self) -> Case:
        """Every pass, again and again until none makes it smaller."""
        try:
            while True:
                before = measure(self.case)
                for one in PASSES:
                    self.case = one(self.case, self._kept)
                if measure(self.case) >= before:
                    break
        except (OutOfTime, KeyboardInterrupt):
            self.exhausted = True
            self.case = min(self.case, self._best or self.case, key=measure)
        case = self.case
        _, origin = fingerprint_of(case.model, case.batch, case.weights, case.seed, slots=case.slots)
        self.case = case.with_(
            origin=origin or case.origin, logic=float64_query(case), nearest_healthy=nearest_healthy(case)
        )
        return self.case

    def _kept(self, candidate: Case) -> bool:
        """As `keep`; remembers the smallest, so that a pass that is interrupted loses nothing."""
        kept = self.keep(candidate)
        if kept and (self._best is None or measure(candidate) < measure(self._best)):
            self._best = candidate
        return kept

    def _model_number(self, model: Any) -> int:
        # Kept alive here, so that an id is never given to another model.
        for number, known in enumerate(self._models):
            if known is model:
                return number
        self._models.append(model)
        return len(self._models) - 1


def measure(case: Case) -> tuple[int, int, int, int, int]:
    """What smaller means: scalars, layers, then plainer: seeded weights, few numbers that are not zero, plain SGD."""
    held = list(leaves([case.batch.x, case.batch.y, case.batch.sample_weight]))
    layers = sum(1 for _ in case.model._flatten_layers())
    busy = sum(int(np.count_nonzero(leaf)) for leaf in held)
    plain = type(case.model.optimizer).__name__ == "SGD" and not case.model._compile_config.config.get("metrics")
    return case.size, layers, 0 if case.weights is None else 1, busy, 0 if plain else 1


def _digest(case: Case) -> str:
    total = hashlib.sha256()
    held = leaves([case.batch.x, case.batch.y, case.batch.sample_weight])
    for leaf in [*held, *(case.weights or ()), *(case.slots or ())]:
        array = np.ascontiguousarray(leaf)
        total.update(f"{array.shape}{array.dtype}".encode())
        total.update(array.tobytes())
    return total.hexdigest()
