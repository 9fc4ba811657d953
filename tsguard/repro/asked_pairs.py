"""What is said of pairs that teach nothing as they stand, in lines of NumPy that set `wrong`.

Every second row teaches a ridge on simple views of a row, the others judge it: as the pairs are and as they should be.
"""

from __future__ import annotations

import re

import numpy as np

from tsguard.checks.data_pairs import BLOCKS
from tsguard.findings import Finding
from tsguard.probes.pairing import LEAST_PAIRS, RELATED, UNRELATED
from tsguard.repro.case import Case

RIDGE = 0.1
"""Strength of the ridge for each row, of values about one."""


WIDEST = 2_000
"""Columns of a view: what is worked out of more takes longer than the search may."""


def _known(case: Case) -> list[str] | None:
    """Lines of a function that says how much of targets rows explain, out of sample."""
    x, y = case.batch.x, case.batch.y
    if not isinstance(x, np.ndarray) or not isinstance(y, np.ndarray) or x.dtype.kind not in "fiu":
        return None
    goal = "y.reshape(len(y), -1)"
    if y.dtype.kind in "iu" and y.size == len(y) and 0 <= y.min() and y.max() < WIDEST:
        goal = "np.eye(1 + y.max())[y.ravel()]"
    ids = x.ndim == 2 and x.dtype.kind in "iu"
    if (x.max(initial=0) if ids else 3 * x[:1].size) > WIDEST:
        return None
    if ids:
        view = ["    view = np.array([np.bincount(row, minlength=1 + x.max()) for row in x])"]
    elif x.ndim == 3:
        waves = "abs(np.fft.rfft(x, axis=1)).reshape(len(x), -1)"
        view = ["    flat = x.reshape(len(x), -1)", f"    view = np.c_[flat, flat**2, {waves}]"]
    else:
        view = ["    flat = x.reshape(len(x), -1)", "    view = np.c_[flat, flat**2]"]
    return [
        "def known(x, y):",
        *view,
        f"    goal = {goal}",
        "    view, goal = (view - view.mean(0)) / np.maximum(view.std(0), 1e-9), goal - goal.mean(0)",
        f"    grown = view[::2].T @ view[::2] + {RIDGE:g} * len(x) * np.eye(view.shape[1])",
        "    missed = view[1::2] @ np.linalg.solve(grown, view[::2].T @ goal[::2]) - goal[1::2]",
        "    return 1 - np.square(missed).sum() / np.square(goal[1::2]).sum()",
    ]


def in_another_order(finding: Finding, case: Case) -> list[str] | None:
    """Pairs that belong together in the order that the finding names: turned round, moved on, read by columns."""
    lines, told = _known(case), finding.message if finding.proof is None else finding.proof.summary
    numbers = [int(number.replace(",", "")) for number in re.findall(r"(?<![.\d])\d[\d,]*(?![.\d])", told)]
    orders = ["rows[::-1]"] if "reversed" in told else []
    if "moved" in told and numbers:
        orders = [f"np.roll(rows, {sign * numbers[-1]})" for sign in (1, -1)]
    if "table of" in told and len(numbers) >= 2:
        orders = [f"rows.reshape({one}, {other}).T.ravel()" for one, other in (numbers[-2:], numbers[:-3:-1])]
    if lines is None or not orders:
        return None
    return [
        *lines,
        "rows = np.arange(len(y))",
        f"now, *then = (known(x, y[order]) for order in (rows, {', '.join(orders)}))",
        f"better = len(y) >= {LEAST_PAIRS} and now <= {UNRELATED:g} and max(then) >= {RELATED:g}",
        "wrong = [now, *then] if better else []",
    ]


def taught_in_stretches(finding: Finding, case: Case) -> list[str] | None:
    """Stretches of rows that teach nothing beside others that do."""
    lines = _known(case)
    return lines and [
        *lines,
        f"stretches = np.array_split(np.arange(len(y)), {BLOCKS})",
        "told = [known(x[rows], y[rows]) for rows in stretches]",
        f"enough = len(y) >= {BLOCKS * LEAST_PAIRS}",
        f"wrong = told if enough and min(told) <= {UNRELATED:g} and max(told) >= {RELATED:g} else []",
    ]
