"""What is said of one step, or of the same step twice, in lines of Keras and torch that set `wrong`.

Gradients that add up, a state that is carried on, numbers that no seed reaches, thresholds and scales beside gradients.
"""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np

from tsguard.checks.carried import SAME
from tsguard.checks.data_reshaped import COURSE
from tsguard.checks.normalisation import COMPANIES, FEW
from tsguard.checks.rates import CLIPPED
from tsguard.checks.schedules import START_KEPT
from tsguard.findings import Finding
from tsguard.repro.asked_model import GRADIENTS, LOSS, norm_of, rows_in
from tsguard.repro.case import Case
from tsguard.repro.listening import listening

ADDED = 1.5
"""Times the first gradient from which the second holds it too: the same batch gives the same one again, and noise in a
model moves it by a tenth."""

CROSSED = "answers against the truths of other rows"
"""The check of a difference that is a table."""

RESHAPED = "reshape in place of a transposition"
"""The check of a reshape inside a model."""

ROUNDED = 1e-5
"""Share of a loss by which it differs when its terms are summed in another order."""


def summed_gradients(finding: Finding, case: Case) -> list[str]:
    """A step after which the gradient still holds that of the step before; no weight moves between the two."""
    return [
        "model.optimizer.learning_rate = 0.0",
        "norms = []",
        "for _ in range(2):",
        "    model.train_step((x, y))",
        f"    {GRADIENTS}",
        f"    norms.append({norm_of('grads')})",
        f"wrong = norms if norms[1] > {ADDED:g} * norms[0] else []",
    ]


def carried_state(finding: Finding, case: Case) -> list[str]:
    """Another answer to the same rows when they are asked again."""
    return [
        "first, second = model(x), model(x)",
        "moved = float(abs(first - second).max())",
        f"wrong = [moved] if moved > {SAME:g} * float(abs(first).max()) else []",
    ]


def drawn_anew(finding: Finding, case: Case) -> list[str]:
    """Another loss from the same seed and the same state."""
    return [
        "kept, losses = [keras.ops.copy(variable) for variable in model.variables], []",
        "for _ in range(2):",
        "    keras.utils.set_random_seed(0)",
        "    for variable, value in zip(model.variables, kept):",
        "        variable.assign(value)",
        f"    losses.append(float({LOSS}))",
        "wrong = losses if abs(losses[0] - losses[1]) > 1e-6 * abs(losses[0]) else []",
    ]


def cut_to_nothing(finding: Finding, case: Case) -> list[str]:
    """A threshold far below the gradient that it cuts."""
    return [
        "rule = model.optimizer",
        "threshold = rule.global_clipnorm or rule.clipnorm or rule.clipvalue or float('inf')",
        f"{LOSS}.backward()",
        GRADIENTS,
        f"norm = {norm_of('grads')}",
        f"wrong = [threshold, norm] if threshold < {CLIPPED:g} * norm else []",
    ]


def cut_in_the_step(finding: Finding, case: Case) -> list[str] | None:
    """A step of one's own that hands the optimizer next to nothing of the gradient."""
    if type(case.model).train_step is keras.Model.train_step:
        return None
    return [
        f"{LOSS}.backward()",
        GRADIENTS,
        f"asked, given, own = {norm_of('grads')}, [], model.optimizer.apply",
        "model.optimizer.apply = lambda grads, *rest: [given.extend(grads), own(grads, *rest)][1]",
        "model.zero_grad()",
        "model.train_step((x, y))",
        "given = [grad for grad in given if grad is not None]",
        f"heard = {norm_of('given')}",
        f"wrong = [heard, asked] if given and heard < {CLIPPED:g} * asked else []",
    ]


def scaled_beyond(finding: Finding, case: Case) -> list[str]:
    """A loss scale at which gradients are not finite."""
    return [
        "scale = model.optimizer.initial_scale",
        f"(scale * {LOSS}).backward()",
        GRADIENTS,
        "wrong = [] if all(bool(keras.ops.isfinite(grad).all()) for grad in grads) else [scale]",
    ]


def nothing_selected(finding: Finding, case: Case) -> list[str] | None:
    """Rows that, alone in a batch, leave a loss nothing to take a mean of."""
    if not isinstance(case.batch.x, np.ndarray) or not isinstance(case.batch.y, np.ndarray):
        return None
    return [
        "alone = [(x[k : k + 1], y[k : k + 1]) for k in range(len(x))]",
        "losses = [float(model.compute_loss(one, wanted, model(one))) for one, wanted in alone]",
        'wrong = [row for row, loss in enumerate(losses) if not abs(loss) < float("inf")]',
    ]


def same_loss(finding: Finding, case: Case) -> list[str] | None:
    """A step of one's own whose loss is one number whichever batch it is handed, and no weight moves in between."""
    if not isinstance(case.batch.x, np.ndarray) or not isinstance(case.batch.y, np.ndarray):
        return None
    return [
        "model.optimizer.learning_rate = 0.0",
        "logs = [model.train_step((x[k:], y[k:])) for k in range(3)]",
        "losses = [[float(value) for value in keras.tree.flatten(one)] for one in logs]",
        f"same = all(max(column) - min(column) <= {ROUNDED:g} * abs(column[0]) for column in zip(*losses))",
        "wrong = losses[:1] if same and any(losses[0]) else []",
    ]


