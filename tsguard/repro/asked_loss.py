"""What is said of a loss and of the answers that it is given, in lines that set `wrong`.

Which answers a model can give is found by weights of many sizes: no activation hides from those.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tsguard.checks import beyond
from tsguard.checks.copied import EXACT
from tsguard.checks.deaf import UNHEARD
from tsguard.checks.lopsided import SIDE
from tsguard.checks.outputs import FLOOR_SHARE, UNREACHABLE_SHARE
from tsguard.checks.outweigh import OUTWEIGHS
from tsguard.checks.own_loss import SAME
from tsguard.checks.signal import WORSE
from tsguard.checks.terms import DROWNED, LOUD
from tsguard.dataset import map_leaves
from tsguard.findings import Finding
from tsguard.probes.answers import TAME, question
from tsguard.repro.asked_model import GRADIENTS, LOSS, norm_of
from tsguard.repro.case import Case
from tsguard.repro.code.arrays import plain
from tsguard.repro.measured import heads_of

BEYOND = "best answer beyond the output's range"
"""The check of losses that want an answer where the output ends."""

BLIND = "loss that does not depend on what it should"
"""The check of losses that have no slope where they should."""

FAINT = 100.0
"""Times by which a gradient lies below that of cross entropy at the same answers: beyond what rates are tuned over."""

WHOLE = 1e-5
"""How far a sum of shares may be from one by rounding."""

LEAST_ANSWERS = 32
"""Answers by chance that have nothing to do with as many targets."""

ROUNDED = 1e-7
"""Gradient up to which it is what rounding leaves of two terms that cancel."""


def far_constant(finding: Finding, case: Case) -> list[str] | None:
    """A loss that wants a constant far from the middle of the targets."""
    if isinstance(case.batch.y, Mapping | list | tuple) or "config_key" in finding.where:
        return None
    return [
        "ranks = [0.01, 0.05, *np.arange(1, 10) / 10, 0.95, 0.99]",
        "losses = [model.compute_loss(x, y, keras.ops.full_like(y, level)) for level in np.quantile(y, ranks)]",
        "best, mean = ranks[int(np.argmin([float(loss) for loss in losses]))], (y < y.mean()).mean()",
        f"far = not {1 - SIDE:g} < best < {SIDE:g} and abs(best - mean) > 0.2",
        'wrong = [f"of all constants the loss prefers the {best:.0%} quantile"] if far else []',
    ]


_DROWNED = f"wrong = [name for name, norm in norms.items() if 0 < {DROWNED:.0f} * norm < max(norms.values())]"


def loud_output(finding: Finding, case: Case) -> list[str] | None:
    """Outputs whose gradient is nothing beside that of another."""
    if not isinstance(case.batch.y, Mapping):
        return None
    return [
        "answers = model(x, training=True)",
        "for answer in answers.values():",
        "    answer.retain_grad()",
        "model.compute_loss(x, y, answers).backward()",
        "norms = {name: float(keras.ops.norm(answer.grad)) for name, answer in answers.items()}",
        _DROWNED,
    ]


def loud_in_shared_weights(finding: Finding, case: Case) -> list[str] | None:
    """Outputs whose gradient in weights that all of them share is nothing beside that of another."""
    if not isinstance(case.batch.y, Mapping | list | tuple):
        return None
    return [
        "answers, norms = model(x, training=True), []",
        "for heard in keras.tree.flatten(answers):",
        "    model.zero_grad()",
        "    alone = keras.tree.map_structure(lambda one: one if one is heard else one.detach(), answers)",
        "    model.compute_loss(x, y, alone).backward(retain_graph=True)",
        "    grads = {v.path: v.value.grad for v in model.trainable_variables}",
        "    norms.append({path: float(grad.norm()) for path, grad in grads.items() if grad is not None})",
        "shared = set.intersection(*map(set, norms))",
        "sizes = [sum(one[path] ** 2 for path in shared) ** 0.5 for one in norms]",
        f"wrong = sizes if max(sizes) > {LOUD:g} and 0 < {DROWNED:.0f} * min(sizes) < max(sizes) else []",
    ]


def loud_term(finding: Finding, case: Case) -> list[str] | None:
    """Terms of the model's own loss whose gradient is nothing beside that of another."""
    if not hasattr(case.model, "loss_terms"):
        return None
    y = "None" if case.batch.y is None else "y"
    return [
        "norms, weights = {}, [v.value for v in model.trainable_variables]",
        f"for name, term in model.loss_terms(x, {y}, model(x, training=True), None).items():",
        "    model.zero_grad()",
        "    term.backward(retain_graph=True)",
        "    norms[name] = sum(float(keras.ops.sum(w.grad**2)) for w in weights if w.grad is not None) ** 0.5",
        _DROWNED,
    ]


