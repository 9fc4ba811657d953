"""What a model cannot see, in lines of Keras and torch that set `wrong`: the order of steps, the level of a row, cells.

That no answer depends on it the lines show. That the targets do is the check's to say, but for cells: of those that
a model does not see most are of no use.
"""

from __future__ import annotations

import numpy as np

from tsguard.checks.narrow import HELD_BACK, ONE_NUMBER
from tsguard.checks.orderless import LOST, SAME
from tsguard.findings import Finding
from tsguard.repro.case import Case

CLASSES = "classes along one line"
"""The check of scores that one number makes."""

FEW = "answers through few numbers"
"""The check of answers that have a narrow place on their way."""


def _deaf_to(changed: str, what: str) -> list[str]:
    return [
        f"one, two = model(x), model({changed})",
        "moved, spread = float(abs(one - two).max()), float(one.std())",
        f'wrong = ["{what}"] if moved <= {SAME:g} * spread else []',
    ]


def unseen_order(finding: Finding, case: Case) -> list[str] | None:
    """The same answers when steps run backwards."""
    x = case.batch.x
    if not isinstance(x, np.ndarray) or x.ndim != 3 or x.shape[1] < 2:
        return None
    return _deaf_to("keras.ops.flip(x, 1)", "the order of steps changes no answer")


def unseen_level(finding: Finding, case: Case) -> list[str] | None:
    """The same answers when every value is moved."""
    if not isinstance(case.batch.x, np.ndarray):
        return None
    return _deaf_to("x + 1 + x.std()", "the level of a row changes no answer")


def unseen_cells(finding: Finding, case: Case) -> list[str] | None:
    """Cells from which no answer has a gradient, and that tell of the targets of rows by which no line was fitted."""
    x = case.batch.x
    if not isinstance(x, np.ndarray) or x.dtype.kind != "f" or not isinstance(case.batch.y, np.ndarray):
        return None
    return [
        "given = keras.ops.convert_to_tensor(x).requires_grad_()",
        "(model(given) ** 2).sum().backward()",
        "silent = (given.grad == 0).all(0).numpy()",
        "unseen, half = np.c_[x[:, silent], np.ones(len(x))], len(x) // 2",
        "line = np.linalg.lstsq(unseen[:half], y[:half], rcond=None)[0]",
        "told = 1 - np.square(y[half:] - unseen[half:] @ line).mean() / y[half:].var()",
        f"wrong = np.argwhere(silent).tolist() if told > {LOST:g} else []",
    ]


def along_one_line(finding: Finding, case: Case) -> list[str] | None:
    """Scores of all classes that lie on one line, whatever the weights."""
    x = case.batch.x
    if not isinstance(x, np.ndarray) or x.dtype.kind != "f" or finding.check != CLASSES:
        return None
    return [
        "model.set_weights([np.random.normal(size=weight.shape) for weight in model.weights])",
        "rows = np.random.normal(size=(16, *x.shape[1:])).astype(x.dtype)",  # equal ones would lie on a line too
        "answers = np.float64(keras.ops.convert_to_numpy(model(rows)))",
        "scores = np.log(answers) if (answers > 0).all() else answers",
        "apart = scores - scores.mean(0)",
        "sizes = np.linalg.svd(apart - apart.mean(-1, keepdims=True), compute_uv=False)",
        f"wrong = sizes[:2].tolist() if len(sizes) > 2 and sizes[1] <= {ONE_NUMBER:g} * sizes[0] else []",
    ]


def through_few_numbers(finding: Finding, case: Case) -> list[str] | None:
    """Answers whose slopes in the inputs span fewer directions than there are inputs, and too few for the targets."""
    x = case.batch.x
    if not isinstance(x, np.ndarray) or x.dtype.kind != "f" or finding.check != FEW:
        return None
    return [
        "given, slopes = keras.ops.convert_to_tensor(x).requires_grad_(), []",
        "for answer in model(given).sum(0).flatten():",
        "    given.grad = None",
        "    answer.backward(retain_graph=True)",
        "    slopes.append(given.grad.flatten(1))",
        f"passed = int(np.linalg.matrix_rank(keras.ops.stack(slopes, 1).numpy(), rtol={ONE_NUMBER:g}).max())",
        "goals = y.reshape(len(y), -1)",
        "parts = np.linalg.svd(goals - goals.mean(0), compute_uv=False) ** 2",
        "told = parts[:passed].sum() / parts.sum()",
        f"wrong = [passed, told] if passed < x[0].size and told < {HELD_BACK:g} else []",
    ]


def padding_read(finding: Finding, case: Case) -> list[str] | None:
    """Rows that end in empty steps, and a recurrent layer that no mask reaches."""
    if not isinstance(case.batch.x, np.ndarray) or case.batch.x.ndim < 2:
        return None
    return [
        "kinds = (keras.layers.RNN, keras.layers.Bidirectional)",
        "[reader, *_] = [layer for layer in model.layers if isinstance(layer, kinds)]",
        "ask, heard = reader.call, []",
        "reader.call = lambda *given, mask=None, **named: [heard.append(mask), ask(*given, mask=mask, **named)][1]",
        "model(x)",
        "empty = (x[:, -1] == 0).reshape(len(x), -1).all(1)",
        "wrong = [reader.name] if heard == [None] and x.shape[1] > 1 and empty.any() else []",
    ]