def batches_of_one(finding: Finding, case: Case) -> list[str] | None:
    """Answers that in training are the same for any row, because it is normalised by itself."""
    x, part, apart = case.batch.x, "x[row : row + size]", "(x[0] != x[1]).any()"
    if isinstance(x, Mapping):
        part = "{k: v[row : row + size] for k, v in x.items()}"
        apart = "any((v[0] != v[1]).any() for v in x.values())"
    elif not isinstance(x, np.ndarray):
        return None
    if not case.fit:
        return None
    return [
        'size = fit.get("batch_size", 32)',
        f"one, two = (model({part}, training=True) for row in (0, 1))",
        f"alike = size == 1 and {apart} and float(abs(one - two).max()) <= {SAME:g}",
        'wrong = ["two rows have one answer"] if alike else []',
    ]


def company(finding: Finding, case: Case) -> list[str] | None:
    """Answers in training that differ more with the rows beside a row than from row to row."""
    if isinstance(case.batch.x, list | tuple) or not case.fit:
        return None
    return [
        f"rows, told = {rows_in(case)}, []",
        'size = min(rows, fit.get("batch_size", 32))',
        f"for seed in range({COMPANIES}):",
        "    order = np.random.default_rng(seed).permutation(rows // size * size)",
        "    parts = [keras.tree.map_structure(lambda leaf: leaf[some], x) for some in order.reshape(-1, size)]",
        "    answers = [keras.ops.convert_to_numpy(model(part, training=True)) for part in parts]",
        "    told.append(np.concatenate(answers)[order.argsort()])",
        "beside, apart = np.var(told, axis=0).mean(), np.mean(told, axis=0).var(axis=0).mean()",
        f"wrong = [beside, apart] if 1 < size <= {FEW} and beside > apart else []",
    ]


def average_of_the_start(finding: Finding, case: Case) -> list[str] | None:
    """An average of the weights that at the end of the run still holds the start."""
    if not case.fit:
        return None
    return [
        f'rule, batches = model.optimizer, -(-{rows_in(case)} // fit.get("batch_size", 32))',
        'kept = rule.ema_momentum ** (batches * fit.get("epochs", 1)) if rule.use_ema else 0.0',
        f"wrong = [kept] if kept > {START_KEPT:g} else []",
    ]


def dealt_in_a_step(finding: Finding, case: Case) -> list[str] | None:
    """A step of one's own whose loss stays what it is when targets are dealt to other rows."""
    if not isinstance(case.batch.y, np.ndarray) or type(case.model).train_step is keras.Model.train_step:
        return None
    return [
        "kept, losses = [keras.ops.copy(variable) for variable in model.variables], []",
        "for rows in range(3):",
        "    for variable, value in zip(model.variables, kept):",
        "        variable.assign(value)",
        "    logs = model.train_step((x, keras.ops.roll(y, rows, 0)))",
        "    losses.append(float(keras.tree.flatten(logs)[0]))",
        f"alike = 0 < max(map(abs, losses)) and max(losses) - min(losses) <= {ROUNDED:g} * abs(losses[0])",
        "wrong = losses[:1] if alike and (y != y[:1]).any() else []",
    ]


def crossed_rows(finding: Finding, case: Case) -> list[str] | None:
    """A difference of (B,) and (B, 1) in a step, of which one hangs on the weights and the other does not."""
    if finding.check != CROSSED:
        return None
    return [
        *listening(
            "[tuple(one.shape) for one in given]",
            '"sub" in function.__name__ and {getattr(one, "requires_grad", None) for one in given} == {True, False}',
        ),
        "    model.train_step((x,))" if case.batch.y is None else "    model.train_step((x, y))",
        "rows = len(keras.tree.flatten(x)[0])",
        "wrong = [pair for pair in seen if rows > 2 and sorted(pair) == [(rows,), (rows, 1)]]",
    ]


def never_moved(finding: Finding, case: Case) -> list[str]:
    """A step of one's own that moves no weight at all."""
    return [
        "before = [v.value.clone() for v in model.trainable_variables]",
        "logs = model.train_step((x, y))",
        "still = [v.path for v, old in zip(model.trainable_variables, before) if (v.value == old).all()]",
        "wrong = still if len(still) == len(before) else []",
    ]


def spoilt_by_the_update(finding: Finding, case: Case) -> list[str] | None:
    """Weights that one update leaves without a finite value, from gradients that are finite."""
    if finding.where.get("phase") != "update":
        return None
    return [
        "model.train_on_batch(x, y)",
        "finite = all(v.value.grad is None or v.value.grad.isfinite().all() for v in model.trainable_variables)",
        "wrong = [v.path for v in model.trainable_variables if finite and not v.value.isfinite().all()]",
    ]


def softmax_of_shares(finding: Finding, case: Case) -> list[str]:
    """A softmax that a step hands what sums to one already."""
    return [
        *listening("given[0].detach()", '"softmax" in function.__name__ and given[0].requires_grad'),
        "    model.train_step((x, y))",
        "shares = [one for one in seen if one.shape[-1] > 1 and abs(one.sum(-1) - 1).max() < 1e-5]",
        "wrong = [tuple(one.shape) for one in shares]",
    ]


def reshaped_courses(finding: Finding, case: Case) -> list[str] | None:
    """A reshape that exchanges the sizes of two axes, where numbers run along the last of them."""
    if not isinstance(case.batch.x, np.ndarray) or finding.check != RESHAPED:
        return None
    return [
        *listening("(given[0], tuple(made.shape))", 'function.__name__ in ("reshape", "view")'),
        "    model(x)",
        "wrong = []",
        "for given, shape in seen:",
        "    if given.ndim == 3 and shape == (len(given), given.shape[2], given.shape[1]) != tuple(given.shape):",
        "        flat = (given - given.mean(0)) / given.std(0).clip(min=1e-30)",
        "        alike = float((flat[..., 1:] * flat[..., :-1]).mean())",
        f"        wrong += [alike] if alike >= {COURSE:g} else []",
    ]
