"""Questions about NaN are heard until the loss is there, and no other mode is disturbed by the end of listening."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode, _get_current_function_mode

from tsguard.guard.hiding import QuestionWatch


class Counting(TorchFunctionMode):
    """A mode of the user's own."""

    seen = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen += 1
        return func(*args, **(kwargs or {}))


BAD = torch.tensor([1.0, torch.nan])


@pytest.mark.parametrize(
    "ask",
    [torch.isnan, torch.Tensor.isnan, torch.nan_to_num, lambda x: x != x, lambda x: float(x[1]), lambda x: x.nansum()],
)
def test_a_question_that_gets_yes_is_met_before_the_loss_and_not_after(ask: Any) -> None:
    watch = QuestionWatch()
    with watch:
        assert BAD.shape == (2,)
        assert not watch.met
        ask(BAD)
        assert watch.met
    with watch:
        assert not watch.met
        watch.mute()
        assert _get_current_function_mode() is None
        ask(BAD)
    assert not watch.met
    assert _get_current_function_mode() is None


def test_a_mode_within_the_step_is_left_in_its_place() -> None:
    watch = QuestionWatch()
    with watch, Counting() as own:
        watch.mute()
        assert _get_current_function_mode() is own
        torch.isnan(BAD)
        assert own.seen == 1
    assert not watch.met
    assert _get_current_function_mode() is None


def test_a_step_that_raises_leaves_nothing_behind() -> None:
    with Counting() as own:
        with pytest.raises(ZeroDivisionError), QuestionWatch():
            raise ZeroDivisionError
        assert _get_current_function_mode() is own
    assert _get_current_function_mode() is None
