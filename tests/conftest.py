"""Keras runs on torch here, on one thread a worker: two workers share two cores."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", os.environ.get("CUDA_VISIBLE_DEVICES", ""))

from hypothesis import HealthCheck, settings

# The same examples every time, and no complaint about a slow machine: timing says nothing on a shared one.
settings.register_profile("repeatable", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("repeatable")

pytest_plugins = ["pytester"]


SWEEPS = ("tests/fixtures/", "tests/laws/test_zoo.py")
"""Where a slow test is one of hundreds over a library: together they take longer than a submission may wait."""


def pytest_collection_modifyitems(items):
    """Slow tests over whole libraries are sweeps; slow tests that train on real data are recipes."""
    import pytest

    for item in items:
        if item.get_closest_marker("slow") is None:
            continue
        if any(place in item.nodeid for place in SWEEPS):
            item.add_marker(pytest.mark.sweep)
        elif "tests/models/" in item.nodeid and item.get_closest_marker("realdata") is not None:
            item.add_marker(pytest.mark.recipe)
