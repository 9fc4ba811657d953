"""How far updates move the weights, and which weights no update has ever moved."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from tsguard.guard.state import StateBuffer


def sizes(clean: StateBuffer, variables: list[Any]) -> dict[str, float]:
    """Norm of the weights, and of the one update since the clean state beside it. Empty where that is elsewhere."""
    trainable = {id(variable) for variable in variables}
    pairs = [
        (b, s) for v, b, s in zip(clean.variables, clean.buffers, clean.sources, strict=True) if id(v) in trainable
    ]
    if not pairs or pairs[0][0].device != pairs[0][1].device:
        return {}
    with torch.no_grad():
        moved = torch._foreach_norm(torch._foreach_sub([s for _, s in pairs], [b for b, _ in pairs]))
        weights = torch._foreach_norm([b for b, _ in pairs])
        far, large = torch.stack(
            [torch.linalg.vector_norm(torch.stack(list(n)).float()) for n in (moved, weights)]
        ).tolist()
    return {"weight_norm": large} | ({"update_ratio": far / large} if large > 0 else {})


class FirstBits:
    """What the trainable weights were before the first step, in a few numbers for each."""

    def __init__(self, variables: Iterable[Any]) -> None:
        self._taken = [(variable, _fingerprint(variable)) for variable in variables]

    def unmoved(self) -> list[str]:
        """Paths of trainable weights that still have those bits."""
        return [v.path for v, bits in self._taken if v.trainable and torch.equal(_fingerprint(v), bits)]


def _fingerprint(variable: Any) -> torch.Tensor:
    """A few numbers that any update changes: sums in float64 and the first elements."""
    value = variable.value.detach().reshape(-1)
    sums = torch.stack([value.sum(dtype=torch.float64), torch.linalg.vector_norm(value, dtype=torch.float64)])
    return torch.cat([sums, value[:64].double()])
