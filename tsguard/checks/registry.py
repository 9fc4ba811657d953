"""The table of checks, and how one is declared.

A check is a function from a Context to findings. It says which codes it can answer, what it needs in order to be asked,
and what it costs, so that a session can spend little before much and name what it could not ask and why. Checks of a
user's own project register through the entry point group `tsguard.checks`.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from tsguard.dataset import Data, length_of
from tsguard.findings import Finding
from tsguard.padding import Padding
from tsguard.subject import Subject

NEEDS = ("model", "data", "arrays", "y", "validation", "padding", "declared")
"""What a check may need: the model; any data; data held as arrays; targets; validation data; a Padding; a plan."""


@dataclass
class Context:
    """What a check is asked about. The runner holds the model preserved while a check is asked."""

    subject: Subject | None = None
    data: Data | None = None
    padding: Padding | None = None
    declared: Mapping[str, Any] = field(default_factory=dict)
    """The plan: samples, batches_per_epoch, duration_min, artifact_mb, … as declared by the user."""
    budget_s: float = 60.0
    """What is left of the time budget when the check starts."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What earlier checks measured and later ones may reuse (baselines, throughput, figures for the page)."""
    _model: Any = None

    @property
    def model(self) -> Any:
        """The model, built once for all checks."""
        if self._model is None and self.subject is not None:
            self._model = self.subject.model()
        return self._model

    @property
    def fit(self) -> Mapping[str, Any]:
        """What `fit` will be called with, as far as it is known: epochs, batch_size, shuffle, class_weight …"""
        known: Mapping[str, Any] = self.facts.get("fit") or {}
        return known

    @property
    def batch_size(self) -> int:
        """Samples in a batch: as `fit` is told, else as the data is."""
        return int(self.fit.get("batch_size") or (32 if self.data is None else self.data.batch_size))

    @property
    def training_rows(self) -> int | None:
        """Samples that are trained on. How many a loader holds is known when all have been read."""
        if self.data is None or not self.data.is_arrays:
            return None
        share = 0.0 if self.data.validation is not None else float(self.fit.get("validation_split") or 0.0)
        return math.floor(len(self.data) * (1.0 - share))

    @property
    def batches_per_epoch(self) -> int | None:
        """Updates of an epoch, where the amount of data is known."""
        if told := self.fit.get("steps_per_epoch"):
            return int(told)
        rows = self.training_rows
        if rows is not None:
            return -(-rows // self.batch_size)
        return None if self.data is None else length_of(self.data.x)

    @property
    def planned_steps(self) -> int | None:
        """Updates that the run will make, where epochs and the amount of data are known."""
        epochs, batches = self.fit.get("epochs"), self.batches_per_epoch
        return None if epochs is None or batches is None else int(epochs) * batches

    @property
    def plan(self) -> dict[str, Any]:
        """What was declared, for a report to hold: numbers and words; models and arrays are named by their kind."""

        def told(value: Any) -> Any:
            plain = value is None or isinstance(value, int | float | str)
            if plain or (isinstance(value, list | tuple) and all(isinstance(one, int | float | str) for one in value)):
                return value
            return type(value).__name__

        return {key: told(value) for key, value in self.declared.items()}

    def missing(self, needs: Iterable[str]) -> list[str]:
        """What is needed and not there, in words."""
        data = self.data
        words = {
            "model": (self.subject is None, "no model was given"),
            "data": (data is None or data.x is None, "no data was given"),
            "arrays": (data is None or not data.is_arrays, "the data is not held in arrays"),
            "y": (data is None or (data.is_arrays and data.y is None), "no targets were given"),
            "validation": (data is None or data.validation is None, "no validation data was given"),
            "padding": (self.padding is None, "no tsguard.Padding was given"),
            "declared": (not self.declared, "nothing was declared in `plan`"),
        }
        return [words[need][1] for need in needs if words[need][0]]


@dataclass(frozen=True, slots=True)
class Check:
    """A named question. `cost` orders the asking: 0 reads a few numbers, 9 trains a model."""

    name: str
    codes: tuple[str, ...]
    ask: Callable[[Context], Iterable[Finding]]
    needs: tuple[str, ...] = ()
    cost: int = 1


_CHECKS: dict[str, Check] = {}

MODULES = (
    *("step", "data", "laws"),
    *("wiring", "transfer", "initialisation", "signal", "regularisation", "embedding", "axes", "normalisation"),
    *("precision", "broken_start", "repeatable", "narrow", "read_on"),
    *("outputs", "blind", "crossed", "unheard", "blind_metric", "selection", "hidden", "terms", "lopsided"),
    *("indifferent", "discouraged", "outweigh", "beyond", "agreement", "copied", "carried", "cut"),
    *("order", "orderless", "unseen", "unreached", "schedules", "rates", "callbacks", "plan", "accumulation"),
)
"""Modules of tsguard.checks that declare checks; imported when the table is first read."""


def check(
    name: str, *, codes: tuple[str, ...], needs: tuple[str, ...] = (), cost: int = 1
) -> Callable[[Callable[[Context], Iterable[Finding]]], Callable[[Context], Iterable[Finding]]]:
    """Declare a check. The name is a noun phrase for what could be wrong ("dead units")."""
    unknown = set(needs) - set(NEEDS)
    if unknown:
        raise ValueError(f"check {name!r} needs {sorted(unknown)}; what a check may need is {NEEDS}")

    def declare(ask: Callable[[Context], Iterable[Finding]]) -> Callable[[Context], Iterable[Finding]]:
        if name in _CHECKS and _CHECKS[name].ask is not ask:
            raise ValueError(f"two checks are called {name!r}; rename one")
        _CHECKS[name] = Check(name, codes, ask, needs, cost)
        return ask

    return declare


def all_checks() -> tuple[Check, ...]:
    """Every check, ours and those of installed projects, cheapest first."""
    for module in MODULES:
        full = f"tsguard.checks.{module}"
        if importlib.util.find_spec(full) is not None:
            importlib.import_module(full)
    for entry in metadata.entry_points(group="tsguard.checks"):
        entry.load()
    return tuple(sorted(_CHECKS.values(), key=lambda one: one.cost))
