"""What is said of two parts of the data, or of the weights of samples, in lines of NumPy that set `wrong`.

They read `x`, `y`, `weight`, and `held_x` and `held_y` of the validation part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from tsguard.checks import data_apart, order
from tsguard.checks import data_fitted_apart as fitted
from tsguard.checks.data_copies import BEYOND, COPIED, NEIGHBOURS, SAME
from tsguard.checks.data_order import UNSEEN
from tsguard.checks.data_parts import SHARED_SAMPLES, SHARED_STEPS
from tsguard.checks.data_weights import ALL_THAT_COUNTS, LEAST_NUMBERS, UNEQUAL, UNHEARD
from tsguard.findings import Finding
from tsguard.probes.pairing import LEAST_PAIRS, RELATED, UNRELATED
from tsguard.repro.asked_pairs import RIDGE, WIDEST
from tsguard.repro.code.arrays import plain

if TYPE_CHECKING:
    from tsguard.repro.parts import Parts

    Form = Callable[[Finding, Parts], list[str] | None]


def _two_arrays(parts: Parts) -> bool:
    return isinstance(parts.x, np.ndarray) and isinstance(parts.held_x, np.ndarray)


def _pairs(parts: Parts) -> bool:
    """Whether both parts have one input and one target, a number a row."""
    arrays = isinstance(parts.y, np.ndarray) and isinstance(parts.held_y, np.ndarray) and _two_arrays(parts)
    return arrays and parts.y.size == len(parts.y)


def shared_rows(finding: Finding, parts: Parts) -> list[str] | None:
    """Validation rows that stand in the training part, byte for byte."""
    if not _two_arrays(parts):
        return None
    return [
        "known = {row.tobytes() for row in np.float32(x)}",
        "shared = [place for place, row in enumerate(np.float32(held_x)) if row.tobytes() in known]",
        f"wrong = shared if len(shared) >= {SHARED_SAMPLES:g} * len(held_x) else []",
    ]


def shared_steps(finding: Finding, parts: Parts) -> list[str] | None:
    """Steps of validation windows that stand in training windows."""
    if not _two_arrays(parts) or parts.x.ndim != 3:
        return None
    size = 4 if parts.x.shape[-1] == 1 else 2
    return [
        "def steps(windows):",
        f"    places = range(windows.shape[1] - {size - 1})",
        f"    return {{window[k : k + {size}].tobytes() for window in np.float32(windows) for k in places}}",
        "held, shared = steps(held_x), steps(held_x) & steps(x)",
        f"wrong = [len(shared), len(held)] if shared and len(shared) >= {SHARED_STEPS:g} * len(held) else []",
    ]


def near_copies(finding: Finding, parts: Parts) -> list[str] | None:
    """Validation rows beside a training row, where the next rows are far away."""
    if not _two_arrays(parts):
        return None
    return [
        "spread = x.reshape(len(x), -1).std(axis=0)",
        "train, held = ((part.reshape(len(part), -1) / spread)[:, spread > 0] for part in (x, held_x))",
        f"near = np.array([np.sort(np.linalg.norm(train - row, axis=1))[: {NEIGHBOURS + 1}] for row in held])",
        f"gaps = near[:, 1:] / np.maximum(near[:, :-1], {SAME:g})",
        f"copies = (gaps.max(axis=1) >= {BEYOND:g}) & (near[:, 0] > {SAME:g})",
        f"wrong = np.flatnonzero(copies).tolist() if copies.mean() >= {COPIED:g} else []",
    ]


def other_units(finding: Finding, parts: Parts) -> list[str] | None:
    """Parts of which most features have another spread or another middle."""
    ours, theirs = ("y", "held_y") if finding.message.startswith("target") else ("x", "held_x")
    if not all(isinstance(getattr(parts, name), np.ndarray) for name in (ours, theirs)):
        return None
    width = getattr(parts, ours).shape[-1] if getattr(parts, ours).ndim > 1 else 1
    far = f"{data_apart.OTHER_UNITS:g}"
    return [
        f"low, middle, high = np.quantile({ours}.reshape(-1, {width}), [0.25, 0.5, 0.75], axis=0)",
        f"bottom, there, top = np.quantile({theirs}.reshape(-1, {width}), [0.25, 0.5, 0.75], axis=0)",
        "ours, theirs = high - low, top - bottom",
        f"strange = (theirs > {far} * ours) | (ours > {far} * theirs) | (abs(there - middle) > {far} * ours)",
        f"wrong = np.flatnonzero(strange).tolist() if strange.mean() > {data_apart.MOST_FEATURES:g} else []",
    ]


def scaled_apart(finding: Finding, parts: Parts) -> list[str] | None:
    """Parts both of which have, in every feature, exactly the moments or the ends that a scaler gives."""
    if not _two_arrays(parts) or parts.x.dtype.kind != "f" or "feature" not in finding.where:
        return None
    return [
        "def scaled(part):",
        "    flat = part.reshape(-1, part.shape[-1]).astype(float)",
        "    low, top = abs(flat.min(0)), abs(flat.max(0) - 1)",
        f"    ends = np.maximum(top, np.minimum(low, abs(low - 1))) < {fitted.EXACT**2:g}",
        f"    return ends, (abs(flat.mean(0)) < {fitted.EXACT:g}) & (abs(flat.std(0) - 1) < {fitted.EXACT:g})",
        f"moving = [len(np.unique(column)) >= {fitted.DISTINCT} for column in x.reshape(-1, x.shape[-1]).T]",
        "apart = any((one & two)[moving].all() for one, two in zip(scaled(x), scaled(held_x)))",
        f"enough = min(len(x), len(held_x)) >= {fitted.LEAST_ROWS} and any(moving)",
        "wrong = np.flatnonzero(moving).tolist() if enough and apart else []",
    ]


def lost_column(finding: Finding, parts: Parts) -> list[str] | None:
    """Columns that follow the target in one part and do not in the other, beyond what chance can do."""
    name = finding.where.get("input")
    key = f"[{plain(name)}]" if isinstance(parts.x, Mapping) and name in parts.x else ""
    if not _pairs(replace(parts, x=parts.x[name], held_x=parts.held_x[name]) if key else parts):
        return None
    return [
        "def follows(part, target):",
        "    columns = part.reshape(len(part), -1).T",
        "    return np.array([np.corrcoef(column, target.ravel())[0, 1] for column in columns])",
        f"here, there = follows(x{key}, y), follows(held_x{key}, held_y)",
        "error = (1 / (len(y) - 3) + 1 / (len(held_y) - 3)) ** 0.5",
        f"lost = (abs(here) <= {data_apart.LOST:g} / len(y) ** 0.5) & (abs(there) >= {data_apart.RELATED:g})",
        f"lost &= abs(np.arctanh(there) - np.arctanh(here)) >= {data_apart.CERTAIN:g} * error",
        f"wrong = np.flatnonzero(lost).tolist() if min(len(y), len(held_y)) >= {data_apart.LEAST_ROWS} else []",
    ]


def taught_by_one_part(finding: Finding, parts: Parts) -> list[str] | None:
    """Pairs of which a line explains the one part and nothing of the other, on rows that it has not seen."""
    if not _pairs(parts):
        return None
    return [
        "def explained(part, target):",
        "    flat, half = np.c_[part.reshape(len(part), -1), np.ones(len(part))], len(part) // 2",
        "    line = np.linalg.lstsq(flat[:half], target[:half], rcond=None)[0]",
        "    return 1 - np.square(flat[half:] @ line - target[half:]).mean() / target[half:].var()",
        "here, there = explained(x, y), explained(held_x, held_y)",
        f"enough = min(len(x), len(held_x)) >= {LEAST_PAIRS}",
        f"wrong = [here, there] if enough and here <= {UNRELATED:g} and there >= {RELATED:g} else []",
    ]


def taught_by_views(finding: Finding, parts: Parts) -> list[str] | None:
    """The same of windows, by their values, squares and spectrum, of ids, by how often each comes, and of classes."""
    if not (_two_arrays(parts) and isinstance(parts.y, np.ndarray) and isinstance(parts.held_y, np.ndarray)):
        return None
    classes = parts.y.dtype.kind in "iu" and parts.y.size == len(parts.y)
    ids = parts.x.ndim == 2 and parts.x.dtype.kind in "iu"
    if not (ids or parts.x.ndim == 3) or not (classes or parts.y.dtype.kind == "f"):
        return None
    if (max(parts.x.max(), parts.held_x.max()) if ids else 3 * parts.x[:1].size) > WIDEST:
        return None
    view = [
        "    flat, waves = part.reshape(len(part), -1), abs(np.fft.rfft(part, axis=1)).reshape(len(part), -1)",
        "    view = np.c_[flat, flat**2, waves, np.ones(len(part))]",
    ]
    if ids:
        counted = "[np.bincount(row, minlength=1 + max(x.max(), held_x.max())) for row in part]"
        view = [f"    view = np.c_[{counted}, np.ones(len(part))]"]
    goal = "np.eye(1 + max(y.max(), held_y.max()))[goal.ravel()]" if classes else "goal.reshape(len(goal), -1)"
    return [
        "def explained(part, goal):",
        f"    goal, half = {goal}, len(part) // 2",
        *view,
        f"    grown = view[:half].T @ view[:half] + {RIDGE:g} * half * np.eye(view.shape[1])",
        "    line = np.linalg.solve(grown, view[:half].T @ goal[:half])",
        "    return 1 - np.square(view[half:] @ line - goal[half:]).mean() / goal[half:].var(axis=0).mean()",
        "here, there = explained(x, y), explained(held_x, held_y)",
        f"enough = min(len(x), len(held_x)) >= {LEAST_PAIRS}",
        f"wrong = [here, there] if enough and here <= {UNRELATED:g} and there >= {RELATED:g} else []",
    ]


def numbered_otherwise(finding: Finding, parts: Parts) -> list[str] | None:
    """Classes that what the one part teaches gets right in the other only once they are numbered anew.

    The new numbers are read off one half of its rows and counted on the other half.
    """
    if not (_two_arrays(parts) and isinstance(parts.y, np.ndarray) and isinstance(parts.held_y, np.ndarray)):
        return None
    if parts.y.dtype.kind not in "iu" or parts.y.size != len(parts.y) or parts.x.ndim not in (2, 3):
        return None
    if max(3 * parts.x[:1].size, parts.y.max()) > WIDEST:
        return None
    waves = "abs(np.fft.rfft(part, axis=1)).reshape(len(part), -1), " if parts.x.ndim == 3 else ""
    return [
        "def view(part):",
        "    flat = part.reshape(len(part), -1)",
        f"    return np.c_[flat, flat**2, {waves}np.ones(len(part))]",
        "seen, kinds = view(x), np.eye(1 + max(y.max(), held_y.max()))",
        f"grown = seen.T @ seen + {RIDGE:g} * len(x) * np.eye(seen.shape[1])",
        "line = np.linalg.solve(grown, seen.T @ kinds[y.ravel()])",
        "guess, goal, half = (view(held_x) @ line).argmax(-1), held_y.ravel(), len(held_y) // 2",
        "anew = (kinds[guess[:half]].T @ kinds[goal[:half]]).argmax(-1)",
        "gained = (anew[guess] == goal)[half:].mean() - (guess == goal)[half:].mean()",
        f"enough = min(len(x), len(held_x)) >= {data_apart.LEAST_ROWS}",
        f"wrong = [gained] if enough and gained >= {data_apart.RENUMBERED:g} else []",
    ]


def weights_on_nothing(finding: Finding, parts: Parts) -> list[str] | None:
    """Weights of steps that are above zero where there is nothing, and nowhere else."""
    if not all(isinstance(part, np.ndarray) for part in (parts.x, parts.y, parts.weight)):
        return None
    return [
        "there = [part.reshape(*weight.shape, -1).any(axis=-1) for part in (x, y)]",
        "empty = ~(there[0] | there[1])",
        "turned = empty.any() and not empty.all() and ((weight > 0) == empty).all()",
        'wrong = ["only steps that hold nothing weigh"] if turned else []',
    ]


def kinds_for_weights(finding: Finding, parts: Parts) -> list[str] | None:
    """Weights that are whole numbers from 0 on, many of them 0."""
    if not isinstance(parts.weight, np.ndarray):
        return None
    return [
        "weight = np.ones(1) if weight is None else weight",
        "kinds, whole = np.unique(weight), (weight == np.floor(weight)).all()",
        f"many = len(kinds) >= {LEAST_NUMBERS} and kinds[0] == 0 and (weight == 0).mean() >= {UNHEARD:g}",
        "wrong = kinds.tolist() if whole and many else []",
    ]


def no_row_weighs(finding: Finding, parts: Parts) -> list[str] | None:
    """Weights all of which are zero."""
    if not isinstance(parts.weight, np.ndarray):
        return None
    return ['wrong = ["no row weighs anything"] if weight is not None and not np.any(weight) else []']


def _labels(parts: Parts) -> str:
    return "y.argmax(-1)" if parts.y.ndim > 1 and parts.y.shape[-1] > 1 else "y.ravel()"


def _weighed(finding: Finding, parts: Parts, wrong: str) -> list[str] | None:
    """Lines that begin with how many rows and what weight each class has."""
    if finding.where.get("config_key") != "class_weight" or not isinstance(parts.y, np.ndarray):
        return None
    return [
        'table = fit.get("class_weight", {})',
        f"kinds, counts = np.unique({_labels(parts)}, return_counts=True)",
        "weights = np.array([table.get(int(kind), 1.0) for kind in kinds])",
        f"wrong = [table] if {wrong} else []",
    ]


def one_class_weighs(finding: Finding, parts: Parts) -> list[str] | None:
    """Class weights that leave nothing to the other classes, which their frequency does not do."""
    lines = _weighed(finding, parts, f"max(share) >= {ALL_THAT_COUNTS:g} > max(counts / counts.sum())")
    return lines and [*lines[:-1], "share = weights * counts / (weights * counts).sum()", lines[-1]]


def weights_turned_round(finding: Finding, parts: Parts) -> list[str] | None:
    """Class weights that are larger for the commonest class than for the rarest."""
    larger = "weights[counts.argmax()] > weights[counts.argmin()]"
    return _weighed(finding, parts, f"{larger} and counts.max() >= {UNEQUAL:g} * counts.min()")


def weights_of_no_class(finding: Finding, parts: Parts) -> list[str] | None:
    """Class weights that differ as written, and not as applied."""
    return _weighed(finding, parts, "len(set(table.values())) > 1 == len(set(weights))")


def last_part_apart(finding: Finding, parts: Parts) -> list[str] | None:
    """Labels that only the rows have which `validation_split` holds back."""
    if not isinstance(parts.y, np.ndarray) or finding.where.get("split") != "validation":
        return None
    return [
        f"labels = {_labels(parts)}",
        'cut = int(len(labels) * (1 - fit.get("validation_split", 0.0)))',
        "new = [label for label in np.unique(labels[cut:]) if label not in labels[:cut]]",
        "held = np.isin(labels[cut:], new).sum()",
        f"wrong = new if 0 < cut < len(labels) and held >= {UNSEEN:g} * (len(labels) - cut) else []",
    ]


def classes_in_a_row(finding: Finding, parts: Parts) -> list[str] | None:
    """Rows in the order of their classes that nothing shuffles."""
    if not isinstance(parts.y, np.ndarray) or "split" in finding.where:
        return None
    return [
        f"labels = {_labels(parts)}",
        "runs, kinds = 1 + (np.diff(labels) != 0).sum(), len(np.unique(labels))",
        'kept = fit.get("shuffle", True) is False and len(labels) >= 2 * kinds * fit.get("batch_size", 32)',
        'wrong = [f"{kinds} classes, one after the other"] if kept and runs == kinds > 1 else []',
    ]


def classes_by_batch(finding: Finding, parts: Parts) -> list[str] | None:
    """Batches each of which holds one class alone."""
    if not isinstance(parts.y, np.ndarray) or "split" in finding.where:
        return None
    return [
        f'labels, size = {_labels(parts)}, fit.get("batch_size", 32)',
        "batches = [labels[start : start + size] for start in range(0, len(labels), size)]",
        "pure = sum(len(np.unique(batch)) == 1 for batch in batches)",
        f'kept = fit.get("shuffle", True) is False and pure >= {order.MOST:g} * len(batches) > {order.MOST:g}',
        'wrong = [f"{pure} of {len(batches)} batches"] if kept and len(np.unique(labels)) > 1 else []',
    ]


def values_in_a_row(finding: Finding, parts: Parts) -> list[str] | None:
    """Targets in order that nothing shuffles."""
    if not isinstance(parts.y, np.ndarray) or "split" in finding.where:
        return None
    return [
        "steps = np.diff(y.ravel())",
        'kept = fit.get("shuffle", True) is False and len(y) >= 4 * fit.get("batch_size", 32)',
        "wrong = [y.min(), y.max()] if kept and ((steps >= 0).all() or (steps <= 0).all()) else []",
    ]


FORMS: Mapping[str, tuple[Form, ...]] = {
    "config-unused-key": (weights_of_no_class,),
    "data-drift": (other_units, scaled_apart),
    "data-imbalance": (weights_of_no_class, one_class_weighs, weights_turned_round),
    "data-labels": (numbered_otherwise,),
    "data-leak": (shared_rows, shared_steps, near_copies),
    "data-mispaired": (lost_column, taught_by_one_part, taught_by_views),
    "data-order": (classes_in_a_row, classes_by_batch, values_in_a_row, last_part_apart),
    "loss-degenerate": (no_row_weighs, kinds_for_weights),
    "mask-inverted": (weights_on_nothing,),
}
"""By code; the first whose lines find the parts wrong is the one that is written."""

WITHOUT_MODEL = frozenset({no_row_weighs})
"""Forms of findings whose check asks a model, which has no part in what is wrong: their lines alone are asked."""
