"""What is said of a model at its start, or after a few steps, in lines of Keras and torch that set `wrong`.

Weights without a gradient, gradients that fade, units that are dead, penalties that pull harder than the task.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import torch

from tsguard.checks import axes
from tsguard.checks.cut import HEARD
from tsguard.checks.data_ids import MOST_INSIDE
from tsguard.checks.gradient_flow import EXPLODED, FADED, FLOAT32_EPS, GROWN, VANISHED
from tsguard.checks.initialisation import GAIN_HIGH, GAIN_LOW
from tsguard.checks.precision import computing_in_half
from tsguard.checks.rates import BENT, DECAY_PULL, PLANNED, RUNAWAY, STANDSTILL, STEPS, SUM_ROUNDED
from tsguard.checks.rates import FADED as RATE_LEFT
from tsguard.checks.regularisation import HALF, LOST, PENALTY_RATIO
from tsguard.checks.transfer import SHAPES_OF_SOURCE
from tsguard.checks.units import DEAD_SHARE, SATURATED_SHARE
from tsguard.findings import Finding
from tsguard.probes.activations import SIGMOID_FLAT, TANH_FLAT
from tsguard.repro.case import Case
from tsguard.repro.code.arrays import plain
from tsguard.repro.graphs import graph_of, has_graph
from tsguard.repro.listening import listening

SIGNAL = "initial signal"
"""The check of what inputs of their size make of units."""

LOSS = "model.compute_loss(x, y, model(x, training=True))"

CUT = "gradient cut between timesteps"
"""The check of a state that goes on while its gradient does not."""

GRADIENTS = "grads = [v.value.grad for v in model.trainable_variables if v.value.grad is not None]"

_KERNELS = "for v in model.trainable_variables if v.value.ndim > 1"


def norm_of(grads: str) -> str:
    """The norm of gradients of that name."""
    return f"sum(float(keras.ops.sum(grad**2)) for grad in {grads}) ** 0.5"


def rows_in(case: Case) -> str:
    """How many rows `x` has."""
    return "len(x)" if isinstance(case.batch.x, np.ndarray) else "len(keras.tree.flatten(x)[0])"


def without_gradient(finding: Finding, case: Case) -> list[str]:
    """Matrices of weights that the loss does not depend on; a bias before a softmax has no effect by design.

    Where all of them have a gradient and it is zero, the batch itself is nothing: of a sound model too.
    """
    return [
        f"{LOSS}.backward()",
        "grads = {v.path: v.value.grad for v in model.trainable_variables if v.value.ndim > 1}",
        "lost = [path for path, grad in grads.items() if grad is None]",
        "mute = [path for path, grad in grads.items() if grad is not None and not grad.any()]",
        "wrong = lost or (mute if len(mute) < len(grads) else [])",
    ]


def strangers(finding: Finding, case: Case) -> list[str]:
    """Tensors with a gradient that take part in the loss and are no variables of the model."""
    return [
        f"loss = {LOSS}",
        "known, nodes = {id(v.value) for v in model.variables}, [loss.grad_fn]",
        "for node in nodes:",
        "    nodes += [one for one, _ in node.next_functions if one is not None and one not in nodes]",
        'leaves = [node.variable for node in nodes if hasattr(node, "variable")]',
        "wrong = [tuple(leaf.shape) for leaf in leaves if id(leaf) not in known]",
    ]


def drawn_and_kept(finding: Finding, case: Case) -> list[str] | None:
    """Tensors that a layer keeps as they are beside its variables, and on which the loss depends."""
    name = str(finding.where.get("parameter"))
    if not any(isinstance(vars(one).get(name), torch.Tensor) for one in case.model._flatten_layers()):
        return None
    return [
        f"held = [one for one in model._flatten_layers() if keras.ops.is_tensor(vars(one).get({plain(name)}))]",
        f"first = float({LOSS})",
        "for layer in held:",
        f"    layer.__dict__[{plain(name)}] = 2 * layer.__dict__[{plain(name)}]",
        f"wrong = [layer.name for layer in held] if float({LOSS}) != first else []",
    ]


def unmoved(finding: Finding, case: Case) -> list[str]:
    """Weights that have a gradient and stay where they are, beside others that move."""
    return [
        "before = [v.value.clone() for v in model.trainable_variables]",
        "model.fit(x, y, epochs=3, verbose=0)",
        "pairs = [(v, old) for v, old in zip(model.trainable_variables, before) if v.value.grad is not None]",
        "still = [v.path for v, old in pairs if v.value.grad.any() and (v.value == old).all()]",
        "wrong = still if any((v.value != old).any() for v, old in pairs) else []",
    ]


def unreached(finding: Finding, case: Case) -> list[str]:
    """Matrices of weights to which a step of one's own brings no gradient, beside others that get one."""
    return [
        "model.fit(x, y, verbose=0)",
        "matrices = [v for v in model.trainable_variables if v.value.ndim > 1]",
        "still = [v.path for v in matrices if v.value.grad is None or not v.value.grad.any()]",
        "wrong = still if len(still) < len(matrices) else []",
    ]


