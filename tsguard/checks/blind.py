"""A loss that does not depend on what it should: constant, bottomless, blind to an output or to the pairing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any

from tsguard import catalogue
from tsguard.checks.bench import Bench, not_asked, set_up
from tsguard.checks.deaf import deaf_among_targets
from tsguard.checks.outputs import layer_of_output
from tsguard.checks.own_loss import SAME, generator_of
from tsguard.checks.registry import Context, check
from tsguard.dataset import exchanged, leaves, map_leaves
from tsguard.evidence import Evidence
from tsguard.findings import Finding
from tsguard.probes.answers import Head, LossOfAnswers, draw_weights, labels_of, reach, shuffled
from tsguard.probes.dispatch import nonfinite_producer
from tsguard.probes.graph import leaf_tensors
from tsguard.probes.stage import Batch, has_own_step, take_step


@check(
    "loss that does not depend on what it should",
    codes=("loss-degenerate", "loss-broadcast", "loss-mismatch", "data-labels"),
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
    generator = generator_of()
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
    deaf = deaf_among_targets(bench, answers, slopes)
    if deaf is not None:
        yield deaf
        return
    if len(flat_heads) == len(slopes):
        return
    for head in flat_heads:
        if head.target is not None and _has_own_weights(bench, head):
            yield catalogue.finding(
                "loss-degenerate",
                f"the loss does not change with output {head.name!r}, which has a target and weights of its own: "
                f"nothing "
                "trains them. Give this output a loss, or remove it.",
                where={"output": head.name, "layer": layer_of_output(bench, head)},
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
    generator = generator_of()
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


MOST_COLUMNS = 16
"""Columns of an answer that are taken far one by one."""

HEARD = 10.0
"""Times as much as two runs of an own step differ by themselves, from which it has heard the change of the targets."""


def _step_hears(bench: Bench, y: Any) -> bool:
    """Whether the loss of the own step, with its own answers, depends on which target belongs to which sample."""

    def loss(target: Any) -> float:
        bench.start.restore()
        batch = Batch(bench.batch.x, target, bench.batch.sample_weight)
        return take_step(bench.model, batch, record_calls=False).loss

    values = [loss(y), loss(y)]
    apart = max(abs(values[0] - values[1]), SAME * max(abs(values[0]), 1e-12))
    others = [loss(shuffled(y, seed)) for seed in (1, 2, 3)]
    bench.start.restore()
    return math.isfinite(apart) and min(abs(other - values[0]) for other in others) > HEARD * apart


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

    if has_own_step(bench.model) and _step_hears(bench, y):
        return  # the model itself is asked about the targets (a second view): other answers do not stand for that
    if not blind_under(shuffled(y, seed) for seed in (1, 2, 3)):
        yield from _rows_of_one_label(bench)
        crossed = list(_steps_against_others(bench))
        yield from crossed or _heads_with_all_pairs(bench, answers)
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
            shapes = _shapes(bench.heads)
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
    if _same_as_input(bench):
        yield from _looks_at_nothing(bench, answers, base)
        return
    if not _targets_vary(targets):
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
        shapes = _shapes(spread)
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


def _rows_of_one_label(bench: Bench) -> Iterator[Finding]:
    """Rows of one label whose answers the loss does not hear, whatever they are, while it hears those of the others."""
    for head in bench.heads:
        if head.target is None or labels_of(head.target) not in ("binary", "integer") or head.answer.ndim > 2:
            continue
        if head.target.numel() != head.target.shape[0] or head.target.shape[0] != head.answer.shape[0]:
            continue
        labels = head.target.reshape(-1)
        names = labels.unique().tolist()
        if not 2 <= len(names) <= 20:
            continue
        heard = dict.fromkeys(names, 0.0)
        for seed in (1, 2, 3):
            answers = list(bench.answers)
            answers[head.index] = _random_like(answers[head.index], generator_of(seed))
            slopes = bench.loss_of.slopes(answers)
            slope = None if slopes is None else slopes[head.index]
            if slope is None:
                return
            each = slope.reshape(len(labels), -1).abs().max(1).values
            for name in names:
                heard[name] = max(heard[name], float(each[labels == name].max()))
        # Labels below zero, and the one a loss is told to ignore, are left out on purpose.
        ignored = getattr(head.loss, "ignore_class", None)
        deaf = [name for name in names if heard[name] == 0.0 and name >= 0 and name != ignored]
        if deaf and len(deaf) < len(names):
            told = ", ".join(f"{name:g}" for name in deaf)
            yield catalogue.finding(
                "data-labels",
                f"the loss does not change with the answers of rows labelled {told}, whatever they are: nothing "
                f"teaches these rows (labels are {', '.join(f'{name:g}' for name in names)}). Write the labels as the "
                "loss wants them (a hinge wants −1 and 1), or mend the loss.",
                where={"output": head.name, "phase": "loss"},
                score=0.9,
            )
            return


def _heads_with_all_pairs(bench: Bench, answers: list[Any]) -> Iterator[Finding]:
    """One of several outputs whose slope stays the same when only its own targets are dealt to other samples.

    The loss as a whole cannot be asked: a louder output would drown the answer.
    """
    asked = [h for h in bench.heads if h.target is not None]
    if len(asked) < 2:
        return
    own = bench.loss_of.slopes(answers)
    for head in asked:
        slope = None if own is None else own[head.index]
        if slope is None or labels_of(head.target) == "constant" or not bool((slope != 0).any()):
            continue
        size = float(slope.abs().max())
        for seed in (1, 2, 3):
            dealt = exchanged(bench.batch.y, head.target, shuffled(head.target, seed))
            other = bench.loss_of.slopes(answers, y=dealt)
            moved = None if other is None else other[head.index]
            if moved is None or float((moved - slope).abs().max()) > 100 * SAME * size:
                break
        else:
            shapes = _shapes([head])
            yield catalogue.finding(
                "loss-broadcast" if _looks_at_targets(bench, answers, head, slope) else "loss-degenerate",
                f"what the loss asks of output {head.name!r} stays the same when its targets are dealt to others "
                f"({shapes}): every answer is compared with every target, or with none. Give both the same shape, and "
                "compare each answer with its own target.",
                where={"output": head.name, "phase": "loss"},
                score=0.9,
            )
            return


def _looks_at_targets(bench: Bench, answers: list[Any], head: Head, slope: Any) -> bool:
    """Whether other values of its targets (and not only another order) change what is asked of an output."""
    spread, size = float(head.target.float().std()) or 1.0, float(slope.abs().max())
    other = exchanged(bench.batch.y, head.target, head.target + spread)
    slopes = bench.loss_of.slopes(answers, y=other) if head.target.is_floating_point() else None
    moved = None if slopes is None else slopes[head.index]
    return moved is not None and float((moved - slope).abs().max()) > 100 * SAME * size


def _targets_vary(targets: list[Any]) -> bool:
    return any(t.shape[0] > 1 and bool((t != t[:1]).any()) for t in targets)


def _same_as_input(bench: Bench) -> bool:
    """An autoencoder whose own loss takes its target from x hands over y only because `fit` wants one."""
    import torch

    x = [leaf for leaf in leaves(bench.batch.x) if torch.is_tensor(leaf)]
    return any(a.shape == b.shape and bool(torch.equal(a.float(), b.float())) for a in x for b in leaves(bench.batch.y))


def _looks_at_nothing(bench: Bench, answers: list[Any], base: float) -> Iterator[Finding]:
    """An autoencoder's own loss that sees neither targets nor inputs, and that a constant answer suits best."""
    if has_own_step(bench.model):
        return  # a step may compare two answers with each other
    other = Batch(shuffled(bench.batch.x, 1), shuffled(bench.batch.y, 1), bench.batch.sample_weight)
    elsewhere = LossOfAnswers(bench.model, other, bench.step.answer)(answers)
    if abs(elsewhere - base) > SAME * max(abs(base), 1e-12):
        return
    constant = bench.loss_of([a * 0 + a.float().mean(0, keepdim=True) for a in answers])
    nothing = bench.loss_of([a * 0 for a in answers])
    if min(constant, nothing) < base and not _has_a_column_without_floor(bench, answers):
        yield catalogue.finding(
            "loss-degenerate",
            f"the loss stays {base:.6g} when inputs and targets are dealt to other answers, and one answer for all "
            f"samples costs {min(constant, nothing):.4g}: it compares the answers with nothing. Expected a loss that "
            "compares each reconstruction with its own input.",
            where={"phase": "loss"},
            score=0.9,
        )


