"""A pass over the loss: only the terms without which it does not fail."""

from __future__ import annotations

from collections.abc import Sequence

from tsguard.repro import terms
from tsguard.repro.case import Case
from tsguard.repro.passes.subset import Keep, smallest


def drop_loss_terms(case: Case, keep: Keep) -> Case:
    """As few terms of the model's own `loss_terms` as still fail."""
    if case.fingerprint.phase in ("data", "forward"):
        return case  # it fails before there is a loss
    names = case.terms or terms.heard(case.model, lambda: case.asked(case.batch))

    def only(some: Sequence[int]) -> Case:
        return case if len(some) == len(names) else case.with_(terms=tuple(names[index] for index in some))

    return only(smallest(range(len(names)), lambda some: keep(only(some)))) if len(names) > 1 else case