def equal_units(finding: Finding, case: Case) -> list[str]:
    """Kernels whose units all start with the same weights."""
    return [
        "kernels = [v for v in model.trainable_variables if v.value.ndim > 1 and v.shape[-1] > 1]",
        "wrong = [v.path for v in kernels if (v.value == v.value[..., :1]).all()]",
    ]


def units_that_stay_equal(finding: Finding, case: Case) -> list[str]:
    """Kernels whose units start alike and are moved alike: zeros beside weights that differ are not."""
    return [
        f"{LOSS}.backward()",
        "kernels = [v for v in model.trainable_variables if v.value.ndim > 1 and v.shape[-1] > 1]",
        "pairs = [(v.path, v.value, 0 * v.value if v.value.grad is None else v.value.grad) for v in kernels]",
        "apart = [(path, [float(abs(one - one[..., :1]).max()) for one in pair]) for path, *pair in pairs]",
        f"wrong = [path for path, (start, move) in apart if start == 0 and move <= {FLOAT32_EPS:g}]",
    ]


def frozen_as_drawn(finding: Finding, case: Case) -> list[str]:
    """Kernels none of which trains."""
    return [
        "kernels = [v for v in model.variables if v.value.ndim > 1]",
        "moving = {id(v) for v in model.trainable_variables}",
        "wrong = [v.path for v in kernels] if not any(id(v) in moving for v in kernels) else []",
    ]


def fading_gradient(finding: Finding, case: Case) -> list[str]:
    """Weights whose gradient is nothing beside that of another: where kernels fade both ways, that of an offset."""
    return [
        f"{LOSS}.backward()",
        "grads = [(v.path, v.value.grad) for v in model.trainable_variables if v.value.grad is not None]",
        "norms = [(path, float(grad.norm())) for path, grad in grads]",
        f"wrong = [path for path, norm in norms if 0 < norm < {VANISHED:g} * max(size for _, size in norms)]",
    ]


def fading_both_ways(finding: Finding, case: Case) -> list[str]:
    """Kernels whose gradient is little beside that of the offsets at the end."""
    return [
        f"{LOSS}.backward()",
        "weights = [v.value for v in model.trainable_variables if v.value.grad is not None]",
        "kernels = [float(weight.grad.norm()) for weight in weights if weight.ndim > 1]",
        "largest = max(float(weight.grad.norm()) for weight in weights)",
        f"wrong = kernels if 0 < max(kernels) < {FADED:g} * largest else []",
    ]


def _gradient_in_time(wrong: str, case: Case) -> list[str] | None:
    if isinstance(case.batch.x, Mapping | list | tuple) or case.batch.x.ndim != 3:
        return None
    return [
        "x.requires_grad_()",
        f"{LOSS}.backward()",
        "reach = x.grad.norm(dim=(0, 2))",
        f"wrong = {wrong}",
    ]


def unheard_steps(finding: Finding, case: Case) -> list[str] | None:
    """Timesteps whose gradient is rounded away beside that of others."""
    return _gradient_in_time(f"[step for step, size in enumerate(reach) if size < {FLOAT32_EPS:g} * reach.max()]", case)


def drowning_steps(finding: Finding, case: Case) -> list[str] | None:
    """A first timestep whose gradient drowns that of the last."""
    return _gradient_in_time(f"[float(reach[0] / reach[-1])] if reach[0] > {EXPLODED:g} * reach[-1] > 0 else []", case)


