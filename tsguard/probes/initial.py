"""Whether a weight still holds what its initialiser drew: nothing was loaded into it and nothing has trained it.

Offsets are told exactly (zeros, ones, the unit forget bias). Kernels are held against a fresh draw of the layer's own
initialiser: training or loading leaves no kernel that is distributed like one.
"""

from __future__ import annotations

from typing import Any

ALIKE = 1.95
"""Kolmogorov–Smirnov distance of two samples, in units of √(1/n + 1/m), from which they are of two distributions
(one in a thousand of equal ones is further apart)."""

MIN_NUMBERS = 60
"""Below that many numbers a kernel alone says too little, and its offsets have to say it."""


def kernels_of(layer: Any) -> list[Any]:
    """The weights of a layer that mix inputs: floating, two axes or more, no bias."""
    own = [*layer._trainable_variables, *layer._non_trainable_variables]
    return [v for v in own if v.value.ndim >= 2 and v.value.is_floating_point() and not _is_offset(v)]


def looks_initial(layer: Any, kernel: Any) -> bool:
    """Whether a layer's kernel and its offsets stand where initialisation leaves them."""
    offsets = [v for v in layer.variables if _is_offset(v)]
    if not all(bool(((v.value == 0) | (v.value == 1)).all()) for v in offsets):
        return False
    alike = _like_a_fresh_draw(layer, kernel)
    return bool(offsets) if alike is None else alike


def _is_offset(variable: Any) -> bool:
    return "bias" in variable.path.split("/")[-1]


def _like_a_fresh_draw(layer: Any, kernel: Any) -> bool | None:
    """None where the layer does not say how it was initialised, or the kernel holds too few numbers."""
    import numpy as np

    name = kernel.path.split("/")[-1]
    told = [f"{name}_initializer", "kernel_initializer", f"{name}s_initializer"]
    made = next((getattr(layer, one) for one in told if getattr(layer, one, None) is not None), None)
    if made is None or kernel.value.numel() < MIN_NUMBERS or not hasattr(made, "get_config"):
        return None
    config = made.get_config()
    if "seed" not in config:
        return None  # a constant: whoever chose it meant it
    # A seed of our own: the draw must not move a global generator.
    fresh = type(made).from_config({**config, "seed": 12_345})(tuple(kernel.shape))
    mine = np.sort(kernel.value.detach().cpu().numpy().reshape(-1))
    other = np.sort(np.asarray(fresh.detach().cpu()).reshape(-1))
    places = np.concatenate([mine, other])
    apart = np.abs(
        np.searchsorted(mine, places, "right") / len(mine) - np.searchsorted(other, places, "right") / len(other)
    ).max()
    return bool(apart < ALIKE * (2 / len(mine)) ** 0.5)
