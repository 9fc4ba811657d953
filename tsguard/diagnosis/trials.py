"""The unchanged trial and one trial per proposed cause, from the same start and within the budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tsguard.diagnosis.experiments import Experiment, Outcome, carry_out, ready
from tsguard.diagnosis.record import Record
from tsguard.diagnosis.rules import Rule, proposals
from tsguard.diagnosis.seen import Seen
from tsguard.evidence import Proof
from tsguard.findings import Finding, Status

MAX_STEPS = 300
"""Updates per trial: what the first few epochs of a small run have, and enough for a cured run to show."""


NOISE = 0.05
"""Skill gained by chance between two trials of a few hundred steps, judged on a few hundred rows."""


@dataclass(frozen=True, slots=True)
class Tested:
    """An experiment and what it came to."""

    rule: Rule | None
    experiment: Experiment
    outcome: Outcome
    effect: float


def try_all(
    record: Record,
    seen: Seen,
    earlier: tuple[Finding, ...],
    *,
    deadline: float,
    progress: Callable[[str], None],
    clock: Callable[[], float],
) -> list[Tested]:
    """The unchanged trial, then one per proposal while there is time."""
    if seen.sample is None:
        return []
    record.start.restore(record.model)
    try:
        ready(record)
        listed = list(proposals(record, seen.sample, earlier))
        standing = {f.code for f in earlier if f.status is Status.FAIL}
        if standing:
            # A structural cause stands: only what can prove it is tried; ways round it are not second causes.
            listed = [(rule, one) for rule, one in listed if one.code in standing]
    except (
        Exception
    ):  # a model that cannot be called on its data has nothing to try; its own error is reported elsewhere
        return []
    if not listed:
        return []
    share = max(1.0, (deadline - clock()) / (len(listed) + 2))
    progress("as configured")
    base = carry_out(record, None, seen.sample, steps=MAX_STEPS, seconds=share, clock=clock)
    steps = max(8, len(base.trial.losses)) if base.trial.finite else MAX_STEPS
    tested: list[Tested] = []
    for rule, experiment in listed:
        if clock() + share > deadline:
            break
        progress(experiment.name)
        try:
            outcome = carry_out(record, experiment, seen.sample, steps=steps, seconds=share, clock=clock)
        except Exception:  # an experiment that does not fit this model proves nothing
            continue
        tested.append(Tested(rule, experiment, outcome, 0.0))
    reachable = max([seen.learnable, *(t.outcome.skill for t in tested), base.skill])
    gap = reachable - base.skill
    scored = [with_effect(t, (t.outcome.skill - base.skill) / gap if gap > NOISE else 0.0) for t in tested]
    return [Tested(None, Experiment("", "as configured"), base, 0.0), *scored]


def with_effect(tested: Tested, effect: float) -> Tested:
    """The same with its effect, within [0, 1]."""
    return Tested(tested.rule, tested.experiment, tested.outcome, max(0.0, min(1.0, effect)))


def proof_of(base: Tested, one: Tested) -> Proof:
    before, after = base.outcome, one.outcome
    return Proof(
        experiment=one.experiment.name,
        summary=(
            f"from the same start, in {len(after.trial.losses)} steps, the share of the targets that is explained "
            f"goes from "
            f"{before.skill:.0%} to {after.skill:.0%} when only this is changed"
        ),
        before=before.curve("as configured"),
        after=after.curve(one.experiment.name),
        effect=one.effect,
        certainty=1.0,
        facts={
            "metrics as configured": {} if before.judged is None else before.judged.metrics,
            "metrics changed": {} if after.judged is None else after.judged.metrics,
        },
    )
