"""Asking the checks: each on its own, so that a crash is an ERROR finding and no answer is lost.

The model is put back after every single check; a check that is out of time or out of its depth is NOT_RUN with
the reason, never a silent pass.
"""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Callable, Iterable, Iterator

from tsguard import catalogue
from tsguard.backend import AsFound, preserved
from tsguard.checks.bench import refusal, shelf
from tsguard.checks.gathered import OF_VALUES, first_batch, gathered, left_alone, split_off
from tsguard.checks.registry import Check, Context, all_checks
from tsguard.errors import ConfigError
from tsguard.evidence import Evidence
from tsguard.findings import Finding, Role, Status
from tsguard.probes.stage import get_ready, measured_batches


def run_checks(
    context: Context,
    checks: Iterable[Check] | None = None,
    *,
    budget_s: float = 60.0,
    progress: Callable[[str], None] = lambda name: None,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[Finding, ...]:
    """Every check's answer, in the order of asking. `progress` is told the name of the check that starts."""
    started = clock()
    findings: list[Finding] = []
    with _built(context) as found:
        for one in all_checks() if checks is None else checks:
            left = budget_s - (clock() - started)
            asked = gathered(context) if _of_arrays(one) else context
            asked = first_batch(asked) if one.name in OF_VALUES else asked
            asked = split_off(asked) if "validation" in one.needs else asked
            missing = asked.missing(one.needs)
            if missing:
                findings.extend(_not_run(one, "; ".join(missing)))
                continue
            if left <= 0:
                findings.extend(_not_run(one, f"the time budget of {budget_s:g} s was spent before its turn"))
                continue
            progress(one.name)
            asked.budget_s = left
            begun = clock()
            answers = _ask(one, asked, found)
            if any(answer.status is Status.ERROR for answer in answers) and _raises_by_itself(context, findings):
                answers = [_unasked(one) if answer.status is Status.ERROR else answer for answer in answers]
            spent = clock() - begun
            findings.extend(_stamped(answer, one, spent) for answer in answers)
    return tuple(findings)


@contextlib.contextmanager
def _built(context: Context) -> Iterator[AsFound | None]:
    """What `fit` builds before its first step is built once and not by every check; afterwards it is unbuilt again.

    A model that cannot be built so, or whose data can be read only once, is left as it is, and each check meets that by
    itself. What is yielded puts the model back after a check.
    """
    model, data = context.model, context.data
    with contextlib.ExitStack() as held:
        if model is not None and data is not None and (data.is_arrays or hasattr(data.x, "__len__")):
            held.enter_context(preserved(model))
            try:
                with _loader_kept(context):
                    get_ready(model, measured_batches(data, count=1)[0])
            except Exception:  # `a step that raises` tells of it, with its place
                held.close()
            else:
                held.enter_context(shelf(context))
        yield None if model is None else AsFound(model)


def _loader_kept(context: Context) -> contextlib.AbstractContextManager[None]:
    """A loader that draws must hand the run what it would have handed it without us."""
    data = context.data
    return contextlib.nullcontext() if data is None or data.is_arrays else left_alone(data.x)


def _of_arrays(one: Check) -> bool:
    """Whether a check asks of arrays what rows of a loader can answer as well."""
    return "arrays" in one.needs and one.ask.__module__.startswith("tsguard.checks.data")


def _ask(one: Check, context: Context, found: AsFound | None) -> list[Finding]:
    try:
        with contextlib.ExitStack() as afterwards:
            if found is not None:
                afterwards.callback(found.restore)
            afterwards.enter_context(_loader_kept(context))
            answers = list(one.ask(context))
    except ConfigError:  # what the user told us cannot be: no check can answer before it is mended
        raise
    except Exception as crash:  # whatever a check does wrong, the others are still asked
        return [crashed(one.codes[0], one.name, crash)]
    spoken = {answer.code for answer in answers}
    silent = [code for code in one.codes if code not in spoken]
    return answers + [passed(code, check=one.name) for code in silent]


def passed(code: str, *, check: str = "", message: str = "") -> Finding:
    """The answer of a check that looked and found nothing."""
    words = message or f"looked for {catalogue.entry(code).title.lower()} and found none"
    return Finding(code, Status.PASS, Role.NOTE, words, check=check)


def crashed(code: str, name: str, crash: BaseException) -> Finding:
    """Our own bug as a finding: the whole traceback is kept as evidence."""
    trace = "".join(traceback.format_exception(crash))
    message = f"check {name!r} itself crashed with {type(crash).__name__}: {crash}. It says nothing about the subject."
    remedy = "Please report it with the traceback below; the other checks are not affected."
    return Finding(
        code, Status.ERROR, Role.NOTE, message, evidence=(Evidence("traceback", trace),), remedy=remedy, check=name
    )


def _raises_by_itself(context: Context, findings: list[Finding]) -> bool:
    """Whether it is the model that raises on its own data: that is told once, or meant, and no bug of a check."""
    fails = any(f.code == "step-fails" and f.status in (Status.WARN, Status.FAIL) for f in findings)
    return fails or refusal(context) is not None


def _unasked(one: Check) -> Finding:
    return Finding(one.codes[0], Status.NOT_RUN, Role.NOTE, "not asked: the model raises on its data", check=one.name)


def _not_run(one: Check, reason: str) -> list[Finding]:
    return [Finding(code, Status.NOT_RUN, Role.NOTE, f"not asked: {reason}", check=one.name) for code in one.codes]


def _stamped(answer: Finding, one: Check, seconds: float) -> Finding:
    from dataclasses import replace

    return replace(answer, check=answer.check or one.name, seconds=round(seconds, 4))
