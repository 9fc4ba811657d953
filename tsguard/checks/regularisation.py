"""Restraint that leaves nothing to learn with: penalties, penalised biases, dropout."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from tsguard import catalogue
from tsguard.checks.bench import Bench, name_of, not_asked, set_up
from tsguard.checks.initialisation import CONSEQUENCE, GAIN_LOW, gain_of, is_kernel, spread_of
from tsguard.checks.own_loss import SAME
from tsguard.checks.registry import Context, check
from tsguard.evidence import Evidence
from tsguard.findings import Finding
from tsguard.probes.answers import LossOfAnswers, labels_of, predict, question
from tsguard.probes.gradients import norm, term_gradients
from tsguard.probes.score import sample
from tsguard.probes.stage import Batch, flat, take_step

PENALTY_RATIO = 10.0
"""Penalty gradient over task gradient. At ten, weights shrink to about a tenth before the task holds them."""


DROPOUT_RATE = 0.8
"""Recommended rates end at 0.5 for hidden units (Srivastava et al. 2014); above 0.8 fewer than one unit in five
speaks."""


@check("too much regularisation", codes=("over-regularised",), needs=("model", "data"), cost=3)
def regularisation(context: Context) -> Iterable[Finding]:
    """Penalties against the task by their gradients; dropout by how much of the signal is left."""
    import keras
    import torch

    bench = set_up(context)
    if bench.step.error is not None or bench.step.root is None:
        yield from not_asked(bench, "over-regularised")
        return
    terms = term_gradients(bench.model, bench.batch, restore=bench.start.restore, shared_only=False)
    penalty = math.hypot(*(t.norm for t in terms.values() if not t.task), 0.0)
    task = math.hypot(*(t.norm for t in terms.values() if t.task), 0.0)
    if penalty == 0.0:
        penalty, task = _own_penalty(bench)
    if task > 0 and penalty > PENALTY_RATIO * task:
        yield catalogue.finding(
            "over-regularised",
            f"the penalties on weights pull {penalty / task:.3g} times as hard as the task (gradient norms "
            f"{penalty:.3g} and "
            f"{task:.3g}): weights shrink until nothing is left to predict with. Expected a ratio below one; divide "
            f"the "
            f"regularisers' factors by {penalty / task:.1g} or more.",
            where={"phase": "loss"},
            evidence=(Evidence("value", {"penalty": penalty, "task": task}, name="gradient norms"),),
            score=1.0,
        )
    else:
        yield from _penalised_bias(bench)
    yield from _cut_by_constraints(bench)
    yield from _drowned_in_noise(bench)
    drops = [c for c in bench.step.calls if isinstance(c.layer, keras.layers.Dropout) or hasattr(c.layer, "rate")]
    heavy = sorted({name_of(c.layer): float(c.layer.rate) for c in drops if _speaks_faintly(c)}.items())
    if heavy:
        answers = torch.stack([flat(predict(bench.model, bench.batch.x, training=True))[0].float() for _ in range(12)])
        bench.start.restore()
        signal = float(answers.mean(0).var(0).mean()) if answers.shape[1] > 1 else 0.0
        noise = float(answers.var(0).mean())
        if noise > signal:
            yield catalogue.finding(
                "over-regularised",
                f"dropout of {heavy[0][1]:g} in {heavy[0][0]} leaves {1 - heavy[0][1]:.0%} of the units: for one "
                f"and the "
                f"same sample answers vary by {noise:.3g} from mask to mask, between samples by {signal:.3g}. Expected "
                "rates up to 0.5.",
                where={"layer": heavy[0][0]},
                evidence=(Evidence("value", dict(heavy), name="dropout rates"),),
                score=0.9,
            )


ENOUGH = 50
"""Units left from which a dropout of any rate is a choice. At the start each unit speaks for itself, and the mask's
noise hides the rows at every width; what is learnt makes them speak together, and of k units it then hides 1/√k."""


def _speaks_faintly(call: Any) -> bool:
    """Whether a dropout leaves too small a share of its units, and too few of them."""
    given = next((leaf for leaf in flat(call.inputs) if hasattr(leaf, "ndim") and leaf.ndim > 1), None)
    left = 0.0 if given is None else (1 - rate_of(call.layer)) * int(given.shape[-1])
    return rate_of(call.layer) >= DROPOUT_RATE and left < ENOUGH


DROWNED = 3.0
"""Deviation of the noise that a layer adds over that of its input: at three a tenth of the variance is signal."""

NOISE_DRAWS = 4
"""Draws from which the deviation of the noise is taken, at every place of a batch."""


def _drowned_in_noise(bench: Bench) -> Iterator[Finding]:
    """Layers without weights that add noise in training, by what they add to the inputs of this batch."""
    import torch

    for call in bench.step.calls:
        layer, given, out = call.layer, call.inputs, call.output
        if not torch.is_tensor(given) or not torch.is_tensor(out) or given.shape != out.shape:
            continue
        if (
            hasattr(layer, "rate")
            or layer.trainable_variables
            or not layer._call_has_training_arg
            or not given.is_floating_point()
        ):
            continue
        try:
            with torch.no_grad():
                drawn = torch.stack([layer(given, training=True).float() for _ in range(NOISE_DRAWS)])
        except Exception:  # a layer that needs more than its input is not asked
            continue
        noise, signal = float(drawn.std(0).pow(2).mean().sqrt()), float(given.float().std())
        if signal > 0 and math.isfinite(noise) and noise > DROWNED * signal:
            bench.start.restore()
            yield catalogue.finding(
                "over-regularised",
                f"layer {name_of(layer)} adds noise of deviation {noise:.3g} to values of deviation {signal:.3g}: in "
                f"training {signal**2 / (signal**2 + noise**2):.1%} of what it hands on is signal. Expected noise well "
                "below the deviation of its inputs, in their units.",
                where={"layer": name_of(layer)},
                evidence=(Evidence("value", {"noise": noise, "input": signal}, name="deviations"),),
                score=0.9,
            )
            return
    bench.start.restore()


def _cut_by_constraints(bench: Bench) -> Iterator[Finding]:
    """Constraints that leave next to nothing of the kernels, applied once as every update applies them."""
    import torch

    held = [v for v in bench.model.trainable_variables if getattr(v, "constraint", None) is not None and is_kernel(v)]
    if not held:
        return
    before = {v.path: gain_of(v) for v in held}
    spread = spread_of(bench)
    with torch.no_grad():
        for variable in held:
            variable.value.copy_(variable.constraint(variable.value))
    after = {v.path: gain_of(v) for v in held}
    left = spread_of(bench)
    bench.start.restore()
    cut = {path: gain for path, gain in after.items() if gain < GAIN_LOW <= before[path]}
    if cut and left < spread / CONSEQUENCE:
        worst = min(cut, key=lambda path: cut[path])
        yield catalogue.finding(
            "over-regularised",
            f"constraints cut {len(cut)} kernel(s) at every update: {worst} then multiplies its signal by "
            f"{cut[worst]:.2g} (as initialised {before[worst]:.2g}; usual: 0.1 to 2), and answers of samples differ "
            f"by {left:.2g} in place of {spread:.2g}. Loosen the constraint (MaxNorm of 2 to 4 is usual).",
            where={"parameter": worst, "phase": "update"},
            evidence=(Evidence("value", after, name="gain per constrained kernel"),),
            score=1.0,
        )


def _penalised_bias(bench: Bench) -> Iterator[Finding]:
    """A bias starts at zero, where its penalty pulls at nothing; what counts is how each resists being moved by one."""
    for variable in _pulled(bench, [v for v in bench.model.trainable_variables if "bias" in v.path.split("/")[-1]]):
        pulls = []
        for shift in (0.0, 1.0):
            _move(bench, [variable], shift)
            (penalty,) = _pull(bench, [variable], bench.batch)
            whole = take_step(bench.model, bench.batch, record_calls=False).gradient_of(variable)
            if whole is None or penalty is None:
                break
            pulls.append((penalty, whole.detach() - penalty))
        bench.start.restore()
        if len(pulls) < 2:
            continue
        held, asked = norm(pulls[1][0] - pulls[0][0]), norm(pulls[1][1] - pulls[0][1])
        if not 0 < asked < math.inf:
            continue
        level, stiff = _level(bench), held / asked
        lost = level * stiff / (1 + stiff)
        if (stiff > 1 and lost > HALF) or (lost > LOST and _only_this_carries_the_level(bench, variable)):
            yield catalogue.finding(
                "over-regularised",
                f"the penalty on {variable.path} resists a change {stiff:.3g} times as hard as the task "
                f"asks for one: "
                "the offset of the answers is held near zero"
                f", and targets lie {level:.3g} of their deviations away from it. "
                "Biases need no penalty: remove `bias_regularizer`, or "
                "leave biases out of a penalty of your own.",
                where={"parameter": variable.path, "layer": variable.path.rsplit("/", 1)[0]},
                evidence=(Evidence("value", {"penalty": held, "task": asked}, name="stiffness"),),
                score=0.9,
            )
            return


def _own_penalty(bench: Bench) -> tuple[float, float]:
    """Gradient norms of a penalty that stands in an own loss or step, and of what is left of that loss without it."""
    weights = list(bench.model.trainable_variables)
    slopes = [_pull(bench, weights, batch) for batch in bench.batches[:2]]
    bench.start.restore()
    if len(slopes) < 2 or not any(_same_and_some(*both) for both in zip(*slopes, strict=True)):
        return 0.0, 0.0
    step = take_step(bench.model, bench.batch, record_calls=False)
    bench.start.restore()
    penalty, task = [], []
    for weight, here, there in zip(weights, *slopes, strict=True):
        whole = step.gradient_of(weight)
        if whole is not None:
            mine = here if _same_and_some(here, there) else whole.detach() * 0
            penalty.append(norm(mine))
            task.append(norm(whole.detach() - mine))
    return math.hypot(*penalty, 0.0), math.hypot(*task, 0.0)


def _pulled(bench: Bench, variables: list[Any]) -> list[Any]:
    """Those of some weights that the loss asks something of by themselves, whatever the batch: a regulariser, or a sum
    in an own loss. One that asks the model a second time about its batch says nothing of weights alone."""
    _move(bench, variables, 1.0)
    slopes = [_pull(bench, variables, batch) for batch in bench.batches[:2]]
    bench.start.restore()
    if len(slopes) < 2:
        return []
    return [one for one, here, there in zip(variables, *slopes, strict=True) if _same_and_some(here, there)]


def _same_and_some(here: Any, there: Any) -> bool:
    if here is None or there is None:
        return False
    size = norm(here)
    return 0 < size < math.inf and norm(here - there) <= SAME * size


def _move(bench: Bench, variables: list[Any], shift: float) -> None:
    import torch

    bench.start.restore()
    with torch.no_grad():
        for variable in variables:
            variable.value.add_(shift)


def _pull(bench: Bench, variables: list[Any], batch: Batch) -> list[Any]:
    """The slope of the loss in weights while the answers stay what they are: what it says of the weights alone."""
    import torch

    try:
        value = LossOfAnswers(bench.model, batch, bench.step.answer).tensor(bench.answers)
        if value is None or not value.requires_grad:
            return [None] * len(variables)
        told = [variable.value for variable in variables]
        return list(torch.autograd.grad(value.float().mean(), told, allow_unused=True))
    except Exception:  # a loss that does not take answers from elsewhere says nothing of them
        return [None] * len(variables)


HALF = 0.5
"""Deviations of the targets by which answers are kept away from their level, from which that costs a quarter of the
variance and more: a penalty that holds a bias as hard as the task asks for it is too much then."""

LOST = 1.0
"""Deviations of the targets by which a penalty keeps answers away from their level: all that there was to explain."""

BESIDE = 0.25
"""How far other weights move the level of the answers, over how far the bias does (squares of slopes): means of inputs
that are standardised come to nothing, those of units behind a relu to several times as much."""


def _level(bench: Bench) -> float:
    """How far targets that are amounts lie from zero, in their own deviations; 0 where there are none."""
    found = 0.0
    for head in bench.heads:
        if head.target is None or labels_of(head.target) not in ("real", "integer"):
            continue
        # An own loss over answers of the targets' shape compares the two, whatever it is called.
        asked = "own" if head.loss is None else question(head.loss).kind
        y = head.target.float()
        if asked in ("regression", "count", "own") and y.shape == head.answer.shape and float(y.std()) > 0:
            found = max(found, float(y.mean().abs() / y.std()))
    return found


def _only_this_carries_the_level(bench: Bench, variable: Any) -> bool:
    """Whether the mean of the answers over many rows hangs on this weight and hardly on any other."""
    import torch

    rows = sample(bench.data)
    if rows is None:
        return False
    weights = bench.model.trainable_variables
    try:
        answers = flat(bench.model(rows.x))
        slopes = torch.autograd.grad(
            sum(one.float().mean(0).sum() for one in answers), [v.value for v in weights], allow_unused=True
        )
    except Exception:  # a model that does not answer so many rows at once is not asked
        return False
    finally:
        bench.start.restore()
    power = {id(v): 0.0 if slope is None else norm(slope) ** 2 for v, slope in zip(weights, slopes, strict=True)}
    own = power.pop(id(variable))
    return own > 0 and sum(power.values()) < BESIDE * own


def rate_of(layer: Any) -> float:
    rate = getattr(layer, "rate", 0.0)
    return float(rate) if isinstance(rate, int | float) else 0.0
