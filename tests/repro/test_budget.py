"""A budget counts work and no waiting."""

import time

from tsguard.repro.budget import stopwatch


def test_time_that_others_take_is_not_charged():
    watch, began = stopwatch(), time.monotonic()
    time.sleep(0.3)  # another program has the processor
    assert time.monotonic() - began >= 0.3
    assert watch() < 0.1


def test_time_that_is_worked_is_charged():
    watch, began = stopwatch(), time.process_time()
    while time.process_time() - began < 0.2:
        sum(range(10_000))
    assert 0.1 < watch() <= time.process_time() - began + 0.01
