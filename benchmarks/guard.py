"""What watching costs: `model.fit` with the guard against without, and against the other ways to watch.

    KERAS_BACKEND=torch python -m benchmarks.guard [--pairs 20] [--steps 200] [--others 3] [--write]

In every round plain, plain again (A/A) and guard each fit the same model on the same data. On the CPU they do so in
step: one step of each, in random order, then the next, so that a ratio is of steps that ran within a blink of each
other, and what else the machine does meets all arms alike. What begins and ends a fit is in it. Anomaly mode, which is
switched on for the whole process, and everything on a GPU, where a step ends later than its call, run as whole fits.
Reported: the median of the rounds' ratios and the upper end of its 95 % bootstrap interval, for wall time and for
processor time.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np
import torch
from keras import layers, ops

from benchmarks.small import lstm, transformer
from benchmarks.turns import Spent, bound, in_step, total
from models import tft
from tsguard.guard.callback import Guard

BATCH = 32

Pair = tuple[Spent, Spent]
"""What an arm took, and what the plain fit beside it took."""


Made = tuple[Any, Any, Any]
"""A compiled model, and the x and y of a fit of so many steps."""


def of_noise(model: Any, steps: int, shape: tuple[int, ...], target: tuple[int, ...]) -> Made:
    """The model, compiled, and noise to train it on."""
    model.compile(keras.optimizers.Adam(1e-3), "mse")
    rng = np.random.default_rng(0)
    sizes = ((BATCH * steps, *shape), (BATCH * steps, *target))
    return model, *(rng.normal(size=size).astype("float32") for size in sizes)


class GatedResidual(layers.Layer):
    """ELU, Dense, gated linear unit, add and normalise."""

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.first, self.second = layers.Dense(units, activation="elu"), layers.Dense(2 * units)
        self.skip, self.norm = layers.Dense(units), layers.LayerNormalization()
        self.units = units

    def call(self, x: Any) -> Any:
        value, gate = ops.split(self.second(self.first(x)), 2, axis=-1)
        return self.norm(self.skip(x) + value * ops.sigmoid(gate))


class Select(layers.Layer):
    """Variable selection over the features of each timestep."""

    def __init__(self, features: int, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.each = [GatedResidual(units) for _ in range(features)]
        self.weigh, self.softmax = GatedResidual(features), layers.Softmax()

    def call(self, x: Any) -> Any:
        parts = [grn(x[..., k : k + 1]) for k, grn in enumerate(self.each)]
        weights = ops.expand_dims(self.softmax(self.weigh(x)), -2)
        return ops.sum(ops.stack(parts, axis=-1) * weights, axis=-1)


def narrow_tft(steps: int) -> Made:
    """Variable selection, LSTM, gated residuals, attention, three answers: little to compute for its 81 weights."""
    inputs = keras.Input((32, 6))
    h = Select(6, 32)(inputs)
    h = layers.LayerNormalization()(h + layers.LSTM(32, return_sequences=True)(h))
    a = layers.MultiHeadAttention(4, 8)(h, h, use_causal_mask=True)
    h = GatedResidual(32)(layers.LayerNormalization()(h + a))
    return of_noise(keras.Model(inputs, layers.Dense(3)(h[:, -8:])), steps, (32, 6), (8, 3))


def whole_tft(steps: int) -> Made:
    """The family's own at its default size, with known and static inputs, four targets and three quantiles."""
    data = tft.synthetic()
    rows = np.arange(BATCH * steps) % len(data["y"])
    return tft.build(), {name: values[rows] for name, values in data["x"].items()}, data["y"][rows]


def with_noise(build: Callable[[], tuple[Any, tuple[int, ...]]]) -> Callable[[int], Made]:
    """One of the small models, which have one answer."""

    def made(steps: int) -> Made:
        model, shape = build()
        return of_noise(model, steps, shape, (1,))

    return made


MODELS = {"transformer": with_noise(transformer), "lstm": with_noise(lstm), "tft": whole_tft, "tft, narrow": narrow_tft}


