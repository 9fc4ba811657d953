"""Is the model wired and initialised so that it can learn? Asked before training, of gradients and weights.

Each question is put at the initial weights and at random ones: what holds for every weight is the wiring, what holds
only at the start is the initialisation. Neither answer depends on the seed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from tsguard import catalogue
from tsguard.checks.bench import Bench, name_of, not_asked, planned_steps, set_up
from tsguard.checks.registry import Context, check
from tsguard.dataset import leaves, map_leaves
from tsguard.evidence import Evidence
from tsguard.findings import Finding, Role
from tsguard.probes import changes
from tsguard.probes.activations import Units, certain_share, dead_units, saturated_units, single_choices
from tsguard.probes.answers import TAME, draw_weights, predict, standardised
from tsguard.probes.dispatch import nonfinite_producer
from tsguard.probes.gradients import input_gradient, norm, term_gradients
from tsguard.probes.graph import leaf_tensors
from tsguard.probes.learnable import explained_by_steps
from tsguard.probes.stage import Batch, Step, flat, take_step

DEAD_SHARE = 0.9
"""Half of a healthy ReLU layer may be silent on one-sided inputs; with nine of ten dead, width is gone."""

SATURATED_SHARE = 0.8
"""Share of values on the flat parts from which hardly any gradient passes a layer. Gates that are open or shut on
purpose stay well below it at the start."""

VANISHED = 1e-4
"""First kernel's gradient norm against the last one's. A factor of ten per four layers is common; ten thousand leaves
the
early layers standing while the late ones finish."""

FLOAT32_EPS = 1.2e-7
"""A timestep whose gradient is a smaller share than this of the largest one is rounded away when they are summed."""

WORTH_HEARING, HALF = 0.1, 0.5
"""Explained share of the targets from which early timesteps matter at all, and the part of it that must be lost without
them: series repeat themselves, and what is heard late often says it all."""

EXPLODED = 1e4
"""Growth of the gradient on its way back from which one early step drowns all others."""

GAIN_LOW, GAIN_HIGH = 0.03, 8.0
"""Kernel root mean square times √fan-in. Glorot and He give 0.1 to 2; beyond these a layer shrinks or blows up its
signal
by an order of magnitude more than any usual initialiser."""

CONSEQUENCE = 10.0
"""How much worse the start must be than with usual weights before an odd gain is called a fault."""

UNSETTLED = 0.1
"""Planned steps times (1 − momentum): moving statistics have then gone less than a tenth of the way."""

CERTAIN_SHARE = 0.5
"""Share of samples answered with (nearly) full certainty by an untrained model from which its scale is in question."""

PENALTY_RATIO = 10.0
"""Penalty gradient over task gradient. At ten, weights shrink to about a tenth before the task holds them."""

DROPOUT_RATE = 0.8
"""Recommended rates end at 0.5 for hidden units (Srivastava et al. 2014); above 0.8 fewer than one unit in five
speaks."""


@check(
    "wiring",
    codes=("disconnected-parameters", "untracked-parameters", "degenerate-attention", "gradient-accumulates"),
    needs=("model", "data"),
    cost=2,
)
def wiring(context: Context) -> Iterable[Finding]:
    """Which weights get a gradient, which get an update, and whether the gradient is that of this batch."""
    bench = set_up(context)
    if bench.step.error is not None:
        yield from not_asked(
            bench, "disconnected-parameters", "untracked-parameters", "degenerate-attention", "gradient-accumulates"
        )
        return
    yield from _accumulated(bench)
    attention = list(_degenerate_attention(bench))
    yield from attention
    yield from _untracked(bench)
    yield from _disconnected(bench, attention=bool(attention))


def _accumulated(bench: Bench) -> Iterator[Finding]:
    """The gradient of a batch must not depend on the batch before it."""
    if len(bench.batches) < 2 or not bench.step.fed:
        return
    first, second = bench.batches[:2]
    before = bench.again(first, record_calls=False)
    bench.start.restore(keep_gradients=True)
    after = take_step(bench.model, second, record_calls=False)
    fresh = bench.again(second, record_calls=False)
    if not (before.fed and after.fed and fresh.fed):
        return
    wanted, got, sums = [], [], []
    for variable in fresh.fed_variables:
        one, two, old = fresh.gradient_of(variable), after.gradient_of(variable), before.gradient_of(variable)
        if one is None or two is None or old is None:
            continue
        wanted.append(norm(one))
        got.append(norm(two - one))
        sums.append(norm(two - one - old))
    size = math.hypot(*wanted) if wanted else 0.0
    # A hundredth is far above float32 rounding and far below a batch's own gradient.
    if size > 0 and math.hypot(*got) > 0.01 * size and math.hypot(*sums) < 0.01 * math.hypot(*got):
        yield catalogue.finding(
            "gradient-accumulates",
            f"the gradient that the optimizer gets for a batch differs by {math.hypot(*got) / size:.2g} times its "
            f"own norm "
            "from the gradient of that batch alone, and the difference is exactly the gradient of the batch before. "
            "`train_step` does not reset gradients: call `self.zero_grad()` before `loss.backward()`.",
            where={"phase": "backward"},
            score=1.0,
        )


def _degenerate_attention(bench: Bench) -> Iterator[Finding]:
    import keras

    names = ("MultiHeadAttention", "GroupQueryAttention", "Attention", "AdditiveAttention")
    kinds = tuple(getattr(keras.layers, name) for name in names)
    named = set()
    for call in bench.step.calls:
        if not isinstance(call.layer, kinds) or name_of(call.layer) in named:
            continue
        value = call.kwargs.get("value")
        given = call.inputs[1] if isinstance(call.inputs, list | tuple) and len(call.inputs) > 1 else value
        if given is None or not hasattr(given, "ndim") or given.ndim < 2:
            continue
        axes = getattr(call.layer, "_attention_axes", None) or (1,)
        positions = math.prod(int(given.shape[axis]) for axis in axes)
        if positions == 1:
            named.add(name_of(call.layer))
            yield _nothing_to_choose(name_of(call.layer), tuple(given.shape))
    for choice in single_choices(bench.step):
        name = None if choice.layer is None else name_of(choice.layer)
        if any(name is None or name.startswith(n) or n.startswith(name) for n in named):
            continue
        named.add(str(name))
        yield _nothing_to_choose(name, choice.shape, axis=choice.axis)


def _nothing_to_choose(layer: str | None, shape: tuple[int, ...], axis: int | None = None) -> Finding:
    over = "keys and values" if axis is None else f"softmax over axis {axis}"
    return catalogue.finding(
        "degenerate-attention",
        f"attention in {layer or 'the model'} has one position to choose from ({over} of shape {shape}): its weight "
        f"is 1 "
        "whatever query and key say, and neither gets a gradient. Expected two positions or more: attend over time "
        "(return_sequences=True), and check the axis of the softmax.",
        where={"layer": layer},
        score=1.0,
    )


def _untracked(bench: Bench) -> Iterator[Finding]:
    """Weights that take part in the loss and that no optimizer gets, or that an update never moves."""
    known = {id(v.value) for v in bench.model.variables}
    leaves_used = leaf_tensors(bench.step.root) if bench.step.root is not None else {}
    inputs = {id(leaf) for leaf in leaves(bench.batch.x)}
    strangers = {key: t for key, t in leaves_used.items() if key not in known and key not in inputs}
    if strangers:
        tracked = {id(layer) for layer in bench.model._flatten_layers()}
        outside = [c.layer for c in bench.step.calls if id(c.layer) not in tracked and c.layer.trainable_variables]
        names = sorted({name_of(layer) for layer in outside})
        paths = [v.path for layer in outside for v in layer.trainable_variables if id(v.value) in strangers]
        which = (
            ", ".join(names)
            if names
            else "raw tensors of shape " + ", ".join(str(tuple(t.shape)) for t in list(strangers.values())[:3])
        )
        yield catalogue.finding(
            "untracked-parameters",
            f"{len(strangers)} trainable tensor(s) take part in the loss and are not among the model's variables: "
            f"{which}. "
            "No optimizer gets them. Create the layer in `__init__` or `build` as an attribute (weights with "
            "`add_weight`), and compile afterwards.",
            where={"layer": names[0] if names else None, "parameter": paths[0] if paths else None},
            score=1.0,
        )
        return
    yield from _not_in_the_optimizer(bench)


def _not_in_the_optimizer(bench: Bench) -> Iterator[Finding]:
    trainable = {id(v): v for v in bench.model.trainable_variables}
    if not trainable:
        return
    optimizer = getattr(bench.model, "optimizer", None)
    own = {id(v) for v in getattr(optimizer, "_trainable_variables", ())}
    fed = {id(v) for b in bench.batches for v in bench.again(b, record_calls=False).fed_variables}
    before = {key: v.value.detach().clone() for key, v in trainable.items()}
    bench.start.restore()
    steps = [take_step(bench.model, b, update=True, record_calls=False) for b in bench.batches]
    moved = {key for key, v in trainable.items() if bool((v.value.detach() != before[key]).any())}
    errors = [s.error for s in steps if s.error is not None]
    bench.start.restore()
    used = {id(v) for v in trainable.values() if id(v.value) in leaf_tensors(bench.step.root)}
    left = [
        v
        for key, v in trainable.items()
        if key in used and key not in moved and (key not in fed or (own and key not in own))
    ]
    if not left or (errors and not own - set(trainable)):
        return
    none_fed = not fed
    said = (
        "`train_step` never hands a gradient to an optimizer" if none_fed else "the optimizer never gets their gradient"
    )
    yield catalogue.finding(
        "untracked-parameters",
        f"{len(left)} of {len(trainable)} trainable weights take part in the loss and do not move in {len(steps)} "
        f"steps: "
        f"{said}. First: {left[0].path}. Apply gradients to `self.trainable_variables`, and compile after unfreezing.",
        where={"parameter": left[0].path},
        score=1.0,
    )


def _disconnected(bench: Bench, *, attention: bool) -> Iterator[Finding]:
    """Layers none of whose weights get a gradient on any batch, at the initial and at random weights."""
    import torch

    trainable = list(bench.model.trainable_variables)
    if not trainable:
        total = len(bench.model.variables)
        if total:
            yield catalogue.finding(
                "disconnected-parameters",
                f"none of the model's {total} variables is trainable: a step changes nothing. Set `trainable = "
                f"True` on the "
                "part that is meant to learn, and compile again.",
                where={"phase": "backward"},
                score=1.0,
            )
        return
    largest: dict[int, float] = {id(v): 0.0 for v in trainable}
    generator = torch.Generator().manual_seed(11)
    for scale in (None, 0.5, 1.0):
        for batch in bench.batches:
            bench.start.restore()
            if scale is not None:
                draw_weights(bench.model, scale, generator)
            step = take_step(bench.model, batch, record_calls=False)
            for variable in trainable:
                gradient = step.gradient_of(variable)
                if gradient is not None:
                    value = float(gradient.abs().max())
                    largest[id(variable)] = max(largest[id(variable)], math.inf if math.isnan(value) else value)
    bench.start.restore()
    if not any(largest.values()):
        return  # nothing gets a gradient: the loss itself is blind, and its own check says so
    silent = []
    for layer in bench.model._flatten_layers():
        own = [v for v in layer._trainable_variables if id(v) in largest]
        if own and all(largest[id(v)] == 0.0 for v in own):
            silent.append((layer, own))
    for variable in getattr(bench.model, "_trainable_variables", ()):
        if largest.get(id(variable)) == 0.0 and all(variable not in own for _, own in silent):
            silent.append((bench.model, [variable]))
    silent = [(layer, own) for layer, own in silent if any(_matters(v) for v in own)]
    if not silent:
        yield from _frozen_at_random(bench)
        return
    if attention:
        return
    names = [name_of(layer) for layer, _ in silent]
    weights = sum(int(v.value.numel()) for _, own in silent for v in own)
    yield catalogue.finding(
        "disconnected-parameters",
        f"{len(names)} layer(s) get no gradient at all, on {len(bench.batches)} batches, at the initial and at random "
        f"weights: {', '.join(names[:5])} ({weights} weights). The loss does not depend on them. "
        + _what_cuts(bench)
        + "If that is meant, set `trainable = False` on them.",
        where={"layer": names[0], "parameter": silent[0][1][0].path},
        evidence=(Evidence("value", names, name="layers without gradient"),),
        score=0.9,
    )


def _frozen_at_random(bench: Bench) -> Iterator[Finding]:
    """Every kernel is frozen, and at values that its own initialiser draws: nothing that reads the input can learn."""
    kernels = [(layer, v) for layer in bench.model._flatten_layers() for v in _own_kernels(layer)]
    if not kernels or any(v.trainable for _, v in kernels):
        return
    fresh = [(layer, v) for layer, v in kernels if _looks_fresh(layer, v)]
    if len(fresh) < len(kernels):
        return
    left = sum(int(v.value.numel()) for v in bench.model.trainable_variables)
    yield catalogue.finding(
        "disconnected-parameters",
        f"all {len(kernels)} kernels are frozen, and at random initial values (nothing was loaded into them); what can "
        f"train are {left} offsets and scales, which cannot change how answers depend on inputs. Set `trainable = "
        f"True` "
        "and compile again, or load weights first.",
        where={"layer": name_of(fresh[0][0]), "parameter": fresh[0][1].path},
        score=0.9,
    )


def _own_kernels(layer: Any) -> list[Any]:
    own = [*layer._trainable_variables, *layer._non_trainable_variables]
    return [v for v in own if v.value.ndim >= 2 and v.value.is_floating_point() and "bias" not in v.path.split("/")[-1]]


def _looks_fresh(layer: Any, kernel: Any) -> bool:
    """Whether a layer stands where initialisation left it: its bias is exactly its initial constant."""
    biases = [v for v in layer.variables if "bias" in v.path.split("/")[-1]]
    return all(bool(((v.value == 0) | (v.value == 1)).all()) for v in biases) and bool(biases)


def _matters(variable: Any) -> bool:
    """Biases and scales before a normalisation or a softmax have no effect by design."""
    return bool(variable.value.ndim >= 2) or variable.value.numel() == 1


def _what_cuts(bench: Bench) -> str:
    """The layer whose output has lost the graph though its input had one."""
    for call in bench.step.calls:
        given = [t for t in flat(call.inputs) if hasattr(t, "requires_grad")]
        made = [t for t in flat(call.output) if hasattr(t, "requires_grad")]
        if any(t.requires_grad for t in given) and made and not any(t.requires_grad for t in made):
            return f"The graph is cut in {name_of(call.layer)}. "
    return ""


@check("symmetric initialisation", codes=("symmetric-init",), needs=("model", "data"), cost=2)
def symmetric_units(context: Context) -> Iterable[Finding]:
    """Layers whose units are equal, and equal again after updates."""
    bench = set_up(context)
    if bench.step.error is not None:
        yield from not_asked(bench, "symmetric-init")
        return
    equal = [v for v in bench.model.trainable_variables if _is_kernel(v) and _units_equal(v)]
    if not equal:
        return
    bench.start.restore()
    for _ in range(2):
        for batch in bench.batches:
            take_step(bench.model, batch, update=True, record_calls=False)
    still = [v for v in equal if _units_equal(v)]
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


def _is_kernel(variable: Any) -> bool:
    value = variable.value
    return bool(
        value.is_floating_point()
        and value.ndim >= 2
        and value.shape[-1] >= 2
        and "bias" not in variable.path.split("/")[-1]
    )


def _units_equal(variable: Any) -> bool:
    import torch

    value = variable.value.detach().float()
    first = value[..., :1]
    # Sums in another order differ in the last bits; a millionth of the kernel's size is far below any real update.
    return bool(torch.all((value - first).abs() <= 1e-6 * (value.abs().max() + 1e-12)))


@check(
    "initial signal",
    codes=("init-scale", "vanishing-gradient", "exploding-gradient", "dead-units", "saturated-units", "data-scale"),
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
    if any(_is_kernel(v) and _units_equal(v) for v in bench.model.trainable_variables):
        return  # constant weights: another check's matter
    scale = list(_initial_scale(bench))
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
    vanished = _fades_with_depth(steps, bench.model)
    bench.start.restore()
    if any(_rate(call.layer) >= DROPOUT_RATE for call in bench.step.calls):
        return  # what dropout cuts off is another check's matter
    if vanished is not None and not idle:
        yield vanished
        return
    yield from _through_time(context, bench)


def _unscaled_inputs(bench: Bench, idle: list[Finding]) -> Finding | None:
    """Where units are idle, or answers certain and wrong, or the loss enormous: do the same weights work on the same
    inputs, standardised?"""
    x = map_leaves(standardised, bench.batch.x)
    if all(a is b for a, b in zip(leaves(x), leaves(bench.batch.x), strict=True)):
        return None
    raw = [leaf for leaf in leaves(bench.batch.x) if leaf.is_floating_point() and leaf.ndim >= 2]
    largest = max(raw, key=lambda leaf: float(leaf.abs().max()))
    certain = certain_share(bench.step) >= CERTAIN_SHARE
    if not idle and float(largest.abs().max()) <= TAME:
        return None
    step = bench.again(Batch(x, bench.batch.y, bench.batch.sample_weight))
    bench.start.restore()
    if step.error is not None:
        return None
    worse = bench.step.loss / max(step.loss, 1e-12) if step.loss > 0 else 1.0
    if idle and not list(unit_findings([step])):
        seen = idle[0].message.split(":")[0]
    elif certain and worse > 2.0:
        seen = f"answers are certain and wrong before anything was learned (loss {bench.step.loss:.3g})"
    elif worse > CONSEQUENCE**2:
        seen = f"the loss starts at {bench.step.loss:.3g}"
    else:
        return None
    return catalogue.finding(
        "data-scale",
        f"inputs run from {float(largest.min()):.4g} to {float(largest.max()):.4g}, and {seen}; with the same "
        f"weights and the "
        f"same inputs standardised that is not so (loss {step.loss:.3g}). Standardise each feature with the mean and "
        "deviation of the training part.",
        where={"phase": "data", "layer": idle[0].where.get("layer") if idle else None},
        explains=tuple(found.code for found in idle),
        score=1.0,
    )


def unit_findings(steps: list[Step], *, when: str = "at the start") -> Iterator[Finding]:
    """Layers whose units are dead or saturated in the given steps."""
    dead = [u for u in dead_units(steps) if u.share >= DEAD_SHARE and u.width >= 2]
    flat_ = [u for u in saturated_units(steps) if u.share >= SATURATED_SHARE]
    for code, found, what in (
        ("dead-units", dead, "of {width} ReLU units are zero for every sample"),
        ("saturated-units", flat_, "of the values lie on the flat part of {op}"),
    ):
        if found:
            worst: Units = max(found, key=lambda u: u.share)
            place = "the model" if worst.layer is None else name_of(worst.layer)
            said = what.format(width=worst.width, op=worst.op)
            others = f" ({len(found)} layers in all)" if len(found) > 1 else ""
            yield catalogue.finding(
                code,
                f"{worst.share:.0%} {said} in {place} {when}{others}: hardly any gradient passes back. "
                f"{catalogue.entry(code).mend}",
                where={"layer": None if worst.layer is None else place},
                evidence=(Evidence("value", worst.share, name="share"),),
                score=worst.share,
            )


def _initial_scale(bench: Bench) -> Iterator[Finding]:
    """Kernels far from any usual size whose consequence is seen at the output."""
    import torch

    gains = {v.path: _gain(v) for v in bench.model.trainable_variables if _is_kernel(v) and "embedding" not in v.path}
    large = {path: gain for path, gain in gains.items() if gain > GAIN_HIGH}
    small = {path: gain for path, gain in gains.items() if gain < GAIN_LOW}
    if not large and len(small) < 2:
        return
    loss, spread = bench.step.loss, _spread_of(bench)
    draw_weights(bench.model, 1.0, torch.Generator().manual_seed(5))
    usual = take_step(bench.model, bench.batch, record_calls=False).loss
    usual_spread = _spread_of(bench)
    idle = list(unit_findings([take_step(bench.model, bench.batch)]))
    bench.start.restore()
    saturated = list(unit_findings([bench.step])) and not idle
    if large and (not math.isfinite(loss) or loss > CONSEQUENCE * max(usual, 1e-12) or saturated):
        yield _scale_finding(
            large,
            f"the loss starts at {loss:.3g} (with kernels of usual size: {usual:.3g})"
            + (", and units are saturated" if saturated else ""),
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


def _gain(variable: Any) -> float:
    value = variable.value.detach().float()
    fan_in = max(1, int(value[..., 0].numel()))
    return float(float(value.pow(2).mean().sqrt()) * fan_in**0.5)


def _spread_of(bench: Bench) -> float:
    """How much answers differ between samples (greatest output)."""
    return max(
        (float(a.float().std(0).mean()) if a.shape[0] > 1 else 0.0) for a in flat(predict(bench.model, bench.batch.x))
    )


def _fades_with_depth(steps: list[Step], model: Any) -> Finding | None:
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
    if max(norms) < VANISHED * largest:
        # The signal fades forward as much as the gradient does backward: only offsets at the end get anything.
        first, last = max(norms), largest
    elif first >= VANISHED * last:
        return None
    return catalogue.finding(
        "vanishing-gradient",
        f"the gradient of the first kernel ({order[0].path}) is {first:.2g}, that at the end {last:.2g}: it fades "
        f"by a factor of {last / first:.1g} over {len(norms)} layers. Expected less than {1 / VANISHED:.0g}. Add "
        f"residual "
        "connections or normalisation, use relu or gelu, and a usual initialiser.",
        where={"layer": order[0].path.rsplit("/", 1)[0], "parameter": order[0].path},
        evidence=(Evidence("value", dict(zip([v.path for v in order], norms, strict=True)), name="gradient norms"),),
        score=0.9,
    )


def _kernels_in_order(step: Step, model: Any) -> list[Any]:
    seen: dict[int, Any] = {}
    ordered = sorted(step.calls, key=lambda call: call.first_node)
    for call in ordered:
        for variable in call.layer._trainable_variables:
            if _is_kernel_or_column(variable):
                seen.setdefault(id(variable), variable)
    known = {id(v) for v in model.trainable_variables}
    return [v for key, v in seen.items() if key in known]


def _is_kernel_or_column(variable: Any) -> bool:
    name = variable.path.split("/")[-1]
    return bool(variable.value.ndim >= 2 and "bias" not in name and "embedding" not in name and "recurrent" not in name)


def _through_time(context: Context, bench: Bench) -> Iterator[Finding]:
    """The gradient that reaches each timestep, held against where the targets' signal lies."""
    sequences = [x for x in leaves(bench.batch.x) if x.is_floating_point() and x.ndim == 3 and x.shape[1] >= 8]
    if not sequences or not _is_recurrent(bench):
        return
    x = sequences[0]
    gradient = input_gradient(bench.model, bench.batch, x)
    bench.start.restore()
    if gradient is None:
        return
    reach_back = gradient.double().pow(2).mean(dim=(0, 2)).sqrt()
    largest = float(reach_back.max())
    if not math.isfinite(largest) or largest == 0:
        return
    early, late = float(reach_back[0]), float(reach_back[-1])
    evidence = (Evidence("value", reach_back.tolist(), name="gradient per timestep"),)
    if late > 0 and early > EXPLODED * late:
        yield catalogue.finding(
            "exploding-gradient",
            f"the gradient grows by {early / late:.1g} on its way back over {len(reach_back)} timesteps: the first "
            f"step "
            "drowns all others, and updates follow it. Use an orthogonal recurrent initialiser, gated cells, or "
            "global_clipnorm=1.0.",
            where={"timestep": 0, "layer": _is_recurrent(bench)},
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
            where={"timestep": last_silent, "layer": _is_recurrent(bench)},
            evidence=evidence,
            score=0.9,
        )


