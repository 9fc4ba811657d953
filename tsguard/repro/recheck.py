"""A finding of a check that needs no training, as a case: the least model and data of which the check still says so.

The question is the check's own. Where it can be said in a few lines the script holds them; else it asks through `told`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tsguard.backend import preserved
from tsguard.checks.registry import Context, all_checks
from tsguard.checks.runner import run_checks
from tsguard.dataset import Data, leaves
from tsguard.findings import Finding, Status
from tsguard.padding import Padding
from tsguard.repro import emit
from tsguard.repro import script as scripts
from tsguard.repro.asked import Form, form_of, home_of, lines_of, of_any_arrays
from tsguard.repro.budget import Clock, stopwatch
from tsguard.repro.case import Batch, Case, Fingerprint, has_kind, kind_of, weights_in
from tsguard.repro.code.arrays import plain
from tsguard.repro.code.lines import Lines, NotCode
from tsguard.repro.found import FoundCase
from tsguard.repro.graphs import graph_of, has_graph, reinitialised
from tsguard.repro.passes import CONFIGURATION, Pass, drop_samples
from tsguard.repro.passes.narrow import bypass_layers
from tsguard.repro.passes.plain import forget_weights, simplify_values
from tsguard.repro.reduce import Reduction
from tsguard.subject import Subject

LAWS = "laws of padding, masking and time"
"""A check whose findings have counterexamples of their own."""

OF_OBJECTS = frozenset({"transfer-nothing"})
"""Findings whose check needs objects that no script holds (another model): their lines alone are asked."""

KEEPING_SHAPES: tuple[Pass, ...] = (drop_samples, forget_weights, bypass_layers)
"""For those: what is said of the shapes of weights is true of any other shape."""

OF_AMOUNT = frozenset(
    {"another amount of data than declared", "cost of the run", "hardly any updates", "rows that no step comes to"}
)
"""Checks that say that there is too little: of fewer rows that is true whatever the cause."""

ROWS_FIRST = (256, 4_096, 65_536)
"""Rows with which a reduction may begin; a finding that shows on none of these is not reduced."""

ASKED_S = 20.0
"""What one question may take: the checks that need more are those that search or train."""

DEAR = 8
"""Cost of a check from which it is asked of what came out alone: it trains, and a search asks hundreds of times."""


def told(
    check: str,
    code: str,
    model: Any,
    x: Any,
    y: Any = None,
    *,
    padding: Mapping[str, Any] | None = None,
    plan: Mapping[str, Any] | None = None,
    validation: Any = None,
    sample_weight: Any = None,
    fit: Mapping[str, Any] | None = None,
    warned: bool = False,
) -> str:
    """What a check says of a model and its data; empty where it does not fail (or, if asked, warn) with that code."""
    words = None if padding is None else Padding(**padding)
    subject = None if model is None else Subject.from_model(model, padding=words)
    facts = {} if fit is None else {"fit": fit}
    data = Data(x, y, sample_weight, validation)
    if fit is not None and "batch_size" in fit:
        data = replace(data, batch_size=int(fit["batch_size"]))
    context = Context(subject=subject, data=data, padding=words, declared=plan or {}, facts=facts)
    asked = [one for one in all_checks() if one.name == check]
    found = run_checks(context, asked, budget_s=ASKED_S)
    counts = (Status.FAIL, Status.WARN) if warned else (Status.FAIL,)
    return next((f.message for f in found if f.code == code and f.status in counts), "")


def check_case(
    findings: Sequence[Finding],
    context: Context,
    *,
    name: str,
    recipe: Any,
    budget_s: float,
    clock: Clock | None = None,
    progress: Callable[[str], None] = lambda words: None,
    plainly: bool = False,
) -> FoundCase | None:
    """The first finding that its check gives again, on as little as it does; None where none does.

    With `plainly` only what a few lines say is reduced at all.
    """
    data, model = context.data, context.model
    if data is None or not data.is_arrays or model is None:
        return None
    known = {one.name for one in all_checks()} - {LAWS}
    clock = clock or stopwatch()
    deadline = clock() + budget_s
    for finding in findings:
        if clock() > deadline:
            return None
        if finding.status in (Status.FAIL, Status.WARN) and finding.check in known and finding.check not in OF_AMOUNT:
            with preserved(model):
                found = _case(finding, context, name, recipe, deadline, clock, progress, plainly=plainly)
            if found is not None:
                return found
    return None


def _case(
    finding: Finding,
    context: Context,
    name: str,
    recipe: Any,
    deadline: float,
    clock: Clock,
    progress: Callable[[str], None],
    *,
    plainly: bool,
) -> FoundCase | None:
    model, data = context.model, context.data
    assert data is not None
    found = next(_wholes(finding, context, deadline, clock), None)
    if found is None:
        return None
    asked, whole = found[0], found[1].with_(recipe=recipe, name=name)
    asked.form = asked.form or form_of(finding, whole)
    if plainly and asked.form is None:
        return None
    for by_lines in (True, False) if asked.dear else (False,):
        asked.by_lines = by_lines
        reduction = Reduction(
            whole,
            budget_s=max(0.0, deadline - clock()),
            fails=asked.fails,
            passes=asked.passes,
            clock=clock,
            progress=progress,
        )
        small = reduction.run()
        if not by_lines or asked.said(small):
            break
    both = (small, small.with_(weights=tuple(small.model.get_weights())))
    lines = None if asked.form is None else lines_of(asked.form, finding, small)
    original = sum(int(np.size(leaf)) for leaf in leaves([data.x, data.y])) + weights_in(model, whole.batch)
    return FoundCase(
        finding,
        name,
        (
            *((lambda one=one: _script(finding, one, asked.settings, asked.fails, lines)) for one in both if lines),
            *(
                (lambda one=one: _script(finding, one, asked.settings, asked.fails))
                for one in both
                if not asked.of_objects
            ),
        ),
        size=small.size,
        original_size=original,
        prints="wrong: …" if lines else scripts.one_line(finding.message),
        exhausted=reduction.exhausted,
        plain=bool(lines),
    )


def _wholes(finding: Finding, context: Context, deadline: float, clock: Clock) -> Iterator[tuple[_Asked, Case]]:
    """A finding with a case of which its check says so again: with the weights as they are, or with fresh ones.

    What was found before a training need not be seen any more in what was trained.
    """
    model, data = context.model, context.data
    assert data is not None
    weights = tuple(model.get_weights()) if model.built else None
    fingerprint = Fingerprint(finding.code, "check", None, None)
    for settings in plain_settings(context, finding):
        for again in (False, True):
            fresh = reinitialised(model) if again else model
            if fresh is None:
                continue
            first = Case(fresh, next(_beginnings(data, fresh)), fingerprint, weights=None if again else weights)
            first = first.with_(fit=settings.get("fit", {}))
            layer = finding.where.get("layer")
            kind = None if layer is None else kind_of(fresh, str(layer))
            asked = _Asked(finding, settings, not _steps(first), kind)
            if asked.of_objects:
                asked.form = form_of(finding, first)
            starts = (first.with_(batch=batch) for batch in _beginnings(data, fresh))
            yield from ((asked, case) for case in starts if clock() < deadline and asked.fails(case))


@dataclass
class _Asked:
    """What a candidate is asked: the script's own lines, where there are any, and the check."""

    finding: Finding
    settings: Mapping[str, Any]
    broken_before: bool
    """Whether no step of the whole case is finite: then none of a candidate need be."""
    layer_kind: str | None = None
    """Of the layer that is accused: without it another is."""
    form: Form | None = None
    by_lines: bool = False
    """Whether the lines alone are asked; the check then has to agree with what comes out."""

    @property
    def dear(self) -> bool:
        """Whether asking the check of every candidate costs too much, and there are lines that can be asked instead."""
        costs = {one.name: one.cost for one in all_checks()}
        return self.form is not None and costs[self.finding.check] >= DEAR

    @property
    def of_objects(self) -> bool:
        return self.finding.code in OF_OBJECTS

    @property
    def passes(self) -> tuple[Pass, ...]:
        """Where a finding is about values and no lines hold them to it, they are not simplified."""
        if self.of_objects:
            return KEEPING_SHAPES
        about_values = self.form is None and self.finding.where.get("phase") == "data"
        return tuple(one for one in CONFIGURATION if not (about_values and one is simplify_values))

    def fails(self, case: Case) -> bool:
        """What is written is what is kept: the lines first, which cost less."""
        finding = self.finding
        if not has_kind(case.model, self.layer_kind):
            return False
        if self.form is not None and lines_of(self.form, finding, case) is None:
            return False
        agreed = self.form is not None if self.of_objects or self.by_lines else self.said(case)
        return agreed and (self.of_objects or self.broken_before or _steps(case))

    def said(self, case: Case) -> bool:
        """Whether the check says it of a case."""
        finding = self.finding
        return bool(told(finding.check, finding.code, case.model, case.batch.x, case.batch.y, **self.settings))


