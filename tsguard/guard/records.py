"""What is written down of one operation that ran, and which operations mean something special."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from tsguard.guard.axes import Tag

VIEWS = frozenset(
    "view unsafe_view reshape t transpose permute expand squeeze unsqueeze select slice detach alias unbind split "
    "split_with_sizes lift_fresh as_strided diagonal unfold view_as_real view_as_complex".split()
)
"""Operations that hand on the very same memory."""

NAN_TESTS = frozenset("isnan isfinite isinf".split())
"""Operations by which a program asks whether something went wrong."""

ABSORBERS = frozenset("nan_to_num nansum nanmean nanmedian fmax fmin".split())
"""Operations that swallow a NaN on purpose."""


@dataclass(eq=False)
class Leaf:
    """A bad tensor that nothing in this step wrote: a batch, a weight, a constant."""

    value: torch.Tensor


@dataclass(eq=False)
class OpRecord:
    """One operation that ran."""

    index: int
    name: str
    phase: str
    layer: str | None
    own: bool
    file: str | None
    line: int | None
    node: str | None = None
    forward: OpRecord | None = None
    bad: bool = False
    """Some output holds NaN or an infinity."""
    bad_in: bool = False
    nan_in: bool = False
    nan_out: bool = False
    operands: list[tuple[str, Any, Tag]] = field(default_factory=list)
    """Name, value and meaning of what went in; filled for operations that may have made the first bad value."""
    outputs: list[tuple[Any, Tag]] = field(default_factory=list)
    sources: list[OpRecord | Leaf] = field(default_factory=list)
    """Who wrote the bad values that came in."""
    tags_in: list[tuple[tuple[int, ...], Tag]] = field(default_factory=list)
    func: Any = None
    args: Any = None
    kwargs: Any = None
    batch_size: int | None = None
    made_by: tuple[str | None, ...] = ()
    """Names of the operations that made the tensors that went in."""