def growing_steps(finding: Finding, case: Case) -> list[str] | None:
    """A gradient that grows at every step on its way back, and in all of them by very much."""
    grown = f"(reach[:-1] > reach[1:]).all() and reach[0] > {GROWN:g} * reach[-1] > 0"
    return _gradient_in_time(f"[float(reach[0] / reach[-1])] if {grown} else []", case)


def cut_at_every_step(finding: Finding, case: Case) -> list[str] | None:
    """A layer of a name whose last answer hangs on the steps before the last and has no slope in any of them."""
    if finding.check != CUT:
        return None
    name = plain(str(finding.where["layer"]).rpartition("/")[2])
    return [
        "from torch.nn.modules.module import register_module_forward_hook",
        "model(x)",  # what is not built yet is called on nothing first
        "calls, wrong = [], []",
        "with register_module_forward_hook(lambda *call: calls.append(call)):",
        "    model(x)",
        f"for layer, [given, *_], _ in [call for call in calls if call[0].name == {name}]:",
        "    last = lambda steps: layer(steps) if layer(steps).ndim == 2 else layer(steps)[:, -1]",
        "    free, other = given.detach().requires_grad_(), given.detach() + 1",
        "    other[:, -1] = given[:, -1]",
        "    (last(free) ** 2).sum().backward()",
        "    silent = free.grad[:, -1].any() and not free.grad[:, :-1].any()",
        f"    wrong += [layer.name] if silent and abs(last(other) - last(free)).max() > {HEARD:g} else []",
    ]


def odd_gains(finding: Finding, case: Case) -> list[str]:
    """Kernels that multiply their signal by an unusual number."""
    return [
        f"kernels = [v {_KERNELS}]",
        "gains = {v.path: float(v.value.norm()) / v.shape[-1] ** 0.5 for v in kernels}",
        f"wrong = [(path, gain) for path, gain in gains.items() if not {GAIN_LOW:g} <= gain <= {GAIN_HIGH:g}]",
    ]


def _idle(case: Case, kind: str, idle: str, layer: str = "") -> list[str]:
    """Layers of a kind whose units are idle; of a class of the user's own they are heard while it is called."""
    # A layer that is given nothing gives nothing: that is no fault of its units.
    held = 'getattr({}, "activation", None) is kind' + (f" or isinstance({{}}, {layer})" if layer else "")
    wrong = f"given.any() and {idle}"
    if has_graph(case.model) and any(_acts(one, kind) for one in graph_of(case.model).layers[:-1]):
        return [
            "model(x)",  # a mended model may not be built yet
            f"kind = keras.activations.{kind}",
            f"asked = [layer for layer in model.layers[:-1] if {held.replace('{}', 'layer')}]",
            "outs = [(one.name, *keras.Model(model.inputs, [one.input, one.output])(x)) for one in asked]",
            f"wrong = [name for name, given, out in outs if {wrong}]",
        ]
    return [
        "from torch.nn.modules.module import register_module_forward_hook",
        "model(x)",  # what is not built yet is called on nothing first
        "calls = []",
        "with register_module_forward_hook(lambda *call: calls.append(call)):",
        "    answers = model(x)",
        f"kind = keras.activations.{kind}",
        f"inner = [call for call in calls if {held.replace('{}', 'call[0]')}]",
        f"wrong = [one.name for one, [given], out in inner if out is not answers and {wrong}]",
    ]


def _acts(layer: Any, kind: str) -> bool:
    named = getattr(layer, "activation", None) is getattr(keras.activations, kind)
    return named or (kind == "relu" and isinstance(layer, keras.layers.ReLU))


def _idle_anywhere(kind: str, idle: str) -> list[str]:
    """The same of a function that an own call names, and no layer has for its activation."""
    return [
        *listening("(given[0], made)", f'function.__name__ == "{kind}"'),
        "    answers = model(x)",
        f"wrong = [tuple(out.shape) for given, out in seen if out is not answers and given.any() and {idle}]",
    ]


_DEAD = f"(out <= 0).flatten(0, -2).all(0).float().mean() >= {DEAD_SHARE:g}"
_FLAT = f"(out.abs() > {TANH_FLAT:g}).float().mean() >= {SATURATED_SHARE:g}"
_SHUT = f"((out - 0.5).abs() > {0.5 - SIGMOID_FLAT:g}).float().mean() >= {SATURATED_SHARE:g}"


