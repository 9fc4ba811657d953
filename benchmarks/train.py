"""What a session costs per step: guard, checkpoints and callbacks around `model.fit`, against `model.fit` alone.

    nice -n -15 taskset -c 1 python -m benchmarks.train [--pairs 20] [--steps 101] [--write]

All arms train the same model on the same data from the same start, plain twice (A/A), in step: ten steps of one, then
of the next, in random order, so that what else the machine does meets all arms alike; ratios are taken within a round.
A session's time is that of its steps only: preflight, judgement and pages are paid once, not per step. Arms: the
session as `tsguard train` makes it (guard, journal, recorded rate, progress), and the same with a checkpoint every 50
steps; what these cost is also held against the session without them. A session shows its progress; so does `model.fit`
with its bar (written to nowhere here), which reads the loss from the device in every step. `windows` are those of a
long series: `model.fit` with a DataLoader that cuts them one by one, the session with `tsguard.data.loader`, which cuts
a batch at once. Processor time is that of all threads of the process, the one that writes checkpoints among them.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import os
import random
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np
import torch
from keras import layers

from benchmarks.small import lstm, transformer
from benchmarks.turns import Spent, bound, in_step, total
from benchmarks.windows import FEATURES, HORIZON, LENGTH, Naive
from tsguard.backend import seed_everything
from tsguard.checks.registry import Context
from tsguard.data.loader import torch_loader
from tsguard.data.windows import Windows
from tsguard.dataset import Data
from tsguard.gate import Gate
from tsguard.guarded import session as made_session
from tsguard.settings import GuardSettings, TrainSettings
from tsguard.store import RunFolder
from tsguard.subject import Subject
from tsguard.train.setup import callbacks

BATCH = 32
LARGE_BATCH = 256
"""Of windows, as models this small are trained."""

TURN = 10
"""Steps before the next arm's turn: a checkpoint, every 50 steps, is written within the turn that asked for it."""


def linear() -> tuple[Any, tuple[int, ...]]:
    """One linear layer over windows of 96 steps of 12 features: its step is about as long as cutting a batch."""
    inputs = keras.Input((LENGTH, FEATURES))
    return keras.Model(inputs, layers.Dense(1)(layers.Flatten()(inputs))), (LENGTH, FEATURES)


Feed = dict[str, Any]
"""What `model.fit` is given of data."""


def plain(*, bar: bool) -> Callable[[Any, Feed, Any], None]:
    """What a session is compared with, with the progress bar of Keras or without."""

    def train(model: Any, feed: Feed, turn: Any) -> None:
        model.fit(**feed, verbose=int(bar), callbacks=[turn])

    return train


def session(every: int) -> Callable[[Any, Feed, Any], None]:
    """The session, with a checkpoint every so many steps (0: at the end of an epoch)."""

    def train(model: Any, feed: Feed, turn: Any) -> None:
        with tempfile.TemporaryDirectory() as place:
            folder = RunFolder.create(place, "bench")
            data = Data(feed["x"], feed.get("y"), batch_size=BATCH)
            made_session(
                Context(subject=Subject.from_model(model, data), data=data),
                gate=Gate(),
                folder=folder,
                watch=GuardSettings(diagnose=False, repro=False),
                progress=lambda name: None,
                follow=lambda standing: None,
                fit_arguments={**{k: v for k, v in feed.items() if k not in "xy"}, "verbose": 0},
                callbacks=(*callbacks(TrainSettings(), data), turn),
                preflight=False,
                checkpoint={"every": every},
            ).run()

    return train


CHECKPOINTS, BAR = "session, checkpoint every 50", "plain, progress bar"
ARMS: dict[str, Callable[[Any, Feed, Any], None]] = {
    "plain": plain(bar=False),
    "plain again": plain(bar=False),
    BAR: plain(bar=True),
    "session": session(0),
    CHECKPOINTS: session(50),
}
BESIDE = {"session": BAR, CHECKPOINTS: "session"}
"""What an arm is held against beside `plain`."""


