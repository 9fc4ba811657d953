"""What the model answered after 1, 5, 10, 20 … epochs: pictures for the page.

One forward pass over a few hundred rows at a handful of epochs, with everything put back (`preserved`), so that the run
goes on bit for bit as if nobody had asked. Time is rationed: where the passes would cost more than a small share of the
training, later ones wait.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tsguard.backend import preserved
from tsguard.dataset import Data
from tsguard.probes.answers import heads, question
from tsguard.probes.idle import idle_units
from tsguard.probes.predictions import classes_of
from tsguard.probes.score import of_output, sample
from tsguard.probes.stage import Batch

ROWS = 256
"""Rows that are asked: a histogram of forty bins needs no more."""

BINS = 40

CLASSES_MAX = 24
"""Classes whose answers are counted; more are no picture."""

NOTE_MAX = 400
"""Characters of an error's message on the page."""

TIME_SHARE = 0.01
"""Share of the time of the training that pictures may take …"""

TIME_FREE_S = 0.25
"""… and what they may take in any case, in seconds: less than anyone waits for."""


def chosen_epochs() -> Iterator[int]:
    """1, 5, 10, 20, 50, 100, 200, 500 …: most of what changes changes early."""
    yield from (1, 5)
    for power in itertools.count(1):
        yield from (10**power, 2 * 10**power, 5 * 10**power)


@dataclass
class Snapshots:
    """Takes the pictures of one run and keeps them, a few kilobytes in all."""

    clock: Callable[[], float] = time.perf_counter
    taken: list[dict[str, Any]] = field(default_factory=list)
    note: str = ""
    """Why there are none, where asking failed."""

    def __post_init__(self) -> None:
        self._began = self.clock()
        self._spent = self._last = 0.0
        self._chosen = chosen_epochs()
        self._next = next(self._chosen)
        self._batch: Batch | None = None
        self._edges: list[float] | None = None

    def after(self, model: Any, epoch: int, data: Callable[[], Data | None], *, last: bool = False) -> None:
        """An epoch is over (`epoch` counts from 0). Take a picture if it is one of the chosen, or the last."""
        done = epoch + 1
        if self.note or (self.taken and self.taken[-1]["epochs"] >= done) or (done < self._next and not last):
            return
        begun = self.clock()
        allowed = max(TIME_FREE_S, TIME_SHARE * (begun - self._began))
        if not last and self.taken and self._spent + self._last > allowed:
            return
        try:
            self._take(model, done, data)
        except Exception as refused:  # a model may answer in its own way or not at all; the run is none the worse
            words = re.sub(r"\x1b\[[0-9;]*m", "", str(refused))  # Keras colours parts of its messages
            self.note = " ".join(f"{type(refused).__name__}: {words}".split())[:NOTE_MAX]
        self._last = self.clock() - begun
        self._spent += self._last
        while self._next <= done:
            self._next = next(self._chosen)

    def _take(self, model: Any, done: int, data: Callable[[], Data | None]) -> None:
        if self._batch is None:
            source = data()
            self._batch = None if source is None else sample(source, ROWS)
        if self._batch is None:
            return
        with preserved(model):
            answer, idle = idle_units(model, self._batch.x)
        first = next((one for one in heads(model, self._batch, answer) if one.target is not None), None)
        if first is None:
            return
        metrics, kind = of_output(first, first.target)
        found: dict[str, Any] = {"epochs": done, "output": first.name, "metrics": metrics, "idle": idle}
        predicted = first.answer.detach().float().cpu().numpy()
        true = first.target.detach().cpu().numpy()
        if kind == "classes":
            logits = first.loss is not None and question(first.loss).from_logits
            # Several labels at once have no one class that is answered.
            found.update(_counted(predicted, true, logits=logits) if "most_answered" in metrics else {})
        elif predicted.size == true.size:
            found.update(self._binned(predicted, true))
        self.taken.append(found)

    def _binned(self, predicted: Any, true: Any) -> dict[str, Any]:
        """Counts in bins that stay the same over the run: half as far again as the targets reach, on either side."""
        true, predicted = true.astype("float64").reshape(-1), predicted.astype("float64").reshape(-1)
        if self._edges is None:
            held = true[np.isfinite(true)]
            if not len(held):
                return {}
            low, high = float(held.min()), float(held.max())
            reach = (high - low) or max(abs(high), 1.0)
            self._edges = np.linspace(low - reach / 2, high + reach / 2, BINS + 1).tolist()
        ends = np.asarray(self._edges)

        def counts(values: Any) -> list[int]:
            finite = values[np.isfinite(values)]
            return [int(n) for n in np.histogram(np.clip(finite, ends[0], ends[-1]), bins=ends)[0]]

        outside = float(np.mean(~((predicted >= ends[0]) & (predicted <= ends[-1]))))
        return {"edges": self._edges, "predicted": counts(predicted), "true": counts(true), "outside": outside}

    @property
    def figures(self) -> dict[str, Any]:
        """For `Report.figures`."""
        if self.note:
            return {"snapshots_note": self.note}
        return {"snapshots": self.taken} if self.taken else {}


def _counted(predicted: Any, true: Any, *, logits: bool) -> dict[str, Any]:
    """How often each class was answered, and how often it was right to."""
    chosen, wanted = classes_of(predicted, true, from_logits=logits)
    names = np.unique(np.concatenate([wanted, chosen]))
    if len(chosen) != len(wanted) or len(names) > CLASSES_MAX:
        return {}
    return {
        "classes": [int(name) for name in names],
        "predicted": [int((chosen == name).sum()) for name in names],
        "true": [int((wanted == name).sum()) for name in names],
    }