def _is_recurrent(bench: Bench) -> str | None:
    """The first recurrent layer, or the first one that runs a loop over time (many activations of one kind)."""
    import keras

    for call in bench.step.calls:
        if isinstance(call.layer, keras.layers.RNN):
            return name_of(call.layer)
    return None


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
    drops = [c.layer for c in bench.step.calls if isinstance(c.layer, keras.layers.Dropout) or hasattr(c.layer, "rate")]
    heavy = sorted({name_of(d): float(d.rate) for d in drops if _rate(d) >= DROPOUT_RATE}.items())
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


def _penalised_bias(bench: Bench) -> Iterator[Finding]:
    """A bias starts at zero, where its penalty pulls at nothing; what counts is how each resists being moved by one."""
    import torch

    model = bench.model
    for variable in model.trainable_variables:
        regularizer = getattr(variable, "regularizer", None)
        if regularizer is None or "bias" not in variable.path.split("/")[-1]:
            continue
        pulls = []
        for shift in (0.0, 1.0):
            bench.start.restore()
            with torch.no_grad():
                variable.value.add_(shift)
            probe = variable.value.detach().clone().requires_grad_()
            with torch.enable_grad():
                (penalty,) = torch.autograd.grad(regularizer(probe), [probe])
            whole = take_step(model, bench.batch, record_calls=False).gradient_of(variable)
            if whole is None:
                break
            pulls.append((penalty.detach(), whole.detach() - penalty.detach()))
        bench.start.restore()
        if len(pulls) < 2:
            continue
        held, asked = norm(pulls[1][0] - pulls[0][0]), norm(pulls[1][1] - pulls[0][1])
        if held > PENALTY_RATIO * asked > 0:
            yield catalogue.finding(
                "over-regularised",
                f"the penalty on {variable.path} resists a change {held / asked:.3g} times as hard as the task "
                f"asks for one: "
                "the offset of the answers is held near zero. Biases need no penalty: remove `bias_regularizer`.",
                where={"parameter": variable.path, "layer": variable.path.rsplit("/", 1)[0]},
                evidence=(Evidence("value", {"penalty": held, "task": asked}, name="stiffness"),),
                score=0.9,
            )
            return


