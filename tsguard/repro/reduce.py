"""The engine: passes to a fixpoint under a budget, every candidate asked once, the best so far always at hand.

What counts as failing is injected: the fingerprint of a step, a broken law, a training that stays sick, a check that
still fails. The passes know nothing of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tsguard.dataset import leaves
from tsguard.repro.budget import Clock, stopwatch
from tsguard.repro.case import Case, weights_in
from tsguard.repro.contrast import float64_query, nearest_healthy
from tsguard.repro.graphs import REFUSALS, settings_of
from tsguard.repro.passes import PASSES
from tsguard.repro.passes.subset import Keep

STALL_SHARE = 0.4
"""Share of the time left that one pass may take: a pass that makes no headway must not starve those after it."""


ALL_TERMS = 1_000_000
"""Stands for a loss whose terms nobody has counted: more than any that was."""


class OutOfTime(Exception):
    """The budget is spent; what has been kept so far stands."""


class Stalled(Exception):
    """One pass has had its share of the budget."""


class Reduction:
    """One reduction: remembers what was asked, and tells how far it has come."""

    def __init__(
        self,
        case: Case,
        *,
        budget_s: float,
        fails: Callable[[Case], bool] = Case.fails,
        passes: Sequence[Callable[[Case, Keep], Case]] = PASSES,
        clock: Clock | None = None,
        progress: Callable[[str], None] = lambda words: None,
    ) -> None:
        self.case = case
        self.clock, self.progress = clock or stopwatch(), progress
        self.deadline = self.clock() + budget_s
        self.fails, self.passes = fails, passes
        self.asked = 0
        self.exhausted = False
        self._pass_ends = self.deadline
        self._answers: dict[tuple[int, str], bool] = {}
        self._models: list[Any] = []

    def keep(self, candidate: Case) -> bool:
        """Whether a candidate fails in the same way; the smallest that does is the case from then on."""
        key = (self._model_number(candidate.model), _digest(candidate))
        if key not in self._answers:
            now = self.clock()
            if now > self.deadline:
                raise OutOfTime
            if now > self._pass_ends:
                raise Stalled
            self.asked += 1
            self._answers[key] = self.fails(candidate)
            if self._answers[key] and measure(candidate) < measure(self.case):
                self.case = candidate
                self.progress(f"reducing: {candidate.size:,} scalars left")
        return self._answers[key]

    def run(self) -> Case:
        """Every pass, again and again until none makes it smaller. Interrupted, it keeps the best so far."""
        try:
            while True:
                before = measure(self.case)
                for one in self.passes:
                    self._carry_out(one)
                if measure(self.case) >= before:
                    break
        except (OutOfTime, KeyboardInterrupt):
            self.exhausted = True
        return self.case

    def _carry_out(self, one: Callable[[Case, Keep], Case]) -> None:
        now = self.clock()
        self._pass_ends = now + STALL_SHARE * (self.deadline - now)
        try:
            smaller = one(self.case, self.keep)
            no_larger = measure(smaller) <= measure(self.case)
        except Stalled:
            self.exhausted = True  # no headway: the others may still do, and this one had no time to end
            return
        except REFUSALS:
            return  # a model that this pass does not fit
        if no_larger:
            self.case = smaller

    def _model_number(self, model: Any) -> int:
        # Kept alive here, so that an id is never given to another model.
        for number, known in enumerate(self._models):
            if known is model:
                return number
        self._models.append(model)
        return len(self._models) - 1


def contrasted(case: Case) -> Case:
    """The reduced case with what stands beside it: where it comes from, the nearest healthy one, float64."""
    case = case.settled()
    _, origin = case.asked(case.batch)
    return case.with_(origin=origin or case.origin, logic=float64_query(case), nearest_healthy=nearest_healthy(case))


def measure(case: Case) -> tuple[int, ...]:
    """What smaller means: scalars in batch and weights, then seeded weights, few layers, few terms of the
    loss, few and round numbers."""
    held = list(leaves([case.batch.x, case.batch.y, case.batch.sample_weight]))
    layers = sum(1 for _ in case.model._flatten_layers())
    busy = sum(int(np.count_nonzero(leaf)) for leaf in held)
    plain = type(getattr(case.model, "optimizer", None)).__name__ == "SGD" and not settings_of(case.model).get(
        "metrics"
    )
    state = sum(int(np.size(slot)) for slot in case.slots or ())
    whole = case.data_size + weights_in(case.model, case.batch) + state
    recorded, terms = 0 if case.weights is None else 1, ALL_TERMS if case.terms is None else len(case.terms)
    return whole, recorded, layers, terms, busy, _digits(held), 0 if plain else 1


def _digits(held: Sequence[Any]) -> int:
    """Values that are no small integers: what a reader cannot take in at a glance."""
    floating = [leaf[np.isfinite(leaf)] for leaf in held if leaf.dtype.kind == "f"]
    return sum(int(np.count_nonzero((leaf != np.round(leaf)) | (np.abs(leaf) > 9))) for leaf in floating)


def _digest(candidate: Case) -> str:
    total = hashlib.sha256(f"{candidate.seed} {candidate.terms}".encode())
    held = leaves([candidate.batch.x, candidate.batch.y, candidate.batch.sample_weight])
    for leaf in [*held, *(candidate.weights or ()), *(candidate.slots or ())]:
        array = np.ascontiguousarray(leaf)
        total.update(f"{array.shape}{array.dtype}".encode())
        total.update(array.tobytes())
    return total.hexdigest()
