"""What is said of how targets are written, and of a loss that reads them in another way, in lines that set `wrong`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tsguard.checks.outputs import MAX_CLASSES, MIN_CLASSES
from tsguard.checks.own_loss import SAME
from tsguard.findings import Finding
from tsguard.repro.asked_loss import WHOLE, asks
from tsguard.repro.case import Case
from tsguard.repro.code.arrays import plain

_NAME_OF_LOSS = 'loss = str(getattr(model.loss, "name", getattr(model.loss, "__name__", model.loss))).lower()'
"""What the one loss of a model is called: in `compile` a text, a function or an object."""


def name_of_loss(model: Any) -> str:
    """The same, here."""
    space = {"model": model}
    exec(_NAME_OF_LOSS, space)
    return str(space["loss"])


def odd_labels(finding: Finding, case: Case) -> list[str] | None:
    """Labels that the loss cannot read."""
    kind, _ = asks(case)
    if kind == "binary" and finding.code == "loss-mismatch":  # another loss would read them
        return [_NAME_OF_LOSS, 'wrong = [label for label in np.unique(y) if "binary" in loss and not 0 <= label <= 1]']
    if kind == "binary":
        return ["wrong = [label for label in np.unique(y) if not 0 <= label <= 1]"]
    if kind != "sparse":
        return None
    return [
        "units = model(x).shape[-1]",
        "wrong = [label for label in np.unique(y) if label % 1 or not 0 <= label < units]",
    ]


def rows_for_numbers(finding: Finding, case: Case) -> list[str] | None:
    """Rows of indicators under a loss that reads numbers of classes."""
    if not isinstance(case.batch.y, np.ndarray):
        return None
    return [
        _NAME_OF_LOSS,
        "shape = model(x).shape",
        'wrong = [tuple(y.shape)] if "sparse" in loss and y.shape == shape and shape[-1] > 1 else []',
    ]


def numbers_for_rows(finding: Finding, case: Case) -> list[str] | None:
    """Targets that are no rows which sum to one, under a loss that reads such rows."""
    if asks(case)[0] != "categorical" or not isinstance(case.batch.y, np.ndarray):
        return None
    return [
        _NAME_OF_LOSS,
        f"rows = y.shape == model(x).shape and np.abs(y.sum(-1) - 1).max() < {WHOLE:g}",
        f"wrong = [] if rows or loss != {plain(name_of_loss(case.model))} else [tuple(y.shape)]",
    ]


def shares_of_many(finding: Finding, case: Case) -> list[str] | None:
    """Answers that sum to one, and targets of their shape that do not."""
    output = finding.where.get("output")
    key = f"[{plain(output)}]" if isinstance(case.batch.y, Mapping) and output in case.batch.y else ""
    if not key and not isinstance(case.batch.y, np.ndarray):
        return None
    return [
        f"answers, goals = model(x){key}, y{key}",
        f"shares = goals.shape == answers.shape and abs(answers.sum(-1) - 1).max() < {WHOLE:g}",
        'wrong = ["the answers sum to one, the targets do not"] if shares and (goals.sum(-1) != 1).any() else []',
    ]


def all_at_once(finding: Finding, case: Case) -> list[str] | None:
    """Answers that nothing binds, under a loss that costs no more when every class is likely than when one is."""
    y = case.batch.y
    if not isinstance(y, np.ndarray):
        return None
    right = "y" if y.ndim > 1 and y.shape[-1] > 1 else "np.eye(shape[-1])[y.ravel().astype(int)].reshape(shape)"
    return [
        "answers = model(x)",
        "shape = answers.shape",
        f"free = shape[-1] > 1 and abs(answers.sum(-1) - 1).max() > {WHOLE:g}",
        f"likely = 0.02 + 0.96 * {right}",
        "levels = [keras.ops.array(level, 'float32') for level in (likely, likely * 0 + 0.98, 1 - likely)]",
        "best, every, wrongly = (float(model.compute_loss(x, keras.ops.array(y), level)) for level in levels)",
        f"wrong = [best, every] if free and every <= best + {SAME:g} * abs(wrongly) and wrongly > best else []",
    ]


def shares_made_again(finding: Finding, case: Case) -> list[str] | None:
    """Answers that sum to one, under a loss that stays what it is when a number is added to all of them."""
    if not isinstance(case.batch.y, np.ndarray):
        return None
    return [
        "answers = model(x).detach()",
        "axes = [axis for axis in range(1, answers.ndim) if answers.shape[axis] > 1]",
        f"shares = any(abs(answers.sum(axis) - 1).max() < {WHOLE:g} for axis in axes)",
        "one, two = (float(model.compute_loss(x, y, answers + more)) for more in (0, 1))",
        f'wrong = ["shares are made of shares"] if shares and abs(one - two) <= {SAME:g} * abs(one) else []',
    ]


def first_of_the_row(finding: Finding, case: Case) -> list[str] | None:
    """Rows of indicators all but the first of which may change places: that one is read as a number."""
    y = case.batch.y
    if not isinstance(y, np.ndarray) or y.ndim != 2 or y.shape[-1] < MIN_CLASSES:
        return None
    return [
        "answers = keras.random.uniform(model(x).shape, 0.1, 0.9)",
        "rows = tuple(y.shape) == tuple(answers.shape)",
        "turned = keras.ops.concatenate([y[:, :1], keras.ops.roll(y[:, 1:], 1, 1)], 1)",
        "one, two = (float(model.compute_loss(x, goals, answers)) for goals in (y, turned))",
        f"same = rows and bool((y != turned).any()) and abs(one - two) <= {SAME:g} * abs(one)",
        'wrong = ["only the first of the row is read"] if same else []',
    ]


def deaf_to_a_label(finding: Finding, case: Case) -> list[str] | None:
    """Rows of one label whose answers a loss does not hear, whatever they are."""
    if not isinstance(case.batch.y, np.ndarray) or case.batch.y.size != len(case.batch.y):
        return None
    return [
        "answers = keras.random.uniform(model(x).shape).requires_grad_()",
        "model.compute_loss(x, y, answers).backward()",
        "heard = abs(answers.grad).reshape(len(x), -1).max(1).values",
        "labels = y.reshape(len(x), -1)[:, 0]",
        "wrong = [float(label) for label in labels.unique() if label >= 0 and not heard[labels == label].any()]",
    ]


def alike_for_all_classes(finding: Finding, case: Case) -> list[str] | None:
    """A loss that pushes all classes of a sample in the same way, whichever is right."""
    if not isinstance(case.batch.y, np.ndarray):
        return None
    return [
        "shape = model(x).shape",
        "answers = keras.ops.full(shape, 1 / shape[-1]).requires_grad_()",
        "model.compute_loss(x, y, answers).backward()",
        "apart = float(abs(answers.grad - answers.grad[..., :1]).max())",
        f"alike = shape[-1] > 1 and apart < {SAME:g} * float(abs(answers.grad).max())",
        'wrong = ["all classes are pushed alike"] if alike else []',
    ]


def one_of_many(finding: Finding, case: Case) -> list[str] | None:
    """Targets that name one class a row, under a loss that asks of each class by itself."""
    if not isinstance(case.batch.y, np.ndarray) or isinstance(case.model.loss, Mapping | list | tuple):
        return None
    return [
        "named = y.shape[-1] > 2 and np.isin(y, (0, 1)).all() and (y.sum(-1) == 1).all()",
        _NAME_OF_LOSS,
        'wrong = [f"{loss} over {y.shape[-1]} classes"] if named and "binary" in loss else []',
    ]


def numbered_classes(finding: Finding, case: Case) -> list[str] | None:
    """Few whole numbers, as names of classes are, as the targets of a distance."""
    if not isinstance(case.batch.y, np.ndarray) or case.batch.y.dtype.kind not in "iu":
        return None
    return [
        "kinds = np.unique(y)",
        f"few = {MIN_CLASSES} <= len(kinds) <= {MAX_CLASSES} and y.dtype.kind in 'iu'",
        "wrong = kinds.tolist() if few and model(x).shape[-1] == 1 else []",
    ]


def crossed_outputs(finding: Finding, case: Case) -> list[str] | None:
    """Losses in a list that ask yes or no of the outputs whose targets are amounts, and amounts of the others."""
    if not isinstance(case.batch.y, list | tuple) or not isinstance(case.model.loss, list | tuple):
        return None
    return [
        'names = [str(getattr(one, "name", getattr(one, "__name__", one))).lower() for one in model.loss]',
        'asked = ["binary" in name for name in names]',
        "given = [bool(np.isin(goal, (0, 1)).all()) for goal in y]",
        "wrong = names if asked != given and sorted(asked) == sorted(given) else []",
    ]
