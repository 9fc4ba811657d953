"""Many small tensors in one piece of memory: copied by one call, and asked as one tensor.

A call for each costs more than its copy where tensors are small, and a small model has hundreds of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch

PACKED_MAX = 1 << 14
"""Elements up to which a tensor joins the others: beyond, its copy costs far more than the call for it."""


def packable(tensor: torch.Tensor) -> bool:
    """Whether a tensor is laid beside others. On an accelerator the fused calls do as well, without the copy."""
    return tensor.device.type == "cpu" and bool(tensor.is_contiguous()) and 0 < tensor.numel() <= PACKED_MAX


class Packed:
    """Room for the values of some tensors of one dtype, side by side."""

    def __init__(self, sources: Sequence[torch.Tensor]) -> None:
        self.sources = list(sources)
        self._flat = [source.view(-1) for source in sources]
        self._sizes = [source.numel() for source in sources]
        self.whole = torch.empty(sum(self._sizes), dtype=sources[0].dtype)

    @cached_property
    def parts(self) -> list[torch.Tensor]:
        """The place of each, in its shape."""
        pieces = self.whole.split(self._sizes)
        return [piece.view(source.shape) for piece, source in zip(pieces, self.sources, strict=True)]

    def now(self) -> torch.Tensor:
        """The values as they are now, elsewhere: what was taken stays."""
        return torch.cat(self._flat)

    def fill(self) -> Packed:
        """Take the values as they are now."""
        torch.cat(self._flat, out=self.whole)
        return self


def by_dtype(tensors: Sequence[torch.Tensor]) -> tuple[list[Packed], list[torch.Tensor]]:
    """The packable ones, a pack for each dtype, and the others."""
    groups: dict[torch.dtype, list[torch.Tensor]] = {}
    others: list[torch.Tensor] = []
    for tensor in tensors:
        (groups.setdefault(tensor.dtype, []) if packable(tensor) else others).append(tensor)
    return [Packed(group) for group in groups.values()], others
