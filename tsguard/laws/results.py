"""What a law answers: a counterexample with both of its batches, or the reason why there is none.

A counterexample is complete in itself: its words, the two batches, and the source of a pytest test that fails for as
long as the law is broken.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tsguard.evidence import Evidence

Outcome = Literal["holds", "broken", "not-applicable", "crashed"]

SMALL_ARRAY = 512
"""Arrays of up to this many numbers are written out in evidence and in tests; larger ones are told by shape and
digest."""


VALID = "valid"
"""The leaf beside a batch in evidence that says which of its steps are valid, so that a reader sees what is padded."""


@dataclass(frozen=True)
class Counterexample:
    """The smallest batch found that breaks a law."""

    law: str
    code: str
    words: str
    """One sentence that a person reads at once."""
    before: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    after: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    moved: float = 0.0
    tolerance: float = 0.0
    where: Mapping[str, Any] = field(default_factory=dict)
    grave: bool = True
    """Whether it can happen with the data at hand; what can only happen with other data is a warning."""
    remedy: str = ""
    test: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    valid: tuple[NDArray[np.bool_] | None, NDArray[np.bool_] | None] = (None, None)
    """Which steps of both batches are valid, where the model was asked."""
    size: tuple[int, ...] = ()
    """What "smaller" means: samples, steps, valid steps, then how plain the values are."""

    @property
    def layer(self) -> str | None:
        """The layer at fault, where one was found."""
        return self.where.get("layer")

    def evidence(self) -> tuple[Evidence, ...]:
        """Both batches, the distance, and the test."""
        rows = [
            Evidence("batch", _written(batch if valid is None else {VALID: valid, **batch}), side)
            for (side, batch), valid in zip(self._sides(), self.valid, strict=True)
            if batch
        ]
        rows.append(Evidence("value", {"moved": self.moved, "tolerance": self.tolerance, **self.facts}, "distance"))
        if self.test:
            rows.append(Evidence("source", self.test, "pytest"))
        return tuple(rows)

    def _sides(self) -> tuple[tuple[str, Mapping[str, NDArray[Any]]], ...]:
        return (("before", self.before), ("after", self.after))


def _written(batch: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    return {name: written_array(np.asarray(array)) for name, array in batch.items()}


def written_array(array: NDArray[Any]) -> dict[str, Any]:
    """An array as JSON: its numbers if they are few, otherwise what identifies them."""
    facts: dict[str, Any] = {"shape": list(array.shape), "dtype": str(array.dtype)}
    if array.size <= SMALL_ARRAY:
        return {**facts, "values": array.tolist()}
    return {**facts, "sha256": hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()}


@dataclass(frozen=True)
class LawResult:
    """How the search for a counterexample to one law ended."""

    law: str
    code: str
    outcome: Outcome
    reason: str = ""
    counterexample: Counterexample | None = None
    examples: int = 0
    seconds: float = 0.0
