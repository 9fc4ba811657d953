"""What a script gets as `tsguard.Guard` and `tsguard.fit`: guard and session with diagnosis, reproduction, pages.

Choosing the backend is the first thing that happens here, because everything below imports Keras.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tsguard.backend import anomaly_mode, precision, require_torch

require_torch()

from tsguard import provenance
from tsguard.checks.outturn import require_plan
from tsguard.checks.registry import Check, Context, all_checks
from tsguard.checks.runner import crashed
from tsguard.config import train_settings
from tsguard.dataset import Batches, Data, unpack
from tsguard.desk import DESK, written
from tsguard.errors import ConfigError, DataError, StoreError, explain
from tsguard.gate import Gate
from tsguard.guard import every_row, first_steps
from tsguard.guard.callback import Guard as CallbackGuard
from tsguard.guard.outcome import GuardOutcome
from tsguard.guard.recovery import checked_policy
from tsguard.guard.stall import STALL_SECONDS
from tsguard.padding import Padding
from tsguard.report import Report
from tsguard.repro.budget import stopwatch
from tsguard.repro.find import failing_case, other_case, reduced
from tsguard.repro.reported import with_script
from tsguard.settings import GuardSettings
from tsguard.store import RunFolder, load_report
from tsguard.subject import Subject
from tsguard.train import trial
from tsguard.train.course import Course
from tsguard.train.inputs import keep
from tsguard.train.judgement import Judgement, judge_run
from tsguard.train.record import unfinished
from tsguard.train.session import Session, merged
from tsguard.train.setup import callbacks as callbacks_of
from tsguard.train.setup import checkpoints, prepared, total_steps
from tsguard.train.setup import fit_arguments as fit_arguments_of
from tsguard.train.snapshots import Snapshots
from tsguard.train.start import TrainStart
from tsguard.train.told import settings_of
from tsguard.train.validation import declared as declared_data


class Guard(CallbackGuard):
    """One line on a script that exists: `model.fit(x, y, callbacks=[tsguard.Guard()])`.

    Watches at no measurable cost. When something breaks it goes back, finds the first broken operation, tests what
    could have caused it, and leaves a report with a page; afterwards `guard.report` and `guard.run`.
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
        name: str = "fit",
        folder: RunFolder | None = None,
        padding: Padding | None = None,
        write: bool = True,
        max_recoveries: int = 3,
        activations: bool | str | Sequence[str] = False,
        names: Any = None,
        ids: Sequence[Any] | None = None,
        stall_s: float | None = STALL_SECONDS,
    ) -> None:
        super().__init__(
            policy, sync_every, inspect, None if folder else out, diagnose, repro, budget_s,
            name=name, max_recoveries=max_recoveries, activations=activations, names=names, ids=ids, stall_s=stall_s,
        )  # fmt: skip
        self._given = folder
        self._padding = padding
        self._write = write
        self._remembered: TrainStart | None = None
        self._course, self._snapshots = Course(), Snapshots()

    def _begin(self, model: Any, *, adapter: Any, validation: tuple[Any, Any] | None) -> None:
        if self._given is not None:
            self.folder = self._given
            self._journal = self._given.journal()
        if self._write and self.diagnose:
            self._remembered = TrainStart(model)
        self._course, self._snapshots = Course(), Snapshots()
        super()._begin(model, adapter=adapter, validation=validation)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """The epoch is over; after some of them the model is asked what it answers by now."""
        super().on_epoch_end(epoch, logs)
        if self._watcher is not None and not self._watcher.stopped:
            self._snapshots.after(self.model, epoch, self._asked_rows)

    def _asked_rows(self) -> Data | None:
        """The validation part where it is arrays, else the last recorded batch: nothing is read for a picture."""
        held = None if self._validation is None else Data(*self._validation)
        if held is not None and held.is_arrays:
            return held
        records = [] if self._watcher is None else self._watcher.recorder.records
        if not records:
            return None
        data = records[-1].data
        batch = Data(*unpack(data[0] if isinstance(data, list) else data))
        return batch if batch.is_arrays else None

    def _note(self, event: dict[str, Any]) -> None:
        super()._note(event)
        self._course.hear(event, None if self._watcher is None else self._watcher.step)

    @property
    def course(self) -> Course:
        """Epochs, trips and recoveries as they came."""
        return self._course

    def _made(self, outcome: GuardOutcome) -> Report:
        if outcome.epochs:
            self._snapshots.after(outcome.model, outcome.epochs - 1, self._asked_rows, last=True)
        report = super()._made(outcome)
        report = report.with_(figures={**report.figures, **self._snapshots.figures})
        if not self._write:
            return report
        sick = any(finding.status == "FAIL" for finding in report.findings)
        context = self._context(outcome)
        if self.diagnose and sick:
            judged = self._judged(context, outcome, report)
            report = report.with_(
                findings=tuple(merged([*report.findings, *judged.findings])),
                metrics={**report.metrics, **judged.metrics},
                figures={**report.figures, **judged.figures},
            )
        report = report.with_(
            verdict=Gate().judge(report, today=provenance.today()),
            provenance=replace(
                provenance.gather(config=settings_of(outcome.model, None, _fit_of(self.params))),
                started=report.provenance.started,
                ended=report.provenance.ended,
            ),
            timeline=self._course.moments(),
            desk=DESK,
            source=outcome,
        )
        if self.repro:
            report = reproduce(report, outcome, context=context, folder=self.folder, budget_s=self.budget_s)
        if self.folder is None:
            return report
        try:
            return written(report, self.folder)
        except StoreError as full:  # a disk that is full when the training is over takes nothing of it away
            return report.with_(findings=(*report.findings, crashed("child-failed", "writing the page", full)))

    def _judged(self, context: Context, outcome: GuardOutcome, report: Report) -> Judgement:
        """What made it so. A mistake of ours is a finding, and the rest of the report stands."""
        try:
            return judge_run(context, outcome, report.findings, start=self._remembered, budget_s=self.budget_s)
        except Exception as crash:
            return Judgement((crashed("no-learning", "judgement of the run", crash),))

    def _context(self, outcome: GuardOutcome) -> Context:
        subject = Subject.from_model(outcome.model, padding=self._padding)
        return Context(subject=subject, data=recorded_data(outcome), padding=self._padding)


