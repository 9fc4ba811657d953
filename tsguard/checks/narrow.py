"""Too few numbers on the way to an answer, whatever the weights are: for several classes, or for many values.

Where everything passes through one unit before the last layer, the scores of all classes are points on one line. They
can be put in an order along it, and most sets of classes have none. Where an answer of many values depends on a few
numbers only, as the code of an autoencoder, it holds no more than these.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tsguard import catalogue
from tsguard.checks.bench import Bench, set_up
from tsguard.checks.registry import Context, check
from tsguard.dataset import map_leaves
from tsguard.evidence import Evidence
from tsguard.findings import Finding
from tsguard.probes.answers import Head, draw_weights, labels_of, opened, predict
from tsguard.probes.stage import flat

LEAST_CLASSES = 4
"""Classes that no one draws along a line by accident: of three the middle one may well lie between the others."""

ONE_NUMBER = 1e-3
"""Second singular value of the scores over the first: float32 leaves 1e-6, a second unit some hundredths and more."""


LEAST_OUTPUTS = 4
"""Numbers of one answer below which the narrowest layer is no matter."""

MOST_NUMBERS = 8
"""Widths that are looked for: what is wider is no bottleneck to warn of unseen."""

DESCRIBED = 0.9
"""Share of the targets' variance that counts as all of it."""

HELD_BACK = 0.5
"""Share of that variance below which as many numbers as the model lets through tell too little."""

ROWS_ASKED = 16
"""Rows whose slopes are looked at: of units that are cut off at zero, other ones are open in each."""


@check("classes along one line", codes=("under-capacity",), needs=("model", "data", "y"), cost=2)
def classes_on_a_line(context: Context) -> Iterable[Finding]:
    """The scores of many classes, over the rows of a batch, at the weights as they are and at random ones."""
    import torch

    bench = set_up(context)
    if not bench.answered or bench.batch.rows < 2 * LEAST_CLASSES:
        return
    generator = torch.Generator().manual_seed(4)
    for head in bench.heads:
        units = int(head.answer.shape[-1]) if head.answer.ndim == 2 else 0
        given = [leaf for leaf in flat(bench.batch.x) if leaf.is_floating_point()]
        if units < LEAST_CLASSES or labels_of(head.target) not in ("integer", "one-hot"):
            continue
        if sum(leaf[0].numel() for leaf in given) == 1 or head.target.numel() not in (
            len(head.answer),
            units * len(head.answer),
        ):
            continue
        widths = []
        for scale in (None, 1.0, 1.0):
            bench.start.restore()
            if scale is not None:
                draw_weights(bench.model, scale, generator)
            widths.append(_second_over_first(opened(flat(predict(bench.model, bench.batch.x))[head.index])))
        bench.start.restore()
        if all(width is not None and width < ONE_NUMBER for width in widths):
            yield catalogue.finding(
                "under-capacity",
                f"output {head.name!r}: the scores of its {units} classes lie on one line, at the initial and at "
                "random weights: everything passes through one unit, and one number has to tell all classes apart. "
                "Expected at least a few units before the last layer.",
                where={"output": head.name},
                status="WARN",
                role="cause",
                evidence=(Evidence("value", widths, name="second singular value over the first"),),
                remedy="Widen the narrowest layer to as many units as there are classes, or more.",
                score=0.8,
            )
            return


def _second_over_first(scores: Any) -> float | None:
    """How far the scores of the rows are from lying on one line; None where they do not differ at all."""
    import torch

    if not bool(torch.isfinite(scores).all()):
        return None
    centred = scores - scores.mean(0, keepdim=True)
    values = torch.linalg.svdvals(centred - centred.mean(-1, keepdim=True))
    return float(values[1] / values[0]) if float(values[0]) > 0 else None


@check("answers through few numbers", codes=("under-capacity",), needs=("model", "data", "y"), cost=2)
def few_numbers(context: Context) -> Iterable[Finding]:
    """How many numbers an answer can depend on, whatever the weights are, and how many the targets are made of."""
    bench = set_up(context)
    if not bench.answered:
        return
    for head in bench.heads:
        size = int(head.answer[0].numel())
        fits = head.target is not None and tuple(head.target.shape) == tuple(head.answer.shape)
        if not fits or size < LEAST_OUTPUTS or labels_of(head.target) != "real":
            continue
        shares = _shares(bench, head)
        if shares is None or (needed := 1 + sum(share < DESCRIBED for share in shares)) > size / 2:
            continue  # many numbers of equal weight are noise, which nobody asks a model to keep
        passed = _passed(bench, head, min(size, needed, MOST_NUMBERS + 1))
        if passed is None or passed >= min(needed, MOST_NUMBERS + 1) or shares[passed - 1] >= HELD_BACK:
            continue
        yield catalogue.finding(
            "under-capacity",
            f"output {head.name!r}: everything passes through {passed} number{'s' * (passed > 1)}, at the initial and "
            f"at random weights, and the {size} targets of a row are made of {needed}: the best {passed} hold "
            f"{shares[passed - 1]:.0%} of what varies in them. Expected about {needed} units in the narrowest layer.",
            where={"output": head.name},
            status="WARN",
            role="cause",
            evidence=(Evidence("value", {"passed": passed, "needed": needed}, name="numbers behind an answer"),),
            remedy=f"Widen the narrowest layer to {needed} units or more.",
            score=0.8,
        )
        return


def _shares(bench: Bench, head: Head) -> list[float] | None:
    """Share of the targets' variance that their first principal components hold together: of one, of two …"""
    import torch

    targets = bench.targets_of(head).reshape(-1, int(head.answer[0].numel()))
    if len(targets) < 4 * LEAST_OUTPUTS or not bool(torch.isfinite(targets).all()):
        return None
    power = torch.linalg.svdvals(targets - targets.mean(0)) ** 2
    return (power.cumsum(0) / power.sum()).tolist() if float(power.sum()) > 0 else None


def _passed(bench: Bench, head: Head, most: int) -> int | None:
    """The greatest rank of the answer's slope in the inputs, over some rows and weights; None where it has none."""
    import torch

    generator = torch.Generator().manual_seed(6)
    rows = min(ROWS_ASKED, bench.batch.rows)
    ranks = []
    for scale in (None, 1.0, 1.0):
        bench.start.restore()
        if scale is not None:
            draw_weights(bench.model, scale, generator)
        inputs = map_leaves(lambda leaf: leaf[:rows].repeat_interleave(most, dim=0).detach(), bench.batch.x)
        floats = [leaf.requires_grad_() for leaf in flat(inputs) if leaf.is_floating_point()]
        if not floats:
            break
        try:
            answer = flat(bench.model(inputs, training=False))[head.index]
            weights = torch.randn(most, answer[0].numel(), generator=generator).repeat(rows, 1).to(answer)
            slopes = torch.autograd.grad((answer.reshape(len(answer), -1) * weights).sum(), floats, allow_unused=True)
        except Exception:  # an answer that is no function of its inputs, or of no such rows
            break
        given = [slope.reshape(rows, most, -1) for slope in slopes if slope is not None]
        if not given:
            break
        values = torch.linalg.svdvals(torch.cat(given, -1).double())
        if bool(torch.isfinite(values).all()) and float(values.max()) > 0:
            ranks.append(int((values > ONE_NUMBER * values[:, :1]).sum(-1).max()))
    bench.start.restore()
    return max(ranks) if len(ranks) == 3 and min(ranks) > 0 else None
