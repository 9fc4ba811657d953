"""What a loss does not care about, or wants the wrong way round: the size of answers, and their likeness to targets.

Answers are put in the place of the model's own. A loss for values is least where they equal the targets and greater
where they are turned round; one that stays the same when all answers are multiplied compares directions only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from tsguard import catalogue
from tsguard.checks.bench import Bench, not_asked, set_up
from tsguard.checks.lopsided import reports_central_error
from tsguard.checks.own_loss import SAME
from tsguard.checks.registry import Context, check
from tsguard.dataset import exchanged
from tsguard.evidence import Evidence
from tsguard.findings import Finding
from tsguard.probes.answers import Head, labels_of

SIZES = (0.5, 2.0, 4.0)
"""Factors by which answers are multiplied: an error changes by as much and more."""

VARYING = 0.05
"""Deviation of the targets' sizes from row to row, over their mean: rows of one length are compared by direction alone
on purpose."""


@check(
    "loss that wants other answers", codes=("loss-degenerate", "loss-mismatch"), needs=("model", "data", "y"), cost=3
)
def wrong_way_round(context: Context) -> Iterable[Finding]:
    """Is the loss least at the targets, and does it notice how large answers are?"""
    bench = set_up(context)
    if not bench.answered:
        yield from not_asked(bench, "loss-degenerate", "loss-mismatch")
        return
    for head in bench.heads:
        found = list(_one_column(bench, head)) or list(_turned_round(bench, head)) or list(_any_size(bench, head))
        yield from found[:1]


def _same_shape(head: Head) -> Any:
    """The targets as answers, where they could be answers; None otherwise."""
    if head.target is None or tuple(head.target.shape) != tuple(head.answer.shape):
        return None
    return head.target.float() if labels_of(head.target) in ("real", "binary", "one-hot", "shares") else None


def _one_column(bench: Bench, head: Head) -> Iterator[Finding]:
    """Indicator rows of which the loss reads the first column alone: it takes that for a class number."""
    y = head.target
    if y is None or labels_of(y) != "one-hot" or y.ndim != 2 or y.shape[-1] < 3:
        return
    other = y.clone()
    other[:, 1:] = y[:, 1:].roll(1, dims=1)
    if bool((other == y).all()):
        return
    base = bench.loss_of(bench.answers)
    given = bench.loss_of(bench.answers, y=exchanged(bench.batch.y, y, other))
    swapped = bench.loss_of(bench.answers, y=exchanged(bench.batch.y, y, y.roll(1, dims=1)))
    slack = SAME * max(abs(base), 1e-12)
    if not math.isfinite(base) or abs(given - base) > slack or abs(swapped - base) <= slack:
        return
    yield catalogue.finding(
        "loss-mismatch",
        f"output {head.name!r}: targets are rows of {y.shape[-1]} indicators, and the loss stays {base:.6g} when all "
        "but the first of them change places: it reads that one as a class number, which is 0 or 1. Expected class "
        "numbers for this loss, or a loss that reads indicators.",
        where={"output": head.name, "phase": "loss"},
        status="FAIL",
        role="cause",
        score=1.0,
    )


def _turned_round(bench: Bench, head: Head) -> Iterator[Finding]:
    """The loss at (nearly) right answers against that of the same answers mirrored at their middle."""
    wanted = _same_shape(head)
    # What yes and no stand for is the user's: a distance is small where a pair belongs together.
    if wanted is None or labels_of(head.target) == "binary":
        return
    values = labels_of(head.target) == "real"
    if values:
        middle = wanted.mean(0, keepdim=True)
        right = middle + 0.9 * (wanted - middle)
        levels = [right, middle + 0.3 * (wanted - middle), 2 * middle - right]
    else:
        # Well inside (0, 1), so that no logarithm meets its end, and with shares that still sum to one.
        even = wanted.mean(-1, keepdim=True)
        levels = [even + 0.8 * (wanted - even), even + 0.2 * (wanted - even), even - 0.05 * (wanted - even)]
    answers = list(bench.answers)
    losses = []
    for level in levels:
        answers[head.index] = level
        losses.append(bench.loss_of(answers))
    if not all(map(math.isfinite, losses)):
        return
    good, fair, turned = losses
    slack = SAME * max(map(abs, losses))
    if turned < min(good, fair) - slack:
        yield catalogue.finding(
            "loss-degenerate",
            f"output {head.name!r}: answers close to the targets cost {good:.4g}, answers further away {fair:.4g}, and "
            f"answers on the other side {turned:.4g}: the opposite is rewarded. Check the sign (a score that "
            "should be maximised is minimised as 1 − score).",
            where={"output": head.name, "phase": "loss"},
            evidence=(Evidence("value", {"right": good, "fair": fair, "opposite": turned}, name="loss"),),
            score=1.0,
        )


def _any_size(bench: Bench, head: Head) -> Iterator[Finding]:
    """Answers multiplied by a factor, to which the loss is deaf, where the targets have sizes."""
    import torch

    wanted = _same_shape(head)
    if wanted is None or labels_of(head.target) != "real" or wanted.ndim < 2:
        return
    sizes = wanted.reshape(len(wanted), -1).norm(dim=1)
    if float(sizes.std()) <= VARYING * float(sizes.mean()):
        return
    noise = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(4)).to(wanted.device)
    answer = wanted + 0.5 * float(wanted.std()) * noise
    answers = list(bench.answers)

    def loss_at(value: Any) -> float:
        answers[head.index] = value
        return bench.loss_of(answers)

    base, elsewhere = loss_at(answer), loss_at(float(wanted.std()) * noise)
    heard = abs(elsewhere - base)  # what the loss makes of other answers as large, in whatever unit
    scaled = [loss_at(factor * answer) for factor in SIZES]
    deaf = all(abs(value - base) <= 10 * SAME * max(abs(base), heard) for value in scaled)
    if not math.isfinite(base) or not deaf or heard <= 10 * SAME * abs(base):
        return
    told = reports_central_error(bench.model)
    yield catalogue.finding(
        "loss-mismatch",
        f"output {head.name!r}: the loss stays {base:.4g} when all answers are multiplied by "
        f"{', '.join(f'{s:g}' for s in SIZES)}: it compares directions and not amounts, and the targets' sizes vary by "
        f"{float(sizes.std() / sizes.mean()):.0%}"
        + (", while an error in their own units is reported" if told else "")
        + ". Use a loss for amounts (mse, mae, huber), or add one.",
        where={"output": head.name, "phase": "loss"},
        status="FAIL" if told else "WARN",
        score=0.9,
    )
