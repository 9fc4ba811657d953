"""Parts of an answer or of a target that the loss does not hear as its author meant.

Columns of an answer without a slope, one target for several answers, a column of the targets whose rows may be dealt to
anybody.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from tsguard import catalogue
from tsguard.checks.bench import Bench, set_up
from tsguard.checks.outputs import layer_of_output
from tsguard.checks.own_loss import SAME, generator_of
from tsguard.checks.registry import Context, check
from tsguard.dataset import exchanged
from tsguard.evidence import Evidence
from tsguard.findings import Finding
from tsguard.probes.answers import Head, labels_of, question, shuffled

MOST_COLUMNS = 64
"""Columns of an answer that are looked at one by one."""

DRAWS = 3
"""Random answers at which a slope must be missing: a maximum or a hinge is flat somewhere, not everywhere."""


@check(
    "parts that the loss does not hear", codes=("loss-degenerate", "loss-broadcast"), needs=("model", "data"), cost=3
)
def unheard_parts(context: Context) -> Iterable[Finding]:
    """Every output on its own; the first thing that is found of it."""
    bench = set_up(context)
    if not bench.answered or bench.batch.rows < 4:
        return
    base = bench.loss_of(bench.answers)
    if not math.isfinite(base):
        return
    columns = _columns_without_slope(bench)
    for head in bench.heads:
        answers = (_one_for_several(head), columns.get(head.index), _dealt_to_anybody(bench, head, base))
        yield from [answer for answer in answers if answer is not None][:1]


def _one_for_several(head: Head) -> Finding | None:
    """A distance between amounts where one number stands against several answers, which then all learn that number."""
    if head.target is None or head.loss is None or question(head.loss).kind != "regression":
        return None
    answer, target = tuple(head.answer.shape), tuple(head.target.shape)
    written = target if len(target) == len(answer) else (*target, 1)
    if len(written) != len(answer) or written == answer or written[0] != answer[0]:
        return None
    if any(b not in (1, a) for a, b in zip(answer, written, strict=True)):
        return None
    many = math.prod(answer) // math.prod(written)
    return catalogue.finding(
        "loss-broadcast",
        f"output {head.name!r} of shape {answer} is compared with targets of shape {target}: each target stands "
        f"against {many} answers, which all learn the same number. Expected targets of the output's shape; check how "
        "many steps or columns were cut for the target.",
        where={"phase": "loss", "output": head.name},
        status="WARN",
        role="cause",
        score=0.9,
    )


def _columns_without_slope(bench: Bench) -> dict[int, Finding]:
    """By output: columns of the answer that the loss does not depend on, beside others that it does."""
    import torch

    generator = generator_of()
    moved = [bench.answers]
    for _ in range(DRAWS):
        moved.append(
            [
                a + (0.5 * float(a.float().std()) + 0.01) * torch.randn(a.shape, generator=generator).to(a)
                for a in bench.answers
            ]
        )
    heard: list[Any] = [None] * len(bench.heads)
    for answers in moved:
        slopes = bench.loss_of.slopes(answers)
        if slopes is None or any(s is not None and not bool(torch.isfinite(s).all()) for s in slopes):
            return {}
        for number, slope in enumerate(slopes):
            if slope is not None and slope.ndim >= 2 and 2 <= slope.shape[-1] <= MOST_COLUMNS:
                mine = (slope != 0).reshape(-1, slope.shape[-1]).any(0)
                heard[number] = mine if heard[number] is None else heard[number] | mine
    found = {}
    for head, mine in zip(bench.heads, heard, strict=True):
        if mine is None or bool(mine.all()) or not bool(mine.any()):
            continue
        deaf = [int(column) for column in torch.nonzero(~mine).flatten()]
        if head.target is not None and tuple(head.target.shape) == tuple(head.answer.shape):
            continue  # a target for every column: which of them are asked for is told by `blind`
        named = _named_in_the_batch(head)
        deaf = [column for column in deaf if named is None or column in named]
        if not deaf:
            continue  # a loss of the label's own column alone hears the classes that its batch holds
        found[head.index] = catalogue.finding(
            "loss-degenerate",
            f"the loss does not depend on column(s) {deaf[:8]} of output {head.name!r} ({int(mine.shape[0])} columns), "
            "whatever stands there: nothing trains them. Expected a loss of every column; look for a `return` inside a "
            "loop, an index that stays, or a slice.",
            where={"output": head.name, "layer": layer_of_output(bench, head), "column": deaf[0]},
            evidence=(Evidence("value", deaf, name="columns without a slope"),),
            status="WARN",
            role="cause",
            score=0.8,
        )
    return found


def _named_in_the_batch(head: Head) -> set[int] | None:
    """The class numbers among the targets of a batch; None where they are no class numbers of these columns."""
    y = head.target
    if y is None or labels_of(y) not in ("integer", "binary"):
        return None
    named = {int(number) for number in y.unique().tolist()}
    return named if max(named) < head.answer.shape[-1] and min(named) >= 0 else None


def _dealt_to_anybody(bench: Bench, head: Head, base: float) -> Finding | None:
    """A column of the targets whose size counts and whose rows do not: every sample gets the mean of all."""
    y = head.target
    if y is None or y.ndim != 2 or not 2 <= y.shape[-1] <= 16 or not y.is_floating_point():
        return None
    scale = SAME * max(abs(base), 1e-12)
    for column in range(int(y.shape[-1])):
        spread = float(y[:, column].std())
        if spread == 0 or not math.isfinite(spread):
            continue
        others = [y.clone() for _ in range(DRAWS)]
        for seed, other in enumerate(others, start=1):
            other[:, column] = shuffled(y, seed)[:, column]
        if any(abs(_with(bench, y, other) - base) > scale for other in others):
            continue
        raised = y.clone()
        raised[:, column] += spread
        value = _with(bench, y, raised)
        if math.isfinite(value) and abs(value - base) > 100 * scale:
            return catalogue.finding(
                "loss-broadcast",
                f"column {column} of the targets of output {head.name!r} counts in the loss, and it does not matter "
                "which sample it belongs to: dealt to other samples the loss is the same. It is spread over all of "
                "them, as (B,) against (B, 1) does. Keep its last axis: `y[:, 1:2]` in place of `y[:, 1]`.",
                where={"phase": "loss", "output": head.name, "column": column},
                score=0.9,
            )
    return None


def _with(bench: Bench, y: Any, other: Any) -> float:
    return bench.loss_of(bench.answers, y=exchanged(bench.batch.y, y, other))
