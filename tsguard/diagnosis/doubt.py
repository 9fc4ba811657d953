"""A run that knows little of its targets, where no closed-form fit says that there is more to know.

Pictures and long windows hold what only a good model finds, and noise holds nothing: from outside the two look alike.
The experiments tell them apart when they are judged on rows that no trial was trained on. Whatever makes the model
explain rows that it has never seen was missing from the run; where nothing does, nobody is accused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tsguard import catalogue
from tsguard.dataset import Data, map_leaves
from tsguard.diagnosis.experiments import validation_pairs
from tsguard.diagnosis.record import Record
from tsguard.diagnosis.seen import Seen, answered, asks_its_own
from tsguard.diagnosis.trials import MAX_STEPS, carried_on, try_all
from tsguard.diagnosis.verdict import HEALED, causes_of, changed_on_the_way, stopped_early, was_cut_short
from tsguard.findings import Finding, Role, Status, ranked
from tsguard.probes.score import JUDGED_ROWS, Judged, judge, sample

LITTLE = 0.5
"""Explained share from which on a run is not doubted: more than half of what varies is known."""

GAINED = 0.2
"""Explained share of rows never seen that a change must bring: several standard errors of a few hundred rows."""

MIN_PAIRS = 120
"""Validation rows from which half of them can teach anything, and half of them judge it."""

MOST_ROWS = 2048
"""Rows of a loader that trials are made on: what a run of a few hundred steps comes to."""

SHARE = 0.25
"""Share of the time that is left which a run that was cut short is carried on for."""

HELD_BACK = 4
"""Every fourth block of rows is held back, where the run has no validation rows."""


def in_doubt(
    record: Record,
    seen: Seen,
    earlier: tuple[Finding, ...],
    *,
    deadline: float,
    progress: Callable[[str], None],
    clock: Callable[[], float],
) -> tuple[Finding, ...]:
    """The symptoms, and causes that were proven on rows held back."""
    halted = _halted(record, seen, deadline=deadline, clock=clock)
    if halted is not None:
        return ranked((halted, *seen.symptoms))
    if seen.judged is None or seen.judged.skill >= LITTLE:
        return seen.symptoms
    if asks_its_own(record) and answered(record):
        return seen.symptoms  # nobody knows what a good answer to an own loss looks like, and this one falls
    held = _held_back(record, seen)
    if held is None or held[1].skill >= LITTLE:
        return seen.symptoms
    view, judged, apart, other = held
    extra = () if other is None else (validation_pairs(other),)
    tested = try_all(apart, view, earlier, extra=extra, deadline=deadline, progress=progress, clock=clock)
    if not tested:
        return seen.symptoms
    base = tested[0].outcome
    strong = [
        one
        for one in tested[1:]
        if one.effect >= HEALED
        and one.outcome.skill >= max(base.skill, judged.skill) + GAINED
        and one.certainty is not None
        and one.certainty == 1.0
    ]
    changed = changed_on_the_way(tested[0], record, view)
    if not strong and changed is None:
        return seen.symptoms
    found = (changed,) if changed is not None else causes_of([tested[0], *strong], (), view, apart)
    accused = [f for f in found if f.role is Role.CAUSE and f.status is Status.FAIL]
    if not accused:
        return seen.symptoms
    best = max(one.outcome.skill for one in tested)
    symptom = catalogue.finding(
        "no-learning",
        f"the run explains {judged.skill:.0%} of the targets of rows held back; with one change it is {best:.0%}. "
        "There is something to learn, and the model has not learned it.",
    )
    return ranked((*found, symptom, *seen.symptoms))


def _halted(record: Record, seen: Seen, *, deadline: float, clock: Callable[[], float]) -> Finding | None:
    """A run that something ended within its first steps, where the same settings, carried on, know far more of rows
    that neither was trained on."""
    made = len(record.series.get("loss", ()))
    held = _held_back(record, seen) if was_cut_short(record) and 0 < made < MAX_STEPS else None
    if held is None:
        return None
    view, judged, apart, _ = held
    seconds = max(1.0, SHARE * (deadline - clock()))
    base = carried_on(apart, view, seconds=seconds, clock=clock)
    if base is None or base.outcome.skill < judged.skill + GAINED:
        return None
    return stopped_early(base, record, view)


def _held_back(record: Record, seen: Seen) -> tuple[Seen, Judged, Record, Data | None] | None:
    """The run as rows show it that no trial is trained on, its score there, the record without these rows, and other
    pairs to learn from."""
    parts = _parts(record.data)
    rows = None if parts is None else sample(parts[1], JUDGED_ROWS)
    judged = None if rows is None else judge(record.model, rows)
    if parts is None or judged is None:
        return None
    view = Seen(rows, judged, 0.0, seen.symptoms, seen.rates)
    return view, judged, replace(record, data=parts[0]), parts[2]


def _parts(data: Data) -> tuple[Data, Data, Data | None] | None:
    """Rows to train trials on, rows to judge them on, and other pairs to learn from: half of the validation rows."""
    import numpy as np

    given = data.validation
    if isinstance(given, tuple) and len(given) in (2, 3):
        whole = Data(given[0], given[1], batch_size=data.batch_size)
        odd = np.arange(len(whole)) % 2 == 1
        return data, _rows_of(whole, odd), _rows_of(whole, ~odd) if len(whole) >= MIN_PAIRS else None
    if not data.is_arrays:
        rows = sample(data, MOST_ROWS)  # a loader: the rows of its first batches
        if rows is None or rows.y is None:
            return None
        data = Data(rows.x, rows.y, batch_size=data.batch_size)
    if data.y is None or len(data) < 80 * HELD_BACK:
        return None
    block = max(1, len(data) // (5 * HELD_BACK))
    held = (np.arange(len(data)) // block) % HELD_BACK == HELD_BACK - 1
    return _rows_of(data, ~held), _rows_of(data, held), None


def _rows_of(data: Data, keep: Any) -> Data:
    def cut(leaf: Any) -> Any:
        return leaf[keep]

    x, y, weights = (map_leaves(cut, part) for part in (data.x, data.y, data.sample_weight))
    return Data(x, y, weights, batch_size=data.batch_size)
