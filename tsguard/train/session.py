"""One guarded training: preflight, gate, `model.fit` with guard and checkpoints, judgement, gate, two pages.

Keras advances the training; this module only decides what stands around it and what comes of it. What lies above
(pages) or beside (reproduction) is handed in, so that a session knows neither.
"""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras

from tsguard import catalogue, provenance
from tsguard.checks.depth import deepest
from tsguard.checks.outturn import batches_made, off_plan, ran_dry
from tsguard.checks.preflight import preflight, seeds_of
from tsguard.checks.registry import Check, Context
from tsguard.checks.runner import crashed
from tsguard.errors import Interrupted, StoreError
from tsguard.evidence import Evidence
from tsguard.findings import Finding, Role, Status
from tsguard.gate import Gate
from tsguard.guard.callback import Guard
from tsguard.guard.outcome import GuardOutcome
from tsguard.guard.remains import curves
from tsguard.report import Moment, Report, Series, Verdict
from tsguard.store import RunFolder
from tsguard.train.artifact import checkpoint_mb, export, put_back_weights
from tsguard.train.checkpoint import Position, load
from tsguard.train.feed import Afresh
from tsguard.train.judgement import Judgement, judge_run
from tsguard.train.layers import ByLayer
from tsguard.train.progress import Follow, Standing
from tsguard.train.record import PARTING, STEPS_MADE, joined, with_parting
from tsguard.train.resume import Checkpoints, Resume, choose, fingerprint
from tsguard.train.start import RememberStart, TrainStart
from tsguard.train.trackers import Tracker

Progress = Callable[[str], None]


