"""The laws as checks: counterexamples become findings, and what could not be judged says why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tsguard import catalogue
from tsguard.checks.bench import refusal, set_up
from tsguard.checks.data_ids import REAL_ZEROS
from tsguard.checks.gathered import gathered
from tsguard.checks.registry import Context, check
from tsguard.errors import ConfigError, TsguardError
from tsguard.evidence import Evidence
from tsguard.findings import Finding, Role, Status

if TYPE_CHECKING:
    from tsguard.laws import LawResult

CODES = (
    "pad-leak-value",
    "pad-leak-grad",
    "pad-leak-loss",
    "pad-length",
    "pad-all-masked",
    "pad-nan-poison",
    "pad-time",
    "mask-dropped",
    "mask-inverted",
    "future-leak",
    "batch-coupling",
    "feature-order",
    "nondeterministic",
    "train-eval-gap",
    "data-precision",
    "precision-overflow",
    "backend-mismatch",
)

BUDGET_SHARE = 0.6
"""Of the time that is left: the laws can fill any budget, and checks after them need some."""

DEEPER = ("mask-inverted", "mask-dropped", "pad-leak-value", "future-leak", "pad-time")
"""A broken law that says how a dependence comes about, before those that only say that there is one."""

OF_OTHER_DATA = ("pad-all-masked", "pad-nan-poison", "pad-time", "nondeterministic")
"""Laws that ask what would be with rows that the data at hand does not hold (all padding, NaN in padding), or with
other seeds where a layer draws on purpose. `check` warns of them, because it asks about the model; a run is about its
data, and there they are told and accuse nobody."""

MEANT_FOR_TRAINING = ("Dropout", "Noise", "Random")
"""Words in the kinds of Keras' layers that draw to make training harder: drawing in inference they were left on, where
another layer may be a sampler."""


@check("laws of padding, masking and time", codes=CODES, needs=("model", "data"), cost=5)
def broken_laws(context: Context) -> Iterable[Finding]:
    """Every law that applies, on the user's own model."""
    from tsguard import laws

    budget = max(context.budget_s * BUDGET_SHARE, 1.0)
    try:
        asked = laws.examine(context.model, context.data, context.padding, budget_s=budget)
    except TsguardError as mistake:
        if context.padding is not None and str(mistake).startswith("Padding"):
            raise ConfigError(str(mistake)) from None
        yield from _not_asked(str(mistake))
        return
    except Exception:
        # Each law is caught on its own: what is raised here is the model's own call. Only a step that goes through
        # says that the fault is ours.
        error = set_up(context, count=1).step.error or refusal(context)
        if error is None:
            raise
        yield from _not_asked(f"the model raises {type(error).__name__} on its own data")
        return
    context.facts["inferred"] = list(asked.reading.inferred)
    found = findings_of(asked.results, asked.reading.inferred, run="fit" in context.facts)
    hidden = gathered(context).facts.get(REAL_ZEROS, ())
    for finding in found:
        follows = finding.code == "data-sentinel" and finding.where.get("layer") in hidden
        yield replace(finding, role=Role.SYMPTOM) if follows else finding


def _not_asked(reason: str) -> list[Finding]:
    return [Finding(code, Status.NOT_RUN, Role.NOTE, f"not asked: {reason}") for code in CODES]


def findings_of(results: Iterable[LawResult], inferred: Sequence[str] = (), *, run: bool = False) -> list[Finding]:
    """One finding per broken law and layer, one per law that crashed, and one per code that held or did not apply.

    In a `run`, what only other data than its own could show is a note.
    """
    answers: list[Finding] = []
    rows = list(results)
    broken = {row.code for row in rows if row.outcome == "broken"}
    told = (Evidence("value", list(inferred), "inferred"),) if inferred else ()
    seen: set[tuple[str, str | None]] = set()
    for row in rows:
        if row.outcome == "broken" and row.counterexample is not None:
            place = (row.code, row.counterexample.layer)
            if place not in seen:
                seen.add(place)
                answers.append(_finding(row, broken, told, run=run))
        elif row.outcome == "crashed":
            message = (
                f"law {row.law!r} could not be judged: {row.reason.splitlines()[0]}. It says nothing about the model."
            )
            answers.append(
                Finding(row.code, Status.ERROR, Role.NOTE, message, evidence=(Evidence("traceback", row.reason),))
            )
    spoken = {answer.code for answer in answers}
    for code in dict.fromkeys(row.code for row in rows):
        # Codes that other checks own too are spoken of here only when a law of them is broken.
        if code not in spoken and code in CODES:
            answers.append(_quiet(code, [row for row in rows if row.code == code], told))
    return answers


def _finding(row: LawResult, broken: set[str], told: tuple[Evidence, ...], *, run: bool) -> Finding:
    assert row.counterexample is not None
    found = row.counterexample
    left_on = any(word in str(found.facts.get("kind", "")) for word in MEANT_FOR_TRAINING)
    if run and not found.grave and row.code in OF_OTHER_DATA and not left_on:
        words = f"holds for the data of this run. With other data it would not: {found.words}"
        evidence = (*found.evidence(), *told)
        return Finding(row.code, Status.PASS, Role.NOTE, words, found.where, evidence, found.remedy)
    severity = catalogue.entry(row.code).severity
    deeper = [code for code in DEEPER if code in broken]
    shallow = row.code not in DEEPER and bool(deeper) and row.code.startswith("pad-") and row.code != "pad-nan-poison"
    return catalogue.finding(
        row.code,
        found.words,
        where=found.where,
        status=severity if found.grave else min(severity, Status.WARN, key=lambda status: status.severity),
        role=Role.SYMPTOM if shallow else None,
        evidence=(*found.evidence(), *told),
        remedy=found.remedy or None,
        score=1.0 - 0.1 * DEEPER.index(row.code) if row.code in DEEPER else 0.4,
        explains=tuple(code for code in broken if row.code in deeper[:1] and code not in DEEPER),
    )


def _quiet(code: str, rows: Sequence[LawResult], told: tuple[Evidence, ...]) -> Finding:
    held = [row for row in rows if row.outcome == "holds"]
    if held:
        words = f"held on {sum(row.examples for row in held)} examples: " + "; ".join(row.law for row in held)
        skipped = [f"{row.law} ({row.reason})" for row in rows if row.outcome == "not-applicable"]
        if skipped:
            words += ". Not asked: " + "; ".join(skipped)
        return Finding(code, Status.PASS, Role.NOTE, words, evidence=told)
    words = "does not apply: " + "; ".join(dict.fromkeys(row.reason for row in rows))
    return Finding(code, Status.NOT_RUN, Role.NOTE, words, evidence=told)
