"""`Guard`: the callback that watches a `fit`, and `watching` for loops of one's own.

    guard = Guard()
    model.fit(x, y, callbacks=[guard])      # afterwards guard.report, guard.run, guard.outcome

The callback itself only ties the parts together and to Keras' events. Whatever goes wrong in here becomes an ERROR
finding;
training does not notice.
"""

from __future__ import annotations

import contextlib
import functools
import inspect as introspection
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tsguard import catalogue
from tsguard.backend import require_torch, restore_rng, rng_state
from tsguard.errors import TsguardError
from tsguard.findings import Finding, Role, Status, ranked
from tsguard.guard import answer, verdicts
from tsguard.guard.outcome import GuardOutcome
from tsguard.guard.recovery import BUDGET, checked_policy
from tsguard.guard.replay import Replay
from tsguard.guard.seam import GuardStop
from tsguard.guard.watcher import Watcher
from tsguard.report import Provenance, Report, Run, Series
from tsguard.store import Journal, RunFolder

Finisher = Callable[[GuardOutcome], Any]


def _quietly(method: Callable[..., Any]) -> Callable[..., Any]:
    """Our own mistakes stay ours."""

    @functools.wraps(method)
    def call(self: Guard, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except (GuardStop, TsguardError):
            raise
        except Exception as error:
            self._crashed(error, method.__name__)
            return None

    return call


class Guard(keras.callbacks.Callback):
    """Watches training at no measurable cost; when something breaks, goes back and finds the first broken operation.

    Args:
        policy: What to do when training meets a value that is not finite: "stop" (end training with the last clean
            weights, raise nothing), "raise", "skip" (that batch) or "rollback" (to the last clean state).
        sync_every: Steps between two reads of the device and two clean states; "auto" is about a quarter of a second.
        inspect: Steps that are looked into from inside even though nothing is wrong.
        out: Folder in which the run's own folder is made; None writes nothing.
        diagnose: Whether finishers may experiment (the door's diagnosis).
        repro: Whether a reproduction is made: "auto" where something failed.
        budget_s: Seconds that finishers may take.
        finishers: Called with the GuardOutcome when the run is over, in order; may add findings to it.
        max_recoveries: How often skip and rollback go on.
        name: Name of the run.
    """

    def __init__(
        self,
        policy: str = "stop",
        sync_every: int | str = "auto",
        inspect: Sequence[int] = (),
        out: str | Path | None = "reports",
        diagnose: bool = True,  # noqa: FBT001, FBT002 - the public contract
        repro: str | bool = "auto",  # noqa: FBT001
        budget_s: float = 60,
        *,
        finishers: Sequence[Finisher] = (),
        max_recoveries: int = BUDGET,
        name: str = "fit",
    ) -> None:
        require_torch()
        super().__init__()
        self.policy = checked_policy(policy)
        self.sync_every = _checked_sync(sync_every)
        self.inspect = (inspect,) if isinstance(inspect, int) else tuple(inspect)
        self.out, self.diagnose, self.repro, self.budget_s = out, diagnose, repro, budget_s
        self.finishers = tuple(finishers)
        self.max_recoveries = max_recoveries
        self.name = name
        self.outcome: GuardOutcome | None = None
        self.folder: RunFolder | None = None
        self._report: Report | None = None
        self._watcher: Watcher | None = None
        self._journal: Journal | None = None
        self._errors: list[Finding] = []
        self._logs: dict[str, list[float]] = {}
        self._log_epochs: dict[str, list[int]] = {}
        self.first_step = 0
        """Steps that the run had made before: set by who resumes it, so that a step has one number in all of it."""
        self._started = 0.0
        self._start_time = ""
        self._validation: tuple[Any, Any] | None = None
        self._epochs = 0

    # -- what is there afterwards ---------------------------------------------------------------------------------

    @property
    def report(self) -> Report | None:
        """The Report of the run. After a fit that died it holds what was known then."""
        if self._report is None and self._watcher is not None:
            self._finish()
        return self._report

    @report.setter
    def report(self, report: Report | None) -> None:
        self._report = report

    @property
    def run(self) -> Run | None:
        """The run and its folder, where one was written."""
        return self.folder.run if self.folder is not None else None

    @property
    def state(self) -> str:
        """In a few words, what was seen so far: for who follows the run."""
        watcher = self._watcher
        if watcher is None or self._errors:
            return "guard: not watching"
        if not watcher.trips:
            return "guard: clean"
        last = watcher.trips[-1]
        again = f", {watcher.recoveries} recoveries" if watcher.recoveries else ""
        return f"guard: {'stopped, ' if watcher.stopped else ''}{last.code} at step {last.step}{again}"

    @property
    def stopped(self) -> bool:
        """Whether training was stopped: what a loop of one's own asks."""
        return self._watcher is not None and self._watcher.stopped

    # -- Keras' events --------------------------------------------------------------------------------------------

    @_quietly
    def on_train_begin(self, logs: Any = None) -> None:
        """Open the run's folder and take the seam."""
        adapter, validation = from_fit(self.model)
        self._begin(self.model, adapter=adapter, validation=validation)
        if self._watcher is not None:
            self._watcher.seam.arm()

    @_quietly
    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Count the epoch."""
        if self._watcher is not None:
            self._watcher.epoch, self._watcher.batch = epoch, 0
            self._watcher._ended = None

    @_quietly
    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Announce the step to the seam."""
        if self._watcher is not None:
            self._watcher.batch = batch
            self._watcher.seam.announce()

    @_quietly
    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Read what is pending, keep the epoch's logs, and make sure that nothing poisoned is saved now."""
        watcher = self._watcher
        if watcher is None:
            return
        self._epochs = epoch + 1
        for name, value in (logs or {}).items():
            if isinstance(value, (int, float, np.floating)):
                self._logs.setdefault(name, []).append(float(value))
                self._log_epochs.setdefault(name, []).append(epoch)
        watcher.note(
            {
                "kind": "epoch",
                "epoch": epoch,
                "logs": {k: v[-1] for k, v in self._logs.items() if self._log_epochs[k][-1] == epoch},
            }
        )
        watcher.check_weights()

    @_quietly
    def on_train_end(self, logs: Any = None) -> None:
        """The run is over: let go of the model, answer."""
        if self._watcher is not None:
            self._watcher.seam.disarm()
            self._finish()

    @contextlib.contextmanager
    def watching(self, model: Any) -> Iterator[Guard]:
        """Watch `train_on_batch` and loops of one's own.

        Steps through `train_on_batch` are recorded and can be replayed. In a loop written by hand the update is watched
        (and left out where gradients are not finite), but there is no step to replay.
        """
        self._begin(model, adapter=None, validation=None)
        watcher = self._watcher
        assert watcher is not None
        watcher.seam.arm(free_running=True)
        try:
            yield self
        finally:
            watcher.seam.disarm()
            _quietly(Guard._finish)(self)

    # -- beginning and end ----------------------------------------------------------------------------------------

    def _begin(self, model: Any, *, adapter: Any, validation: tuple[Any, Any] | None) -> None:
        self._report, self.outcome, self._errors, self._logs, self._log_epochs = None, None, [], {}, {}
        self._validation = validation
        self._started, self._start_time = time.perf_counter(), datetime.now(UTC).isoformat(timespec="seconds")
        if self.out is not None:
            self.folder = RunFolder.create(self.out, self.name)
            self._journal = self.folder.journal()
        self._watcher = Watcher(
            model,
            policy=self.policy,
            sync_every=self.sync_every,
            inspect_steps=self.inspect,
            copies=type(adapter).__name__ != "ArrayDataAdapter",
            adapter=adapter,
            budget=self.max_recoveries,
            first_step=self.first_step,
            note=self._note,
        )
        self._note({"kind": "begin", "time": self._start_time, "policy": self.policy, "model": model.name})

    def _note(self, event: dict[str, Any]) -> None:
        if self._journal is not None:
            try:
                self._journal.append(event)
            except (OSError, ValueError):  # a full disk: the run goes on, the events stop
                self._journal = None

    def _crashed(self, error: Exception, doing: str) -> None:
        self._errors.append(answer.crash(error, doing))
        if self._watcher is not None:
            self._watcher.seam.disarm()

    def _finish(self) -> None:
        watcher = self._watcher
        if watcher is None or self._report is not None:
            return
        rng = rng_state()
        try:
            self._close(watcher)
        except GuardStop:
            raise
        except Exception as error:
            self._crashed(error, "finishing the report")
        finally:
            restore_rng(rng)
        outcome = self.outcome = self._outcome(watcher)
        for finisher in self.finishers:
            try:
                finisher(outcome)
            except Exception as error:
                outcome.findings.append(answer.crash(error, f"calling {getattr(finisher, '__name__', finisher)}"))
        self._report = self._made(outcome)
        self._note({"kind": "end", "steps": outcome.steps, "stopped": outcome.stopped})
        if self._journal is not None:
            self._journal.close()
            self._journal = None
        if self.folder is not None:
            with contextlib.suppress(OSError):
                self.folder.save_report(self._report)

    def _close(self, watcher: Watcher) -> None:
        watcher.check_weights()
        watcher.findings += list(verdicts.at_end(watcher, self._logs))
        watcher.findings += verdicts.validation_fault(self._logs, self._validation, watcher.step)
        watcher.findings += verdicts.collapse(watcher, self._validation)

    def _outcome(self, watcher: Watcher) -> GuardOutcome:
        findings = [*watcher.findings, *self._errors]
        if watcher.watched and not any(f.status >= Status.FAIL for f in findings):
            findings.append(
                catalogue.finding(
                    "nonfinite-loss",
                    f"{watcher.watched} steps were watched: every loss, gradient and weight was finite.",
                    status=Status.PASS,
                    role=Role.NOTE,
                    remedy="",
                    check="guard",
                )
                if not watcher.recoveries
                else _survived(watcher)
            )
        series = dict(watcher.watch.series)
        for name, values in self._logs.items():
            series[f"epoch/{name}"] = list(zip(self._log_epochs[name], values, strict=True))
        clean = watcher.recorder.clean
        replay = watcher.replay
        if replay is None and watcher.recorder.ready and clean is not None and clean.fits():
            replay = Replay(watcher.model, clean, watcher.recorder.records, first_step=watcher.recorder.clean_step)
        return GuardOutcome(
            model=watcher.model,
            findings=list(ranked(findings)),
            series=series,
            metrics=self._metrics(watcher),
            trip=next((trip for trip in watcher.trips if trip.nonfinite), watcher.trips[0] if watcher.trips else None),
            origin=watcher.origins[0] if watcher.origins else None,
            trips=list(watcher.trips),
            replay=replay,
            steps=watcher.watched,
            epochs=self._epochs,
            policy=self.policy,
            stopped=watcher.stopped,
            recoveries=watcher.recoveries,
            data=watcher.adapter,
            folder=self.folder.path if self.folder is not None else None,
            facts=self._facts(watcher),
        )

    def _facts(self, watcher: Watcher) -> dict[str, Any]:
        verdict = watcher.verdict
        return {
            "diagnose": self.diagnose,
            "repro": self.repro,
            "budget_s": self.budget_s,
            "binding": verdict.binding if verdict is not None else None,
            "weight_growth": verdict.weight_growth if verdict is not None else None,
            "answer_seconds": watcher.answer_seconds,
            "recorder_note": watcher.recorder.note,
            "recorder_budget": watcher.recorder.budget,
        }

    def _metrics(self, watcher: Watcher) -> dict[str, float]:
        seconds = time.perf_counter() - self._started
        found = {"duration_min": seconds / 60, "steps_per_s": watcher.watched / seconds if seconds > 0 else 0.0}
        if watcher.watch.data_wait_share is not None:
            found["data_wait_share"] = watcher.watch.data_wait_share
        for name in ("loss", "val_loss"):
            if self._logs.get(name):
                found[name] = self._logs[name][-1]
        losses = [value for value in watcher.watch.values("loss") if np.isfinite(value)]
        if losses and ("loss" not in found or found["loss"] == 0.0 < min(losses)):
            # Keras logs 0 where an own train_step leaves the compiled loss tracker untouched.
            found["loss"] = losses[-1]
        found["peak_mb"] = _peak_mb()
        found["gpu_used"] = 0.0 if watcher.on_cpu else 1.0
        return found

    def _made(self, outcome: GuardOutcome) -> Report:
        series = {
            name: Series(
                tuple(value for _, value in points),
                tuple(float(at) for at, _ in points),
                "epoch" if name.startswith("epoch/") else "step",
            )
            for name, points in outcome.series.items()
        }
        return Report(
            kind="train",
            name=self.name,
            findings=tuple(outcome.findings),
            metrics=outcome.metrics,
            series=series,
            provenance=Provenance(
                command="Guard", started=self._start_time, ended=datetime.now(UTC).isoformat(timespec="seconds")
            ),
            run=self.run,
        )


def _survived(watcher: Watcher) -> Finding:
    return catalogue.finding(
        "nonfinite-loss",
        f"{watcher.watched} steps were watched; {watcher.recoveries} of them were not finite and were left out by "
        f"policy {watcher.policy!r}. User callbacks were not rewound.",
        status=Status.WARN,
        role=Role.NOTE,
        check="guard",
    )


def _checked_sync(sync_every: int | str) -> int | str:
    if sync_every == "auto" or (isinstance(sync_every, int) and not isinstance(sync_every, bool) and sync_every > 0):
        return sync_every
    from tsguard.errors import ConfigError, explain

    raise ConfigError(
        explain(
            "Guard(sync_every=…)",
            received=repr(sync_every),
            expected='"auto" or a number of steps from 1',
            todo='Leave it out: "auto" reads the device about four times a second.',
        )
    )


def from_fit(model: Any) -> tuple[Any, tuple[Any, Any] | None]:
    """The data adapter and the validation arrays of the `fit` that is calling, read from its frame.

    Keras hands neither to callbacks. Nothing depends on them: without, batches are copied and rows stay unknown.
    """
    frame = introspection.currentframe()
    while frame is not None:
        if frame.f_code.co_name == "fit" and frame.f_locals.get("self") is model and "epoch_iterator" in frame.f_locals:
            iterator = frame.f_locals["epoch_iterator"]
            x, y = frame.f_locals.get("val_x"), frame.f_locals.get("val_y")
            return getattr(iterator, "data_adapter", None), (None if x is None else (x, y))
        frame = frame.f_back
    return None, None


def _peak_mb() -> float:
    import torch

    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return float(torch.cuda.max_memory_allocated() / 1e6)
    try:
        import resource
    except ImportError:  # not on every platform
        return 0.0
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)
