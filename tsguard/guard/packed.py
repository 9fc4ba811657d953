"""Many small tensors in one piece of memory: copied by one call, and asked as one tensor.

A call for each costs more than its copy where tensors are small, and a small model has hundreds of them.
"""

from __future__ import annotations

from collections.abc import Sequence

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
        self.whole = torch.empty(sum(source.numel() for source in sources), dtype=sources[0].dtype)
        pieces = self.whole.split([source.numel() for source in sources])
        self.parts = [piece.view(source.shape) for piece, source in zip(pieces, sources, strict=True)]

    def fill(self) -> Packed:
        """Take the values as they are now."""
        torch.cat(self._flat, out=self.whole)
        return self


def by_dtype(tensors: Sequence[torch.Tensor]) -> tuple[list[Packed], list[torch.Tensor]]:
    """The packable ones, a pack for each dtype, and the others."""
    groups: dict[torch.dtype, list[torch.Tensor]] = {}
    for tensor in tensors:
        if packable(tensor):
            groups.setdefault(tensor.dtype, []).append(tensor)
    return [Packed(group) for group in groups.values()], [tensor for tensor in tensors if not packable(tensor)]
