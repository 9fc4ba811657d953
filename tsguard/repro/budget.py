"""The time that a search may take.

It is counted in work: what another program on the machine takes is not charged, so that one failure comes to one script
whether the machine is busy or not. Only where a budget is spent can two calls differ, and the page of the script says
that it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], float]


MOST = 3.0
"""Seconds of the wall for one of work at the most: on a machine that is busier than that nobody waits longer."""


def stopwatch() -> Clock:
    """Seconds of work from now on: of the wall clock or of the processor, whichever has moved less.

    Several threads at once use more of the processor than passes on the wall; a device at work, or a program beside
    this one, uses less.
    """
    wall, processor = time.monotonic(), time.process_time()

    def read() -> float:
        passed = time.monotonic() - wall
        return max(min(passed, time.process_time() - processor), passed / MOST)

    return read
