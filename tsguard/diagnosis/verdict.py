"""What the trials say: which causes are proven, how they are ranked, and what accuses nobody."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from tsguard import catalogue
from tsguard.diagnosis.record import Record
from tsguard.diagnosis.seen import Seen
from tsguard.diagnosis.trials import HELPED, MAX_STEPS, NOISE, Tested, proof_of
from tsguard.evidence import Proof
from tsguard.findings import Finding, Role, Status, ranked

HEALED = 0.5
"""Share of the gap between the sick run and what can be known that must come back before a cause is called FAIL."""


AGREED = 0.6
"""Share of repetitions that must agree before a cause is called FAIL: two of three."""


EARLY = 0.5
"""A run that made less than this share of its planned epochs was stopped, by somebody or something."""


UNFINISHED = ("no-learning", "variance-collapse", "class-collapse", "below-baseline", "biased-predictions")
"""What is seen of any model that has not been trained for long."""

AS_LONG = ("lr-too-low", "lr-too-high")
"""What may be a cause of a short run. A low rate says the same of it; a lower one would only have slowed it down, so
that where that heals the run was not short but unsteady. Whatever else quickens settings that learn as they are (more
units, another draw, clipping) is no cause of what it lacks."""

ROSE = 1.5
"""Loss of the last epoch over that of the best one, from which a run did not lack steps when it ended: it had been
better, and lost it again."""


TOO_FEW = 20
"""Updates below which no settings have learned anything: momentum alone takes about ten to get going."""


def causes_of(tested: list[Tested], earlier: tuple[Finding, ...], seen: Seen, record: Record) -> tuple[Finding, ...]:
    explained = tuple(s.code for s in seen.symptoms if s.role is not Role.NOTE)
    if not tested:
        return _standing_explains(earlier, explained)
    base, trials = tested[0], tested[1:]
    best: dict[str, Tested] = {}
    for one in trials:
        if one.experiment.code not in best or one.effect > best[one.experiment.code].effect:
            best[one.experiment.code] = one
    found: list[Finding] = []
    # What only quickens a run that would have learned anyway is advice, and no failure.
    short = _too_short(base, record, seen)
    severe = Status.WARN if short else Status.FAIL
    standing = 0.0
    for finding in earlier:
        proven = best.pop(finding.code, None)
        if proven is not None and proven.effect >= HELPED:
            finding = replace(
                finding,
                status=max(finding.status, severe),
                proof=proof_of(base, proven),
                explains=finding.explains or explained,
            )
            standing = max(standing, proven.effect)
        found.append(finding)
    found = list(_standing_explains(found, explained))
    if any(f.status is Status.FAIL and f.proof is None for f in found):
        return tuple(found)
    # What a check saw and an experiment proved comes before what merely helps: a way round must do clearly better.
    best = {code: one for code, one in best.items() if standing == 0.0 or one.effect > standing + HELPED}
    rates = sorted((c for c in ("lr-too-high", "lr-too-low") if c in best), key=lambda c: best[c].effect)
    if len(rates) == 2:
        best.pop(rates[0])  # both directions cannot be wrong: the weaker one is another draw of luck
    if _hardly_begun(record):
        return tuple(found)  # what would help a longer run accuses nobody of this one
    stopped = _stopped_early(base, record, seen) or changed_on_the_way(base, record, seen)
    if stopped is not None:
        return ranked((*found, stopped))
    strong = sorted(best.values(), key=lambda t: -t.effect)
    for one in strong if not short else [t for t in strong if t.experiment.code in AS_LONG]:
        if one.effect < HELPED:
            continue
        proof = proof_of(base, one)
        code = one.experiment.code
        found.append(
            catalogue.finding(
                code,
                f"{one.experiment.name}: {proof.summary}. {one.rule.because[0].upper() + one.rule.because[1:]}."
                if one.rule is not None
                else proof.summary,
                status=severe if one.effect >= HEALED and _agreed(one) else Status.WARN,
                role=Role.CAUSE,
                remedy=one.experiment.remedy or catalogue.entry(code).mend,
                proof=proof,
                score=one.effect,
                explains=explained,
            )
        )
    return tuple(found)


SILENT = frozenset(
    "data-leak future-leak nondeterministic checkpoint-roundtrip backend-mismatch off-plan data-volume data-drift "
    "nan-hidden metric-disagrees batch-coupling train-eval-gap transfer-nothing".split()
)
"""Causes that leave the training curve as it is: what is seen of the run is not theirs to explain."""


def _standing_explains(findings: Iterable[Finding], symptoms: tuple[str, ...]) -> tuple[Finding, ...]:
    """The same findings: a cause that fails without any trial explains what is seen, where nothing else does."""
    listed = list(findings)
    able = [f for f in ranked(listed) if f.status is Status.FAIL and f.role is Role.CAUSE and f.code not in SILENT]
    if not able or any(f.explains for f in able if f.proof is not None and set(f.explains) & set(symptoms)):
        return tuple(listed)
    first = able[0]
    explains = tuple(dict.fromkeys((*first.explains, *symptoms)))
    return tuple(replace(f, explains=explains) if f is first else f for f in listed)


def beneath(symptoms: tuple[Finding, ...], found: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """The same symptoms: what accuses by itself (a constant offset) is one of them where a deeper cause explains it."""
    explained = {code for f in found if f.status is Status.FAIL and f.role is Role.CAUSE for code in f.explains}
    return tuple(replace(s, role=Role.SYMPTOM) if s.code in explained else s for s in symptoms)


def _agreed(one: Tested) -> bool:
    return one.certainty is None or one.certainty >= AGREED


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


RATE_CHANGED = 10.0
"""Factor between the rate at the start and the last one from which the rate is another one."""


ABOUT_AS_LONG = 1.5
"""Steps of a trial over steps of the run up to which what the run lacks is not a matter of its length."""


def changed_on_the_way(base: Tested, record: Record, seen: Seen) -> Finding | None:
    """The same settings, carried on without callbacks for about as long as the run, learn what the run did not.

    What a trial lacks is what callbacks did. Where the rate at the end of the run is another one than at its start,
    and no schedule of the optimizer made it so, that is what they did.
    """
    made, ended = len(record.series.get("loss", ())), 0.0 if seen.judged is None else seen.judged.skill
    longer = len(base.outcome.trial.losses) > ABOUT_AS_LONG * made
    if seen.rates is None or longer or base.outcome.skill < ended + 2 * HELPED:
        return None
    first, last = seen.rates
    rates = [last, *map(float, record.series.get("learning_rate", ()))]
    highest, lowest = max(rates) / first, min(rates) / first
    if highest < RATE_CHANGED and lowest > 1 / RATE_CHANGED:
        return None
    code, rate = ("lr-too-high", max(rates)) if highest >= RATE_CHANGED else ("lr-too-low", min(rates))
    return catalogue.finding(
        code,
        f"a callback took the rate from {first:g} to {rate:g}; at {first:g}, without callbacks and in "
        f"{len(base.outcome.trial.losses)} steps, the explained share is {base.outcome.skill:.0%} in place of "
        f"{ended:.0%}. Look at the callbacks that set the rate.",
        status=Status.FAIL,
        role=Role.CAUSE,
        where={"phase": "update", "config_key": "callbacks"},
        proof=Proof(
            "without callbacks",
            f"the explained share goes from {ended:.0%} to {base.outcome.skill:.0%}",
            after=base.outcome.curve("without callbacks"),
            effect=min(1.0, (base.outcome.skill - ended) / max(1.0 - ended, NOISE)),
        ),
        score=1.0,
    )


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
    made, epochs = len(record.series.get("loss", ())), [float(one) for one in record.series.get("epoch/loss", ())]
    if epochs and 0 < min(epochs) * ROSE < epochs[-1]:
        return False
    return made < len(base.outcome.trial.losses) and base.outcome.skill >= HEALED * max(seen.learnable, HELPED)


def unfinished(seen: Seen, tested: list[Tested], record: Record, *, explained: bool) -> tuple[Finding, ...]:
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
        replace(one, status=Status.WARN, role=Role.SYMPTOM, message=f"{one.message} {words}")
        if one.status >= Status.WARN and one.code in UNFINISHED
        else one
        for one in seen.symptoms
    )


def unexplained(seen: tuple[Finding, ...], tested: list[Tested]) -> tuple[Finding, ...]:
    tried = ", ".join(t.experiment.name for t in tested[1:]) or "nothing could be tried"
    return tuple(
        replace(s, message=f"{s.message} Unexplained: none of what was tried heals it ({tried}).")
        if s.status is Status.FAIL and s.role is Role.SYMPTOM
        else s
        for s in seen
    )
