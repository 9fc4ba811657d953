"""A model that updates its parts with optimizers of its own, kept in a dict as a GAN keeps them."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import torch

import tsguard


@keras.saving.register_keras_serializable("tests")
class TwoParts(keras.Model):
    """Encoder and head, each with an optimizer; from the update `breaks_at` on the second one gets NaN."""

    def __init__(self, breaks_at: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.encoder, self.head = keras.layers.Dense(4, activation="tanh"), keras.layers.Dense(1)
        self.optimizers = {"encoder": keras.optimizers.Adam(0.01), "head": keras.optimizers.SGD(0.05, momentum=0.9)}
        self.breaks_at, self.made = breaks_at, 0

    def call(self, x: Any) -> Any:
        return self.head(self.encoder(x))

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y = data
        self.zero_grad()
        loss = self.compute_loss(x=x, y=y, y_pred=self(x, training=True), training=True)
        loss.backward()
        for name, part in (("encoder", self.encoder), ("head", self.head)):
            weights = part.trainable_weights
            gradients = [weight.value.grad for weight in weights]
            if name == "head" and self.breaks_at is not None and self.made >= self.breaks_at:
                gradients[0] = gradients[0] * torch.nan
            with torch.no_grad():
                self.optimizers[name].apply(gradients, weights)
        self.made += 1
        return {"loss": loss.detach()}


def _trained(breaks_at: int | None = None, **guarded: Any) -> tuple[TwoParts, Any]:
    keras.utils.set_random_seed(3)
    x = np.random.default_rng(0).normal(size=(320, 3)).astype("float32")
    model = TwoParts(breaks_at)
    model.compile(loss="mse")
    guard = tsguard.Guard(out=None, diagnose=False, repro=False, **guarded)
    model.fit(x, x[:, :1] * 2, batch_size=16, epochs=3, verbose=0, callbacks=[guard] if guarded else [])
    return model, guard


def _bits(model: TwoParts) -> list[bytes]:
    slots = [slot for optimizer in model.optimizers.values() for slot in optimizer.variables]
    return [variable.value.detach().numpy().tobytes() for variable in [*model.variables, *slots]]


def test_two_optimizers_in_a_dict_end_bit_equal_with_the_guard() -> None:
    assert _bits(_trained()[0]) == _bits(_trained(policy="stop")[0])


@pytest.mark.parametrize("breaks_at", [0, 7, 41])
def test_a_gradient_that_breaks_in_the_second_optimizer_never_reaches_its_weights(breaks_at: int) -> None:
    model, guard = _trained(breaks_at, policy="stop")
    cause = guard.report.causes[0]
    assert (cause.code, cause.where["step"], cause.where["op"]) == ("nonfinite-backward", breaks_at, "mul")
    assert all(np.isfinite(np.frombuffer(bits, "float32")).all() for bits in _bits(model))


class Rivals(keras.Model):
    """Two losses of one weight that pull it apart, one backward each; or the first of them alone, at no rate."""

    def __init__(self, *, both: bool) -> None:
        super().__init__()
        self.both, self.part = both, keras.layers.Dense(1)

    def call(self, x: Any) -> Any:
        return self.part(x)

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y = data
        for aim in (1.0, -1.0)[: 1 + self.both]:
            self.zero_grad()
            loss = (self(x) - aim * y).square().mean()
            loss.backward()
            rate = 0.01 if self.both else 0.0
            with torch.no_grad():
                for weight in self.part.trainable_weights:
                    weight.assign(weight.value - rate * weight.value.grad)
        return {"loss": loss.detach()}


@pytest.mark.parametrize("both", [True, False])
def test_of_rivals_neither_falls_and_a_loss_alone_that_does_not_is_told(both: bool) -> None:
    keras.utils.set_random_seed(3)
    x = np.random.default_rng(0).normal(size=(640, 3)).astype("float32")
    model = Rivals(both=both)
    model.compile()
    guard = tsguard.Guard(out=None, diagnose=False, repro=False)
    model.fit(x, x[:, :1], batch_size=16, epochs=3, verbose=0, callbacks=[guard])
    told = {f.code for f in guard.report.findings if f.status in ("WARN", "FAIL")}
    assert ("no-learning" in told) is not both


class Directed(keras.Model):
    """A step whose loss is a direction, on either side of zero; or a price, well above it."""

    def __init__(self, level: float) -> None:
        super().__init__()
        self.level, self.part = level, keras.layers.Dense(1)

    def call(self, x: Any) -> Any:
        return self.part(x)

    def train_step(self, data: Any) -> dict[str, Any]:
        x, _ = data
        self.zero_grad()
        gain = torch.randn(len(x), 1)
        loss = self.level - ((gain - gain.mean()) * self(x)).mean()
        loss.backward()
        weights = self.trainable_weights
        with torch.no_grad():
            self.optimizer.apply([weight.value.grad for weight in weights], weights)
        return {"loss": loss.detach()}


@pytest.mark.parametrize("level", [0.0, 50.0])
def test_a_loss_that_is_a_direction_need_not_fall_and_a_price_that_does_not_is_told(level: float) -> None:
    keras.utils.set_random_seed(3)
    x = np.random.default_rng(0).normal(size=(640, 3)).astype("float32")
    model = Directed(level)
    model.compile(keras.optimizers.SGD(1e-4))
    guard = tsguard.Guard(out=None, diagnose=False, repro=False)
    model.fit(x, x[:, :1], batch_size=16, epochs=3, verbose=0, callbacks=[guard])
    told = {f.code for f in guard.report.findings if f.status in ("WARN", "FAIL")}
    assert ("no-learning" in told) is (level > 0)
