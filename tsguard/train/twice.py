"""The same few steps trained twice from one seed: every tensor compared bit by bit, and the first that differs named.

Data and model are made again each time, because a generator that nobody seeded may sit in either of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from tsguard import catalogue
from tsguard.backend import seed_everything
from tsguard.checks.runner import passed
from tsguard.dataset import Data, leaves
from tsguard.evidence import Evidence
from tsguard.findings import Finding
from tsguard.subject import Subject
from tsguard.train import few
from tsguard.train.resume import variables_of

STEPS = 5
"""Steps of each run: dropout, shuffling and accumulation all have drawn by then."""

CHECK = "the same steps twice"
Marks = list[tuple[dict[str, Any], str]]
"""(place, digest) in the order in which things came to be."""


def compared(
    subject: Subject,
    fit_arguments: Mapping[str, Any],
    *,
    steps: int = STEPS,
    elsewhere: Callable[[], Marks] | None = None,
) -> list[Finding]:
    """One finding: the first tensor that differs, or that none does.

    `elsewhere` makes them once more in another process, where sets have another order and nothing is left from before.
    """
    first = marks(subject, fit_arguments, steps=steps)
    again = [("in one process", marks(subject, fit_arguments, steps=steps))]
    if elsewhere is not None and _difference(first, again[0][1]) is None:
        again.append(("in a process of its own", elsewhere()))
    for where, second in again:
        place = _difference(first, second)
        if place is not None:
            return [_differs({**place, "words": f"{place.get('words', 'the number of steps')} ({where})"})]
    ways = " and ".join(where for where, _ in again)
    words = f"{steps} steps were trained again from one seed, {ways}: all {len(first)} tensors agree in every bit"
    return [passed("nondeterministic", check=CHECK, message=words)]


def _difference(first: Marks, second: Marks) -> dict[str, Any] | None:
    for (place, one), (_, other) in zip(first, second, strict=False):
        if one != other:
            return place
    return {"phase": "update"} if len(first) != len(second) else None


def _differs(place: dict[str, Any]) -> Finding:
    where = {key: value for key, value in place.items() if key != "words"}
    words = place.get("words", "the number of steps")
    return catalogue.finding(
        "nondeterministic",
        f"two runs from one seed differ; first in {words}. Expected the same bits.",
        where=where,
        evidence=[Evidence("value", where, name="first tensor that differs")],
        check=CHECK,
        score=1.0,
    )


def marks(subject: Subject, fit_arguments: Mapping[str, Any], *, steps: int = STEPS) -> Marks:
    """What the data, the new model and every step hold, as digests."""
    seed = subject.seed if subject.seed is not None else 0
    seed_everything(seed)
    data = Data.of(subject.data_recipe.make()) if subject.data_recipe is not None else subject.data
    made: Marks = []
    for role in ("x", "y", "sample_weight"):
        for number, leaf in enumerate(leaves(getattr(data, role))):
            if hasattr(leaf, "shape"):
                words = f"the data itself: array {number} of {role}, as the data function makes it"
                made.append(({"phase": "data", "input": role, "words": words}, _digest(leaf)))
    seed_everything(seed)
    model = subject.rebuild()
    seed_everything(seed)  # a live model is copied without its seed
    assert data is not None
    few.fit(model, data, fit_arguments, steps, [_Note(made)])
    return made


class _Note(keras.callbacks.Callback):
    """Digests of every variable before the first step and after each."""

    def __init__(self, made: Marks) -> None:
        super().__init__()
        self._marks = made

    def on_train_begin(self, logs: Any = None) -> None:
        """What the seed made."""
        self._take(None)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """What the step made of it."""
        self._take(batch)

    def _take(self, step: int | None) -> None:
        for group, variables in variables_of(self.model):
            for variable in variables:
                when = "before the first step" if step is None else f"after step {step}"
                place = {"parameter": variable.path, "words": f"{group} variable {variable.path!r} {when}"}
                if step is not None:
                    place["step"] = step
                    place["phase"] = "update"
                self._marks.append((place, _digest(variable.value)))


def _digest(leaf: Any) -> str:
    array = np.ascontiguousarray(keras.ops.convert_to_numpy(leaf) if not isinstance(leaf, np.ndarray) else leaf)
    content = array.tobytes() if array.dtype != object else repr(array.tolist()).encode()
    return hashlib.sha256(f"{array.shape}{array.dtype}".encode() + content).hexdigest()
