"""A model and the world are left as they were found; a wrong backend is answered with the line to add."""

import json
import os
import random
import subprocess
import sys

import keras
import numpy as np
import pytest
import torch

from tsguard.backend import preserved, restore_rng, rng_state, seed_everything

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(32, 5, 3)).astype("float32"), RNG.normal(size=(32, 1)).astype("float32")


def unbuilt():
    return keras.Sequential(
        [
            keras.layers.LSTM(4),
            keras.layers.Dropout(0.5),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(1),
        ]
    )


def functional():
    inputs = keras.Input((5, 3))
    return keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Dropout(0.3)(keras.layers.GRU(4)(inputs))))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden = [keras.layers.Dense(4, activation="tanh"), keras.layers.Dropout(0.2)]
        self.out = keras.layers.Dense(1)

    def call(self, x, training=False):
        for layer in self.hidden:
            x = layer(x, training=training) if isinstance(layer, keras.layers.Dropout) else layer(x)
        return self.out(x[:, -1])


def half():
    inputs = keras.Input((5, 3))
    hidden = keras.layers.LSTM(4, dtype="mixed_float16")(inputs)
    return keras.Model(inputs, keras.layers.Dense(1, dtype="float32")(hidden))


def trained(make, *, disturbed):
    keras.utils.clear_session()
    seed_everything(1)
    model = make()
    model.compile(keras.optimizers.Adam(1e-2), "mse", metrics=["mae"])
    if disturbed:
        built = model.built
        with preserved(model):
            model.fit(X, Y, epochs=2, verbose=0)
            model.compile("sgd", "mae")
            model.evaluate(X, Y, verbose=0)
            keras.layers.Dense(3)
            np.random.rand(3)
            random.random()
        assert model.built == built
        assert not model.optimizer.built
        assert model.train_function is None
    model.fit(X, Y, epochs=2, verbose=0)
    if disturbed:
        with preserved(model):
            for layer in model.layers:
                layer.trainable = False
            model.compile("sgd", "mae")
            model.set_weights([np.zeros_like(w) for w in model.get_weights()])
    model.fit(X, Y, epochs=2, verbose=0)
    arrays = [variable.numpy() for variable in (*model.variables, *model.optimizer.variables)]
    names = [variable.path for variable in model.variables]
    return arrays, names, keras.layers.Dense(2).name


@pytest.mark.parametrize("make", [unbuilt, functional, Subclassed, half])
def test_whatever_happens_inside_preserved_training_goes_on_bit_equal(make):
    plain, disturbed = trained(make, disturbed=False), trained(make, disturbed=True)
    assert plain[1:] == disturbed[1:]
    assert len(plain[0]) == len(disturbed[0])
    for left, right in zip(plain[0], disturbed[0], strict=True):
        np.testing.assert_array_equal(left, right)


class ByTorch(keras.Model):
    """Trains itself with an optimizer of torch and a schedule for it, both made at its first step."""

    def __init__(self):
        super().__init__()
        self.line = keras.layers.Dense(1)
        self.line.build((None, X.reshape(len(X), -1).shape[1]))
        self.steps = torch.optim.Adam([v.value for v in self.trainable_variables], lr=1e-2)
        self.schedule = torch.optim.lr_scheduler.StepLR(self.steps, step_size=2, gamma=0.5)

    def call(self, x):
        return self.line(keras.ops.reshape(x, (x.shape[0], -1)))

    def train_step(self, data):
        x, y = data
        loss = keras.ops.mean(keras.ops.square(self(x) - y))
        self.steps.zero_grad()
        loss.backward()
        self.steps.step()
        self.schedule.step()
        return {"loss": loss.detach()}


def by_torch(*, disturbed):
    keras.utils.clear_session()
    seed_everything(1)
    model = ByTorch()
    model.compile()
    for _ in range(2):
        if disturbed:
            with preserved(model):
                model.fit(X, Y, epochs=1, verbose=0)
        model.fit(X, Y, epochs=1, verbose=0)
    states = [value.numpy() for known in model.steps.state.values() for value in known.values()]
    return [*model.get_weights(), *states, model.steps.param_groups[0]["lr"], model.schedule.last_epoch]


def test_an_optimizer_of_torch_and_its_schedule_are_kept_too():
    for left, right in zip(by_torch(disturbed=False), by_torch(disturbed=True), strict=True):
        np.testing.assert_array_equal(left, right)