class NaiveGuard(keras.callbacks.Callback):
    """What is written by hand most often: read loss and gradient norms on the host in every step."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        for variable in self.model.trainable_variables:
            gradient = variable.value.grad
            if gradient is not None and not np.isfinite(gradient.norm().item()):
                self.model.stop_training = True


_FOLDER = tempfile.mkdtemp()

ARMS: dict[str, Callable[[], list[Any]]] = {
    "plain": list,
    "plain again": list,
    "guard": lambda: [Guard(out=_FOLDER)],
    "TerminateOnNaN": lambda: [keras.callbacks.TerminateOnNaN()],
    "naive .item()": lambda: [NaiveGuard()],
    "anomaly mode": list,
}


EVERY_ROUND = ("plain", "plain again", "guard")
"""Arms that run in every round; the others in the first few."""
WHOLE = "anomaly mode"
"""It is switched on for the whole process: an arm that cannot share a round."""


def timed(arm: str, model: Any, start: list[Any], x: Any, y: Any) -> Spent:
    """Wall and processor seconds of one fit from the same start."""
    model.set_weights(start)
    callbacks = ARMS[arm]()
    keras.utils.set_random_seed(0)
    with torch.autograd.set_detect_anomaly(arm == "anomaly mode", check_nan=True):
        wall, cpu = time.perf_counter(), time.process_time()
        model.fit(x, y, batch_size=BATCH, verbose=0, callbacks=callbacks)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - wall, time.process_time() - cpu


def rounds(build: Callable[[int], Made], pairs: int, steps: int, others: int) -> dict[str, list[Pair]]:
    """Each arm's wall and processor seconds beside those of `plain`, round by round; `others` rounds hold all arms."""
    models = []
    for _ in ARMS:
        keras.utils.set_random_seed(1)
        model, x, y = build(steps)
        model.fit(*first(x, y), batch_size=BATCH, verbose=0)
        models.append(model)
    start = models[0].get_weights()
    for model in models:
        timed("guard", model, start, *first(x, y))
    seen: dict[str, list[Pair]] = {arm: [] for arm in ARMS if arm != "plain"}
    for round_ in range(pairs):
        arms = [arm for arm in ARMS if arm in EVERY_ROUND or round_ < others]
        random.Random(round_).shuffle(arms)  # and with them the model, whose place in memory has a price of its own
        served = dict(zip(arms, models, strict=False))
        together = [] if torch.cuda.is_available() else [arm for arm in arms if arm != WHOLE]
        for model in models:
            model.set_weights(start)
        keras.utils.set_random_seed(round_)
        laps = in_step({arm: fitting(arm, served[arm], x, y) for arm in together}, seed=round_)
        took = {arm: total(turns) for arm, turns in laps.items()}
        took |= {arm: timed(arm, served[arm], start, x, y) for arm in arms if arm not in together}
        for arm in seen.keys() & took.keys():
            seen[arm].append((took[arm], took["plain"]))
    return seen


def first(x: Any, y: Any) -> tuple[Any, Any]:
    """A few batches to warm up with."""
    return keras.tree.map_structure(lambda values: values[: BATCH * 10], (x, y))


def fitting(arm: str, model: Any, x: Any, y: Any) -> Callable[[Any], None]:
    """A fit of this arm, which takes one callback more."""
    return lambda turn: model.fit(x, y, batch_size=BATCH, verbose=0, callbacks=[*ARMS[arm](), turn])


def measure(name: str, build: Callable[[int], Made], pairs: int, steps: int, others: int) -> list[str]:
    """The rows of one model."""
    keras.utils.clear_session()
    seen = rounds(build, pairs, steps, others)
    per_step = statistics.median(plain[0] for _, plain in seen["guard"]) / steps * 1e3
    rows = []
    for arm, times in seen.items():
        if not times:
            continue
        wall = [mine[0] / plain[0] for mine, plain in times]
        cpu = [mine[1] / plain[1] for mine, plain in times]
        rows.append(
            f"| {name} ({per_step:.1f} ms) | {arm} | {len(times)} | {statistics.median(wall):.3f} | "
            f"{bound(wall):.3f} | {statistics.median(cpu):.3f} | {bound(cpu):.3f} |"
        )
        print(rows[-1], flush=True)
    return rows


HEAD = (
    "| model (plain step) | arm | pairs | wall: median | ≤ 95 % | processor: median | ≤ 95 % |\n"
    "|---|---|---|---|---|---|---|"
)


def merged(file: Path, measured: list[str]) -> list[str]:
    """The rows that were measured, and those of other models and arms, in the order of both."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    rows = {_subject(line): line for line in [*lines, *measured] if " ms) |" in line}
    return sorted(
        rows.values(), key=lambda row: (list(MODELS).index(_subject(row)[0]), list(ARMS).index(_subject(row)[1]))
    )


def _subject(row: str) -> tuple[str, str]:
    model, arm = row.removeprefix("| ").split(" | ")[:2]
    return model.rsplit(" (", 1)[0], arm


def main() -> None:
    """Measure, print, and write the table where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--others", type=int, default=3, help="rounds in which the other arms run too")
    parser.add_argument("--models", default=";".join(MODELS), help="separated by ;")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/guard_cost.md")
    options = parser.parse_args()
    print(HEAD)
    rows = []
    names = options.models.split(";")
    for name in names:
        rows += measure(name, MODELS[name], options.pairs, options.steps, options.others)
    if options.write:
        target = Path(__file__).with_name("results") / "guard_cost.md"
        rows = merged(target, rows)
        device = (
            torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
        )
        text = (
            "# What watching costs\n\n"
            f"`python -m benchmarks.guard --pairs {options.pairs} --steps {options.steps} --write` (or model by "
            f"model, with `--models`): {device}, torch "
            f"{torch.__version__}, keras {keras.__version__}, load of the machine {os.getloadavg()[1]:.0f} on "
            f"{os.cpu_count()} cores. Time of a fit of {options.steps} steps over that of a plain one, within the same "
            "round, the fits of a round in step. “plain again” is the noise of the machine. Beginning and end of a fit "
            "(the run's folder, the report) are in it.\n\n"
            f"{HEAD}\n" + "\n".join(rows) + "\n"
        )
        target.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