def _rate(layer: Any) -> float:
    rate = getattr(layer, "rate", 0.0)
    return float(rate) if isinstance(rate, int | float) else 0.0


@check("ids that the table cannot hold", codes=("input-encoding",), needs=("model", "data"), cost=2)
def ids_and_tables(context: Context) -> Iterable[Finding]:
    """What goes into embeddings: whole numbers below the number of rows, and not nearly all the same row."""
    import keras
    import torch

    assert context.data is not None
    if context.data.is_arrays:
        return  # the data checks read arrays as a whole
    bench = set_up(context)
    for call in bench.step.calls:
        # A ReversibleEmbedding called with reverse=True takes states to scores: its input holds no ids.
        if not isinstance(call.layer, keras.layers.Embedding) or call.kwargs.get("reverse"):
            continue
        ids = next((t for t in flat(call.inputs) if hasattr(t, "shape")), None)
        if ids is None or ids.numel() == 0:
            continue
        value, rows, name = ids.detach().double(), int(call.layer.input_dim), name_of(call.layer)
        broken = float((value != value.round()).double().mean())
        low, high = float(value.min()), float(value.max())
        if broken > 0:
            used = int(value.long().unique().numel())
            said = (
                f"{broken:.0%} of the values are not whole numbers; the table cuts them off and {used} row(s) are used"
            )
        elif low < 0 or high >= rows:
            said = f"ids run from {low:g} to {high:g}, and the table has the rows 0 … {rows - 1}"
        else:
            raw = [leaf for leaf in leaves(bench.batch.x) if torch.is_tensor(leaf) and leaf.shape == ids.shape]
            pressed = float((value == rows - 1).double().mean())
            if not raw or pressed < 0.5 or int(raw[0].unique().numel()) <= rows:
                continue
            said = (
                f"the input holds {int(raw[0].unique().numel())} different ids, and the table has {rows} rows: "
                f"{pressed:.0%} of "
                "them land on the last one"
            )
        yield catalogue.finding(
            "input-encoding",
            f"embedding {name}: {said}. Expected whole numbers below `input_dim`, counted over the whole vocabulary "
            f"with the "
            "padding id.",
            where={"layer": name},
            score=1.0,
        )
        return


