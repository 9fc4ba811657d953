"""Asking all laws, in the order in which their answers build on each other.

More padding comes first, because some laws only speak where padding leaks at all; the polarity of a mask comes after
the leaks that its complement may heal; the other backend comes last, because another process takes what time is left. A
law that crashes says so with its traceback and stops no other.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any

import numpy as np

from tsguard import backend
from tsguard.errors import SubjectError, TsguardError, explain
from tsguard.laws import (
    batch,
    causality,
    clock,
    features,
    halves,
    length,
    losses,
    masks,
    nothing,
    padding,
    poison,
    polarity,
    sets,
)
from tsguard.laws.batches import Material
from tsguard.laws.bench import Bench, LossFunction
from tsguard.laws.emit import pytest_source
from tsguard.laws.ground import Ground
from tsguard.laws.infer import read
from tsguard.laws.law import Law, NotAsked
from tsguard.laws.reading import Reading
from tsguard.laws.results import Counterexample, LawResult
from tsguard.laws.search import profile_named, search
from tsguard.padding import Padding

LAWS: tuple[Law, ...] = (
    batch.REPEATS,
    batch.COUPLING,
    batch.ORDER,
    batch.TRAINING,
    halves.HALF,
    length.LENGTH,
    padding.VALUES,
    padding.TRAINING_VALUES,
    padding.GRADIENTS,
    poison.NAN,
    poison.NAN_BACKWARD,
    losses.TARGETS,
    length.LENGTH_LOSS,
    length.LENGTH_GRADIENTS,
    length.SIDES,
    nothing.ALL_PADDED,
    nothing.SMALLEST,
    features.VALUES,
    features.GRADIENTS,
    features.NAN,
    features.NAN_BACKWARD,
    features.TARGETS,
    features.LENGTH,
    sets.ORDER,
    masks.COUNTS,
    polarity.ONES,
    polarity.POLARITY,
    polarity.TRUE_VALUES,
    causality.FUTURE,
    causality.FUTURE_GRADIENTS,
    clock.NEUTRAL,
    clock.GAPS,
    clock.SHIFT,
    halves.OTHER_BACKEND,
)

SHRINK_SHARE = 0.25
"""Of the budget that one law may spend: a broken law shrinks, and must leave time for the others to be asked."""


def all_laws() -> tuple[Law, ...]:
    """Ours, and those of installed projects (entry points `tsguard.laws`, each a Law)."""
    own = [entry.load() for entry in metadata.entry_points(group="tsguard.laws")]
    wrong = [law for law in own if not isinstance(law, Law)]
    if wrong:
        raise TsguardError(
            f"entry points `tsguard.laws`: received {wrong[0]!r}. Expected a tsguard.laws.Law. Build one."
        )
    return (*LAWS, *own)


def run(
    model: Any,
    data: Any,
    padding: Padding | None = None,
    *,
    loss: LossFunction | None = None,
    profile: str = "ci",
    budget_s: float = 60.0,
    only: Iterable[str] | None = None,
) -> list[LawResult]:
    """Ask the laws of this model. `only` names laws or codes; `loss(y, y_pred)` stands in for the compiled one."""
    return list(examine(model, data, padding, loss=loss, profile=profile, budget_s=budget_s, only=only).results)


@dataclass(frozen=True)
class Examination:
    """What the laws answered, and what was read about the model before they were asked."""

    results: tuple[LawResult, ...]
    reading: Reading


def examine(
    model: Any,
    data: Any,
    padding: Padding | None = None,
    *,
    loss: LossFunction | None = None,
    profile: str = "ci",
    budget_s: float = 60.0,
    only: Iterable[str] | None = None,
) -> Examination:
    """As `run`, with the reading."""
    profile_named(profile)
    chosen = _chosen(only)
    until = time.monotonic() + budget_s
    with backend.preserved(model):
        ground = _ground(model, data, padding, loss)
        ground.until = until
        results = []
        for law in chosen:
            result = _ask(law, ground, profile, until, budget_s)
            if result.counterexample is not None:
                ground.broken.setdefault(law.code, result.counterexample)
            results.append(result)
    return Examination(tuple(results), ground.reading)


def read_model(model: Any, data: Any, padding: Padding | None = None) -> Reading:
    """What would be inferred about this model, without asking any law."""
    with backend.preserved(model):
        return _ground(model, data, padding, None).reading


def _chosen(only: Iterable[str] | None) -> tuple[Law, ...]:
    laws = all_laws()
    if only is None:
        return laws
    wanted = {only} if isinstance(only, str) else set(only)
    unknown = wanted - {law.name for law in laws} - {law.code for law in laws}
    if unknown:
        raise TsguardError(
            f"laws: received {sorted(unknown)}. Expected names or codes of laws, such as 'pad-leak-value'. See "
            f"laws.LAWS."
        )
    return tuple(law for law in laws if law.name in wanted or law.code in wanted)


def _ground(model: Any, data: Any, padding: Padding | None, loss: LossFunction | None) -> Ground:
    bench = Bench(model, loss)
    data = _arrays(data)

    def forward(structure: Any, leaves: Any, *, record: bool) -> Any:
        from tsguard.laws.trace import tracing

        bench.structure = structure
        if not record:
            return bench.raw(leaves, structure=structure), []
        # The first call may build the model, and layers that do not exist yet cannot be traced.
        bench.raw(leaves, structure=structure)
        bench.settle()
        bench.wake()
        with tracing(model, arrays=False) as calls:
            return bench.raw(leaves, structure=structure), calls

    reading = read(model, data, padding, forward)
    bench.structure = reading.inputs
    return Ground(bench, reading, Material(reading))


def _arrays(data: Any) -> Any:
    """Data held in arrays; of a loader its first batch."""
    from tsguard.dataset import Data

    data = Data.of(data)
    if data.is_arrays:
        if not len(data):
            raise SubjectError(
                explain("data", received="no samples", expected="at least one", todo="Check what was selected.")
            )
        return data
    x, y, weight = next(iter(data.batches(1)))
    return Data(x, y, weight)


def _ask(law: Law, ground: Ground, profile: str, until: float, budget_s: float) -> LawResult:
    started = time.monotonic()
    if started > until:
        return LawResult(
            law.name, law.code, "not-applicable", f"not asked: the time budget of {budget_s:g} s was spent"
        )
    examples = 0
    try:
        reason = law.applies(ground)
        if reason:
            return LawResult(law.name, law.code, "not-applicable", reason, seconds=time.monotonic() - started)
        found: Counterexample | None
        if law.once:
            found, examples = law.judge(ground, ground.padded_example()), 1
        else:
            deadline = min(until, started + SHRINK_SHARE * budget_s)
            searched = search(
                law.batches(ground),
                lambda example: law.judge(ground, example),
                profile=profile,
                until=deadline,
                share=law.share,
            )
            found, examples = searched.best, searched.examples
        if found is not None and law.finish is not None:
            found = law.finish(ground, found)
    except NotAsked as words:
        return LawResult(law.name, law.code, "not-applicable", str(words), seconds=time.monotonic() - started)
    except Exception as crash:  # a law that cannot be judged here must not keep the others from being asked
        trace = "".join(traceback.format_exception(crash))
        reason = f"{type(crash).__name__}: {crash}\n{trace}"
        return LawResult(law.name, law.code, "crashed", reason, examples=examples, seconds=time.monotonic() - started)
    seconds = time.monotonic() - started
    if found is None:
        return LawResult(law.name, law.code, "holds", f"{examples} examples", examples=examples, seconds=seconds)
    found = replace(found, test=pytest_source(found, ground), valid=_valid(found, ground))
    return LawResult(law.name, found.code, "broken", found.words, found, examples, seconds)


def _valid(found: Counterexample, ground: Ground) -> Any:
    before, after = ({name: np.asarray(leaf) for name, leaf in x.items()} for x in (found.before, found.after))
    return ground.valid_steps(before), ground.valid_steps(after)
