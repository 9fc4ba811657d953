"""Optimizers of torch that were set on a model from outside are written as code, where they can be."""

import keras
import pytest
import torch
from keras import layers

from tsguard.repro.code.compiling import torch_optimizers


class Own(keras.Model):
    def __init__(self):
        super().__init__()
        self.head, self.tail = layers.Dense(2), layers.Dense(1)
        self.head.build((None, 3))

    def call(self, x):
        return self.tail(self.head(x))


class Stepping(Own):
    def __init__(self):
        super().__init__()
        self.steps = torch.optim.SGD([v.value for v in self.head.trainable_variables])


def tensors(*variables):
    return [v.value for v in variables]


def test_a_model_without_one_has_no_line():
    assert torch_optimizers(Own()) == []


@pytest.mark.parametrize("built", [False, True])
def test_all_weights_or_those_that_were_there(built):
    made = Own()
    if built:
        made(keras.ops.ones((1, 3)))
    made.steps = torch.optim.Adam(tensors(*made.head.trainable_variables), lr=0.004, betas=(0.8, 0.99))
    some = "[model.trainable_variables[k] for k in (0, 1)]" if built else "model.trainable_variables"
    assert torch_optimizers(made) == [
        f"model.steps = torch.optim.Adam([v.value for v in {some}], lr=0.004, betas=(0.8, 0.99))"
    ]
    before = made.steps
    exec(torch_optimizers(made)[0], {"model": made, "torch": torch})
    assert made.steps is not before
    [group] = made.steps.param_groups
    assert group["lr"] == 0.004
    assert [id(one) for one in group["params"]] == [id(one) for one in tensors(*made.head.variables)]


def test_what_the_constructor_makes_is_not_said_twice():
    assert torch_optimizers(Stepping()) == []


def test_groups_and_strangers_are_left_to_the_reader():
    made = Own()
    kernel, bias = tensors(*made.head.trainable_variables)
    made.steps = torch.optim.SGD([{"params": [kernel], "lr": 0.1}, {"params": [bias]}])
    assert torch_optimizers(made) == []
    made.steps = torch.optim.SGD([kernel, torch.nn.Parameter(torch.zeros(2))])
    assert torch_optimizers(made) == []
