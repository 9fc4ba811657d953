"""The first steps, taken for real: does this rate move the weights, does clipping or decay hold them back?

A few dozen updates on the user's own batches, and where something looks wrong the same steps with one thing changed. A
finding is made only when the change mends it; both curves are its proof. Everything is put back by the runner.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from tsguard import catalogue
from tsguard.backend import optimizers_of
from tsguard.checks.bench import Bench, set_up
from tsguard.checks.precision import computing_in_half, first_not_finite
from tsguard.checks.registry import Context, check
from tsguard.evidence import Curve, Evidence, Proof
from tsguard.findings import Finding
from tsguard.probes import changes
from tsguard.probes.answers import draw_weights, labels_of, opened, predict, question, standardised
from tsguard.probes.baselines import learnable_share
from tsguard.probes.gradients import norm
from tsguard.probes.learnable import straight_and_curved
from tsguard.probes.score import judge, sample
from tsguard.probes.stage import Step, flat, has_own_step, take_step
from tsguard.probes.trial import Trial, run_trial, stream

STEPS = 30
"""Updates per trial: past the first transient of momentum (about 1/(1 − 0.9) steps), and still a second or two."""

SHARE_OF_BUDGET = 0.2
"""Of what is left of the time budget, all trials together take at most this."""

RUNAWAY = 3.0
"""The loss at the end of the first steps against its start. Warm-up bumps stay below; a doubled loss can be noise."""

SUM_ROUNDED = 1e-3
"""Distance of a sum of shares from one that rounding leaves."""

TRAVEL = 0.01
"""Relative distance that weights could go in the whole run if all steps pointed one way. Below one per cent the
function that a model computes hardly changes."""

STANDSTILL = 1e-3
"""… and the distance below which no rate that heals has to be shown: a function of weights that stand is that of the
start."""

FADED = 0.05
"""Mean of a schedule over the run, against its peak: cosines keep a half, step decays a tenth and more."""

PLANNED = "steps that are planned"
"""Name of that evidence: a reproduction asks for the rates of as many steps."""

LEARNABLE = 0.15
"""Share of the targets that a closed-form fit explains, from which not to move is not to learn."""

KNOWN = 0.9
"""Share of the targets that a model explains before its run from which there is nothing left to hurry for."""

NO_TRAVEL = 1e-7
"""Relative step below float32's resolution: most updates are rounded to nothing."""

USUAL_STEP = 1e-3
"""Relative step of a kernel under usual settings (Adam at 1e-3 on weights of a few tenths gives 3e-3)."""

MENDED = 0.9
"""A changed trial has helped when it ends below this share of the loss that the unchanged one ends with."""

CLIPPED = 0.01
"""Clip threshold over the median gradient norm. At 1 every second step is clipped, which is common practice; at a
hundredth every update is a hundredth of what the loss asks for."""

DECAY_PULL = 3.0
"""Decay against what the optimizer can give back: wd·|w| against one unit per weight (Adam) or against the gradient."""

CURVED_GAIN = 0.3
"""How much more variance a curved fit must explain than the best straight one, both on rows held back, before a model
that can only be straight is called too small."""


@dataclass
class FirstSteps:
    """The unchanged trial and what was seen during it."""

    bench: Bench
    context: Context
    seconds: float
    trial: Trial
    norms: list[float] = field(default_factory=list)
    step_size: float = 0.0
    """Median over kernels of the relative distance per step."""

    def again(self, change: AbstractContextManager[Any] | None = None, *, seed: int = 0) -> Trial:
        """The same steps with one thing changed; another seed deals the batches in another order."""
        self.bench.start.restore()
        trial = run_trial(
            self.bench.model,
            stream(self.bench.data, self.bench.fit, seed=seed),
            STEPS,
            seconds=self.seconds,
            change=change,
        )
        self.bench.start.restore()
        return trial

    def proof_of(self, name: str, change: AbstractContextManager[Any], after: Trial, summary: str) -> Proof:
        """Both curves, and the share of the unchanged loss that the change took away; done again in another order."""
        before = self.trial
        agree, repeats = 1, 1
        if self.bench.data.is_arrays and self.bench.fit.get("shuffle", True):
            repeats += 1
            plain, changed = self.again(seed=1), self.again(change, seed=1)
            agree += changed.finite and (not plain.finite or changed.end < MENDED * plain.end)
        gap = before.end - after.end if math.isfinite(before.end) else math.inf
        reference = max(abs(before.end), abs(before.start), 1e-12)
        effect = 1.0 if math.isinf(gap) else max(0.0, min(1.0, gap / reference))
        return Proof(
            experiment=name,
            summary=summary,
            before=Curve("as configured", tuple(range(len(before.losses))), before.losses),
            after=Curve(name, tuple(range(len(after.losses))), after.losses),
            effect=effect,
            certainty=agree / repeats,
            repeats=repeats,
        )


