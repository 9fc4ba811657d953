"""One batch through a model: outputs, loss and gradients as plain arrays, on this backend or on jax in its own process.

`KERAS_BACKEND=jax python -m tests.models.parity MODULE:FUNCTION ARGS weights.npz batch.npz out.npz` is that process.
"""

import importlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from benchmarks.models_embedded import run_of
from tsguard.padding import Padding

SEPARATOR = "|"


def real(folder):
    """The recipes on public data; skips, and says so, where the folder is not there."""
    pytest.importorskip("pandas")
    recipes = importlib.import_module("benchmarks.models_duet_moola")
    place = recipes.data_folder() / folder
    if not place.exists():
        pytest.skip(f"{place} is not there: set TSGUARD_DATA to the folder of the public data")
    return recipes


def evaluate(model, x, y=None, sample_weight=None):
    """{"output/…", "loss", "gradient/path"} of one batch, without dropout or draws."""
    tensor = keras.ops.convert_to_tensor
    x = keras.tree.map_structure(tensor, x)
    y = None if y is None else tensor(y)
    weight = None if sample_weight is None else tensor(sample_weight)
    if keras.backend.backend() == "torch":
        model.zero_grad()
        output = model(x, training=False)
        loss = model.compute_loss(x, y, output, weight, training=False)
        loss.backward()
        gradients = [variable.value.grad for variable in model.trainable_variables]
    else:
        import jax

        def compute(trainable, fixed):
            output, _ = model.stateless_call(trainable, fixed, x, training=False)
            loss, _ = model.stateless_compute_loss(
                trainable, fixed, [v.value for v in model.metrics_variables],
                x=x, y=y, y_pred=output, sample_weight=weight, training=False,
            )  # fmt: skip
            return loss, output

        trainable = [v.value for v in model.trainable_variables]
        fixed = [v.value for v in model.non_trainable_variables]
        (loss, output), gradients = jax.value_and_grad(compute, has_aux=True)(trainable, fixed)
    found = {"loss": array(loss)}
    outputs = output if isinstance(output, dict) else {"": output}
    found |= {f"output/{name}": array(value) for name, value in outputs.items()}
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        path = variable.path.removeprefix(f"{model.name}/")
        found[f"gradient/{path}"] = np.zeros(variable.shape, "float32") if gradient is None else array(gradient)
    return found


def assert_run_trains(name):
    """One epoch of the run as it is written leaves finite losses, and its padding names inputs that are there."""
    settings, model, data = run_of(name)
    padding = Padding(**settings["padding"])
    wanted = {*padding.inputs, padding.mask, *([padding.features[1]] if padding.features else [])}
    assert wanted <= set(data["x"])
    history = model.fit(
        data["x"], data["y"], validation_data=data["validation_data"], verbose=0,
        **{**settings["train"], "epochs": 1},
    ).history  # fmt: skip
    assert np.isfinite([history["loss"], history["val_loss"]]).all()
    assert set(settings["gates"]) <= set(history)


def in_float64(build, batch, weights=None):
    """(model, x, y): built, with these weights where given, and fed in float64. Use it inside `policy("float64")`."""

    def wide(value):
        return value.astype("float64") if getattr(value, "dtype", None) == np.float32 else value

    model = build()
    if weights is not None:
        model.set_weights([wide(value) for value in weights])
    return model, *keras.tree.map_structure(wide, batch)


def derivative_error(model, x, y, step=1e-6, seed=0):
    """Relative gap between the gradient along a random direction and the central difference; float64 models only."""
    rng = np.random.default_rng(seed)
    gradients = [g for name, g in evaluate(model, x, y).items() if name.startswith("gradient/")]
    weights = [array(variable).copy() for variable in model.trainable_variables]
    direction = [rng.normal(size=weight.shape) for weight in weights]
    sides = []
    for sign in (1, -1):
        for variable, weight, along in zip(model.trainable_variables, weights, direction, strict=True):
            variable.assign(weight + sign * step * along)
        sides.append(evaluate(model, x, y)["loss"])
    expected = sum((g * along).sum() for g, along in zip(gradients, direction, strict=True))
    return abs((sides[0] - sides[1]) / (2 * step) - expected) / abs(expected)


def array(tensor):
    return np.asarray(keras.ops.convert_to_numpy(keras.ops.stop_gradient(tensor)))


def assert_finite(found):
    wrong = [name for name, value in found.items() if not np.isfinite(value).all()]
    assert not wrong, wrong


def assert_same(left, right, rtol=1e-5):
    """Every array agrees relative to its own largest entry; below 0.01 it is a sum that cancels, rounded absolutely."""
    assert left.keys() == right.keys()
    for name, value in left.items():
        size = max(np.abs(value).max(), 1e-2)
        gap = np.abs(value - right[name]).max() / size
        assert gap < rtol, f"{name}: {gap:.2e} apart, relative to {size:.2e}"


def on_jax(recipe, args, model, x, y, folder):
    """`evaluate` of a model of the same weights on jax; skips where jax is not installed."""
    if importlib.util.find_spec("jax") is None:
        pytest.skip("jax is not installed: pip install 'tsguard[jax]'")
    weights, batch, out = (Path(folder) / name for name in ("weights.npz", "batch.npz", "out.npz"))
    np.savez(weights, *[array(v) for v in model.weights])
    np.savez(batch, **{f"x{SEPARATOR}{name}": value for name, value in x.items()}, **({} if y is None else {"y": y}))
    command = [
        sys.executable,
        "-m",
        "tests.models.parity",
        recipe,
        json.dumps(args),
        str(weights),
        str(batch),
        str(out),
    ]
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with np.load(out) as saved:
        return {name.replace(SEPARATOR, "/"): saved[name] for name in saved}


def main(recipe, args, weights, batch, out):
    module, function = recipe.split(":")
    model = getattr(importlib.import_module(module), function)(**json.loads(args))
    with np.load(weights) as saved:
        model.set_weights([saved[f"arr_{i}"] for i in range(len(saved))])
    with np.load(batch) as saved:
        x = {name.split(SEPARATOR)[1]: saved[name] for name in saved if name != "y"}
        y = saved["y"] if "y" in saved else None
    found = evaluate(model, x, y)
    np.savez(out, **{name.replace("/", SEPARATOR): value for name, value in found.items()})


if __name__ == "__main__":
    main(*sys.argv[1:])
