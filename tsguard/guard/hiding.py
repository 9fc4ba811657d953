"""Does the model ask whether something is NaN, and does it get yes for an answer?

A model that replaces a NaN (`nan_to_num`, `where(isnan(x), 0, x)`, a constant loss) trains on with a fine-looking loss.
A light `TorchFunctionMode` around the first steps sees whether such a question is asked at all; only a model that asks
keeps it.
"""

from __future__ import annotations

from types import MethodWrapperType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode, _get_current_function_mode

SCOUT_STEPS = 2
"""Steps that are listened to in any case: long enough to meet every branch of an ordinary step."""

QUESTIONS = frozenset(
    "isnan isfinite isinf nan_to_num nan_to_num_ nansum nanmean nanmedian fmax fmin item __float__ __bool__ ne "
    "__ne__".split()
)
"""Functions whose answer, or whose result, depends on whether something is NaN; the last ones only where they do."""


class QuestionWatch(TorchFunctionMode):
    """Notes questions about NaN in one step, and whether the answer was yes."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = False
        self.met = False
        self.muted = False
        self._inside = False

    def __enter__(self) -> QuestionWatch:
        self.met = self.muted = False
        self._inside = True
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._inside:
            self._inside = False
            super().__exit__(*error)

    def mute(self) -> None:
        """The loss is there: questions from here on are the optimizer's, and cost nothing where they need not pass."""
        self.muted = True
        if self._inside and _get_current_function_mode() is self:
            self.__exit__(None, None, None)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if type(func) is MethodWrapperType:  # most of all calls: a shape or a dtype is read
            return func(*args)
        if not self.muted and args and getattr(func, "__name__", "") in QUESTIONS:
            self._note(func.__name__, args)
        return func(*args, **(kwargs or {}))

    def _note(self, name: str, args: Any) -> None:
        value = args[0]
        if not isinstance(value, torch.Tensor) or not value.is_floating_point() or value.device.type == "meta":
            return
        if name in ("ne", "__ne__") and not (len(args) > 1 and args[1] is value):
            return
        plain = name in ("item", "__float__", "__bool__")
        self.asked = self.asked or not plain
        if not self.met and bool(
            (~torch.isfinite(value.detach())).any() if name != "fmax" else torch.isnan(value).any()
        ):
            self.met = True
