"""Rules: which causes to test, in which order, and why. A rule proposes; only an experiment accuses.

Every rule is a value with its reason. What it returns costs a trial, so rules look before they propose; the order puts
what is most often true and cheapest to mend first (learning rate, scale and loss lead the lists of field studies:
Humbatova et al. 2020, "Taxonomy of real faults in deep learning systems"; Zhang et al. 2021, "AutoTrainer").
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tsguard.backend import optimizers_of
from tsguard.dataset import Data, leaves
from tsguard.diagnosis import experiments as do
from tsguard.diagnosis.experiments import Experiment
from tsguard.diagnosis.record import Record
from tsguard.findings import Finding
from tsguard.probes.answers import heads, labels_of, predict, question, unscaled
from tsguard.probes.gradients import term_gradients
from tsguard.probes.graph import last_operation
from tsguard.probes.learnable import ridge_r2, table
from tsguard.probes.score import sample
from tsguard.probes.stage import Batch, has_own_step, take_step
from tsguard.probes.trial import stream

USUAL_STEP = 1e-3
"""Relative step of a kernel under usual settings; a rate that stays below it a hundred times higher is tried there."""

SHIFTS = 12
"""Rows by which targets are tried against inputs, each way."""

REPAIRED = 0.2
"""Gain in explained variance, on rows held back, from which another pairing is worth a trial."""

ROWS_DEALT = 2_048
"""Rows of a loader that are dealt anew: what a trial of a few hundred steps gets through several times."""

CLIPS = ("clipnorm", "global_clipnorm", "clipvalue")

RARE = 0.1
"""Share of a class below which it is drowned by the others in an unweighted loss."""


@dataclass(frozen=True)
class Rule:
    """When to propose an experiment, and why."""

    name: str
    because: str
    propose: Callable[[Record, Batch, tuple[Finding, ...]], Iterable[Experiment]]


def proposals(record: Record, batch: Batch, findings: tuple[Finding, ...]) -> Iterator[tuple[Rule, Experiment]]:
    """All experiments worth their trial, most promising first; what a check has already found goes before all."""
    spoken = [f.code for f in findings if f.role == "cause" and f.status in ("WARN", "FAIL")]
    listed = [(rule, one) for rule in RULES for one in rule.propose(record, batch, findings)]
    order = {code: place for place, code in reversed(list(enumerate(spoken)))}
    yield from sorted(listed, key=lambda pair: order.get(pair[1].code, len(spoken)))


def _rates(record: Record, batch: Batch, findings: tuple[Finding, ...]) -> Iterator[Experiment]:
    size = _relative_step(record, batch)
    if size is None or size > USUAL_STEP / 3:
        yield do.rate(0.1)
        yield do.rate(0.01)
    if size is not None and size < USUAL_STEP:
        usual = 10.0 ** max(1, round(math.log10(USUAL_STEP / size)))
        yield do.rate(usual)
        yield do.rate(10.0 * usual)


def _relative_step(record: Record, batch: Batch) -> float | None:
    """How far one update moves kernels, relative to their size (the median); the start is put back."""
    kernels = [v for v in record.model.trainable_variables if v.value.ndim >= 2 and v.value.is_floating_point()]
    before = [v.value.detach().clone() for v in kernels]
    take_step(record.model, batch, update=True, record_calls=False)
    moves = [
        float((v.value.detach() - old).norm() / old.norm())
        for v, old in zip(kernels, before, strict=True)
        if float(old.norm()) > 0
    ]
    record.start.restore(record.model)
    moved = [m for m in moves if m > 0 and math.isfinite(m)]
    return statistics.median(moved) if moved else None


def _inputs(record: Record, batch: Batch, findings: tuple[Finding, ...]) -> Iterator[Experiment]:
    if any(unscaled(leaf) for leaf in leaves(batch.x)):
        yield do.scaled_inputs(record.data)


def _constants(record: Record, batch: Batch, findings: tuple[Finding, ...]) -> Iterator[Experiment]:
    if any(f.code == "data-constant" and "feature" in f.where for f in findings):
        if (silenced := do.without_constants(record.data)) is not None:
            yield silenced


def _targets(record: Record, batch: Batch, findings: tuple[Finding, ...]) -> Iterator[Experiment]:
    if any(labels_of(leaf) in ("real", "integer") and unscaled(leaf) for leaf in leaves(batch.y)):
        if not any(_asks_for_classes(head) for head in _heads(record, batch)):
            yield do.scaled_targets(record.data)


def _heads(record: Record, batch: Batch) -> list[Any]:
    return heads(record.model, batch, predict(record.model, batch.x))


def _asks_for_classes(head: Any) -> bool:
    return head.loss is not None and question(head.loss).kind in ("sparse", "categorical", "binary", "hinge")


def _restraint(record: Record, batch: Batch, findings: tuple[Finding, ...]) -> Iterator[Experiment]:
    model = record.model
    layers = list(model._flatten_layers(include_self=True, recursive=True))
    if any(getattr(o, n, None) for o in optimizers_of(model) for n in CLIPS):
        yield do.unclipped()
    if any(
        isinstance(getattr(one, n, None), float) and getattr(one, n) > 0 for one in layers for n in ("rate", "dropout")
    ):
        yield do.no_dropout()
    penal = any(getattr(v, "regularizer", None) is not None for v in model.variables)
    active = any(getattr(one, "activity_regularizer", None) is not None for one in layers)
    penal = penal or any(getattr(v, "constraint", None) is not None for v in model.variables)
    if penal or active or any(getattr(o, "weight_decay", None) for o in optimizers_of(model)):
        yield do.no_penalties()


def _weights(record: Record, batch: Batch, findings: tuple[Finding, ...]) -> Iterator[Experiment]:
    yield do.usual_weights()
    if not any(getattr(o, n, None) for o in optimizers_of(record.model) for n in CLIPS):
        yield do.clipped()


def _width(record: Record, batch: Batch, findings: tuple[Finding, ...]) -> Iterator[Experiment]:
    import keras

    if (
        isinstance(record.model, keras.Sequential)
        or hasattr(record.model, "_functional")
        or getattr(record.model, "inputs", None)
    ):
        yield do.widened()


def _frozen(record: Record, batch: Batch, findings: tuple[Finding, ...]) -> Iterator[Experiment]:
    frozen = [
        v for v in record.model.variables if v.value.ndim >= 2 and v.value.is_floating_point() and not v.trainable
    ]
    if frozen and getattr(record.model, "optimizer", None) is not None:
        yield do.unfrozen()


def _relu(record: Record, batch: Batch, findings: tuple[Finding, ...]) -> Iterator[Experiment]:
    import keras

    layers = record.model._flatten_layers(include_self=False, recursive=True)
    if any(getattr(layer, "activation", None) is keras.activations.relu for layer in layers):
        yield do.leaking_relu()


def _closed(record: Record, batch: Batch, findings: tuple[Finding, ...]) -> Iterator[Experiment]:
    if any(f.code in ("saturated-units", "vanishing-gradient") for f in findings):
        yield do.open_activations()


def _precision(record: Record, batch: Batch, findings: tuple[Finding, ...]) -> Iterator[Experiment]:
    layers = record.model._flatten_layers(include_self=True, recursive=True)
    half = any(str(getattr(one, "compute_dtype", "")) in ("float16", "bfloat16") for one in layers)
    ended_badly = not all(map(math.isfinite, record.series.get("loss", ())))
    if half or ended_badly:
        yield do.more_precise()


def _step(record: Record, batch: Batch, findings: tuple[Finding, ...]) -> Iterator[Experiment]:
    model = record.model
    if not has_own_step(model) or getattr(model, "_compile_loss", None) is None:
        return
    known = [f.code for f in findings if f.code in ("untracked-parameters", "gradient-accumulates")]
    yield do.keras_own_step(known[0] if known else "untracked-parameters")


STIFF = 0.97
"""Momentum from which a step is carried on for more than thirty others."""


def _momentum(record: Record, batch: Batch, findings: tuple[Finding, ...]) -> Iterator[Experiment]:
    momenta = [getattr(one, "momentum", None) for one in optimizers_of(record.model)]
    if any(isinstance(momentum, int | float) and momentum >= STIFF for momentum in momenta):
        yield do.usual_momentum()


def _padding(record: Record, batch: Batch, findings: tuple[Finding, ...]) -> Iterator[Experiment]:
    if record.padding is not None and record.padding.mask is not None:
        yield do.neutral_padding(record.padding)


SLOW = 0.995
"""Momentum of moving statistics that needs more than two hundred steps to follow."""


def _statistics(record: Record, batch: Batch, findings: tuple[Finding, ...]) -> Iterator[Experiment]:
    import keras

    layers = record.model._flatten_layers(include_self=False, recursive=True)
    if any(isinstance(one, keras.layers.BatchNormalization) and one.momentum > SLOW for one in layers):
        yield do.quick_statistics()


def _order(record: Record, batch: Batch, findings: tuple[Finding, ...]) -> Iterator[Experiment]:
    if not record.data.is_arrays:
        rows = sample(record.data, ROWS_DEALT) if any(f.code == "data-order" for f in findings) else None
        if rows is not None:
            size = next(stream(record.data, record.fit)).rows
            yield do.mixed_order(Data(rows.x, rows.y, rows.sample_weight, batch_size=size))
    elif record.fit.get("shuffle", True) is False:
        yield do.mixed_order()


def _balance(record: Record, batch: Batch, findings: tuple[Finding, ...]) -> Iterator[Experiment]:
    if record.fit.get("class_weight"):
        return
    for leaf in leaves(record.data.y) if record.data.is_arrays else ():
        array = np.asarray(leaf)
        steps = array.size != len(array)
        labels = _tags(record, batch, array) if steps else array
        if labels is None:
            continue
        names, counts = np.unique(labels.reshape(-1), return_counts=True)
        if (
            2 <= len(names) <= 50
            and np.array_equal(names, names.round())
            and counts.min() / counts.sum() < RARE / (len(names) / 2)
        ):
            yield do.balanced(labels, steps=steps)
            return


def _tags(record: Record, batch: Batch, array: Any) -> Any:
    """Labels of steps as class numbers; None where the only output does not answer every step with a class."""
    listed = heads(record.model, batch, predict(record.model, batch.x))
    if len(listed) != 1 or listed[0].answer.ndim != 3 or listed[0].loss is None or array.ndim not in (2, 3):
        return None
    if question(listed[0].loss).kind not in ("sparse", "categorical", "binary"):
        return None  # whole numbers may be amounts
    answer, written = listed[0].answer, labels_of(listed[0].target)
    if tuple(answer.shape[1:2]) != array.shape[1:2] or written not in ("integer", "binary", "one-hot"):
        return None
    if array.ndim == 3 and array.shape[2] > 1:
        return array.argmax(-1) if written == "one-hot" else None
    return array.reshape(array.shape[:2])


def _terms(record: Record, batch: Batch, findings: tuple[Finding, ...]) -> Iterator[Experiment]:
    for number, (name, term) in enumerate(_terms_of(record, batch).items()):
        if term.task:
            yield do.without_term(number, name)


def _terms_of(record: Record, batch: Batch) -> dict[str, Any]:
    terms = term_gradients(record.model, batch, restore=lambda: record.start.restore(record.model), shared_only=False)
    return terms if sum(term.task for term in terms.values()) in range(2, 5) else {}


def _loss(record: Record, batch: Batch, findings: tuple[Finding, ...]) -> Iterator[Experiment]:
    import torch

    with torch.enable_grad():
        model = record.model
        answer = model(batch.x, training=False) if model._call_has_training_arg else model(batch.x)
    listed = heads(record.model, batch, answer)
    if _terms_of(record, batch):
        return  # a sum of terms: they are taken away one by one
    if len(listed) != 1 or listed[0].target is None:
        return
    head = listed[0]
    written, units = labels_of(head.target), int(head.answer.shape[-1]) if head.answer.ndim > 1 else 1
    asked = question(head.loss) if head.loss is not None else None
    last = last_operation(head.answer)
    softmax = last is not None and last.op == "Softmax"
    same_size = head.target.numel() == head.answer.numel()
    classes = units > 1 and (
        (written == "one-hot" and head.target.shape == head.answer.shape)
        or (written in ("integer", "binary") and head.target.numel() * units == head.answer.numel())
    )
    if classes and (asked is None or asked.kind not in ("sparse", "categorical")):
        if softmax or written == "one-hot" or _fits_units(head.target, units):
            yield do.right_loss("loss-mismatch", "classes")
    elif written == "binary" and same_size and (asked is None or asked.kind != "binary"):
        yield do.right_loss("loss-mismatch", "yes or no")
    elif written == "real" and same_size and (asked is None or asked.kind != "regression" or asked.name in RELATIVE):
        yield do.right_loss("loss-mismatch", "values")
    layer = _last_activated(record.model)
    if layer is not None and written == "real" and not _asks_for_classes(head) and _closes(layer):
        yield do.with_last_activation("output-activation", layer, "linear")


RELATIVE = ("mean_absolute_percentage_error", "mean_squared_logarithmic_error")
"""Losses of ratios: of targets that come near zero, or fall below it, they ask something else than of amounts."""


def _fits_units(target: Any, units: int) -> bool:
    return float(target.min()) >= 0 and float(target.max()) < units


def _last_activated(model: Any) -> Any:
    layers = [one for one in model._flatten_layers(include_self=False, recursive=True) if hasattr(one, "activation")]
    return layers[-1] if layers else None


def _closes(layer: Any) -> bool:
    import keras

    return layer.activation not in (keras.activations.linear, None)


def _pairs(record: Record, batch: Batch, findings: tuple[Finding, ...]) -> Iterator[Experiment]:
    """Targets against inputs of other rows: a shift, or the order of the targets themselves."""
    data = record.data
    if not data.is_arrays or data.y is None or data.sample_weight is not None:
        return
    made = table(Data(data.x, data.y)) if len(data) <= 2048 else None
    if made is None:
        return
    x, y = made
    own = ridge_r2(x, y)
    best, shift = own, 0
    for rows in range(-SHIFTS, SHIFTS + 1):
        if rows and abs(rows) < len(x) // 4:
            inputs, targets = (x[:-rows], y[rows:]) if rows > 0 else (x[-rows:], y[:rows])
            score = ridge_r2(inputs, targets)
            if score > best:
                best, shift = score, rows
    if shift and best > own + REPAIRED:
        yield do.paired(
            _shifted(data, shift),
            "data-mispaired",
            f"targets moved by {shift} rows",
            f"Join x and y by key: row i of x belongs to row i + {shift} of y.",
        )


def _shifted(data: Data, rows: int) -> Data:
    from tsguard.dataset import map_leaves

    def cut_x(leaf: Any) -> Any:
        return leaf[:-rows] if rows > 0 else leaf[-rows:]

    def cut_y(leaf: Any) -> Any:
        return leaf[rows:] if rows > 0 else leaf[:rows]

    return Data(map_leaves(cut_x, data.x), map_leaves(cut_y, data.y), batch_size=data.batch_size)


RULES: tuple[Rule, ...] = (
    Rule("scale of inputs", "initialisers and rates are made for inputs of mean 0 and deviation 1", _inputs),
    Rule("constant features", "what many of them add to every unit is far more than what the others say", _constants),
    Rule("scale of targets", "a linear output starts near 0 and moves by about the rate per step", _targets),
    Rule("loss and output", "a loss that asks another question is lowered without answering", _loss),
    Rule("terms of the loss", "a term that pulls elsewhere, or louder, keeps the others from being learned", _terms),
    Rule("padding", "what stands in padded positions must not be heard", _padding),
    Rule("own step", "a step that resets nothing, or leaves variables out, trains another model than it seems", _step),
    Rule("restraint", "clipping, dropout, penalties and decay each can hold a model still", _restraint),
    Rule("rate", "the most frequent fault of all, in both directions", _rates),
    Rule(
        "momentum",
        "what is carried on too long runs past every minimum: the effective rate is rate / (1 − m)",
        _momentum,
    ),
    Rule("order of rows", "batches of one kind each pull the model to themselves", _order),
    Rule("balance", "a class below a tenth is cheaper to ignore than to learn", _balance),
    Rule("pairs", "targets that fit other rows' inputs better than their own were shuffled or shifted", _pairs),
    Rule("moving statistics", "what inference normalises with must have followed what training saw", _statistics),
    Rule("frozen layers", "what is frozen at random values passes on little that the rest can use", _frozen),
    Rule("initial weights", "an unlucky or odd start is mended by another draw of usual size", _weights),
    Rule("dead units", "units that stopped firing come back where the activation leaks", _relu),
    Rule("closed units", "units on the flat part of tanh or sigmoid pass no gradient back", _closed),
    Rule("precision", "what overflows or cancels in a narrow type does not in a wider one", _precision),
    Rule("width", "a bottleneck of a few units loses what the targets depend on", _width),
)