def plain_settings(context: Context, finding: Finding) -> Iterator[dict[str, Any]]:
    """What a check is told beside arrays: padding and plan, then with them the arguments of `fit`, as plain values."""
    # What a check has only remarked on fails where an experiment has proven it.
    settings: dict[str, Any] = {} if finding.status is Status.FAIL and finding.proof is None else {"warned": True}
    if context.padding is not None:
        fields = {field: getattr(context.padding, field) for field in Padding.__dataclass_fields__}
        usual = Padding()
        settings["padding"] = {field: value for field, value in fields.items() if value != getattr(usual, field)}
    if plan := _plain_values(context.declared):
        settings["plan"] = plan
    yield settings
    if fit := _plain_values(context.fit):
        yield {**settings, "fit": fit}


def _plain_values(given: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in given.items() if _is_plain(value) and key != "verbose"}


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_is_plain(one) for pair in value.items() for one in pair)
    return isinstance(value, bool | int | float | str | np.number)


def _steps(case: Case) -> bool:
    """Whether a step stays finite: a candidate whose loss is no number any more is sick of something else."""
    return getattr(case.model, "optimizer", None) is None or case.asked(case.batch)[0] is None


def _beginnings(data: Data, model: Any) -> Iterator[Batch]:
    """The first rows, then more of them: most findings show on few, and what is copied and hashed should be small.

    A model that declares how many rows a batch has takes no other number.
    """
    declared = {entry.shape[0] for entry in graph_of(model).inputs} - {None} if has_graph(model) else set()
    counts = [*(rows for rows in ROWS_FIRST if rows < len(data)), min(len(data), ROWS_FIRST[-1])]
    for count in sorted(declared) or counts:
        x, y, _ = data.take(np.arange(count))
        yield Batch.of((x, y))


