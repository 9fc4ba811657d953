"""Answers of (B, 1) and truths of (B,) that meet in a subtraction: each answer is compared with every truth.

Keras' own losses bring both to one shape; a loss written by hand, in an own loss, an own step or a layer that adds one,
does not. What is asked here is the step itself: the subtraction is seen where it happens, with its line.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tsguard import catalogue
from tsguard.checks.bench import set_up
from tsguard.checks.registry import Context, check
from tsguard.evidence import Evidence
from tsguard.findings import Finding
from tsguard.probes.dispatch import users_line
from tsguard.probes.stage import take_step

LEAST_ROWS = 3
"""Rows of a batch from which (B,) against (B, 1) is a table; one or two are told apart from a pair by nothing."""


@check("answers against the truths of other rows", codes=("loss-broadcast",), needs=("model", "data"), cost=2)
def crossed_rows(context: Context) -> Iterable[Finding]:
    """A difference of (B,) and (B, 1), of which one hangs on the weights and the other does not."""
    bench = set_up(context)
    rows = bench.batch.rows
    if bench.step.error is not None or rows < LEAST_ROWS:
        return
    seen: list[tuple[tuple[int, ...], tuple[int, ...], str | None, int | None]] = []
    with _listening(rows, seen):
        take_step(bench.model, bench.batch, record_calls=False)
    bench.start.restore()
    if not seen:
        return
    left, right, file, line = seen[0]
    place = f" in line {line} of {Path(file).name}" if file else ""
    yield catalogue.finding(
        "loss-broadcast",
        f"shapes {left} and {right} are subtracted{place} and give a table of {rows} by {rows}: every answer is "
        "compared with the truth of every row. Expected one difference for each row: give both the same shape, "
        "truth[:, None] or answer[:, 0].",
        where={"phase": "loss", **({"file": file, "line": line} if file else {})},
        status="FAIL",
        role="cause",
        evidence=(Evidence("value", [list(left), list(right)], name="shapes"),),
        score=0.95,
    )


def _listening(rows: int, seen: list[Any]) -> Any:
    import torch
    from torch.overrides import TorchFunctionMode

    subtractions = {torch.sub, torch.subtract, torch.rsub, torch.Tensor.sub, torch.Tensor.subtract}
    subtractions |= {torch.Tensor.__sub__, torch.Tensor.__rsub__}

    class Listening(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            if func in subtractions and len(args) > 1 and _crossed(args[0], args[1], rows):
                seen.append((tuple(args[0].shape), tuple(args[1].shape), *users_line()))
            return result

    return Listening()


def _crossed(left: Any, right: Any, rows: int) -> bool:
    import torch

    if not torch.is_tensor(left) or not torch.is_tensor(right) or left.requires_grad == right.requires_grad:
        return False
    return {tuple(left.shape), tuple(right.shape)} == {(rows,), (rows, 1)}
