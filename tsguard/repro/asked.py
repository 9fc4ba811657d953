"""Findings of checks as a few lines of NumPy, Keras and torch, which set `wrong` from `model`, `x` and `y`.

Only what is a statement about one step, or about one array, can be said so: weights without a gradient, tensors that no
optimizer knows, time that float32 cannot hold, a code for missing. Every other finding is asked of its check again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tsguard.backend import preserved, seed_everything
from tsguard.checks.data import FLOAT32_WHOLE, HUGE, HUGE_TARGET
from tsguard.checks.lopsided import SIDE
from tsguard.checks.terms import DROWNED
from tsguard.dataset import map_leaves
from tsguard.findings import Finding
from tsguard.repro.case import Case
from tsguard.repro.code.arrays import plain
from tsguard.repro.graphs import REFUSALS

Form = Callable[[Finding, Case], list[str] | None]

_LOSS = "model.compute_loss(x, y, model(x, training=True))"


def lines_of(finding: Finding, case: Case) -> list[str] | None:
    """Lines for a finding; None where there are none, or they do not find the case wrong."""
    for form in FORMS.get(finding.code, ()):
        lines = form(finding, case)
        if lines is not None and _wrong(lines, case):
            return lines
    return None


def home_of(lines: Sequence[str]) -> str:
    """Whose arrays the lines read: NumPy's where they name it, tensors elsewhere."""
    return "np" if any("np." in line for line in lines) else "keras.ops"


def _wrong(lines: list[str], case: Case) -> bool:
    space: dict[str, Any] = {"keras": keras, "np": np, "model": case.model}
    read = (lambda leaf: leaf) if home_of(lines) == "np" else keras.ops.convert_to_tensor
    try:
        with preserved(case.model):
            space |= {"x": map_leaves(read, case.batch.x), "y": map_leaves(read, case.batch.y)}
            if case.weights is not None:
                case.model.set_weights(list(case.weights))
            seed_everything(case.seed)
            exec("\n".join(lines), space)
    except REFUSALS:
        return False
    return bool(space["wrong"])


def _without_gradient(finding: Finding, case: Case) -> list[str]:
    """Matrices of weights that the loss does not depend on; a bias before a softmax has no effect by design."""
    return [
        f"{_LOSS}.backward()",
        "matrices = [v for v in model.trainable_variables if v.value.ndim > 1]",
        "wrong = [v.path for v in matrices if v.value.grad is None or not v.value.grad.any()]",
    ]


def _strangers(finding: Finding, case: Case) -> list[str]:
    """Tensors with a gradient that take part in the loss and are no variables of the model."""
    return [
        f"loss = {_LOSS}",
        "known, nodes = {id(v.value) for v in model.variables}, [loss.grad_fn]",
        "for node in nodes:",
        "    nodes += [one for one, _ in node.next_functions if one is not None and one not in nodes]",
        'leaves = [node.variable for node in nodes if hasattr(node, "variable")]',
        "wrong = [tuple(leaf.shape) for leaf in leaves if id(leaf) not in known]",
    ]


def _time_in_float32(finding: Finding, case: Case) -> list[str] | None:
    """Times whose usual step is not far above what float32 can tell apart."""
    name, feature = finding.where.get("input"), finding.where.get("feature")
    named = isinstance(case.batch.x, Mapping) and name in case.batch.x
    times, held = (f"x[{plain(name)}]", case.batch.x[name]) if named else ("x", case.batch.x)
    if isinstance(feature, int) and np.ndim(held) == 3:
        times += f"[..., {feature}]"
    return [
        f"times = np.asarray({times})",
        "steps = np.diff(times.astype(np.float64), axis=1)",
        "coarse = np.spacing(np.float32(np.abs(times).max()))",
        "usual = np.median(steps[steps > 0]) if (steps > 0).any() else 0.0",
        f"big = np.abs(times).max() >= {FLOAT32_WHOLE:.0f}",
        'wrong = [f"steps of {usual:g} where float32 is {coarse:g} apart"] if big and usual < 16 * coarse else []',
    ]


def _column(finding: Finding, case: Case) -> str | None:
    """The values that a finding of the data is about, in code; None where they cannot be reached by a number."""
    feature = finding.where.get("feature")
    target = "output" in finding.where or finding.message.startswith("target")
    held, name = (case.batch.y, "y") if target else (case.batch.x, "x")
    key = finding.where.get("output" if target else "input")
    if isinstance(held, Mapping):
        if key not in held:
            return None
        held, name = held[key], f"{name}[{plain(key)}]"
    if feature is None or (np.ndim(held) < 2 and feature == 0):
        return name
    return f"{name}[..., {feature}]" if isinstance(feature, int) and np.ndim(held) > 1 else None


def _out_of_scale(finding: Finding, case: Case) -> list[str] | None:
    """Values far beyond unit size."""
    column = _column(finding, case)
    if column is None or "layer" in finding.where:
        return None
    limit = HUGE_TARGET if column.startswith("y") else HUGE
    return [
        f"size = np.sqrt(np.square({column}).mean())",
        f'wrong = [f"values of size {{size:.3g}}"] if size >= {limit:.0f} else []',
    ]


def _code_for_missing(finding: Finding, case: Case) -> list[str] | None:
    """A value that repeats exactly, farther from the nearest other than those are from each other."""
    column, [told, *_] = _column(finding, case), [*finding.evidence, None]
    if column is None or told is None or not isinstance(told.value, Mapping) or "value" not in told.value:
        return None
    code = plain(float(told.value["value"]))
    return [
        f"values = {column}[np.isfinite({column})]",
        f"rest = values[values != {code}]",
        f"far = np.abs(rest - {code}).min() > np.ptp(rest) and len(rest) < values.size - 1",
        f'wrong = [f"{code} stands in {{values.size - len(rest)}} places"] if far else []',
    ]


def _all_the_same(finding: Finding, case: Case) -> list[str] | None:
    """Samples that nothing tells apart."""
    if isinstance(case.batch.x, Mapping | list | tuple) or "feature" in finding.where or "output" in finding.where:
        return None
    return ['wrong = ["every sample is the same"] if len(x) > 1 and (x == x[:1]).all() else []']


def _equal_units(finding: Finding, case: Case) -> list[str]:
    """Kernels whose units all start with the same weights."""
    return [
        "kernels = [v for v in model.trainable_variables if v.value.ndim > 1 and v.shape[-1] > 1]",
        "wrong = [v.path for v in kernels if (v.value == v.value[..., :1]).all()]",
    ]


def _far_constant(finding: Finding, case: Case) -> list[str] | None:
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


def _loud_output(finding: Finding, case: Case) -> list[str] | None:
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


def _loud_term(finding: Finding, case: Case) -> list[str] | None:
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


FORMS: Mapping[str, tuple[Form, ...]] = {
    "degenerate-attention": (_without_gradient,),
    "disconnected-parameters": (_without_gradient,),
    "untracked-parameters": (_strangers, _without_gradient),
    "data-constant": (_all_the_same,),
    "data-precision": (_time_in_float32,),
    "data-scale": (_out_of_scale,),
    "data-sentinel": (_code_for_missing,),
    "loss-term-dominates": (_loud_output, _loud_term),
    "metric-disagrees": (_far_constant,),
    "symmetric-init": (_equal_units,),
}
"""By code; the first whose lines find the case wrong is the one that is written."""
