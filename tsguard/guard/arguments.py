"""What Guard may be told, held against what it understands."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from tsguard.errors import ConfigError, explain


def checked_steps(inspect: Any) -> tuple[int, ...]:
    """Numbers of steps, as a tuple."""
    steps = tuple(inspect) if isinstance(inspect, Iterable) and not isinstance(inspect, str) else (inspect,)
    if all(isinstance(step, int | np.integer) and not isinstance(step, bool) and step >= 0 for step in steps):
        return tuple(int(step) for step in steps)
    raise ConfigError(
        explain(
            "Guard(inspect=…)",
            received=repr(inspect),
            expected="numbers of steps, counted from 0 over the whole training",
            todo="Write inspect=[120] to look into the 121st update.",
        )
    )


def checked_repro(repro: str | bool) -> str | bool:  # noqa: FBT001 - the public contract
    """Whether a reproduction is made."""
    if isinstance(repro, bool) or repro == "auto":
        return repro
    raise ConfigError(
        explain("Guard(repro=…)", received=repr(repro), expected='"auto", True or False', todo='Leave it out: "auto".')
    )


def checked_budget(budget_s: float) -> float:
    """Seconds, from 0."""
    if isinstance(budget_s, int | float) and not isinstance(budget_s, bool) and budget_s >= 0:
        return budget_s
    raise ConfigError(
        explain(
            "Guard(budget_s=…)",
            received=repr(budget_s),
            expected="seconds, from 0",
            todo="0 looks for no causes.",
        )
    )


def checked_sync(sync_every: int | str) -> int | str:
    """ "auto" or a number of steps."""
    if sync_every == "auto" or (isinstance(sync_every, int) and not isinstance(sync_every, bool) and sync_every > 0):
        return sync_every
    raise ConfigError(
        explain(
            "Guard(sync_every=…)",
            received=repr(sync_every),
            expected='"auto" or a number of steps from 1',
            todo='Leave it out: "auto" reads the device about four times a second.',
        )
    )