@check(
    "first steps",
    codes=("lr-too-high", "lr-too-low", "clip-saturated", "precision-overflow", "loss-mismatch"),
    needs=("model", "data"),
    cost=8,
)
def first_steps(context: Context) -> Iterable[Finding]:
    """A short trial of the run as it is configured, and of its rate and clipping where they look wrong."""
    first = take_first_steps(context)
    if first is None:
        return
    # A rate that half precision alone cannot bear is no rate too high: a lower one only overflows later.
    yield from list(_overflow(first)) or _rate_too_high(first)
    # What a callback makes of the rate is seen when the run has been made.
    slow = [] if _set_by_a_callback(context) else list(_rate_too_low(first))
    clipped = list(_clipped(first))
    decayed = list(_decayed(first))
    # A threshold that cuts every gradient makes any rate look too low: the threshold is the cause.
    yield from clipped or slow
    yield from decayed


def _set_by_a_callback(context: Context) -> bool:
    """Whether a callback's own code speaks of the rate (one that only lowers it on a plateau does not count)."""
    import keras

    for callback in context.fit.get("callbacks") or ():
        if isinstance(callback, keras.callbacks.ReduceLROnPlateau):
            continue
        for kind in type(callback).__mro__:
            if kind in (keras.callbacks.Callback, object):
                break
            codes = [getattr(one, "__code__", None) for one in vars(kind).values()]
            if any(code is not None and "learning_rate" in code.co_names for code in codes):
                return True
    return False


def _fed_norm(step: Step) -> float:
    """The norm of all that the optimizer was fed in a step, without the scale of a scaled loss."""
    return math.hypot(*(norm(g) for _, gradients, _ in step.fed for g in gradients)) / step.scale


def take_first_steps(context: Context) -> FirstSteps | None:
    """Run the unchanged trial; None where no step can be taken."""
    bench = set_up(context)
    if bench.step.error is not None or bench.step.root is None or not bench.model.trainable_variables:
        return None
    bench.start.restore()
    kernels = [v for v in bench.model.trainable_variables if v.value.ndim >= 2 and v.value.is_floating_point()]
    before = [v.value.detach().clone() for v in kernels]
    norms: list[float] = []

    def watch(number: int, step: Any) -> None:
        norms.append(_fed_norm(step))

    seconds = max(1.0, SHARE_OF_BUDGET * context.budget_s / 4)
    trial = run_trial(bench.model, stream(bench.data, bench.fit), STEPS, seconds=seconds, watch=watch)
    first = FirstSteps(bench, context, seconds, trial, norms)
    moves = [
        float((v.value.detach() - old).norm() / old.norm())
        for v, old in zip(kernels, before, strict=True)
        if float(old.norm()) > 0
    ]
    if moves and trial.losses:
        first.step_size = statistics.median(moves) / len(trial.losses)
    bench.start.restore()
    return first


def _overflow(first: FirstSteps) -> Iterator[Finding]:
    """First steps that break in half precision, where the same steps in float32 learn: none of their losses runs away
    from the first, which a rate that is too high does in any precision."""
    trial, model = first.trial, first.bench.model
    if trial.finite or not trial.losses or not computing_in_half(model):
        return
    wide = first.again(changes.twice_as_precise(model))
    if not wide.finite or len(wide.losses) <= len(trial.losses) or max(wide.losses) > RUNAWAY * wide.losses[0]:
        return
    broken = len(trial.losses) - 1
    place = _where_it_breaks(first, broken)
    words = f"in float32 {len(wide.losses)} steps go from {wide.start:.3g} to {wide.end:.3g}"
    yield catalogue.finding(
        "precision-overflow",
        f"at step {broken} the loss is {trial.losses[-1]} in half precision; the same batches from the same weights: "
        f"{words}"
        + (f". The first layer whose output is not finite is {place}" if place else "")
        + ". float16 ends at 65,504 (exp of 11.1) and loses everything below 6e-8. Compute that part in float32, or "
        "train in bfloat16.",
        where={"layer": place, "phase": "forward", "step": broken},
        proof=first.proof_of("in float32", changes.twice_as_precise(model), wide, words),
        score=1.0,
    )


