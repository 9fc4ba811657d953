"""What cannot be guessed about a padded model, in one value.

Everything has a default: the one input, time on axis 1, an implicit Keras mask or none, zeros to the right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Padding:
    """How a model's batches are padded, and what the model claims about it."""

    inputs: Mapping[str, int] | None = None
    """Which inputs carry time, and on which axis. Default: the one input, axis 1."""
    mask: str | None = None
    """Name of the mask input. None: an implicit Keras mask (Masking, Embedding(mask_zero=True)) or none at all."""
    outputs: int | None = 1
    """Time axis of the output. None: pooled over time."""
    pad_value: float = 0.0
    side: Literal["right", "left"] = "right"
    causal: bool = False
    """The model claims that the future does not change the past."""
    features: tuple[int, str] | None = None
    """(axis, name of the feature-mask input) where features are padded too."""
    timestamps: str | None = None
    """Name of the timestamp input."""
    either_side: bool = False
    """The model claims that padding on the left gives what padding on the right gives."""
    feature_sets: bool = False
    """The model claims that its features are a set: their order, and with them that of their mask, only orders outputs
    that have the same axis."""

    def __post_init__(self) -> None:
        if self.side not in ("right", "left"):
            raise ValueError(f"Padding(side={self.side!r}): expected 'right' or 'left'.")
        if self.inputs is not None and not isinstance(self.inputs, Mapping):
            raise ValueError(f"Padding(inputs={self.inputs!r}): expected a dict from an input's name to its time axis.")
        if self.features is not None:
            if isinstance(self.features, str) or len(tuple(self.features)) != 2:
                expected = "a pair of the axis and the name of the input that holds their mask"
                raise ValueError(f"Padding(features={self.features!r}): expected {expected}.")
            object.__setattr__(self, "features", tuple(self.features))
