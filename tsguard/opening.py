"""From a RUN.yaml to what it describes: configuration, subject, gate, baseline."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from tsguard.backend import make_deterministic, require_torch
from tsguard.checks.outturn import require_plan
from tsguard.config import Config, load_config
from tsguard.errors import SubjectError, explain
from tsguard.gate import Gate
from tsguard.report import Report
from tsguard.store import RunFolder, load_report
from tsguard.subject import Recipe, Subject


@dataclass(frozen=True)
class Opened:
    """A configuration and what it describes."""

    config: Config
    subject: Subject
    gate: Gate
    out: Path
    baseline: Report | None


def config_of(folder: RunFolder, *, todo: str) -> Path:
    """The configuration that a run was made by; a SubjectError where a script made it."""
    place = folder.path / "config.yaml"
    if not place.is_file():
        raise SubjectError(
            explain(
                str(folder.path),
                received="a run without config.yaml: a script made it, and only that script can build its model again",
                expected="a run of `tsguard train RUN.yaml`",
                todo=todo,
            )
        )
    return place


def open_run(path: Path, *, changes: Iterable[str] = (), out: Path | None = None, profile: str | None = None) -> Opened:
    """Read, check, and build the subject. Mistakes in the file are said before anything is built."""
    config = load_config(path, changes=changes, profile=profile)
    require_torch()
    settings = config.settings
    if settings.data is not None and settings.data.inputs is not None:
        Recipe(settings.data.inputs, {}, "data.inputs").load()  # used by predictions only: a mistake is said now
    gate = Gate.of(settings.gates)
    require_plan(settings.plan.model_dump(exclude_none=True))
    baseline = None if settings.baseline is None else load_report(settings.baseline)
    from tsguard.train.setup import asked_for, prepared

    asked_for(settings.train)  # a formula that cannot be read is said now
    if settings.deterministic:
        make_deterministic()
    subject = Subject.from_recipes(
        Recipe(settings.model.use, settings.model.args, "model.use"),
        None if settings.data is None else Recipe(settings.data.use, settings.data.args, "data.use"),
        padding=None if settings.padding is None else settings.padding.value(),
        seed=settings.seed,
        name=settings.name,
    )
    from tsguard.train.validation import declared

    if subject.data is not None:
        subject = replace(subject, data=declared(subject.data, settings.train, seed=settings.seed))
    subject = prepared(subject, settings.train)
    return Opened(config, subject, gate, Path(out or settings.out), baseline)
