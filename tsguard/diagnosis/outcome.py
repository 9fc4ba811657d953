"""The diagnosis: is the run sick, what is proposed, which removal heals, and what is said in the end.

A run is sick when its own curves and predictions say so, or when a check has found a cause that fails. Causes are
ranked
by how much of what could be known comes back when they are removed. Where nothing heals, that is what is said.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from tsguard import catalogue
from tsguard.backend import preserved
from tsguard.checks.model import unit_findings
from tsguard.diagnosis.experiments import Experiment, Outcome, carry_out, ready
from tsguard.diagnosis.record import Record
from tsguard.diagnosis.rules import Rule, proposals
from tsguard.diagnosis.score import JUDGED_ROWS, Judged, judge, sample
from tsguard.diagnosis.signs import symptoms
from tsguard.evidence import Evidence, Proof
from tsguard.findings import Finding, Role, Status, ranked
from tsguard.probes.baselines import learnable_share, regression_baselines
from tsguard.probes.stage import Batch, take_step
from tsguard.probes.trial import stream

MAX_STEPS = 300
"""Updates per trial: what the first few epochs of a small run have, and enough for a cured run to show."""

HEALED = 0.5
"""Share of the gap between the sick run and what can be known that must come back before a cause is called FAIL."""

HELPED = 0.15
"""… and before it is mentioned at all; below it two seeds of a healthy run differ."""

EARLY = 0.5
"""A run that made less than this share of its planned epochs was stopped, by somebody or something."""

UNFINISHED = ("no-learning", "variance-collapse", "class-collapse", "below-baseline")
"""What is seen of any model that has not been trained for long."""

NOISE = 0.05
"""Skill gained by chance between two trials of a few hundred steps, judged on a few hundred rows."""


@dataclass(frozen=True, slots=True)
class Tested:
    """An experiment and what it came to."""

    rule: Rule | None
    experiment: Experiment
    outcome: Outcome
    effect: float


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
            return seen.symptoms
        tested = _test_all(record, seen, earlier, deadline=deadline, progress=progress, clock=clock)
    explained = any(f.status is Status.FAIL for f in earlier)
    seen = replace(seen, symptoms=_unfinished(seen, tested, record, explained=explained))
    causes = _causes(tested, earlier, seen, record)
    if causes:
        return ranked((*causes, *seen.symptoms))
    return ranked(_unexplained(seen.symptoms, tested))


@dataclass(frozen=True, slots=True)
class Seen:
    """The state in which the run ended, measured."""

    sample: Batch | None
    judged: Judged | None
    learnable: float
    symptoms: tuple[Finding, ...]


def measure(record: Record) -> Seen:
    """Predictions of the model as it stands on its own training rows, and the symptoms of curves and predictions."""
    from tsguard.diagnosis.score import answers_and_targets

    rows = sample(record.data, JUDGED_ROWS)
    if rows is None:
        return Seen(None, None, 0.0, symptoms(record.series))
    judged = judge(record.model, rows)
    known = _learnable(record)
    if judged is None or rows.y is None:
        return Seen(rows, judged, known, symptoms(record.series))
    found = [*symptoms(record.series), *_idle_units(record)]
    if _own_question(record) and _answered(record):
        # An own loss that falls is answered, whatever it asks: that other numbers of the output stay far from the
        # targets (hidden patches only, ranks, likelihoods) is no symptom of it.
        return Seen(rows, judged, known, tuple(found))
    predictions, targets = answers_and_targets(record.model, rows)
    classes = judged.kind == "classes"
    # Several labels at once have no one class that is answered: their accuracy is judged as that of several outputs.
    labels = classes and "most_answered" not in judged.metrics
    if len(predictions) == 1 and len(targets) == 1 and not labels:
        baselines = {} if classes else regression_baselines(record.data)
        looked = (
            symptoms(
                {}, predictions[0], targets[0], baselines, learnable=known, classes=classes, from_logits=_logits(record)
            )
            if classes or predictions[0].size == targets[0].size
            else ()
        )
        found += looked
    elif judged.skill < 0.5 * known and known > 0.15:
        found.append(
            catalogue.finding(
                "no-learning",
                f"the worst output explains {judged.skill:.0%} of its targets on training rows, and a closed-form fit "
                f"{known:.0%} of rows held back.",
                evidence=(Evidence("value", judged.metrics, name="metrics"),),
            )
        )
    return Seen(rows, judged, known, tuple(found))


ANSWERED = 0.2
"""Share of its first value by which an own loss has to fall to count as learning: more than batches scatter."""


def _own_question(record: Record) -> bool:
    """Whether a loss is not one of Keras' own, so that nobody knows what a good answer looks like."""
    from tsguard.probes.answers import question

    losses = getattr(getattr(record.model, "_compile_loss", None), "_flat_losses", None) or ()
    return not losses or any(question(one.loss).kind == "own" for one in losses)