def arrays(shape: tuple[int, ...], steps: int) -> Callable[[str], Feed]:
    """The same arrays for every arm."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(BATCH * steps, *shape)).astype("float32")
    y = rng.normal(size=(BATCH * steps, 1)).astype("float32")
    return lambda arm: {"x": x, "y": y, "batch_size": BATCH}


def windows(shape: tuple[int, ...], steps: int) -> Callable[[str], Feed]:
    """All windows of one series, by each arm's own loader."""
    length, features = shape
    values = np.random.default_rng(0).normal(size=(LARGE_BATCH * steps + length, features)).astype("float32")
    cut = Windows(values, length=length, horizon=HORIZON, targets=[0])
    items = Naive(values, targets=slice(0, 1))

    def feed(arm: str) -> Feed:
        if arm.startswith("plain"):
            return {"x": torch.utils.data.DataLoader(items, batch_size=LARGE_BATCH, shuffle=True)}
        return {"x": torch_loader(cut, batch_size=LARGE_BATCH, workers=0), "shuffle": False}

    return feed


MODELS: dict[str, tuple[Callable[[], tuple[Any, tuple[int, ...]]], Callable[[tuple[int, ...], int], Any]]] = {
    "transformer": (transformer, arrays),
    "lstm": (lstm, arrays),
    "windows": (linear, windows),
}


def measure(name: str, pairs: int, steps: int) -> list[str]:
    """The rows of one model."""
    keras.utils.clear_session()
    build, fed = MODELS[name]
    models = []
    for _ in ARMS:
        seed_everything(1)
        model, shape = build()
        model.compile(keras.optimizers.Adam(1e-3), "mse")
        models.append(model)
    feed = fed(shape, steps)
    start = models[0].get_weights()
    seen: dict[str, list[Spent]] = {arm: [] for arm in ARMS}
    for round_ in range(-1, pairs):  # the first round warms up
        arms = list(ARMS)
        random.Random(round_).shuffle(arms)
        fits = {}
        for arm, model in zip(arms, models, strict=True):
            model.set_weights(start)
            fits[arm] = functools.partial(ARMS[arm], model, feed(arm))
        seed_everything(0)
        with contextlib.redirect_stdout(io.StringIO()):
            laps = in_step(fits, seed=round_, steps=TURN)
        if round_ >= 0:
            for arm in ARMS:
                wall, processor = total(laps[arm][1:-1])  # without what begins a fit and what ends it
                seen[arm].append((wall / (len(laps[arm]) - 2) / TURN, processor / (len(laps[arm]) - 2) / TURN))
    rows = []
    for arm, times in seen.items():
        for other in dict.fromkeys(("plain", BESIDE.get(arm, "plain"))):
            pairs_ = zip(times, seen[other], strict=True)
            wall, cpu = zip(*((t[0] / p[0], t[1] / p[1]) for t, p in pairs_), strict=True)
            spent = " / ".join(f"{1000 * statistics.median(t[k] for t in times):.2f}" for k in (0, 1))
            shown = " | ".join(f"{statistics.median(ratios):.3f} | {bound(list(ratios)):.3f}" for ratios in (wall, cpu))
            rows.append(f"| {name} | {arm} | {other} | {spent} | {shown} |")
            print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Print the table; write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--steps", type=int, default=101)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--write", action="store_true", help="Keep the table in benchmarks/results/train.md.")
    given = parser.parse_args()
    lines = [
        "| model | arm | against | ms a step, wall / processor | wall: median | ≤ 95 % | processor: median | ≤ 95 % |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    print("\n".join(lines))
    for name in given.models.split(","):
        lines += measure(name, given.pairs, given.steps)
    text = "\n".join(lines)
    if given.write:
        target = Path(__file__).parent / "results" / "train.md"
        target.write_text(
            f"# A session per step\n\n`nice -n -15 taskset -c 1 python -m benchmarks.train --pairs {given.pairs} "
            f"--steps {given.steps} --write`\n\n{given.pairs} rounds of {given.steps} steps, batch {BATCH} (windows: "
            f"{LARGE_BATCH}), "
            f"{os.cpu_count()} cores, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}.\n\n{text}\n",
            encoding="utf-8",
        )


if __name__ == "__main__":
    main()
