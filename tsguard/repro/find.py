"""Which Case a run or a preflight holds: the step that tripped, or the first batch on which a step fails."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

from tsguard.backend import preserved
from tsguard.dataset import Data
from tsguard.findings import Finding
from tsguard.guard.outcome import GuardOutcome
from tsguard.repro.case import Batch, Case, from_batch, from_outcome
from tsguard.repro.found import FoundCase
from tsguard.repro.reduce import Reduction

BATCHES_TRIED = 8
"""Batches of the data that are tried for a failing step, where no step was recorded."""


def failing_case(
    *, outcome: GuardOutcome | None, model: Any, data: Data | None, name: str, recipe: tuple[str, Any] | None = None
) -> Case | None:
    """The whole failure, not yet reduced; None where no step fails."""
    if outcome is not None:
        case = from_outcome(outcome, name=name)
        if case is not None:
            return case.with_(recipe=recipe)
    if model is None or data is None:
        return None
    for x, y, weight in data.batches(BATCHES_TRIED):
        with preserved(model):
            weights = tuple(model.get_weights()) if model.built else None
            case = from_batch(model, Batch.of((x, y, weight)), weights=weights, name=name)
        if case is not None:
            return case.with_(recipe=recipe)
    return None


def other_case(
    findings: Sequence[Finding],
    *,
    model: Any,
    data: Data | None,
    name: str,
    recipe: tuple[str, Any] | None = None,
    budget_s: float,
    progress: Callable[[str], None] = lambda words: None,
) -> FoundCase | None:
    """Where no single step fails: a training whose cause was proven, or a broken law; None where there is neither."""
    from tsguard.repro.laws import law_case
    from tsguard.repro.training import training_case

    trained = training_case(findings, model, data, name=name, recipe=recipe, budget_s=budget_s, progress=progress)
    return trained or law_case(findings, model, data, name=name, recipe=recipe)


def reduced(case: Case, *, budget_s: float, progress: Callable[[str], None] = lambda words: None) -> Case:
    """The case, reduced within the budget. The model is left as it was found."""
    with preserved(case.model), warnings.catch_warnings():
        # Cut graphs have inputs of other names and models without weights; Keras remarks on both.
        warnings.simplefilter("ignore", UserWarning)
        return Reduction(case, budget_s=budget_s, progress=progress).run()
