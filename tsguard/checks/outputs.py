"""Can the output reach the targets, and does the loss read it as it is meant? Invariants that no seed changes.

The loss is treated as a function of answers, and the output as a set of answers that weights can reach. Most faults of
this kind are then one sentence: the best reachable answers are not good answers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from tsguard import catalogue
from tsguard.checks.bench import Bench, name_of, not_asked, set_up
from tsguard.checks.labels import labels_that_do_not_fit
from tsguard.checks.own_loss import SAME, own_categorical_loss
from tsguard.checks.registry import Context, check
from tsguard.dataset import leaves
from tsguard.evidence import Evidence
from tsguard.findings import Finding
from tsguard.probes.answers import Head, Reach, chosen, class_axis, heads, labels_of, question, reach
from tsguard.probes.graph import last_operation
from tsguard.probes.stage import Batch, has_own_loss

UNREACHABLE_SHARE = 0.05
"""Share of the targets' variance that lies outside the output's range and is therefore lost whatever is learned. Below
one twentieth, outliers and noise at the edge of the range explain it."""


FLOOR_SHARE = 0.1
"""A loss whose best reachable answers still cost a tenth of what ignorance costs has a floor that training will
feel."""


@check(
    "output that cannot reach the targets",
    codes=("output-activation", "loss-mismatch", "double-softmax", "data-labels"),
    needs=("model", "data"),
    cost=3,
)
def output_and_loss(context: Context) -> Iterable[Finding]:
    """Range of the output, kind of the loss, and writing of the labels, held against each other."""
    bench = set_up(context)
    found = list(labels_that_do_not_fit(bench))
    if found or not bench.answered:
        yield from found or not_asked(bench, "output-activation", "loss-mismatch", "double-softmax", "data-labels")
        return
    ranges, drawn = reach(bench.model, bench.batch, restore=bench.start.restore)
    for head, range_ in zip(bench.heads, ranges, strict=True):
        answers = list(_judge_head(bench, head, range_, [row[head.index] for row in drawn]))
        # One fault of an output is one finding: the first that applies is the most specific.
        yield from answers[:1]


def _judge_head(bench: Bench, head: Head, range_: Reach, drawn: list[Any]) -> Iterator[Finding]:
    asked = question(head.loss) if head.loss is not None else None
    where = {"output": head.name, "layer": layer_of_output(bench, head)}
    evidence = (Evidence("value", {"low": range_.low, "high": range_.high, "words": range_.words}, name="range"),)
    last = last_operation(head.answer)
    shape = last.op.lower() if last is not None else "its last operation"
    yield from _constant_output(head, range_, where, evidence, shape)
    yield from _wrong_axis(head, range_, where, evidence)
    if asked is not None and asked.kind == "count" and range_.low < 0:
        yield catalogue.finding(
            "output-activation",
            f"output {head.name!r} can be anything in {range_.words} ({shape}), and {asked.name} takes its logarithm: "
            "below zero there is none. Expected an output that is positive: add a softplus, or an exponential.",
            where=where,
            evidence=evidence,
            score=1.0,
            explains=("nonfinite-loss", "nonfinite-forward", "biased-predictions"),
        )
    if asked is not None and asked.kind in ("binary", "categorical"):
        yield from _one_of_several(head, range_, asked, where, evidence)
    if asked is not None and asked.kind in ("sparse", "categorical", "binary"):
        yield from _probabilities(bench, head, range_, asked, where, evidence, shape)
    if asked is not None and asked.kind == "regression":
        yield from _squared_error_on_classes(bench, head, range_, where)
    yield from _unreachable_targets(bench, head, range_, asked, where, evidence, shape)
    if (asked is not None and asked.kind == "own") or has_own_loss(bench.model):
        yield from own_categorical_loss(bench, head, range_, drawn, where, evidence)


def layer_of_output(bench: Bench, head: Head) -> str | None:
    """The layer that made this output."""
    for call in reversed(bench.step.calls):
        if call.layer is not bench.model and any(o is head.answer for o in leaves(call.output)):
            return name_of(call.layer)
    return None


def _constant_output(
    head: Head, range_: Reach, where: dict[str, Any], evidence: tuple[Evidence, ...], shape: str
) -> Iterator[Finding]:
    if shape == "nantonum":
        return  # constant because a NaN is replaced by a constant: another check's matter
    if range_.high - range_.low <= 1e-6 and head.target is not None and labels_of(head.target) != "constant":
        units = int(head.answer.shape[-1])
        yield catalogue.finding(
            "output-activation",
            f"output {head.name!r} is {range_.low:g} for every input and every weight ({shape} over {units} unit(s)). "
            "Expected an output that can vary: one unit takes a sigmoid, not a softmax.",
            where=where,
            evidence=evidence,
            score=1.0,
        )


def _wrong_axis(head: Head, range_: Reach, where: dict[str, Any], evidence: tuple[Evidence, ...]) -> Iterator[Finding]:
    axis, wanted = range_.sums_to_one, class_axis(head)
    if axis == 0:
        wanted = head.answer.ndim - 1 if wanted is None else wanted
    if axis is None or wanted is None or axis == wanted or min(head.answer.shape[axis], head.answer.shape[wanted]) < 2:
        return
    over = "the samples of the batch" if axis == 0 else f"axis {axis}"
    yield catalogue.finding(
        "output-activation",
        f"output {head.name!r} of shape {tuple(head.answer.shape)} sums to one over {over}, whatever the weights are; "
        f"expected over the classes (axis {wanted}). Give the softmax "
        f"`axis={-1 if wanted == head.answer.ndim - 1 else wanted}`.",
        where=where,
        evidence=evidence,
        score=1.0,
    )


SEVERAL = 0.05
"""Share of the rows with no label or with more than one, from which a row may have several: mistakes are rarer."""


def _one_of_several(
    head: Head, range_: Reach, asked: Any, where: dict[str, Any], evidence: tuple[Evidence, ...]
) -> Iterator[Finding]:
    """Rows of indicators that hold several labels or none, under an output that deals out one whole."""
    y = head.target
    if range_.sums_to_one != head.answer.ndim - 1 or labels_of(y) != "binary" or y.shape != head.answer.shape:
        return
    strange = float(((y.float().sum(-1) - 1).abs() > 0.5).float().mean())
    if y.shape[-1] < 2 or strange < SEVERAL:
        return
    yield catalogue.finding(
        "output-activation",
        f"output {head.name!r} sums to one over its {y.shape[-1]} units, and {strange:.0%} of the rows of its targets "
        f"hold no label or more than one: {asked.name} asks for each by itself, and a softmax takes from one what it "
        "gives another. Expected a sigmoid over labels that do not exclude each other.",
        where=where,
        evidence=evidence,
        score=1.0,
    )


def _probabilities(
    bench: Bench,
    head: Head,
    range_: Reach,
    asked: Any,
    where: dict[str, Any],
    evidence: tuple[Evidence, ...],
    shape: str,
) -> Iterator[Finding]:
    units = int(head.answer.shape[-1])
    many = asked.kind in ("sparse", "categorical")
    softmax = range_.sums_to_one == head.answer.ndim - 1
    if not asked.from_logits:
        if not range_.is_probability:
            wanted = "softmax" if many else "sigmoid"
            yield catalogue.finding(
                "output-activation",
                f"output {head.name!r} can be anything in {range_.words} ({shape}), and {asked.name} takes it for a "
                f"probability. Add a {wanted}, or compile the loss with from_logits=True.",
                where=where,
                evidence=evidence,
                score=1.0,
            )
        elif many and not softmax and units > 1:
            yield catalogue.finding(
                "output-activation",
                f"output {head.name!r} is {units} separate probabilities that do not sum to one ({shape}), and "
                f"{asked.name} chooses one class. Use a softmax over the last axis.",
                where=where,
                evidence=evidence,
                score=0.9,
            )
        elif many and softmax and units > 1 and -math.log(max(range_.high, 1e-9)) > FLOOR_SHARE * math.log(units):
            yield catalogue.finding(
                "double-softmax",
                f"output {head.name!r} sums to one, and no class can pass {range_.high:.3g} whatever the weights "
                f"are: a "
                f"softmax of a softmax ends at e/(e + C − 1) = {math.e / (math.e + units - 1):.3g}. Even perfect "
                f"answers "
                f"cost {-math.log(range_.high):.3g}. Remove one of the two.",
                where=where,
                evidence=evidence,
                score=1.0,
            )
        return
    if many and units > 1 and range_.bounded_below and not range_.bounded_above and range_.low >= 0:
        yield catalogue.finding(
            "output-activation",
            f"output {head.name!r} lies in {range_.words} ({shape}), and {asked.name} takes it for logits: no class "
            "can be spoken against, and where all are at the edge no gradient comes back. Remove the activation.",
            where=where,
            evidence=evidence,
            status="WARN",
            role="cause",
            score=0.9,
        )
        return
    best, free = _best_and_free(bench, head, range_, asked)
    ignorance = math.log(units) if many and units > 1 else math.log(2)
    if math.isfinite(best) and best - max(free, 0.0) > FLOOR_SHARE * ignorance:
        code = "double-softmax" if softmax else ("loss-mismatch" if range_.is_probability else "output-activation")
        floor = "log(1 + (C−1)/e)" if softmax and many else "the best this output can give"
        yield catalogue.finding(
            code,
            f"output {head.name!r} lies in {range_.words} ({shape}), and {asked.name} takes it for logits: even "
            f"perfect "
            f"answers cost {best:.4g} ({floor}), where {max(free, 0.0):.4g} is possible. Remove the activation, or set "
            "from_logits=False.",
            where=where,
            evidence=(*evidence, Evidence("value", best, name="loss of perfect answers")),
            score=1.0,
        )


def _best_and_free(bench: Bench, head: Head, range_: Reach, asked: Any) -> tuple[float, float]:
    """The loss of the best answers within the output's range, and of confident right answers without that limit."""
    y = head.target
    if asked.kind == "sparse":
        right = chosen(y, head.answer)
    else:
        right = y.float().reshape(head.answer.shape)
    low = range_.low if range_.bounded_below else -20.0
    high = range_.high if range_.bounded_above else 20.0
    answers = list(bench.answers)

    def loss_with(value: Any) -> float:
        answers[head.index] = value
        return float(head.loss(head.target, value))

    return loss_with(low + (high - low) * right), loss_with(-20.0 + 40.0 * right)


