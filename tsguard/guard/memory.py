"""How much memory the process (or the device) holds: now, and at most."""

from __future__ import annotations

import os


def now_mb() -> float | None:
    """What is held now: the device's allocations on a GPU, else the process' resident memory. None where unknown."""
    import torch

    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return float(torch.cuda.memory_allocated() / 1e6)
    try:
        with open("/proc/self/statm", encoding="ascii") as fields:
            return int(fields.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except (OSError, ValueError, IndexError):  # a platform without /proc
        return None


def peak_mb() -> float:
    """The most that was held."""
    import torch

    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return float(torch.cuda.max_memory_allocated() / 1e6)
    try:
        import resource
    except ImportError:  # not on every platform
        return 0.0
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)
