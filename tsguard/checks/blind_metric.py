"""A metric of Keras that is the same for right and for wrong answers: it reads labels or answers as something else.

Nearly right answers are put in the place of the model's own, then those of other samples. A metric that does not tell
the two apart cannot say how good the model is: accuracy (exact equality) of amounts, class numbers for indicators, the
best five of five. Metrics of the user's own may watch anything; they are asked whether they hear answers at all.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from typing import Any

from tsguard import catalogue
from tsguard.checks.bench import set_up
from tsguard.checks.own_loss import SAME
from tsguard.checks.registry import Context, check
from tsguard.evidence import Evidence
from tsguard.findings import Finding
from tsguard.probes.answers import Head, chosen, labels_of, question

SURE = 0.9
"""Probability of the right class in a right answer."""

LOGIT = 4.0
"""… and its logit."""

BARE = 0.3
"""A logit that is right and no more: below the border of a metric that takes it for a probability."""

COUNTS_HITS = ("BinaryAccuracy", "Precision", "Recall", "AUC", "F1Score", "FBetaScore")
"""Metrics of Keras that are the same for all answers on the right side of their border."""

NEAR = 0.01
"""Distance of nearly right amounts, in deviations of the targets: what anybody would call right, and not equal."""

SHUFFLES = (1, 2, 3)
"""Orders of the rows from which wrong answers are taken."""


ENDED_BY_CHANCE = ("off-plan", "no-learning", "biased-predictions", "variance-collapse", "class-collapse")
"""What is seen of a run that ended, or of weights that were kept, at any moment."""


@check("metric that tells nothing", codes=("metric-disagrees",), needs=("model", "data", "y"), cost=2)
def blind_metric(context: Context) -> Iterable[Finding]:
    """Compiled metrics of a single output, at right and at wrong answers."""
    bench = set_up(context)
    if not bench.answered or len(bench.heads) != 1 or bench.batch.rows < 8:
        return
    head = bench.heads[0]
    right = _right_answers(head)
    if right is None:
        return
    wrong = [_of_others(right, seed) for seed in SHUFFLES]
    if not any(bool((one != right).any()) for one in wrong):
        return
    for metric in _compiled(bench.model):
        told = [_value(metric, head.target, answer) for answer in (right, *wrong)]
        if _alike(told) and (_is_of_keras(metric) or _compares(metric, head, [right, *wrong], told[0])):
            yield _blind(metric, head, told[0], steers=_steers(context, metric.name))
            return
    yield from _reads_logits_as_probabilities(bench.model, head)


def _alike(values: list[float]) -> bool:
    return all(abs(value - values[0]) <= SAME * max(1.0, abs(values[0])) for value in values)


def _compares(metric: Any, head: Head, answers: list[Any], value: float) -> bool:
    """Whether a metric of the user's own is about answers at all: one that watches a rate or a norm hears neither
    answers nor targets, and is not nothing or all of something."""
    far = [_value(metric, head.target, 10.0 * answer + 3.0) for answer in answers]
    others = [_value(metric, _of_others(head.target, seed), answers[0]) for seed in SHUFFLES]
    moved = [_value(metric, 2.0 * head.target.float() + 1.0, answers[0])]
    return _alike([value, *far]) and (value in (0.0, 1.0) or not _alike([value, *others, *moved]))


def _reads_logits_as_probabilities(model: Any, head: Head) -> Iterator[Finding]:
    """A metric that counts hits calls every right logit right, however small: one that does not has another border."""
    if head.loss is None or not question(head.loss).from_logits:
        return
    sure, bare = _right_answers(head), _right_answers(head, logit=BARE)
    if sure is None or bare is None:
        return
    for metric in filter(_is_of_keras, _compiled(model)):
        # What ranks answers is the same for all of them a step further down.
        other = sure - 2 * LOGIT if type(metric).__name__ == "AUC" else bare
        told, barely = (_value(metric, head.target, answer) for answer in (sure, other))
        if type(metric).__name__ in COUNTS_HITS and told - barely > SAME:
            yield catalogue.finding(
                "metric-disagrees",
                f"metric {metric.name!r} ({type(metric).__name__}) of output {head.name!r} is {told:.3g} where all "
                f"logits are right by {LOGIT:g} and {barely:.3g} where they are right by less, or lie lower: it takes "
                "them for probabilities, with borders between 0 and 1. Expected a border at 0, or a rank of logits.",
                where={"output": head.name, "config_key": "metrics"},
                status="WARN",
                role="cause",
                evidence=(Evidence("value", {"sure": told, "barely": barely}, name=metric.name),),
                remedy="keras.metrics.BinaryAccuracy(threshold=0), AUC(from_logits=True), or a sigmoid in the model.",
                score=0.5,
            )
            return


def _steers(context: Context, name: str) -> str | None:
    """The callback that stops the run, or keeps weights of it, by this metric."""
    for callback in context.fit.get("callbacks") or ():
        if str(getattr(callback, "monitor", "")) in (name, f"val_{name}"):
            return type(callback).__name__
    return None


def _blind(metric: Any, head: Head, value: float, *, steers: str | None) -> Finding:
    kind = type(metric).__name__
    acts = "" if steers is None else f" {steers} acts by it: when the run ends, or what is kept of it, is chance."
    return catalogue.finding(
        "metric-disagrees",
        f"metric {metric.name!r} ({kind}) is {value:.4g} for nearly right answers of output {head.name!r}, and "
        "the same "
        f"for answers that belong to other samples (targets are {labels_of(head.target)}, shape "
        f"{tuple(head.target.shape)}): it does not see whether the model is right. Expected a metric that reads "
        "these targets: mae or R² for amounts, "
        f"categorical for indicators, sparse for class numbers.{acts}",
        where={"output": head.name, "config_key": "metrics"},
        status="WARN" if steers is None else "FAIL",
        role="cause",
        evidence=(Evidence("value", value, name=metric.name),),
        remedy='compile(metrics=["mae"]) for amounts; metrics=["accuracy"] as a word lets Keras choose for classes.',
        score=0.5 if steers is None else 0.95,
        explains=() if steers is None else ENDED_BY_CHANCE,
    )


def _right_answers(head: Head, *, logit: float = LOGIT) -> Any:
    """Answers that anybody would call right, where it is known what the loss asks."""
    import torch

    if head.loss is None or head.target is None:
        return None
    asked, y, answer = question(head.loss), head.target, head.answer
    units = int(answer.shape[-1]) if answer.ndim > 1 else 1
    if asked.kind == "sparse" and units > 1 and y.numel() * units == answer.numel():
        if int(y.min()) < 0 or int(y.max()) >= units:
            return None
        right = chosen(y, answer)
    elif asked.kind in ("categorical", "binary") and tuple(y.shape) == tuple(answer.shape):
        right = y.float()
    elif asked.kind == "binary" and y.numel() == answer.numel():
        right = y.float().reshape(answer.shape)
    elif asked.kind == "regression" and y.numel() == answer.numel() and labels_of(y) in ("real", "integer"):
        noise = torch.randn(answer.shape, generator=torch.Generator().manual_seed(0)).to(answer.device)
        return y.float().reshape(answer.shape) + NEAR * float(y.float().std()) * noise
    else:
        return None
    if asked.from_logits:
        return logit * (2 * right - 1)
    return right * SURE + (1 - right) * (1 - SURE) / max(1, units - 1)


def _of_others(answers: Any, seed: int) -> Any:
    import torch

    order = torch.randperm(len(answers), generator=torch.Generator().manual_seed(seed)).to(answers.device)
    return answers[order]


def _compiled(model: Any) -> list[Any]:
    compiled = getattr(model, "_compile_metrics", None)
    return list(compiled.metrics) if compiled is not None and compiled.built else []


def _is_of_keras(metric: Any) -> bool:
    """Whether a metric is Keras' own, and wraps no function of the user's."""
    wrapped = str(getattr(getattr(metric, "_fn", None), "__module__", "keras."))
    return type(metric).__module__.startswith("keras.") and wrapped.startswith("keras.")


def _value(metric: Any, y: Any, answer: Any) -> float:
    """The metric of these answers; NaN, which equals nothing, where it has none."""
    import torch

    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            metric.reset_state()
            metric.update_state(y, answer)
            return float(metric.result())
    except Exception:  # a metric that cannot take these answers, or is no one number, is another matter
        return float("nan")
