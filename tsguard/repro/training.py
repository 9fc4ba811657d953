"""A training that is sick without a NaN, as a case: the fewest rows, passes and units in which the cause still shows.

The measure is the diagnosis' own: the share of the targets that is explained, as found and with only the cause removed.
Both are measured from the weights that the seed gives, because that is where the script starts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
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
from tsguard.repro import emit, measured
from tsguard.repro import script as scripts
from tsguard.repro.budget import Clock, stopwatch
from tsguard.repro.case import Batch, Case, Fingerprint
from tsguard.repro.code.lines import Lines, NotCode
from tsguard.repro.found import FoundCase
from tsguard.repro.graphs import REFUSALS, reinitialised
from tsguard.repro.passes.batch import shorten_sequence
from tsguard.repro.passes.narrow import bypass_layers, drop_features, narrow_layers
from tsguard.repro.passes.subset import smallest
from tsguard.repro.reduce import OutOfTime, Reduction

GAP = 0.3
"""Explained share by which the mended run must be ahead: below it, two seeds of one run can differ."""

STEPS_FIRST = 128
"""Updates of the first trial; from there on they are halved for as long as the gap stays."""

ROWS_LEAST = 2
"""A single row has no variance to explain."""

ROWS_BY_HEART = 16
"""Fewer rows can be learned by heart, and one start may do so by luck: the gap must be there from other weights too."""

TRIALS = 24
"""Statements of copied code that are tried: each costs two trainings."""

OTHER_STARTS = (1, 2)
"""Seeds of the other weights; the script starts from those that seed 0 gives."""


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
class Shown:
    """How much is trained, and what that shows."""

    data: Data
    passes: int
    """Over all of the data: what a script calls epochs."""
    before: float
    after: float


def training_case(
    findings: Sequence[Finding],
    model: Any,
    data: Data | None,
    *,
    name: str,
    recipe: Any,
    budget_s: float,
    clock: Clock | None = None,
    progress: Callable[[str], None] = lambda words: None,
) -> FoundCase | None:
    """The first cause whose removal was proven to heal, on as little as still shows both; None where there is none."""
    clock = clock or stopwatch()
    deadline = clock() + budget_s
    if model is None or data is None or not data.is_arrays or data.y is None:
        return None
    for finding in findings:
        if finding.proof is None or finding.status not in (Status.FAIL, Status.WARN) or clock() > deadline:
            continue
        fresh = reinitialised(model)
        if fresh is None:
            return None
        # What does not show in half of the time leaves the other half to causes that need no training.
        search = _Search(finding, data, clock() + (deadline - clock()) / 2, clock, progress)
        with preserved(fresh):
            shown = search.halved(fresh)
        if shown is None:
            continue
        search.deadline = deadline
        smaller, shown = search.fixpoint(fresh, shown, name)
        return _case(search, smaller, shown, name, recipe)
    return None


class _Search:
    """For the least that still shows the cause and its cure."""

    def __init__(
        self,
        finding: Finding,
        data: Data,
        deadline: float,
        clock: Clock,
        progress: Callable[[str], None],
    ) -> None:
        self.finding, self.data = finding, data
        self.deadline, self.clock, self.progress = deadline, clock, progress
        self.exhausted = False

    def halved(self, model: Any) -> Shown | None:
        """Rows and passes halved in turn while sick and mended stay apart."""
        best, before, rows = None, None, len(self.data)
        try:
            best = self.shows(model, self.data, max(1, STEPS_FIRST // steps_in_a_pass(self.data)))
            while best is not before and best is not None:
                before = best
                updates = best.passes * steps_in_a_pass(best.data)
                # Where neighbours in the data make a batch, rows that are spread over it make another one.
                for kept in (rows_of(self.data, rows // 2), first_of(self.data, rows // 2)):
                    if len(kept) < ROWS_LEAST:
                        break
                    # Fewer rows make shorter passes: as many updates as before are more of them.
                    if (shown := self.shows(model, kept, -(-updates // steps_in_a_pass(kept)))) is not None:
                        best, rows = shown, rows // 2
                        break
                if best.passes > 1 and (shown := self.shows(model, best.data, best.passes // 2)) is not None:
                    best = shown
        except OutOfTime:
            self.exhausted = True
        return best

    def fixpoint(self, model: Any, shown: Shown, name: str) -> tuple[Any, Shown]:
        """Configuration and data smaller in turn, until neither is: what one takes away may free the other."""
        known = None
        while not self.exhausted and (extent := _extent(model, shown)) != known:
            known = extent
            model, shown = self.smallest(model, shown, name)
        return model, shown

    def smallest(self, model: Any, shown: Shown, name: str) -> tuple[Any, Shown]:
        """Fewer timesteps, features, layers and units, then no pass and no row that could be left out."""
        fingerprint = Fingerprint(self.finding.code, "training", None, None)
        case = Case(model, Batch.of((shown.data.x, shown.data.y)), fingerprint, name=name)
        reduction = Reduction(
            case,
            budget_s=max(0.0, self.deadline - self.clock()) / 2,
            fails=lambda one: same_targets(one, case) and self.still(one.model, one.batch, shown.passes),
            # What makes a trial shorter comes first: each costs two trainings.
            passes=(shorten_sequence, drop_features, bypass_layers, narrow_layers),
            clock=self.clock,
            progress=self.progress,
        )
        small = reduction.run()
        self.exhausted = self.exhausted or reduction.exhausted
        data = Data(small.batch.x, small.batch.y, batch_size=shown.data.batch_size)
        try:
            with preserved(small.model):
                best = self.shows(small.model, data, shown.passes)
                return (model, shown) if best is None else (small.model, self._least(small.model, best))
        except OutOfTime:
            self.exhausted = True
            return model, shown

    def _least(self, model: Any, best: Shown) -> Shown:
        """One pass less, as long as it shows; then single rows, as long as there are enough."""
        found = [best]

        def shows(data: Data, passes: int) -> bool:
            shown = self.shows(model, data, passes)
            if shown is not None:
                found.append(shown)
            return shown is not None

        def with_rows(some: Sequence[int]) -> bool:
            x, y, _ = best.data.take(np.asarray(some))
            kept = Data(x, y, batch_size=best.data.batch_size)
            return len(some) >= ROWS_LEAST and shows(kept, found[-1].passes)

        try:
            while found[-1].passes > 1 and shows(found[-1].data, found[-1].passes - 1):
                pass
            if len(best.data) > ROWS_LEAST:
                smallest(range(len(best.data)), with_rows)
        except OutOfTime:
            self.exhausted = True
        return found[-1]

    def still(self, model: Any, batch: Batch, passes: int) -> bool:
        """Whether sick and mended are still apart."""
        with preserved(model):
            data = Data(batch.x, batch.y, batch_size=self.data.batch_size)
            return self.shows(model, data, passes) is not None

    def shows(self, model: Any, data: Data, passes: int) -> Shown | None:
        """Sick and mended on so much, where they are far enough apart."""
        if self.clock() > self.deadline:
            raise OutOfTime
        self.progress(f"reducing: {len(data)} rows, {passes * steps_in_a_pass(data)} steps")
        try:
            shown = self._shown(model, data, passes)
            if shown is not None and len(data) < ROWS_BY_HEART:
                others = (reinitialised(model, seed) for seed in OTHER_STARTS)
                if any(other is None or self._shown(other, data, passes) is None for other in others):
                    return None
            return shown
        except REFUSALS:
            return None

    def _shown(self, model: Any, data: Data, passes: int) -> Shown | None:
        return _shown(self.finding, model, data, passes, self.deadline, self.clock)


def _extent(model: Any, shown: Shown) -> tuple[int, ...]:
    """What a fixpoint is told by."""
    scalars = sum(int(np.size(leaf)) for leaf in leaves([shown.data.x, shown.data.y]))
    layers = sum(1 for _ in model._flatten_layers())
    return scalars, shown.passes, layers, sum(int(np.size(weight)) for weight in model.get_weights())


def same_targets(one: Case, other: Case) -> bool:
    """Whether the targets are what they were: a training with other targets is another one."""
    if one.batch.y is None:
        return False
    pairs = zip(leaves(one.batch.y), leaves(other.batch.y), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def rows_of(data: Data, count: int) -> Data:
    """Rows spread over the data."""
    x, y, _ = data.take(np.unique(np.linspace(0, len(data) - 1, count).astype(int)))
    return Data(x, y, batch_size=data.batch_size)


def first_of(data: Data, count: int) -> Data:
    """The first rows."""
    x, y, _ = data.take(np.arange(count))
    return Data(x, y, batch_size=data.batch_size)


def steps_in_a_pass(data: Data) -> int:
    """Updates that it takes to go through the data once."""
    return int(-(-len(data) // min(data.batch_size, len(data))))


def _shown(finding: Finding, model: Any, data: Data, passes: int, deadline: float, clock: Clock) -> Shown | None:
    if not model.built or any(not layer.built for layer in model._flatten_layers(include_self=True)):
        seed_everything(0)
        model(map_leaves(keras.ops.convert_to_tensor, data.take(slice(0, 1))[0]))
    start = Beginning(model)
    record = Record(model=model, data=data, start=start, fit={"batch_size": data.batch_size, "shuffle": False})
    judged_on = sample(data)
    assert finding.proof is not None
    if judged_on is None:
        return None
    steps = passes * steps_in_a_pass(data)
    try:
        ready(record)
        named = [one for _, one in proposals(record, judged_on, (finding,)) if one.name == finding.proof.experiment]
        if not named:
            return None
        before, after = (_skill(record, one, judged_on, steps, deadline, clock) for one in (None, named[0]))
    finally:
        start.restore(model)
    return Shown(data, passes, before, after) if after - before >= GAP else None


def _skill(
    record: Record, experiment: Experiment | None, rows: Any, steps: int, deadline: float, clock: Clock
) -> float:
    left = max(0.0, deadline - clock())
    outcome = carry_out(record, experiment, rows, steps=steps, seconds=left, clock=clock)
    if len(outcome.trial.losses) < steps and outcome.trial.finite and not outcome.trial.failed:
        raise OutOfTime
    return outcome.skill


def _case(search: _Search, model: Any, shown: Shown, name: str, recipe: Any) -> FoundCase:
    finding, data = search.finding, search.data
    batch = Batch.of((shown.data.x, shown.data.y))
    case = Case(model, batch, Fingerprint(finding.code, "training", None, None), recipe=recipe)
    whole = sum(int(np.size(leaf)) for leaf in leaves([data.x, data.y]))
    weights = tuple(model.get_weights())
    return FoundCase(
        finding=finding,
        name=name,
        makers=(
            lambda: _script(search, case, shown),
            lambda: _script(search, case.with_(weights=weights), shown),
        ),
        size=case.size,
        original_size=whole + sum(int(weight.size) for weight in weights),
        prints="share of the targets that is explained: …",
        nearest_healthy=f"{finding.proof.experiment if finding.proof else ''}: {shown.after:.0%} is explained in place "
        f"of {shown.before:.0%}",
        exhausted=search.exhausted,
    )


def _script(search: _Search, case: Case, shown: Shown) -> scripts.Script:
    finding = search.finding
    script, lines, beside = scripts.Script(), Lines(), dict[str, Any]()
    try:
        emit.model_lines(case, lines, script, asked=("model.fit",))
    except NotCode as refused:
        return scripts.Script(refused=str(refused))
    emit.weight_lines(case, lines, beside)
    arrays = [
        f"{key} = {emit.value(key, part, beside, home='np')}"
        for key, part in (("x", case.batch.x), ("y", case.batch.y))
    ]
    search.deadline = math.inf  # what was found is written, however long it took to find it
    emit.shorten_sources(
        case, lines, arrays, beside, lambda one: search.still(one.model, one.batch, shown.passes), trials=TRIALS
    )
    title = scripts.one_line(f"{finding.code}: {finding.message}", scripts.SAID)
    words = f"{finding.code}: less than {_threshold(shown):.0%} of the targets is explained"
    shared = {"title": title, "fingerprint": words, "slug": re.sub(r"\W+", "_", finding.code)}
    asked = measured.lines_of(case.model, case.batch.x, case.batch.y)
    scripts.render(
        script, "training.py.j2", shared, lines, beside,
        arrays=arrays,
        seed=case.seed,
        seeded=True,
        before=f"{shown.before:.0%}",
        after=f"{shown.after:.0%}",
        epochs=shown.passes,
        batch_size=shown.data.batch_size,
        measured=asked,
        threshold=_threshold(shown),
        code=asked,
    )  # fmt: skip
    return script


def _threshold(shown: Shown) -> float:
    """Halfway between sick and mended."""
    return round((shown.before + shown.after) / 2, 2)