@check("statistics over a batch of one", codes=("train-eval-gap",), needs=("model", "data"), cost=2)
def batch_statistics(context: Context) -> Iterable[Finding]:
    """BatchNorm over a single value, or with moving statistics that the planned run cannot settle."""
    import keras

    bench = set_up(context)
    planned = planned_steps(context)
    for call in bench.step.calls:
        layer = call.layer
        if not isinstance(layer, keras.layers.BatchNormalization) or not layer.trainable or call.output is None:
            continue
        given = next((t for t in flat(call.inputs) if hasattr(t, "shape")), None)
        if given is None or given.ndim < 2:
            continue
        axis = layer.axis if layer.axis >= 0 else given.ndim + layer.axis
        counted = math.prod(int(size) for place, size in enumerate(given.shape) if place != axis)
        if counted == 1:
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
        axes = tuple(place for place in range(value.ndim) if place != axis)
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


@check("half precision", codes=("precision-overflow",), needs=("model", "data"), cost=3)
def half_precision(context: Context) -> Iterable[Finding]:
    """A step that is not finite in float16 and is in float32."""
    bench = set_up(context)
    layers = list(bench.model._flatten_layers(include_self=True, recursive=True))
    narrow = [layer for layer in layers if str(getattr(layer, "compute_dtype", "")) == "float16"]
    if not narrow or bench.step.error is not None or bench.step.root is None:
        return
    answers = flat(bench.step.answer)
    broken = not all(bool(a.float().isfinite().all()) for a in answers)
    if not broken and math.isfinite(bench.step.loss):
        return
    import keras

    full = keras.dtype_policies.DTypePolicy("float32")
    with changes.attributes([(layer, "_dtype_policy", full) for layer in narrow]):
        wide = bench.again()
    bench.start.restore()
    if wide.error is None and math.isfinite(wide.loss):
        place = next(
            (name_of(c.layer) for c in bench.step.calls if c.output is not None and not _finite(c.output)), None
        )
        yield catalogue.finding(
            "precision-overflow",
            f"the step is not finite in float16 and has a loss of {wide.loss:.4g} in float32"
            + (f"; the first layer whose output is not finite is {place}" if place else "")
            + ". float16 ends at 65,504 and loses everything below 6e-8. Compute that part in float32, or train in "
            "bfloat16.",
            where={"layer": place, "phase": "forward" if broken else "loss"},
            score=1.0,
        )


