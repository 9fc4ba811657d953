"""Fits in step: a few steps of each, then the next, so that their ratio is of steps within a blink of each other."""

from __future__ import annotations

import gc
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

Spent = tuple[float, float]
"""Wall and processor seconds."""


class Turn(keras.callbacks.Callback):
    """The last callback of a fit: gives the word on after some steps, and takes the time of its own turns."""

    def __init__(self, steps: int, done: threading.Semaphore) -> None:
        super().__init__()
        self.mine, self.done = threading.Semaphore(0), done
        self.laps: list[Spent] = []
        self.over = False
        self.error: BaseException | None = None
        self._every, self._seen = steps, steps // 2  # what a fit does in rounds (a checkpoint) falls amid a turn

    def begin(self) -> None:
        """Wait for the word."""
        self.mine.acquire()
        self._began = time.perf_counter(), time.process_time()

    def end(self) -> None:
        """Give it back."""
        wall, processor = self._began
        self.laps.append((time.perf_counter() - wall, time.process_time() - processor))
        self.done.release()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._seen += 1
        if self._seen % self._every == 0:
            self.end()
            self.begin()

    def run(self, fit: Callable[[Any], None]) -> None:
        """The whole fit, in its own thread."""
        self.begin()
        try:
            fit(self)
        except BaseException as error:
            self.error = error
        finally:
            self.over = True
            self.end()


def in_step(fits: dict[str, Callable[[Any], None]], *, seed: int, steps: int = 1) -> dict[str, list[Spent]]:
    """What each fit's turns took: the first one begins the fit, the last one ends it.

    Each fit takes a callback that it puts last. Exactly one runs at a time, in an order drawn anew for every round. A
    full search for garbage falls to the fit in whose turn it is due, whoever made the garbage, and over all models that
    stand it takes several steps' time: so what stands already is not searched. What a fit makes itself is.
    """
    gc.collect()
    gc.freeze()
    order, done = random.Random(seed), threading.Semaphore(0)
    turns = {arm: Turn(steps, done) for arm in fits}
    threads = [threading.Thread(target=turns[arm].run, args=(fit,), daemon=True) for arm, fit in fits.items()]
    for thread in threads:
        thread.start()
    while waiting := [turn for turn in turns.values() if not turn.over]:
        order.shuffle(waiting)
        for turn in waiting:
            turn.mine.release()
            done.acquire()
    for thread in threads:
        thread.join()
    gc.unfreeze()
    for turn in turns.values():
        if turn.error is not None:
            raise turn.error
    return {arm: turn.laps for arm, turn in turns.items()}


def total(laps: list[Spent]) -> Spent:
    """Wall and processor seconds of some turns."""
    return sum(wall for wall, _ in laps), sum(processor for _, processor in laps)


def bound(ratios: list[float]) -> float:
    """Upper end of the 95 % bootstrap interval of the median."""
    rng = np.random.default_rng(0)
    draws = rng.choice(ratios, size=(4000, len(ratios)), replace=True)
    return float(np.quantile(np.median(draws, axis=1), 0.975))
