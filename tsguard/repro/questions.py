"""A broken law as a few lines of code that set `held`. The search runs the very lines that stand in the script.

What moved, what is not finite and what has a gradient can be said with Keras alone. Laws whose statement needs more
(a layer's mask, a loss at two lengths) have no such lines, and are asked through `tsguard.laws`.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from tsguard.backend import preserved, seed_everything
from tsguard.dataset import leaves, map_leaves
from tsguard.findings import Finding
from tsguard.laws.batch import ORDER
from tsguard.laws.results import VALID
from tsguard.repro.case import Batch, Case
from tsguard.repro.code.arrays import plain
from tsguard.repro.graphs import REFUSALS

SAME = 1e-4
"""Share of the largest answer by which two answers may differ where the law itself names no tolerance."""


@dataclass(frozen=True)
class Question:
    """Lines that set `held` from `model` and a few arrays."""

    lines: tuple[str, ...]
    prints: str
    """What the script prints: the inside of an f-string."""
    arrays: Mapping[str, Any]
    """What the lines read beside `model`: x, and changed, y, other, valid where they are named."""
    compiled: bool = False
    """Whether the loss takes part."""

    @property
    def shown(self) -> str:
        """What is printed, for a page."""
        return self.prints.split("{")[0].strip() + " …"

    @property
    def changed(self) -> int:
        """Scalars beside the batch itself: those that differ, the flags, the targets."""
        x = list(leaves(self.arrays["x"]))
        other = list(leaves(self.arrays["changed"])) if "changed" in self.arrays else []
        pairs = zip(x, other, strict=False)
        moved = sum(int(np.sum(a != b)) if a.shape == b.shape else int(b.size) for a, b in pairs)
        more = [self.arrays[name] for name in self.arrays if name not in ("x", "changed")]
        return moved + sum(int(np.size(leaf)) for one in more for leaf in leaves(one))

    def broken(self, case: Case) -> bool:
        """Whether the law does not hold of a model."""
        space: dict[str, Any] = {"keras": keras, "model": case.model}
        try:
            with preserved(case.model):
                if case.weights is not None:
                    case.model.set_weights(list(case.weights))
                seed_everything(0)
                for name, value in self.arrays.items():
                    space[name] = map_leaves(keras.ops.convert_to_tensor, value)
                exec("\n".join(self.lines), space)
                return not bool(space["held"])
        except REFUSALS:
            return False


@dataclass(frozen=True)
class _Found:
    """What a finding of a law says of its counterexample."""

    finding: Finding
    x: Any
    changed: Any
    y: Any
    other: Any
    valid: Any
    valid_changed: Any
    answers: Any
    declared: Mapping[str, Any] = field(default_factory=dict)
    distance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def where(self) -> Mapping[str, Any]:
        return self.finding.where

    @property
    def law(self) -> str:
        return str(self.where.get("law", ""))

    @property
    def index(self) -> str:
        """Valid positions of the one output, in code; nothing where it is pooled."""
        shape = tuple(self.answers.shape)
        flags = self.valid_changed if self.changed is not None else self.valid
        return "[valid]" if flags is not None and shape[:2] == tuple(self.valid.shape) else ""


def question_of(finding: Finding, test: str, model: Any, like: Batch) -> Question | None:
    """The question of a finding; None where its counterexample was too large to be written, or does not say it all."""
    held = {one.name: one.value for one in finding.evidence if one.kind in ("batch", "value")}
    if "before" not in held or not isinstance(held.get("distance"), Mapping):
        return None
    before, after = held["before"], held.get("after", {})
    x = _arrays(before, like.x)
    if x is None:
        return None
    try:
        with preserved(model):
            seed_everything(0)
            answers = model(map_leaves(keras.ops.convert_to_tensor, x))
    except REFUSALS:
        return None
    y, other = (None if like.y is None else _arrays(side, like.y, "y[") for side in (before, after))
    found = _Found(
        finding,
        x,
        _arrays(after, like.x),
        y,
        other,
        _flags(before, like.x),
        _flags(after, like.x),
        answers,
        _declared(test),
        held["distance"],
    )
    return next((asked for form in FORMS if (asked := form(found)) is not None), None)


def _arrays(written: Mapping[str, Any], like: Any, prefix: str = "") -> Any:
    """A written batch in the structure in which the model takes it; None where it was too large to be written."""
    if not written or not all(isinstance(leaf, Mapping) and "values" in leaf for leaf in written.values()):
        return None
    held = {
        name.removeprefix(prefix).rstrip("]") if prefix else name: _array(leaf)
        for name, leaf in written.items()
        if name.startswith(prefix or "y[") == bool(prefix)
    }
    if isinstance(like, Mapping):
        return {key: held[key] for key in like} if set(like) <= set(held) else None
    values = [leaf for name, leaf in held.items() if name != VALID or prefix]
    if isinstance(like, list | tuple):
        return values if len(values) == len(like) else None
    return values[0] if len(values) == 1 else None


def _array(leaf: Mapping[str, Any]) -> Any:
    return np.array(leaf["values"], dtype=leaf["dtype"]).reshape(leaf["shape"])


def _flags(written: Mapping[str, Any], like: Any) -> Any:
    """Which steps are valid; None where it was not told, or an input has that name."""
    leaf = written.get(VALID)
    told = isinstance(leaf, Mapping) and "values" in leaf and not (isinstance(like, Mapping) and VALID in like)
    return _array(leaf) if told and isinstance(leaf, Mapping) else None


def _declared(test: str) -> dict[str, Any]:
    """How the law has read the padding, as the finding's own test declares it."""
    for node in ast.walk(ast.parse(test)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Padding":
            return {str(one.arg): ast.literal_eval(one.value) for one in node.keywords if one.arg != "pad_value"}
    return {}


# -- forms ------------------------------------------------------------------------------------------------------------


def _output_moved(found: _Found) -> Question | None:
    """One place of an output must not have moved."""
    sample, step = found.where.get("sample"), found.where.get("timestep")
    if found.changed is None or not isinstance(sample, int) or "tolerance" not in found.distance:
        return None
    key = _key(found.answers, found.where.get("output"))
    if key is None:
        return None
    rows = (sample, sample)
    if found.law == ORDER.name:
        rows = (len(next(iter(leaves(found.x)))) - 1 - sample, sample)
    steps = (None, None) if not isinstance(step, int) else (step, _same_step(found, rows, step))
    first, second = (f"[{r}]" if s is None else f"[{r}, {s}]" for r, s in zip(rows, steps, strict=True))
    training = found.law.endswith("in training")
    asked = "at({})" if training else "model({})"
    place = f"step {step} of sample {sample}" if isinstance(step, int) else f"sample {sample}"
    tolerance = f"{float(found.distance['tolerance']):.1g}"
    before, after = asked.format("x"), asked.format("changed")
    lines = [
        f"moved = keras.ops.max(keras.ops.abs({before}{key}{first} - {after}{key}{second}))",
        f"held = moved <= {tolerance}",
    ]
    if training:  # what is drawn must be drawn alike both times
        seeded = ["def at(batch):", "    keras.utils.set_random_seed(0)", "    return model(batch, training=True)"]
        lines = [*seeded, *lines]
    return Question(
        tuple(lines),
        f"the output at {place} moved by {{moved:.3g}}; allowed is {tolerance}",
        {"x": found.x, "changed": found.changed},
    )


def _same_step(found: _Found, rows: tuple[int, int], step: int) -> int:
    """The step of the changed batch that is the same valid one: padding may stand before it."""
    one, two = found.valid, found.valid_changed
    if one is None or two is None or not one[rows[0], step]:
        return step
    rank, places = int(one[rows[0], :step].sum()), np.flatnonzero(two[rows[1]])
    return int(places[rank]) if rank < len(places) else step


def _key(answers: Any, output: Any) -> str | None:
    """How the output is reached among several, in code; None where it cannot be told."""
    if isinstance(answers, Mapping):
        return f"[{plain(output)}]" if output in answers else None
    if isinstance(answers, list | tuple):
        number = str(output).removeprefix("output_")
        return f"[{number}]" if number.isdigit() and int(number) < len(answers) else None
    return ""


def _mask_unused(found: _Found) -> Question | None:
    """Another mask must change some output."""
    if found.finding.code != "mask-dropped" or "input" not in found.where or found.changed is None:
        return None
    lines = (
        "pairs = zip(keras.tree.flatten(model(x)), keras.tree.flatten(model(changed)))",
        "held = any(bool(keras.ops.any(one != two)) for one, two in pairs)",
    )
    said = f"another mask `{found.where['input']}` changes an output: {{held}}"
    return Question(lines, said, {"x": found.x, "changed": found.changed})


def _mask_turned(found: _Found) -> Question | None:
    """What stands at padded positions must not move what is valid; the law of polarity names no single place."""
    if found.finding.code != "mask-inverted" or found.changed is None or not _single(found):
        return None
    lines = (
        f"one, two = model(x){found.index}, model(changed){found.index}",
        "moved = keras.ops.max(keras.ops.abs(one - two))",
        f"held = moved <= {SAME:g} * keras.ops.max(keras.ops.abs(one))",
    )
    more = {"valid": found.valid} if found.index else {}
    return Question(lines, "valid outputs moved by {moved:.3g}", {"x": found.x, "changed": found.changed, **more})


def _gradient_at_padding(found: _Found) -> Question | None:
    """Valid outputs must have no gradient with respect to padded inputs."""
    if found.finding.code != "pad-leak-grad" or "feature" in found.law or not _single(found):
        return None
    if isinstance(found.x, list | tuple) or found.valid.all():
        return None
    flags = tuple(found.valid.shape)
    inputs = found.x.items() if isinstance(found.x, Mapping) else [("", found.x)]
    names = [
        f"x[{plain(name)}]" if name else "x"
        for name, leaf in inputs
        if leaf.dtype.kind == "f" and leaf.shape[:2] == flags and name != found.declared.get("mask")
    ]
    if not names:
        return None
    lines = (
        f"reached = [one.requires_grad_() for one in [{', '.join(names)}]]",
        f"keras.ops.sum(keras.ops.square(model(x){found.index})).backward()",
        "there = [keras.ops.abs(one.grad[~valid]) for one in reached if one.grad is not None]",
        "worst = max([keras.ops.max(one) for one in there], default=0)",
        "held = worst == 0",
    )
    return Question(lines, "gradient at padded inputs: {worst:.3g}", {"x": found.x, "valid": found.valid})


def _loss_counts_padding(found: _Found) -> Question | None:
    """Neither targets nor predictions at padded positions may take part in the loss."""
    if found.finding.code != "pad-leak-loss" or found.y is None or "feature" in found.law:
        return None
    if found.other is not None and not _equal(found.y, found.other):
        allowed = f"{float(found.distance['tolerance']):.1g}"
        lines: tuple[str, ...] = (
            "one, two = (model.compute_loss(x, targets, model(x)) for targets in (y, other))",
            "moved = keras.ops.abs(one - two)",
            f"held = moved <= {allowed}",
        )
        arrays = {"x": found.x, "y": found.y, "other": found.other}
        return Question(lines, f"the loss moved by {{moved:.3g}}; allowed is {allowed}", arrays, compiled=True)
    if not _single(found) or not found.index or found.valid.all():
        return None
    lines = (
        "answers = model(x)",
        "answers.retain_grad()",
        "model.compute_loss(x, y, answers).backward()",
        "worst = keras.ops.max(keras.ops.abs(answers.grad[~valid]))",
        "held = worst == 0",
    )
    arrays = {"x": found.x, "y": found.y, "valid": found.valid}
    return Question(lines, "gradient of the loss at padded predictions: {worst:.3g}", arrays, compiled=True)


def _not_finite(found: _Found) -> Question | None:
    """Valid outputs, or the gradients of the weights, must be finite."""
    if found.distance.get("moved") != float("inf") or not _single(found) or "feature" in found.law:
        return None
    x, flags = (found.x, found.valid) if found.changed is None else (found.changed, found.valid_changed)
    arrays = {"x": x, **({"valid": flags} if found.index else {})}
    if found.where.get("phase") == "forward":
        whole = (f"held = bool(keras.ops.isfinite(model(x){found.index}).all())",)
        return Question(whole, "valid outputs are finite: {held}", arrays)
    if found.where.get("phase") != "backward":
        return None
    lines = (
        f"keras.ops.sum(model(x){found.index}).backward()",
        "pairs = [(v.path, v.value.grad) for v in model.trainable_variables]",
        "sick = [path for path, grad in pairs if grad is not None and not keras.ops.isfinite(grad).all()]",
        "held = not sick",
    )
    return Question(lines, "gradients that are not finite: {sick}", arrays)


def _single(found: _Found) -> bool:
    return keras.ops.is_tensor(found.answers) and found.valid is not None


def _equal(one: Any, two: Any) -> bool:
    pairs = zip(leaves(one), leaves(two), strict=True)
    return all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in pairs)


FORMS: Sequence[Callable[[_Found], Question | None]] = (
    _mask_unused,
    _mask_turned,
    _gradient_at_padding,
    _loss_counts_padding,
    _output_moved,
    _not_finite,
)
"""Tried in turn: the first that a finding fits says what is asked."""
