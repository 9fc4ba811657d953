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