def _where_it_breaks(first: FirstSteps, broken: int) -> str | None:
    """The first layer whose output is not finite, with the weights before the step that breaks; None where none is."""
    first.bench.start.restore()
    batches = stream(first.bench.data, first.bench.fit)
    model = first.bench.model
    before = run_trial(model, batches, broken, seconds=first.seconds) if broken else None
    batch = next(batches, None)
    reached = batch is not None and (before is None or len(before.losses) == broken)
    step = take_step(model, batch) if reached and batch is not None else None
    first.bench.start.restore()
    return None if step is None else first_not_finite(step)


def _rate_too_high(first: FirstSteps) -> Iterator[Finding]:
    trial = first.trial
    if not trial.losses or (trial.finite and (len(trial.losses) < 8 or trial.start <= 0)):
        return
    ran_away = not trial.finite or trial.end > RUNAWAY * trial.start
    if not ran_away or not math.isfinite(trial.losses[0]):
        return
    for factor in (0.1, 0.01, 0.001):
        slower = first.again(changes.rate_times(first.bench.model, factor))
        if slower.finite and len(slower.losses) >= len(trial.losses) and slower.end < slower.start:
            words = (
                f"divided by {1 / factor:g}, {len(slower.losses)} steps go from {slower.start:.3g} to {slower.end:.3g}"
            )
            yield catalogue.finding(
                "lr-too-high",
                f"within {len(trial.losses)} steps the loss goes from {trial.losses[0]:.3g} to "
                f"{trial.losses[-1]:.3g}; with the rate "
                f"{words}. Lower the rate, or warm up.",
                where={"phase": "update"},
                evidence=(Evidence("value", factor, name="rate factor that heals"),),
                proof=first.proof_of(
                    f"rate × {factor:g}", changes.rate_times(first.bench.model, factor), slower, words
                ),
                score=1.0,
            )
            return


def _knows_already(first: FirstSteps) -> bool:
    """Whether the weights that the run begins with explain nearly all there is."""
    first.bench.start.restore()
    rows = sample(first.bench.data)
    judged = None if rows is None or rows.y is None else judge(first.bench.model, rows)
    return judged is not None and judged.skill >= KNOWN


def _rate_too_low(first: FirstSteps) -> Iterator[Finding]:
    trial, planned = first.trial, first.context.planned_steps
    if len(trial.losses) < 8 or not trial.finite or first.step_size == 0.0:
        return
    rates = _rates_ahead(first, planned)
    size = first.step_size * rates.peak
    # A run shorter than a trial is a smoke test: it goes nowhere at any sound rate.
    long_enough = planned is not None and planned >= STEPS
    travel = first.step_size * rates.mean * planned if planned is not None else math.inf
    if rates.mean < FADED * rates.peak and size >= USUAL_STEP / 10:
        moves = f"on average over {planned} steps the rate is {rates.mean / rates.peak:.1%} of what it is at most"
        yield from _fading_schedule(first, moves)
        return
    if not (size < NO_TRAVEL or (long_enough and travel < TRAVEL)):
        return
    if _knows_already(first):
        return  # what is fine-tuned takes small steps on purpose
    distance = "" if planned is None else f", at most {travel:.1g} of themselves in all {planned} steps"
    moves = f"weights move by {first.step_size * rates.mean:.1g} of themselves per step{distance}"
    blamed = _distance_to_shares(first, travel)
    if blamed is not None:
        yield blamed
        return
    usual = 10.0 ** round(math.log10(USUAL_STEP / size))
    for factor in (usual, 10 * usual):
        faster = first.again(changes.rate_times(first.bench.model, factor))
        if faster.finite and faster.end < MENDED * trial.end:
            # Starts are not compared: what differs between the first batches and the last is also which rows they hold.
            words = f"multiplied by {factor:g}, the same steps end at {faster.end:.3g} in place of {trial.end:.3g}"
            yield catalogue.finding(
                "lr-too-low",
                f"{moves}: nothing can be learned. With the rate {words}. Raise the rate.",
                where={"phase": "update"},
                proof=first.proof_of(
                    f"rate × {factor:g}", changes.rate_times(first.bench.model, factor), faster, words
                ),
                score=1.0,
            )
            return
    if long_enough and travel < STANDSTILL and _knows_nothing(first):
        yield catalogue.finding(
            "lr-too-low",
            f"{moves}: the model that ends the run is the one that began it, and that one knows nothing of its "
            f"targets, of which a closed-form fit explains a good part. Raise the rate by {usual:g}.",
            where={"phase": "update"},
            evidence=(Evidence("value", travel, name="relative distance in the whole run"),),
            score=0.9,
        )


