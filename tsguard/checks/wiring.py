"""Is every weight wired to the loss and to the optimizer, and is a batch's gradient that batch's own?

Each question is put at the initial weights and at random ones: what holds for every weight is the wiring. No answer
depends on the seed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any

from tsguard import catalogue
from tsguard.backend import optimizers_of
from tsguard.checks.bench import Bench, name_of, not_asked, set_up
from tsguard.checks.registry import Context, check
from tsguard.dataset import leaves
from tsguard.evidence import Evidence
from tsguard.findings import Finding
from tsguard.probes.activations import single_choices
from tsguard.probes.answers import draw_weights
from tsguard.probes.gradients import norm
from tsguard.probes.graph import leaf_tensors
from tsguard.probes.spare import is_spare_end
from tsguard.probes.stage import flat, take_step


@check(
    "wiring",
    codes=(
        "disconnected-parameters",
        "untracked-parameters",
        "degenerate-attention",
        "gradient-accumulates",
        "amp-steps-skipped",
    ),
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
    _count_one_update(bench)
    after = take_step(bench.model, second, record_calls=False)
    bench.start.restore()
    _count_one_update(bench)
    fresh = take_step(bench.model, second, record_calls=False)
    bench.start.restore()
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


def _count_one_update(bench: Bench) -> None:
    """The second step of a run: an own step that resets by the count of updates must see that there was one."""
    for optimizer in optimizers_of(bench.model):
        if optimizer.built:
            counted = optimizer._iterations  # `iterations` is a quotient where gradients are accumulated
            counted.assign(counted + 1)


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
    # What a step hands to its own model (points at which an equation is held) is data that it made, and no weight.
    asked = [leaf for call in bench.step.calls if call.layer is bench.model for leaf in flat(call.inputs)]
    inputs = {id(leaf) for leaf in (*leaves(bench.batch.x), *asked)}
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
    plain = list(_plain_tensors(bench))
    yield from plain or _not_in_the_optimizer(bench)


def _plain_tensors(bench: Bench) -> Iterator[Finding]:
    """Tensors kept as attributes that look drawn at random, take part in the loss, and are no variables.

    Tables of sines and masks are kept so on purpose; what looks like a fresh kernel was meant to be one.
    """
    known = {id(v.value) for v in bench.model.variables}
    for layer in bench.model._flatten_layers(include_self=True, recursive=True):
        for name, value in list(vars(layer).items()):
            if not _like_a_kernel(value) or id(value) in known:
                continue
            layer.__dict__[name] = value * 2
            try:
                changed = bench.again(record_calls=False)
            finally:
                layer.__dict__[name] = value
                bench.start.restore()
            if changed.error is not None or changed.loss == bench.step.loss:
                continue
            yield catalogue.finding(
                "untracked-parameters",
                f"`{name}` of {name_of(layer)} is a plain tensor of shape {tuple(value.shape)} with random values that "
                "takes part in the loss, and no variable of the model: no optimizer gets it and no file keeps it. Make "
                "it with `add_weight` (trainable=False, where it is to stay as it was drawn).",
                where={"layer": name_of(layer), "parameter": name},
                status="WARN",
                score=0.8,
            )
            return


def _like_a_kernel(value: Any) -> bool:
    """A floating matrix without a gradient whose values are spread as a normal or uniform draw around zero is."""
    import torch

    if not isinstance(value, torch.Tensor) or isinstance(value, torch.nn.Parameter) or value.requires_grad:
        return False
    if value.ndim != 2 or min(value.shape) < 2 or not value.is_floating_point() or not bool(value.isfinite().all()):
        return False
    numbers = value.detach().double().reshape(-1)
    size = float(numbers.std())
    if size == 0 or len(numbers.unique()) < 0.9 * len(numbers):
        return False
    centred = abs(float(numbers.mean())) < 4 * size / len(numbers) ** 0.5
    # Fourth moment over the squared second: 1.8 for a uniform draw, 3 for a normal one; 1.5 for a sine.
    peaked = float((numbers - numbers.mean()).pow(4).mean()) / size**4
    # Neighbours in a table resemble each other, neighbours in a draw do not.
    alike = max(
        abs(float(torch.corrcoef(torch.stack([a.reshape(-1), b.reshape(-1)]))[0, 1])) for a, b in _beside(value)
    )
    return centred and 1.6 < peaked < 5.0 and alike < 0.5


def _beside(value: Any) -> list[tuple[Any, Any]]:
    wide = value.detach().double()
    return [(wide[1:], wide[:-1]), *([(wide[:, 1:], wide[:, :-1])] if wide.shape[1] > 2 else [])]


def _not_in_the_optimizer(bench: Bench) -> Iterator[Finding]:
    trainable = {id(v): v for v in bench.model.trainable_variables}
    if not trainable:
        return
    optimizer = getattr(bench.model, "optimizer", None)
    own = {id(v) for v in getattr(optimizer, "_trainable_variables", ())}
    fed: set[int] = set()
    for batch in bench.batches:
        if not trainable.keys() <= fed:
            fed |= {id(v) for v in bench.again(batch, record_calls=False).fed_variables}
    before = {key: v.value.detach().clone() for key, v in trainable.items()}
    bench.start.restore()
    steps, moved = [], set[int]()
    for batch in bench.batches:
        if not trainable.keys() <= moved:
            steps.append(take_step(bench.model, batch, update=True, record_calls=False))
            moved = {key for key, v in trainable.items() if bool((v.value.detach() != before[key]).any())}
    errors = [s.error for s in steps if s.error is not None]
    spoilt = [v for key, v in trainable.items() if key not in moved and _is_spoilt(v.value.grad)]
    bench.start.restore()
    reached = leaf_tensors(bench.step.root)
    used = {id(v) for v in trainable.values() if id(v.value) in reached}
    left = [
        v
        for key, v in trainable.items()
        if key in used and key not in moved and (key not in fed or (own and key not in own))
    ]
    if not left or (errors and not own - set(trainable)):
        return
    none_fed = not fed
    if none_fed and spoilt and any(map(_computes_in_half, bench.model._flatten_layers())):
        loss = float(bench.step.root.detach().float().mean())
        yield catalogue.finding(
            "amp-steps-skipped",
            f"the step leaves its update out in {len(steps)} of {len(steps)} steps: gradients of {len(spoilt)} of "
            f"{len(trainable)} weights are not finite. Layers compute in half precision, which ends at 65,504 in "
            f"float16, and backward starts from a loss of {loss:.3g}. Multiply the loss by less (a power of two that "
            "is lowered after every skipped step), or compile with keras.mixed_precision.LossScaleOptimizer.",
            where={"parameter": spoilt[0].path, "phase": "backward"},
            score=1.0,
        )
        return
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


def _is_spoilt(gradient: Any) -> bool:
    return gradient is not None and not bool(gradient.isfinite().all())


def _computes_in_half(layer: Any) -> bool:
    return getattr(layer, "compute_dtype", None) in ("float16", "bfloat16")


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
    silent = _silent(bench.model, largest)
    generator = torch.Generator().manual_seed(11)
    for scale, batch in itertools.product((None, 0.5, 1.0), bench.batches):
        bench.start.restore()
        if scale is not None:
            draw_weights(bench.model, scale, generator)
        step = take_step(bench.model, batch, record_calls=False)
        used = leaf_tensors(step.root) if step.root is not None and step.fed else {}
        for variable in trainable:
            gradient = step.gradient_of(variable)
            if gradient is None and id(variable.value) in used:
                largest[id(variable)] = math.inf  # the loss depends on it, and no optimizer is told: not this matter
            elif gradient is not None:
                value = float(gradient.abs().max())
                largest[id(variable)] = max(largest[id(variable)], math.inf if math.isnan(value) else value)
        silent = _silent(bench.model, largest)
        if not silent:
            break
    bench.start.restore()
    if not any(largest.values()):
        return  # nothing gets a gradient: the loss itself is blind, and its own check says so

    def is_alive(layer: Any) -> bool:
        return any(largest.get(id(v), 0.0) > 0 for v in layer.trainable_variables)

    silent = [(layer, own) for layer, own in silent if not is_spare_end(bench.model, layer, is_alive)]
    if not silent or attention:
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


def _silent(model: Any, largest: dict[int, float]) -> list[tuple[Any, list[Any]]]:
    """Layers, and weights of the model's own, that have got no gradient and would have a use for one."""
    silent = []
    for layer in model._flatten_layers():
        own = [v for v in layer._trainable_variables if id(v) in largest]
        if own and all(largest[id(v)] == 0.0 for v in own):
            silent.append((layer, own))
    for variable in getattr(model, "_trainable_variables", ()):
        if largest.get(id(variable)) == 0.0 and all(variable not in own for _, own in silent):
            silent.append((model, [variable]))
    return [(layer, own) for layer, own in silent if any(_matters(v) for v in own)]


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
