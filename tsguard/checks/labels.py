"""Labels that the compiled loss cannot read. These break (or quietly bend) the very first step."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from tsguard import catalogue
from tsguard.checks.arrays import named_leaves
from tsguard.checks.bench import Bench
from tsguard.dataset import leaves
from tsguard.findings import Finding
from tsguard.probes.answers import Head, labels_of, question
from tsguard.probes.data import as_array, is_number
from tsguard.probes.graph import last_operation
from tsguard.probes.stage import has_own_step


def labels_that_do_not_fit(bench: Bench) -> Iterator[Finding]:
    """Labels that the compiled loss cannot read. These break (or quietly bend) the very first step."""
    if bench.step.answer is None:
        return
    crossed = list(_crossed(bench))
    if crossed:
        yield from crossed
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
            elif written == "real":
                yield _out_of_range(head, asked.name, units, float(y.min()), float(y.max()), where)
            else:
                yield from _numbers_beyond(bench, head, asked.name, units, where)
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
            elif written == "one-hot" and y.shape[-1] >= 3 and y.shape == head.answer.shape:
                if _is_softmax(head):
                    yield catalogue.finding(
                        "loss-mismatch",
                        f"output {head.name!r} is a softmax over {units} exclusive classes, and {asked.name} asks a "
                        "yes-or-no question of each. Use categorical_crossentropy.",
                        where=where,
                        score=0.8,
                    )
                elif (rows := _exclusive_rows(bench, head)) >= LEAST_EXCLUSIVE:
                    yield catalogue.finding(
                        "loss-mismatch",
                        f"output {head.name!r}: every one of {rows:,} rows of targets names exactly one of {units} "
                        f"classes, and {asked.name} asks of each by itself, yes or no: answers need not sum to one, "
                        "and most of the loss is about classes that are not there. Expected a softmax with "
                        "categorical_crossentropy where classes exclude each other.",
                        where=where,
                        status="WARN",
                        role="cause",
                        score=0.7,
                    )


def _crossed(bench: Bench) -> Iterator[Finding]:
    """An output that is asked yes or no gets amounts, while one that is asked for amounts gets yes and no."""
    told = [(h, question(h.loss).kind, labels_of(h.target)) for h in bench.heads if h.loss is not None]
    asked = [h for h, kind, written in told if kind == "binary" and written == "real"]
    given = [h for h, kind, written in told if kind == "regression" and written == "binary"]
    for one, other in itertools.product(asked, given):
        if one.target.shape == other.target.shape:
            yield catalogue.finding(
                "data-labels",
                f"output {one.name!r} is asked yes or no and its targets are amounts ({_range(one)}); output "
                f"{other.name!r} is asked for amounts and its targets are 0 and 1: the two are taught each other's "
                "targets. Expected targets in the order of the outputs; a dict by their names cannot be crossed.",
                where={"output": one.name},
                status="FAIL",
                role="cause",
                remedy=f"y={{{one.name!r}: …, {other.name!r}: …}}, and losses by name as well.",
                score=1.0,
            )
            return


def _range(head: Head) -> str:
    return f"{float(head.target.min()):.3g} … {float(head.target.max()):.3g}"


def _out_of_range(head: Head, name: str, units: int, low: float, high: float, where: dict[str, Any]) -> Finding:
    return catalogue.finding(
        "data-labels",
        f"output {head.name!r}: labels run from {low:g} to {high:g}, and {units} units with {name} expect whole "
        f"numbers 0 … {units - 1}.",
        where=where,
        score=1.0,
    )


def _numbers_beyond(bench: Bench, head: Head, name: str, units: int, where: dict[str, Any]) -> Iterator[Finding]:
    """Class numbers that no unit stands for, anywhere in the data: one row of them ends the run where it is met."""
    parts: list[tuple[str | None, Any]] = []
    if bench.data.is_arrays and not has_own_step(bench.model):  # a step of one's own may leave rows out
        held = bench.data.validation
        parts = [(None, bench.data.y)]
        parts += [("validation", held[1])] if isinstance(held, tuple | list) and len(held) >= 2 else []
    read = [(split, whole_target(bench, head, y)) for split, y in parts]
    seen = [(split, y) for split, y in read if y is not None] or [(None, head.target.detach().cpu().numpy())]
    ignored = getattr(head.loss, "ignore_class", None)
    for split, y in seen:
        asked = y.reshape(-1) if ignored is None else y[y != ignored]
        if asked.size and (float(asked.min()) < 0 or float(asked.max()) >= units):
            place = where if split is None else {**where, "split": split}
            yield _out_of_range(head, name, units, float(asked.min()), float(asked.max()), place)
            return


def whole_target(bench: Bench, head: Head, y: Any) -> Any:
    """All targets of this output; None where they are no arrays, one for each output."""
    listed = list(leaves(y))
    if len(listed) != len(bench.heads) or not all(hasattr(one, "shape") for one in listed):
        return None
    structured = dict(named_leaves(y, "y")) if isinstance(y, dict) else {}
    found = structured.get(head.name, as_array(listed[head.index]))
    return found if found.size and is_number(found) else None


LEAST_EXCLUSIVE = 100
"""Rows that all name exactly one class, from which labels that may come together are out of the question."""


def _exclusive_rows(bench: Bench, head: Head) -> int:
    """How many rows of the data name exactly one class; 0 where a row names none or several."""
    whole = whole_target(bench, head, bench.data.y) if bench.data.is_arrays else None
    if whole is None:
        return 0
    y = whole.reshape(-1, head.answer.shape[-1])
    exclusive = bool((((y == 0) | (y == 1)).all(axis=1) & (y.sum(axis=1) == 1)).all())
    return len(y) if exclusive and bool((y.sum(axis=0) > 0).all()) else 0


def _is_softmax(head: Head) -> bool:
    last = last_operation(head.answer)
    return last is not None and last.op in ("Softmax", "LogSoftmax")
