"""Do output, loss and targets belong together? Asked before training, by invariants that do not depend on the seed.

The loss is treated as a function of answers, and the output as a set of answers that weights can reach. Most faults of
this kind are then one sentence: the best reachable answers are not good answers, or the loss cannot tell them apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tsguard import catalogue
from tsguard.checks.bench import Bench, batch_size, name_of, not_asked, set_up
from tsguard.checks.registry import Context, check
from tsguard.dataset import Data, leaves, map_leaves
from tsguard.evidence import Evidence
from tsguard.findings import Finding
from tsguard.probes.answers import Head, Reach, draw_weights, heads, labels_of, question, reach, shuffled
from tsguard.probes.dispatch import nonfinite_producer
from tsguard.probes.gradients import term_gradients
from tsguard.probes.graph import last_operation, leaf_tensors, walk
from tsguard.probes.stage import Batch, as_tensor, has_own_loss, take_step

UNREACHABLE_SHARE = 0.05
"""Share of the targets' variance that lies outside the output's range and is therefore lost whatever is learned. Below
one twentieth, outliers and noise at the edge of the range explain it."""

FLOOR_SHARE = 0.1
"""A loss whose best reachable answers still cost a tenth of what ignorance costs has a floor that training will
feel."""

SAME = 1e-5
"""Two losses that differ by less than this share are the same number in float32."""

DROWNED = 1000.0
"""Ratio of gradient norms in shared weights from which the smaller term cannot be told from rounding of the larger
one's noise: float32 batches of 32 have a gradient noise of about 1/√32 of the norm, hundreds of times that is
nothing."""

LOUD = 100.0
"""Gradient norm far beyond the order of one that usual rates and clip thresholds are made for."""

MAX_EMPTY_BATCHES = 64
"""Batches on which the loss is tried with random answers, to find one whose selection is empty."""


@check(
    "output that cannot reach the targets",
    codes=("output-activation", "loss-mismatch", "double-softmax", "data-labels"),
    needs=("model", "data"),
    cost=3,
)
def output_and_loss(context: Context) -> Iterable[Finding]:
    """Range of the output, kind of the loss, and writing of the labels, held against each other."""
    bench = set_up(context)
    found = list(_labels_that_do_not_fit(bench))
    if found or not bench.answered:
        yield from found or not_asked(bench, "output-activation", "loss-mismatch", "double-softmax", "data-labels")
        return
    ranges, drawn = reach(bench.model, bench.batch, restore=bench.start.restore)
    for head, range_ in zip(bench.heads, ranges, strict=True):
        answers = list(_judge_head(bench, head, range_, [row[head.index] for row in drawn]))
        # One fault of an output is one finding: the first that applies is the most specific.
        yield from answers[:1]


def _labels_that_do_not_fit(bench: Bench) -> Iterator[Finding]:
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


def _judge_head(bench: Bench, head: Head, range_: Reach, drawn: list[Any]) -> Iterator[Finding]:
    asked = question(head.loss) if head.loss is not None else None
    where = {"output": head.name, "layer": _last_layer(bench, head)}
    evidence = (Evidence("value", {"low": range_.low, "high": range_.high, "words": range_.words}, name="range"),)
    last = last_operation(head.answer)
    shape = last.op.lower() if last is not None else "its last operation"
    yield from _constant_output(head, range_, where, evidence, shape)
    yield from _wrong_axis(head, range_, where, evidence)
    if asked is not None and asked.kind in ("sparse", "categorical", "binary"):
        yield from _probabilities(bench, head, range_, asked, where, evidence, shape)
    if asked is not None and asked.kind == "regression":
        yield from _squared_error_on_classes(bench, head, range_, where)
    yield from _unreachable_targets(bench, head, range_, asked, where, evidence, shape)
    if (asked is not None and asked.kind == "own") or has_own_loss(bench.model):
        yield from _own_categorical_loss(bench, head, range_, drawn, where, evidence)


def _last_layer(bench: Bench, head: Head) -> str | None:
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
    last = head.answer.ndim - 1
    axis = range_.sums_to_one
    if axis is None or axis == last or head.answer.shape[axis] < 2 or head.answer.shape[last] < 2:
        return
    over = "the samples of the batch" if axis == 0 else f"axis {axis}"
    yield catalogue.finding(
        "output-activation",
        f"output {head.name!r} of shape {tuple(head.answer.shape)} sums to one over {over}, whatever the weights are; "
        f"expected over the classes (axis {last}). Give the softmax `axis=-1`.",
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
    import torch

    y = head.target
    if asked.kind == "sparse":
        index = y.long().reshape(head.answer.shape[:-1])
        right = torch.nn.functional.one_hot(index, head.answer.shape[-1]).float()
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


def _is_column(target: Any, answer: Any) -> bool:
    """Targets without a class axis (or with one of width 1) against an answer that has one."""
    rows = tuple(answer.shape[:-1])
    return tuple(target.shape) == rows or tuple(target.shape) == (*rows, 1)


def _judged_by_accuracy(model: Any) -> bool:
    compiled = getattr(model, "_compile_metrics", None)
    said = getattr(compiled, "_user_metrics", None)
    return any("acc" in str(getattr(one, "name", one)).lower() for one in leaves(said) if one is not None)


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
    """Whether the loss is least where the answer equals what is wanted (tried against three random neighbours)."""
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
    return math.isfinite(at) and all(math.isfinite(value) and at < value for value in near)


def _own_categorical_loss(
    bench: Bench, head: Head, range_: Reach, drawn: list[Any], where: dict[str, Any], evidence: tuple[Evidence, ...]
) -> Iterator[Finding]:
    """An own loss that is not finite at answers the output can give, or whose class numbers spread over the classes."""
    import torch

    if head.target is not None and labels_of(head.target) == "integer":
        units = int(head.answer.shape[-1])
        softmax = range_.sums_to_one == head.answer.ndim - 1 and units > 1
        target = head.target
        if softmax and tuple(target.shape) == (*head.answer.shape[:-1], 1) and _spreads(bench, head):
            yield catalogue.finding(
                "loss-mismatch",
                f"output {head.name!r} has {units} classes, and the own loss multiplies all of them by the class "
                f"number "
                f"(shape {tuple(target.shape)}): it does not choose the class's own unit. Encode the labels "
                f"one-hot, or "
                "use sparse_categorical_crossentropy.",
                where=where,
                score=1.0,
            )
            return
    twice = _takes_logits(bench, head) if range_.is_probability and head.answer.ndim > 1 else False
    if twice and head.answer.shape[-1] > 1 and range_.sums_to_one == head.answer.ndim - 1:
        yield catalogue.finding(
            "double-softmax",
            f"output {head.name!r} is a softmax, and the own loss applies another: it does not change when a "
            f"constant is "
            "added to all classes of a sample. Remove one of the two.",
            where=where,
            evidence=evidence,
            score=1.0,
        )
        return
    answers = list(bench.answers)
    if not math.isfinite(bench.loss_of(answers)):
        return
    for value in drawn:
        answers[head.index] = value
        loss = bench.loss_of(answers)
        if bool(torch.isfinite(value).all()) and math.isnan(loss) and not range_.is_probability:
            yield catalogue.finding(
                "output-activation",
                f"output {head.name!r} can be anything in {range_.words}, and the own loss is NaN at some of it (it "
                f"takes "
                "a logarithm or a root of the answer). Close the output with the activation that the loss expects.",
                where=where,
                evidence=evidence,
                score=0.9,
            )
            return


def _takes_logits(bench: Bench, head: Head) -> bool:
    """Whether the loss stays the same when each sample's answers are all moved by one constant, as a softmax does."""
    import torch

    generator = _generator(3)
    answers = list(bench.answers)
    answer = torch.rand(head.answer.shape, generator=generator).to(head.answer.device).float()
    answers[head.index] = answer
    base = bench.loss_of(answers)
    slopes = bench.loss_of.slopes(answers)
    if not math.isfinite(base) or slopes is None or slopes[head.index] is None:
        return False
    if float(slopes[head.index].abs().max()) == 0.0:
        return False
    moves = torch.rand((*head.answer.shape[:-1], 1), generator=generator).to(answer.device) * 3
    answers[head.index] = answer + moves
    return abs(bench.loss_of(answers) - base) <= 10 * SAME * max(abs(base), 1e-6)


