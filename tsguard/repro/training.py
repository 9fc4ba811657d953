"""A training that is sick without a NaN, as a case: the fewest rows and epochs in which the cause still shows.

The measure is the diagnosis' own: the share of the targets that is explained, as found and with only the cause removed.
Both are measured from the weights that the seed gives, because that is where the script starts.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tsguard.backend import preserved, seed_everything
from tsguard.dataset import Data, leaves
from tsguard.diagnosis.experiments import Experiment, carry_out, ready
from tsguard.diagnosis.record import Record
from tsguard.diagnosis.rules import proposals
from tsguard.findings import Finding, Status
from tsguard.probes.score import sample
from tsguard.repro import emit
from tsguard.repro.case import Batch, Case, Fingerprint
from tsguard.repro.code.lines import Lines, NotCode
from tsguard.repro.found import FoundCase
from tsguard.repro.graphs import reinitialised

GAP = 0.3
"""Explained share by which the mended run must be ahead: below it, two seeds of one run can differ."""

STEPS_FIRST = 128
"""Updates of the first trial; from there on they are halved for as long as the gap stays."""

ROWS_LEAST = 16
"""Fewer rows can be learned by heart, whatever is wrong."""


class Beginning:
    """The weights that the seed gives and an optimizer that has made no step, to be put back before every trial."""

    def __init__(self, model: Any) -> None:
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        held = [*model.variables, *model.optimizer.variables]
        self._values = [(variable, variable.value.detach().clone()) for variable in held]

    def restore(self, model: Any) -> None:
        """Put it back."""
        seed_everything(0)
        for variable, value in self._values:
            variable.value.data.copy_(value)


@dataclass(frozen=True)
class Size:
    """How much is trained."""

    rows: int
    steps: int


def training_case(
    findings: Sequence[Finding],
    model: Any,
    data: Data | None,
    *,
    name: str,
    recipe: Any,
    budget_s: float,
    clock: Callable[[], float] = time.monotonic,
    progress: Callable[[str], None] = lambda words: None,
) -> FoundCase | None:
    """The first cause whose removal was proven to heal, on as little as still shows both; None where there is none."""
    deadline = clock() + budget_s
    if model is None or data is None or not data.is_arrays or data.y is None:
        return None
    for finding in findings:
        if finding.proof is None or finding.status not in (Status.FAIL, Status.WARN) or clock() > deadline:
            continue
        fresh = reinitialised(model)
        if fresh is None:
            return None
        with preserved(fresh):
            found = _smallest(finding, fresh, data, deadline=deadline, clock=clock, progress=progress)
        if found is not None:
            return _case(finding, fresh, data, found, name, recipe)
    return None


@dataclass(frozen=True)
class Shown:
    """What a size shows."""

    size: Size
    before: float
    after: float
    classes: bool


def _smallest(
    finding: Finding,
    model: Any,
    data: Data,
    *,
    deadline: float,
    clock: Callable[[], float],
    progress: Callable[[str], None],
) -> Shown | None:
    """Rows and steps halved in turn while sick and mended stay apart."""
    start = Beginning(model)

    def shows(size: Size) -> Shown | None:
        progress(f"reducing: {size.rows} rows, {size.steps} steps")
        return _shown(finding, model, start, rows_of(data, size.rows), size, clock=clock)

    best = shows(Size(len(data), STEPS_FIRST))
    shrinks = [_half_the_rows, _half_the_steps]
    while best is not None and shrinks and clock() < deadline:
        for shrink in list(shrinks):
            smaller = shrink(best.size)
            shown = shows(smaller) if smaller.rows >= ROWS_LEAST and smaller.steps >= 1 else None
            if shown is None:
                shrinks.remove(shrink)
            else:
                best = shown
    return best


def _half_the_rows(size: Size) -> Size:
    return Size(size.rows // 2, size.steps)


def _half_the_steps(size: Size) -> Size:
    return Size(size.rows, size.steps // 2)


def rows_of(data: Data, count: int) -> Data:
    """Rows spread over the data."""
    x, y, _ = data.take(np.unique(np.linspace(0, len(data) - 1, count).astype(int)))
    return Data(x, y, batch_size=data.batch_size)


def _shown(
    finding: Finding, model: Any, start: Beginning, data: Data, size: Size, *, clock: Callable[[], float]
) -> Shown | None:
    record = Record(model=model, data=data, start=start, fit={"batch_size": data.batch_size, "shuffle": False})
    judged_on = sample(data)
    assert finding.proof is not None
    if judged_on is None:
        return None
    start.restore(model)
    ready(record)
    named = [one for _, one in proposals(record, judged_on, (finding,)) if one.name == finding.proof.experiment]
    if not named:
        return None
    before = _skill(record, None, judged_on, size, clock)
    after = _skill(record, named[0], judged_on, size, clock)
    if after[0] - before[0] < GAP:
        return None
    return Shown(size, before[0], after[0], classes=after[1])


def _skill(
    record: Record, experiment: Experiment | None, rows: Any, size: Size, clock: Callable[[], float]
) -> tuple[float, bool]:
    outcome = carry_out(record, experiment, rows, steps=size.steps, seconds=float("inf"), clock=clock)
    return outcome.skill, outcome.judged is not None and outcome.judged.kind == "classes"


def _case(finding: Finding, model: Any, data: Data, shown: Shown, name: str, recipe: Any) -> FoundCase:
    kept = rows_of(data, shown.size.rows)
    case = Case(model, Batch.of((kept.x, kept.y)), Fingerprint(finding.code, "training", None, None), recipe=recipe)
    whole = sum(int(np.size(leaf)) for leaf in leaves([data.x, data.y]))
    weights = tuple(model.get_weights())
    return FoundCase(
        finding=finding,
        name=name,
        makers=(lambda: _script(finding, case, shown), lambda: _script(finding, case.with_(weights=weights), shown)),
        size=case.size,
        original_size=whole + sum(int(weight.size) for weight in weights),
        prints="share of the targets that is explained: …",
        nearest_healthy=f"{finding.proof.experiment if finding.proof else ''}: {shown.after:.0%} is explained in place "
        f"of {shown.before:.0%}",
    )


def _script(finding: Finding, case: Case, shown: Shown) -> emit.Script:
    script, lines, beside = emit.Script(), Lines(), dict[str, Any]()
    try:
        emit.model_lines(case, lines, script)
    except NotCode as refused:
        return emit.Script(refused=str(refused))
    emit.weight_lines(case, lines, beside)
    arrays = [f"{key} = {emit.value(key, part, beside)}" for key, part in (("x", case.batch.x), ("y", case.batch.y))]
    if beside:
        arrays.insert(0, emit.STORED)
    title = emit.one_line(f"{finding.code}: {finding.message}")
    words = f"{finding.code}: less than {_threshold(shown):.0%} of the targets is explained"
    batch_size = min(case.batch.samples, 32)
    per_epoch = -(-case.batch.samples // batch_size)
    shared = {"title": title, "fingerprint": words, "slug": re.sub(r"\W+", "_", finding.code)}
    emit.render(
        script, "training.py.j2", shared, lines, beside,
        arrays=arrays,
        seed=case.seed,
        before=f"{shown.before:.0%}",
        after=f"{shown.after:.0%}",
        epochs=max(1, shown.size.steps // per_epoch),
        batch_size=batch_size,
        classes=shown.classes,
        border=0.5,
        threshold=_threshold(shown),
    )  # fmt: skip
    return script


def _threshold(shown: Shown) -> float:
    """Halfway between sick and mended."""
    return round((shown.before + shown.after) / 2, 2)