_REACHED = (
    "seen = []",
    "for size in (1, 10, 100, 1000) * 8:",
    "    model.set_weights([size * np.random.normal(size=weight.shape) for weight in model.weights])",
    "    seen.append(keras.ops.convert_to_numpy(model(x)))",
)
"""Which answers weights can reach."""

_LOW, _HIGH = "np.nanmin(seen)", "np.nanmax(seen)"


def asks(case: Case) -> tuple[str, bool]:
    """What the loss of the one output asks, and whether it takes logits."""
    # Asked with zeros: the loss may refuse the targets, and that is then what is wrong.
    [head] = heads_of(case.model, case.batch.x, map_leaves(np.zeros_like, case.batch.y))
    asked = question(head.loss) if head.loss is not None else None
    return ("own", False) if asked is None else (asked.kind, asked.from_logits)


def constant_answers(finding: Finding, case: Case) -> list[str]:
    """An output that no weight moves."""
    return [*_REACHED, f"wrong = [{_LOW}] if {_HIGH} - {_LOW} <= 1e-6 else []"]


def no_probability(finding: Finding, case: Case) -> list[str] | None:
    """An output that leaves 0 … 1 under a loss that takes it for a probability."""
    kind, logits = asks(case)
    if kind not in ("binary", "sparse", "categorical") or logits:
        return None
    return [
        *_REACHED,
        'logits = getattr(model.loss, "from_logits", False)',
        f"wrong = [{_LOW}, {_HIGH}] if not logits and ({_LOW} < 0 or {_HIGH} > 1) else []",
    ]


def costly_perfection(finding: Finding, case: Case) -> list[str] | None:
    """A loss of which even the best answers that the output can give cost much."""
    kind, _ = asks(case)
    if kind not in ("binary", "sparse", "categorical") or not isinstance(case.batch.y, np.ndarray):
        return None
    right = "np.eye(shape[-1])[y.astype(int).ravel()]" if kind == "sparse" else "y"
    return [
        *_REACHED,
        f"low, high, shape = {_LOW}, {_HIGH}, seen[0].shape",
        f"best = np.clip(40 * {right} - 20, low, high).reshape(shape)",
        'cost = float(model.compute_loss(x, y, keras.ops.array(best, "float32")))',
        f"wrong = [cost] if cost > {FLOOR_SHARE:g} * np.log(max(2, shape[-1])) else []",
    ]


def targets_beyond(finding: Finding, case: Case) -> list[str] | None:
    """Targets that no weight makes the output reach; of several outputs the one that is accused."""
    if isinstance(case.batch.y, Mapping):
        key = f"[{plain(finding.where['output'])}]"
    elif asks(case)[0] in ("regression", "own") and isinstance(case.batch.y, np.ndarray):
        key = ""
    else:
        return None
    reached = [line.replace("model(x)", f"model(x){key}") for line in _REACHED]
    return [
        *reached,
        f"missed = np.square(y{key} - np.clip(y{key}, {_LOW}, {_HIGH})).mean()",
        f"wrong = [{_LOW}, {_HIGH}] if missed > {UNREACHABLE_SHARE:g} * y{key}.var() else []",
    ]


def blind_answers(finding: Finding, case: Case) -> list[str] | None:
    """Answers that are what they are, whatever the inputs."""
    if not isinstance(case.batch.x, np.ndarray) or case.batch.x.dtype.kind != "f":
        return None
    return [
        "one, two = model(x), model(x + 1 + abs(x))",
        "moved = float(abs(one - two).max())",
        'wrong = ["no answer depends on the inputs"] if moved <= 1e-6 else []',
    ]


def nothing_asked_of_a_batch(finding: Finding, case: Case) -> list[str] | None:
    """The same of batches of the size with which it is trained."""
    if not isinstance(case.batch.x, np.ndarray) or not isinstance(case.batch.y, np.ndarray) or not case.fit:
        return None
    return ['x, y = (part[: fit.get("batch_size", 32)] for part in (x, y))', *nothing_asked(finding, case)]


def nothing_asked(finding: Finding, case: Case) -> list[str]:
    """A loss without a gradient for any weight, wherever these are: answers that are all right have none either."""
    return [
        "for v in model.trainable_variables:",
        "    v.assign(keras.random.normal(v.shape))",
        f"loss = {LOSS}",
        "weights = [v.value for v in model.trainable_variables]",
        "if loss.requires_grad:",
        "    loss.backward()",
        f"moves = any(w.grad is not None and abs(w.grad).max() > {ROUNDED:g} for w in weights)",
        'wrong = [] if moves else [f"the loss is {float(loss):g}, and no weight has a gradient"]',
    ]


