"""Experiment trackers as Keras callbacks: TensorBoard through torch's writer, W&B through its own client.

A tracker is a guest. It attaches to a run that is already active and ends only what it started; it writes from rank 0
only; whatever it does wrong becomes a finding and is never seen by the training. A second tracker of the same kind on
one run is `tracker-double-init`: records would go to whichever came last, or to both.
"""

from __future__ import annotations

import functools
import importlib
import os
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import keras
import numpy as np

from tsguard import catalogue
from tsguard.errors import ConfigError, explain
from tsguard.evidence import Evidence
from tsguard.findings import Finding

FAILURES_SHOWN = 1
"""One finding per tracker: a server that is away fails at every epoch, and says the same each time."""


def trackers(wanted: Sequence[Any], folder: Any, *, config: Mapping[str, Any], name: str) -> list[Tracker]:
    """Trackers as `trackers:` in a run.yaml lists them (`kind`, `args`)."""
    made = [_KINDS[one.kind](dict(one.args), folder, config=config, name=name, every=one.every) for one in wanted]
    for number, one in enumerate(made):
        if any(type(one) is type(other) for other in made[:number]):
            one.refused = f"run.yaml lists {one.kind} twice; the second one was left out."
    return made


def findings(callbacks: Sequence[Any]) -> list[Finding]:
    """What the trackers among some callbacks have to say, at the end of a run."""
    return [found for one in callbacks if isinstance(one, Tracker) for found in one.findings()]


def main_process() -> bool:
    """Whether this is the process that writes: rank 0 of several, or the only one."""
    return os.environ.get("RANK", "0") in ("", "0")


def _guest(method: Callable[..., None]) -> Callable[..., None]:
    """A guest's mistakes are kept, and harm nothing."""

    @functools.wraps(method)
    def call(self: Tracker, *args: Any, **kwargs: Any) -> None:
        if self.refused or not main_process():
            return
        try:
            method(self, *args, **kwargs)
        except Exception as error:  # a tracker that fails never stops training
            self.failures.append(error)

    return call


class Tracker(keras.callbacks.Callback):
    """What all trackers share: when they are told, and that they cannot harm."""

    kind: ClassVar[str] = ""

    def __init__(
        self, args: dict[str, Any], folder: Any, *, config: Mapping[str, Any], name: str, every: int = 0
    ) -> None:
        super().__init__()
        self.args, self.folder, self.config, self.name, self.every = args, folder, config, name, every
        self.failures: list[BaseException] = []
        self.refused = ""
        self._open = False

    @_guest
    def on_train_begin(self, logs: Any = None) -> None:
        """Open, or attach to what is open."""
        self.open()
        self._open = True

    @_guest
    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Every number of the epoch's logs."""
        if self._open:
            values = {name: float(value) for name, value in (logs or {}).items() if np.ndim(value) == 0}
            self.record(epoch, values)

    @_guest
    def hear(self, event: Mapping[str, Any]) -> None:
        """What the guard has read of some steps: every so many of them are a point, and no step waits for it."""
        if not self._open or not self.every or event.get("kind") != "steps":
            return
        series = {f"step/{name}": event.get(name) or () for name in ("loss", "grad_norm")}
        for number in range(len(series["step/loss"])):
            step = int(event["first"]) + number
            values = {name: points[number] for name, points in series.items() if number < len(points)}
            told = {name: float(value) for name, value in values.items() if value is not None}
            if step % self.every == 0 and told:
                self.record_step(step, told)

    @_guest
    def on_train_end(self, logs: Any = None) -> None:
        """Close what was opened here."""
        self.finish()

    @_guest
    def finish(self) -> None:
        """Close, once, also after a training that raised and never came to its end."""
        if self._open:
            self._open = False
            self.close()

    def open(self) -> None:
        """Start or attach."""
        raise NotImplementedError

    def record(self, epoch: int, values: Mapping[str, float]) -> None:
        """Write one epoch."""
        raise NotImplementedError

    def record_step(self, step: int, values: Mapping[str, float]) -> None:
        """Write one step."""
        raise NotImplementedError

    def close(self) -> None:
        """Finish what was started here, and nothing else."""
        raise NotImplementedError

    def findings(self) -> list[Finding]:
        """A double initialisation, and the first failure with its traceback."""
        found = []
        if self.refused:
            found.append(catalogue.finding("tracker-double-init", self.refused, check=f"tracker {self.kind}"))
        for error in self.failures[:FAILURES_SHOWN]:
            found.append(
                catalogue.finding(
                    "child-failed",
                    f"the tracker {self.kind} failed {len(self.failures)} times, first with {type(error).__name__}: "
                    f"{error}. Training went on without it.",
                    status="WARN",
                    role="note",
                    evidence=[Evidence("traceback", "".join(traceback.format_exception(error)))],
                    remedy="The run's own events.jsonl holds every number; mend the tracker for the next run.",
                    check=f"tracker {self.kind}",
                )
            )
        return found


class TensorBoard(Tracker):
    """Scalars of every epoch, and histograms of the weights where asked for (`args: {histograms: true}`)."""

    kind = "tensorboard"

    def open(self) -> None:
        """torch's own writer: Keras' needs another framework."""
        module = _module("torch.utils.tensorboard", "tensorboard")
        # torch's writer makes its folder itself; it lies inside the run's unless the user names another.
        place = self.args.get("log_dir") or str(self.folder.file("tensorboard"))
        self._writer = module.SummaryWriter(log_dir=place)

    def record(self, epoch: int, values: Mapping[str, float]) -> None:
        """One point per number."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, epoch)
        if self.args.get("histograms"):
            for variable in self.model.trainable_variables:
                self._writer.add_histogram(variable.path, variable.value.detach().cpu(), epoch)

    def record_step(self, step: int, values: Mapping[str, float]) -> None:
        """One point per number."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """The writer is always ours."""
        self._writer.close()


class WandB(Tracker):
    """Weights & Biases; `args` go to its `init` (`mode: offline` needs no account)."""

    kind = "wandb"

    def open(self) -> None:
        """The run that is active, or one of our own."""
        client = _module("wandb", "wandb")
        self._run, self._ours = client.run, client.run is None
        if not self._ours:
            asked, active = self.args.get("project"), getattr(self._run, "project", None)
            if asked and active and asked != active:
                self.refused = (
                    f"run.yaml starts a W&B run in project {asked!r}, and the script has started one in {active!r}. "
                    "Nothing was written to either from here."
                )
        else:
            given = {"name": self.name, "dir": str(self.folder.path), "config": dict(self.config), **self.args}
            self._run = client.init(**given)

    def record(self, epoch: int, values: Mapping[str, float]) -> None:
        """One row an epoch."""
        self._run.log({**values, "epoch": epoch})

    def record_step(self, step: int, values: Mapping[str, float]) -> None:
        """One row a step."""
        self._run.log({**values, "step": step})

    def close(self) -> None:
        """An attached run belongs to whoever started it."""
        if self._ours:
            self._run.finish()


_KINDS: dict[str, type[Tracker]] = {"tensorboard": TensorBoard, "wandb": WandB}


def _module(name: str, package: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as missing:
        raise ConfigError(
            explain(
                f"trackers.{package}",
                received=f"no module {missing.name!r}",
                expected=f"the package {package}",
                todo=f"pip install 'tsguard[{package}]'",
            )
        ) from missing