def dead_units(finding: Finding, case: Case) -> list[str]:
    """Layers of ReLU of which nearly no unit is above zero for any sample."""
    return _idle(case, "relu", _DEAD, "keras.layers.ReLU")


def flat_units(finding: Finding, case: Case) -> list[str]:
    """Layers of tanh nearly all of whose values lie where it is flat."""
    return _idle(case, "tanh", _FLAT)


def flat_gates(finding: Finding, case: Case) -> list[str]:
    """The same of a sigmoid."""
    return _idle(case, "sigmoid", _SHUT)


def dead_calls(finding: Finding, case: Case) -> list[str]:
    """A ReLU that an own call names."""
    return _idle_anywhere("relu", _DEAD)


def flat_calls(finding: Finding, case: Case) -> list[str]:
    """A tanh that an own call names, or else a sigmoid."""
    return _idle_anywhere("tanh", _FLAT) if "tanh" in finding.message else _idle_anywhere("sigmoid", _SHUT)


def shut_by_inputs(finding: Finding, case: Case) -> list[str] | None:
    """Units of a layer that inputs of their size shut: the first kind of them whose lines find some."""
    if "layer" not in finding.where:
        return None
    kinds = {layer.activation for layer in case.model.layers if hasattr(layer, "activation")}
    if keras.activations.relu in kinds and finding.explains == ("dead-units",):
        return dead_units(finding, case)
    return flat_units(finding, case) if keras.activations.tanh in kinds else flat_gates(finding, case)


def shut_calls_by_inputs(finding: Finding, case: Case) -> list[str] | None:
    """The same of functions that no layer has for its activation: gates among them."""
    return flat_calls(finding, case) if "layer" in finding.where else None


def shut_by_numbers(finding: Finding, case: Case) -> list[str] | None:
    """Units, or gates, that inputs which number something shut."""
    return flat_calls(finding, case) if finding.check == SIGNAL else None


def heavy_penalty(finding: Finding, case: Case) -> list[str]:
    """Penalties whose gradient is many times that of the task."""
    return [
        f"loss, norms = {LOSS}, []",
        "penalty = sum(model.losses)",
        "for part in (penalty, loss - penalty):",
        "    model.zero_grad()",
        "    part.backward(retain_graph=True)",
        f"    {GRADIENTS}",
        f"    norms.append({norm_of('grads')})",
        f"wrong = norms if norms[0] > {PENALTY_RATIO:g} * norms[1] else []",
    ]


def penalised_level(finding: Finding, case: Case) -> list[str] | None:
    """Biases whose penalty resists a change so much that answers are kept away from the level of the targets."""
    if not isinstance(case.batch.y, np.ndarray) or not case.batch.y.std():
        return None
    return [
        'biases, costs = [v for v in model.trainable_variables if "bias" in v.name], []',
        "answers = model(x)",
        "for step in (1, -2, 1):",  # up by one, down by one, and back again
        "    for bias in biases:",
        "        bias.assign_add(step * keras.ops.ones_like(bias))",
        "    costs.append([float(model.compute_loss(x, y, given)) for given in (answers, model(x))])",
        "held, whole = (up + down - 2 * here for up, down, here in zip(*costs))",
        "lost = float(abs(y.mean()) / y.std()) * held / whole if whole else 0.0",
        f"wrong = [lost] if lost > ({HALF:g} if 2 * held > whole else {LOST:g}) else []",
    ]


def heavy_dropout(finding: Finding, case: Case) -> list[str]:
    """Answers for one sample that vary more from mask to mask than from sample to sample."""
    return [
        "draws = keras.ops.stack([model(x, training=True) for _ in range(12)])",
        "noise, signal = (float(one.mean()) for one in (draws.var(0), draws.mean(0).var(0)))",
        "wrong = [noise, signal] if noise > signal else []",
    ]


def tight_constraint(finding: Finding, case: Case) -> list[str]:
    """Constraints that leave next to nothing of a kernel that had a usual size."""
    return [
        "held = [v for v in model.trainable_variables if v.constraint is not None and v.value.ndim > 1]",
        "gains = [(v.path, float(v.constraint(v.value).norm()) / v.shape[-1] ** 0.5) for v in held]",
        f"wrong = [(path, gain) for path, gain in gains if gain < {GAIN_LOW:g}]",
    ]


