"""A training that is sick without a NaN, as a case: the fewest rows, updates and units in which the cause still shows.

The measure is the diagnosis' own: the share of the targets that is explained, as found and with only the cause removed.
Both are measured from the weights that the seed gives, because that is where the script starts.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tsguard.backend import preserved, seed_everything
from tsguard.dataset import Data, leaves, map_leaves
from tsguard.diagnosis.experiments import Experiment, carry_out, ready
from tsguard.diagnosis.record import Record
from tsguard.diagnosis.rules import proposals
from tsguard.findings import Finding, Status
from tsguard.probes.score import sample
from tsguard.repro import emit
from tsguard.repro import script as scripts
from tsguard.repro.case import Batch, Case, Fingerprint
from tsguard.repro.code.lines import Lines, NotCode
from tsguard.repro.found import FoundCase
from tsguard.repro.graphs import REFUSALS, reinitialised
from tsguard.repro.passes.narrow import bypass_layers, narrow_layers
from tsguard.repro.reduce import Reduction

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
        search = _Search(finding, data, deadline, clock, progress)
        with preserved(fresh):
            shown = search.smallest(fresh)
        if shown is None:
            continue
        smaller = search.narrower(fresh, shown, name)
        return _case(
            finding, smaller, data, search.shows(smaller, shown.size) or shown, name, recipe, clock() > deadline
        )
    return None


@dataclass(frozen=True)
class Shown:
    """What a size shows."""

    size: Size
    before: float
    after: float
    classes: bool


@dataclass(frozen=True)
class _Search:
    """For the least that still shows the cause and its cure."""

    finding: Finding
    data: Data
    deadline: float
    clock: Callable[[], float]
    progress: Callable[[str], None]

    def smallest(self, model: Any) -> Shown | None:
        """Rows and steps halved in turn while sick and mended stay apart."""
        best = self.shows(model, Size(len(self.data), STEPS_FIRST))
        shrinks = [_half_the_rows, _half_the_steps]
        while best is not None and shrinks and self.clock() < self.deadline:
            for shrink in list(shrinks):
                smaller = shrink(best.size)
                shown = self.shows(model, smaller) if smaller.rows >= ROWS_LEAST and smaller.steps >= 1 else None
                if shown is None:
                    shrinks.remove(shrink)
                else:
                    best = shown
        return best

    def narrower(self, model: Any, shown: Shown, name: str) -> Any:
        """Fewer layers and units, as long as both still show; weights are drawn anew each time."""
        kept = rows_of(self.data, shown.size.rows)
        fingerprint = Fingerprint(self.finding.code, "training", None, None)
        case = Case(model, Batch.of((kept.x, kept.y)), fingerprint, name=name)
        reduction = Reduction(
            case,
            budget_s=max(0.0, self.deadline - self.clock()),
            fails=lambda one: one.batch.y is not None and same_shapes(one, case) and self._still(one.model, shown.size),
            passes=(bypass_layers, narrow_layers),
            clock=self.clock,
            progress=self.progress,
        )
        return reduction.run().model

    def _still(self, model: Any, size: Size) -> bool:
        with preserved(model):
            return self.shows(model, size) is not None

    def shows(self, model: Any, size: Size) -> Shown | None:
        """Sick and mended on so much, where they are far enough apart."""
        self.progress(f"reducing: {size.rows} rows, {size.steps} steps")
        try:
            return _shown(self.finding, model, rows_of(self.data, size.rows), size, clock=self.clock)
        except REFUSALS:
            return None


def same_shapes(one: Case, other: Case) -> bool:
    """Whether the targets are what they were: a training with other targets is another one."""
    pairs = zip(leaves(one.batch.y), leaves(other.batch.y), strict=True)
    return all(a.shape == b.shape for a, b in pairs)


def _half_the_rows(size: Size) -> Size:
    return Size(size.rows // 2, size.steps)


def _half_the_steps(size: Size) -> Size:
    return Size(size.rows, size.steps // 2)


def rows_of(data: Data, count: int) -> Data:
    """Rows spread over the data."""
    x, y, _ = data.take(np.unique(np.linspace(0, len(data) - 1, count).astype(int)))
    return Data(x, y, batch_size=data.batch_size)


def _shown(finding: Finding, model: Any, data: Data, size: Size, *, clock: Callable[[], float]) -> Shown | None:
    if not model.built or any(not layer.built for layer in model._flatten_layers(include_self=True)):
        seed_everything(0)
        model(map_leaves(keras.ops.convert_to_tensor, data.take(slice(0, 1))[0]))
    start = Beginning(model)
    record = Record(model=model, data=data, start=start, fit={"batch_size": data.batch_size, "shuffle": False})
    judged_on = sample(data)
    assert finding.proof is not None
    if judged_on is None:
        return None
    try:
        ready(record)
        named = [one for _, one in proposals(record, judged_on, (finding,)) if one.name == finding.proof.experiment]
        if not named:
            return None
        before = _skill(record, None, judged_on, size, clock)
        after = _skill(record, named[0], judged_on, size, clock)
    finally:
        start.restore(model)
    if after[0] - before[0] < GAP:
        return None
    return Shown(size, before[0], after[0], classes=after[1])


def _skill(
    record: Record, experiment: Experiment | None, rows: Any, size: Size, clock: Callable[[], float]
) -> tuple[float, bool]:
    outcome = carry_out(record, experiment, rows, steps=size.steps, seconds=float("inf"), clock=clock)
    return outcome.skill, outcome.judged is not None and outcome.judged.kind == "classes"


def _case(
    finding: Finding,
    model: Any,
    data: Data,
    shown: Shown,
    name: str,
    recipe: Any,
    exhausted: bool,  # noqa: FBT001
) -> FoundCase:
    kept = rows_of(data, shown.size.rows)
    case = Case(model, Batch.of((kept.x, kept.y)), Fingerprint(finding.code, "training", None, None), recipe=recipe)
    whole = sum(int(np.size(leaf)) for leaf in leaves([data.x, data.y]))
    weights = tuple(model.get_weights())
    return FoundCase(
        finding=finding,
        name=name,
        makers=(
            lambda: _script(finding, case, shown, data.batch_size),
            lambda: _script(finding, case.with_(weights=weights), shown, data.batch_size),
        ),
        size=case.size,
        original_size=whole + sum(int(weight.size) for weight in weights),
        prints="share of the targets that is explained: …",
        nearest_healthy=f"{finding.proof.experiment if finding.proof else ''}: {shown.after:.0%} is explained in place "
        f"of {shown.before:.0%}",
        exhausted=exhausted,
    )


def _script(finding: Finding, case: Case, shown: Shown, batch_size: int) -> scripts.Script:
    script, lines, beside = scripts.Script(), Lines(), dict[str, Any]()
    try:
        emit.model_lines(case, lines, script)
    except NotCode as refused:
        return scripts.Script(refused=str(refused))
    emit.weight_lines(case, lines, beside)
    arrays = [
        f"{key} = {emit.value(key, part, beside, home='np')}"
        for key, part in (("x", case.batch.x), ("y", case.batch.y))
    ]
    title = scripts.one_line(f"{finding.code}: {finding.message}")
    words = f"{finding.code}: less than {_threshold(shown):.0%} of the targets is explained"
    batch_size = min(case.batch.samples, batch_size)
    per_epoch = -(-case.batch.samples // batch_size)
    shared = {"title": title, "fingerprint": words, "slug": re.sub(r"\W+", "_", finding.code)}
    scripts.render(
        script, "training.py.j2", shared, lines, beside,
        arrays=arrays,
        seed=case.seed,
        seeded=True,
        before=f"{shown.before:.0%}",
        after=f"{shown.after:.0%}",
        epochs=max(1, shown.size.steps // per_epoch),
        batch_size=batch_size,
        classes=shown.classes,
        border=0.5,
        outputs=isinstance(case.batch.y, Mapping),
        threshold=_threshold(shown),
        code=("np.",),
    )  # fmt: skip
    return script


def _threshold(shown: Shown) -> float:
    """Halfway between sick and mended."""
    return round((shown.before + shown.after) / 2, 2)
