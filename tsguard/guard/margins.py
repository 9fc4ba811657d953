"""How near an operation came to where it is no longer finite."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from tsguard.guard.records import OpRecord


@dataclass(frozen=True)
class Margin:
    """How near an operation came to where it is no longer finite: 0 is on the edge."""

    distance: float
    op: str
    layer: str | None
    value: float
    what: str
    file: str | None
    line: int | None


def margin_of(record: OpRecord, args: Any, outputs: Any) -> Margin | None:
    """Smallest divisor or argument of a root or logarithm, largest argument of an exponential, nearest to float16's
    end."""
    first = args[0] if args and isinstance(args[0], torch.Tensor) else None
    if first is None or first.numel() == 0 or not first.is_floating_point():
        return None
    place = (record.layer, record.file, record.line)

    def margin(distance: float, value: float, what: str) -> Margin:
        return Margin(distance, record.name, place[0], value, what, place[1], place[2])

    if record.name in ("log", "log2", "log10", "rsqrt", "sqrt", "reciprocal"):
        low = float(first.detach().min())
        return margin(low, low, "smallest argument")
    if record.name == "div" and len(args) > 1 and isinstance(args[1], torch.Tensor) and args[1].numel():
        low = float(args[1].detach().abs().min())
        return margin(low, low, "smallest divisor")
    if record.name in ("exp", "expm1"):
        high = float(first.detach().max())
        limit = float(torch.tensor(torch.finfo(first.dtype).max).double().log())
        return margin(max(limit - high, 0.0) / limit, high, "largest argument")
    half = next((out for out in outputs if out.dtype == torch.float16 and out.numel()), None)
    if half is not None:
        high = float(half.detach().abs().max())
        return margin(1.0 - high / 65504.0, high, "largest float16 value")
    return None
