"""The batch at fault, kept beside the run: privately, not for long, and in no page.

A run that ends on a value that is not finite leaves the batch of its first bad step in its own folder (`captured/`),
readable by its owner alone, so that it can be looked at when the process is gone. Whatever was captured earlier is
removed when the next guard begins in the same folder of reports and it is older than KEEP_DAYS, or more than
KEEP_RUNS runs came after it. Batches of steps that went well leave memory with the next clean state and never reach
the disk.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from tsguard.dataset import packed
from tsguard.errors import StoreError
from tsguard.guard.leaves import named_leaves
from tsguard.guard.recorder import StepRecord
from tsguard.store import RunFolder

FOLDER = "captured"

KEEP_DAYS = 14.0
"""Long enough to come back from a holiday, short enough that data does not pile up where nobody looks for it."""

KEEP_RUNS = 20
"""A search that fails over and over keeps the batches of its last runs only."""

MB_MAX = 64.0
"""A larger batch is not written: reports are no place for data sets."""


def keep(folder: RunFolder, record: StepRecord) -> Path | None:
    """Write the batch of a step; None where it is too large to be kept."""
    arrays: dict[str, Any] = {}
    for role, name, tensor in named_leaves(record.data):
        arrays[role if name is None else f"{role}.{name}"] = tensor.numpy()
    if not arrays or sum(array.nbytes for array in arrays.values()) > MB_MAX * 1e6:
        return None
    return folder.write_bytes(f"{FOLDER}/step-{record.step:06d}.npz", packed(arrays), private=True)


def expire(out: str | Path, *, now: float) -> int:
    """Remove what is past its time in every run of a folder of reports; how many batches went."""
    kept = sorted(Path(out).glob(f"*/{FOLDER}/*.npz"), key=lambda path: path.stat().st_mtime, reverse=True)
    newest_first = list(dict.fromkeys(path.parent.parent for path in kept))
    gone = 0
    for path in kept:
        with contextlib.suppress(OSError, StoreError):
            if newest_first.index(path.parent.parent) >= KEEP_RUNS or path.stat().st_mtime < now - KEEP_DAYS * 86400:
                RunFolder.open(path.parent.parent).remove(f"{FOLDER}/{path.name}")
                gone += 1
    return gone