def heavy_decay(finding: Finding, case: Case) -> list[str]:
    """A weight decay that pulls harder than the greatest step that the optimizer makes."""
    return [
        'decay = getattr(model.optimizer, "weight_decay", None) or 0.0',
        f"sizes = [float((v.value**2).mean() ** 0.5) {_KERNELS}]",
        f"wrong = [decay] if decay * sorted(sizes)[len(sizes) // 2] >= {DECAY_PULL:g} else []",
    ]


def _first_steps(case: Case) -> str:
    """A training of a few updates with all rows as one batch."""
    return f"model.fit(x, y, {rows_in(case)}, {STEPS}, verbose=0)"


def runs_away(finding: Finding, case: Case) -> list[str]:
    """A loss that only grows in the first steps."""
    return [
        f'losses = {_first_steps(case)}.history["loss"]',
        f"wrong = [losses[0], losses[-1]] if not losses[-1] <= {RUNAWAY:g} * losses[0] else []",
    ]


def rate_taken_away(finding: Finding, case: Case) -> list[str] | None:
    """A schedule whose rate is, over the steps that are planned, next to nothing beside the highest of them."""
    planned = next((one.value for one in finding.evidence if one.name == PLANNED), None)
    if not isinstance(planned, int):
        return None
    return [
        "rate = model.optimizer._learning_rate",
        f"rates = [float(rate(step)) for step in range({planned})] if callable(rate) else [float(rate)]",
        "mean = sum(rates) / len(rates)",
        f"wrong = [max(rates), mean] if mean < {RATE_LEFT:g} * max(rates) else []",
    ]


def breaks(finding: Finding, case: Case) -> list[str] | None:
    """First steps after which the loss is no number."""
    if not computing_in_half(case.model):
        return None
    return [
        f'losses = {_first_steps(case)}.history["loss"]',
        'wrong = [step for step, loss in enumerate(losses) if not abs(loss) < float("inf")][:1]',
    ]


def stands_still(finding: Finding, case: Case) -> list[str]:
    """Weights that the first steps do not move."""
    return [
        "before = [v.value.clone() for v in model.trainable_variables]",
        _first_steps(case),
        "pairs = zip(model.trainable_variables, before)",
        "moved = max(float((v.value - old).norm() / old.norm()) for v, old in pairs if old.any())",
        f"wrong = [moved] if moved < {STANDSTILL:g} else []",
    ]


def straight(finding: Finding, case: Case) -> list[str] | None:
    """A model whose answer halfway between two samples lies halfway between its answers.

    Of shares that is asked of what stands before the softmax, up to a constant for each row.
    """
    if not isinstance(case.batch.x, np.ndarray):
        return None
    answers = case.model(case.batch.x)
    shares = answers.ndim > 1 and answers.shape[-1] > 1 and float(abs(answers.sum(-1) - 1).max()) < SUM_ROUNDED
    logs = ["    logs = keras.ops.log(model(rows))", "    return logs - keras.ops.mean(logs, -1, keepdims=True)"]
    return [
        "def scores(rows):",
        *(logs if shares else ["    return model(rows)"]),
        "one, two = keras.random.normal((2, 16, *x.shape[1:]))",
        "ends, between = (scores(one) + scores(two)) / 2, scores((one + two) / 2)",
        "bent = float(abs(between - ends).max() / ends.std())",
        f'wrong = ["the model is a straight line"] if bent < {BENT:g} else []',
    ]


def no_counterpart(finding: Finding, case: Case) -> list[str] | None:
    """Weights for which the source of a transfer holds none of their shape."""
    shapes = next((one.value for one in finding.evidence if one.name == SHAPES_OF_SOURCE), None)
    if shapes is None:
        return None
    place = str(finding.where.get("layer", ""))
    named = any(layer.name == place for layer in case.model.layers)
    if not named and place != case.model.name:
        return None  # it was left out
    return [
        f"source = {shapes}",
        f"part = model.get_layer({plain(place)})" if named else "part = model",
        "wrong = [v.path for v in part.variables if list(v.shape) not in source]",
    ]


