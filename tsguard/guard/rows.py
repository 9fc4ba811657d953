"""Which row of the data set a sample of a batch is: found by its content, because shuffling leaves no index behind."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from tsguard.guard.leaves import named_leaves
from tsguard.guard.outcome import Origin
from tsguard.guard.recorder import StepRecord, leaves
from tsguard.guard.tensors import as_tensor


def find_row(origin: Origin, record: StepRecord | None, adapter: Any) -> Origin:
    """The origin with the row of its sample filled in, where the data set is at hand and holds that sample once."""
    element = origin.element
    inputs = getattr(adapter, "_inputs", None)
    if element is None or element.sample is None or record is None or inputs is None or element.row is not None:
        return origin
    try:
        row = _row(record.data, inputs, element.sample)
    except Exception:  # an array of a kind that cannot be compared: the row stays unknown
        return origin
    return origin if row is None else dataclasses.replace(origin, element=dataclasses.replace(element, row=row))


def _row(batch: Any, inputs: Any, sample: int) -> int | None:
    matches: np.ndarray | None = None
    whole = [array for leaf in leaves(inputs) if (array := _array(leaf)) is not None]
    parts = [array for leaf in leaves(batch) if (array := _array(leaf)) is not None]
    if len(whole) != len(parts):
        whole, parts = whole[:1], [value.numpy() for _, _, value in named_leaves(batch)][:1]
    for all_rows, rows in zip(whole, parts, strict=True):
        if rows.shape[1:] != all_rows.shape[1:] or sample >= len(rows):
            continue
        wanted = rows[sample].astype(all_rows.dtype, copy=False)
        same = (all_rows == wanted) | _both_nan(all_rows, wanted)
        same = same.reshape(len(all_rows), -1).all(axis=1)
        matches = same if matches is None else matches & same
    if matches is None:
        return None
    found = np.flatnonzero(matches)
    return int(found[0]) if len(found) == 1 else None


def _both_nan(left: np.ndarray, right: np.ndarray) -> Any:
    if left.dtype.kind != "f" or right.dtype.kind != "f":
        return False
    return np.isnan(left) & np.isnan(right)


def _array(leaf: Any) -> Any:
    leaf = getattr(leaf, "array", leaf)  # Keras wraps what it slices
    if hasattr(leaf, "iloc"):  # a frame or a series; Keras gives a series a second axis
        values = leaf.to_numpy()
        return values[:, None] if values.ndim == 1 else values
    if isinstance(leaf, np.ndarray):
        return leaf
    tensor = as_tensor(leaf)
    return None if tensor is None else tensor.numpy()
