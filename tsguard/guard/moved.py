"""How far updates move the weights, and which weights no update has ever moved."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from tsguard.guard.packed import by_dtype
from tsguard.guard.state import StateBuffer

WHOLE = 1 << 10
"""Elements up to which a first weight is kept as it was, and not a few numbers of it."""


def sizes(clean: StateBuffer, variables: list[Any]) -> dict[str, float]:
    """Norm of the weights, and of the one update since the clean state beside it. Empty where that is elsewhere."""
    trainable = {id(variable) for variable in variables}
    held = zip(clean.variables, clean.buffers, clean.sources, strict=True)
    left = {id(source): (buffer, source) for variable, buffer, source in held if id(variable) in trainable}
    if not left or any(buffer.device != source.device for buffer, source in left.values()):
        return {}
    before, after = [], []
    with torch.no_grad():
        for pack in clean.packs:
            if all(id(source) in left for source in pack.sources):
                before.append(pack.whole)
                after.append(pack.now())
                for source in pack.sources:
                    del left[id(source)]
        before += [buffer for buffer, _ in left.values()]
        after += [source for _, source in left.values()]
        moved, weights = torch._foreach_norm(torch._foreach_sub(after, before)), torch._foreach_norm(before)
        far, large = torch.stack(
            [torch.linalg.vector_norm(torch.stack([one.float() for one in norms])) for norms in (moved, weights)]
        ).tolist()
    return {"weight_norm": large} | ({"update_ratio": far / large} if large > 0 else {})


class FirstBits:
    """What the trainable weights were before the first step: small ones side by side, and a few numbers of others."""

    def __init__(self, variables: Iterable[Any]) -> None:
        self._variables = list(variables)
        values = [variable.value.detach() for variable in self._variables]
        packs, _ = by_dtype([value for value in values if value.numel() <= WHOLE])
        parts = {
            id(source): part for pack in packs for source, part in zip(pack.sources, pack.fill().parts, strict=True)
        }
        self._bits = [parts[id(value)] if id(value) in parts else _fingerprint(value) for value in values]
        self._whole = [id(value) in parts for value in values]

    def unmoved(self) -> list[str]:
        """Paths of trainable weights that still have those bits."""
        return [
            variable.path
            for variable, bits, whole in zip(self._variables, self._bits, self._whole, strict=True)
            if variable.trainable and _still(variable.value.detach(), bits, whole=whole)
        ]


def _still(value: torch.Tensor, bits: torch.Tensor, *, whole: bool) -> bool:
    return bool(torch.equal(value if whole else _fingerprint(value), bits))


def _fingerprint(value: torch.Tensor) -> torch.Tensor:
    """A few numbers that any update changes: sums in float64 and the first elements."""
    value = value.reshape(-1)
    sums = torch.stack([value.sum(dtype=torch.float64), torch.linalg.vector_norm(value, dtype=torch.float64)])
    return torch.cat([sums, value[:64].double()])