def _fit_of(params: Any) -> dict[str, Any]:
    """What Keras tells its callbacks of the arguments of `fit`."""
    return {name: params[name] for name in ("epochs", "steps") if isinstance(params, Mapping) and params.get(name)}


def recorded_data(outcome: GuardOutcome) -> Data | None:
    """The batches that the recorder holds, as the data of an experiment."""
    replay = outcome.replay
    if replay is None or not replay.records:
        return None
    batches = [record.data[0] if isinstance(record.data, list) else record.data for record in replay.records]
    return Data(Batches(batches))


def reproduce(
    report: Report,
    outcome: GuardOutcome | None,
    *,
    context: Context,
    folder: RunFolder | None,
    budget_s: float,
    progress: Callable[[str], None] = lambda words: None,
) -> Report:
    """The report with its failure reduced to a script in the run's folder, within the budget."""
    if folder is None or not any(f.status == "FAIL" for f in report.findings):
        return report
    clock = stopwatch()

    def make() -> Any:
        told: dict[str, Any] = {"model": context.model, "data": context.data, "name": report.name}
        told |= {"recipe": _recipe(context), "findings": report.findings}
        case = failing_case(outcome=outcome, budget_s=budget_s, **told)
        left = max(0.0, budget_s - clock())
        if case is not None:
            return reduced(case, budget_s=left, progress=progress)
        return other_case(budget_s=left, context=context, progress=progress, **told)

    progress("reducing the failure to a script")
    return with_script(report, folder, make)


def _recipe(context: Context) -> tuple[str, Any] | None:
    recipe = context.subject.recipe if context.subject is not None else None
    return None if recipe is None else (recipe.use, recipe.args)


