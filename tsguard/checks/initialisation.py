"""Initial kernels: units that are equal and stay so, and sizes that shrink or blow up what passes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from tsguard import catalogue
from tsguard.checks.bench import Bench, not_asked, set_up
from tsguard.checks.registry import Context, check
from tsguard.checks.units import unit_findings
from tsguard.evidence import Evidence
from tsguard.findings import Finding
from tsguard.probes.activations import certain_share
from tsguard.probes.answers import draw_weights, predict
from tsguard.probes.stage import flat, take_step

GAIN_LOW, GAIN_HIGH = 0.03, 8.0
"""Kernel root mean square times √fan-in. Glorot and He give 0.1 to 2; beyond these a layer shrinks or blows up its
signal by an order of magnitude more than any usual initialiser."""


CERTAIN_SHARE = 0.5
"""Share of samples answered with (nearly) full certainty by an untrained model from which its scale is in question."""

CONSEQUENCE = 10.0
"""How much worse the start must be than with usual weights before an odd gain is called a fault."""


@check("symmetric initialisation", codes=("symmetric-init",), needs=("model", "data"), cost=2)
def symmetric_units(context: Context) -> Iterable[Finding]:
    """Layers whose units are equal, and equal again after updates."""
    bench = set_up(context)
    if bench.step.error is not None:
        yield from not_asked(bench, "symmetric-init")
        return
    gates = gates_of(bench.model)
    kernels = [v for v in bench.model.trainable_variables if is_kernel(v) and v.shape[-1] // gates.get(id(v), 1) >= 2]
    equal = [v for v in kernels if units_equal(v, gates.get(id(v), 1))]
    if not equal:
        return
    bench.start.restore()
    for _ in range(2):
        for batch in bench.batches:
            take_step(bench.model, batch, update=True, record_calls=False)
    still = [v for v in equal if units_equal(v, gates.get(id(v), 1))]
    bench.start.restore()
    if not still:
        return
    yield catalogue.finding(
        "symmetric-init",
        f"all units of {len(still)} kernel(s) start equal and are still equal after {2 * len(bench.batches)} updates: "
        f"{', '.join(v.path for v in still[:4])}. Such a layer is one unit wide for ever. Use a random initialiser "
        "(glorot_uniform).",
        where={"parameter": still[0].path},
        score=1.0,
    )


def is_kernel(variable: Any) -> bool:
    value = variable.value
    return bool(
        value.is_floating_point()
        and value.ndim >= 2
        and value.shape[-1] >= 2
        and "bias" not in variable.path.split("/")[-1]
    )


def gates_of(model: Any) -> dict[int, int]:
    """How many kernels stand side by side in one: recurrent cells keep those of their gates so, each as wide as the
    units. Gates may differ where the units of each are equal."""
    found = {}
    for layer in model._flatten_layers(include_self=True, recursive=True):
        units = next((u for name in ("units", "filters") if isinstance(u := getattr(layer, name, None), int)), 0)
        for variable in getattr(layer, "_trainable_variables", ()):
            width = int(variable.shape[-1]) if len(variable.shape) else 0
            if units and width > units and width % units == 0:
                found[id(variable)] = width // units
    return found


def units_equal(variable: Any, gates: int = 1) -> bool:
    import torch

    value = variable.value.detach().float()
    value = value.reshape(*value.shape[:-1], gates, -1)
    first = value[..., :1]
    # Sums in another order differ in the last bits; a millionth of the kernel's size is far below any real update.
    return bool(torch.all((value - first).abs() <= 1e-6 * (value.abs().max() + 1e-12)))


def initial_scale(bench: Bench) -> Iterator[Finding]:
    """Kernels far from any usual size whose consequence is seen at the output."""
    import torch

    gains = {v.path: gain_of(v) for v in bench.model.trainable_variables if is_kernel(v) and "embedding" not in v.path}
    large = {path: gain for path, gain in gains.items() if gain > GAIN_HIGH}
    small = {path: gain for path, gain in gains.items() if gain < GAIN_LOW}
    if not large and len(small) < 2:
        return
    loss, spread = bench.step.loss, spread_of(bench)
    draw_weights(bench.model, 1.0, torch.Generator().manual_seed(5))
    usually = take_step(bench.model, bench.batch)
    usual = usually.loss
    usual_spread = spread_of(bench)
    idle = list(unit_findings([usually]))
    bench.start.restore()
    saturated = list(unit_findings([bench.step])) and not idle
    # A cross entropy is capped where its probabilities are, so that its size says little.
    certain = certain_share(bench.step) >= CERTAIN_SHARE > certain_share(usually) and loss > 2 * usual
    broken = math.isfinite(usual) and not math.isfinite(loss)
    if large and (broken or loss > CONSEQUENCE * max(usual, 1e-12) or saturated or certain):
        yield _scale_finding(
            large,
            f"the loss starts at {loss:.3g} (with kernels of usual size: {usual:.3g})"
            + (", and units are saturated" if saturated else "")
            + (", and answers are certain and wrong before anything was learned" if certain else ""),
        )
    elif len(small) >= 2 and spread < usual_spread / CONSEQUENCE**3:
        yield _scale_finding(
            small,
            f"the answers of different samples differ by {spread:.3g} (with kernels of usual size: "
            f"{usual_spread:.3g}), so "
            "that nothing of the input arrives",
        )


def _scale_finding(kernels: dict[str, float], consequence: str) -> Finding:
    worst = max(kernels, key=lambda path: abs(math.log(max(kernels[path], 1e-30))))
    return catalogue.finding(
        "init-scale",
        f"{len(kernels)} kernel(s) start at an unusual size; {worst} multiplies its signal by {kernels[worst]:.3g} "
        f"(usual: "
        f"0.1 to 2). {consequence[0].upper()}{consequence[1:]}. Use glorot_uniform (tanh, linear) or he_normal (relu).",
        where={"parameter": worst},
        evidence=(Evidence("value", kernels, name="gain per kernel"),),
        score=1.0,
    )


def gain_of(variable: Any) -> float:
    value = variable.value.detach().float()
    fan_in = max(1, int(value[..., 0].numel()))
    return float(float(value.pow(2).mean().sqrt()) * fan_in**0.5)


def spread_of(bench: Bench) -> float:
    """How much answers differ between samples (greatest output)."""
    return max(
        (float(a.float().std(0).mean()) if a.shape[0] > 1 else 0.0) for a in flat(predict(bench.model, bench.batch.x))
    )
