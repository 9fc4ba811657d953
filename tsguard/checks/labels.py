"""Labels that the compiled loss cannot read. These break (or quietly bend) the very first step."""

from __future__ import annotations

from collections.abc import Iterator

from tsguard import catalogue
from tsguard.checks.bench import Bench
from tsguard.findings import Finding
from tsguard.probes.answers import Head, labels_of, question
from tsguard.probes.graph import last_operation


def labels_that_do_not_fit(bench: Bench) -> Iterator[Finding]:
    """Labels that the compiled loss cannot read. These break (or quietly bend) the very first step."""
    if bench.step.answer is None:
        return
    for head in bench.heads:
        if head.loss is None or head.target is None:
            continue
        asked, written = question(head.loss), labels_of(head.target)
        units = int(head.answer.shape[-1]) if head.answer.ndim > 1 else 1
        y = head.target.float()
        where = {"output": head.name}
        if asked.kind == "sparse":
            if written in ("one-hot", "shares") and y.ndim == head.answer.ndim:
                yield catalogue.finding(
                    "data-labels",
                    f"output {head.name!r}: labels are indicator rows of width {y.shape[-1]}, and {asked.name} expects "
                    "class numbers. Use categorical_crossentropy, or y.argmax(-1).",
                    where=where,
                    score=1.0,
                )
            elif units == 1:
                yield catalogue.finding(
                    "loss-mismatch",
                    f"output {head.name!r} has one unit, and {asked.name} chooses among units: with one there is "
                    "nothing to choose. Use one unit per class, or a sigmoid with binary_crossentropy.",
                    where=where,
                    score=1.0,
                )
            elif written == "real" or float(y.min()) < 0 or float(y.max()) >= units:
                yield catalogue.finding(
                    "data-labels",
                    f"output {head.name!r}: labels run from {float(y.min()):g} to {float(y.max()):g}, and {units} "
                    f"units "
                    f"with {asked.name} expect whole numbers 0 … {units - 1}.",
                    where=where,
                    score=1.0,
                )
        elif asked.kind == "categorical":
            if written not in ("one-hot", "shares") and not (units == 1 and written in ("binary", "constant")):
                code = "data-labels"
                yield catalogue.finding(
                    code,
                    f"output {head.name!r}: {asked.name} expects rows that sum to one, as wide as the output "
                    f"({units}); received {written} labels of shape {tuple(y.shape)}. "
                    "Use sparse_categorical_crossentropy for class numbers, or encode them one-hot.",
                    where=where,
                    score=1.0,
                )
        elif asked.kind == "binary":
            if float(y.min()) < -1e-6 or float(y.max()) > 1 + 1e-6:
                code = "loss-mismatch" if written == "integer" and float(y.min()) >= 0 and units == 1 else "data-labels"
                yield catalogue.finding(
                    code,
                    f"output {head.name!r}: {asked.name} answers yes or no and expects targets from 0 to 1; received "
                    f"{float(y.min()):g} … {float(y.max()):g} ({written}).",
                    where=where,
                    score=1.0,
                )
            elif written == "one-hot" and y.shape[-1] >= 3 and y.shape == head.answer.shape and _is_softmax(head):
                yield catalogue.finding(
                    "loss-mismatch",
                    f"output {head.name!r} is a softmax over {units} exclusive classes, and {asked.name} asks a "
                    f"yes-or-no "
                    "question of each. Use categorical_crossentropy.",
                    where=where,
                    score=0.8,
                )


def _is_softmax(head: Head) -> bool:
    last = last_operation(head.answer)
    return last is not None and last.op in ("Softmax", "LogSoftmax")
