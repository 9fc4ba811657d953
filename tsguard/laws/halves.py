"""The law of arithmetic: another backend, or half precision, gives the same answer within its own rounding.

The other backend runs in another process, because Keras reads its backend when it is imported; which layer differs
first is then found by comparing what every layer gave.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsguard.dataset import leaves, packed
from tsguard.laws import tolerance
from tsguard.laws.batches import Example
from tsguard.laws.ground import Ground, samples
from tsguard.laws.law import Law, NotAsked, any_batches
from tsguard.laws.results import Counterexample
from tsguard.laws.structure import Leaves

BACKENDS = ("jax",)
"""Backends that torch is compared with, where they are installed."""

BACKEND_SECONDS = 120
"""How long the other process may take: importing and tracing jax for the first time takes tens of seconds on a slow
disk."""


def computes_in_half(ground: Ground) -> str | None:
    """Only a model that computes in half precision can lose anything by it."""
    if ground.bench.dtypes & {"float16", "bfloat16"}:
        return None
    return f"the model computes in {', '.join(sorted(ground.bench.dtypes)) or 'float32'}"


@contextlib.contextmanager
def in_float32(model: Any) -> Iterator[None]:
    """The same weights, computed in float32 throughout."""
    import keras
    import torch

    changed = []
    weights = []
    try:
        for layer in model._flatten_layers(include_self=True, recursive=True):
            if str(layer.compute_dtype) in ("float16", "bfloat16"):
                changed.append((layer, layer._dtype_policy))
                layer._dtype_policy = keras.dtype_policies.DTypePolicy("float32")
        for variable in model.variables:
            if variable.value.dtype in (torch.float16, torch.bfloat16):
                weights.append((variable, variable._value, variable._dtype))
                variable._value = torch.nn.Parameter(variable.value.detach().float(), requires_grad=False)
                variable._dtype = "float32"
        yield
    finally:
        for layer, policy in changed:
            layer._dtype_policy = policy
        for variable, value, dtype in weights:
            variable._value, variable._dtype = value, dtype


def half_agrees(ground: Ground, example: Example) -> Counterexample | None:
    """12. Half precision agrees within its own rounding and does not overflow where float32 does not."""
    batch = ground.batch(example)
    half = ground.bench.outputs(batch.x)
    with in_float32(ground.bench.model):
        full = ground.bench.outputs(batch.x)
    law = HALF.name
    moved = ground.moved(full, half, batch.valid, reordered=batch)
    if moved is None:
        return None
    overflow = not all(
        np.isfinite(h[np.isfinite(f)]).all() for f, h in zip(full, half, strict=True) if f.shape == h.shape
    )
    code = "precision-overflow" if overflow else "backend-mismatch"
    dtype = ", ".join(sorted(ground.bench.dtypes & {"float16", "bfloat16"}))
    how = "is not finite" if overflow else f"moved by {moved.by:.3g} (tolerance {moved.tolerance:.1g})"
    words = (
        f"{samples(len(batch.valid))}; in {dtype} the output of sample {moved.sample} {how}, where float32 "
        f"gives a finite one."
    )
    where = {"law": law, "phase": "forward", "sample": moved.sample, "timestep": moved.timestep, "output": moved.output}
    return Counterexample(
        law,
        code,
        words,
        batch.x,
        {},
        moved.by,
        moved.tolerance,
        where,
        size=example.size,
        grave=overflow,
        remedy="Compute exponentials, sums of many terms and mask fills in float32.",
    )


def _name_half(ground: Ground, found: Counterexample) -> Counterexample:
    x = {name: np.asarray(leaf) for name, leaf in found.before.items()}
    half = ground.bench.calls(x)
    with in_float32(ground.bench.model):
        full = ground.bench.calls(x)
    for one, two in zip(full, half, strict=False):
        for a, b in zip(one.outputs, two.outputs, strict=False):
            lost = a.shape == b.shape and np.isfinite(a).all() and not np.isfinite(b).all()
            if lost:
                words = f"{found.words} Layer `{two.path}` ({two.kind}) is the first to overflow."
                return replace(found, where={**found.where, "layer": two.path}, words=words)
    return found


# ---------------------------------------------------------------------- another backend

_CHILD = """
import io, json, sys, numpy as np, keras
from keras.src.layers.layer import Layer
sent = np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False)
head = json.loads(sent["head"].tobytes())
model = keras.models.model_from_json(head["config"])
model.set_weights([sent[f"w{i}"] for i in range(head["weights"])])
parts = [sent[f"x{i}"] for i in range(head["inputs"])]
x = dict(zip(head["keys"], parts)) if head["keys"] else parts if len(parts) > 1 else parts[0]
seen, plain, inside = [], Layer.__call__, [0]
AS_ONE = (keras.layers.RNN, keras.layers.Bidirectional, keras.layers.TimeDistributed)
def call(layer, *args, **kwargs):
    as_one = isinstance(layer, AS_ONE)
    inside[0] += as_one
    try:
        result = plain(layer, *args, **kwargs)
    finally:
        inside[0] -= as_one
    flat = [t for t in keras.tree.flatten(result) if keras.ops.is_tensor(t)]
    if flat and not inside[0]:
        try:
            array = np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(flat[0], "float32")))
        except Exception:  # inside a loop that the backend traces there are no numbers to look at
            return result
        seen.append((getattr(layer, "path", None) or layer.name, array))
    return result
