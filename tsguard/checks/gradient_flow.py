"""How far a gradient travels: through the layers of a model, and back through time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from tsguard import catalogue
from tsguard.checks.bench import Bench, name_of
from tsguard.checks.initialisation import CONSEQUENCE
from tsguard.checks.registry import Context
from tsguard.dataset import leaves
from tsguard.evidence import Evidence
from tsguard.findings import Finding
from tsguard.probes.gradients import input_gradient, norm
from tsguard.probes.learnable import explained_by_steps
from tsguard.probes.stage import Step, flat

VANISHED = 1e-4
"""First kernel's gradient norm against the last one's. A factor of ten per four layers is common; ten thousand leaves
the early layers standing while the late ones finish."""


FADED = 1e-2
"""Share of the largest gradient that any kernel gets, and of what tells rows apart that comes to the last one, from
which both together say that the way is too long: healthy models of the fixtures lie at a twentieth and above."""


FLOAT32_EPS = 1.2e-7
"""A timestep whose gradient is a smaller share than this of the largest one is rounded away when they are summed."""


WORTH_HEARING, HALF = 0.1, 0.5
"""Explained share of the targets from which early timesteps matter at all, and the part of it that must be lost without
them: series repeat themselves, and what is heard late often says it all."""


EXPLODED = 1e4
"""Growth of the gradient on its way back from which one early step drowns all others."""


GROWN = 1e2
"""… and the growth from which it does where every step has the same share in it, and the first answers are so large
already that none at all would cost less by far."""


def fades_with_depth(steps: list[Step], model: Any) -> Finding | None:
    """The first kernel's gradient against that of the last but one, kernels in the order of the forward pass.

    The last kernel does not count: an output layer may start at nearly zero on purpose, which scales the gradient of
    everything before it alike.
    """
    order = _kernels_in_order(steps[0], model)
    norms = [max(norm(step.gradient_of(v)) for step in steps) for v in order]
    if len(norms) < 4 or not all(map(math.isfinite, norms)) or min(norms) <= 0:
        return None
    first, last = norms[0], norms[-2]
    largest = max(norm(steps[0].gradient_of(v)) for v in model.trainable_variables)
    usual = 1 / VANISHED
    if max(norms) < VANISHED * largest or (max(norms) < FADED * largest and _fades_forward(steps[0], order)):
        # The signal fades forward as much as the gradient does backward: only offsets at the end get anything.
        first, last, usual = max(norms), largest, 1 / FADED
    elif first >= VANISHED * last:
        return None
    return catalogue.finding(
        "vanishing-gradient",
        f"the gradient of the first kernel ({order[0].path}) is {first:.2g}, that at the end {last:.2g}: it fades "
        f"by a factor of {last / first:.1g} over {len(norms)} layers. Expected less than {usual:.0g}. Add "
        f"residual "
        "connections or normalisation, use relu or gelu, and a usual initialiser.",
        where={"layer": order[0].path.rsplit("/", 1)[0], "parameter": order[0].path},
        evidence=(Evidence("value", dict(zip([v.path for v in order], norms, strict=True)), name="gradient norms"),),
        score=0.9,
    )


def _fades_forward(step: Step, order: list[Any]) -> bool:
    """Whether of what tells rows apart behind the first kernel hardly anything comes to the last one."""
    calls = sorted(step.calls, key=lambda call: call.first_node)
    called = {id(call.layer) for call in calls}
    holds = [(call, {id(v) for v in _own_weights(call.layer, called)}) for call in calls]
    behind = next((call.output for call, held in holds if id(order[0]) in held), None)
    before = next((call.inputs for call, held in reversed(holds) if id(order[-1]) in held), None)
    told = [_between_rows(part) for part in (behind, before)]
    return told[0] is not None and told[1] is not None and told[1] < FADED * told[0]


def _between_rows(value: Any) -> float | None:
    """How far the rows of a batch lie apart, in the mean over cells."""
    parts = [leaf for leaf in flat(value) if hasattr(leaf, "is_floating_point") and leaf.is_floating_point()]
    if len(parts) != 1 or parts[0].ndim < 2 or len(parts[0]) < 2:
        return None
    found = float(parts[0].detach().float().std(0).mean())
    return found if math.isfinite(found) else None


def _kernels_in_order(step: Step, model: Any) -> list[Any]:
    """Kernels in the order in which the layers that hold them are called; what is never called by itself (the cell of a
    recurrent layer) stands where the layer around it does."""
    seen: dict[int, Any] = {}
    ordered = sorted(step.calls, key=lambda call: call.first_node)
    called = {id(call.layer) for call in ordered}
    for call in ordered:
        for variable in _own_weights(call.layer, called):
            if _is_kernel_or_column(variable):
                seen.setdefault(id(variable), variable)
    known = {id(v) for v in model.trainable_variables}
    return [v for key, v in seen.items() if key in known]


def _own_weights(layer: Any, called: set[int]) -> Iterator[Any]:
    yield from layer._trainable_variables
    for part in layer._layers:
        if id(part) not in called:
            yield from _own_weights(part, called)


def _is_kernel_or_column(variable: Any) -> bool:
    name = variable.path.split("/")[-1]
    return bool(variable.value.ndim >= 2 and "bias" not in name and "embedding" not in name and "recurrent" not in name)


def _open_shut_kernels(model: Any) -> None:
    """Draw the kernels that start at zero, as the last one of a residual branch may: until the first update nothing
    passes through them, which says nothing of what passes after it."""
    import torch

    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for variable in model.trainable_variables:
            value = variable.value
            if _is_kernel_or_column(variable) and value.is_floating_point() and not bool(value.any()):
                drawn = torch.randn(value.shape, generator=generator) / math.sqrt(max(value[..., 0].numel(), 1))
                value.copy_(drawn.to(value))


def through_time(context: Context, bench: Bench) -> Iterator[Finding]:
    """The gradient that reaches each timestep, held against where the targets' signal lies."""
    sequences = [x for x in leaves(bench.batch.x) if x.is_floating_point() and x.ndim == 3 and x.shape[1] >= 8]
    if not sequences:
        return
    x = sequences[0]
    _open_shut_kernels(bench.model)
    gradient = input_gradient(bench.model, bench.batch, x)
    bench.start.restore()
    if gradient is None:
        return
    reach_back = gradient.double().pow(2).mean(dim=(0, 2)).sqrt()
    largest = float(reach_back.max())
    if not math.isfinite(largest) or largest == 0:
        return
    # A loop of one's own is no layer: what gives a recurrence away is a gradient that changes by a factor per step.
    if not first_recurrent(bench) and not _by_a_factor_per_step(reach_back):
        return
    early, late = float(reach_back[0]), float(reach_back[-1])
    evidence = (Evidence("value", reach_back.tolist(), name="gradient per timestep"),)
    runs_away = early > GROWN * late and _by_a_factor_per_step(reach_back) and _answers_too_much(bench)
    if late > 0 and (early > EXPLODED * late or runs_away):
        yield catalogue.finding(
            "exploding-gradient",
            f"the gradient grows by {early / late:.1g} on its way back over {len(reach_back)} timesteps: the first "
            f"step "
            "drowns all others, and updates follow it. Use an orthogonal recurrent initialiser, gated cells, or "
            "global_clipnorm=1.0.",
            where={"timestep": 0, "layer": first_recurrent(bench)},
            evidence=evidence,
            score=0.9,
        )
        return
    unheard = reach_back < FLOAT32_EPS * largest
    if not bool(unheard.any()):
        return
    heard = (~unheard).tolist()
    place = [id(leaf) for leaf in leaves(bench.batch.x)].index(id(x))
    shares = explained_by_steps(bench.data, heard, x_index=place)
    if shares is None:
        return
    part, whole = shares
    if whole > WORTH_HEARING and part < HALF * whole:
        last_silent = int(unheard.nonzero().max())
        yield catalogue.finding(
            "vanishing-gradient",
            f"the gradient that reaches timesteps 0 … {last_silent} is below {FLOAT32_EPS:.0e} of the largest one "
            f"and is "
            f"rounded away, while the targets depend on them: a simple fit of all timesteps explains {whole:.0%} "
            f"of rows "
            f"held back, of the others alone {max(part, 0):.0%}. Use gated cells (LSTM, GRU), shorter windows, or "
            "attention.",
            where={"timestep": last_silent, "layer": first_recurrent(bench)},
            evidence=evidence,
            score=0.9,
        )


def _answers_too_much(bench: Bench) -> bool:
    """Whether zero for every row costs a small part of what the first answers cost."""
    import torch

    nothing = bench.loss_of([torch.zeros_like(answer) for answer in bench.answers])
    return math.isfinite(nothing) and bench.step.loss > CONSEQUENCE * abs(nothing)


GEOMETRIC = 0.95
"""Correlation of the logarithm of the gradient with time, from which it is a power: windows that only weigh their steps
differently stay far below."""


def _by_a_factor_per_step(reach_back: Any) -> bool:
    """Whether the gradient per timestep is a geometric series, as products of one matrix make it."""
    import torch

    positive = reach_back > 0
    if int(positive.sum()) < 8:
        return False
    logs = reach_back[positive].log()
    steps = torch.arange(len(reach_back), dtype=logs.dtype, device=logs.device)[positive]
    together = torch.corrcoef(torch.stack([logs, steps]))[0, 1]
    return bool(together.abs() > GEOMETRIC)


def first_recurrent(bench: Bench) -> str | None:
    """The first recurrent layer of Keras."""
    import keras

    for call in bench.step.calls:
        if isinstance(call.layer, keras.layers.RNN):
            return name_of(call.layer)
    return None
