"""Which operation makes a NaN from finite numbers, and whether somebody hides it afterwards.

Runs one step (or the loss alone, on random answers) under a TorchDispatchMode. Infinities are left alone here: a fill
of −inf before a softmax is an honest mask.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tsguard.probes.stage import Batch, Step, flat, take_step

MEANS = frozenset({"mean", "nanmean", "var", "std", "median", "logsumexp", "var_mean", "std_mean"})
"""Reductions that are not defined over nothing."""

HANDLERS = frozenset({"nan_to_num", "isnan", "nansum", "nanmean", "isfinite"})
"""Operations whose purpose is to meet a NaN."""


@dataclass(frozen=True, slots=True)
class Producer:
    """The first operation that made a NaN from finite numbers."""

    op: str
    phase: str
    reason: str
    empty: bool = False
    """Whether it was a mean over nothing (0/0 of a count, or a reduction of no elements)."""
    absorbed: bool = False
    """Whether an operation made for NaN met it later."""
    value: str = "NaN"
    file: str | None = None
    line: int | None = None


def nonfinite_producer(model: Any, batch: Batch, *, answers: Any = None) -> Producer | None:
    """The producer in one step on the batch; with `answers` (a structure to imitate), in the loss of random answers."""
    from torch.utils._python_dispatch import TorchDispatchMode

    step = Step()
    notes: list[Producer] = []
    handled: list[str] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            name = func._schema.name.split("::")[-1].rstrip("_")
            if notes:
                if not handled and _meets_nan(name, args):
                    handled.append(name)
                return result
            if name not in _MOVERS and _has_nan(result) and not any(_has_nan(a) for a in _tensors(args, kwargs)):
                reason, empty = _reason(name, args, result)
                file, line = _user_line()
                phase = "forward" if step.inside else ("backward" if _in_backward() else "loss")
                notes.append(Producer(name, phase, reason, empty and phase != "backward", file=file, line=line))
            return result

    with Watch():
        if answers is None:
            take_step(model, batch, record_calls=False, into=step)
        else:
            _loss_of_random_answers(model, batch, answers)
    if not notes:
        return None
    first = notes[0]
    return Producer(first.op, first.phase, first.reason, first.empty, bool(handled), file=first.file, line=first.line)


_MOVERS = frozenset({"empty", "empty_like", "new_empty", "empty_strided", "resize", "copy", "new_empty_strided"})
"""Operations whose result is memory and not a number."""


def _loss_of_random_answers(model: Any, batch: Batch, like: Any) -> None:
    import torch

    from tsguard.probes.answers import LossOfAnswers

    generator = torch.Generator().manual_seed(3)
    rows = batch.rows
    made = []
    for old in flat(like):
        noise = torch.rand((rows, *old.shape[1:]), generator=generator).to(old.device).float()
        low, high = float(old.detach().float().min()), float(old.detach().float().max())
        made.append(noise if low >= 0 and high <= 1 else 2 * noise - 1)
    LossOfAnswers(model, batch, like)(made)


def _tensors(args: Any, kwargs: Any) -> Iterator[Any]:
    import torch
    from torch.utils._pytree import tree_leaves

    for leaf in tree_leaves((args, kwargs)):
        if isinstance(leaf, torch.Tensor):
            yield leaf
        elif isinstance(leaf, float) and leaf != leaf:
            yield torch.tensor(leaf)


def _has_nan(value: Any) -> bool:
    import torch

    if isinstance(value, tuple | list):
        return any(_has_nan(v) for v in value)
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return False
    # Below the dispatcher: the mode must not see its own question.
    with torch._C._DisableTorchDispatch():
        return bool(torch.isnan(value).any())


def _meets_nan(name: str, args: Any) -> bool:
    compares_itself = name in ("eq", "ne") and len(args) == 2 and args[0] is args[1]
    return (name in HANDLERS or compares_itself) and any(_has_nan(a) for a in args)


def _reason(name: str, args: Any, result: Any) -> tuple[str, bool]:
    import torch

    tensors = [a for a in args if isinstance(a, torch.Tensor)]
    with torch._C._DisableTorchDispatch():
        if name in MEANS and tensors and tensors[0].numel() == 0:
            return f"no elements (shape {tuple(tensors[0].shape)})", True
        if name == "div" and len(args) >= 2:
            below = args[1] if isinstance(args[1], torch.Tensor) else torch.tensor(float(args[1]))
            above = args[0] if isinstance(args[0], torch.Tensor) else torch.tensor(float(args[0]))
            if bool((below == 0).any()) and bool((above == 0).any()):
                counts = bool(torch.all(below == below.round()) and torch.all(below >= 0))
                return "zero divided by zero" + (", a count of nothing" if counts else ""), counts
        shown = [f"{_range(t)}" for t in tensors[:2]]
    return "finite numbers " + " and ".join(shown), False


def _range(tensor: Any) -> str:
    if tensor.numel() == 0:
        return "(none)"
    return f"[{float(tensor.min()):.3g}, {float(tensor.max()):.3g}]"


def _in_backward() -> bool:
    import torch

    return torch._C._current_autograd_node() is not None


def is_users_own(file: str) -> bool:
    """Whether code of this file is neither of an installed package nor ours (but for the demo, which plays a user)."""
    here = str(Path(__file__).resolve().parents[1])
    ours = file.startswith((here, "<")) and not file.startswith(str(Path(here) / "demo"))
    return not ours and "site-packages" not in file and "/lib/python" not in file


def _user_line() -> tuple[str | None, int | None]:
    """The innermost frame of the user's own code."""
    frame: Any = sys._getframe(2)
    while frame is not None:
        if is_users_own(frame.f_code.co_filename):
            return frame.f_code.co_filename, frame.f_lineno
        frame = frame.f_back
    return None, None