def _squared_error_on_classes(bench: Bench, head: Head, range_: Reach, where: dict[str, Any]) -> Iterator[Finding]:
    """A distance to a class number: classes have names, not places on a line."""
    written = labels_of(head.target)
    units = int(head.answer.shape[-1])
    name = question(head.loss).name
    if written == "none":
        return
    numbers = head.target.reshape(-1)
    classes = int(numbers.unique().numel())
    spread = written in ("integer", "binary") and units > 1 and _is_column(head.target, head.answer)
    softmax = range_.sums_to_one == head.answer.ndim - 1 and units > 1
    if spread and (softmax or classes <= units):
        yield catalogue.finding(
            "loss-mismatch",
            f"output {head.name!r} of shape {tuple(head.answer.shape)} is compared by {name} with class numbers of "
            f"shape "
            f"{tuple(head.target.shape)}, which are spread over all {units} units. Expected a loss that chooses a "
            f"class: "
            "sparse_categorical_crossentropy.",
            where=where,
            score=1.0,
        )
    elif units == 1 and written == "integer" and 3 <= classes <= 20 and _judged_by_accuracy(bench.model):
        yield catalogue.finding(
            "loss-mismatch",
            f"output {head.name!r}: {name} measures the distance to a class number ({classes} classes on one unit), "
            f"while "
            "the compiled metric is accuracy. Use one unit per class and sparse_categorical_crossentropy.",
            where=where,
            score=0.9,
        )
    else:
        yield from _numbered_classes(bench, head, where)