def dealt_targets(finding: Finding, case: Case) -> list[str] | None:
    """A loss that stays what it is when targets are dealt to other samples."""
    if not isinstance(case.batch.y, np.ndarray) or len(case.batch.y) < 2:
        return None
    return [
        "rng = np.random.default_rng(0)",
        'answers = keras.ops.array(rng.uniform(0.1, 0.9, model(x).shape), "float32")',
        "losses = [float(model.compute_loss(x, keras.ops.array(rng.permutation(y)), answers)) for _ in range(9)]",
        f"wrong = losses[:1] if np.ptp(losses) <= {SAME:g} * abs(losses[0]) else []",
    ]


def shaped_otherwise(finding: Finding, case: Case) -> list[str] | None:
    """A loss of which answers that equal the targets cost more than with targets of the answers' shape.

    Shapes of one row spread wherever those of a batch of some size do.
    """
    if not isinstance(case.batch.x, np.ndarray) or not isinstance(case.batch.y, np.ndarray):
        return None
    return [
        "x, y = x[:1], y[:1]",
        'answers = keras.ops.cast(keras.ops.reshape(y, model(x).shape), "float32")',
        "here, usual = (float(model.compute_loss(x, goals, answers)) for goals in (y, answers))",
        f"wrong = [here, usual] if here > usual + {SAME:g} * abs(here) else []",
    ]


def one_for_several(finding: Finding, case: Case) -> list[str] | None:
    """Targets each of which stands against several answers."""
    if not isinstance(case.batch.y, np.ndarray):
        return None
    return [
        "shape = tuple(model(x).shape)",
        "written = tuple(y.shape) + (1,) * (len(shape) - y.ndim)",
        "spread = written != shape and all(size in (1, wide) for size, wide in zip(written, shape))",
        "wrong = [written, shape] if spread else []",
    ]


def dealt_column(finding: Finding, case: Case) -> list[str] | None:
    """Columns of the targets that a loss hears, and that may be dealt to other samples."""
    y = case.batch.y
    if not isinstance(y, np.ndarray) or y.ndim != 2 or y.shape[-1] < 2:
        return None
    return [
        "rng = np.random.default_rng(0)",
        'answers = keras.ops.array(rng.uniform(0.1, 0.9, model(x).shape), "float32")',
        "def loss(k, column):",
        "    goals = np.c_[y[:, :k], column, y[:, k + 1 :]]",
        "    return float(model.compute_loss(x, keras.ops.array(goals), answers))",
        "dealt = {k: [loss(k, rng.permutation(y[:, k])) for _ in range(9)] for k in range(y.shape[-1])}",
        f"heard = [k for k in dealt if abs(loss(k, y[:, k] + 1) - dealt[k][0]) > {SAME:g} * abs(dealt[k][0])]",
        f"wrong = [k for k in heard if np.ptp(y[:, k]) > 0 and np.ptp(dealt[k]) <= {SAME:g} * abs(dealt[k][0])]",
    ]


def faint(finding: Finding, case: Case) -> list[str] | None:
    """A loss on the shares of classes whose gradient is next to nothing beside that of cross entropy."""
    if not isinstance(case.batch.y, np.ndarray) or case.batch.y.ndim < 2:
        return None
    return [
        "answers, norms = model(x, training=True), []",
        "usual = keras.ops.mean(keras.losses.categorical_crossentropy(y, answers))",
        "for loss in (model.compute_loss(x, y, answers), usual):",
        "    model.zero_grad()",
        "    loss.backward(retain_graph=True)",
        f"    {GRADIENTS}",
        f"    norms.append({norm_of('grads')})",
        f"shares = answers.shape[-1] > 1 and abs(answers.sum(-1) - 1).max() < {WHOLE:g}",
        f"wrong = norms if shares and {FAINT:g} * norms[0] < norms[1] else []",
    ]


def raw_inputs(finding: Finding, case: Case) -> list[str] | None:
    """Inputs of such a size that the same weights do far worse on them than on the same at unit size."""
    x = case.batch.x
    if isinstance(x, Mapping):
        sizes = {key: float(np.abs(leaf).max()) for key, leaf in x.items() if leaf.dtype.kind == "f" and leaf.size}
        key = plain(max(sizes, key=lambda one: sizes[one]))
        name, usual = f"x[{key}]", f"{{**x, {key}: x[{key}] / size}}"
    elif isinstance(x, np.ndarray):
        name, usual = "x", "x / size"
    else:
        return None
    return [
        f"size = float(abs({name}).max())",
        f"raw, usual = (float(model.compute_loss(x, y, model(given))) for given in (x, {usual}))",
        f"wrong = [size, raw, usual] if size > {TAME:g} and raw > {WORSE:g} * usual else []",
    ]


