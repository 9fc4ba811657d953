"""Norms and finiteness of many tensors at once, as cheaply as the sizes allow.

Many small tensors are laid into one first (one copy, one reduction); large ones are reduced where they are. The
watch and the replay use the same function, so that their numbers can be compared bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

FLAT_MAX = 1 << 20
"""Elements up to which a copy into one tensor is cheaper than one call for each."""


def dense(values: Iterable[Any]) -> list[torch.Tensor]:
    """The dense tensors among the gradients of a step."""
    return [v.detach() for v in values if isinstance(v, torch.Tensor) and v.layout == torch.strided and v.numel()]


def total_norm(gradients: Sequence[Any]) -> torch.Tensor | None:
    """The norm over all of them, still on the device. None where there is none."""
    present = dense(gradients)
    return norm_of(present, flat=_flat(present)) if present else None


def norm_of(present: list[torch.Tensor], *, flat: bool) -> torch.Tensor:
    """The same for tensors that are known to be dense, and of which it is known whether they fit into one."""
    if flat:
        together = torch._utils._flatten_dense_tensors(present)
        if together.dtype == torch.float64:  # a norm never narrows its input
            return torch.linalg.vector_norm(together).float()
        return torch.linalg.vector_norm(together, dtype=torch.float32)
    return torch.linalg.vector_norm(torch.stack([norm.float() for norm in torch._foreach_norm(present)]))


class StepNorm:
    """`total_norm` for the same list of variables step after step: what does not change is asked once."""

    def __init__(self) -> None:
        self._known: tuple[int, bool] | None = None

    def __call__(self, gradients: Sequence[Any]) -> torch.Tensor | None:
        """The norm over all of them."""
        present = [gradient for gradient in gradients if gradient is not None]
        if self._known is None or self._known[0] != len(present):
            full = dense(present)
            self._known = (len(present), _flat(full)) if full and len(full) == len(present) else None
        if self._known is None:
            return total_norm(gradients)
        with torch.no_grad():
            return norm_of(present, flat=self._known[1])


def each_norm(gradients: Sequence[Any]) -> torch.Tensor | None:
    """One norm for each."""
    present = dense(gradients)
    return torch.stack([norm.float() for norm in torch._foreach_norm(present)]) if present else None


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