def one_row_for_all(finding: Finding, case: Case) -> list[str] | None:
    """Frozen tables all of whose rows are the same."""
    if "parameter" not in finding.where:
        return None
    return [
        "tables = [one for one in model._flatten_layers() if isinstance(one, keras.layers.Embedding)]",
        "frozen = [table for table in tables if not table.trainable and table.input_dim > 1]",
        "wrong = [table.name for table in frozen if (table.embeddings == table.embeddings[:1]).all()]",
    ]


def odd_ids(finding: Finding, case: Case) -> list[str] | None:
    """What tables of embeddings are given and cannot hold."""
    if not any(isinstance(one, keras.layers.Embedding) for one in case.model._flatten_layers()):
        return None
    return [
        "given = []",
        "for table in [one for one in model._flatten_layers() if isinstance(one, keras.layers.Embedding)]:",
        "    size, own = table.input_dim, table.call",
        "    table.call = lambda ids, size=size, own=own: [given.append((size, ids)), own(0 * ids)][1]",
        "model(x)",
        "wrong = [float(one) for size, ids in given for one in ids.flatten() if one % 1 or not 0 <= one < size]",
    ]


def ids_behind_a_mask(finding: Finding, case: Case) -> list[str] | None:
    """An id 0 that stands between others, before a table that takes it for padding."""
    if not isinstance(case.batch.x, np.ndarray) or case.batch.x.ndim != 2:
        return None
    return [
        "others = x != 0",
        "before, after = (np.logical_or.accumulate(part, 1) for part in (others, others[:, ::-1]))",
        "inside = ~others & before & after[:, ::-1]",
        'masked = [one.name for one in model._flatten_layers() if getattr(one, "mask_zero", False)]',
        f"wrong = np.argwhere(inside).tolist() if masked and inside.sum() > {MOST_INSIDE:g} * (x == 0).sum() else []",
    ]


def ids_beyond(finding: Finding, case: Case) -> list[str] | None:
    """Ids of the data that the one table has no row for, whatever the model makes of them on the way."""
    every = case.model._flatten_layers()
    held = case.batch.x
    name = finding.where.get("input")
    if sum(isinstance(one, keras.layers.Embedding) for one in every) != 1:
        return None
    if isinstance(held, Mapping) and name not in held:
        return None
    ids = f"x[{plain(name)}]" if isinstance(held, Mapping) else "x"
    return [
        "every = model._flatten_layers()",
        "[table] = [layer for layer in every if isinstance(layer, keras.layers.Embedding)]",
        f"wrong = np.unique({ids}[({ids} < 0) | ({ids} >= table.input_dim)]).tolist()",
    ]


def _first_convolution(case: Case, kinds: tuple[str, ...], dimensions: int) -> list[str] | None:
    """Lines that name the first convolution of such a kind and the shape of what it is given."""
    if isinstance(case.batch.x, Mapping | list | tuple) or case.batch.x.ndim != dimensions:
        return None
    listed = ", ".join(f"keras.layers.{kind}" for kind in kinds)
    return [
        f"[first, *_] = [layer for layer in model._flatten_layers() if isinstance(layer, ({listed}))]",
        "sizes = list(x.shape[1:])",
        'channels = sizes.pop(0 if first.data_format == "channels_first" else -1)',
    ]


def channels_elsewhere(finding: Finding, case: Case) -> list[str] | None:
    """Pictures whose channels stand where a convolution reads rows or columns."""
    lines = _first_convolution(case, ("Conv2D", "DepthwiseConv2D", "SeparableConv2D"), 4)
    return lines and [
        *lines,
        f"swapped = min(sizes) in {axes.COLOURS} and max(sizes) == channels >= {axes.SMALLEST_PICTURE}",
        "wrong = [tuple(x.shape)] if swapped else []",
    ]


def kernel_beyond_its_axis(finding: Finding, case: Case) -> list[str] | None:
    """A kernel that is longer than the axis along which it runs, beside a longer one."""
    lines = _first_convolution(case, ("Conv1D", "SeparableConv1D", "DepthwiseConv1D"), 3)
    return lines and [
        *lines,
        'beyond = sizes[0] < first.kernel_size[0] <= channels and first.padding != "valid"',
        "wrong = [tuple(x.shape)] if beyond else []",
    ]
