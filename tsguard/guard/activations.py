"""What layers put out, asked for with `Guard(activations=…)`: mean, spread, share of zeros, largest value, once a
window.

Only the first step of a window is listened to, and only layers that were asked for; the numbers stay on the device
until the window is read. Without the request nothing here runs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from tsguard.errors import ConfigError, explain
from tsguard.guard.watch import Step

Wanted = bool | str | Sequence[str]


class ActivationWatch:
    """Listens to the calls of some layers, or of all that have no layers inside."""

    def __init__(self, model: Any, wanted: Wanted) -> None:
        self.model = model
        self.everything = wanted is True
        names = () if isinstance(wanted, bool) else (wanted,) if isinstance(wanted, str) else tuple(wanted)
        layers = list(model._flatten_layers(include_self=False, recursive=True))
        unknown = [name for name in names if not any(name in (layer.name, layer.path) for layer in layers)]
        if unknown and (model.built or layers):
            raise ConfigError(
                explain(
                    "Guard(activations=…)",
                    received=", ".join(map(repr, unknown)),
                    expected=f"True, or names of layers: {', '.join(layer.name for layer in layers[:12])}",
                    todo="Use the name or the path of a layer, as `model.summary()` shows them.",
                )
            )
        self.names = frozenset(names)

    def _wants(self, layer: Any) -> bool:
        if self.everything:
            return not any(True for _ in layer._flatten_layers(include_self=False, recursive=False))
        return layer.name in self.names or layer.path in self.names

    @contextlib.contextmanager
    def listening(self, step: Step) -> Iterator[None]:
        """Around one step: the outputs of the layers go into its numbers."""
        from keras.src.layers.layer import Layer

        call = Layer.__call__
        ours = {id(layer) for layer in self.model._flatten_layers(include_self=True, recursive=True)}
        wanted = {id(layer): bool(self._wants(layer)) for layer in self.model._flatten_layers(include_self=False)}

        def listening(layer: Any, *args: Any, **kwargs: Any) -> Any:
            out = call(layer, *args, **kwargs)
            known = wanted.get(id(layer))
            if known is None and id(layer) not in ours:
                known = wanted[id(layer)] = False
            if known and isinstance(out, torch.Tensor) and out.is_floating_point() and out.numel():
                step.activations[str(layer.path or layer.name)] = summary(out)
            return out

        Layer.__call__ = listening
        try:
            yield
        finally:
            Layer.__call__ = call


def summary(out: torch.Tensor) -> torch.Tensor:
    """Mean, standard deviation, share of zeros and largest absolute value of a tensor, as one small tensor."""
    with torch.no_grad():
        value = out.detach().float()
        return torch.stack([value.mean(), value.std(correction=0), (value == 0).float().mean(), value.abs().max()])