def fit(
    model: Any,
    x: Any = None,
    y: Any = None,
    validation_data: Any = None,
    gates: Any = None,
    padding: Padding | None = None,
    policy: str = "stop",
    out: str | Path = "reports",
    resume: bool | str | Path = False,  # noqa: FBT001, FBT002 - the public contract
    preflight: bool = True,  # noqa: FBT001, FBT002
    diagnose: bool = True,  # noqa: FBT001, FBT002
    *,
    name: str | None = None,
    budget_s: float = 60,
    baseline: Report | str | Path | None = None,
    plan: Mapping[str, Any] | None = None,
    train: Mapping[str, Any] | None = None,
    validation_sets: Mapping[str, Any] | None = None,
    rows: Mapping[str, Any] | None = None,
    progress: Callable[[str], None] = lambda name: None,
    **fit_arguments: Any,
) -> Report:
    """Preflight, gate, guarded `model.fit`, judgement, gate; both pages in the run's folder.

    `resume=True` goes on with the newest run of this name under `out`; a path names the run. `gates="report"` never
    blocks; `baseline` is the accepted report, or its run, that relative gates compare with. `train` is the section of
    that name in a run.yaml (`{"freeze": {"encoder": 3}, "ema": 0.99}`).
    `validation_sets` are more sets by name; `rows` is what is known of each row, for `train["validation"]` to cut by.
    Everything else (`epochs`, `batch_size`, `callbacks`, `class_weight`, …) is for `model.fit`.
    """
    gate = Gate.load(gates)
    checked_policy(policy)
    require_plan(plan or {})
    accepted = baseline if baseline is None or isinstance(baseline, Report) else load_report(baseline)
    settings = train_settings(train or {})
    subject = Subject.of(model, padding=padding, name=name)
    declared = fit_arguments_of(settings)
    fit_arguments = {**{k: v for k, v in declared.items() if k in settings.model_fields_set}, **fit_arguments}
    if x is None:
        raise DataError(
            explain(
                "tsguard.fit",
                received="no x",
                expected="what model.fit takes as x: arrays, a PyDataset, a DataLoader, a generator",
                todo="Say what to train on.",
            )
        )
    batch_size = fit_arguments.get("batch_size") or 32
    data = Data(
        x,
        y,
        sample_weight=fit_arguments.pop("sample_weight", None),
        validation=validation_data,
        batch_size=batch_size,
        validation_sets=validation_sets or {},
        rows=rows or {},
    )
    data.require_rows()
    data = declared_data(data, settings)
    require_fit_arguments(subject.model() if subject.live is not None else None, fit_arguments)
    # what a schedule needs to know is how long the run will be
    settings = settings.model_copy(update={k: v for k, v in fit_arguments.items() if k in declared})
    subject = replace(prepared(subject, settings, steps=total_steps(settings, data)), data=data)
    context = Context(
        subject=subject,
        data=data,
        padding=padding or subject.padding,
        declared=plan or {},
        facts={"fit": dict(fit_arguments)},
    )
    folder = run_folder(out, subject.name, resume)
    keep(folder, data)
    callbacks = tuple(fit_arguments.pop("callbacks", None) or ())
    with precision(settings.precision), anomaly_mode(enabled=settings.anomaly):
        return session(
            context,
            gate=gate,
            folder=folder,
            watch=GuardSettings.model_construct(policy=policy, diagnose=diagnose, budget_s=budget_s),
            fit_arguments=fit_arguments,
            callbacks=(*callbacks_of(settings, data), *callbacks),
            checkpoint=checkpoints(settings),
            restore_best=settings.stop is not None and settings.stop.restore,
            preflight=preflight,
            resume=bool(resume),
            baseline=accepted,
            config=settings_of(context.model, data, fit_arguments),
            progress=progress,
        ).run()


