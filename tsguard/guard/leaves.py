"""The arrays of a batch: their roles and names, and how they are known again inside a step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from tsguard.guard.axes import UNKNOWN, Tag, batch_tag
from tsguard.guard.recorder import leaves
from tsguard.guard.tensors import as_tensor, is_bad, same_content


class BatchLeaves:
    """The arrays of the batch, recognised again by their content wherever they turn up as tensors."""

    def __init__(self, batch: Any) -> None:
        self.parts = named_leaves(batch)
        self.size = next((value.shape[0] for _, _, value in self.parts if value.ndim), None)
        timed = [value.shape[1] for kind, _, value in self.parts if kind == "x" and value.ndim >= 3]
        self.timesteps = timed[0] if timed else None
        integer_steps = [value.shape[1] for _, _, value in self.parts if value.ndim == 2 and _integer(value)]
        if self.timesteps is None and integer_steps:
            self.timesteps = integer_steps[0]
        self.tags = [
            batch_tag(value.shape, integer=_integer(value), timesteps=self.timesteps, of=(kind, name))
            for kind, name, value in self.parts
        ]

    def tag_of(self, tensor: torch.Tensor) -> Tag:
        """The tag of the batch array that this tensor is, if it is one."""
        if self.size is None or tensor.ndim == 0 or tensor.shape[0] != self.size:
            return UNKNOWN
        for (_, _, value), tag in zip(self.parts, self.tags, strict=True):
            if tuple(value.shape) == tuple(tensor.shape) and same_content(value, tensor):
                return tag
        return UNKNOWN

    def find(self, value: torch.Tensor) -> tuple[str, str | None, torch.Tensor, Tag] | None:
        """The batch array whose bad places are those of `value`: kind (x, y, sample_weight), name, array, tag."""
        bad = ~torch.isfinite(value.detach().double().flatten().cpu())
        for (kind, name, part), tag in zip(self.parts, self.tags, strict=True):
            if part.numel() == value.numel() and part.is_floating_point():
                if torch.equal(~torch.isfinite(part.double().flatten()), bad):
                    return kind, name, part, tag
        for (kind, name, part), tag in zip(self.parts, self.tags, strict=True):
            if part.is_floating_point() and is_bad(part):
                return kind, name, part, tag
        return None


def named_leaves(batch: Any) -> list[tuple[str, str | None, torch.Tensor]]:
    """Every array of a batch with its role and, in a dict, its name."""
    batch = batch[0] if isinstance(batch, list) and len(batch) == 1 else batch
    roles = ("x", "y", "sample_weight")
    parts = list(zip(roles, batch, strict=False)) if isinstance(batch, tuple) else [("x", batch)]
    found: list[tuple[str, str | None, torch.Tensor]] = []
    for role, part in parts:
        for name, value in _walk(part, None):
            tensor = as_tensor(value)
            if tensor is not None:
                found.append((role, name, tensor))
    return found


def _walk(part: Any, name: str | None) -> Iterator[tuple[str | None, Any]]:
    if isinstance(part, dict):
        for key, value in part.items():
            yield from _walk(value, str(key))
    elif isinstance(part, (tuple, list)):
        for position, value in enumerate(part):
            yield from _walk(value, name or str(position))
    elif part is not None:
        yield name, part


def _integer(value: torch.Tensor) -> bool:
    return not value.is_floating_point()


def batch_is_finite(batch: Any) -> bool:
    """Whether no array of a batch holds NaN or an infinity."""
    return not any(is_bad(as_tensor(leaf)) for leaf in leaves(batch))