MIN_CLASSES, MAX_CLASSES = 3, 20
"""Numbers that name groups are few; two of them are an answer of yes or no, which a line can give as well."""

EVEN = 0.5
"""Share of an even share that the rarest class must have: counts and ranks fall off, names are drawn evenly."""


def _numbered_classes(bench: Bench, head: Head, where: dict[str, Any]) -> Iterator[Finding]:
    """Targets that are whole numbers by type, few and about equally frequent, on one unit of a distance."""
    import numpy as np

    if not bench.data.is_arrays or len(bench.heads) != 1 or int(head.answer.shape[-1]) != 1:
        return
    whole = np.asarray(next(iter(leaves(bench.data.y))))
    if whole.dtype.kind not in "iu" or whole.size != len(whole):
        return
    names, counts = np.unique(whole, return_counts=True)
    if not MIN_CLASSES <= len(names) <= MAX_CLASSES or counts.min() < EVEN * len(whole) / len(names):
        return
    yield catalogue.finding(
        "loss-mismatch",
        f"output {head.name!r}: {question(head.loss).name} measures the distance to the whole numbers "
        f"{', '.join(map(str, names[:8].tolist()))} ({whole.dtype}), all about equally frequent, as classes are: a "
        "class has a name and no place on a line. If these are classes, use one unit per class and "
        "sparse_categorical_crossentropy; if they are amounts, pass them as floats.",
        where=where,
        status="WARN",
        score=0.6,
    )