def _spreads(bench: Bench, head: Head) -> bool:
    """Whether every sample's slope reaches all classes in the same way, whichever class is right."""
    import torch

    answers = list(bench.answers)
    uniform = torch.full_like(answers[head.index], 1.0 / head.answer.shape[-1])
    answers[head.index] = uniform
    slopes = bench.loss_of.slopes(answers)
    slope = None if slopes is None else slopes[head.index]
    if slope is None or float(slope.abs().max()) == 0:
        return False
    spread = (slope.max(-1).values - slope.min(-1).values).abs().max()
    return bool(spread < SAME * slope.abs().max())


@check(
    "loss that does not depend on what it should",
    codes=("loss-degenerate", "loss-broadcast", "loss-mismatch"),
    needs=("model", "data"),
    cost=3,
)
def blind_loss(context: Context) -> Iterable[Finding]:
    """Constant, unbounded below, blind to an output, to the targets or to which target belongs to which answer."""
    bench = set_up(context)
    if bench.step.error is not None or bench.step.root is None or bench.step.answer is None:
        yield from not_asked(bench, "loss-degenerate", "loss-broadcast")
        return
    if _no_weight_matters(bench):
        if math.isfinite(bench.step.loss) and not _hides_a_nan(bench):
            yield _constant_loss(bench.step.loss)
        return
    generator = _generator()
    answers = [_random_like(a, generator, h.target) for a, h in zip(bench.answers, bench.heads, strict=True)]
    loss_of = bench.loss_of
    base = loss_of(answers)
    slopes = loss_of.slopes(answers)
    if slopes is None or not math.isfinite(base):
        answers = bench.answers
        base, slopes = loss_of(answers), loss_of.slopes(answers)
    if slopes is None or not math.isfinite(base):
        return
    flat_heads = [h for h, s in zip(bench.heads, slopes, strict=True) if s is None or float(s.abs().max()) == 0.0]
    if len(flat_heads) == len(slopes):
        return
    for head in flat_heads:
        if head.target is not None and _has_own_weights(bench, head):
            yield catalogue.finding(
                "loss-degenerate",
                f"the loss does not change with output {head.name!r}, which has a target and weights of its own: "
                f"nothing "
                "trains them. Give this output a loss, or remove it.",
                where={"output": head.name, "layer": _last_layer(bench, head)},
                score=1.0,
            )
    unbounded = _unbounded_below(bench, answers, slopes, base)
    if unbounded is not None:
        yield unbounded
    yield from _blind_to_targets(bench, answers, base)


