"""Whether the model takes its data at all: one training step, before anything is asked about what it does.

Where the step raises, every other check has nothing to look at. The error is the user's own; it is told once, with the
line where it was raised, in place of many answers that say that nothing could be asked.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable

from tsguard import catalogue
from tsguard.checks.bench import set_up
from tsguard.checks.registry import Context, check
from tsguard.evidence import Evidence
from tsguard.findings import Finding
from tsguard.probes.dispatch import is_users_own

COLOURS = re.compile(r"\x1b\[[0-9;]*m")
"""Keras prints its messages in bold."""


@check("a step that raises", codes=("step-fails",), needs=("model", "data"), cost=0)
def failing_step(context: Context) -> Iterable[Finding]:
    """The exception of a step on the first batch. Data that has no loss to be trained with is no fault here."""
    bench = set_up(context, count=1)
    error = bench.step.error
    if error is None:
        return
    forward = bench.step.answer is None
    trained = getattr(context.model, "_compile_loss", None) is not None or "fit" in context.facts
    where: dict[str, object] = {"phase": "forward" if forward else "loss"}
    failed = next((call.layer for call in bench.step.calls if call.output is None), None)
    if forward and failed is not None:
        where["layer"] = str(getattr(failed, "path", None) or failed.name)
    yield step_fails(error, where=where, status=None if forward or trained else "WARN")


def step_fails(
    error: BaseException, *, where: dict[str, object], what: str = "a batch", status: str | None = None
) -> Finding:
    """The exception of a step as a finding, with the user's own line where it was raised."""
    own = _own_frame(error)
    place = where if own is None else {**where, "file": own[0], "line": own[1]}
    return catalogue.finding(
        "step-fails",
        f"`train_step` on {what} of the data raises {type(error).__name__}: {_words(error)}",
        where=place,
        status=status,
        evidence=(Evidence("traceback", COLOURS.sub("", "".join(traceback.format_exception(error)))),),
    )


def _words(error: BaseException) -> str:
    """The sentence that says what is wrong: Keras puts one about itself before it."""
    lines = [line.strip() for line in COLOURS.sub("", str(error)).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith("Exception encountered when calling")]
    return (told or lines or ["(no message)"])[0]


def _own_frame(error: BaseException) -> tuple[str, int] | None:
    """The innermost line that is not of an installed package."""
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if is_users_own(frame.filename)]
    return (own[-1].filename, int(own[-1].lineno or 0)) if own else None
