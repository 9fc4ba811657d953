"""What happens after a trip that the run cannot survive: stop, raise, skip the batch, or roll back; never zeros for
NaN.

    policy     weights afterwards                      then
    stop       right before the first bad step         fit ends after this step, nothing is raised
    raise      right before the first bad step         GuardStop leaves fit
    skip       right before the first bad step         training goes on with the next batch
    rollback   the last clean state                    training goes on; where any batch fails, at half the rate

skip and rollback have a budget; when it is used up, they stop. User callbacks are never rewound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from tsguard.errors import ConfigError, explain
from tsguard.guard.investigate import Verdict
from tsguard.guard.recorder import Recorder
from tsguard.guard.state import StateBuffer

POLICIES = ("stop", "raise", "skip", "rollback")

BUDGET = 3
"""Recoveries of one run. A fault that comes back three times is not weather but climate."""

SLOWER = 0.5
"""What a rollback does to the rate where every batch fails: the smallest change that is a change."""


@dataclass(frozen=True)
class Recovery:
    """What was done, and what it cost."""

    done: str
    steps_lost: int
    words: str

    @property
    def goes_on(self) -> bool:
        """Whether training does."""
        return self.done != "stop"


def checked_policy(policy: str) -> str:
    """A policy by its name."""
    if policy not in POLICIES:
        raise ConfigError(
            explain(
                "Guard(policy=…)",
                received=repr(policy),
                expected=f"one of {', '.join(POLICIES)}",
                todo='Use policy="stop" to end training with the last clean weights.',
            )
        )
    return policy


def recover(model: Any, policy: str, used: int, budget: int, recorder: Recorder, verdict: Verdict | None) -> Recovery:
    """Put the model right. The answer says whether training goes on."""
    goes_on = policy in ("skip", "rollback") and used < budget
    before, clean = (verdict.before if verdict is not None else None), recorder.clean
    bad_step = verdict.record.step if verdict is not None and verdict.record is not None else None
    if policy == "rollback" and goes_on and recorder.ready and clean is not None:
        lost = (bad_step if bad_step is not None else recorder.clean_step) - recorder.clean_step
        clean.restore()
        words = f"Rolled back to the clean state of step {recorder.clean_step}: {lost} steps of training are lost."
        if verdict is not None and verdict.binding == "persistent":
            words += _slower(model)
        return Recovery("rollback", lost, words + _left(used, budget))
    state: StateBuffer | None = before or (clean if recorder.ready else None)
    if state is None:
        return Recovery(
            policy if goes_on else "stop",
            0,
            "The update was left out, so that the weights are those from before this step."
            if recorder.clean_step < 0
            else "Nothing was recorded, so that no earlier state could be put back.",
        )
    state.restore()
    step = bad_step if before is not None else recorder.clean_step
    words = f"The weights are those from right before step {step}; they were verified finite."
    if goes_on:
        return Recovery("skip", 1, f"The batch of step {bad_step} was skipped: {words}" + _left(used, budget))
    if policy in ("skip", "rollback"):
        words = f"The budget of {budget} recoveries is used up, so training stops. " + words
    return Recovery("stop", 0, words)


def _left(used: int, budget: int) -> str:
    return f" Recovery {used + 1} of {budget}."


def _slower(model: Any) -> str:
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    rate = getattr(optimizer, "_learning_rate", None)
    value = getattr(rate, "value", None)
    if not isinstance(value, torch.Tensor):
        return " The learning rate follows a schedule and was left as it is."
    with torch.no_grad():
        value.mul_(SLOWER)
    return f" The learning rate was lowered to {float(value):.3g}."
