"""Recorded facts, and the proof that an experiment gives.

Evidence never judges: it is a kind, a value, the step at which it was seen, or the digest of a file that holds it.
A Proof is an experiment's two curves, with and without the proposed cause.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Evidence:
    """One recorded fact.

    `kind` says what sort of fact it is ("value", "array", "traceback", "source", "curve", "file", …), `name` of what.
    `value` must be JSON-able (numbers, strings, lists, dicts); large arrays go to a file in the run's folder, and
    `file` and `digest` point at it.
    """

    kind: str
    value: Any = None
    name: str = ""
    step: int | None = None
    file: str | None = None
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of a figure: y over x, both as plain floats."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "x", tuple(float(value) for value in self.x))
        object.__setattr__(self, "y", tuple(float(value) for value in self.y))
        if len(self.x) != len(self.y):
            raise ValueError(f"curve {self.name!r}: {len(self.x)} x values against {len(self.y)} y values")


@dataclass(frozen=True, slots=True)
class Proof:
    """What an experiment showed: the symptom with the cause in place, and with only that cause removed.

    `effect` is the share of the symptom that vanished (1.0: healed completely, 0.0: nothing changed), `certainty` the
    share of repetitions that agree, `repeats` how many there were.
    """

    experiment: str
    summary: str
    before: Curve | None = None
    after: Curve | None = None
    effect: float | None = None
    certainty: float | None = None
    repeats: int = 1
    facts: Mapping[str, Any] = field(default_factory=dict)
