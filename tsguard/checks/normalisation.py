"""Statistics of a batch: over how much they are taken, and whether the moving ones settle."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from tsguard import catalogue
from tsguard.checks.bench import name_of, set_up
from tsguard.checks.registry import Context, check
from tsguard.dataset import map_leaves
from tsguard.evidence import Evidence
from tsguard.findings import Finding
from tsguard.probes.answers import predict
from tsguard.probes.score import sample
from tsguard.probes.stage import flat

UNSETTLED = 0.1
"""Planned steps times (1 − momentum): moving statistics have then gone less than a tenth of the way."""


@check("statistics over a batch of one", codes=("train-eval-gap",), needs=("model", "data"), cost=2)
def batch_statistics(context: Context) -> Iterable[Finding]:
    """BatchNorm over a single value, or with moving statistics that the planned run cannot settle."""
    import keras

    bench = set_up(context)
    planned = context.planned_steps
    for call in bench.step.calls:
        layer = call.layer
        if not isinstance(layer, keras.layers.BatchNormalization) or not layer.trainable or call.output is None:
            continue
        given = _given(call)
        if given is None:
            continue
        if _values_behind(layer, given) == 1:
            yield catalogue.finding(
                "train-eval-gap",
                f"{name_of(layer)} takes its statistics over one value (batches of {bench.batch.rows}): in "
                f"training its output "
                "is its offset whatever comes in, and nothing before it gets a gradient. Use batches of 16 or more, or "
                "LayerNormalization.",
                where={"layer": name_of(layer)},
                status="FAIL",
                score=1.0,
            )
            return
        settled = None if planned is None else planned * (1 - float(layer.momentum))
        value = given.detach().float()
        axes = _axes(layer, value)
        far = float(value.mean(axes).abs().max()) > 1.0 or not 0.1 < float(value.var(axes).median()) < 10.0
        if settled is not None and settled < UNSETTLED and far:
            yield catalogue.finding(
                "train-eval-gap",
                f"{name_of(layer)} has momentum {float(layer.momentum):g}: after the planned {planned} steps its "
                f"moving "
                f"statistics have gone {1 - math.exp(-settled):.0%} of the way, so that inference normalises with the "
                f"initial ones. Use a momentum of about {max(0.5, 1 - 10 / max(planned or 1, 20)):.2f}, or train "
                f"longer.",
                where={"layer": name_of(layer)},
                score=0.8,
            )
            return


FEW = 8
"""Values behind a statistic up to which it is asked what the company of a row does to its answer."""

COMPANIES = 8
"""Batches of other rows in which each row is answered, and … """

ROWS_ASKED = 32
"""… rows that are asked so."""


@check("answers that hang on their batch", codes=("batch-coupling",), needs=("model", "data"), cost=3)
def company(context: Context) -> Iterable[Finding]:
    """With statistics over a few rows: does a row's answer in training say more of the row or of the rows beside it?"""
    import torch

    bench = set_up(context)
    size = context.batch_size
    if not bench.answered or not 1 < size <= FEW:
        return
    layer = next((call.layer for call in bench.step.calls if _over_few(call)), None)
    rows = None if layer is None else sample(bench.data, ROWS_ASKED)
    if layer is None or rows is None or rows.rows < 2 * size:
        return
    generator = torch.Generator().manual_seed(11)
    drawn = []
    for _ in range(COMPANIES):
        order = torch.randperm(rows.rows, generator=generator)[: rows.rows // size * size]
        told = [_answers(bench.model, rows.x, places) for places in order.split(size)]
        answers = torch.cat(told).float().reshape(len(order), -1)
        whole = torch.full((rows.rows, answers.shape[1]), math.nan).to(answers)
        whole[order.to(answers.device)] = answers
        drawn.append(whole)
    bench.start.restore()
    answers = torch.stack(drawn)
    answers = answers[:, ~answers.isnan().any(-1).any(0)]
    if answers.shape[1] < 2 or not bool(torch.isfinite(answers).all()):
        return
    signal, noise = float(answers.mean(0).var(0).mean()), float(answers.var(0).mean())
    if noise > signal:
        yield catalogue.finding(
            "batch-coupling",
            f"{name_of(layer)} takes its statistics over batches of {size}: one and the same row is answered with a "
            f"deviation of {math.sqrt(noise):.3g} from batch to batch, and rows differ by {math.sqrt(signal):.3g}. "
            "Expected answers that hang on the row. Use batches of 16 or more, or LayerNormalization.",
            where={"layer": name_of(layer)},
            status="FAIL",
            role="cause",
            evidence=(Evidence("value", {"rows": signal, "company": noise}, name="variance of answers"),),
            score=0.95,
        )


def _answers(model: Any, x: Any, places: Any) -> Any:
    """What a model in training answers to some rows, as one batch."""

    def cut(leaf: Any) -> Any:
        return leaf[places.to(leaf.device)]

    return flat(predict(model, map_leaves(cut, x), training=True))[0]


def _over_few(call: Any) -> bool:
    """Whether a layer normalises over a handful of values."""
    import keras

    if not isinstance(call.layer, keras.layers.BatchNormalization) or not call.layer.trainable:
        return False
    given = _given(call)
    return given is not None and _values_behind(call.layer, given) <= FEW


def _given(call: Any) -> Any:
    """What a normalisation was given, where it has an axis beside that of the samples."""
    given = next((t for t in flat(call.inputs) if hasattr(t, "shape")), None)
    return None if given is None or given.ndim < 2 else given


def _axes(layer: Any, given: Any) -> tuple[int, ...]:
    """The axes over which statistics are taken."""
    return tuple(place for place in range(given.ndim) if place != layer.axis % given.ndim)


def _values_behind(layer: Any, given: Any) -> int:
    """Over how many values each statistic is taken."""
    return math.prod(int(given.shape[axis]) for axis in _axes(layer, given))


OFF = 0.3
"""Distance of a batch's mean from 0, or of its variance's logarithm from that of 1, from which initial statistics do
not normalise it."""


@check("statistics that never move", codes=("train-eval-gap",), needs=("model", "data"), cost=2)
def still_statistics(context: Context) -> Iterable[Finding]:
    """A trainable BatchNorm whose moving statistics stay where they were in a step of training."""
    import keras
    import torch

    bench = set_up(context)
    if bench.step.error is not None or bench.step.root is None:
        return
    bench.start.restore()
    layers = [
        one for one in bench.model._flatten_layers(recursive=True) if isinstance(one, keras.layers.BatchNormalization)
    ]
    layers = [one for one in layers if one.built and one.trainable]
    before = [one.moving_mean.value.detach().clone() for one in layers]
    step = bench.again()
    moved = [not torch.equal(one.moving_mean.value, old) for one, old in zip(layers, before, strict=True)]
    bench.start.restore()
    called = {id(call.layer): call for call in step.calls}
    for layer, has_moved, old in zip(layers, moved, before, strict=True):
        call = called.get(id(layer))
        given = None if call is None else next((t for t in flat(call.inputs) if hasattr(t, "shape")), None)
        if has_moved or given is None or bool(old.any()) or not bool((layer.moving_variance.value == 1).all()):
            continue  # statistics that were learned before may well be kept as they are
        value = given.detach().float()
        axes = _axes(layer, value)
        mean, variance = value.mean(axes), value.var(axes, correction=0).clamp(min=1e-12)
        if float(mean.abs().mean()) < OFF and float(variance.log().abs().mean()) < OFF:
            continue
        yield catalogue.finding(
            "train-eval-gap",
            f"{name_of(layer)} normalises with its initial statistics (mean 0, variance 1) in training too: a step of "
            f"training does not move them, and what comes in has mean {float(mean.abs().mean()):.2g} and variance "
            f"{float(variance.mean()):.2g}. Call the model with training=True in `train_step`.",
            where={"layer": name_of(layer), "phase": "forward"},
            status="WARN",
            score=0.7,
        )
        return
