"""The bench: a model made ready on a few batches, its first step taken, so that a check can measure at once.

Every check sets up its own bench (the runner undoes what it did), so that no check depends on another having run. What
the first step showed is the same for all of them, and is taken once while the runner keeps a shelf for it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tsguard.checks.registry import Context
from tsguard.dataset import Data
from tsguard.findings import Finding, Role, Status
from tsguard.probes.answers import Head, LossOfAnswers, heads, predict
from tsguard.probes.score import sample
from tsguard.probes.stage import Batch, Snapshot, Step, flat, get_ready, has_own_step, measured_batches, take_step


@dataclass
class Bench:
    """A ready model and what its first step showed."""

    model: Any
    data: Data
    batches: list[Batch]
    start: Snapshot
    step: Step
    fit: Mapping[str, Any]
    """The arguments of `fit`, where they are known: batch_size, epochs, class_weight …"""

    @property
    def batch(self) -> Batch:
        return self.batches[0]

    @property
    def answers(self) -> list[Any]:
        return [answer.detach().float() for answer in flat(self.step.answer)]

    @property
    def heads(self) -> list[Head]:
        return heads(self.model, self.batch, self.step.answer)

    @property
    def loss_of(self) -> LossOfAnswers:
        return LossOfAnswers(self.model, self.batch, self.step.answer)

    @property
    def answered(self) -> bool:
        """Whether the step went through and its loss is a function of the model's own answer: an own step may ask the
        model about parts of a batch one after the other, and then no one answer is that of its rows."""
        if self.step.error is not None or self.step.root is None or self.step.answer is None:
            return False
        return not has_own_step(self.model) or any(
            answer.ndim == 0 or len(answer) >= self.batch.rows for answer in flat(self.step.answer)
        )

    def targets_of(self, head: Head) -> Any:
        """Targets of many rows, where the model has one output; those of the batch elsewhere."""
        rows = sample(self.data) if len(self.heads) == 1 else None
        listed = [] if rows is None else flat(rows.y)
        many = listed[0] if len(listed) == 1 else head.target
        return (many if many.shape[1:] == head.target.shape[1:] else head.target).float()

    def again(self, batch: Batch | None = None, **options: Any) -> Step:
        """One more step from the initial state."""
        self.start.restore()
        return take_step(self.model, self.batch if batch is None else batch, **options)


def not_asked(bench: Bench, *codes: str) -> list[Finding]:
    """What a check answers when the model's own step cannot be taken: nothing was looked at, and why."""
    error = bench.step.error
    reason = (
        f"{type(error).__name__}: {str(error).splitlines()[0]}" if error is not None else "it has no loss to follow"
    )
    return [
        Finding(code, Status.NOT_RUN, Role.NOTE, f"not asked: `train_step` on a batch of the data fails ({reason})")
        for code in codes
    ]


SHELF = "data.first steps"
"""Where the facts keep what the first step showed: by count and rows of the batches. As all that is the data's, it is
not handed on to a context of other data (`gathered`)."""


@contextlib.contextmanager
def shelf(context: Context) -> Iterator[None]:
    """While the same weights are asked again and again: their first step on the same batches is taken once."""
    context.facts[SHELF] = {}
    try:
        yield
    finally:
        context.facts.pop(SHELF, None)


def clear(context: Context) -> None:
    """Let go of the steps that were kept, and of the memory that they hold."""
    context.facts.get(SHELF, {}).clear()


def refusal(context: Context) -> Exception | None:
    """What the model says to the very data of its run, where it does not take it: its own step may feed it something
    else, as that of a generator does."""
    if context.model is None or context.data is None:
        return None
    try:
        rows = sample(context.data, 2)
        if rows is not None:
            predict(context.model, rows.x)
    except Exception as error:
        return error
    return None


def set_up(context: Context, *, count: int = 3, rows: int | None = None) -> Bench:
    """A bench for this context. The caller is inside the runner's `preserved`.

    The first step may be one that another check has taken: its graph can be read, and not be differentiated again.
    """
    assert context.data is not None
    kept: dict[Any, tuple[list[Batch], Snapshot, Step]] | None = context.facts.get(SHELF)
    if kept is not None and (count, rows) in kept:
        batches, start, step = kept[count, rows]
        context.model.train()
    else:
        batches, start, step = _first_step(context, count, rows)
        if kept is not None and step.error is None:
            kept[count, rows] = batches, start, step
    return Bench(context.model, context.data, batches, start, step, context.fit)


def _first_step(context: Context, count: int, rows: int | None) -> tuple[list[Batch], Snapshot, Step]:
    assert context.data is not None
    options = {} if rows is None else {"rows": rows}
    batches = measured_batches(context.data, count=count, batch_size=context.batch_size, **options)
    model = context.model
    failed: Exception | None = None
    try:
        get_ready(model, batches[0])
    except Exception as error:  # a model made for a loop of one's own may not take the data as `fit` would give it
        failed = error
    start = Snapshot(model)
    step = take_step(model, batches[0])
    if step.error is None and failed is not None:
        step.error = failed
    return batches, start, step


def name_of(layer: Any) -> str:
    """A layer's Keras path; its name where Keras has not given it a path yet."""
    return str(getattr(layer, "path", None) or layer.name)