def session(
    context: Context,
    *,
    gate: Gate,
    folder: RunFolder,
    watch: GuardSettings,
    progress: Callable[[str], None],
    **more: Any,
) -> Session:
    """A guarded training with all that the doors add to it: pages, reproduction, the guard's own checks.

    `more` are fields of Session, `fit_arguments` at least.
    """
    subject = context.subject
    assert subject is not None
    guard = Guard(
        watch.policy,
        watch.sync_every,
        tuple(watch.inspect),
        diagnose=watch.diagnose,
        repro=watch.repro,
        budget_s=watch.budget_s,
        max_recoveries=watch.max_recoveries,
        activations=watch.activations,
        names=watch.names or _feature_names(context.data),
        ids=_sample_ids(context.data, watch.ids),
        stall_s=watch.stall_s,
        folder=folder,
        name=subject.name,
        padding=context.padding,
        write=False,
    )
    more.setdefault("checks", (*all_checks(), *session_checks()))
    return Session(
        context=context,
        gate=gate,
        folder=folder,
        guard=guard,
        write=lambda report: written(report, folder),
        reproduce=partial(reproduce, context=context, folder=folder, budget_s=watch.budget_s, progress=progress),
        diagnose=watch.diagnose,
        budget_s=watch.budget_s,
        progress=progress,
        **more,
    )


def _feature_names(data: Data | None) -> Sequence[str] | None:
    """The names that came with the data, where it is one array and they can only be its features'."""
    return data.names if data is not None and data.names and hasattr(data.x, "shape") else None


def _sample_ids(data: Data | None, column: str | None) -> Sequence[Any] | None:
    """What names each sample, of what the data function says of its rows."""
    if column is None:
        return None
    rows = {} if data is None else data.rows
    if column not in rows:
        raise ConfigError(
            explain(
                "guard.ids",
                received=repr(column),
                expected=f"a column that the data function returns in `rows`: {', '.join(rows) or 'there is none'}",
                todo="Return rows={'id': …}, one value for each row.",
            )
        )
    return list(rows[column])


def require_fit_arguments(model: Any, given: Mapping[str, Any]) -> None:
    """A ConfigError, before anything is run, where `model.fit` has no argument of a given name or nothing would run."""
    for name in ("epochs", "batch_size", "steps_per_epoch"):
        value = given.get(name)
        if isinstance(value, int | float | np.number) and value < 1:
            raise ConfigError(
                explain("tsguard.fit", received=f"{name}={value}", expected="a whole number from 1", todo="Raise it.")
            )
    if model is None:
        return
    takes = inspect.signature(model.fit).parameters
    unknown = sorted(set(given) - set(takes))
    if unknown and not any(one.kind is inspect.Parameter.VAR_KEYWORD for one in takes.values()):
        raise ConfigError(
            explain(
                "tsguard.fit",
                received=", ".join(unknown),
                expected=f"arguments of model.fit: {', '.join(takes)}",
                todo="Check the spelling.",
            )
        )


def run_folder(out: str | Path, name: str, resume: bool | str | Path) -> RunFolder:  # noqa: FBT001
    """A new folder, the named one, or the newest of this name (`"interrupted"`: only if it has no end)."""
    if out is None:
        raise ConfigError(
            explain(
                "tsguard.fit(out=…)",
                received="None",
                expected="a folder: checkpoints and the record of the run need a place",
                todo="Name one; model.fit(…, callbacks=[tsguard.Guard(out=None)]) watches and writes nothing.",
            )
        )
    if resume and resume != "interrupted" and not isinstance(resume, bool):
        return RunFolder.open(resume)
    if resume:
        from tsguard.store import runs

        earlier = [found for found in runs(out) if found.run.name == name]
        if earlier and (resume is True or unfinished(earlier[-1].events())):
            return earlier[-1]
    return RunFolder.create(out, name)


def session_checks() -> tuple[Check, ...]:
    """What is asked before a training of ours beside the registered checks: it will be watched and resumed."""
    return (*guard_checks(), trial.CHECK)


def guard_checks() -> tuple[Check, ...]:
    """Checks that use the guard's own machinery before any step of the run is taken."""
    return (first_steps.CHECK, every_row.CHECK)
