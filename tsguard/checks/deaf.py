"""A loss that is flat just where the targets lie, so that most answers among them cost the same."""

from __future__ import annotations

from typing import Any

from tsguard import catalogue
from tsguard.checks.bench import Bench
from tsguard.findings import Finding
from tsguard.probes.answers import labels_of

UNHEARD = 0.5
"""Share of answers, drawn among the targets, without any slope, from which a loss is deaf there and not only flat."""

FAR = 10.0
"""Deviations of the targets answers are moved by; a loss that is deaf there too leaves them out on purpose."""


def deaf_among_targets(bench: Bench, answers: list[Any], slopes: list[Any]) -> Finding | None:
    """A loss of real targets that is flat where they lie and not beyond: a logarithm cut off, a wide tolerance."""
    for head, slope in zip(bench.heads, slopes, strict=True):
        y = head.target
        if slope is None or y is None or tuple(y.shape) != tuple(head.answer.shape) or labels_of(y) != "real":
            continue
        deaf = slope == 0
        if float(deaf.float().mean()) <= UNHEARD:
            continue
        wakes = deaf & False
        for side in (-FAR, FAR):
            moved = list(answers)
            moved[head.index] = answers[head.index] + side * float(y.float().std())
            there = bench.loss_of.slopes(moved)
            if there is not None and there[head.index] is not None:
                wakes = wakes | (deaf & (there[head.index] != 0))
        share = float(wakes.float().mean())
        if share > UNHEARD:
            return catalogue.finding(
                "loss-mismatch",
                f"the loss does not change with {share:.0%} of the answers where they lie among the targets of output "
                f"{head.name!r} ({float(y.min()):.3g} to {float(y.max()):.3g}), and does far from them: it takes all "
                "of these for one, as a logarithm does that is cut off below zero. Use a loss that tells them apart "
                "(mse, mae, huber), or give targets in the range that this one is made for.",
                where={"output": head.name, "phase": "loss"},
                score=1.0,
            )
    return None
