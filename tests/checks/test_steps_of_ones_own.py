"""Own steps that cut a batch into parts, and own steps that leave spoilt gradients out."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import torch
from keras import layers

from tsguard.checks.hidden import hidden_nan
from tsguard.checks.outputs import output_and_loss
from tsguard.checks.registry import Context
from tsguard.checks.wiring import wiring
from tsguard.dataset import Data
from tsguard.subject import Subject


class InParts(keras.Model):
    def train_step(self, data):
        x, y = data
        self.zero_grad()
        total = 0.0
        for part_x, part_y in zip(torch.chunk(x, 4), torch.chunk(y, 4), strict=True):
            loss = self.compute_loss(x=part_x, y=part_y, y_pred=self(part_x, training=True)) / 4
            loss.backward()
            total = total + loss.detach()
        with torch.no_grad():
            self.optimizer.apply([v.value.grad for v in self.trainable_weights], self.trainable_weights)
        return {"loss": total}


class Scaled(keras.Model):
    scale = 1.0

    def train_step(self, data):
        x, y = data
        self.zero_grad()
        loss = self.compute_loss(x=x, y=y, y_pred=self(x, training=True))
        (self.scale * loss).backward()
        gradients = [v.value.grad / self.scale for v in self.trainable_weights]
        if all(bool(g.isfinite().all()) for g in gradients):
            with torch.no_grad():
                self.optimizer.apply(gradients, self.trainable_weights)
        return {"loss": loss}


def context(kind, dtype="float32"):
    keras.utils.set_random_seed(0)
    given = keras.Input((6,))
    hidden = layers.Dense(16, activation="relu", dtype=dtype)(given)
    model = kind(given, layers.Dense(1, dtype="float32")(hidden))
    model.compile(keras.optimizers.SGD(0.05), "mse")
    x = np.random.default_rng(0).normal(size=(256, 6)).astype("float32")
    data = Data(x, x[:, :1] - x[:, 1:2])
    return model, Context(subject=Subject.from_model(model, data), data=data)


def test_a_step_that_takes_its_batch_in_parts_is_no_fault_of_the_output():
    _, asked = context(InParts)
    assert not [f for f in (*output_and_loss(asked), *wiring(asked)) if f.status in ("WARN", "FAIL")]


@pytest.mark.parametrize(("scale", "codes"), [(1e10, ["amp-steps-skipped"]), (1024.0, [])])
def test_a_scale_of_ones_own_that_overflows_is_told_and_hides_nothing(scale, codes):
    model, asked = context(Scaled, "mixed_float16")
    model.scale = scale
    told = [*wiring(asked), *hidden_nan(asked)]
    assert [f.code for f in told if f.status in ("WARN", "FAIL") and f.score > 0.5] == codes


def test_the_same_step_without_half_precision_leaves_weights_where_they_are():
    model, asked = context(Scaled)
    model.scale = float("inf")
    assert [f.code for f in wiring(asked) if f.status == "FAIL"] == ["untracked-parameters"]
