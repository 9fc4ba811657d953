"""`Guard`: the callback that watches a `fit`, and `watching` for loops of one's own.

    guard = Guard()
    model.fit(x, y, callbacks=[guard])      # afterwards guard.report, guard.run, guard.outcome

The callback itself only ties the parts together and to Keras' events. Whatever goes wrong in here becomes an ERROR
finding; training does not notice.
"""

from __future__ import annotations

import contextlib
import functools
import inspect as introspection
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tsguard.backend import require_torch, restore_rng, rng_state
from tsguard.errors import TsguardError
from tsguard.findings import Finding
from tsguard.guard import answer, captures, closing, fitcall, verdicts
from tsguard.guard.activations import Wanted
from tsguard.guard.arguments import checked_budget, checked_repro, checked_steps, checked_sync
from tsguard.guard.farewell import Farewell
from tsguard.guard.loose import LooseCalls
from tsguard.guard.names import Names, checked_names
from tsguard.guard.outcome import GuardOutcome
from tsguard.guard.recovery import BUDGET, checked_policy
from tsguard.guard.seam import GuardStop
from tsguard.guard.stall import STALL_SECONDS, Stall, StallWatch
from tsguard.guard.watcher import Watcher
from tsguard.report import Provenance, Report, Run, fields_of
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
        inspect: Steps that are looked into from inside even though nothing is wrong. out: Folder in which the run's own
        folder is made; None writes nothing. diagnose: Whether finishers may experiment (the door's diagnosis). repro:
        Whether a reproduction is made: "auto" where something failed. budget_s: Seconds that finishers may take.
        finishers: Called with the GuardOutcome when the run is over, in order; may add findings to it. max_recoveries:
        How often skip and rollback go on. name: Name of the run. activations: Layers whose outputs are summed up once a
        window (names or paths, or True for all). names: Names of the features: a list, or a dict from an input's name
        to such a list. A frame brings its own. ids: One id for every row of the data set. A frame's index is taken by
        itself. stall_s: Seconds without a step after which training counts as standing still; None does not watch for
        it.
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
        activations: Wanted = False,
        names: Any = None,
        ids: Sequence[Any] | None = None,
        stall_s: float | None = STALL_SECONDS,
    ) -> None:
        require_torch()
        super().__init__()
        self.policy = checked_policy(policy)
        self.sync_every = checked_sync(sync_every)
        self.inspect = checked_steps(inspect)
        self.out, self.diagnose, self.repro, self.budget_s = (
            out,
            diagnose,
            checked_repro(repro),
            checked_budget(budget_s),
        )
        self.finishers = tuple(finishers)
        self.max_recoveries = max_recoveries
        self.name = name
        self.activations, self.names, self.ids, self.stall_s = activations, names, ids, stall_s
        checked_names(names)
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
        self._interrupted = False
        self._start_time = ""
        self._validation: tuple[Any, Any] | None = None
        self._epochs = 0
        self._farewell: Farewell | None = None
        self._stalls: StallWatch | None = None
        self._found: list[Finding] = []
        self._noting = threading.Lock()
        self.listeners: list[Callable[[dict[str, Any]], None]] = []
        """Who is told every event that is noted; they must not raise."""
        self._looping = False

    # -- what is there afterwards ---------------------------------------------------------------------------------

    @property
    def report(self) -> Report | None:
        """The Report of the run, None while it goes on. After a fit that died it holds what was known then."""
        if self._report is None and self._watcher is not None and not self._watched_now():
            self._watcher.seam.disarm()
            self._finish()
        return self._report

    @report.setter
    def report(self, report: Report | None) -> None:
        self._report = report

    def _watched_now(self) -> bool:
        """Whether the run goes on: its fit is among the callers, or its loop has not been left and not been stopped."""
        watcher = self._watcher
        if watcher is None or (self._looping and watcher.stopped):
            return False
        return self._looping or fitcall.running(watcher.model, introspection.currentframe())

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
        call = fitcall.reading(self.model)
        if any(isinstance(other, Guard) and other is not self for other in call.after(self)):
            self._stand_aside()
            return
        self._begin(self.model, adapter=call.adapter, validation=call.validation)
        if self._watcher is not None:
            self._watcher.callbacks = call.callbacks
            if self._stalls is not None:
                self._stalls.alive = functools.partial(fitcall.running, self.model)
            self._watcher.seam.arm()

    @_quietly
    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Count the epoch."""
        if self._watcher is not None:
            self._watcher.epoch, self._watcher.batch = epoch, 0
            self._watcher._ended = None
            self._tick("the data of the first batch")

    @_quietly
    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Announce the step to the seam."""
        if self._watcher is not None:
            if self._farewell is not None and self._farewell.asked:
                self._farewell.leave()
            self._watcher.batch = batch
            self._watcher.seam.announce()
            self._tick("the step")

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Validation goes on."""
        self._tick("validation", between=True)

    @_quietly
    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Read what is pending, keep the epoch's logs, and make sure that nothing poisoned is saved now."""
        watcher = self._watcher
        if watcher is None:
            return
        self._epochs = epoch + 1
        self._tick("the end of the epoch", between=True)
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
        watcher.leave = self._leave
        watcher.seam.arm(free_running=True)
        watcher.loose = LooseCalls(model)
        watcher.loose.arm()
        self._looping = True
        try:
            yield self
        finally:
            self._looping = False
            watcher.loose.disarm()
            watcher.seam.disarm()
            _quietly(Guard._finish)(self)

    # -- beginning and end ----------------------------------------------------------------------------------------

    def _begin(self, model: Any, *, adapter: Any, validation: tuple[Any, Any] | None) -> None:
        self._report, self.outcome, self._errors, self._found = None, None, [], []
        self._logs, self._log_epochs = {}, {}
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
            activations=self.activations,
            names=Names(self.names, self.ids),
        )
        if self.folder is not None:
            with contextlib.suppress(OSError):
                captures.expire(self.folder.path.parent, now=time.time())
        if self._journal is not None:
            self._farewell = Farewell(_weakly(self, "_last_words"))
            self._farewell.arm()
        # Not in `on_train_batch_end`: a callback that has one makes Keras read the logs on the host in every step.
        self._watcher.done = functools.partial(self._tick, "the next batch, or a callback")
        self._stalls = StallWatch(self.stall_s, self._stalled)
        self._note({"kind": "begin", "time": self._start_time, "policy": self.policy, "model": model.name})

    def _note(self, event: dict[str, Any]) -> None:
        for hear in self.listeners:
            hear(event)
        with self._noting:
            if self._journal is None:
                return
            try:
                self._journal.append(event)
            except TypeError:  # evidence that no JSON can hold
                self._journal.append({key: value for key, value in event.items() if key != "finding"})
            except (OSError, ValueError):  # a full disk: the run goes on, the events stop
                self._journal = None

    def _tick(self, place: str, *, between: bool = False) -> None:
        watcher, stalls = self._watcher, self._stalls
        if stalls is not None and watcher is not None:
            stalls.tick(place, watcher.step, between=between)
            stalls.usual = watcher.usual_seconds

    def _stalled(self, stall: Stall) -> None:
        """Called by the watchdog's own thread."""
        finding = answer.stalled(stall)
        self._found.append(finding)
        self._note(
            {
                "kind": "finding", "code": finding.code, "step": stall.step, "text": finding.message,
                "finding": fields_of(finding),
            }
        )  # fmt: skip

    def _leave(self) -> None:
        if self._farewell is not None:
            self._farewell.leave()

    def _last_words(self, reason: str) -> None:
        """The process is about to end, the run is not over: write what is known, and experiment no more."""
        watcher = self._watcher
        if watcher is None or self._report is not None:
            return
        self.diagnose, self.repro, self.finishers = False, False, ()
        with contextlib.suppress(Exception):
            watcher.sync()
        self._found.append(answer.interrupted(max(watcher.step - 1, 0), watcher.epoch, reason))
        self._interrupted = True
        _quietly(Guard._finish)(self)

    def _stand_aside(self) -> None:
        """Two guards would take each other's places: the last one in the list watches."""
        self._watcher = self.folder = self.outcome = None
        self._report = Report(kind="train", name=self.name, findings=(answer.stood_aside(),))

    def _crashed(self, error: Exception, doing: str) -> None:
        self._errors.append(answer.crash(error, doing))
        if self._watcher is not None:
            self._watcher.seam.disarm()

    def _finish(self) -> None:
        watcher = self._watcher
        if watcher is None or self._report is not None:
            return
        if self._farewell is not None:
            self._farewell.disarm()
        if self._stalls is not None:
            self._stalls.stop()
        rng = rng_state()
        try:
            if not self._interrupted:
                self._close(watcher)
        except GuardStop:
            raise
        except Exception as error:
            self._crashed(error, "finishing the report")
        finally:
            restore_rng(rng)
        if self.folder is not None and watcher.replay is not None and watcher.replay.records:
            with contextlib.suppress(Exception):  # a full disk, a kind of batch that no file can hold
                captures.keep(self.folder, watcher.replay.records[-1])
        outcome = self.outcome = closing.outcome_of(self, watcher)
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
        watcher.findings += verdicts.validation_fault(self._logs, self._validation, watcher.step, watcher.model)
        watcher.findings += verdicts.collapse(watcher, self._validation)

    def _made(self, outcome: GuardOutcome) -> Report:
        return Report(
            kind="train",
            name=self.name,
            findings=tuple(outcome.findings),
            metrics=outcome.metrics,
            series=closing.series_of(outcome),
            provenance=Provenance(
                command="Guard", started=self._start_time, ended=datetime.now(UTC).isoformat(timespec="seconds")
            ),
            run=self.run,
        )


def _weakly(thing: Any, method: str) -> Callable[..., None]:
    """A call that does not keep its object alive."""
    reference = weakref.ref(thing)

    def call(*args: Any) -> None:
        alive = reference()
        if alive is not None:
            getattr(alive, method)(*args)

    return call
