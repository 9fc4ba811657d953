"""What was read about a padded model: the roles that inputs, targets and outputs play.

The laws read only this: which inputs carry time and on which axis, where the mask comes from, which steps of the user's
rows are valid, at which widths the model runs at all, and which outputs have a time axis. `infer` fills it in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tsguard.laws.structure import Leaves, Structure
from tsguard.padding import Padding

MaskKind = Literal["input", "keras", "declared", "none"]


@dataclass(frozen=True)
class Maker:
    """A layer at which an implicit mask is born."""

    layer: Any
    path: str
    zeroes: bool
    """Masking sets what it masks to zero: other values can never stand there."""


@dataclass(frozen=True)
class Reading:
    """The roles that inputs, targets and outputs play."""

    model: Any
    inputs: Structure
    rows: Leaves
    targets: Structure | None
    target_rows: Leaves
    weights: NDArray[Any] | None
    time: dict[str, int]
    width: int
    widths: tuple[int, ...]
    mask: str | None
    mask_kind: MaskKind
    mask_is: int
    """The value of the mask input at valid positions: 1, or 0 where the data says so."""
    makers: tuple[Maker, ...]
    valid: NDArray[np.bool_]
    """(rows, width): which steps of the user's rows are valid."""
    features: tuple[int, str] | None
    feature_valid: NDArray[np.bool_] | None
    timestamps: str | None
    output_time: tuple[int | None, ...]
    """Per output leaf its time axis; None for a pooled one."""
    output_names: tuple[str, ...]
    target_time: dict[str, int]
    ids: frozenset[str]
    """Inputs that hold ids, not quantities."""
    padding: Padding
    declared: bool
    batch_size: int | None
    holes: tuple[tuple[int, int], ...] = ()
    """(row, step) of steps that the model masks although valid steps follow on both sides."""
    unmasked_padding: tuple[int, ...] = ()
    """Rows whose padded end holds NaN and is not masked."""
    inferred: tuple[str, ...] = field(default=())

    @property
    def padded(self) -> bool:
        """Whether anything says that batches of this model are padded."""
        return self.mask_kind != "none" or self.features is not None

    @property
    def values(self) -> tuple[str, ...]:
        """The inputs that carry time and may hold anything at padded positions."""
        special = {self.mask, self.timestamps, self.features[1] if self.features else None}
        return tuple(name for name in self.time if name not in special)

    @property
    def sequence(self) -> bool:
        """Whether an output has a time axis."""
        return any(axis is not None for axis in self.output_time)


def same_axes(leaf: NDArray[Any], axis: int, width: int, *, masks: bool) -> tuple[int, ...]:
    """The axes of a leaf that time runs along: one, but for square masks of attention."""
    if not masks:
        return (axis,)
    return tuple(a for a in range(1, leaf.ndim) if leaf.shape[a] == width) or (axis,)
