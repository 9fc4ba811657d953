"""A broken law as a few lines of code that set `held`. The search runs the very lines that stand in the script.

The lines themselves are in `forms`; here is what they are made of: a finding's counterexample, read back from its
evidence.
"""

from __future__ import annotations

import ast
import contextlib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from tsguard.backend import preserved, seed_everything
from tsguard.dataset import leaves, map_leaves
from tsguard.findings import Finding
from tsguard.laws.results import VALID
from tsguard.repro.case import Batch, Case
from tsguard.repro.graphs import REFUSALS


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
            # Keras remarks on a mask that gets lost; here that is the question.
            with preserved(case.model), _operations_kept(case.model), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if case.weights is not None:
                    case.model.set_weights(list(case.weights))
                seed_everything(0)
                for name, value in self.arrays.items():
                    space[name] = map_leaves(keras.ops.convert_to_tensor, value)
                exec("\n".join(self.lines), space)
                return not bool(space["held"])
        except REFUSALS:
            return False


@contextlib.contextmanager
def _operations_kept(model: Any) -> Iterator[None]:
    """Functions of `keras.ops` in a graph are left as they were found: they are no layers, which are looked after."""
    every = [one for one in getattr(model, "operations", ()) if not isinstance(one, keras.layers.Layer)]
    found = [dict(vars(one)) for one in every]
    try:
        yield
    finally:
        for one, held in zip(every, found, strict=True):
            vars(one).clear()
            vars(one).update(held)


@dataclass(frozen=True)
class Found:
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
    operation: str = ""
    """What kind of operation is accused, where it is a function of `keras.ops` and no layer."""
    own_loss: bool = False
    """Whether the loss is the model's own, which may read inputs that no output hangs on."""

    @property
    def where(self) -> Mapping[str, Any]:
        return self.finding.where

    @property
    def law(self) -> str:
        return str(self.where.get("law", ""))

    @property
    def feature_mask(self) -> str | None:
        """The input that says which features count."""
        told = self.declared.get("features")
        name = told[1] if isinstance(told, tuple | list) and len(told) == 2 else None
        return name if isinstance(self.x, Mapping) and name in self.x else None

    @property
    def answers_have_features(self) -> bool:
        """Whether the one output has an axis of features."""
        return self.feature_mask is not None and self.x[self.feature_mask].shape[-1] in tuple(self.answers.shape[1:])

    @property
    def order(self) -> list[int] | None:
        """The order in which the features stand in the changed batch; None where it is not one."""
        mask = self.feature_mask
        if mask is None or self.changed is None or set(self.changed) != set(self.x):
            return None
        count = self.x[mask].shape[-1]
        one, two = ([_column(batch, feature, count) for feature in range(count)] for batch in (self.x, self.changed))
        left, order = list(range(count)), []
        for column in two:
            place = next((feature for feature in left if one[feature] == column), None)
            if place is None:
                return None
            left.remove(place)
            order.append(place)
        return order

    @property
    def index(self) -> str:
        """Valid positions of the one output, in code; nothing where it is pooled."""
        shape = tuple(self.answers.shape)
        flags = self.valid_changed if self.changed is not None else self.valid
        return "[valid]" if flags is not None and shape[:2] == tuple(self.valid.shape) else ""


def _column(batch: Mapping[str, Any], feature: int, count: int) -> list[bytes]:
    """All that a batch holds of one feature."""
    wide = [leaf for _, leaf in sorted(batch.items()) if leaf.shape[-1] == count]
    return [(leaf[..., feature] + 0).tobytes() for leaf in wide]  # −0 is 0


def read_back(finding: Finding, test: str, model: Any, like: Batch) -> Found | None:
    """A counterexample from its evidence; None where it was too large to be written, or the model refuses it."""
    held = {one.name: one.value for one in finding.evidence if one.kind in ("batch", "value")}
    distance = held.get("distance", {})
    if "before" not in held or not isinstance(distance, Mapping):
        return None
    before, after = held["before"], held.get("after", {})
    x = _arrays(before, like.x)
    if x is None:
        return None
    try:
        with preserved(model), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            seed_everything(0)
            answers = model(map_leaves(keras.ops.convert_to_tensor, x))
    except REFUSALS:
        return None
    y, other = (None if like.y is None else _arrays(side, like.y, "y[") for side in (before, after))
    return Found(
        finding,
        x,
        _arrays(after, like.x),
        y,
        other,
        _flags(before, like.x),
        _flags(after, like.x),
        answers,
        _declared(test),
        distance,
        _operation(str(finding.where.get("layer", "")), model),
        type(model).compute_loss is not keras.Model.compute_loss,
    )


def _operation(name: str, model: Any) -> str:
    every = (one for one in getattr(model, "operations", ()) if one.name == name.rpartition("/")[2])
    return next((type(one).__name__ for one in every if not isinstance(one, keras.layers.Layer)), "")


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
