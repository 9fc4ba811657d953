"""What a guarded run leaves behind: a value that diagnosis, reproduction and pages are built on.

`GuardOutcome` holds the findings, the series, the trip that ended or disturbed the run, where it came from, and,
while the process lives, the recorded window (`replay`), with which the last steps can be run again under other
conditions:

    with outcome.replay.session() as replay:
        replay.until(outcome.trip.step)                          # the model stands right before the bad step
        again, heard = replay.run(replay.records[-1])            # … and runs it once more
        changed, heard = replay.run(replay.records[-1], data=…)  # … or with another batch
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tsguard.evidence import Evidence
from tsguard.findings import Finding

if TYPE_CHECKING:
    from tsguard.guard.replay import Replay


@dataclass(frozen=True)
class Trip:
    """A rule that fired: what, where in time, and the numbers that made it fire."""

    code: str
    step: int
    """0-based global train step at which the rule saw it."""
    epoch: int
    batch: int
    message: str
    nonfinite: bool = False
    """Whether the run cannot go on as it is."""
    phase: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Element:
    """Which element of a tensor: its index, and what that index means."""

    index: tuple[int, ...]
    sample: int | None = None
    timestep: int | None = None
    feature: int | str | None = None
    row: int | None = None
    count: int = 1
    """How many elements are affected in all."""
    of: tuple[str, str | None] | None = None
    """The array of the batch that its axes come from: x, y or sample_weight, and its name in a dict."""
    id: Any = None
    """The id of the sample, where samples have ids."""


@dataclass(frozen=True)
class Origin:
    """The operation that made the first bad value, and how it got there."""

    step: int
    phase: str
    op: str | None
    layer: str | None
    code: str
    """The finding's code that this amounts to."""
    mechanism: str
    """In words: what the operation did with which values."""
    kind: str
    """singularity, overflow, empty, precision, data, padding, fill or unknown."""
    own: bool
    """Whether the operation stands in the user's own code (and not inside a layer of Keras)."""
    element: Element | None = None
    values: tuple[tuple[str, Any], ...] = ()
    """The values that went in, at the element, by name of the operand."""
    loss_term: str | None = None
    file: str | None = None
    line: int | None = None
    source: str | None = None
    parameter: str | None = None
    input: str | None = None
    output: str | None = None
    hidden_by: str | None = None
    others: tuple[str, ...] = ()
    """Further producers on the same slice, in the order in which they ran."""
    evidence: tuple[Evidence, ...] = ()


@dataclass
class GuardOutcome:
    """The whole of a guarded run. Everything but `model`, `replay` and `data` can be written to a file."""

    model: Any
    findings: list[Finding] = field(default_factory=list)
    series: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    """Name → points (step, value); per-epoch series are named `epoch/…` and carry the epoch."""
    metrics: dict[str, float] = field(default_factory=dict)
    trip: Trip | None = None
    origin: Origin | None = None
    trips: list[Trip] = field(default_factory=list)
    replay: Replay | None = None
    """The window that was recorded when the trip came (else the last one)."""
    steps: int = 0
    epochs: int = 0
    policy: str = "stop"
    stopped: bool = False
    recoveries: int = 0
    data: Any = None
    """Keras' data adapter of the fit, where there was one: to find a sample's row in the data set."""
    inspections: list[Origin] = field(default_factory=list)
    folder: Path | None = None
    """The run's folder, where one is written."""
    facts: dict[str, Any] = field(default_factory=dict)
    context: Any = None
    """What the checks were told of the training, where a session knows it: its validation part, its arguments."""
