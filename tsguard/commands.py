"""What the commands do with a RUN.yaml: from the file to a Subject, and from there to reports in the run's folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tsguard.backend import anomaly_mode, precision, require_torch
from tsguard.checks.preflight import preflight
from tsguard.checks.registry import Check, Context, all_checks
from tsguard.config import Config, load_config
from tsguard.desk import DESK, list_runs, written
from tsguard.errors import ConfigError, StoreError, explain
from tsguard.findings import Finding
from tsguard.opening import Opened, config_of, open_run
from tsguard.report import Report, dumps, loads
from tsguard.store import RunFolder, load_report, runs, write_whole
from tsguard.subject import Recipe, Subject

if TYPE_CHECKING:
    from tsguard.train.progress import Standing


def check(
    path: Path,
    *,
    changes: Iterable[str] = (),
    out: Path | None = None,
    twice: bool = False,
    progress: Callable[[str], None],
) -> Report:
    """Preflight of a RUN.yaml, written into a run's folder of its own."""
    changes = list(changes)
    opened = open_run(path, changes=changes, out=out)
    folder = RunFolder.create(opened.out, opened.subject.name)
    folder.write_text("config.yaml", opened.config.text())
    earlier = _twice(path, changes, opened, progress) if twice else ()
    return written(check_opened(opened, earlier=earlier, progress=progress), folder)


def _twice(path: Path, changes: Iterable[str], opened: Opened, progress: Callable[[str], None]) -> Iterable[Finding]:
    from tsguard.train.setup import fit_arguments
    from tsguard.train.twice import compared

    progress("the same steps twice")
    with precision(opened.config.settings.train.precision):
        return compared(
            opened.subject,
            fit_arguments(opened.config.settings.train, opened.subject.data),
            elsewhere=lambda: _marks_elsewhere(path, changes),
        )


OTHER_HASHES = "20011"
"""PYTHONHASHSEED of the other process: the order of sets and of what hangs on it is another one there."""