class Rivals(keras.Model):
    """Two halves, each with an optimizer of its own beside the compiled one, as adversarial pairs have."""

    def __init__(self):
        super().__init__()
        self.maker = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(4)])
        self.judge = keras.Sequential([keras.layers.Dense(1)])
        self.own = {"judge": keras.optimizers.Adam(1e-2)}
        self.second = keras.optimizers.Adam(1e-2)

    def call(self, x):
        return self.judge(self.maker(x))

    def train_step(self, data):
        x, y = data
        for part, optimizer in ((self.judge, self.own["judge"]), (self.maker, self.second)):
            self.zero_grad()
            loss = keras.ops.mean(keras.ops.square(self(x) - y))
            loss.backward()
            optimizer.apply([v.value.grad for v in part.trainable_weights], part.trainable_weights)
        return {"loss": loss.detach()}


def rivals(*, disturbed):
    keras.utils.clear_session()
    seed_everything(1)
    model = Rivals()
    model.compile(optimizer="sgd")
    for _ in range(2):
        if disturbed:
            with preserved(model):
                model.fit(X, Y, epochs=1, verbose=0)
        model.fit(X, Y, epochs=1, verbose=0)
    held = (*model.variables, *model.own["judge"].variables, *model.second.variables)
    return [variable.numpy() for variable in held]


def test_optimizers_that_a_model_keeps_beside_its_own_are_kept_too():
    for left, right in zip(rivals(disturbed=False), rivals(disturbed=True), strict=True):
        np.testing.assert_array_equal(left, right)


def test_gradients_and_identity_of_tensors_are_kept():
    model = functional()
    model.compile("sgd", "mse")
    model.train_on_batch(X, Y)
    tensor, grad = model.weights[0].value, model.weights[0].value.grad
    kept = None if grad is None else grad.clone()
    with preserved(model):
        model.train_on_batch(X, Y)
        model.zero_grad()
    assert model.weights[0].value is tensor
    after = model.weights[0].value.grad
    assert (after is None) == (kept is None)
    if kept is not None:
        assert torch.equal(after, kept)


def test_an_exception_inside_still_restores():
    model = functional()
    model.compile("sgd", "mse")
    before = model.get_weights()

    def disturb():
        with preserved(model):
            model.set_weights([weight + 1 for weight in before])
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError):
        disturb()
    for left, right in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)


def test_generators_return_to_where_they_stood():
    state = rng_state()
    first = (random.random(), np.random.rand(), torch.rand(1).item())
    assert not rng_state().same_as(state)
    restore_rng(state)
    assert rng_state().same_as(state)
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == first


def in_a_new_process(code, **environment):
    clean = {key: value for key, value in os.environ.items() if key not in ("KERAS_BACKEND", "KERAS_HOME")}
    return subprocess.run(
        [sys.executable, "-c", code], env={**clean, **environment}, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_torch_is_chosen_where_nothing_was_chosen(tmp_path):
    code = "from tsguard.backend import require_torch; require_torch(); import keras; print(keras.backend.backend())"
    done = in_a_new_process(code, KERAS_HOME=str(tmp_path))
    assert done.stdout.strip() == "torch", done.stderr


def test_another_backend_is_refused_with_the_line_to_add():
    code = "from tsguard.backend import require_torch; require_torch()"
    done = in_a_new_process(code, KERAS_BACKEND="jax")
    assert "received 'jax'" in done.stderr
    assert 'os.environ["KERAS_BACKEND"] = "torch"' in done.stderr


@pytest.mark.slow
def test_a_reduction_by_itself_runs_on_torch_too(tmp_path):
    code = f"import tsguard; tsguard.reduce({str(tmp_path)!r})"
    done = in_a_new_process(code, KERAS_HOME=str(tmp_path))
    assert "ModuleNotFoundError" not in done.stderr
    assert "tsguard.errors" in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_a_failed_audit_leaves_its_reproduction_where_nothing_was_chosen(tmp_path):
    (tmp_path / "t.csv").write_text("load\n1\n-5\n")
    between = {"type": "expect_column_values_to_be_between", "kwargs": {"column": "load", "min_value": 0}}
    (tmp_path / "s.json").write_text(json.dumps({"name": "s", "expectations": [between]}))
    files = [str(tmp_path / name) for name in ("t.csv", "s.json", "out")]
    code = f"import tsguard; tsguard.audit({files[0]!r}, {files[1]!r}, out={files[2]!r})"
    done = in_a_new_process(code, KERAS_HOME=str(tmp_path))
    assert not done.stderr
    assert list(tmp_path.rglob("repro.py"))
