"""The unchanged trial and one trial per proposed cause, from the same start and within the budget."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace

from tsguard.diagnosis.experiments import Experiment, Outcome, carry_out, ready
from tsguard.diagnosis.record import Record
from tsguard.diagnosis.rules import Rule, proposals
from tsguard.diagnosis.seen import Seen
from tsguard.evidence import Proof
from tsguard.findings import Finding, Status
from tsguard.probes.stage import Batch

MAX_STEPS = 300
"""Updates per trial: what the first few epochs of a small run have, and enough for a cured run to show."""


NOISE = 0.05
"""Skill gained by chance between two trials of a few hundred steps, judged on a few hundred rows."""

HELPED = 0.15
"""Share of the gap between the sick run and what can be known that must come back before an experiment has said
anything; below it two seeds of a healthy run differ."""

SETTLED = 0.8
"""Effect from which an experiment on what a check has seen leaves no question open for others."""

PLAIN = 0.2
"""Explained share that an experiment of the caller must bring to be taken for the answer before others are tried."""

SEEDS = (1, 2)
"""Other orders of the batches (and other draws of weights) in which the best experiments are done again."""

CONFIRMED = 3
"""Causes that are tested again: more are not read."""


@dataclass(frozen=True, slots=True)
class Tested:
    """An experiment and what it came to."""

    rule: Rule | None
    experiment: Experiment
    outcome: Outcome
    effect: float
    repeated: tuple[float, ...] = ()
    """The effect in each repetition, the first trial included; empty where time allowed none."""

    @property
    def certainty(self) -> float | None:
        """The share of repetitions that show an effect; None where there was only one trial."""
        return sum(e >= HELPED for e in self.repeated) / len(self.repeated) if len(self.repeated) > 1 else None


def try_all(
    record: Record,
    seen: Seen,
    earlier: tuple[Finding, ...],
    *,
    extra: tuple[Experiment, ...] = (),
    deadline: float,
    progress: Callable[[str], None],
    clock: Callable[[], float],
) -> list[Tested]:
    """The unchanged trial, then one per proposal while there is time."""
    if seen.sample is None or seen.judged is None:
        return []  # answers that nobody asked for by value have no score that a trial could mend
    record.start.restore(record.model)
    try:
        ready(record)
        listed: list[tuple[Rule | None, Experiment]] = [(None, one) for one in extra]
        listed += proposals(record, seen.sample, earlier)
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
    seen_before = {f.code for f in earlier}
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
        healed = _effect(outcome, base, seen.learnable) >= SETTLED
        asked_for = rule is None and outcome.skill >= base.skill + PLAIN
        if healed and (experiment.code in seen_before or asked_for):
            break  # expected, and healed by its removal: what is left of the time confirms it
    reachable = max([seen.learnable, *(t.outcome.skill for t in tested), base.skill])
    scored = [replace(t, effect=_effect(t.outcome, base, reachable)) for t in tested]
    asked = _Again(record, seen.sample, steps, share, reachable, deadline, clock)
    return [Tested(None, Experiment("", "as configured"), base, 0.0), *asked.repeated(scored)]


def carried_on(record: Record, seen: Seen, *, seconds: float, clock: Callable[[], float]) -> Tested | None:
    """The unchanged trial alone: what the same settings come to where nothing stops them."""
    if seen.sample is None or seen.judged is None:
        return None
    record.start.restore(record.model)
    try:
        ready(record)
        outcome = carry_out(record, None, seen.sample, steps=MAX_STEPS, seconds=seconds, clock=clock)
    except Exception:  # a model that cannot be called on its data; its own error is reported elsewhere
        return None
    return Tested(None, Experiment("", "as configured"), outcome, 0.0)


def _effect(outcome: Outcome, base: Outcome, reachable: float) -> float:
    """The share of what could be known and was not that comes back, within [0, 1]."""
    gap = reachable - base.skill
    return max(0.0, min(1.0, (outcome.skill - base.skill) / gap)) if gap > NOISE else 0.0


@dataclass(frozen=True, slots=True)
class _Again:
    """The best experiments once more, in other orders, while there is time."""

    record: Record
    sample: Batch
    steps: int
    seconds: float
    reachable: float
    deadline: float
    clock: Callable[[], float]

    def repeated(self, scored: list[Tested]) -> list[Tested]:
        best: dict[str, Tested] = {}
        for one in sorted(scored, key=lambda t: -t.effect):
            best.setdefault(one.experiment.code, one)
        chosen = [one for one in best.values() if one.effect >= HELPED][:CONFIRMED]
        effects = {id(one): [one.effect] for one in chosen}
        for seed in SEEDS:
            cost = max((one.outcome.trial.seconds for one in chosen), default=0.0)
            if not chosen or self.clock() + 1.5 * cost * (1 + len(chosen)) > self.deadline:
                break
            base = self._once(None, seed)
            for one in chosen:
                outcome = self._once(one.experiment, seed)
                effects[id(one)].append(_effect(outcome, base, max(self.reachable, outcome.skill)))
        return [self._settled(one, effects.get(id(one), [])) for one in scored]

    def _once(self, experiment: Experiment | None, seed: int) -> Outcome:
        return carry_out(
            self.record,
            experiment,
            self.sample,
            steps=self.steps,
            seconds=self.seconds,
            seed=seed,
            clock=self.clock,
        )

    @staticmethod
    def _settled(one: Tested, effects: list[float]) -> Tested:
        return replace(one, effect=statistics.median(effects), repeated=tuple(effects)) if len(effects) > 1 else one


def proof_of(base: Tested, one: Tested) -> Proof:
    before, after = base.outcome, one.outcome
    return Proof(
        experiment=one.experiment.name,
        summary=(
            f"from the same start, in {len(after.trial.losses)} steps, the share of the targets that is explained "
            f"goes from "
            f"{before.skill:.0%} to {after.skill:.0%} when only this is changed" + _how_sure(one)
        ),
        before=before.curve("as configured"),
        after=after.curve(one.experiment.name),
        effect=one.effect,
        certainty=one.certainty,
        repeats=max(1, len(one.repeated)),
        facts={
            "metrics as configured": {} if before.judged is None else before.judged.metrics,
            "metrics changed": {} if after.judged is None else after.judged.metrics,
        },
    )


def _how_sure(one: Tested) -> str:
    """How often the experiment was done and how often it agreed, in words."""
    if one.certainty is None:
        return " (once: there was no time to repeat it)"
    agree = sum(e >= HELPED for e in one.repeated)
    return f" ({agree} of {len(one.repeated)} repetitions agree; median effect {one.effect:.0%})"