def _distance_to_shares(first: FirstSteps, travel: float) -> Finding | None:
    """A squared error on the shares of many classes, whose slope is next to nothing where cross entropy has one."""
    bench = first.bench
    heads = [head for head in bench.heads if head.target is not None and head.loss is not None]
    if len(bench.heads) != 1 or len(heads) != 1 or question(heads[0].loss).kind != "regression":
        return None
    answer = heads[0].answer.detach().float()
    shares = answer.ndim > 1 and answer.shape[-1] > 2 and bool((answer >= 0).all())
    if not shares or labels_of(heads[0].target) not in ("one-hot", "integer"):
        return None
    if float((answer.sum(-1) - 1).abs().max()) > SUM_ROUNDED:
        return None
    try:
        with changes.loss_replaced(bench.model, changes.cross_entropy):
            step = bench.again(bench.batch, record_calls=False)
    finally:
        bench.start.restore()
    asked = _fed_norm(step)
    given = statistics.median(first.norms) if first.norms else 0.0
    if step.error is not None or given <= 0 or not math.isfinite(asked) or travel * asked / given < TRAVEL:
        return None
    return catalogue.finding(
        "loss-mismatch",
        f"{question(heads[0].loss).name} on the shares of {answer.shape[-1]} classes has a gradient of {given:.2g}, "
        f"and cross entropy, at the same answers, one of {asked:.2g}: at this rate weights go {travel:.1g} of "
        f"themselves in the whole run, and would go {travel * asked / given:.1g}. Use a loss for classes.",
        where={"output": heads[0].name, "phase": "loss"},
        status="FAIL",
        role="cause",
        evidence=(Evidence("value", {"as given": given, "cross entropy": asked}, name="gradient norm"),),
        explains=("no-learning",),
        score=0.95,
    )


def _fading_schedule(first: FirstSteps, moves: str) -> Iterator[Finding]:
    """The rate is sound where it is highest, and the schedule hardly stays there."""
    held = first.again(changes.rate_held(first.bench.model))
    if not held.finite or held.end >= MENDED * first.trial.end:
        return
    words = f"held where it is highest, the same steps end at {held.end:.3g} in place of {first.trial.end:.3g}"
    yield catalogue.finding(
        "lr-too-low",
        f"the schedule takes the rate away before anything is learned: {moves}. With the rate {words}. Let the "
        "schedule fall over the length of the run.",
        where={"phase": "update"},
        evidence=(Evidence("value", first.context.planned_steps, name=PLANNED),),
        proof=first.proof_of("rate held at its peak", changes.rate_held(first.bench.model), held, words),
        score=1.0,
    )


def _knows_nothing(first: FirstSteps) -> bool:
    """Whether the targets can be learned and the model, as it starts, knows less than half of what a line does."""
    known = learnable_share(first.bench.data)
    if known <= LEARNABLE:
        return False
    rows = sample(first.bench.data)
    judged = None if rows is None else judge(first.bench.model, rows)
    return judged is not None and judged.skill < 0.5 * known


@dataclass(frozen=True, slots=True)
class RatesAhead:
    """The rates of the whole run, as multiples of the mean rate of the trial."""

    peak: float = 1.0
    mean: float = 1.0