def _constant_loss(value: float) -> Finding:
    return catalogue.finding(
        "loss-degenerate",
        f"the loss is {value:g} whatever the model answers, and no weight has a gradient. Expected a loss that "
        f"falls as "
        "answers get better: check that it compares the answer with the target and not with itself.",
        where={"phase": "loss"},
        score=1.0,
    )


def _no_weight_matters(bench: Bench) -> bool:
    """No gradient at the initial state nor at random weights, on any measured batch."""
    if not bench.model.trainable_variables:
        return False
    generator = _generator()
    for batch in bench.batches:
        for scale in (None, 0.5, 1.0):
            bench.start.restore()
            if scale is not None:
                draw_weights(bench.model, scale, generator)
            step = take_step(bench.model, batch, record_calls=False)
            for _, gradients, _ in step.fed:
                # Not `> 0`: a NaN gradient matters too.
                if any(g is not None and float(g.abs().max()) != 0.0 for g in gradients):
                    bench.start.restore()
                    return False
    bench.start.restore()
    return True


def _hides_a_nan(bench: Bench) -> bool:
    producer = nonfinite_producer(bench.model, bench.batch)
    return producer is not None and producer.absorbed


def _has_own_weights(bench: Bench, head: Head) -> bool:
    """Whether some trainable weight reaches this output and gets nothing from the loss."""
    reached = leaf_tensors(bench.step.root)
    return any(key not in reached for key in leaf_tensors(head.answer))


