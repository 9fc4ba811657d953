"""Which Case a run or a preflight holds: the step that tripped, or the first batch on which a step fails."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tsguard.backend import preserved, restore_rng, rng_state, seed_everything
from tsguard.checks.gathered import left_alone
from tsguard.checks.registry import Context
from tsguard.dataset import Batches, Data, joined, leaves, map_leaves
from tsguard.findings import Finding, Status
from tsguard.guard.outcome import GuardOutcome
from tsguard.repro.budget import Clock, stopwatch
from tsguard.repro.case import Batch, Case, from_batch, from_outcome, weights_in
from tsguard.repro.found import FoundCase
from tsguard.repro.graphs import opened
from tsguard.repro.passes import make_values
from tsguard.repro.reduce import Reduction, contrasted
from tsguard.subject import Subject

BATCHES_TRIED = 8
"""Batches of the data that are tried for a failing step, where no step was recorded."""

BATCHES_JOINED = 64
"""Batches of an iterable that are joined to arrays: rows and updates are cut from them afterwards."""


READ = "repro.arrays"
"""Where the facts of a context keep what was read of a loader."""


def failing_case(
    *,
    outcome: GuardOutcome | None,
    model: Any,
    data: Data | None,
    name: str,
    recipe: tuple[str, Any] | None = None,
    findings: Sequence[Finding] = (),
    budget_s: float = float("inf"),
    clock: Clock | None = None,
) -> Case | None:
    """The whole failure, not yet reduced; None where no step fails, or none that was found in time."""
    clock = clock or stopwatch()
    deadline = clock() + budget_s
    case = None if outcome is None else from_outcome(outcome, name=name)
    if case is None and model is not None and data is not None:
        model = _opened(model, data)
        hidden = any(f.code == "nan-hidden" and f.status == Status.FAIL for f in findings)
        for x, y, weight in data.batches(BATCHES_TRIED):
            with preserved(model):
                weights = tuple(model.get_weights()) if model.built else None
                case = from_batch(model, Batch.of((x, y, weight)), weights=weights, name=name, hidden=hidden)
            if case is not None or clock() > deadline:
                break
    if case is None:
        return None
    return case.with_(recipe=recipe, original_size=max(case.original_size, whole_size(case.model, case.batch, data)))


def whole_size(model: Any, batch: Batch, data: Data | None) -> int:
    """Scalars in all of the data and in the weights: what a failure takes before it is reduced."""
    held = list(leaves([data.x, data.y, data.sample_weight])) if data is not None and data.is_arrays else []
    return sum(int(leaf.size) for leaf in held if hasattr(leaf, "size")) + weights_in(model, batch)


def other_case(
    findings: Sequence[Finding],
    *,
    model: Any,
    data: Data | None,
    name: str,
    recipe: tuple[str, Any] | None = None,
    budget_s: float,
    context: Context | None = None,
    clock: Clock | None = None,
    progress: Callable[[str], None] = lambda words: None,
) -> FoundCase | None:
    """Where no single step fails: a training whose cause was proven, a broken law, or a check that still says so.

    All of them together have the budget.
    """
    from tsguard.repro.laws import law_case, test_of
    from tsguard.repro.parts import parts_case
    from tsguard.repro.recheck import check_case
    from tsguard.repro.training import training_case

    loaded = data is not None and not data.is_arrays
    if data is not None and loaded:
        known = {} if context is None else context.facts
        # What comes out of a generator is gone: read once, it is remembered for the next reduction of the same run.
        data = known[READ] = known.get(READ) or as_arrays(data)
        context = None if context is None else replace(context, facts={**context.facts, **_in_its_order(context, data)})
    context = None if context is None else _with_held_arrays(context)
    clock = clock or stopwatch()
    deadline = clock() + budget_s
    whole = model if data is None else _opened(model, data)
    if context is not None and whole is not model:
        context = replace(context, subject=Subject.from_model(whole, padding=context.padding), _model=whole)
    model = whole

    def told() -> dict[str, Any]:
        left = max(0.0, deadline - clock())
        return {"name": name, "recipe": recipe, "budget_s": left, "progress": progress}

    found = None
    with _quiet():
        # What fails comes before what is only remarked on; among equals the most likely cause comes first.
        said = [one for one in findings if one.status in (Status.FAIL, Status.WARN)]
        ranked = sorted(said, key=lambda one: one.status is not Status.FAIL)
        proven = [one for one in ranked if one.proof is not None and one.status is Status.FAIL][:1]
        if context is not None and data is not None:  # what a few lines say at the start needs no training
            found = check_case(proven, replace(context, data=data), plainly=True, **told())
        began = clock()
        found = found or training_case(findings, model, data, **told())
        # What needed half of the time for one cause was ended by it: with more of it, that cause might have shown.
        cut_short = found is None and clock() - began >= (deadline - began) / 2
        for place, finding in enumerate(ranked):
            if found is not None or clock() > deadline:
                break
            if test_of(finding):
                alike = [one for one in ranked[place:] if one.status is finding.status]
                found = law_case(alike, model, data, **told())
            elif context is not None and data is not None:
                found = check_case([finding], replace(context, data=data), **told())
                if found is None or not found.plain:
                    left = max(0.0, deadline - clock())
                    parts = parts_case(
                        finding, context, data, name=name, budget_s=left, progress=progress, loaded=loaded
                    )
                    found = parts if found is None or (parts is not None and parts.plain) else found
    return replace(found, exhausted=True) if found is not None and cut_short else found


def _in_its_order(context: Context, data: Data) -> dict[str, Any]:
    """The arguments of a `fit` over arrays that hands over the batches of a loader as they came."""
    return {"fit": {**context.fit, "batch_size": data.batch_size, "shuffle": False}} if data.is_arrays else {}


def _with_held_arrays(context: Context) -> Context:
    """The same, with the arrays of the validation part where that is a loader."""
    held = None if context.data is None else context.data.validation
    if context.data is None or held is None or isinstance(held, tuple | list):
        return context
    read = as_arrays(Data(held))
    return replace(context, data=replace(context.data, validation=(read.x, read.y))) if read.is_arrays else context


def _opened(model: Any, data: Data) -> Any:
    first = next(iter(data.batches(1)), None)
    if first is None:
        return model
    found = rng_state()
    try:
        seed_everything(0)  # what was not built yet draws its weights: at each call the same
        return opened(model, first[0])
    finally:
        restore_rng(found)


def as_arrays(data: Data) -> Data:
    """Batches of an iterable as the arrays that they were cut from, as far as they were recorded."""
    if data.is_arrays:
        return data
    batches = _read_alike(data)
    if not batches:
        return data
    x, y, weight = (
        joined([map_leaves(_numbers, part) for part in parts], np.concatenate) for parts in zip(*batches, strict=True)
    )
    sizes = [leaf.shape[0] for leaf in leaves(batches[0][0])]
    return Data(x, y, weight, batch_size=int(sizes[0]))


def _read_alike(data: Data) -> list[Any]:
    """The first batches, the same at every reading: a loader that draws is asked from one seed, and left as it was."""
    with left_alone(data.x):
        seed_everything(0)
        return list(data.batches(BATCHES_JOINED))


def recorded_arrays(outcome: GuardOutcome) -> Data | None:
    """What a guarded run was trained on: the arrays of its `fit`, or else the batches that the recorder still holds."""
    inputs = getattr(outcome.data, "_inputs", None)
    batch_size = getattr(outcome.data, "_batch_size", None) or 32
    plainly = map_leaves(lambda leaf: getattr(leaf, "array", leaf), inputs) if inputs is not None else None
    if inputs is not None and all(hasattr(leaf, "__array__") for leaf in leaves(plainly)):
        # Keras packs x alone as it is, and anything with targets as a tuple.
        together = plainly if isinstance(plainly, tuple) else (plainly,)
        parts = [*(map_leaves(_numbers, part) for part in together), None, None]
        return Data(parts[0], parts[1], parts[2], batch_size=int(batch_size))
    if outcome.replay is None or not outcome.replay.records:
        return None
    held = [record.data[0] if isinstance(record.data, list) else record.data for record in outcome.replay.records]
    return as_arrays(Data(Batches(held)))


def _numbers(leaf: Any) -> Any:
    return np.asarray(leaf.detach().cpu() if hasattr(leaf, "detach") else leaf)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # Cut graphs have inputs of other names and models without weights; Keras remarks on both.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def reduced(
    case: Case,
    *,
    budget_s: float,
    synthetic: bool = False,
    progress: Callable[[str], None] = lambda words: None,
) -> Case:
    """The case, reduced within the budget. The model is left as it was found."""
    with preserved(case.model), _quiet():
        reduction = Reduction(case, budget_s=budget_s, progress=progress)
        smaller = reduction.run()
        if synthetic:
            smaller = make_values(smaller, Case.fails)
        return contrasted(smaller.with_(exhausted=reduction.exhausted, synthetic=synthetic))