def bottomless(finding: Finding, case: Case) -> list[str]:
    """A loss that falls in proportion to how far the answers run away."""
    return [
        "answers = model(x).detach().requires_grad_()",
        "model.compute_loss(x, y, answers).backward()",
        "far = [answers - size * answers.grad.sign() for size in (100, 1000, 10000)]",
        "losses = [float(model.compute_loss(x, y, one)) for one in far]",
        "wrong = losses if losses[2] < 5 * losses[1] < 0 else []",
    ]


def turned_round(finding: Finding, case: Case) -> list[str] | None:
    """A loss that is smaller for answers on the other side than for answers close to the targets."""
    if not isinstance(case.batch.y, np.ndarray) or finding.check != "loss that wants other answers":
        return None
    y = case.batch.y
    shares = y.ndim > 1 and y.shape[-1] > 1 and bool(np.allclose(y.sum(-1), 1))
    # Shares stay between 0 and 1, so that no logarithm meets its end.
    axis, sizes = (-1, "0.8, 0.2, -0.05") if shares else (0, "0.9, 0.3, -0.9")
    return [
        'y = keras.ops.cast(y, "float32")',
        f"middle = keras.ops.mean(y, axis={axis}, keepdims=True)",
        f"levels = [middle + size * (y - middle) for size in ({sizes})]",
        "near, far, opposite = [float(model.compute_loss(x, y, level)) for level in levels]",
        "wrong = [near, far, opposite] if opposite < min(near, far) - 1e-5 * abs(near) else []",
    ]


def of_any_size(finding: Finding, case: Case) -> list[str] | None:
    """A loss that stays what it is when answers are multiplied."""
    if not isinstance(case.batch.y, np.ndarray) or (case.batch.y % 1 == 0).all():
        return None  # classes have no size
    return [
        'y = keras.ops.cast(y, "float32")',
        "losses = [float(model.compute_loss(x, y, size * y)) for size in (1, 2, 4)]",
        f"wrong = losses if max(losses) - min(losses) <= {10 * SAME:g} * abs(losses[0]) else []",
    ]


def outweighed(finding: Finding, case: Case) -> list[str] | None:
    """Rows whose slope is many thousand times that of others under one and the same answer."""
    if not isinstance(case.batch.y, np.ndarray):
        return None
    return [
        'answers = keras.ops.full(y.shape, float(y.mean()), "float32").requires_grad_()',
        "model.compute_loss(x, y, answers).backward()",
        "heard = abs(answers.grad).reshape(len(y), -1).max(1).values",
        f"wrong = heard[heard > {OUTWEIGHS:g} * heard[heard > 0].min()].tolist()",
    ]


def silent_among_targets(finding: Finding, case: Case) -> list[str] | None:
    """A loss without a slope for answers that lie close to the targets."""
    y = case.batch.y
    if not isinstance(y, np.ndarray) or y.dtype.kind != "f" or finding.check != BLIND:
        return None
    return [
        "near = y + 0.1 * np.random.default_rng(0).normal(size=y.shape)",
        'answers = keras.ops.array(near, "float32").requires_grad_()',
        "model.compute_loss(x, y, answers).backward()",
        "silent = float((answers.grad == 0).float().mean())",
        f"wrong = [silent] if silent > {UNHEARD:g} else []",
    ]


def copied_through(finding: Finding, case: Case) -> list[str] | None:
    """Answers that equal the targets with every weight at zero."""
    if not isinstance(case.batch.y, np.ndarray):
        return None
    return [
        "for variable in model.trainable_variables:",
        "    variable.assign(0 * variable)",
        "apart = float(abs(model(x, training=True) - y).max())",
        f"wrong = ['the answer is the target'] if apart <= {EXACT:g} * float(y.std()) else []",
    ]


def unheard_output(finding: Finding, case: Case) -> list[str] | None:
    """Outputs on which the loss does not depend; where none has a slope, all answers are right."""
    if not isinstance(case.batch.y, Mapping | list | tuple):
        return None
    return [
        "answers = model(x, training=True)",
        "outputs = keras.tree.flatten(answers)",
        "for output in outputs:",
        "    output.retain_grad()",
        "model.compute_loss(x, y, answers).backward()",
        "lost = [k for k, output in enumerate(outputs) if output.grad is None]",
        "mute = [k for k, output in enumerate(outputs) if k not in lost and not output.grad.any()]",
        "wrong = lost or (mute if len(mute) < len(outputs) else [])",
    ]