def _answered(record: Record) -> bool:
    """Whether the loss has fallen: the median of its last tenth against that of its first."""
    losses = [float(value) for value in record.series.get("loss", ()) if math.isfinite(float(value))]
    if len(losses) < 4:
        return False
    size = max(1, len(losses) // 10)
    first, last = statistics.median(losses[:size]), statistics.median(losses[-size:])
    return first - last > ANSWERED * abs(first)


def _idle_units(record: Record) -> list[Finding]:
    """Units that are dead or saturated where the run ended: a symptom, unless they started so."""
    batch = next(stream(record.data, record.fit), None)
    if batch is None:
        return []
    step = take_step(record.model, batch)
    if step.error is not None or step.root is None:
        return []
    return [
        replace(f, role=Role.SYMPTOM, status=Status.WARN) for f in unit_findings([step], when="where the run ended")
    ]


def _learnable(record: Record) -> float:
    try:
        return learnable_share(record.data)
    except (ValueError, TypeError, ArithmeticError):  # odd data: then nothing is known about what can be learned
        return 0.0


def _logits(record: Record) -> bool:
    from tsguard.probes.answers import question

    flat_losses = getattr(getattr(record.model, "_compile_loss", None), "_flat_losses", None) or ()
    return any(question(one.loss).from_logits for one in flat_losses)


def _test_all(
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
    scored = [replace_effect(t, (t.outcome.skill - base.skill) / gap if gap > NOISE else 0.0) for t in tested]
    return [Tested(None, Experiment("", "as configured"), base, 0.0), *scored]


def replace_effect(tested: Tested, effect: float) -> Tested:
    """The same with its effect, within [0, 1]."""
    return Tested(tested.rule, tested.experiment, tested.outcome, max(0.0, min(1.0, effect)))


def _causes(tested: list[Tested], earlier: tuple[Finding, ...], seen: Seen, record: Record) -> tuple[Finding, ...]:
    if not tested:
        return earlier
    base, trials = tested[0], tested[1:]
    best: dict[str, Tested] = {}
    for one in trials:
        if one.experiment.code not in best or one.effect > best[one.experiment.code].effect:
            best[one.experiment.code] = one
    explained = tuple(s.code for s in seen.symptoms)
    found: list[Finding] = []
    # What only quickens a run that would have learned anyway is advice, and no failure.
    severe = Status.WARN if _too_short(base, record, seen) else Status.FAIL
    standing = 0.0
    for finding in earlier:
        proven = best.pop(finding.code, None)
        if proven is not None and proven.effect >= HELPED and finding.proof is None:
            finding = replace(
                finding,
                status=max(finding.status, severe),
                proof=_proof(base, proven),
                explains=finding.explains or explained,
            )
            standing = max(standing, proven.effect)
        found.append(finding)
    if any(f.status is Status.FAIL and f.proof is None for f in found):
        return tuple(found)
    # What a check saw and an experiment proved comes before what merely helps: a way round must do clearly better.
    best = {code: one for code, one in best.items() if standing == 0.0 or one.effect > standing + HELPED}
    rates = sorted((c for c in ("lr-too-high", "lr-too-low") if c in best), key=lambda c: best[c].effect)
    if len(rates) == 2:
        best.pop(rates[0])  # both directions cannot be wrong: the weaker one is another draw of luck
    if _hardly_begun(record):
        return tuple(found)  # what would help a longer run accuses nobody of this one
    stopped = _stopped_early(base, record, seen)
    if stopped is not None:
        return (*found, stopped)
    strong = sorted(best.values(), key=lambda t: -t.effect)
    for one in strong:
        if one.effect < HELPED:
            continue
        proof = _proof(base, one)
        code = one.experiment.code
        found.append(
            catalogue.finding(
                code,
                f"{one.experiment.name}: {proof.summary}. {one.rule.because[0].upper() + one.rule.because[1:]}."
                if one.rule is not None
                else proof.summary,
                status=severe if one.effect >= HEALED else Status.WARN,
                role=Role.CAUSE,
                remedy=one.experiment.remedy or catalogue.entry(code).mend,
                proof=proof,
                score=one.effect,
                explains=explained,
            )
        )
    return tuple(found)


def _stopped_early(base: Tested, record: Record, seen: Seen) -> Finding | None:
    """The run made far fewer epochs than it was to make, and the same settings, carried on, learn."""
    planned, made = record.fit.get("epochs"), len(record.series.get("epoch/loss", ()))
    ended = 0.0 if seen.judged is None else seen.judged.skill
    if not isinstance(planned, int) or made >= EARLY * planned or base.outcome.skill < ended + HELPED:
        return None
    gap = max(seen.learnable, base.outcome.skill) - ended
    effect = min(1.0, (base.outcome.skill - ended) / gap) if gap > NOISE else 0.0
    return catalogue.finding(
        "off-plan",
        f"the run ended after {made} of {planned} epochs, explaining {ended:.0%} of the targets; the same "
        f"settings, carried "
        f"on for {len(base.outcome.trial.losses)} steps, explain {base.outcome.skill:.0%}. Something stopped it: "
        f"look at the "
        "callbacks that can (EarlyStopping: monitor, mode, patience, min_delta).",
        role=Role.CAUSE,
        where={"epoch": max(0, made - 1)},
        remedy="Raise the patience, lower min_delta, and check which way the watched quantity improves.",
        proof=Proof(
            "carried on without callbacks",
            f"the explained share goes from {ended:.0%} to {base.outcome.skill:.0%}",
            after=base.outcome.curve("carried on"),
            effect=effect,
            certainty=1.0,
        ),
        score=effect,
    )


TOO_FEW = 20
"""Updates below which no settings have learned anything: momentum alone takes about ten to get going."""


def _hardly_begun(record: Record) -> bool:
    """Whether fewer updates were made than any settings need."""
    made = len(record.series.get("loss", ()))
    epochs, size = len(record.series.get("epoch/loss", ())), record.fit.get("batch_size") or record.data.batch_size
    if record.data.is_arrays and epochs:
        made = max(made, epochs * -(-len(record.data) // size))
    return 0 < made < TOO_FEW


def _too_short(base: Tested, record: Record, seen: Seen) -> bool:
    """Whether the run made hardly any steps, or its settings learn as they are, given more steps than it made."""
    if _hardly_begun(record) and base.outcome.trial.finite:
        return True
    made = len(record.series.get("loss", ()))
    return made < len(base.outcome.trial.losses) and base.outcome.skill >= HEALED * max(seen.learnable, HELPED)


def _unfinished(seen: Seen, tested: list[Tested], record: Record, *, explained: bool) -> tuple[Finding, ...]:
    """Of a run that was too short to have learned, what it has not learned yet is no failure.

    The experiment says so: the same settings, from the same start, given more steps than the run had, learn.
    """
    made = len(record.series.get("loss", ()))
    if tested and _hardly_begun(record) and tested[0].outcome.trial.finite:
        words = f"The run made {made} updates, too few for any settings to be judged. Train longer."
    elif tested and _too_short(tested[0], record, seen):
        base = tested[0].outcome
        words = (
            f"The run was short: in {len(base.trial.losses)} steps instead of {made} the same settings explain "
            f"{base.skill:.0%}. Train longer."
        )
    elif not tested and explained and 0 < made < MAX_STEPS:
        words = f"The run ended after {made} steps, and nothing was tried that says whether more would have helped."
    else:
        return seen.symptoms
    return tuple(
        replace(
            one,
            status=Status.WARN,
            message=f"{one.message} {words}",
        )
        if one.status is Status.FAIL and one.code in UNFINISHED
        else one
        for one in seen.symptoms
    )


def _proof(base: Tested, one: Tested) -> Proof:
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


def _unexplained(seen: tuple[Finding, ...], tested: list[Tested]) -> tuple[Finding, ...]:
    tried = ", ".join(t.experiment.name for t in tested[1:]) or "nothing could be tried"
    return tuple(
        replace(s, message=f"{s.message} Unexplained: none of what was tried heals it ({tried}).")
        if s.status is Status.FAIL
        else s
        for s in seen
    )


def metrics_of(model: Any, record: Record) -> dict[str, float]:
    """The contract's metrics of the model on the training rows."""
    rows = sample(record.data, JUDGED_ROWS)
    judged = None if rows is None else judge(model, rows)
    return {} if judged is None else judged.metrics
