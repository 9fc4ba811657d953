"""What is said of arrays, in lines of NumPy that set `wrong`: time that float32 cannot hold, a code for missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tsguard.checks.data import FLOAT32_WHOLE, HALF_STEPS, HUGE, HUGE_TARGET, LOST_WINDOWS, STEPS_AND_FEATURES
from tsguard.checks.data_classes import MAJORITY, RARE
from tsguard.checks.data_crossed import LEAST_BLOCKS
from tsguard.checks.data_nearly import BESIDE, LEAST_ROWS, NEARLY
from tsguard.checks.data_pairs import SHIFTS
from tsguard.checks.data_parts import DETERMINED, LEAST_OF_A_CLASS, LEAST_SAMPLES, MANY_KINDS
from tsguard.checks.data_steps import MADE_OF, NOT_WITHOUT, REACH, STILL, STRAIGHT
from tsguard.findings import Finding
from tsguard.probes.pairing import LEAST_PAIRS, RELATED, UNRELATED
from tsguard.repro.case import Case
from tsguard.repro.code.arrays import plain


def time_in_float32(finding: Finding, case: Case) -> list[str] | None:
    """Times whose usual step is not far above what float32 can tell apart."""
    name, feature = finding.where.get("input"), finding.where.get("feature")
    named = isinstance(case.batch.x, Mapping) and name in case.batch.x
    times, held = (f"x[{plain(name)}]", case.batch.x[name]) if named else ("x", case.batch.x)
    if isinstance(feature, int) and np.ndim(held) == 3:
        times += f"[..., {min(feature, np.shape(held)[-1] - 1)}]"  # other features may have been dropped
    return [
        f"times = np.asarray({times})",
        "steps = np.diff(times.astype(np.float64), axis=1)",
        "coarse = np.spacing(np.float32(np.abs(times).max()))",
        "usual = np.median(steps[steps > 0]) if (steps > 0).any() else 0.0",
        f"big = np.abs(times).max() >= {FLOAT32_WHOLE:.0f}",
        'wrong = [f"steps of {usual:g} where float32 is {coarse:g} apart"] if big and usual < 16 * coarse else []',
    ]


def _values(finding: Finding, case: Case) -> tuple[str, Any] | None:
    """The array that a finding of the data is about, in code and as it is; None where it cannot be told."""
    target = "output" in finding.where or finding.message.startswith("target")
    held, name = (case.batch.y, "y") if target else (case.batch.x, "x")
    key = finding.where.get("output" if target else "input")
    if isinstance(held, Mapping):
        return (f"{name}[{plain(key)}]", held[key]) if key in held else None
    return (name, held) if isinstance(held, np.ndarray) else None


def out_of_scale(finding: Finding, case: Case) -> list[str] | None:
    """Values far beyond unit size."""
    found = _values(finding, case)
    if found is None or "layer" in finding.where:
        return None
    name, held = found
    limit = HUGE_TARGET if name.startswith("y") else HUGE
    squares = f"np.square({name}, dtype=float)"
    if held.ndim > 1 and held.shape[-1] > 1:
        squares += f".reshape(-1, {held.shape[-1]}).mean(0).max()"
    else:
        squares += ".mean()"
    return [
        f"size = np.sqrt({squares})",
        f'wrong = [f"values of size {{size:.3g}}"] if size >= {limit:.0f} else []',
    ]


def code_for_missing(finding: Finding, case: Case) -> list[str] | None:
    """A value that repeats exactly, farther from the nearest other than those are from each other."""
    found, [told, *_] = _values(finding, case), [*finding.evidence, None]
    if found is None or told is None or not isinstance(told.value, Mapping) or "value" not in told.value:
        return None
    (column, held), code = found, plain(float(told.value["value"]))
    if held.ndim > 1 and held.shape[-1] > 1:  # where it stands most often: other features may have been dropped
        column += f"[..., {int((held == float(code)).reshape(-1, held.shape[-1]).sum(0).argmax())}]"
    return [
        f"values = {column}[np.isfinite({column})]",
        f"rest = values[values != {code}]",
        f"far = np.abs(rest - {code}).min() > np.ptp(rest) and len(rest) < values.size - 1",
        f'wrong = [f"{code} stands in {{values.size - len(rest)}} places"] if far else []',
    ]


def all_the_same(finding: Finding, case: Case) -> list[str] | None:
    """Samples that nothing tells apart."""
    if isinstance(case.batch.x, Mapping | list | tuple) or "feature" in finding.where or "output" in finding.where:
        return None
    return ['wrong = ["every sample is the same"] if len(x) > 1 and (x == x[:1]).all() else []']


def shifted(finding: Finding, case: Case) -> list[str] | None:
    """Targets that the inputs tell only after a move by a few rows: a line fitted on one half, asked on the other."""
    if not isinstance(case.batch.x, np.ndarray) or not isinstance(case.batch.y, np.ndarray):
        return None
    return [
        "flat, half = np.c_[x.reshape(len(x), -1), np.ones(len(x))], len(x) // 2",
        "shares = {}",
        f"for rows in range({min(SHIFTS)}, {max(SHIFTS) + 1}):",
        "    moved = np.roll(y, rows, axis=0)",
        "    line = np.linalg.lstsq(flat[:half], moved[:half], rcond=None)[0]",
        "    missed = np.square(flat[half:] @ line - moved[half:]).mean()",
        "    shares[rows] = 1 - missed / moved[half:].var()",
        f"wrong = [rows for rows, share in shares.items() if share > {RELATED} and shares[0] < {UNRELATED}]",
    ]


def _columns(finding: Finding, case: Case) -> list[str] | None:
    """The first line of those that ask column by column."""
    found = _values(finding, case)
    if found is None or found[1].ndim < 2:
        return None
    return [f"flat = {found[0]}.reshape(-1, {found[0]}.shape[-1])"]


def still_columns(finding: Finding, case: Case) -> list[str] | None:
    """Columns that hold one value, beside others that move."""
    first = _columns(finding, case)
    return first and [
        *first,
        "still = (flat == flat[0]).all(axis=0)",
        "wrong = np.flatnonzero(still).tolist() if not still.all() else []",
    ]


def copied_columns(finding: Finding, case: Case) -> list[str] | None:
    """Columns that are another one, cell by cell."""
    first = _columns(finding, case)
    return first and [
        *first,
        "moving = [k for k in range(flat.shape[1]) if len(np.unique(flat[:, k])) > 2]",
        "wrong = [(j, k) for j in moving for k in moving if j < k and (flat[:, j] == flat[:, k]).all()]",
    ]


def still_windows(finding: Finding, case: Case) -> list[str] | None:
    """Windows in which nothing moves, while they differ from each other."""
    if not isinstance(case.batch.x, np.ndarray) or case.batch.x.ndim != 3:
        return None
    return [
        "still = (x == x[:, :1]).all(axis=(1, 2))",
        "differ = len(np.unique(x[still][:, 0], axis=0)) > 1",
        f"wrong = [still.mean()] if still.mean() >= {STILL:g} and differ else []",
    ]


def one_target(finding: Finding, case: Case) -> list[str] | None:
    """Targets that are all the same."""
    if not isinstance(case.batch.y, np.ndarray):
        return None
    return ['wrong = ["every target is the same"] if len(y) > 1 and np.ptp(y) == 0 else []']


def rare_class(finding: Finding, case: Case) -> list[str] | None:
    """Classes of which one is nearly everywhere, or one nearly nowhere."""
    y = case.batch.y
    if not isinstance(y, np.ndarray) or "config_key" in finding.where:
        return None
    wide = y.ndim > 1 and y.shape[-1] > 1 and bool((((y == 0) | (y == 1)).all(-1) & (y.sum(-1) == 1)).all())
    labels = "y.argmax(axis=-1)" if wide else "y"  # two axes may also be labels of steps
    return [
        f"kinds, counts = np.unique({labels}, return_counts=True)",
        f"rare = counts.max() >= {MAJORITY:g} * counts.sum() or counts.max() >= {RARE:g} * counts.min()",
        'weights = {fit.get("class_weight", {}).get(int(kind), 1) for kind in kinds}',
        "wrong = counts.tolist() if len(counts) > 1 == len(weights) and rare else []",
    ]


def weights_of_other_classes(finding: Finding, case: Case) -> list[str] | None:
    """Class weights whose keys begin and end above the labels."""
    if finding.where.get("config_key") != "class_weight" or not case.fit or not isinstance(case.batch.y, np.ndarray):
        return None
    return [
        'table, labels = fit.get("class_weight", {}), np.unique(y)',
        "wrong = [table] if table and min(table) > labels[0] and max(table) > labels[-1] else []",
    ]


def backwards(finding: Finding, case: Case) -> list[str] | None:
    """Clocks that fall; what is padded at the end with zeros does not count."""
    found = _values(finding, case)
    if found is None or "timestep" not in finding.where:
        return None
    return [
        f"clock = {found[0]}.reshape(len({found[0]}), -1)",
        "fallen = (np.diff(clock.astype(float), axis=1) < 0) & (clock[:, 1:] != 0)",
        "wrong = np.argwhere(fallen).tolist()",
    ]


def target_inside(finding: Finding, case: Case) -> list[str] | None:
    """Cells of the input that are the target in other units."""
    named = isinstance(case.batch.x, Mapping)
    held = case.batch.x.get(finding.where.get("input")) if named else case.batch.x
    name = f"x[{plain(finding.where['input'])}]" if named else "x"
    if not isinstance(held, np.ndarray) or not isinstance(case.batch.y, np.ndarray):
        return None
    if held.shape == case.batch.y.shape and not named:
        return None  # what is to be rebuilt is there on purpose
    alone = "" if named else " and len(found) < len(cells)"
    return [
        f"cells, goal = {name}.reshape(len(y), -1).T, y.reshape(len(y), -1)[:, 0]",
        "follows = np.array([np.corrcoef(cell, goal)[0, 1] if np.ptp(cell) else 0 for cell in cells])",
        f"found = np.flatnonzero(follows**2 >= {DETERMINED:.6f})",
        f"wrong = found.tolist() if len(y) >= {LEAST_SAMPLES}{alone} else []",
    ]


def sorted_apart(finding: Finding, case: Case) -> list[str] | None:
    """Targets in order beside inputs in none, of which a line fitted on some rows explains nothing on the others."""
    if not isinstance(case.batch.x, np.ndarray) or not isinstance(case.batch.y, np.ndarray):
        return None
    return [
        "order, half = np.random.default_rng(0).permutation(len(x)), len(x) // 2",
        "flat, goal = np.c_[x.reshape(len(x), -1), np.ones(len(x))][order], y.ravel()[order]",
        "line = np.linalg.lstsq(flat[:half], goal[:half], rcond=None)[0]",
        "explained = 1 - np.square(flat[half:] @ line - goal[half:]).mean() / goal[half:].var()",
        f"enough = len(x) >= {LEAST_PAIRS} and (np.diff(y.ravel()) >= 0).all()",
        f"wrong = [explained] if enough and explained <= {UNRELATED:g} else []",
    ]


def steps_ahead(finding: Finding, case: Case) -> list[str] | None:
    """Features that steps of another on both sides make, also where the window ends and holds no steps ahead."""
    if not isinstance(case.batch.x, np.ndarray) or case.batch.x.ndim != 3 or "timestep" not in finding.where:
        return None
    return [
        "def explained(columns, goal):",
        "    columns, goal = columns - columns.mean(0), goal - goal.mean()",
        "    line = np.linalg.lstsq(columns, goal, rcond=1e-9)[0]",
        "    return 1 - np.square(goal - columns @ line).sum() / np.square(goal).sum()",
        "x = x.astype(float)",
        f"reach, middle, wrong = {REACH}, x.shape[1] // 2, []",
        "for made, other in [(j, k) for j in range(x.shape[2]) for k in range(x.shape[2]) if j != k]:",
        "    around = explained(x[:, middle - reach : middle + reach + 1, other], x[:, middle, made])",
        "    behind = explained(x[:, : middle + 1, other], x[:, middle, made])",
        "    last = explained(x[:, -2 * reach - 1 :, other], x[:, -1, made])",
        f"    wrong += [(made, other)] if around >= {MADE_OF:g} and max(behind, last) <= {NOT_WITHOUT:g} else []",
    ]


def nearly_inside(finding: Finding, case: Case) -> list[str] | None:
    """Columns that are the target by value or by order, beside others that are not."""
    x, y = case.batch.x, case.batch.y
    if not isinstance(x, np.ndarray) or not isinstance(y, np.ndarray) or x.ndim != 2 or y.size != len(y):
        return None
    return [
        "table = np.c_[x, y]",
        "ranks = table.argsort(axis=0, kind='stable').argsort(axis=0, kind='stable')",
        "left = np.minimum(*(1 - np.corrcoef(part.T)[-1, :-1] ** 2 for part in (table, ranks)))",
        f"found = left <= min({NEARLY:g}, {BESIDE:g} * np.median(left))",
        f"wrong = np.flatnonzero(found).tolist() if len(x) >= {LEAST_ROWS} else []",
    ]


def joined_rows(finding: Finding, case: Case) -> list[str] | None:
    """Rows that stand beside several targets, and share all of these with other rows."""
    if not isinstance(case.batch.x, np.ndarray) or not isinstance(case.batch.y, np.ndarray):
        return None
    return [
        "beside = {}",
        "for row, goal in zip(np.asarray(x), np.asarray(y)):",
        "    beside.setdefault(row.tobytes(), set()).add(goal.tobytes())",
        "goals = [frozenset(several) for several in beside.values() if len(several) > 1]",
        "shared = {several for several in goals if goals.count(several) > 1}",
        f'wrong = [f"{{len(shared)}} blocks"] if len(shared) >= {LEAST_BLOCKS} else []',
    ]


def drawn_ahead(finding: Finding, case: Case) -> list[str] | None:
    """Features with steps on the line through their neighbours in every row, whose last two lead on to the target."""
    x, y = case.batch.x, case.batch.y
    if not isinstance(x, np.ndarray) or not isinstance(y, np.ndarray) or x.ndim != 3 or y.size != len(y):
        return None
    return [
        "bends = abs(np.diff(x.astype(float), n=2, axis=1))",
        f"straight, wrong = (bends <= {STRAIGHT:g} * x.std(axis=(0, 1))).all(axis=0), []",
        "for feature in np.flatnonzero(straight.any(axis=0) & ~straight.all(axis=0)):",
        "    ends = np.c_[x[:, -2:, feature], np.ones(len(x))]",
        "    line = np.linalg.lstsq(ends, y.ravel(), rcond=None)[0]",
        "    told = 1 - np.square(ends @ line - y.ravel()).mean() / y.var()",
        "    ahead = line[0] * line[1] < 0 and abs(line[1]) > abs(line[0])",
        f"    wrong += [int(feature)] if told >= {MADE_OF:g} and ahead else []",
    ]


def marked_class(finding: Finding, case: Case) -> list[str] | None:
    """Classes all of whose rows end with one id, with which no other row ends."""
    x, y = case.batch.x, case.batch.y
    if not isinstance(x, np.ndarray) or x.dtype.kind not in "iu" or x.ndim != 2 or not isinstance(y, np.ndarray):
        return None
    return [
        "ends = x[np.arange(len(x)), (x != 0).cumsum(axis=1).argmax(axis=1)]",
        f"labels, wrong = {'y.argmax(-1)' if y.ndim > 1 and y.shape[-1] > 1 else 'y.ravel()'}, []",
        "for label in np.unique(labels):",
        "    mine, others = np.unique(ends[labels == label]), np.unique(ends[labels != label])",
        f"    alone = len(mine) == 1 and mine[0] not in others and len(others) >= {MANY_KINDS}",
        "    wrong += [(int(label), int(mine[0]))] if alone else []",
    ]


def copied_inputs(finding: Finding, case: Case) -> list[str] | None:
    """Two inputs that hold the same numbers, cell by cell."""
    if not isinstance(case.batch.x, Mapping | list | tuple) or "feature" in finding.where:
        return None
    named = "x.items()" if isinstance(case.batch.x, Mapping) else "enumerate(x)"
    return [
        f"moving = [(name, leaf) for name, leaf in {named} if len(np.unique(leaf)) > 2]",
        "pairs = [(one, two) for k, one in enumerate(moving) for two in moving[k + 1 :]]",
        "wrong = [(one[0], two[0]) for one, two in pairs if np.array_equal(one[1], two[1])]",
    ]


def lost_to_half(finding: Finding, case: Case) -> list[str] | None:
    """Windows of half precision that move by hardly a step of it."""
    found = _values(finding, case)
    if found is None or found[1].dtype != np.float16 or found[1].ndim != 3:
        return None
    return [
        f"windows = {found[0]}",
        "moves = np.ptp(windows.astype(float), axis=1)",
        "steps = np.spacing(abs(windows).max(axis=1)).astype(float)",
        f"lost = moves <= {HALF_STEPS:g} * steps",
        "half = windows.dtype == np.float16 and (moves > 0).any()",
        f"wrong = [steps.max()] if half and lost[moves > 0].mean() >= {LOST_WINDOWS:g} else []",
    ]


def steps_behind(finding: Finding, case: Case) -> list[str] | None:
    """An input whose every channel stands, from one step on and in every row, in a longer input."""
    name = finding.where.get("input")
    if not isinstance(case.batch.x, Mapping) or name not in case.batch.x or case.batch.x[name].ndim != 3:
        return None
    steps = case.batch.x[name].shape[1]
    others = [key for key, leaf in case.batch.x.items() if leaf.ndim == 3 and leaf.shape[1] > steps]
    return [
        f"ahead, longer = x[{plain(name)}], [{', '.join(f'x[{plain(key)}]' for key in others)}]",
        "steps, channels = ahead.shape[1:]",
        "windows = [part[:, k : k + steps] for part in longer for k in range(part.shape[1] - steps + 1)]",
        "held = [all((one == ahead[..., [k]]).all((0, 1)).any() for k in range(channels)) for one in windows]",
        "moves = (ahead != ahead[:1]).any() and (ahead != ahead[:, :1]).any()",
        "wrong = np.flatnonzero(held).tolist() if moves else []",
    ]


def swapped_axes(finding: Finding, case: Case) -> list[str] | None:
    """As many steps as there should be features, and as many features as there should be steps."""
    expected = next((one.value for one in finding.evidence if one.name == STEPS_AND_FEATURES), None)
    if expected is None or not isinstance(case.batch.x, np.ndarray) or case.batch.x.ndim != 3:
        return None
    steps, features = expected
    return [f"wrong = list(x.shape) if x.shape[1:] == ({features}, {steps}) else []"]


def only_for_one_class(finding: Finding, case: Case) -> list[str] | None:
    """Columns in which one class of two has one value, outside of all that the other has."""
    found, y = _values(finding, case), case.batch.y
    if found is None or found[1].ndim != 2 or not isinstance(y, np.ndarray) or y.size != len(y):
        return None
    return [
        f"columns, labels = {found[0]}, y.ravel()",
        "one, two = (columns[labels == kind] for kind in np.unique(labels)[:2])",
        "apart = (one.max(0) < two.min(0)) | (two.max(0) < one.min(0))",
        "still = (np.ptp(one, axis=0) == 0) != (np.ptp(two, axis=0) == 0)",
        f"enough = len(np.unique(labels)) == 2 and min(len(one), len(two)) >= {LEAST_OF_A_CLASS}",
        "wrong = np.flatnonzero(apart & still).tolist() if enough else []",
    ]
