"""A loss over a selection that may be empty."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from tsguard import catalogue
from tsguard.checks.bench import Bench, not_asked, set_up
from tsguard.checks.registry import Context, check
from tsguard.dataset import Data
from tsguard.findings import Finding
from tsguard.probes.answers import LossOfAnswers, predict
from tsguard.probes.dispatch import nonfinite_producer
from tsguard.probes.stage import Batch, batch_of, flat

MAX_EMPTY_BATCHES = 64
"""Batches on which the loss is tried with random answers, to find one whose selection is empty."""


@check("loss over an empty selection", codes=("loss-empty-selection",), needs=("model", "data"), cost=3)
def empty_selection(context: Context) -> Iterable[Finding]:
    """A batch on which the loss divides nothing by nothing, found with the user's batch size on every part of the
    data."""
    bench = set_up(context)
    if bench.step.error is not None or bench.step.answer is None:
        yield from not_asked(bench, "loss-empty-selection")
        return
    for number, batch in enumerate(_batches_to_try(context, bench)):
        producer = nonfinite_producer(bench.model, batch, answers=None if number == 0 else bench.step.answer)
        if producer is None or not producer.empty:
            continue
        yield catalogue.finding(
            "loss-empty-selection",
            f"the loss of a batch of {batch.rows} samples is {producer.value} though answers and targets are finite: "
            f"`{producer.op}` gets {producer.reason}. Expected a loss that is defined when nothing is selected "
            "(select at least one element, or divide by maximum(count, 1)).",
            where={"phase": "loss", "op": producer.op, "batch": number, "file": producer.file, "line": producer.line},
            score=1.0,
        )
        return


def _batches_to_try(context: Context, bench: Bench) -> Iterator[Batch]:
    import numpy as np

    yield bench.batch
    data: Data = bench.data
    if not data.is_arrays:
        yield from bench.batches[1:]
        return
    size = context.batch_size
    total = len(data)
    rng = np.random.default_rng(1)
    in_order = [np.arange(s, min(s + size, total)) for s in range(0, total, size)][: MAX_EMPTY_BATCHES // 2]
    shuffled_rows = rng.permutation(total)
    mixed = [np.sort(shuffled_rows[s : s + size]) for s in range(0, total, size)][: MAX_EMPTY_BATCHES // 2]
    for index in [*mixed, *in_order]:
        yield batch_of(data.take(index))
    left_out = _left_out(context, bench, mixed)
    if left_out is not None:
        yield batch_of(data.take(left_out))


LIKELY = 0.05
"""Chance that the run meets a batch of nothing but such rows, from which it is asked what the loss makes of one."""

ASKED = 8
"""Batches of which it is seen which rows the loss leaves out."""


def _left_out(context: Context, bench: Bench, batches: list[Any]) -> Any:
    """As many rows as a batch has, all of them rows that the loss leaves out; None where no such batch is to be met.

    A row is left out where the loss has no slope at its answers. What share of all they are says how likely a batch is
    that holds no other.
    """
    import numpy as np

    size, silent, seen = context.batch_size, [], 0
    for index in batches[:ASKED]:
        batch = batch_of(bench.data.take(index))
        answer = predict(bench.model, batch.x)
        slopes = LossOfAnswers(bench.model, batch, answer).slopes(flat(answer))
        if slopes is None or any(s is None or len(s) != len(index) for s in slopes):
            return None
        heard = sum(s.reshape(len(index), -1).abs().sum(1) for s in slopes)
        silent += index[(heard == 0).cpu().numpy()].tolist()
        seen += len(index)
    updates = context.planned_steps or -(-len(bench.data) // size)
    if len(silent) < size or updates * (len(silent) / seen) ** size < LIKELY:
        return None
    return np.sort(np.array(silent[:size]))