def _has_a_column_without_floor(bench: Bench, answers: list[Any]) -> bool:
    """Whether one column alone, taken further and further, makes the loss as low as one likes, in proportion.

    Of the log-determinant of a flow, or another price that the model's structure sets, what free answers would cost
    says nothing: what a constant answer gains the structure takes back.
    """
    for place, answer in enumerate(answers):
        if answer.ndim != 2 or not answer.is_floating_point():
            continue
        for column in range(min(answer.shape[-1], MOST_COLUMNS)):
            for sign in (1.0, -1.0):
                costs = []
                for far in (1e1, 1e2, 1e3):
                    moved = answer.clone()
                    moved[:, column] += sign * far
                    costs.append(bench.loss_of([*answers[:place], moved, *answers[place + 1 :]]))
                falls = [a - b for a, b in itertools.pairwise(costs)]
                if all(map(math.isfinite, costs)) and falls[0] > 0 and abs(falls[1] / falls[0] - 10.0) < 0.1:
                    return True
    return False


def _shapes(listed: Iterable[Head]) -> str:
    """The shapes of targets against those of their answers, in words."""
    return ", ".join(f"{tuple(h.target.shape)} against {tuple(h.answer.shape)}" for h in listed if h.target is not None)


def _steps_against_others(bench: Bench) -> Iterator[Finding]:
    """Targets whose shape is not that of the answers, of as many numbers: what the very targets cost as answers.

    With as many rows as steps, (B, T) against (B, T, 1) compares each step with those of another row. Dealing rows then
    changes the loss; that the right answers cost more than in equal shapes shows it all the same.
    """
    import torch

    reshaped = _in_answers_shape(bench, bench.batch.y)
    if reshaped is None or any(head.target is None for head in bench.heads):
        return
    right = [head.target.to(head.answer).reshape(head.answer.shape) for head in bench.heads]
    if not all(torch.is_floating_point(one) for one in right):
        return
    given, aligned = bench.loss_of(right), bench.loss_of(right, y=reshaped)
    if not math.isfinite(given) or not math.isfinite(aligned) or given - aligned <= SAME * max(abs(given), 1e-12):
        return
    shapes = _shapes(bench.heads)
    yield catalogue.finding(
        "loss-broadcast",
        f"answers that equal the targets cost {given:.4g}, and {aligned:.4g} once the targets have the answers' shape: "
        f"shapes {shapes} broadcast, so that answers are compared with the targets of other rows or steps. Reshape the "
        "targets to the shape of the output.",
        where={"phase": "loss"},
        evidence=(Evidence("value", {"as given": given, "equal shapes": aligned}, name="loss of the right answers"),),
        score=1.0,
    )


def _in_answers_shape(bench: Bench, y: Any) -> Any:
    """The targets reshaped to their outputs' shapes, where the number of elements agrees and some shape does not."""
    found = bench.heads
    shapes = {id(h.target): tuple(h.answer.shape) for h in found if h.target is not None}
    differs = any(tuple(h.target.shape) != tuple(h.answer.shape) for h in found if h.target is not None)
    fits = all(h.target.numel() == h.answer.numel() for h in found if h.target is not None)
    if not (differs and fits and shapes):
        return None
    return map_leaves(lambda leaf: leaf.reshape(shapes.get(id(leaf), tuple(leaf.shape))), y)


def _turned(column: Any) -> Any:
    """The same values, the highest where the lowest stood: a rare label surely goes to another sample."""
    flat = column.reshape(-1)
    order, turned = flat.argsort(), flat.clone()
    turned[order] = flat[order.flip(0)]
    return turned.reshape(column.shape)


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
            other[..., column] = _turned(y[..., column])
            swapped = exchanged(bench.batch.y, y, other)
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