def _named(part: Any, lines: Sequence[str]) -> Any:
    """Of several inputs those that lines name; all where they name none."""
    if not isinstance(part, Mapping):
        return part
    return {key: leaf for key, leaf in part.items() if any(plain(key) in line for line in lines)} or part


def reads(lines: Sequence[str], name: str) -> bool:
    """Whether lines name something."""
    return any(re.search(rf"\b{name}\b", line) for line in lines)


def _script(
    finding: Finding,
    case: Case,
    more: Mapping[str, Any],
    still: Callable[[Case], bool],
    plainly: list[str] | None = None,
) -> scripts.Script:
    script, lines, beside = scripts.Script(), Lines(), dict[str, Any]()
    parts = [(key, part) for key, part in (("x", case.batch.x), ("y", case.batch.y)) if part is not None]
    title = scripts.one_line(f"{finding.code}: {finding.message}", scripts.SAID)
    shared = {"title": title, "fingerprint": finding.code, "slug": re.sub(r"\W+", "_", finding.code)}
    if plainly and not reads(plainly, "model"):
        read = [(key, _named(part, plainly)) for key, part in parts if reads(plainly, key)]
        values = {key: emit.value(key, part, beside, home="np") for key, part in read}
        if reads(plainly, "fit"):
            values["fit"] = plain({key: value for key, value in case.fit.items() if f'"{key}"' in " ".join(plainly)})
        given = ", ".join(values.values())
        scripts.render(
            script, "data.py.j2", shared, lines, beside, arrays=[], returned=scripts.returned(given),
            data=", ".join(values), plainly=plainly, code=(given, *plainly),
        )  # fmt: skip
        return script
    try:
        emit.model_lines(case, lines, script, asked=plainly)
    except NotCode as refused:
        return scripts.Script(refused=str(refused))
    emit.weight_lines(case, lines, beside)
    home = "np" if plainly is None else home_of(plainly)
    if plainly is not None:  # what no line reads need not be there
        last = [place for place, (key, _) in enumerate(parts) if reads([*plainly, *lines.body], key)]
        parts = parts[: max(last, default=-1) + 1]
    arrays = [f"{key} = {emit.value(key, part, beside, home=home)}" for key, part in parts]
    emit.shorten_sources(case, lines, arrays, beside, still)
    if plainly is None:
        lines.imports.add("from tsguard.repro.recheck import told")
    else:
        plainly = of_any_arrays(plainly, case, ", ".join(key for key, _ in parts))
        lines.imports |= {line for line in plainly if line.startswith("from ")}
        plainly = [line for line in plainly if not line.startswith("from ")]
    words = [plain(finding.check), plain(finding.code), "model", *(key for key, _ in parts)]
    more = dict(more)
    fit = more.pop("fit", None)
    if fit and plainly:
        fit = {key: value for key, value in fit.items() if any(plain(key) in line for line in plainly)}
    if fit:
        arrays.append(f"fit = {plain(fit)}")  # may be what is to be mended
        words.append("fit=fit")
    words += [f"{key}={plain(value)}" for key, value in more.items()]
    scripts.render(
        script, "check.py.j2", shared, lines, beside, arrays=arrays, seed=case.seed,
        seeded=case.weights is None and (emit.draws(case) or not plainly or any("random" in one for one in plainly)),
        asked=", ".join(words), data=", ".join(key for key, _ in parts), plainly=plainly, fit=bool(fit),
        code=plainly or (),
    )  # fmt: skip
    return script
