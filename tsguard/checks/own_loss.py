"""Losses of the user's own, against the output: what they are at answers that the output can give."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from tsguard import catalogue
from tsguard.checks.bench import Bench
from tsguard.evidence import Evidence
from tsguard.findings import Finding
from tsguard.probes.answers import Head, Reach, chosen, labels_of

SAME = 1e-5
"""Two losses that differ by less than this share are the same number in float32."""


def own_categorical_loss(
    bench: Bench, head: Head, range_: Reach, drawn: list[Any], where: dict[str, Any], evidence: tuple[Evidence, ...]
) -> Iterator[Finding]:
    """An own loss that is not finite at answers the output can give, or whose class numbers spread over the classes."""
    import torch

    if head.target is not None and labels_of(head.target) == "integer":
        units = int(head.answer.shape[-1])
        softmax = range_.sums_to_one == head.answer.ndim - 1 and units > 1
        target = head.target
        if softmax and tuple(target.shape) == (*head.answer.shape[:-1], 1) and _spreads(bench, head):
            yield catalogue.finding(
                "loss-mismatch",
                f"output {head.name!r} has {units} classes, and the own loss multiplies all of them by the class "
                f"number "
                f"(shape {tuple(target.shape)}): it does not choose the class's own unit. Encode the labels "
                f"one-hot, or "
                "use sparse_categorical_crossentropy.",
                where=where,
                score=1.0,
            )
            return
    classes = range_.sums_to_one or 0
    if range_.is_probability and classes and head.answer.shape[classes] > 1 and _takes_logits(bench, head, classes):
        yield catalogue.finding(
            "double-softmax",
            f"output {head.name!r} is a softmax, and the own loss applies another: it does not change when a "
            f"constant is "
            "added to all classes of a sample. Remove one of the two.",
            where=where,
            evidence=evidence,
            score=1.0,
        )
        return
    answers = list(bench.answers)
    if not math.isfinite(bench.loss_of(answers)):
        return
    if _all_at_once(bench, head, range_):
        yield catalogue.finding(
            "output-activation",
            f"output {head.name!r} can give every class its highest value at once ({range_.words}, and no sum that "
            "binds them), and the own loss is then as small as with right answers: it asks that the true class be "
            "high, and of the others nothing. Use a softmax over the classes, or let the loss weigh the others.",
            where=where,
            evidence=evidence,
            score=0.9,
        )
        return
    for value in drawn:
        answers[head.index] = value
        loss = bench.loss_of(answers)
        if bool(torch.isfinite(value).all()) and math.isnan(loss) and not range_.is_probability:
            yield catalogue.finding(
                "output-activation",
                f"output {head.name!r} can be anything in {range_.words}, and the own loss is NaN at some of it (it "
                f"takes "
                "a logarithm or a root of the answer). Close the output with the activation that the loss expects.",
                where=where,
                evidence=evidence,
                score=0.9,
            )
            return


def _all_at_once(bench: Bench, head: Head, range_: Reach) -> bool:
    """Whether one answer for all samples, every class at its highest, costs no more than the right answers."""
    import torch

    if head.target is None or labels_of(head.target) not in ("one-hot", "integer") or not range_.is_probability:
        return False
    units = int(head.answer.shape[-1])
    if units < 2 or range_.sums_to_one is not None or range_.high < 0.9:
        return False
    if labels_of(head.target) == "integer":
        if head.target.numel() * units != head.answer.numel() or float(head.target.max()) >= units:
            return False
        right = chosen(head.target, head.answer)
    elif tuple(head.target.shape) == tuple(head.answer.shape):
        right = head.target.float()
    else:
        return False
    answers = list(bench.answers)

    def loss_at(value: Any) -> float:
        answers[head.index] = value
        return bench.loss_of(answers)

    low, high = 0.02, 0.98
    even, best = loss_at(torch.full_like(right, high)), loss_at(low + (high - low) * right)
    wrong = loss_at(high - (high - low) * right)
    return math.isfinite(even) and wrong > best and even <= best + SAME * max(abs(best), abs(wrong))


def _takes_logits(bench: Bench, head: Head, axis: int) -> bool:
    """Whether the loss stays the same when each sample's answers are all moved by one constant, as a softmax does."""
    import torch

    generator = generator_of(3)
    answers = list(bench.answers)
    answer = torch.rand(head.answer.shape, generator=generator).to(head.answer.device).float()
    answers[head.index] = answer
    base = bench.loss_of(answers)
    slopes = bench.loss_of.slopes(answers)
    if not math.isfinite(base) or slopes is None or slopes[head.index] is None:
        return False
    if float(slopes[head.index].abs().max()) == 0.0:
        return False
    apart = [1 if place == axis else size for place, size in enumerate(head.answer.shape)]
    moves = torch.rand(apart, generator=generator).to(answer.device) * 3
    answers[head.index] = answer + moves
    return abs(bench.loss_of(answers) - base) <= 10 * SAME * max(abs(base), 1e-6)


def _spreads(bench: Bench, head: Head) -> bool:
    """Whether every sample's slope reaches all classes in the same way, whichever class is right."""
    import torch

    answers = list(bench.answers)
    uniform = torch.full_like(answers[head.index], 1.0 / head.answer.shape[-1])
    answers[head.index] = uniform
    slopes = bench.loss_of.slopes(answers)
    slope = None if slopes is None else slopes[head.index]
    if slope is None or float(slope.abs().max()) == 0:
        return False
    spread = (slope.max(-1).values - slope.min(-1).values).abs().max()
    return bool(spread < SAME * slope.abs().max())


def generator_of(seed: int = 7) -> Any:
    import torch

    return torch.Generator().manual_seed(seed)
