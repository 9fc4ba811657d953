"""Questions asked of single tensors: whether they are finite, whose memory they are, whether they are the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


def tensors_in(value: Any) -> list[torch.Tensor]:
    """Every tensor of a nest."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, (list, tuple)):
        return [tensor for part in value for tensor in tensors_in(part)]
    if isinstance(value, dict):
        return [tensor for part in value.values() for tensor in tensors_in(part)]
    return []


def as_tensor(value: Any) -> torch.Tensor | None:
    """An array of numbers on the host; None for anything else."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        return torch.from_numpy(np.ascontiguousarray(value).copy())
    return None


def is_bad(tensor: Any) -> bool:
    """Whether a tensor holds NaN or an infinity."""
    if not isinstance(tensor, torch.Tensor) or not (tensor.is_floating_point() or tensor.is_complex()):
        return False
    return tensor.numel() > 0 and not bool(torch.isfinite(tensor.detach()).all())


def has_nan(tensor: Any) -> bool:
    """Whether a tensor holds NaN."""
    return isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and bool(torch.isnan(tensor.detach()).any())


def memory_of(tensor: torch.Tensor) -> int:
    """The memory behind a tensor: views of it share one number."""
    try:
        return int(tensor.untyped_storage().data_ptr()) or id(tensor)
    except (RuntimeError, NotImplementedError):
        return id(tensor)


def same_content(value: torch.Tensor, tensor: torch.Tensor) -> bool:
    """Whether two tensors hold the same numbers, a NaN being the same as a NaN, up to the precision of the coarser."""
    left, right = value.detach().cpu().double(), tensor.detach().cpu().double()
    half = torch.finfo(tensor.dtype).bits == 16 if tensor.is_floating_point() else False
    return bool(torch.allclose(left, right, rtol=1e-2 if half else 1e-6, atol=1e-2 if half else 0.0, equal_nan=True))