def _rates_ahead(first: FirstSteps, planned: int | None) -> RatesAhead:
    """Warm-up starts near zero, decay ends there: what counts is the whole run and not its first steps."""
    import keras

    optimizer = getattr(first.bench.model, "optimizer", None)
    schedule = getattr(getattr(optimizer, "inner_optimizer", optimizer), "_learning_rate", None)
    if not isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
        return RatesAhead()
    total = planned or 10_000
    seen = [float(schedule(step)) for step in range(max(1, len(first.trial.losses)))]
    # Early steps one by one: a schedule may fall within a few.
    places = sorted({*range(min(total, 100)), *range(0, total, max(1, total // 200))})
    spans = [after - before for before, after in zip(places, [*places[1:], total], strict=True)]
    rates = [float(schedule(step)) for step in places]
    mean = sum(rate * span for rate, span in zip(rates, spans, strict=True)) / total
    now = max(sum(seen) / len(seen), 1e-30)
    return RatesAhead(max(rates) / now, mean / now)


def _clipped(first: FirstSteps) -> Iterator[Finding]:
    """Clip thresholds far below the gradients, where taking them away makes the same steps learn."""
    trial = first.trial
    finite = [n for n in first.norms if math.isfinite(n) and n > 0]
    if not finite or not trial.finite:
        return
    typical = statistics.median(finite)
    for optimizer in optimizers_of(first.bench.model):
        for name in ("global_clipnorm", "clipnorm", "clipvalue"):
            threshold = getattr(optimizer, name, None)
            if threshold is None or typical * CLIPPED < threshold:
                continue
            free = first.again(changes.without_clipping(first.bench.model))
            # Both trials saw the same batches, so that their ends can be compared.
            if not free.finite or free.end >= MENDED * trial.end:
                continue
            yield catalogue.finding(
                "clip-saturated",
                f"{name}={threshold:g} cuts every gradient: their median norm is {typical:.3g}, "
                f"{typical / threshold:.0f} times "
                f"the threshold. After {len(trial.losses)} steps the loss is {trial.end:.3g}; without "
                f"clipping, {free.end:.3g}. Set the threshold above {typical:.2g}.",
                where={"phase": "update"},
                evidence=(Evidence("value", finite, name="gradient norm per step"),),
                proof=first.proof_of(
                    "without clipping",
                    changes.without_clipping(first.bench.model),
                    free,
                    f"ends at {free.end:.3g} in place of {trial.end:.3g}",
                ),
                score=1.0,
            )
            return
    yield from _clipped_in_the_step(first, finite)


ALIKE = 1e-3
"""Relative spread of gradient norms below which something holds them: those of batches differ by a tenth and more."""

CUT = 1e-2
"""Norm of what the optimizer gets over that of the gradient itself, from which a step has cut it to next to nothing."""

FREED = (100.0, 10_000.0)
"""Factors by which the rate is raised in place of a threshold that nobody can take away from outside."""


def _clipped_in_the_step(first: FirstSteps, norms: list[float]) -> Iterator[Finding]:
    """Gradients that arrive at the optimizer with one and the same norm, or far smaller than they were, where longer
    steps learn."""
    trial = first.trial
    if len(norms) < 8 or len(norms) < len(first.norms):
        return
    alike = max(norms) - min(norms) <= ALIKE * max(norms)
    real = None if alike or not has_own_step(first.bench.model) else _before_the_cut(first.bench)
    if not alike and (real is None or max(norms) > CUT * real):
        return
    told = (
        f"with the norm {norms[0]:.3g}, whatever the batch"
        if real is None
        else f"with norms up to {max(norms):.3g}, where the gradient of the loss has {real:.3g}"
    )
    for factor in FREED:
        longer = first.again(changes.rate_times(first.bench.model, factor))
        if not longer.finite or longer.end >= MENDED * trial.end:
            continue
        words = (
            f"with steps {factor:g} times as long the same batches end at {longer.end:.3g} in place of {trial.end:.3g}"
        )
        yield catalogue.finding(
            "clip-saturated",
            f"the gradients of all {len(norms)} first steps arrive at the optimizer {told}: something before it cuts "
            f"them, and {words}. Raise the threshold of the clipping in `train_step`.",
            where={"phase": "update"},
            evidence=(Evidence("value", norms, name="gradient norm per step"),),
            proof=first.proof_of(f"rate × {factor:g}", changes.rate_times(first.bench.model, factor), longer, words),
            status="FAIL",
            role="cause",
            score=1.0,
        )
        return


ONE_FACTOR = 0.99
"""Cosine of what is fed with the gradient itself, from which a step has divided it by a scale and not cut into it."""


def _before_the_cut(bench: Bench) -> float | None:
    """Norm of the gradient of a step's loss in what the optimizer is fed, where its entries were cut on the way."""
    import torch

    step = bench.again(bench.batch, record_calls=False)
    try:
        weights = [variable.value for variable in step.fed_variables]
        slopes = torch.autograd.grad(step.root.float().sum(), weights, allow_unused=True) if weights else ()
    except RuntimeError:  # a step that frees its graph, or updates within
        return None
    finally:
        bench.start.restore()
    fed = [gradient for _, gradients, _ in step.fed for gradient in gradients]
    pairs = [(a.double(), b.double()) for a, b in zip(fed, slopes, strict=True) if a is not None and b is not None]
    size, real = (math.hypot(*(norm(pair[place]) for pair in pairs), 0.0) for place in (0, 1))
    along = sum(float((a * b).sum()) for a, b in pairs)
    if not size or not real or along > ONE_FACTOR * size * real:
        return None
    return real / step.scale


def _decayed(first: FirstSteps) -> Iterator[Finding]:
    """Weight decay that no gradient can hold against."""
    model = first.bench.model
    for optimizer in optimizers_of(model):
        decay = getattr(optimizer, "weight_decay", None)
        if not isinstance(decay, int | float) or decay <= 0:
            continue
        kernels = [v.value.detach().float() for v in model.trainable_variables if v.value.ndim >= 2]
        if not kernels:
            continue
        size = statistics.median(float(k.pow(2).mean().sqrt()) for k in kernels)
        gradient = statistics.median(first.norms) if first.norms else math.inf
        total = math.hypot(*(float(k.norm()) for k in kernels))
        adaptive = hasattr(optimizer, "beta_2") or hasattr(optimizer, "rho") or "Adagrad" in type(optimizer).__name__
        pull = decay * size if adaptive else decay * total / max(gradient, 1e-12)
        limit = DECAY_PULL if adaptive else 10.0
        if pull < limit:
            continue
        yield catalogue.finding(
            "over-regularised",
            f"weight decay {decay:g} pulls {pull:.2g} times as hard as "
            + ("the greatest step that the optimizer makes for a weight" if adaptive else "the gradient")
            + f" (typical weight {size:.2g}): weights shrink to about {size / pull:.1g}. Usual values are 1e-4 to "
            f"1e-1.",
            where={"phase": "update"},
            evidence=(Evidence("value", decay, name="weight_decay"),),
            score=0.95,
        )
        return


BENT = 1e-3
"""Distance from a straight line, over the spread of answers, up to which it is rounding; one relu bends by a tenth."""


@check("straight model for curved data", codes=("under-capacity",), needs=("model", "arrays", "y"), cost=5)
def straight_model(context: Context) -> Iterable[Finding]:
    """A model that is linear in its inputs for every weight, where a curved fit explains far more than any line."""
    import torch

    bench = set_up(context)
    if bench.step.error is not None or bench.step.answer is None or len(flat(bench.step.answer)) != 1:
        return
    inputs = flat(bench.batch.x)
    if len(inputs) != 1 or not inputs[0].is_floating_point():
        return
    x = standardised(inputs[0])  # raw units would leave every relu on one side
    generator = torch.Generator().manual_seed(2)
    bent = 0.0
    for _ in range(2):
        draw_weights(bench.model, 1.0, generator)
        here, there = x, x.roll(1, 0)
        middle = opened(flat(predict(bench.model, (here + there) / 2))[0])
        ends = (opened(flat(predict(bench.model, here))[0]) + opened(flat(predict(bench.model, there))[0])) / 2
        bent = max(bent, float((middle - ends).abs().max()) / max(float(ends.std()), 1e-12))
    bench.start.restore()
    if bent > BENT:
        return
    fit = straight_and_curved(bench.data)
    if fit is None:
        return
    line, curve = fit
    if curve - max(line, 0.0) > CURVED_GAIN:
        yield catalogue.finding(
            "under-capacity",
            f"the model is a straight line in its inputs for every weight (it has no activation between its "
            f"layers), and "
            f"the data is curved: on rows held back a line explains R² = {line:.2f}, quadratic features "
            f"{curve:.2f}. Put an "
            "activation (relu, tanh) between the layers.",
            where={"phase": "forward"},
            evidence=(Evidence("value", {"straight": line, "curved": curve}, name="R² on rows held back"),),
            score=0.9,
        )
