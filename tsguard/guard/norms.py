"""Norms and finiteness of many tensors at once, as cheaply as the sizes allow.

On the CPU the norms of many small tensors are taken with all of them laid into one, others of each where it is, in one
fused call; for the question of finiteness small ones are laid into one as well. The watch and the replay use the same
functions, so that their numbers can be compared bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

SIDE_BY_SIDE = 256
"""Elements, in the mean over all tensors, up to which a call for the norm of each costs more than a copy of it."""

FLAT_MAX = 1 << 20
"""Elements up to which a copy into one tensor is cheaper than one call for each."""


def dense(values: Iterable[Any]) -> list[torch.Tensor]:
    """The dense tensors among the gradients of a step."""
    return [v.detach() for v in values if isinstance(v, torch.Tensor) and v.layout == torch.strided and v.numel()]


def total_norm(gradients: Sequence[Any]) -> torch.Tensor | None:
    """The norm over all of them, still on the device. None where there is none."""
    norms = each_norm(gradients)
    return None if norms is None else total_of(norms)


def total_of(norms: torch.Tensor) -> torch.Tensor:
    """The norm over all gradients from that of each."""
    return torch.linalg.vector_norm(norms)


def each_norm(gradients: Sequence[Any]) -> torch.Tensor | None:
    """One norm for each, in float32."""
    present = dense(gradients)
    return norms_of(present) if present else None


def norms_of(present: list[torch.Tensor], layout: _Layout | None = None) -> torch.Tensor:
    """The same for tensors that are known to be dense; `layout` spares asking again what their sizes told."""
    if present[0].device.type == "cpu" and present[0].dtype is torch.float32:
        layout = layout or _Layout()
        if layout.are_small([value.numel() for value in present]):
            flat = torch._utils._flatten_dense_tensors(present).detach()
            if flat.dtype is torch.float32:  # and not a mixture with a wider type
                return _side_by_side(flat, layout.begins)
    low = any(value.dtype in (torch.float16, torch.bfloat16) for value in present[:1])
    norms = torch._foreach_norm(present, 2, dtype=torch.float32) if low else torch._foreach_norm(present)
    if any(norm.dtype != torch.float32 for norm in norms):
        norms = [norm.float() for norm in norms]
    return torch.stack(list(norms))


class _Layout:
    """Where each of some tensors begins with all of them laid into one: computed anew when their sizes change."""

    def __init__(self) -> None:
        self._sizes: list[int] = []
        self._small = False
        self.begins: Any = None

    def are_small(self, sizes: list[int]) -> bool:
        """Whether laying them side by side pays."""
        if sizes != self._sizes:
            self._sizes, self._small = sizes, sum(sizes) <= SIDE_BY_SIDE * len(sizes)
            self.begins = np.cumsum([0, *sizes[:-1]])
        return self._small


def _side_by_side(flat: torch.Tensor, begins: Any) -> torch.Tensor:
    with np.errstate(all="ignore"):  # an overflow is an answer
        return torch.from_numpy(np.sqrt(np.add.reduceat(np.square(flat.numpy()), begins)))


class StepNorm:
    """`each_norm` for the same list of variables step after step: what does not change is asked once."""

    def __init__(self) -> None:
        self._known: int | None = None
        self._layout = _Layout()

    def __call__(self, gradients: Sequence[Any]) -> torch.Tensor | None:
        """The norm of each."""
        present = [gradient for gradient in gradients if gradient is not None]
        if self._known != len(present):
            full = dense(present)
            self._known = len(present) if full and len(full) == len(present) else None
        if self._known is None:
            return each_norm(gradients)
        with torch.no_grad():
            return norms_of(present, self._layout)


def all_finite(values: Iterable[Any]) -> bool:
    """Whether every element is finite. A sum that is not finite may only have overflowed: then each is looked at."""
    floats = [value for value in dense(values) if value.is_floating_point()]
    by_type: dict[Any, list[torch.Tensor]] = {}
    for value in floats:
        by_type.setdefault((value.dtype, value.device), []).append(value)
    for group in by_type.values():
        if _flat(group):
            fine = torch.isfinite(torch._utils._flatten_dense_tensors(group).sum())
        else:
            fine = torch.isfinite(torch.stack([value.sum() for value in group])).all()
        if not bool(fine) and not all(bool(torch.isfinite(value).all()) for value in group):
            return False
    return True


def _flat(values: Sequence[torch.Tensor]) -> bool:
    first = values[0]
    return sum(value.numel() for value in values) <= FLAT_MAX and all(
        value.dtype == first.dtype and value.device == first.device for value in values
    )
