"""Findings, their status and role: what every check answers, and how answers combine.

Statuses form a chain, NOT_RUN < PASS < WARN < FAIL < ERROR, and combine by taking the worse (`worst`):

    worst    NOT_RUN  PASS   WARN   FAIL   ERROR
    NOT_RUN  NOT_RUN  PASS   WARN   FAIL   ERROR
    PASS     PASS     PASS   WARN   FAIL   ERROR
    WARN     WARN     WARN   WARN   FAIL   ERROR
    FAIL     FAIL     FAIL   FAIL   FAIL   ERROR
    ERROR    ERROR    ERROR  ERROR  ERROR  ERROR

ERROR means that our own check crashed; being the top, it never looks like a pass. NOT_RUN is the bottom: what did not
run adds nothing, so the worst of no findings at all is NOT_RUN, which is not a pass either.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from tsguard.evidence import Evidence, Proof


class Status(StrEnum):
    """How a check ended. Compares with its own name (`status == "FAIL"`) and by severity (`status >= "WARN"`)."""

    NOT_RUN = "NOT_RUN"
    PASS = "PASS"
    WARN = "WARN"
    FAIL = "FAIL"
    ERROR = "ERROR"

    @property
    def severity(self) -> int:
        """Position in the chain: 0 for NOT_RUN up to 4 for ERROR."""
        return _CHAIN.index(self.value)

    def __str__(self) -> str:
        return self.value

    def __lt__(self, other: str) -> bool:
        return self.severity < Status(other).severity

    def __le__(self, other: str) -> bool:
        return self.severity <= Status(other).severity

    def __gt__(self, other: str) -> bool:
        return self.severity > Status(other).severity

    def __ge__(self, other: str) -> bool:
        return self.severity >= Status(other).severity


_CHAIN = ("NOT_RUN", "PASS", "WARN", "FAIL", "ERROR")


class Role(StrEnum):
    """What a finding is to the failure: its cause, a symptom of it, or a note beside it."""

    CAUSE = "cause"
    SYMPTOM = "symptom"
    NOTE = "note"

    def __str__(self) -> str:
        return self.value


WHERE_KEYS = frozenset(
    "layer op phase step epoch batch timestep sample row feature column split entity config_key loss_term parameter "
    "law expectation file line input output id".split()
)
"""The keys that a finding's place may have. `step`, `timestep` count from 0; `step` is the global train step."""

PHASES = ("data", "forward", "loss", "backward", "update")
"""The phases of one training step, in the order in which a fault can first show."""


@dataclass(frozen=True)
class Finding:
    """A check's answer."""

    code: str
    status: Status
    role: Role
    message: str
    where: Mapping[str, Any] = field(default_factory=dict)
    evidence: tuple[Evidence, ...] = ()
    remedy: str = ""
    proof: Proof | None = None
    check: str = ""
    """Name of the check that spoke."""
    score: float = 0.0
    """How completely this explains the failure; ranks findings of the same status and role."""
    explains: tuple[str, ...] = ()
    """Codes of the symptoms that this cause explains."""
    seconds: float | None = None
    """What the answer cost."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "status", Status(self.status))
        object.__setattr__(self, "role", Role(self.role))
        object.__setattr__(self, "evidence", tuple(self.evidence))
        object.__setattr__(self, "explains", tuple(self.explains))
        object.__setattr__(self, "where", {key: value for key, value in self.where.items() if value is not None})
        unknown = sorted(set(self.where) - WHERE_KEYS)
        if unknown:
            raise ValueError(f"finding {self.code}: unknown place {unknown}; the keys are {sorted(WHERE_KEYS)}")

    def __hash__(self) -> int:
        return hash((self.code, self.status, self.role, self.message))

    @property
    def anchor(self) -> str:
        """A stable name for links: the code, and the place that tells two findings of one code apart."""
        place = "-".join(
            str(self.where[key])
            for key in sorted(self.where)
            if key in ("layer", "column", "parameter", "law", "expectation")
        )
        tidy = "".join(char if char.isalnum() else "-" for char in place)
        return f"check-{self.code}-{tidy}".rstrip("-")


_ROLE_RANK = {Role.CAUSE: 0, Role.SYMPTOM: 1, Role.NOTE: 2}


def worst(statuses: Iterable[Status | str]) -> Status:
    """The join of the chain: NOT_RUN for nothing at all, otherwise the worst of them."""
    return max((Status(status) for status in statuses), key=lambda status: status.severity, default=Status.NOT_RUN)


def ranked(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Most likely cause first: what failed before what passed, causes before symptoms, the better proven first.

    A proof outweighs any score, because a score is only an opinion. The sort is stable, so that checks that ran
    earlier (data before model before training) win ties.
    """

    def key(finding: Finding) -> tuple[int, int, float, float]:
        troubled = finding.status in (Status.WARN, Status.FAIL)
        group = 0 if troubled and finding.role is Role.CAUSE else 1
        effect = finding.proof.effect if finding.proof is not None and finding.proof.effect is not None else -1.0
        severity = finding.status.severity
        if group == 0:
            return (0, -severity, -effect, -finding.score)
        return (1, -severity * 10 + _ROLE_RANK[finding.role], -effect, -finding.score)

    return tuple(sorted(findings, key=key))


def causes(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings with role cause and status WARN or FAIL, ranked."""
    return tuple(f for f in ranked(findings) if f.role is Role.CAUSE and f.status in (Status.WARN, Status.FAIL))