def _generator(seed: int = 7) -> Any:
    import torch

    return torch.Generator().manual_seed(seed)


def _random_like(answer: Any, generator: Any, target: Any = None) -> Any:
    """Answers that differ from sample to sample: within the simplex where the output is one, else of the targets' size.

    Small answers beside large targets would hide from the loss which target belongs to which answer.
    """
    import torch

    noise = torch.rand(answer.shape, generator=generator).to(answer)
    low, high = float(answer.min()), float(answer.max())
    if low >= 0 and high <= 1:
        value = 0.1 + 0.8 * noise
        last = answer.ndim >= 2 and bool(torch.all((answer.sum(-1) - 1).abs() < 1e-3))
        return value / value.sum(-1, keepdim=True) if last else value
    if target is not None and target.numel() == answer.numel() and labels_of(target) in ("real", "integer"):
        wanted = target.float()
        return float(wanted.mean()) + 1.7 * float(wanted.std()) * (2 * noise - 1)
    spread = max(float(answer.std()) if answer.numel() > 1 else 0.0, 0.1)
    return answer + spread * (2 * noise - 1) * 1.7


def _unbounded_below(bench: Bench, answers: list[Any], slopes: list[Any], base: float) -> Finding | None:
    """Follow the downward slope of free answers a long way: a loss with a floor stops falling."""
    ranges, _ = reach(bench.model, bench.batch, restore=bench.start.restore, draws=2)
    values = []
    for far in (1e1, 1e2, 1e3, 1e4):
        moved = []
        for answer, slope, range_ in zip(answers, slopes, ranges, strict=True):
            direction = 0.0 if slope is None else -slope.sign()
            low = range_.low if range_.bounded_below else -math.inf
            high = range_.high if range_.bounded_above else math.inf
            moved.append((answer + far * direction).clamp(low, high))
        values.append(bench.loss_of(moved))
    # A distance or a likelihood rises again or flattens; a loss without a floor falls in proportion (×10 per decade).
    falling = all(later < earlier for earlier, later in zip([base, *values], values, strict=False))
    if falling and values[-1] < 0 and values[-1] < 5 * values[-2] < 0:
        return catalogue.finding(
            "loss-degenerate",
            f"the loss has no lower bound: from {base:.3g} at the model's own answers it falls to {values[1]:.3g}, "
            f"{values[2]:.3g} and {values[3]:.3g} as answers run away by 10², 10³ and 10⁴. Expected a loss that is "
            f"least at "
            "good answers: check a sign, a missing square, or a term that rewards size.",
            where={"phase": "loss"},
            score=1.0,
        )
    return None


