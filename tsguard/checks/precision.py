"""Half precision that the values do not fit into."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from tsguard import catalogue
from tsguard.backend import attributes, optimizers_of
from tsguard.checks.bench import Bench, name_of, set_up
from tsguard.checks.registry import Context, check
from tsguard.findings import Finding
from tsguard.probes.stage import Step, flat, take_step


@check("half precision", codes=("precision-overflow",), needs=("model", "data"), cost=3)
def half_precision(context: Context) -> Iterable[Finding]:
    """A step that is not finite in float16 and is in float32."""
    bench = set_up(context)
    narrow = computing_in_half(bench.model)
    if not narrow or bench.step.error is not None or bench.step.root is None:
        return
    answers = flat(bench.step.answer)
    broken = not all(bool(a.float().isfinite().all()) for a in answers)
    if not broken and math.isfinite(bench.step.loss):
        return
    import keras

    full = keras.dtype_policies.DTypePolicy("float32")
    with attributes([(layer, "_dtype_policy", full) for layer in narrow]):
        wide = bench.again()
    bench.start.restore()
    if wide.error is None and math.isfinite(wide.loss):
        place = first_not_finite(bench.step)
        yield catalogue.finding(
            "precision-overflow",
            f"the step is not finite in float16 and has a loss of {wide.loss:.4g} in float32"
            + (f"; the first layer whose output is not finite is {place}" if place else "")
            + ". float16 ends at 65,504 and loses everything below 6e-8. Compute that part in float32, or train in "
            "bfloat16.",
            where={"layer": place, "phase": "forward" if broken else "loss"},
            score=1.0,
        )


NARROW = ("float16", "bfloat16")


@check("weights kept in half precision", codes=("precision-overflow",), needs=("model", "data"), cost=3)
def broken_by_the_update(context: Context) -> Iterable[Finding]:
    """An update that spoils weights of half precision though their gradients are finite."""
    bench = set_up(context)
    narrow = [v for v in bench.model.trainable_variables if str(v.dtype) in NARROW]
    if not narrow or bench.step.error is not None or not math.isfinite(bench.step.loss):
        return
    step = bench.again(bench.batch, update=True, record_calls=False)
    fed = all(g is None or bool(g.isfinite().all()) for _, gradients, _ in step.fed for g in gradients)
    spoilt = [v for v in narrow if not bool(v.value.isfinite().all())]
    bench.start.restore()
    if step.error is not None or not fed or not spoilt:
        return
    epsilons = [getattr(optimizer, "epsilon", None) for optimizer in optimizers_of(bench.model)]
    small = next((e for e in epsilons if isinstance(e, float) and 0 < e < SMALLEST), None)
    yield catalogue.finding(
        "precision-overflow",
        f"one update from finite gradients leaves {len(spoilt)} of {len(narrow)} weights that are kept in "
        f"{spoilt[0].dtype} not finite, first {spoilt[0].path}"
        + (f": the optimizer's epsilon of {small:g} is 0 there, and 0/0 is NaN" if small is not None else "")
        + ". Expected weights in float32: the policy mixed_float16 computes in half precision and keeps them so.",
        where={"parameter": spoilt[0].path, "phase": "update"},
        remedy='keras.mixed_precision.set_global_policy("mixed_float16") in place of dtype="float16" (or bfloat16).',
        status="FAIL",
        role="cause",
        score=1.0,
    )


SMALLEST = 6e-8
"""The smallest number that float16 holds."""


def computing_in_half(model: Any) -> list[Any]:
    """The layers that compute in float16."""
    layers = model._flatten_layers(include_self=True, recursive=True)
    return [layer for layer in layers if str(getattr(layer, "compute_dtype", "")) == "float16"]


def first_not_finite(step: Step) -> str | None:
    """The first layer, as recorded, whose output is not finite."""
    return next((name_of(c.layer) for c in step.calls if c.output is not None and not all_finite(c.output)), None)


def all_finite(structure: Any) -> bool:
    return all(bool(t.float().isfinite().all()) for t in flat(structure) if hasattr(t, "isfinite"))


SKIPPED = 0.1
"""Share of the planned updates that may go into finding a loss scale; a scaler is made to skip a few at the start."""

MAX_HALVINGS = 160
"""float32 holds no scale that would have to be halved more often."""


@check("loss scale that overflows", codes=("amp-steps-skipped",), needs=("model", "data"), cost=3)
def overflowing_scale(context: Context) -> Iterable[Finding]:
    """How often the loss scale must be halved before gradients are finite; every time costs an update."""
    import keras

    bench = set_up(context)
    scaled = [o for o in optimizers_of(bench.model) if isinstance(o, keras.optimizers.LossScaleOptimizer)]
    if not scaled or bench.step.error is not None or not all_finite(bench.step.answer):
        return
    scaler, start = scaled[0], bench.step.scale
    if start <= 1.0 or not scaler.built or _gradients_finite(bench.step):
        return
    halvings = next((n for n in range(1, MAX_HALVINGS) if _finite_with(bench, scaler, start * 0.5**n)), None)
    bench.start.restore()
    if halvings is None:
        return  # not finite at any scale: that is no matter of the scale
    planned = context.planned_steps
    if planned is None or halvings <= max(SKIPPED * planned, 4):
        return
    yield catalogue.finding(
        "amp-steps-skipped",
        f"gradients are not finite at the loss scale of {start:.3g}, and are so after {halvings} halvings: each "
        f"costs an update, {halvings} of the {planned} that are planned, and no weight moves until then. Start at "
        f"{start * 0.5**halvings:.3g} (initial_scale; 2**15 is usual).",
        where={"phase": "backward", "config_key": "optimizer.initial_scale"},
        status="FAIL",
        role="cause",
        remedy=f"LossScaleOptimizer(optimizer, initial_scale={start * 0.5**halvings:.6g})",
        score=1.0,
    )


def _gradients_finite(step: Step) -> bool:
    return all(g is None or bool(g.isfinite().all()) for _, gradients, _ in step.fed for g in gradients)


def _finite_with(bench: Bench, scaler: Any, scale: float) -> bool:
    """Whether a step at another scale has finite gradients."""
    bench.start.restore()
    scaler.dynamic_scale.assign(scale)
    return _gradients_finite(take_step(bench.model, bench.batch, record_calls=False))
