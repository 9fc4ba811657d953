"""A budget counts work, and waiting only where it is long."""

import time

from tsguard.repro.budget import MOST, stopwatch


def test_time_that_others_take_is_hardly_charged():
    watch, began = stopwatch(), time.monotonic()
    time.sleep(0.3)  # another program has the processor
    waited = time.monotonic() - began
    assert waited / MOST <= watch() < waited / 2


def test_time_that_is_worked_is_charged():
    watch, began = stopwatch(), time.process_time()
    while time.process_time() - began < 0.2:
        sum(range(10_000))
    assert watch() > 0.1
