"""The last words of a run that is ended from outside, where nobody else speaks them.

SIGTERM kills a Python process on the spot. While a guard watches, and only where nobody has asked for the signal
himself (`tsguard train` does, and makes a checkpoint), the step that runs is finished, the report is written, and
then the process ends by the very signal that was sent. An exception that nobody catches ends the interpreter in
order: the report is written on its way out.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

GRACE = 8.0
"""Seconds that a step may take to end after SIGTERM. Schedulers kill after ten or more; what is known is on disk by
then."""


class Farewell:
    """Waits for the end of the process while a run is watched."""

    def __init__(self, last_words: Callable[[str], None]) -> None:
        self.asked = False
        self._last_words = last_words
        self._process = os.getpid()
        self._armed = False
        self._timer: threading.Timer | None = None

    def arm(self) -> None:
        """Be there when the interpreter ends, and for SIGTERM where it would kill at once."""
        atexit.register(self._at_exit)
        if threading.current_thread() is not threading.main_thread():  # Python hears signals there only
            return
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, self._heard)
            self._armed = True

    def disarm(self) -> None:
        """The run is over: everything as it was."""
        atexit.unregister(self._at_exit)
        if self._timer is not None:
            self._timer.cancel()
        if self._armed and threading.current_thread() is threading.main_thread():
            if signal.getsignal(signal.SIGTERM) == self._heard:  # whoever took it since keeps it
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self._armed = False

    def leave(self) -> None:
        """Between two steps: where the end was asked for, speak and go."""
        if not self.asked:
            return
        self._last_words("SIGTERM ended the process")
        self.disarm()
        os.kill(os.getpid(), signal.SIGTERM)

    def _heard(self, number: int, frame: Any) -> None:
        if os.getpid() != self._process:  # a forked child (a loader's worker) inherits this, and is to die as before
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
            return
        if self.asked:
            return
        self.asked = True
        self._timer = threading.Timer(GRACE, os._exit, (128 + number,))
        self._timer.daemon = True
        self._timer.start()

    def _at_exit(self) -> None:
        if os.getpid() != self._process:
            return
        error = getattr(sys, "last_value", None)
        self._last_words(
            "the process ended before the run did" if error is None else f"{type(error).__name__}: {error}"
        )