def _blind_to_targets(bench: Bench, answers: list[Any], base: float) -> Iterator[Finding]:
    import torch

    y = bench.batch.y
    targets = [leaf for leaf in leaves(y) if torch.is_tensor(leaf)]
    if not targets or bench.batch.rows < 4 or all(labels_of(t) == "constant" for t in targets):
        return
    if any(not bool(torch.isfinite(t.float()).all()) for t in targets):
        return
    scale = max(abs(base), 1e-12)

    def blind_under(changed: Iterable[Any]) -> bool:
        return all(abs(bench.loss_of(answers, y=other) - base) <= SAME * scale for other in changed)

    if not blind_under(shuffled(y, seed) for seed in (1, 2, 3)):
        yield from _blind_columns(bench, answers, base, scale)
        return
    reshaped = _in_answers_shape(bench, y)
    if reshaped is not None:
        aligned = bench.loss_of(answers, y=reshaped)
        pairs_matter = any(
            abs(bench.loss_of(answers, y=shuffled(reshaped, s)) - aligned) > SAME * max(abs(aligned), 1e-12)
            for s in (1, 2, 3)
        )
        if pairs_matter:
            shapes = ", ".join(
                f"{tuple(h.target.shape)} against {tuple(h.answer.shape)}" for h in bench.heads if h.target is not None
            )
            yield catalogue.finding(
                "loss-broadcast",
                f"the loss stays {base:.6g} when the targets are dealt to other samples: shapes {shapes} broadcast, so "
                f"that every answer is compared with every target. With equal shapes the loss is {aligned:.6g} and the "
                "pairing counts. Reshape the targets to the shape of the output.",
                where={"phase": "loss"},
                evidence=(Evidence("value", {"as given": base, "equal shapes": aligned}, name="loss"),),
                score=1.0,
            )
            return
    if _same_as_input(bench) or not _targets_vary(targets):
        return
    if any(labels_of(target) == "one-hot" for target in targets):
        yield catalogue.finding(
            "loss-mismatch",
            f"the loss stays {base:.6g} when the rows of indicators are dealt to other samples: it does not read "
            f"them as "
            "classes (a loss that picks by class number gets zeros and ones). Use class numbers, or a "
            "categorical loss.",
            where={"phase": "loss"},
            score=0.9,
        )
        return
    moved = map_leaves(lambda leaf: leaf + 1 if leaf.is_floating_point() else leaf, y)
    if abs(bench.loss_of(answers, y=moved) - base) > SAME * scale and len(targets) == 1:
        yield catalogue.finding(
            "loss-broadcast",
            f"the loss depends on the targets and stays {base:.6g} when they are dealt to other samples: every "
            f"answer is "
            "compared with every target, as (B,) against (B, 1) does. Give both the same shape inside the loss.",
            where={"phase": "loss"},
            score=0.9,
        )
        return
    spread = [h for h in bench.heads if h.target is not None and h.target.numel() < h.answer.numel()]
    if spread:
        shapes = ", ".join(f"{tuple(h.target.shape)} against {tuple(h.answer.shape)}" for h in spread)
        yield catalogue.finding(
            "loss-broadcast",
            f"the loss stays {base:.6g} when the targets are dealt to other samples: shapes {shapes} broadcast, and "
            f"what is "
            "compared no longer depends on the pairing. Expected targets of the output's shape, or a loss for class "
            "numbers.",
            where={"phase": "loss"},
            score=0.8,
        )
        return
    yield catalogue.finding(
        "loss-degenerate",
        f"the loss stays {base:.6g} when the targets are dealt to other samples: it does not look at them. Expected "
        f"a loss "
        "that compares each answer with its own target.",
        where={"phase": "loss"},
        score=0.9,
    )


def _targets_vary(targets: list[Any]) -> bool:
    return any(t.shape[0] > 1 and bool((t != t[:1]).any()) for t in targets)


def _same_as_input(bench: Bench) -> bool:
    """An autoencoder whose own loss takes its target from x hands over y only because `fit` wants one."""
    import torch

    x = [leaf for leaf in leaves(bench.batch.x) if torch.is_tensor(leaf)]
    return any(a.shape == b.shape and bool(torch.equal(a.float(), b.float())) for a in x for b in leaves(bench.batch.y))


def _in_answers_shape(bench: Bench, y: Any) -> Any:
    """The targets reshaped to their outputs' shapes, where the number of elements agrees and some shape does not."""
    found = bench.heads
    shapes = {id(h.target): tuple(h.answer.shape) for h in found if h.target is not None}
    differs = any(tuple(h.target.shape) != tuple(h.answer.shape) for h in found if h.target is not None)
    fits = all(h.target.numel() == h.answer.numel() for h in found if h.target is not None)
    if not (differs and fits and shapes):
        return None
    return map_leaves(lambda leaf: leaf.reshape(shapes.get(id(leaf), tuple(leaf.shape))), y)


def _swap(old: Any, new: Any) -> Callable[[Any], Any]:
    return lambda leaf: new if leaf is old else leaf


