"""What a model cannot see, in lines of Keras and torch that set `wrong`: the order of steps, the level of a row, cells.

That the targets depend on it is the check's to say; the lines show that no answer does.
"""

from __future__ import annotations

import numpy as np

from tsguard.checks.orderless import SAME
from tsguard.findings import Finding
from tsguard.repro.case import Case


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
    """Steps or columns from which no answer has a gradient, beside others."""
    x = case.batch.x
    if not isinstance(x, np.ndarray) or x.dtype.kind != "f":
        return None
    return [
        "x.requires_grad_()",
        "(model(x) ** 2).sum().backward()",
        "silent = (x.grad == 0).all(0)",
        "wrong = silent.nonzero().tolist() if not silent.all() else []",
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
