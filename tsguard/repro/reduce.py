"""The engine: passes to a fixpoint under a budget, every candidate asked once, the best so far always at hand."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from tsguard.dataset import leaves
from tsguard.repro.case import Case, fingerprint_of
from tsguard.repro.passes import PASSES, float64_query


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

    def keep(self, candidate: Case) -> bool:
        """Whether a candidate fails in the same way."""
        key = (self._model_number(candidate.model), _digest(candidate))
        if key not in self._answers:
            if self.clock() > self.deadline:
                raise OutOfTime
            self.asked += 1
            found, _ = fingerprint_of(candidate.model, candidate.batch, candidate.weights, candidate.seed)
            self._answers[key] = found == candidate.fingerprint
            if self._answers[key]:
                self.progress(f"reducing: {candidate.size:,} scalars left")
        return self._answers[key]

    def run(self) -> Case:
        """Every pass, again and again until none makes it smaller."""
        try:
            while True:
                before = (self.case.size, id(self.case.model))
                for one in PASSES:
                    self.case = one(self.case, self.keep)
                if (self.case.size, id(self.case.model)) == before:
                    break
        except (OutOfTime, KeyboardInterrupt):
            self.exhausted = True
        _, origin = fingerprint_of(self.case.model, self.case.batch, self.case.weights, self.case.seed)
        self.case = self.case.with_(origin=origin or self.case.origin, logic=float64_query(self.case))
        return self.case

    def _model_number(self, model: Any) -> int:
        # Kept alive here, so that an id is never given to another model.
        for number, known in enumerate(self._models):
            if known is model:
                return number
        self._models.append(model)
        return len(self._models) - 1


def _digest(case: Case) -> str:
    total = hashlib.sha256()
    for leaf in [*leaves([case.batch.x, case.batch.y, case.batch.sample_weight]), *(case.weights or ())]:
        array = np.ascontiguousarray(leaf)
        total.update(f"{array.shape}{array.dtype}".encode())
        total.update(array.tobytes())
    return total.hexdigest()