def _blind_columns(bench: Bench, answers: list[Any], base: float, scale: float) -> Iterator[Finding]:
    """Columns of a target that the loss does not look at, while it looks at others."""
    for head in bench.heads:
        y = head.target
        if y is None or y.ndim < 2 or not 2 <= y.shape[-1] <= 16 or tuple(y.shape) != tuple(head.answer.shape):
            continue
        if labels_of(y) in ("one-hot", "shares"):
            continue
        blind = []
        for column in range(int(y.shape[-1])):
            if float(y[..., column].float().std()) == 0:
                continue
            other = y.clone()
            other[..., column] = shuffled(y, 5)[..., column]
            swapped = map_leaves(_swap(y, other), bench.batch.y)
            if abs(bench.loss_of(answers, y=swapped) - base) <= SAME * 0.01 * scale:
                blind.append(column)
        if blind and len(blind) < y.shape[-1]:
            yield catalogue.finding(
                "loss-degenerate",
                f"the loss does not look at column(s) {blind} of the targets of output {head.name!r}: they can be "
                f"dealt to "
                "other samples without changing it. Nothing trains those columns.",
                where={"output": head.name, "column": blind[0]},
                # A forecast may be wanted for some steps only: stated, not condemned.
                status="WARN",
                score=0.3,
            )


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
    size = batch_size(context)
    total = len(data)
    rng = np.random.default_rng(1)
    in_order = [np.arange(s, min(s + size, total)) for s in range(0, total, size)][: MAX_EMPTY_BATCHES // 2]
    shuffled_rows = rng.permutation(total)
    mixed = [np.sort(shuffled_rows[s : s + size]) for s in range(0, total, size)][: MAX_EMPTY_BATCHES // 2]
    for index in [*mixed, *in_order]:
        yield Batch(*(map_leaves(as_tensor, part) for part in data.take(index)))


@check("NaN that is hidden", codes=("nan-hidden",), needs=("model", "data"), cost=3)
def hidden_nan(context: Context) -> Iterable[Finding]:
    """Poison: with NaN in the weights (then in the answers) the loss must be NaN, or something hides it."""
    import torch

    bench = set_up(context)
    if bench.step.error is not None or bench.step.root is None:
        yield from not_asked(bench, "nan-hidden")
        return
    producer = nonfinite_producer(bench.model, bench.batch)
    if producer is not None and producer.absorbed and math.isfinite(bench.step.loss):
        yield catalogue.finding(
            "nan-hidden",
            f"`{producer.op}` makes {producer.value} from {producer.reason} in this very batch, and the loss is "
            f"{bench.step.loss:.4g} all the same: something replaces it by a constant. Mend the operation, and "
            f"remove the "
            "replacement.",
            where={"phase": producer.phase, "op": producer.op, "file": producer.file, "line": producer.line},
            score=1.0,
        )
        return
    weights = [v for v in bench.model.trainable_variables if v.value.is_floating_point()]
    matters = any(n is not None for n in (bench.step.gradient_of(v) for v in weights))
    if not weights or not matters:
        return
    bench.start.restore()
    with torch.no_grad():
        for variable in weights:
            variable.value.fill_(float("nan"))
    poisoned = take_step(bench.model, bench.batch, record_calls=False)
    bench.start.restore()
    if poisoned.error is None and poisoned.root is not None and math.isfinite(poisoned.loss):
        answer_hides = all(bool(torch.isfinite(a.float()).all()) for a in flat_answers(poisoned))
        phase, place = ("forward", "the model's answer") if answer_hides else ("loss", "the loss")
        hider = next((n.op for n in walk(bench.step.root) if n.op in ("NanToNum", "Where")), None)
        yield catalogue.finding(
            "nan-hidden",
            f"with NaN in every weight, {place} is still finite ({poisoned.loss:.4g}): a NaN in training would be "
            "replaced by a constant and nobody would see it. Remove the replacement"
            + (f" (a `{hider}` in the graph)" if hider else "")
            + " and let the NaN show.",
            where={"phase": phase},
            status="WARN",
            score=0.2,
        )


def flat_answers(step: Any) -> list[Any]:
    """The answers of a step as a list."""
    return list(leaves(step.answer))


@check("loss term that drowns the others", codes=("loss-term-dominates",), needs=("model", "data"), cost=3)
def drowned_terms(context: Context) -> Iterable[Finding]:
    """Gradient norms that each loss term sends into the weights that it shares with another."""
    bench = set_up(context)
    if bench.step.error is not None or bench.step.answer is None:
        yield from not_asked(bench, "loss-term-dominates")
        return
    norms = [term_gradients(bench.model, batch, restore=bench.start.restore) for batch in bench.batches[:2]]
    # Some terms are silent at the very start and speak later: what drowns must drown at other weights too.
    for seed in (1, 2):

        def redraw(seed: int = seed) -> None:
            bench.start.restore()
            draw_weights(bench.model, 1.0, _generator(seed))

        norms.append(term_gradients(bench.model, bench.batch, restore=redraw))
    bench.start.restore()
    if not all(len(n) >= 2 for n in norms):
        return
    if len({tuple(n) for n in norms}) > 1:
        return
    typical = {name: min(n[name].norm for n in norms) for name in norms[0]}
    tasks = {name for name, term in norms[0].items() if term.task}
    loudest = max(typical, key=lambda name: typical[name])
    drowned = sorted(name for name in tasks if name != loudest and 0 < typical[name] * DROWNED < typical[loudest])
    # A small term beside one of ordinary size may be small by nature; what drowns is loud by itself.
    if drowned and typical[loudest] > LOUD:
        table = {name: round(value, 9) for name, value in typical.items()}
        yield catalogue.finding(
            "loss-term-dominates",
            f"loss term {loudest!r} sends a gradient of norm {typical[loudest]:.3g} into the shared weights, and "
            f"{', '.join(f'{n!r} one of {typical[n]:.3g}' for n in drowned)}: less than a thousandth. Expected "
            f"terms of one "
            "order; scale the targets, or weigh the terms (loss_weights).",
            where={"loss_term": loudest},
            evidence=(Evidence("value", table, name="gradient norm per term"),),
            score=1.0,
        )


SIDE = 0.9
"""A best constant beyond this quantile of the targets is no central answer."""


@check(
    "loss whose best constant is far from the middle", codes=("metric-disagrees",), needs=("model", "data", "y"), cost=3
)
def lopsided_loss(context: Context) -> Iterable[Finding]:
    """Where does the loss want a constant answer to be, when squared or absolute error is what is reported?"""
    import torch

    bench = set_up(context)
    if bench.step.error is not None or bench.step.answer is None or not _reports_central_error(bench.model):
        return
    for head in bench.heads:
        y = head.target
        if y is None or tuple(y.shape) != tuple(head.answer.shape) or labels_of(y) not in ("real", "integer"):
            continue
        if head.answer.ndim > 1 and head.answer.shape[-1] > 1:
            continue
        ranks = [0.01, 0.05, *(i / 10 for i in range(1, 10)), 0.95, 0.99]
        answers = list(bench.answers)
        values = []
        for rank in ranks:
            answers[head.index] = torch.full_like(
                answers[head.index], float(torch.quantile(y.float().reshape(-1), rank))
            )
            values.append(bench.loss_of(answers))
        if not all(map(math.isfinite, values)):
            continue
        best = ranks[values.index(min(values))]
        ends_flat = max(values) - min(values) <= SAME * max(map(abs, values))
        if not ends_flat and (best >= SIDE or best <= 1 - SIDE) and _central_mean(y, best):
            yield catalogue.finding(
                "metric-disagrees",
                f"output {head.name!r}: of all constants the loss prefers the {best:.0%} quantile of the targets, "
                f"while the "
                "metrics that are reported (squared or absolute error) want the middle. Falling loss will not mean "
                "better "
                "metrics. Use a loss for the centre (mse, mae, huber), or judge by the quantile's own coverage.",
                where={"output": head.name, "phase": "loss"},
                status="FAIL",
                role="cause",
                evidence=(
                    Evidence("value", dict(zip(map(str, ranks), values, strict=True)), name="loss of a constant"),
                ),
                score=0.8,
            )
            return


def _central_mean(y: Any, best: float) -> bool:
    """Whether the targets' own mean lies well inside: for a skewed target the mean itself is a far quantile."""
    share = float((y.float() < y.float().mean()).float().mean())
    return abs(share - best) > 0.2


def _reports_central_error(model: Any) -> bool:
    said = getattr(getattr(model, "_compile_metrics", None), "_user_metrics", None)
    words = " ".join(str(getattr(one, "name", one)).lower() for one in leaves(said) if one is not None)
    return any(
        name in words.split() or name in words
        for name in ("mse", "mae", "rmse", "squared_error", "absolute_error", "r2")
    )
