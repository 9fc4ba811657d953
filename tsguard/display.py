"""What a person sees while a command runs: a line that renews itself on a terminal, plain lines elsewhere, or nothing.

Everything goes to stderr, so that stdout holds the report alone.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from tsguard.train.progress import Standing

METRICS_SHOWN = 5
"""More do not fit a line of 120 characters; the page has all of them."""
PLAIN_EVERY_S = 30.0
"""Between two epochs a log of plain lines says that the run lives, and no more than that."""


class Quiet:
    """Shows nothing."""

    def told(self, name: str) -> None:
        """What runs now."""

    def follow(self, standing: Standing) -> None:
        """How far the training is."""

    def close(self) -> None:
        """Nothing more is coming."""


class Lines(Quiet):
    """A line for each stage and each epoch: for logs of machines."""

    def __init__(self, console: Console, *, clock: Any = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._last = clock()

    def told(self, name: str) -> None:
        self._print(f"… {name}")

    def follow(self, standing: Standing) -> None:
        if standing.epoch_ended or self._clock() - self._last > PLAIN_EVERY_S:
            self._print(in_words(standing))

    def _print(self, text: str) -> None:
        self._last = self._clock()
        self._console.print(text, soft_wrap=True, markup=False, highlight=False)


class Renewed(Quiet):
    """Two lines that renew themselves: for a person at a terminal."""

    def __init__(self, console: Console) -> None:
        from rich.live import Live

        self._live = Live(console=console, transient=True, auto_refresh=False)
        self._console = console
        self._started = False

    def told(self, name: str) -> None:
        self._show(f"… {name}")

    def follow(self, standing: Standing) -> None:
        self._show(_bar(standing))
        if standing.epoch_ended:
            self._console.print(in_words(standing), soft_wrap=True, markup=False, highlight=False)

    def close(self) -> None:
        self._live.stop()

    def _show(self, what: RenderableType) -> None:
        if not self._started:
            self._live.start()
            self._started = True
        self._live.update(what, refresh=True)


def _bar(standing: Standing) -> RenderableType:
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    row = Table.grid(padding=(0, 1))
    steps = standing.steps
    row.add_row(
        f"epoch {standing.epoch + 1}/{standing.epochs}",
        ProgressBar(total=steps, completed=standing.step, width=30) if steps else "",
        f"step {standing.step}" + (f"/{steps}" if steps else ""),
        f"{standing.steps_per_s:.3g} steps/s",
        "" if standing.seconds_left is None else f"{duration(standing.seconds_left)} left",
        standing.guard,
    )
    return Group(row, Text(_numbers(standing), style="dim", no_wrap=True, overflow="ellipsis"))


def in_words(standing: Standing) -> str:
    """One line: epochs, steps, loss and metrics, rate, throughput, time left, the guard's state."""
    steps = f"step {standing.step}" + (f"/{standing.steps}" if standing.steps else "")
    left = () if standing.seconds_left is None else (f"{duration(standing.seconds_left)} left",)
    parts = (
        f"epoch {standing.epoch + 1}/{standing.epochs}",
        steps,
        _numbers(standing),
        f"{standing.steps_per_s:.3g} steps/s",
        *left,
        standing.guard,
    )
    return "  ".join(part for part in parts if part)


def _numbers(standing: Standing) -> str:
    """The losses first, then other metrics as they come, then the rate."""
    kept = {name: value for name, value in standing.metrics.items() if not name.startswith("learning_rate")}
    names = sorted(kept, key=lambda name: name not in ("loss", "val_loss"))
    rate = "" if standing.rate is None else f"rate {standing.rate:.3g}"
    return "  ".join([*(f"{name} {kept[name]:.4g}" for name in names[:METRICS_SHOWN]), rate]).strip()


def duration(seconds: float) -> str:
    """45 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


@contextlib.contextmanager
def display(*, quiet: bool, console: Console | None = None) -> Iterator[Quiet]:
    """The display that fits where stderr goes."""
    from rich.console import Console

    where = console or Console(stderr=True)
    shown = Quiet() if quiet else Renewed(where) if where.is_terminal else Lines(where)
    try:
        yield shown
    finally:
        shown.close()
