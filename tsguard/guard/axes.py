"""What the axes of a tensor mean: which one counts samples, timesteps, features of the data.

A step is followed from the batch onwards: the batch's axes are known, and what they become is followed operation by
operation (`travel`). So an element deep inside (position 5 of a row of the 13th call of an RNN cell) can be named as a
place in the data. What is not known stays None: a hidden unit is no feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SAMPLE, TIMESTEP, FEATURE = "sample", "timestep", "feature"


@dataclass(frozen=True, slots=True)
class Axis:
    """Index i along this axis is number start + step·i of `kind`."""

    kind: str
    start: int = 0
    step: int = 1
    of: tuple[str, str | None] | None = None
    """The array of the batch whose axis it is."""


@dataclass(frozen=True, slots=True)
class Merged:
    """Several axes laid into one by a reshape, the last one fastest."""

    parts: tuple[tuple[Axis | None, int], ...]


AnyAxis = Axis | Merged | None


@dataclass(frozen=True, slots=True)
class Tag:
    """The meaning of every axis, and coordinates that are fixed for the whole tensor (a slice at timestep 3)."""

    axes: tuple[AnyAxis, ...]
    fixed: tuple[tuple[str, int], ...] = ()

    @property
    def known(self) -> bool:
        """Whether anything at all is known."""
        return bool(self.fixed) or any(axis is not None for axis in self.axes)

    def place(self, index: Sequence[int]) -> dict[str, int]:
        """The coordinates in the data of one element."""
        found = dict(self.fixed)
        for axis, position in zip(self.axes, index, strict=False):
            if isinstance(axis, Merged):
                for part, size in reversed(axis.parts):
                    position, own = divmod(int(position), size)
                    if part is not None:
                        found[part.kind] = part.start + part.step * own
            elif axis is not None:
                found[axis.kind] = axis.start + axis.step * int(position)
        return found

    @property
    def of(self) -> tuple[str, str | None] | None:
        """The array of the batch that the features belong to."""
        parts = [part for axis in self.axes if isinstance(axis, Merged) for part, _ in axis.parts]
        axes = [axis for axis in self.axes if isinstance(axis, Axis)] + [part for part in parts if part is not None]
        return next((axis.of for axis in axes if axis.kind == FEATURE and axis.of is not None), None)


UNKNOWN = Tag(())


def batch_tag(
    shape: Sequence[int], *, integer: bool, timesteps: int | None, of: tuple[str, str | None] | None = None
) -> Tag:
    """The axes of one array of a batch: sample first; time second where there are three axes or it fits."""
    axes: list[AnyAxis] = [Axis(SAMPLE)]
    rest = list(shape[1:])
    timed = len(rest) >= 2 or (len(rest) == 1 and timesteps is not None and rest[0] == timesteps > 1 and integer)
    if timed:
        axes.append(Axis(TIMESTEP))
        rest = rest[1:]
    axes += [None] * (len(rest) - 1) + ([Axis(FEATURE, of=of)] if rest else [])
    return Tag(tuple(axes[: len(shape)]))
