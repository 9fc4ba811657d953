"""What every model family is held to: one batch, its forward pass, loss and gradients, on this backend or on another.

Run as a program it does the same in a process of its own, so that two backends can be compared:
`KERAS_BACKEND=jax python -m tests.models.oracles models.tft weights.npz out.npz`.
"""

import contextlib
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
from keras.src.backend.common import dtypes

DATA = Path(os.environ.get("TSGUARD_DATA", Path(__file__).resolve().parents[2].parent / "shared" / "data"))


@contextlib.contextmanager
def policy(name):
    """A dtype policy (and, for whole floats, floatx) for the time of a block, which begins from one seed: a loss with a
    corner has no derivative where an answer happens to lie on it, so the weights must not depend on other tests.

    Outside TensorFlow Keras narrows every promotion to 32 bits, so that a float64 Dense computes in float32. A check
    by finite differences needs the real thing, hence the table is emptied.
    """
    before, floatx, narrowing = keras.config.dtype_policy(), keras.config.floatx(), dict(dtypes.BIT64_TO_BIT32_DTYPE)
    keras.config.set_dtype_policy(name)
    keras.utils.set_random_seed(0)
    if name.startswith("float"):
        keras.config.set_floatx(name)
    if name == "float64":
        dtypes.BIT64_TO_BIT32_DTYPE.clear()
    try:
        yield
    finally:
        dtypes.BIT64_TO_BIT32_DTYPE.update(narrowing)
        keras.config.set_dtype_policy(before)
        keras.config.set_floatx(floatx)


def tensors(x):
    return {key: keras.ops.convert_to_tensor(value) for key, value in x.items()}


def evaluate(model, x, y, sample_weight=None):
    """Forward pass, loss and gradients by variable path, without dropout, as numpy."""
    inputs, target = tensors(x), keras.ops.convert_to_tensor(y)
    weight = None if sample_weight is None else keras.ops.convert_to_tensor(sample_weight)
    if keras.backend.backend() == "torch":
        model.zero_grad()
        output = model(inputs, training=False)
        loss = model.loss(target, output, sample_weight=weight)
        loss.backward()
        gradients = [v.value.grad for v in model.trainable_variables]
        output = output.detach()
        loss = loss.detach()
    else:
        import jax

        def compute(trainable, fixed):
            y_pred, _ = model.stateless_call(trainable, fixed, inputs, training=False)
            return model.loss(target, y_pred, sample_weight=weight), y_pred

        trainable = [v.value for v in model.trainable_variables]
        fixed = [v.value for v in model.non_trainable_variables]
        (loss, output), gradients = jax.value_and_grad(compute, has_aux=True)(trainable, fixed)
    host = keras.ops.convert_to_numpy
    named = {
        v.path: np.zeros(v.shape) if g is None else host(g)
        for v, g in zip(model.trainable_variables, gradients, strict=True)
    }
    return {"output": host(output), "loss": float(loss), "gradients": named}


def derivative_error(model, x, y, *, step=1e-6, seed=0):
    """Relative gap between the gradient along a random direction and the central difference; float64 models only."""
    rng = np.random.default_rng(seed)
    gradients = evaluate(model, x, y)["gradients"]
    weights = [np.array(keras.ops.convert_to_numpy(v)) for v in model.trainable_variables]
    direction = [rng.normal(size=w.shape) for w in weights]
    expected = sum(float((g * d).sum()) for g, d in zip(gradients.values(), direction, strict=True))
    sides = []
    for sign in (1, -1):
        for variable, w, d in zip(model.trainable_variables, weights, direction, strict=True):
            variable.assign(w + sign * step * d)
        sides.append(evaluate(model, x, y)["loss"])
    for variable, w in zip(model.trainable_variables, weights, strict=True):
        variable.assign(w)
    return abs((sides[0] - sides[1]) / (2 * step) - expected) / abs(expected)


def assert_same(a, b, *, rtol=1e-5, atol=1e-6, valid=None):
    """Two evaluations agree: outputs (where `valid`), loss, every gradient, each relative to its own largest entry."""
    left, right = (a["output"], b["output"]) if valid is None else (a["output"][valid], b["output"][valid])
    np.testing.assert_allclose(left, right, rtol=rtol, atol=atol)
    np.testing.assert_allclose(a["loss"], b["loss"], rtol=rtol)
    assert a["gradients"].keys() == b["gradients"].keys()
    for path, gradient in a["gradients"].items():
        size = max(np.abs(gradient).max(), 1e-3)
        np.testing.assert_allclose(gradient / size, b["gradients"][path] / size, rtol=0, atol=rtol, err_msg=path)


def assert_finite(evaluation):
    assert np.isfinite(evaluation["loss"]), evaluation["loss"]
    for path, gradient in evaluation["gradients"].items():
        assert np.isfinite(gradient).all(), path


def on_jax(module, weights, folder, args=None):
    """The evaluation of `module.build(**args)` with these weights on the first rows of its synthetic data, on jax."""
    source, target = Path(folder) / "weights.npz", Path(folder) / "jax.npz"
    np.savez(source, *weights)
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "tests.models.oracles", module, str(source), str(target), json.dumps(args or {})]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with np.load(target) as saved:
        gradients = {k.removeprefix("g:"): saved[k] for k in saved if k.startswith("g:")}
        return {"output": saved["output"], "loss": float(saved["loss"]), "gradients": gradients}


def first_rows(module, count=4):
    data = importlib.import_module(module).synthetic()
    return {k: v[:count] for k, v in data["x"].items()}, data["y"][:count]


def main(module, source, target, args):
    model = importlib.import_module(module).build(**json.loads(args))
    with np.load(source) as saved:
        model.set_weights([saved[f"arr_{i}"] for i in range(len(saved))])
    result = evaluate(model, *first_rows(module))
    gradients = {f"g:{path}": g for path, g in result["gradients"].items()}
    np.savez(target, output=result["output"], loss=result["loss"], **gradients)


if __name__ == "__main__":
    main(*sys.argv[1:])
