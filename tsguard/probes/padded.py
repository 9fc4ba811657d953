"""What stands in padded positions, replaced by values that say nothing, so that its influence can be measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tsguard.padding import Padding


def neutralised(x: Any, padding: Padding) -> Any:
    """The same inputs with padded values at the mean of the valid ones, and padded times at the last valid one.

    Repeating the last time makes every step between paddings zero, which is neutral for any discretisation. Inputs
    whose mask is not among them are returned as they are.
    """
    import torch

    if not isinstance(x, Mapping) or padding.mask not in x or not torch.is_tensor(x[padding.mask]):
        return x
    valid = x[padding.mask].bool()
    changed = dict(x)
    for name, axis in (padding.inputs or {}).items():
        value = x.get(name)
        if value is None or not value.is_floating_point() or axis != 1 or value.shape[:2] != valid.shape[:2]:
            continue
        if name == padding.timestamps:
            continue
        keep = valid.reshape(*valid.shape[:2], *[1] * (value.ndim - 2)).expand_as(value)
        clean = torch.where(keep, value, torch.zeros_like(value))
        count = keep.sum((0, 1), keepdim=True).clamp(min=1)
        changed[name] = torch.where(keep, value, (clean.sum((0, 1), keepdim=True) / count).expand_as(value))
    times = x.get(padding.timestamps) if padding.timestamps is not None else None
    if times is not None and times.shape[:2] == valid.shape[:2]:
        steps = torch.arange(valid.shape[1], device=valid.device).expand_as(valid)
        last = torch.where(valid, steps, torch.zeros_like(steps)).cummax(1).values
        changed[str(padding.timestamps)] = times.gather(1, last)
    return changed
