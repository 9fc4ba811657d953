"""How signals travel through the model as it stands, from raw inputs to the first gradient."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from tsguard import catalogue
from tsguard.checks.bench import Bench, not_asked, set_up
from tsguard.checks.gradient_flow import fades_with_depth, through_time
from tsguard.checks.initialisation import CERTAIN_SHARE, CONSEQUENCE, initial_scale, is_kernel, units_equal
from tsguard.checks.registry import Context, check
from tsguard.checks.regularisation import DROPOUT_RATE, rate_of
from tsguard.checks.units import unit_findings
from tsguard.dataset import leaves, map_leaves
from tsguard.findings import Finding, Role
from tsguard.probes.activations import certain_share
from tsguard.probes.answers import TAME, standardised, unscaled
from tsguard.probes.stage import Batch

WORSE = 2.0
"""Loss on raw inputs over that on the same standardised, from which certain answers come of the size of the inputs."""

LEAST_NUMBERS = 10
"""Different whole numbers in rows of whole numbers, from which they may well be ids: a few levels are amounts."""


@check(
    "initial signal",
    codes=(
        *("init-scale", "vanishing-gradient", "exploding-gradient", "dead-units", "saturated-units", "data-scale"),
        "input-encoding",
    ),
    needs=("model", "data"),
    cost=3,
)
def initial_signal(context: Context) -> Iterable[Finding]:
    """How signals and gradients travel through the model as it stands, against usual weights in the same model."""

    bench = set_up(context)
    if bench.step.error is not None or bench.step.root is None:
        yield from not_asked(
            bench, "init-scale", "vanishing-gradient", "exploding-gradient", "dead-units", "saturated-units"
        )
        return
    if any(is_kernel(v) and units_equal(v) for v in bench.model.trainable_variables):
        return  # constant weights: another check's matter
    scale = list(initial_scale(bench))
    yield from scale
    if scale:
        return
    bench.start.restore()
    steps = [bench.again(batch) for batch in bench.batches]
    bench.start.restore()
    idle = list(unit_findings(steps))
    unscaled = _unscaled_inputs(bench, idle)
    if unscaled is not None:
        yield unscaled
        idle = [replace(found, role=Role.SYMPTOM) for found in idle]
    yield from idle
    vanished = fades_with_depth(steps, bench.model)
    bench.start.restore()
    if any(rate_of(call.layer) >= DROPOUT_RATE for call in bench.step.calls):
        return  # what dropout cuts off is another check's matter
    if vanished is not None and not idle:
        yield vanished
        return
    yield from through_time(context, bench)


def _unscaled_inputs(bench: Bench, idle: list[Finding]) -> Finding | None:
    """Where units are idle, or answers certain and wrong, or the loss enormous: do the same weights work on the same
    inputs, standardised?"""
    raw = [leaf for leaf in leaves(bench.batch.x) if leaf.is_floating_point() and leaf.ndim >= 2]
    # Whole numbers that are read as amounts have a scale as well; a table that looks them up cannot take others.
    whole = [] if raw else [leaf for leaf in leaves(bench.batch.x) if leaf.ndim >= 2]
    x = map_leaves(lambda leaf: standardised(leaf.float() if whole else leaf), bench.batch.x)
    if not raw and not whole:
        return None
    raw = raw or [leaf.float() for leaf in whole]
    largest = max(raw, key=lambda leaf: float(leaf.abs().max()))
    certain = certain_share(bench.step) >= CERTAIN_SHARE
    if not idle and float(largest.abs().max()) <= TAME:
        return None
    step = bench.again(Batch(x, bench.batch.y, bench.batch.sample_weight))
    bench.start.restore()
    if step.error is not None:
        return None
    # NaN is as bad a start as infinity is: exp over exp is NaN where exp alone overflows.
    began = bench.step.loss if math.isfinite(bench.step.loss) else math.inf
    worse = began / max(step.loss, 1e-12) if step.loss > 0 else 1.0
    if idle and any(map(unscaled, raw)) and not list(unit_findings([step])):
        seen = idle[0].message.split(":")[0]
    elif certain and worse > WORSE:
        seen = f"answers are certain and wrong before anything was learned (loss {bench.step.loss:.3g})"
    elif worse > CONSEQUENCE**2:
        seen = f"the loss starts at {bench.step.loss:.3g}"
    else:
        return None
    numbered = any(leaf.ndim == 2 and len(leaf.unique()) >= LEAST_NUMBERS for leaf in whole)
    return catalogue.finding(
        "input-encoding" if numbered else "data-scale",
        f"inputs run from {float(largest.min()):.4g} to {float(largest.max()):.4g}, and {seen}; with the same "
        f"weights and the "
        f"same inputs standardised that is not so (loss {step.loss:.3g}). "
        + (
            "They are whole numbers: if they number words or kinds, put an Embedding before them; if they are amounts, "
            "standardise them."
            if numbered
            else "Standardise each feature with the mean and deviation of the training part."
        ),
        where={"phase": "data", "layer": idle[0].where.get("layer") if idle else None},
        explains=tuple(found.code for found in idle),
        score=1.0,
    )