def _finite(structure: Any) -> bool:
    return all(bool(t.float().isfinite().all()) for t in flat(structure) if hasattr(t, "isfinite"))


@check("a start that is not finite", codes=("nonfinite-forward", "nonfinite-loss"), needs=("model", "data"), cost=3)
def broken_start(context: Context) -> Iterable[Finding]:
    """The very first loss is NaN or infinite though the batch is finite."""
    bench = set_up(context)
    if bench.step.error is not None or bench.step.root is None or math.isfinite(bench.step.loss):
        return
    if not _finite(bench.batch.x) or not _finite(bench.batch.y):
        return
    forward = not _finite(bench.step.answer)
    producer = nonfinite_producer(bench.model, bench.batch)
    made = "" if producer is None else f"; `{producer.op}` makes it from {producer.reason}"
    draw_weights(bench.model, 0.3, torch_generator(5))
    milder = take_step(bench.model, bench.batch, record_calls=False)
    bench.start.restore()
    heals = milder.error is None and math.isfinite(milder.loss)
    yield catalogue.finding(
        "nonfinite-forward" if forward else "nonfinite-loss",
        f"the first loss is {bench.step.loss} on finite data, and {'an answer' if forward else 'the loss alone'} "
        f"is not "
        f"finite{made}." + (" With smaller weights it is finite." if heals else ""),
        where={
            "phase": "forward" if forward else "loss",
            "op": None if producer is None else producer.op,
            "file": None if producer is None else producer.file,
            "line": None if producer is None else producer.line,
        },
        role="symptom" if heals else "cause",
        score=0.5,
    )
    if heals:
        yield catalogue.finding(
            "init-scale" if not _is_recurrent(bench) else "exploding-gradient",
            f"at the initial weights the first loss is {bench.step.loss}; at a third of a usual size it is "
            f"{milder.loss:.4g}. "
            "Signals grow without bound on their way. Use a usual initialiser (orthogonal for recurrent kernels) "
            "or gated "
            "cells.",
            where={"phase": "forward"},
            explains=("nonfinite-forward" if forward else "nonfinite-loss",),
            status="FAIL",
            score=0.9,
        )


def torch_generator(seed: int) -> Any:
    """A generator of our own; the global one is not touched."""
    import torch

    return torch.Generator().manual_seed(seed)


@check("step that differs from itself", codes=("nondeterministic",), needs=("model", "data"), cost=2)
def unrepeatable_step(context: Context) -> Iterable[Finding]:
    """The same batch, weights and generators twice: another loss means a generator that no seed reaches."""
    bench = set_up(context)
    if bench.step.error is not None or bench.step.root is None:
        return
    first, second = bench.again(record_calls=False), bench.again(record_calls=False)
    bench.start.restore()
    if not (math.isfinite(first.loss) and math.isfinite(second.loss)):
        return
    apart = abs(first.loss - second.loss)
    # Threads may add in another order; a thousandth of a per mille is far above that and far below any drawn number.
    if apart > 1e-6 * max(abs(first.loss), 1e-12):
        yield catalogue.finding(
            "nondeterministic",
            f"the same step from the same state gives {first.loss:.8g} and then {second.loss:.8g}: something "
            f"draws from a "
            "generator that no seed reaches (`default_rng()` without a seed, the clock). Draw from "
            "keras.random with a SeedGenerator.",
            where={"phase": "forward"},
            score=0.9,
        )
