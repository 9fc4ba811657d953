"""Units that say the same whatever is asked: read off the outputs of a plain call, without a graph or a step.

A unit is one place of a layer's last axis. A dead ReLU, a saturated gate and a collapsed representation all look the
same here: over all rows and positions the unit does not move. Which of them it is, the checks of the model tell.
"""

from __future__ import annotations

from typing import Any

from tsguard.dataset import leaves
from tsguard.probes.answers import predict

STILL = 1e-6
"""A unit that moves by less than this share of its layer's largest value does not move: float32 rounds there."""

LAYERS_MAX = 40
"""Layers that are told, in the order in which they answer: a picture of more cannot be read."""


def idle_units(model: Any, x: Any) -> tuple[Any, dict[str, float]]:
    """The model's answer, and the share of idle units of every layer that computes, by path."""
    import keras
    import torch

    layer_call = keras.layers.Layer.__call__
    shares: dict[str, Any] = {}

    def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = layer_call(self, *args, **kwargs)
        if self is not model and len(shares) < LAYERS_MAX and _computes(self):
            share = _idle_share(next(leaves(output), None))
            if share is not None:
                shares.setdefault(str(self.path), share)
        return output

    keras.layers.Layer.__call__ = watched
    try:
        answer = predict(model, x)
    finally:
        keras.layers.Layer.__call__ = layer_call
    # One copy to the host for all layers: each would wait for the device.
    values = torch.stack(list(shares.values())).tolist() if shares else []
    return answer, dict(zip(shares, values, strict=True))


def _computes(layer: Any) -> bool:
    """Whether a layer has weights or an activation of its own: reshaping and dropping say nothing new."""
    return bool(layer._trainable_variables) or bool(layer.trainable_weights) or hasattr(layer, "activation")


def _idle_share(output: Any) -> Any:
    import torch

    if not isinstance(output, torch.Tensor) or not output.is_floating_point() or output.ndim < 2:
        return None
    if output.shape[-1] < 2 or output.shape[0] < 2:
        return None
    rows = output.detach().float().reshape(-1, output.shape[-1])
    moved = rows.amax(0) - rows.amin(0)
    return (moved <= STILL * rows.abs().max()).float().mean()
