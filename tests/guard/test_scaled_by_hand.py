"""A loss that an own step scales by hand: overflows that it leaves out are its business, until nothing else happens."""

from __future__ import annotations

import keras
import numpy as np
import torch

import tsguard


class Scaled(keras.Model):
    """Raises its scale with every good step; takes it back after an overflow, or never does."""

    def __init__(self, backs_off, **kwargs):
        super().__init__(**kwargs)
        self.backs_off, self.scale = backs_off, 2.0**100

    def train_step(self, data):
        x, y = data
        self.zero_grad()
        loss = self.compute_loss(x, y, self(x, training=True))
        (loss * self.scale).backward()
        grads = [v.value.grad for v in self.trainable_variables]
        if all(bool(g.isfinite().all()) for g in grads):
            with torch.no_grad():
                self.optimizer.apply([g / self.scale for g in grads], self.trainable_variables)
            self.scale *= 16.0
        elif self.backs_off:
            self.scale /= 2.0**16
        self._loss_tracker.update_state(loss.detach())
        return {"loss": self._loss_tracker.result()}


def trained(*, backs_off):
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(640, 4)).astype("float32")
    y = (1e-6 * x[:, :1]).astype("float32")
    inputs = keras.Input((4,))
    outputs = keras.layers.Dense(1, kernel_initializer=keras.initializers.RandomNormal(stddev=1e-6))(inputs)
    model = Scaled(backs_off, inputs=inputs, outputs=outputs)
    model.compile(keras.optimizers.SGD(0.02), "mse")
    guard = tsguard.Guard(out=None, repro=False, diagnose=False)
    model.fit(x, y, epochs=4, batch_size=16, verbose=0, callbacks=[guard])
    return {f.code for f in guard.report.findings if f.status in ("WARN", "FAIL")}


def test_a_scale_that_backs_off_is_left_alone():
    assert not trained(backs_off=True) & {"amp-steps-skipped", "nonfinite-loss", "nonfinite-backward", "divergence"}


def test_a_scale_that_never_does_is_named():
    assert "amp-steps-skipped" in trained(backs_off=False)
