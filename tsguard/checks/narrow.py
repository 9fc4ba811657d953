"""Several classes that one number has to tell apart, whatever the weights are.

Where everything passes through one unit before the last layer, the scores of all classes are points on one line. They
can be put in an order along it, and most sets of classes have none.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tsguard import catalogue
from tsguard.checks.bench import set_up
from tsguard.checks.registry import Context, check
from tsguard.evidence import Evidence
from tsguard.findings import Finding
from tsguard.probes.answers import draw_weights, labels_of, opened, predict
from tsguard.probes.stage import flat

LEAST_CLASSES = 4
"""Classes that no one draws along a line by accident: of three the middle one may well lie between the others."""

ONE_NUMBER = 1e-3
"""Second singular value of the scores over the first: float32 leaves 1e-6, a second unit some hundredths and more."""


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
