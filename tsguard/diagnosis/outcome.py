"""The diagnosis: is the run sick, what is proposed, which removal heals, and what is said in the end.

A run is sick when its own curves and predictions say so, or when a check has found a cause that fails. Causes are
ranked by how much of what could be known comes back when they are removed. Where nothing heals, that is what is said.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from tsguard.backend import preserved
from tsguard.diagnosis.doubt import in_doubt
from tsguard.diagnosis.modes import known_in_training_alone
from tsguard.diagnosis.record import Record
from tsguard.diagnosis.seen import measure
from tsguard.diagnosis.trials import try_all
from tsguard.diagnosis.verdict import beneath, causes_of, unexplained, unfinished
from tsguard.findings import Finding, Role, Status, ranked

IDLE = ("dead-units", "saturated-units")


def diagnose(
    record: Record,
    findings: tuple[Finding, ...] = (),
    *,
    budget_s: float = 60.0,
    progress: Callable[[str], None] = lambda name: None,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[Finding, ...]:
    """Findings of the run: symptoms, and causes with the experiments that prove them.

    `findings` are those of the preflight; a cause among them that an experiment can test comes back with its proof and
    replaces the one that was given (same code). An empty answer says that the run looks healthy.
    """
    deadline = clock() + budget_s
    with preserved(record.model):
        seen = measure(record)
        earlier = tuple(f for f in findings if f.role is Role.CAUSE and f.status in (Status.WARN, Status.FAIL))
        sick = [
            s for s in seen.symptoms if s.status is Status.FAIL or s.code in ("biased-predictions", "variance-collapse")
        ]
        if not sick and not any(f.status is Status.FAIL for f in earlier):
            # Units that idle are the matter of runs that do not do their work.
            seen = replace(seen, symptoms=tuple(s for s in seen.symptoms if s.code not in IDLE))
            return in_doubt(record, seen, earlier, deadline=deadline, progress=progress, clock=clock)
        gap = known_in_training_alone(record, seen)
        if gap is not None:
            earlier = (gap, *(f for f in earlier if f.code != gap.code))
        tested = try_all(record, seen, earlier, deadline=deadline, progress=progress, clock=clock)
    explained = any(f.status is Status.FAIL for f in earlier)
    seen = replace(seen, symptoms=unfinished(seen, tested, record, explained=explained))
    causes = causes_of(tested, earlier, seen, record)
    if causes:
        return ranked((*causes, *beneath(seen.symptoms, causes)))
    return ranked(unexplained(seen.symptoms, tested))