Layer.__call__ = call
model(x, training=False)
answer = io.BytesIO()
paths = np.frombuffer(json.dumps([path for path, _ in seen]).encode(), dtype="uint8")
np.savez(answer, paths=paths, **{f"a{i}": array for i, (_, array) in enumerate(seen)})
sys.stdout.buffer.write(answer.getvalue())
"""
"""Rebuilds the model from its configuration and weights, and gives what every layer gave. Both processes are ours."""


def other_backend(ground: Ground) -> str | None:
    """Why there is no other backend to agree with."""
    installed = [name for name in BACKENDS if importlib.util.find_spec(name) is not None]
    if not installed:
        names = " and ".join(BACKENDS)
        return f"{names} not installed: there is no other backend to compare with (pip install 'tsguard[jax]')"
    import keras

    if type(ground.bench.model) not in (keras.Model, keras.Sequential, keras.src.models.functional.Functional):
        return "a subclassed model cannot be loaded in another process without its code"
    own = [layer for layer in ground.bench.model._flatten_layers(recursive=True) if _is_own(layer)]
    if own:
        return f"layer `{own[0].name}` cannot be loaded in another process without its code"
    return None


def _is_own(layer: Any) -> bool:
    """Whether a layer's code is not Keras' own: the user's class, or a function in a Lambda."""
    import keras

    return not type(layer).__module__.startswith("keras.") or isinstance(layer, keras.layers.Lambda)


def backends_agree(ground: Ground, example: Example) -> Counterexample | None:
    """12. Backends agree on the same weights and batch, and the first layer that does not is named."""
    name = next(name for name in BACKENDS if importlib.util.find_spec(name) is not None)
    batch = ground.batch(example)
    theirs = _layers_elsewhere(ground, batch.x, name)
    calls = ground.bench.calls(batch.x)
    ours = [(call.path, call.outputs[0]) for call in calls if call.outputs and hasattr(call.layer, "supports_masking")]
    # Parents in a path are named by each process for itself; a layer's own name comes from the configuration.
    waiting = {path.rsplit("/", 1)[-1]: array for path, array in reversed(theirs)}
    compared = 0
    for path, output in ours:
        other = waiting.pop(path.rsplit("/", 1)[-1], None)
        if other is None or other.shape != output.shape:
            continue
        compared += 1
        move = float(tolerance.movement(output, other).max(initial=0.0))
        limit = ground.noise * tolerance.scale_of(output, other)
        if move > max(limit, ground.same):
            law = OTHER_BACKEND.name
            words = (
                f"{samples(len(batch.valid))}; layer `{path}` gives another output under {name}: {move:.3g} "
                f"apart (tolerance {limit:.1g})."
            )
            return Counterexample(
                law,
                "backend-mismatch",
                words,
                batch.x,
                {},
                move,
                limit,
                {"law": law, "phase": "forward", "layer": path},
                size=example.size,
            )
    if not compared:
        raise RuntimeError(f"no layer under {name} could be told to be one of this model's")
    return None


def _layers_elsewhere(ground: Ground, x: Leaves, name: str) -> list[tuple[str, NDArray[np.float64]]]:
    """What each layer gives for this batch in a process of another backend."""
    import keras

    model, floatx = ground.bench.model, keras.config.floatx()
    fed = {key: leaf.astype(floatx) if leaf.dtype.kind == "f" else leaf for key, leaf in x.items()}
    inputs, weights = ground.reading.inputs.pack(fed), model.get_weights()
    parts = list(leaves(inputs))
    keys = list(inputs) if isinstance(inputs, dict) else []
    head = {"config": model.to_json(), "weights": len(weights), "inputs": len(parts), "keys": keys}
    arrays = {f"w{index}": weight for index, weight in enumerate(weights)}
    arrays |= {f"x{index}": part for index, part in enumerate(parts)}
    parcel = packed({"head": np.frombuffer(json.dumps(head).encode(), dtype=np.uint8), **arrays})
    left = min(ground.until - time.monotonic(), BACKEND_SECONDS)
    try:
        done = subprocess.run(
            [sys.executable, "-c", _CHILD],
            input=parcel,
            env={**os.environ, "KERAS_BACKEND": name},
            capture_output=True,
            timeout=max(left, 1.0),
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NotAsked(f"the process of {name} did not answer within the {left:.0f} s that were left") from None
    if done.returncode != 0:
        raise RuntimeError(f"the model does not run under {name}:\n{done.stderr.decode(errors='replace')[-2000:]}")
    with np.load(io.BytesIO(done.stdout), allow_pickle=False) as answer:
        paths = json.loads(answer["paths"].tobytes())
        return [(path, answer[f"a{index}"].astype(np.float64)) for index, path in enumerate(paths)]


HALF = Law(
    "half precision agrees with float32",
    "precision-overflow",
    half_agrees,
    computes_in_half,
    any_batches,
    0.3,
    finish=_name_half,
)
OTHER_BACKEND = Law("backends agree", "backend-mismatch", backends_agree, other_backend, any_batches, once=True)