def _marks_elsewhere(path: Path, changes: Iterable[str]) -> Any:
    """What a new process makes of the same run; its own words where it fails."""
    code = "import sys; from tsguard.commands import tell_marks; tell_marks(sys.argv[1], sys.argv[2:])"
    here = str(Path(__file__).resolve().parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), *changes],
        env={**os.environ, "PYTHONHASHSEED": OTHER_HASHES, "PYTHONPATH": os.pathsep.join([here, *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(
            f"--twice: the second process ended with exit code {done.returncode}.\n{done.stderr.strip()}"
        )
    return [(place, digest) for place, digest in loads(done.stdout.rsplit(MARKS_BEGIN, 1)[-1])]


MARKS_BEGIN = "--- marks ---"


def tell_marks(path: str, changes: list[str]) -> None:
    """Print what the steps of a run hold: what the other process of `--twice` does."""
    from tsguard.train.setup import fit_arguments
    from tsguard.train.twice import marks

    opened = open_run(Path(path), changes=changes)
    train = opened.config.settings.train
    with precision(train.precision):
        found = marks(opened.subject, fit_arguments(train, opened.subject.data))
    sys.stdout.write(MARKS_BEGIN + dumps([[place, digest] for place, digest in found]))


def predict(run: Path, data: str, *, to: Path | None = None, checkpoint: str = "best") -> dict[str, Any]:
    """Predictions of a trained run for data of the same form, written to a file."""
    from tsguard.train.inputs import in_units, inputs_from, kept
    from tsguard.train.predict import answers, chosen, file_of
    from tsguard.train.setup import prepared

    folder = RunFolder.open(run)
    settings = load_config(config_of(folder, todo="Call model.predict in that script.")).settings
    require_torch()
    subject = Subject.from_recipes(
        Recipe(settings.model.use, settings.model.args, "model.use"), None, seed=settings.seed, name=settings.name
    )
    stem = chosen(folder, checkpoint, settings.train)
    known = kept(
        folder,
        padding=None if settings.padding is None else settings.padding.value(),
        makes=None if settings.data is None else settings.data.inputs,
    )
    with precision(settings.train.precision):
        model = prepared(subject, settings.train, steps=ENDLESS).rebuild()
        found = in_units(answers(model, folder, stem, inputs_from(data, model, known)), known)
    target = to or folder.file("predictions.npz")
    rows = len(next(iter(found.values())))
    return {"file": str(write_whole(target, file_of(found, target))), "rows": rows, "checkpoint": stem}


ENDLESS = 10**9
"""Steps of a schedule that is only built so that the checkpoint's optimizer fits, and never followed."""


def check_opened(opened: Opened, *, earlier: Iterable[Finding] = (), progress: Callable[[str], None]) -> Report:
    """The preflight of a subject that has been built."""
    from tsguard.guarded import session_checks

    with precision(opened.config.settings.train.precision):
        return preflight(
            _context(opened),
            gate=opened.gate.before_training(),
            budget_s=opened.config.settings.check.budget_s,
            checks=_checks(opened, session_checks()),
            earlier=earlier,
            config=opened.config.resolved(),
            baseline=opened.baseline,
            progress=progress,
        ).with_(desk=DESK)


def train(
    path: Path,
    *,
    changes: Iterable[str] = (),
    out: Path | None = None,
    resume: bool | str | Path = False,
    progress: Callable[[str], None],
    follow: Callable[[Standing], None] | None = None,
    profile: str | None = None,
) -> Report:
    """Preflight, gate, guarded training, judgement, gate; both pages in the run's folder."""
    opened = open_run(path, changes=changes, out=out, profile=profile)
    from tsguard.guarded import run_folder, session, session_checks
    from tsguard.train.inputs import keep
    from tsguard.train.setup import callbacks, checkpoints, fit_arguments
    from tsguard.train.trackers import findings, trackers

    settings, subject = opened.config.settings, opened.subject
    if subject.data is None:
        raise ConfigError(
            explain(
                str(path), received="no `data`", expected="`data: {use: module:function}`", todo="Say what to train on."
            )
        )
    folder = run_folder(opened.out, subject.name, resume)
    folder.write_text("config.yaml", opened.config.text())
    keep(folder, subject.data)
    fitted = settings.train
    followed = trackers(settings.trackers, folder, config=opened.config.resolved(), name=subject.name)
    one = session(
        _context(opened),
        gate=opened.gate,
        folder=folder,
        watch=settings.guard,
        fit_arguments={**fit_arguments(fitted, subject.data), "verbose": 0},
        checks=_checks(opened, session_checks()),
        resume=bool(resume),
        preflight_s=settings.check.budget_s,
        callbacks=(*callbacks(fitted, subject.data), *followed),
        checkpoint=checkpoints(fitted),
        restore_best=fitted.stop is not None and fitted.stop.restore,
        export=True,
        config=opened.config.resolved(),
        late_findings=lambda: (*opened.config.unused(), *findings(followed)),
        baseline=opened.baseline,
        progress=progress,
        follow=follow,
    )
    with precision(fitted.precision), anomaly_mode(enabled=fitted.anomaly):
        return one.run()


def _context(opened: Opened) -> Context:
    subject, train = opened.subject, opened.config.settings.train
    return Context(
        subject=subject,
        data=subject.data,
        padding=subject.padding,
        declared=_declared(opened.config),
        facts={
            "fit": {
                "epochs": train.epochs,
                "batch_size": train.batch_size,
                "shuffle": train.shuffle,
                "class_weight": train.class_weight,
                "steps_per_epoch": train.steps_per_epoch,
                "validation_split": train.validation_split,
            }
        },
    )


def _checks(opened: Opened, more: Iterable[Check]) -> tuple[Check, ...]:
    """All but those that the file leaves out, by their name or by a code that they alone answer."""
    checks = (*all_checks(), *more)
    skipped = set(opened.config.settings.check.skip)
    unknown = sorted(skipped - {one.name for one in checks} - {code for one in checks for code in one.codes})
    if unknown:
        raise ConfigError(
            explain(
                "check.skip",
                received=", ".join(map(repr, unknown)),
                expected=f"codes, or names of checks: {', '.join(sorted(one.name for one in checks))}",
                todo="Check the spelling; `tsguard explain` lists the codes.",
            )
        )
    return tuple(one for one in checks if one.name not in skipped and not set(one.codes) <= skipped)


def _declared(config: Config) -> dict[str, Any]:
    plan = config.settings.plan
    return {name: value for name in type(plan).model_fields if (value := getattr(plan, name)) is not None}


def rewrite(path: Path) -> Report:
    """Draw the pages of a run again from what it left; of one that died, from its events."""
    from tsguard.train.record import unfinished

    folder = RunFolder.open(path)
    report = load_report(folder.path) if (folder.path / "report.json").is_file() else None
    if report is None or (report.kind == "check" and unfinished(folder.events())):  # killed after its preflight
        report = from_events(folder)
    return written(report.with_(desk=DESK), folder)


def from_events(folder: RunFolder) -> Report:
    """What was known when a run died: its last events, and that it has no end."""
    from tsguard import catalogue
    from tsguard.findings import ranked
    from tsguard.guard.remains import remains
    from tsguard.report import Moment, Verdict
    from tsguard.train.record import STEPS_MADE

    events = folder.events()
    moments = [
        Moment(
            float(event.get("at", 0.0)), str(event.get("kind", "event")), str(event.get("text", "")), event.get("step")
        )
        for event in events
        if event.get("text")
    ]
    known = remains(events)
    made = folder.counter(STEPS_MADE).value - 1 if folder.file(STEPS_MADE).exists() else None
    last = max((step for step in (made, known.last_step) if step is not None and step >= 0), default=None)
    words = "before its first steps were written down" if last is None else f"after step {last}"
    died = catalogue.finding(
        "child-failed",
        f"run {folder.run.name!r} ended without a report, {words}: the process was killed or the machine went away.",
        remedy="Look at the last events in events.jsonl; `tsguard train RUN.yaml --resume` goes on from there.",
        where={} if last is None else {"step": last},
    )
    return Report(
        kind="train",
        name=folder.run.name,
        findings=(*ranked(known.findings), died),
        series=known.series,
        timeline=tuple(moments),
        verdict=Verdict("ERROR", (died.message,)),  # type: ignore[arg-type]
        run=folder.run,
    )


def repro(path: Path, *, budget_s: float, synthetic: bool = False, progress: Callable[[str], None]) -> dict[str, Any]:
    """Reduce the failure of a run in its folder; what was written and how small it is."""
    from tsguard.api import reduce

    folder = RunFolder.open(path)
    case = reduce(folder.path, budget_s, synthetic=synthetic, progress=progress)
    script = case.save(folder.path / "repro")
    return {
        "script": str(script),
        "fingerprint": case.fingerprint.words(),
        "size": case.size,
        "original_size": case.original_size,
    }


def propose(data: str, target: Path) -> Path:
    """A suite learned from data, as a JSON file to edit."""
    from tsguard.checks.propose import propose as proposed

    suite = proposed(data)
    text = suite if isinstance(suite, str) else dumps(suite if isinstance(suite, dict) else suite.to_json_dict())
    return write_whole(target, text.encode("utf-8"))


def listed(out: Path) -> list[dict[str, Any]]:
    """Every run under a folder with its verdict and the first reason, the oldest first."""
    from tsguard.train.record import unfinished

    rows = []
    for folder in runs(out):
        found = _summary(folder)
        if found is None:
            found = {"verdict": "ENDED", "reason": "no report was written: `tsguard report` says what was known"}
        elif found.get("kind") == "check" and unfinished(folder.events()):
            reason = "killed while training: --continue goes on, `tsguard report` says more"
            found = {**found, "verdict": "DIED", "reason": reason}
        rows.append(
            {
                "folder": str(folder.path), "name": folder.run.name, "verdict": str(found.get("verdict", "NOT_RUN")),
                "stage": str(found.get("kind", "")), "started": str(found.get("started", "")),
                "pinned": (folder.path / PINNED).exists(), "reason": str(found.get("reason", "")),
            }
        )  # fmt: skip
    return rows


PINNED = "pinned"
"""A file of this name in a run's folder keeps it from being cleaned away."""


def _summary(folder: RunFolder) -> dict[str, Any] | None:
    """The few words of a run that the index shows too; of an older folder, taken from its whole report."""
    try:
        found = loads(folder.file("summary.json").read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else None
    except (OSError, StoreError):
        pass
    try:
        report = load_report(folder.path)
    except StoreError:
        return None
    reasons = report.verdict.reasons
    return {
        "verdict": report.verdict.status.value, "kind": report.kind, "started": report.provenance.started,
        "reason": reasons[0] if reasons else "",
    }  # fmt: skip


def clean(out: Path, *, keep: int) -> list[Path]:
    """Remove all but the newest runs of each name; pinned ones stay."""
    by_name: dict[str, list[RunFolder]] = {}
    for folder in runs(out):
        by_name.setdefault(folder.run.name, []).append(folder)
    removed = []
    for folders in by_name.values():
        for folder in folders[: max(0, len(folders) - keep)]:
            if not (folder.path / PINNED).exists():
                folder.delete()
                removed.append(folder.path)
    if removed:
        list_runs(out)
    return removed
