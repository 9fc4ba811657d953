"""Cases from planted faults: the batch that fails, the model as it starts."""

import os
import re
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np
from keras import layers

from fixtures.operations.faults import BATCH, FAULTS, STEP
from tsguard.dataset import map_leaves
from tsguard.repro.case import Batch, from_batch
from tsguard.repro.find import reduced

ROOT = Path(__file__).parents[2]
BY_NAME = {fault.name: fault for fault in FAULTS}


def too_fast():
    """A line that any small network learns, at a rate of twenty."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(256, 4)).astype("float32")
    y = (x @ np.array([[1.0], [-2.0], [0.5], [1.5]])).astype("float32")
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8, activation="tanh"), layers.Dense(1)])
    model.compile(keras.optimizers.Adam(20.0), "mse")
    return model, x, y


def planted(name, **given):
    """The whole failure of a planted fault."""
    keras.utils.set_random_seed(3)
    model, x, y = BY_NAME[name].build(True)
    rows = slice(STEP * BATCH, (STEP + 1) * BATCH)
    batch = Batch(*(map_leaves(lambda leaf: leaf[rows], part) for part in (x, y)))
    model(batch.x)
    return from_batch(model, batch, weights=tuple(model.get_weights()), name="planted", **given)


def small(name, budget_s=60):
    """The same, reduced."""
    return reduced(planted(name), budget_s=budget_s)


def run(script, *arguments, path=""):
    """Exit code and output of a script in a fresh process, started from the project like a person would."""
    kept = {key: value for key, value in os.environ.items() if key != "KERAS_BACKEND"}
    kept["PYTHONPATH"] = str(path)
    done = subprocess.run(
        [sys.executable, str(script), *arguments], capture_output=True, text=True, cwd=ROOT, env=kept, check=False
    )
    return done.returncode, done.stdout + done.stderr


def healthy_copy(script, folder, *edits):
    """A module beside the script with `build` as its author would mend it."""
    text = script.read_text()
    for old, new in edits:
        assert old in text, old
        text = text.replace(old, new)
    (folder / "mended.py").write_text(text[: re.search(r"\ndef build\(\):\n(?:    .*\n)+", text).end()])
    return "mended:build"
