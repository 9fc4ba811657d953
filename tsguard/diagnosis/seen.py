"""The state in which a run ended, measured: predictions on its own training rows, and the symptoms they show."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, replace

from tsguard import catalogue
from tsguard.checks.units import unit_findings
from tsguard.dataset import Data, leaves
from tsguard.diagnosis.collapse import collapsed
from tsguard.diagnosis.record import Record
from tsguard.diagnosis.signs import RARE, below, symptoms
from tsguard.evidence import Evidence
from tsguard.findings import Finding, Role, Status
from tsguard.probes.answers import Head, LossOfAnswers, heads, labels_of, predict, question
from tsguard.probes.baselines import learnable_share, regression_baselines
from tsguard.probes.score import JUDGED_ROWS, Judged, as_shares, judge, sample, skill_of
from tsguard.probes.stage import Batch, Snapshot, take_step
from tsguard.probes.trial import stream


@dataclass(frozen=True, slots=True)
class Seen:
    """The state in which the run ended, measured."""

    sample: Batch | None
    judged: Judged | None
    learnable: float
    symptoms: tuple[Finding, ...]
    rates: tuple[float, float] | None = None
    """The learning rate at the start of the run and at its end; None where a schedule of the optimizer sets it."""


def measure(record: Record) -> Seen:
    """The state as it stands: its own training rows answered, the symptoms of curves and predictions, the rates."""
    return replace(_measure(record), rates=_rates(record))


def _rates(record: Record) -> tuple[float, float] | None:
    import keras

    def rate() -> float | None:
        optimizer = getattr(record.model, "optimizer", None)
        value = getattr(getattr(optimizer, "inner_optimizer", optimizer), "_learning_rate", None)
        if value is None or isinstance(value, keras.optimizers.schedules.LearningRateSchedule):
            return None
        return float(value)

    end, last = Snapshot(record.model), rate()
    record.start.restore(record.model)
    first = rate()
    end.restore()
    return (first, last) if first and last is not None else None


def _measure(record: Record) -> Seen:
    from tsguard.probes.score import answers_and_targets

    rows = sample(record.data, JUDGED_ROWS, weighted=True)
    if rows is None:
        return Seen(None, None, 0.0, symptoms(record.series))
    judged = judge(record.model, rows)
    each = _learnable(record)
    # The worst output is judged, and no more can be known of it than of the one that tells least.
    known = min(each.values(), default=0.0)
    if judged is None or rows.y is None:
        # Without targets there are answers that nobody asked for by value: a representation.
        alone = collapsed(record) if judged is None else []
        return Seen(rows, judged, known, (*symptoms(record.series), *alone))
    found = [*symptoms(record.series), *_idle_units(record)]
    if asks_its_own(record) and (answered(record) or _takes_labels_for_no_answers(record)):
        # An own loss that falls is answered, whatever it asks: that other numbers of the output stay far from the
        # targets (hidden patches only, ranks, likelihoods) is no symptom of it.
        return Seen(rows, judged, known, tuple(found))
    predictions, targets = answers_and_targets(record.model, rows)
    classes = judged.kind == "classes"
    if not classes and _logits(record):
        predictions = [as_shares(answer) for answer in predictions]
    # Several labels at once have no one class that is answered: their accuracy is judged as that of several outputs.
    labels = classes and "most_answered" not in judged.metrics
    if len(predictions) == 1 and len(targets) == 1 and not labels:
        baselines = {} if classes else regression_baselines(record.data)
        looked = (
            symptoms(
                {}, predictions[0], targets[0], baselines, learnable=known, classes=classes, from_logits=_logits(record)
            )
            if classes or predictions[0].size == targets[0].size
            else ()
        )
        found += looked or _below_on_rows_held_back(record, judged)
    else:
        found += _unlearned(judged, each)
    return Seen(rows, judged, known, tuple(found))


UNLEARNED, LEARNABLE = 0.5, 0.15
"""Share of what a closed-form fit explains of an output that must be learned of it, and what that fit must explain."""


def _unlearned(judged: Judged, known: dict[str, float]) -> list[Finding]:
    """The output that lies furthest behind what a closed-form fit explains of the same targets."""
    learned = {name: skill_of(metrics) for name, metrics in judged.outputs.items()}
    if set(known) != set(learned):  # which target belongs to which output is not told: the least is asked of each
        known = dict.fromkeys(learned, min(known.values(), default=0.0))
    behind = {name: known[name] - learned[name] for name in learned if learned[name] < UNLEARNED * known[name]}
    worst = max(behind, key=lambda name: behind[name], default=None)
    if worst is None or known[worst] <= LEARNABLE or worst in judged.opposed:
        return []
    return [
        catalogue.finding(
            "no-learning",
            f"output {worst!r} explains {learned[worst]:.0%} of its targets on training rows, and a closed-form fit "
            f"{known[worst]:.0%} of rows held back.",
            where={"output": worst},
            evidence=(Evidence("value", judged.metrics, name="metrics"),),
        )
    ]


HELD_ROWS = 100
"""Rows of a validation part from which a score that is no better than a constant is no accident of a few."""


def _below_on_rows_held_back(record: Record, trained: Judged) -> list[Finding]:
    """What was learned of training rows may be these rows alone: then nothing of it holds for others."""
    held = record.data.held_back()
    rows = None if held is None else sample(held, JUDGED_ROWS)
    judged = None if rows is None or rows.rows < HELD_ROWS else judge(record.model, rows)
    if rows is None or judged is None or judged.kind != trained.kind or judged.skill > 0:
        return []
    told = judged.metrics
    what, rule = "what was learned", "a constant"
    if judged.kind == "classes":
        if told.get("majority_share", 1.0) >= RARE:
            return []
        what, rule = f"accuracy {told['accuracy']:.1%}", f"always answering one class ({told['majority_share']:.1%})"
    elif "r2" in told:
        what, rule = f"R² {told['r2']:.3g}", "the mean of the targets (0)"
    evidence = (Evidence("value", dict(told), name="metrics on rows held back"),)
    return [below(f"on {rows.rows} rows that were held back, {what}", rule, evidence, where={"split": "validation"})]


ANSWERED = 0.2
"""Share of its first value by which an own loss has to fall to count as learning: more than batches scatter."""


def asks_its_own(record: Record) -> bool:
    """Whether a loss is not one of Keras' own, so that nobody knows what a good answer looks like.

    One that is least where answers equal the targets, and hears every one of them, says it by itself.
    """
    losses = getattr(getattr(record.model, "_compile_loss", None), "_flat_losses", None) or ()
    own = not losses or any(question(one.loss).kind == "own" for one in losses)
    return own and not _asks_for_the_targets(record)


ASKED_ROWS = 64
"""Rows on which an own loss is asked what it wants: a batch, as losses are used to."""

DEALT_ROWS = 256
"""… and on which it is asked whether answers belong to their rows."""

HEARD = 0.99
"""Share of the answers that a loss must hear to be about all of them: hidden parts alone are a pretext."""

LOPSIDED = 0.2
"""Share by which answers too high may cost another amount than answers too low: quantiles ask for something else."""


def _one_head(record: Record, rows: int = ASKED_ROWS) -> tuple[Batch, Head] | None:
    """The one output of a model with its targets, over rows from all over the data: those of one batch may have one and
    the same target. None where there are several, or none to be held against targets."""
    batch = sample(record.data, rows)
    if batch is None or batch.y is None:
        return None
    try:
        listed = heads(record.model, batch, predict(record.model, batch.x))
    except Exception:  # a model that cannot be asked so keeps its own measure
        return None
    return (batch, listed[0]) if len(listed) == 1 and listed[0].target is not None else None


def _asks_for_the_targets(record: Record) -> bool:
    """Whether an own loss is a distance: least at the targets, the same on both sides, and of every answer."""
    import torch

    asked = _one_head(record)
    if asked is None:
        return False
    batch, head = asked
    if head.target.numel() != head.answer.numel() or labels_of(head.target) != "real":
        return False
    wanted = head.target.float().reshape(head.answer.shape)
    loss_of = LossOfAnswers(record.model, batch, head.answer)
    generator = torch.Generator().manual_seed(0)
    away = float(wanted.std()) * torch.randn(wanted.shape, generator=generator).to(wanted.device)
    shift = float(wanted.std())
    at, near, above, below = (loss_of([wanted + d]) for d in (0.0, away, shift, -shift))
    if not all(map(math.isfinite, (at, near, above, below))) or at >= min(near, above, below):
        return False
    slopes = loss_of.slopes([wanted + away])
    heard = 0.0 if slopes is None or slopes[0] is None else float((slopes[0] != 0).float().mean())
    return heard >= HEARD and abs(above - below) <= LOPSIDED * max(above - at, below - at)


def _takes_labels_for_no_answers(record: Record) -> bool:
    """Whether an own loss finds the model's answers better than the very targets, which are labels: its answers are
    logits, rates or the like, and how near they come to the labels says nothing."""
    asked = _one_head(record)
    if asked is None:
        return False
    batch, head = asked
    if labels_of(head.target) == "real" or head.target.shape != head.answer.shape:
        return False
    loss_of = LossOfAnswers(record.model, batch, head.answer)
    return loss_of([head.target.float()]) > loss_of([head.answer])


DEALS = 64
"""Times that answers are dealt to other rows."""

TOLD_APART = 2.0
"""How many times as far below the middle of the dealt losses as the lowest of them the answers must cost in their own
rows. The lowest of 64 lies 2.4 deviations off; above the middle likelihoods have tails that say nothing."""


def _finds_rows_answered(record: Record) -> bool:
    """Whether an own loss costs less where each row has its own answer than where answers are dealt to other rows: then
    they know their rows, however little of a likelihood that is."""
    import torch

    asked = _one_head(record, DEALT_ROWS)
    if asked is None:
        return False
    batch, head = asked
    loss_of = LossOfAnswers(record.model, batch, head.answer)
    generator = torch.Generator().manual_seed(0)
    orders = [torch.randperm(len(head.answer), generator=generator).to(head.answer.device) for _ in range(DEALS)]
    own, dealt = loss_of([head.answer]), [loss_of([head.answer[order]]) for order in orders]
    if not all(map(math.isfinite, (own, *dealt))):
        return False
    middle = statistics.median(dealt)
    return middle - own > TOLD_APART * (middle - min(dealt)) > 0


def answered(record: Record) -> bool:
    """Whether an own loss is answered: it has fallen, or finds the answers in their own rows."""
    return _has_fallen(record) or _finds_rows_answered(record)


def _has_fallen(record: Record) -> bool:
    """Whether the loss has fallen: the median of its last tenth against that of its first."""
    losses = [float(value) for value in record.series.get("loss", ()) if math.isfinite(float(value))]
    if len(losses) < 4:
        return False
    size = max(1, len(losses) // 10)
    first, last = statistics.median(losses[:size]), statistics.median(losses[-size:])
    return first - last > ANSWERED * abs(first)


def _idle_units(record: Record) -> list[Finding]:
    """Units that are dead or saturated where the run ended: a symptom, unless they started so."""
    batch = next(stream(record.data, record.fit), None)
    if batch is None:
        return []
    step = take_step(record.model, batch)
    if step.error is not None or step.root is None:
        return []
    return [
        replace(f, role=Role.SYMPTOM, status=Status.WARN) for f in unit_findings([step], when="where the run ended")
    ]


def _learnable(record: Record) -> dict[str, float]:
    """What a closed-form fit explains of each target, by name where targets have names and by place otherwise."""
    data = record.data
    named = data.y.items() if isinstance(data.y, dict) else enumerate(leaves(data.y))
    listed = [(str(name), leaf) for name, leaf in named]
    if not data.is_arrays or len(listed) < 2:
        return {"output": _share(data)}
    return {name: _share(Data(data.x, leaf, batch_size=data.batch_size)) for name, leaf in listed}


def _share(data: Data) -> float:
    try:
        return learnable_share(data)
    except (ValueError, TypeError, ArithmeticError):  # odd data: then nothing is known about what can be learned
        return 0.0


def _logits(record: Record) -> bool:
    flat_losses = getattr(getattr(record.model, "_compile_loss", None), "_flat_losses", None) or ()
    return any(question(one.loss).from_logits for one in flat_losses)