def _is_column(target: Any, answer: Any) -> bool:
    """Targets without a class axis (or with one of width 1) against an answer that has one."""
    rows = tuple(answer.shape[:-1])
    return tuple(target.shape) == rows or tuple(target.shape) == (*rows, 1)


def _judged_by_accuracy(model: Any) -> bool:
    return any("acc" in name for name in _metrics_of(model))


def _metrics_of(model: Any) -> list[str]:
    compiled = getattr(model, "_compile_metrics", None)
    said = getattr(compiled, "_user_metrics", None)
    return [str(getattr(one, "name", one)).lower() for one in leaves(said) if one is not None]


def _unreachable_targets(
    bench: Bench,
    head: Head,
    range_: Reach,
    asked: Any,
    where: dict[str, Any],
    evidence: tuple[Evidence, ...],
    shape: str,
) -> Iterator[Finding]:
    """How much of the targets' variance lies beyond what the output can be."""
    import torch

    if not (range_.bounded_below or range_.bounded_above) or range_.high - range_.low <= 1e-6:
        return
    y = _compared_with(bench, head, asked)
    if y is None:
        return
    low = range_.low if range_.bounded_below else -math.inf
    high = range_.high if range_.bounded_above else math.inf
    missed = float(torch.mean((y - y.clamp(low, high)) ** 2))
    variance = float(y.var(correction=0))
    if variance > 0 and missed > UNREACHABLE_SHARE * variance:
        outside = float(((y < low) | (y > high)).float().mean())
        yield catalogue.finding(
            "output-activation",
            f"output {head.name!r} lies in {range_.words} ({shape}) for every weight, and {outside:.0%} of the "
            f"targets, "
            f"which run from {float(y.min()):.3g} to {float(y.max()):.3g}, lie outside: R² cannot exceed "
            f"{1 - missed / variance:.2f}. Expected a linear output for such targets (or targets scaled into its "
            f"range).",
            where=where,
            evidence=(*evidence, Evidence("value", 1 - missed / variance, name="greatest possible R²")),
            score=1.0,
        )


def _compared_with(bench: Bench, head: Head, asked: Any) -> Any:
    """The target values that the output should equal, over several batches; None where equality is not what is
    asked."""
    import torch

    if asked is not None and asked.kind not in ("regression", "own"):
        return None
    if head.target is None:
        # An own loss without targets: an autoencoder is asked for its input, where shapes agree and equality is best.
        x = [leaf for leaf in leaves(bench.batch.x) if tuple(leaf.shape) == tuple(head.answer.shape)]
        if len(x) != 1 or not _equality_is_best(bench, head, x[0]):
            return None
        return x[0].float()
    if head.target.numel() != head.answer.numel() or not torch.is_tensor(head.target):
        return None
    if (asked is None or asked.kind == "own") and not _equality_is_best(bench, head, head.target):
        return None
    columns = [h.target for b in bench.batches for h in _targets_of(bench, head, b)]
    return torch.cat([c.float().reshape(-1) for c in columns])


def _targets_of(bench: Bench, head: Head, batch: Batch) -> list[Head]:
    return [h for h in heads(bench.model, batch, bench.step.answer) if h.index == head.index and h.target is not None]


def _equality_is_best(bench: Bench, head: Head, wanted: Any) -> bool:
    """Whether the loss is least where the answer equals what is wanted, tried against neighbours and other sizes."""
    import torch

    wanted = wanted.float().reshape(head.answer.shape)
    if not bool(torch.isfinite(wanted).all()):
        return False
    generator = torch.Generator().manual_seed(0)
    answers = list(bench.answers)

    def loss_at(value: Any) -> float:
        answers[head.index] = value
        return bench.loss_of(answers)

    at = loss_at(wanted)
    spread = float(wanted.std()) or 1.0
    near = [
        loss_at(wanted + spread * torch.randn(wanted.shape, generator=generator).to(wanted.device)) for _ in range(3)
    ]
    # Answers of the right direction in another size: a loss that does not care (a ratio, a correlation) asks for no
    # equality.
    near += [loss_at(wanted * scale) for scale in (0.7, 1.3)]
    return math.isfinite(at) and all(math.isfinite(value) and at < value - SAME * abs(value) for value in near)
