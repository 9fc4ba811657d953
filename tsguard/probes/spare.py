"""The loose end of a chain of equal blocks: what the last of them hands on goes nowhere, by design."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def is_spare_end(model: Any, layer: Any, is_alive: Callable[[Any], bool]) -> bool:
    """Whether a layer that learns nothing is a part of a block of one's own that learns otherwise, and other blocks of
    the same class have the same part alive: of doubly residual blocks the last backcast is nobody's input."""
    every = model._flatten_layers(include_self=True, recursive=True)
    for block in every:
        parts = list(getattr(block, "_layers", ()))
        place = next((k for k, part in enumerate(parts) if part is layer), None)
        if place is None or type(block).__module__.startswith("keras."):
            continue
        others = [one for one in every if type(one) is type(block) and one is not block]
        counterparts = [one._layers[place] for one in others if len(one._layers) == len(parts)]
        if any(map(is_alive, counterparts)) and any(is_alive(part) for part in parts if part is not layer):
            return True
    return False