@dataclass
class Session:
    """Everything that one training is told, and what it keeps while it runs."""

    context: Context
    gate: Gate
    folder: RunFolder
    guard: Guard
    fit_arguments: dict[str, Any]
    write: Callable[[Report], Report]
    """Saves a report and its page; from the doors."""
    reproduce: Callable[[Report, GuardOutcome | None], Report] = lambda report, outcome: report
    """Reduces the failure of a report to a script; from the doors."""
    checks: tuple[Check, ...] = ()
    callbacks: tuple[Any, ...] = ()
    preflight: bool = True
    diagnose: bool = True
    resume: bool = False
    budget_s: float = 60.0
    preflight_s: float | None = None
    """Seconds for the preflight, where it has a budget of its own."""
    checkpoint: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    late_findings: Callable[[], Iterable[Finding]] = tuple
    """Asked at the end: settings that nothing read, trackers that failed."""
    baseline: Report | None = None
    restore_best: bool = False
    """Whether the model ends with the weights of its best checkpoint."""
    export: bool = False
    """Whether the model is written as model.keras at the end."""
    artifact_mb: float | None = None
    progress: Progress = lambda name: None
    follow: Callable[[Standing], None] | None = None
    """Told a few times a second how far the training is."""
    moments: list[Moment] = field(default_factory=list)
    interrupted: int | None = None
    recomputed: int = 0
    """Steps that were made before a kill and again after the resume."""
    _earlier: dict[str, Series] = field(default_factory=dict)
    _started: float = field(default_factory=time.monotonic)
    _start: TrainStart | None = None

    def run(self) -> Report:
        """The whole of it; the report of the stage that decided."""
        before = self._before() if self.preflight else None
        if before is not None and not before.verdict and self.gate.enforce:
            return before
        found = list(before.findings) if before is not None else []
        history, failure = self._fit(found)
        report = self._after(found, history, before)
        if failure is not None:
            raise failure
        return report

    def _tell(self, kind: str, text: str, step: int | None = None, **facts: Any) -> None:
        moment = Moment(round(time.monotonic() - self._started, 3), kind, text, step)
        self.moments.append(moment)
        self.folder.append({"kind": kind, "at": moment.at, "text": text, "step": step, **facts})

    def _before(self) -> Report:
        self._tell("start", "preflight")
        report = preflight(
            self.context,
            gate=self.gate.before_training(),
            budget_s=self.budget_s if self.preflight_s is None else self.preflight_s,
            checks=self.checks,
            config=dict(self.config),
            baseline=self.baseline,
            progress=self.progress,
        )
        began = self.moments[-1].at
        self.moments += [dataclasses.replace(m, at=began + m.at) for m in report.timeline if m.kind == "check"]
        self._tell("gate", f"before training: {report.verdict.status}")
        return self.write(report if report.verdict else self.reproduce(report, None))

    def _fit(self, found: list[Finding]) -> tuple[Any, BaseException | None]:
        model, data = self.context.model, self.context.data
        assert data is not None
        marks = fingerprint(model, data, self.fit_arguments)
        snapshot, refused = choose(self.folder, marks) if self.resume else (None, {})
        found.extend(_mismatch(words) for words in refused.values())
        start = snapshot.position if snapshot is not None else Position(0, 0, 0)
        if snapshot is not None:
            self._resumed(start)

        def others() -> list[Any]:
            return [one for one in self.callbacks if not isinstance(one, Tracker)]

        keeper = Checkpoints(
            self.folder,
            marks,
            start=start,
            others=others,
            failed=lambda error: found.append(_not_saved(error)),
            source=data.x,
            spared=refused,
            **self.checkpoint,
        )
        remembered = RememberStart()
        told = [one for one in self.callbacks if isinstance(one, Tracker)]
        self.guard.listeners = [one.hear for one in told]
        ours: list[Any] = [Afresh(), remembered, self.guard, *told]  # what the guard reads at the end is told as well
        if snapshot is not None:
            ours.append(Resume(snapshot, others, data.x))
        if self.follow is not None:
            ours.append(Follow(self.follow, lambda: self.guard.state))
        ours += [keeper, _Interruptible(self, keeper)]
        self.progress("training")
        self._tell("train", "training")
        failure: BaseException | None = None
        history = None
        with _signals(self):
            try:
                history = model.fit(
                    data.for_fit,
                    data.y,
                    sample_weight=data.sample_weight,
                    validation_data=data.validation,
                    initial_epoch=start.epoch,
                    callbacks=[*others(), *ours],
                    **self.fit_arguments,
                )
            except (Interrupted, KeyboardInterrupt) as stopped:
                self.interrupted = self.interrupted or signal.SIGINT
                failure = stopped if isinstance(stopped, Interrupted) else Interrupted(signal.SIGINT)
            except Exception as error:  # the user's own code failed; the folder says so, then it goes up as it came
                failure = error
                found.append(_died(error))
        for one in self.callbacks:
            if isinstance(one, Tracker):
                one.finish()
            if isinstance(one, ByLayer):
                one.release()
        with contextlib.suppress(Exception):
            keeper.writer.close()
        if failure is None and self.interrupted is not None:  # the signal came after the last step: all is saved
            failure = Interrupted(self.interrupted)
        if failure is None:
            self._finish(model, keeper, found)
        self._start = remembered.start
        return history, failure

    def _resumed(self, start: Position) -> None:
        """Say where the run goes on and which steps are made a second time; take over what was recorded before."""
        events = self.folder.events()
        self._tell("resume", f"from step {start.step}, batch {start.batch} of epoch {start.epoch}", start.step)
        made = self.folder.counter(STEPS_MADE).value
        self.recomputed = max(0, made - start.step)
        if self.recomputed:
            words = f"steps {start.step} to {made - 1} were made before and are made again: the run died after them"
            self._tell("recomputed", words, start.step, count=self.recomputed)
        self.guard.first_step = start.step
        self._earlier = curves(events, before_step=start.step, before_epoch=start.epoch)

    def _finish(self, model: Any, keeper: Checkpoints, found: list[Finding]) -> None:
        """The best weights back into the model and out as a file, where that was asked for."""
        best = keeper.best_stem()
        try:
            if best is not None and self.restore_best:
                snapshot = load(self.folder, best)
                put_back_weights(model, snapshot.tensors)
                self._tell("best", f"weights of {best} are in the model", snapshot.position.step)
            if best is not None:
                self.artifact_mb = checkpoint_mb(self.folder, best)
        except (StoreError, OSError) as lost:
            found.append(_not_saved(lost))
        if not self.export:
            return
        try:
            self.artifact_mb = export(model, self.folder) / 1e6
        except Exception as refused:  # own layers without get_config cannot be exported; the checkpoints are there
            found.append(_not_exported(refused))

    def _after(self, found: list[Finding], history: Any, before: Report | None) -> Report:
        guarded = self.guard.report
        outcome = self.guard.outcome
        findings = list(guarded.findings) if guarded is not None else []
        judged = Judgement()
        if outcome is not None and self.interrupted is None:
            self.progress("judging the run")
            try:
                judged = judge_run(
                    self.context,
                    outcome,
                    [*found, *findings],
                    start=self._start,
                    budget_s=self.budget_s if self.diagnose else 0.0,
                    progress=self.progress,
                )
            except Exception as crash:
                judged = Judgement((crashed("no-learning", "judgement of the run", crash),))
            if judged.seconds:
                self._tell("diagnosed", f"looked for causes for {judged.seconds:.0f} of {self.budget_s:.0f} s")
        if outcome is not None:
            outcome.context = self.context
        metrics = {**(guarded.metrics if guarded is not None else {}), **judged.metrics}
        if self.artifact_mb is not None:
            metrics["artifact_mb"] = self.artifact_mb
        series = with_parting(joined(self._earlier, guarded.series if guarded is not None else {}))
        if f"epoch/{PARTING}" in series:
            metrics[PARTING] = series[f"epoch/{PARTING}"][-1]
        if self._earlier:
            metrics["steps_recomputed"] = float(self.recomputed)
        made = batches_made(series)
        off: list[Finding] = []
        if self.interrupted is None:
            off = [*off_plan(self.context.declared, {**metrics, **made}), *ran_dry(self.context, made)]
        before_it = [*found, *findings] if judged.earlier is None else judged.earlier
        told = deepest(merged([*before_it, *judged.findings, *off, *self.late_findings()]))
        facts = provenance.gather(config=dict(self.config), seeds=seeds_of(self.context))
        report = Report(
            kind="train",
            name=self.folder.run.name,
            source=outcome,
            findings=told,
            metrics=metrics,
            series=series,
            figures={**(guarded.figures if guarded is not None else {}), **judged.figures},
            plan={**(before.plan if before is not None else {}), **self.context.plan},
            provenance=dataclasses.replace(
                facts, started=guarded.provenance.started if guarded is not None else "", ended=provenance.now()
            ),
            run=self.folder.run,
        )
        verdict = self.gate.judge(report, baseline=self.baseline, today=provenance.today())
        if self.interrupted is not None:
            verdict = Verdict(Status.NOT_RUN, ("interrupted; resumable with --resume", *verdict.reasons))
        course = None if outcome is None else getattr(self.guard, "course", None)
        if course is not None:
            self.moments = sorted([*self.moments, *course.moments(self._started)], key=lambda moment: moment.at)
        if self.interrupted is None:
            self._tell("end", f"after training: {verdict.status}")
        else:
            self._tell("interrupted", f"stopped by signal {int(self.interrupted)}; --resume goes on from here")
        report = report.with_(verdict=verdict, timeline=tuple(self.moments))
        return self.write(self.reproduce(report, outcome) if self.interrupted is None else report)