def unheard_columns(finding: Finding, case: Case) -> list[str] | None:
    """Columns of the one output on which the loss does not depend, whatever they hold."""
    if not isinstance(case.batch.y, np.ndarray):
        return None
    return [
        "answers = keras.random.uniform(model(x).shape).requires_grad_()",
        "model.compute_loss(x, y, answers).backward()",
        "heard = abs(answers.grad).reshape(-1, answers.shape[-1]).max(0).values",
        "wrong = [k for k, size in enumerate(heard) if not size] if heard.any() else []",
    ]


def sums_over_another_axis(finding: Finding, case: Case) -> list[str] | None:
    """Answers that sum to one over samples or steps and not over classes."""
    if isinstance(case.batch.x, Mapping | list | tuple):
        return None
    return [
        "answers = model(x)",
        "axes = [axis for axis in range(answers.ndim) if answers.shape[axis] > 1]",
        f"sums = [axis for axis in axes if abs(answers.sum(axis) - 1).max() < {WHOLE:g}]",
        "wrong = sums if len(axes) > 1 and sums and sums[-1] < answers.ndim - 1 else []",
    ]


def sums_beside_the_classes(finding: Finding, case: Case) -> list[str] | None:
    """Answers that sum to one, and not over the axis that the numbers of classes do not have."""
    if not isinstance(case.batch.y, np.ndarray) or case.batch.y.dtype.kind not in "iu" or case.batch.y.ndim < 2:
        return None
    return [
        "answers = model(x)",
        "shape = tuple(answers.shape)",
        "axes = [axis for axis in range(1, len(shape)) if shape[axis] > 1]",
        f"sums = [axis for axis in axes if abs(answers.sum(axis) - 1).max() < {WHOLE:g}]",
        "classes = [axis for axis in axes if shape[:axis] + shape[axis + 1 :] == y.shape]",
        "wrong = sums if classes and not set(sums) & set(classes) else []",
    ]


def wants_beyond(finding: Finding, case: Case) -> list[str] | None:
    """A loss that of all constants wants one that no weight makes the output reach."""
    if not isinstance(case.batch.y, np.ndarray) or finding.check != BEYOND:
        return None
    return [
        *_REACHED,
        "y = keras.ops.array(y)",
        f"steps = float(y.std()) * np.array([0, {', '.join(f'{step:g}' for step in beyond.FARTHER)}])",
        f"sides = [{_LOW} - steps, {_LOW} + steps, {_HIGH} + steps, {_HIGH} - steps]",
        "costs = [[float(model.compute_loss(x, y, keras.ops.full_like(y, v))) for v in side] for side in sides]",
        "pairs = [(out, back) for out, back in (costs[:2], costs[2:]) if np.isfinite(out + back).all()]",
        f"wrong = [o for o, b in pairs if b[0] <= min(b) and o[0] - min(o) > {beyond.GAIN:g} * abs(o[0])]",
    ]


def discouraged(finding: Finding, case: Case) -> list[str] | None:
    """A loss that is larger for answers close to the targets than for others by chance, or for zero."""
    if not isinstance(case.batch.y, np.ndarray) or case.batch.y.size < LEAST_ANSWERS:
        return None
    return [
        "noise = y.std() * np.random.default_rng(7919).normal(size=y.shape)",  # 0 may have made the data
        'parts = [keras.ops.array(part, "float32") for part in (y + noise / 2, y.mean() + noise, 0 * y)]',
        "close, *others = (float(model.compute_loss(x, keras.ops.array(y), answers)) for answers in parts)",
        "wrong = [close, *others] if close > min(others) + 1e-5 * abs(min(others)) else []",
    ]


def fed_its_answer(finding: Finding, case: Case) -> list[str] | None:
    """An input beside others that is the target, value by value."""
    if not isinstance(case.batch.x, Mapping | list | tuple) or not isinstance(case.batch.y, np.ndarray):
        return None
    if isinstance(case.batch.x, Mapping):
        [name, *_] = [k for k, leaf in case.batch.x.items() if np.array_equal(leaf.ravel(), case.batch.y.ravel())]
        key = f"x[{plain(name)}]"
        return [f'wrong = ["the input is the target"] if np.array_equal({key}.ravel(), y.ravel()) else []']
    return ["wrong = [k for k, leaf in enumerate(x) if np.array_equal(leaf.ravel(), y.ravel())]"]
