"""Symptoms of a run, read off its curves and its predictions. A symptom accuses nobody: causes are looked for after it.

Each threshold says what it would take for a healthy run to cross it.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tsguard import catalogue
from tsguard.evidence import Evidence
from tsguard.findings import Finding, Status
from tsguard.probes.predictions import classification, regression

LEARNABLE = 0.15
"""Share of the targets that a closed-form fit explains on rows held back, from which there is something to learn. Below
it a flat curve is an honest answer to noise."""

HALF = 0.5
"""A model that knows less than half of what a straight line knows on its own training rows has not learned."""

RISEN = 3.0
"""Loss at the end against its best, for a run that diverged. Heavy-tailed losses jump; their medians do not triple."""

FLAT_RATIO = 0.05
"""Spread of predictions against targets below which they are a constant for practical purposes."""

OFFSET = 0.1
"""bias²/σ² from which a constant offset costs a tenth of R²."""

ONE_CLASS = 0.99
"""Share of one class among all answers."""

RARE = 0.9
"""Share of one class above which always answering it is hard to beat, and no measure of what was learned."""

RISEN_VALIDATION = 1.3
"""Validation loss at the end against its best; less is within what validation sets of a few hundred rows scatter."""


def symptoms(
    series: Mapping[str, Sequence[float]],
    predictions: Any = None,
    targets: Any = None,
    baselines: Mapping[str, float] | None = None,
    *,
    learnable: float | None = None,
    classes: bool | None = None,
    from_logits: bool = False,
) -> tuple[Finding, ...]:
    """What can be seen from outside. `learnable` is the share that a simple fit explains; None where nobody has looked.

    `baselines` holds the score (R², or accuracy for classes) of trivial rules on the same rows.
    """
    found: list[Finding] = [*_of_curves(series)]
    if predictions is not None and targets is not None:
        if classes:
            found += _of_classes(
                classification(predictions, targets, from_logits=from_logits), baselines or {}, learnable
            )
        else:
            found += _of_regression(regression(predictions, targets), baselines or {}, learnable)
    return tuple(found)


def _of_curves(series: Mapping[str, Sequence[float]]) -> list[Finding]:
    found = []
    losses = [float(v) for v in series.get("loss", ())]
    if losses and not all(map(math.isfinite, losses)):
        step = next(i for i, value in enumerate(losses) if not math.isfinite(value))
        found.append(
            catalogue.finding(
                "divergence",
                f"the loss is {losses[step]} at step {step}"
                + (f"; it was {losses[step - 1]:.4g} before." if step else ", the first one recorded."),
                where={"step": step},
                evidence=(Evidence("curve", losses[-200:], name="loss"),),
            )
        )
    elif len(losses) >= 10:
        size = max(3, len(losses) // 10)
        medians = [statistics.median(losses[i : i + size]) for i in range(0, len(losses) - size + 1, size)]
        best, end = min(medians), medians[-1]
        if end > max(RISEN * best, best + abs(medians[0])) and end > medians[0]:
            found.append(
                catalogue.finding(
                    "divergence",
                    f"the loss rose from {best:.4g} (median over {size} steps) to {end:.4g} and stayed there.",
                    evidence=(Evidence("curve", medians, name="median loss"),),
                )
            )
    validation = [float(v) for v in series.get("val_loss", ()) if math.isfinite(float(v))]
    training = [float(v) for v in series.get("epoch/loss", ())]
    if len(validation) >= 4 and len(training) >= 4:
        best = min(validation)
        at = validation.index(best)
        tail = validation[at + 1 :]
        # What rose as far while the run was still getting better is how this validation part scatters.
        scatter = max((after - before for before, after in itertools.pairwise(validation[: at + 1])), default=0.0)
        if (
            len(tail) >= 3
            and best > 0
            and statistics.median(tail[-3:]) > max(RISEN_VALIDATION * best, best + scatter)
            and training[-1] < training[at]
        ):
            found.append(
                catalogue.finding(
                    "overfitting",
                    f"validation loss was best at epoch {at} ({best:.4g}) and ends at {tail[-1]:.4g}, while the "
                    f"training "
                    f"loss went on falling to {training[-1]:.4g}.",
                    where={"epoch": at, "split": "validation"},
                )
            )
    return found


def _of_classes(m: Mapping[str, float], baselines: Mapping[str, float], learnable: float | None) -> list[Finding]:
    if not m:
        return []
    found = []
    evidence = (Evidence("value", dict(m), name="metrics"),)
    to_find = learnable is not None and learnable > LEARNABLE
    if m["most_answered"] >= ONE_CLASS and m["majority_share"] < ONE_CLASS and (to_find or learnable is None):
        found.append(
            catalogue.finding(
                "class-collapse",
                f"{m['most_answered']:.0%} of the answers are one class; accuracy {m['accuracy']:.1%} is the share "
                f"of the "
                f"majority ({m['majority_share']:.1%}), and the recall of the worst class is {m['recall_min']:.0%}.",
                evidence=evidence,
            )
        )
    above = (m["accuracy"] - m["majority_share"]) / max(1 - m["majority_share"], 1e-9)
    if learnable is not None and to_find and m["majority_share"] < RARE and above < HALF * learnable:
        found.append(
            _not_learned(
                f"accuracy {m['accuracy']:.1%} on training rows, where one class has {m['majority_share']:.1%}",
                learnable,
                evidence,
            )
        )
    elif above <= 0 and m["majority_share"] < RARE:
        found.append(
            below(
                f"accuracy {m['accuracy']:.1%}",
                f"always answering the majority class ({m['majority_share']:.1%})",
                evidence,
            )
        )
    return found


def _of_regression(m: Mapping[str, float], baselines: Mapping[str, float], learnable: float | None) -> list[Finding]:
    if "r2" not in m:
        return []
    found = []
    evidence = (Evidence("value", dict(m), name="metrics"),)
    rho, s, bias = m["correlation"], m["std_ratio"], m["bias2_over_var"]
    words = f"R² = 2ρs − s² − bias²/σ² = {m['r2']:.3g}, with ρ = {rho:.3g}, s = {s:.3g}, bias²/σ² = {bias:.3g}"
    to_find = learnable is not None and learnable > LEARNABLE
    if s < FLAT_RATIO and (to_find or learnable is None):
        found.append(
            catalogue.finding(
                "variance-collapse", f"predictions have {s:.1%} of the targets' spread ({words}).", evidence=evidence
            )
        )
    if bias > OFFSET:
        found.append(
            catalogue.finding(
                "biased-predictions",
                f"predictions are off by a constant worth {100 * bias:.3g}% of the targets' variance ({words}).",
                evidence=evidence,
                score=min(1.0, bias),
            )
        )
    if to_find and learnable is not None and m["r2"] < HALF * learnable:
        found.append(_not_learned(words, learnable, evidence))
    else:
        best = max(baselines, key=lambda name: baselines[name], default=None)
        if best is not None and m["r2"] <= baselines[best]:
            found.append(below(f"R² {m['r2']:.3g}", f"the rule {best!r} ({baselines[best]:.3f})", evidence))
    return found


def _not_learned(what: str, learnable: float, evidence: tuple[Evidence, ...]) -> Finding:
    return catalogue.finding(
        "no-learning",
        f"{what}; a closed-form fit of the same rows explains {learnable:.0%} of rows held back. There is something to "
        "learn, and the model has not learned it.",
        evidence=evidence,
    )


def below(what: str, rule: str, evidence: tuple[Evidence, ...], **also: Any) -> Finding:
    """A warning that what was trained is worth no more than a rule that needs no training."""
    return catalogue.finding(
        "below-baseline", f"{what} is not better than {rule}.", evidence=evidence, status=Status.WARN, **also
    )