class _Interruptible(keras.callbacks.Callback):
    """Ends the run between two batches when a signal has come, with a checkpoint of that moment. Stands last."""

    def __init__(self, session: Session, keeper: Checkpoints) -> None:
        super().__init__()
        self.session, self.keeper = session, keeper

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """A signal that came during validation: the state between the two epochs has just been handed over."""
        if self.session.interrupted is not None:
            self.keeper.writer.flush()
            raise Interrupted(self.session.interrupted)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """The state between two batches is what a checkpoint can hold; nothing else is worth waiting for."""
        if self.session.interrupted is not None:
            self.keeper.save_now()
            self.keeper.writer.flush()
            raise Interrupted(self.session.interrupted)


@contextlib.contextmanager
def _signals(session: Session) -> Iterator[None]:
    """SIGTERM and the first Ctrl-C end the run in order; the second Ctrl-C ends it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: Any) -> None:
        if session.interrupted is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        session.interrupted = number

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def merged(findings: Iterable[Finding]) -> list[Finding]:
    """One finding for one fact: of the same code at the same place the worst, and of equals the proven one, stays."""
    kept: dict[tuple[str, str], Finding] = {}
    for finding in findings:
        if finding.status in (Status.PASS, Status.NOT_RUN):
            key = (finding.code, "")
        else:
            key = (finding.code, repr(sorted(finding.where.items(), key=str)))
        old = kept.get(key)
        if old is None or _weight(finding) > _weight(old):
            kept[key] = finding
    accused = {f.code for f in kept.values() if f.status in (Status.WARN, Status.FAIL)}
    return [f for f in kept.values() if f.status is not Status.PASS or f.code not in accused]


def _weight(finding: Finding) -> tuple[int, bool, bool, int]:
    return finding.status.severity, finding.proof is not None, finding.role is Role.CAUSE, len(finding.explains)


def _mismatch(words: str) -> Finding:
    return catalogue.finding("resume-mismatch", words, status=Status.WARN, role=Role.NOTE, check="resume")


def _not_saved(error: BaseException) -> Finding:
    trace = "".join(traceback.format_exception(error))
    return catalogue.finding(
        "checkpoint-roundtrip",
        f"a checkpoint was not written: {error}",
        status=Status.WARN,
        role=Role.NOTE,
        evidence=[Evidence("traceback", trace)],
        check="checkpoints",
    )


def _not_exported(error: BaseException) -> Finding:
    return catalogue.finding(
        "checkpoint-roundtrip",
        f"model.keras was not written: {type(error).__name__}: {error}. The checkpoints hold the weights all the same.",
        status=Status.WARN,
        role=Role.NOTE,
        evidence=[Evidence("traceback", "".join(traceback.format_exception(error)))],
        check="export",
    )


def _died(error: BaseException) -> Finding:
    trace = "".join(traceback.format_exception(error))
    return catalogue.finding(
        "child-failed",
        f"training ended with {type(error).__name__}: {error}",
        evidence=[Evidence("traceback", trace)],
        remedy="Its own traceback is below; mend what it names.",
        check="training",
    )
