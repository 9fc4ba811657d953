"""Hypothesis looks for the smallest batch that breaks a law, within a time.

The predicate is injected; what it answers for an example is remembered, so that Hypothesis may ask again after the time
is up and hears the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis import errors as hypothesis_errors
from hypothesis import strategies as st

from tsguard.errors import TsguardError
from tsguard.laws.batches import Example
from tsguard.laws.results import Counterexample

Judge = Callable[[Example], Counterexample | None]

PROFILES: dict[str, settings] = {
    "ci": settings(
        max_examples=8,
        derandomize=True,
        database=None,
        deadline=None,
        print_blob=False,
        report_multiple_bugs=False,
        verbosity=Verbosity.quiet,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=tuple(HealthCheck),
    ),
}
PROFILES["explore"] = settings(PROFILES["ci"], derandomize=False, max_examples=60)
"""`ci`: the same examples every time, few of them, each of up to eight samples that share a forward pass.
`explore`: new ones every time, and many."""

LEAST = 3
"""Examples that every law gets, however dear: one of each kind of value."""

SHRINK_CALLS = 120
"""Examples that may be tried to make a counterexample smaller; past that a smaller one is not worth the wait."""


@dataclass
class Searched:
    """What a search found, and how many examples it judged."""

    best: Counterexample | None = None
    examples: int = 0
    failed: list[Exception] = field(default_factory=list)


class _Broken(Exception):
    pass


def profile_named(name: str) -> settings:
    """A profile by its name."""
    if name not in PROFILES:
        raise TsguardError(f"laws: received profile {name!r}. Expected one of {sorted(PROFILES)}. Use 'ci' in tests.")
    return PROFILES[name]


def search(
    strategy: st.SearchStrategy[Example], judge: Judge, *, profile: str, until: float, share: float = 1.0
) -> Searched:
    """The smallest counterexample that the time allows. `share` of the profile's examples for laws that cost more."""
    chosen = profile_named(profile)
    chosen = settings(chosen, max_examples=max(LEAST, round(chosen.max_examples * share)))
    found = Searched()
    answers: dict[Example, Counterexample | None] = {}
    broken_at = [0]

    @chosen
    @given(strategy)
    def attempt(example: Example) -> None:
        if example not in answers:
            spent = found.best is not None and found.examples - broken_at[0] > SHRINK_CALLS
            if spent or (time.monotonic() > until and found.examples):
                return
            found.examples += 1
            answers[example] = judge(example)
        answer = answers[example]
        if answer is not None:
            if found.best is None:
                broken_at[0] = found.examples
            if found.best is None or answer.size < found.best.size:
                found.best = answer
            raise _Broken

    try:
        attempt()
    except (_Broken, hypothesis_errors.HypothesisException):
        if found.best is None:
            raise
    return found
