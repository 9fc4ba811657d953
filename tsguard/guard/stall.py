"""Notices that training stands still, says what it waits for, and keeps the stack it waits in.

A thread of its own sleeps almost all the time: a hung loader or a lock cannot be noticed from inside of it. It only
reads: the clock, where the run last was, and the stack of the thread that trains.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

STALL_SECONDS = 120.0
"""Nothing is called a stall before: slow storage, a first compilation or a page of swap take their seconds too."""

STALL_TIMES = 30.0
"""… nor before this many usual steps have gone by."""

STALL_BETWEEN = 5.0
"""Between epochs a stall has to be this many times longer: validation and the callbacks of an epoch take their time."""

LOOKS = 8
"""How often within the shortest stall the thread looks at the clock."""


@dataclass(frozen=True)
class Stall:
    """One standstill."""

    step: int
    seconds: float
    where: str
    stack: str


class StallWatch:
    """One run's watchdog. `seconds=None` never starts it."""

    def __init__(
        self, seconds: float | None, told: Callable[[Stall], None], *, alive: Callable[[Any], bool] = lambda frame: True
    ) -> None:
        self.seconds = seconds
        self.told = told
        self.alive = alive
        self.place = "before the first step"
        self.step = 0
        self.between = True
        self.usual = 0.0
        self._last = time.monotonic()
        self._silent = False
        self._over = threading.Event()
        self._trains = threading.get_ident()
        self._thread: threading.Thread | None = None

    def tick(self, place: str, step: int, *, between: bool = False) -> None:
        """The run is here now."""
        self.place, self.step, self.between = place, step, between
        self._last, self._silent = time.monotonic(), False
        if self._thread is None and self.seconds is not None and step > 0:
            # Started only now: the workers of a loader were forked before there was a second thread.
            self._thread = threading.Thread(target=self._watch, name="tsguard-stall", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """The run is over."""
        self._over.set()

    def _watch(self) -> None:
        assert self.seconds is not None
        while not self._over.wait(self.seconds / LOOKS):
            waited = time.monotonic() - self._last
            least = max(self.seconds, STALL_TIMES * self.usual) * (STALL_BETWEEN if self.between else 1.0)
            if waited < least or self._silent:
                continue
            self._silent = True
            frame = sys._current_frames().get(self._trains)
            if frame is None or not self.alive(frame):
                return  # the fit died and nobody told us
            stack = "".join(traceback.format_stack(frame))
            self.told(Stall(self.step, waited, self.place, stack))
