"""Duet, moola and the baselines on the public data: `python -m benchmarks.models_duet_moola WHAT`, WHAT as in RECIPES.

The data lies in ../shared/data or in the folder that TSGUARD_DATA names. Every figure of docs/models.md
comes from here. `--quick` shortens training; then the figures mean nothing, but everything runs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from benchmarks.models_embedded import instead_of
from models import baselines, duet, moola
from models.duet.data import standardise, take

CONTEXT, HORIZON = 336, 96
ETT_TRAIN, ETT_VALIDATION, ETT_TEST = (0, 8640), (8640, 11520), (11520, 14400)
"""Rows of the ETT protocol; validation and test reach back by one context."""
AREM_CLASSES = ("bending1", "bending2", "cycling", "lying", "sitting", "standing", "walking")
AIR_FEATURES = ("PT08.S1(CO)", "C6H6(GT)", "PT08.S2(NMHC)", "NOx(GT)", "PT08.S3(NOx)", "NO2(GT)", "PT08.S4(NO2)",
                "PT08.S5(O3)", "T", "RH")  # fmt: skip
"""Ten of thirteen: without NMHC and CO, which are mostly or often missing, and AH, which follows from T and RH."""


def data_folder():
    """Where the public data is."""
    return Path(os.environ.get("TSGUARD_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


# Readers: each returns plain arrays


def read_ett():
    """(17420, 7)."""
    return pd.read_csv(data_folder() / "ett" / "ETTh1.csv").iloc[:, 1:].to_numpy("float64")


def read_air():
    """(9357, 10), NaN where −200 stands for missing."""
    table = pd.read_csv(data_folder() / "air_quality" / "AirQuality.csv")[list(AIR_FEATURES)].to_numpy("float64")
    return np.where(table == -200, np.nan, table)


def read_market():
    """(9235, 12): daily prices of VIX and what follows from them and their past alone."""
    price = pd.read_csv(data_folder() / "vix" / "vix-daily.csv").iloc[:, 1:]
    price.columns = ["open", "high", "low", "close"]
    change = np.log(price["close"]).diff()
    more = {"change": change, "range": (price["high"] - price["low"]) / price["close"], "gap": price["open"].diff()}
    more |= {f"mean_{n}": price["close"].rolling(n).mean() for n in (5, 20)}
    more |= {f"deviation_{n}": change.rolling(n).std() for n in (5, 20)} | {"month": change.rolling(20).sum()}
    return np.concatenate([price.to_numpy("float64"), pd.DataFrame(more).to_numpy("float64")], axis=1)


def read_arem():
    """[(class, (rows, 6))], every file once: six files are exact copies of others."""
    seen, files = set(), []
    for label, name in enumerate(AREM_CLASSES):
        for path in sorted((data_folder() / "arem" / name).glob("*.csv"), key=lambda p: int(p.stem[7:])):
            lines = [line.replace(",", " ").split() for line in path.read_text().splitlines() if "#" not in line]
            table = np.asarray(
                [line[1:7] if len(line) < 9 else line[2:8] for line in lines if len(line) > 6], "float64"
            )
            digest = hashlib.sha256(table.tobytes()).hexdigest()
            if digest not in seen:
                seen.add(digest)
                files.append((label, table))
    return files


def read_vowels(part):
    """(samples, 29, 12) padded with zeros on the right, mask, speaker 0–8; part is TRAIN or TEST."""
    text = (data_folder() / "japanese_vowels" / f"JapaneseVowels_{part}.ts").read_text().splitlines()
    rows = [line.split(":") for line in text[[line.lower() for line in text].index("@data") + 1 :] if line]
    values, mask = np.zeros((len(rows), 29, 12), "float32"), np.zeros((len(rows), 29), bool)
    for i, row in enumerate(rows):
        window = np.asarray([[float(v) for v in channel.split(",")] for channel in row[:-1]]).T
        values[i, : len(window)], mask[i, : len(window)] = window, True
    return values, mask, np.asarray([int(row[-1]) - 1 for row in rows], "int32")


# ETTh1


def ett_windows():
    """{train, validation, test: (x, y)} in the ETT protocol, and the scaled training rows."""
    series = standardise(read_ett(), ETT_TRAIN[1])
    spans = {"train": ETT_TRAIN, "validation": ETT_VALIDATION, "test": ETT_TEST}
    cut = {}
    for name, (start, end) in spans.items():
        part = baselines.sliding_windows(series[max(0, start - CONTEXT) : end], CONTEXT + HORIZON)
        cut[name] = (part[:, :CONTEXT], part[:, CONTEXT:])
    return cut, series[slice(*ETT_TRAIN)]


def ett():
    """x, y, validation_data and names of ETTh1 in its protocol, as a run's `data` wants them."""
    cut, _ = ett_windows()
    train, held = (tuple(np.ascontiguousarray(part) for part in cut[name]) for name in ("train", "validation"))
    names = ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")
    return {"x": train[0], "y": train[1], "validation_data": held, "names": names}


def errors(y, predicted):
    """MSE and MAE over every window, step and feature."""
    gap = np.asarray(predicted, "float64") - y
    return {"mse": float(np.mean(gap**2)), "mae": float(np.mean(np.abs(gap)))}


def run_baselines(*, quick=False):
    """The four figures that need no training loop."""
    cut, rows = ett_windows()
    x, y = cut["test"]
    assert [len(part[0]) for part in cut.values()] == [8209, 2785, 2785]
    return {
        "least squares": errors(y, baselines.LeastSquares.fit(rows, CONTEXT, HORIZON).predict(x)),
        "seasonal naive": errors(y, baselines.seasonal_naive(x, HORIZON)),
        "last value": errors(y, baselines.last_value(x, HORIZON)),
        "train mean": errors(y, baselines.train_mean(rows, len(x), HORIZON)),
    }


def steps_per_epoch(batch_size):
    """Batches in one pass over the training windows of ETTh1."""
    return -(-(ETT_TRAIN[1] - CONTEXT - HORIZON + 1) // batch_size)


def fit_forecaster(model, epochs, batch_size, limit_s=None):
    """Train on ETTh1 with the best epoch on validation kept; figures of the test windows and the time it took."""
    cut, _ = ett_windows()
    start = time.monotonic()
    best = KeepBest(limit_s)
    train = tuple(np.ascontiguousarray(part) for part in cut["train"])
    held = tuple(np.ascontiguousarray(part) for part in cut["validation"])
    history = model.fit(*train, validation_data=held, epochs=epochs, batch_size=batch_size, verbose=0, callbacks=[best])
    seconds = time.monotonic() - start
    scores = errors(cut["test"][1], model.predict(np.ascontiguousarray(cut["test"][0]), batch_size=512, verbose=0))
    curve = [round(float(v), 4) for v in history.history["val_loss"]]
    return {**scores, "seconds": round(seconds), "epochs": len(curve), "val_loss": curve}


class KeepBest(keras.callbacks.Callback):
    """Restores the weights of the best validation loss at the end; stops when the next epoch would pass the limit."""

    def __init__(self, limit_s=None):
        super().__init__()
        self.limit_s, self.best, self.weights = limit_s, np.inf, None

    def on_train_begin(self, logs=None):
        self.start = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        if logs["val_loss"] < self.best:
            self.best, self.weights = logs["val_loss"], self.model.get_weights()
        spent = time.monotonic() - self.start
        if self.limit_s and spent * (epoch + 2) / (epoch + 1) > self.limit_s:
            self.model.stop_training = True

    def on_train_end(self, logs=None):
        self.model.set_weights(self.weights)


def run_linear(*, quick=False):
    """NLinear and DLinear in Keras: at most 0.385 in two minutes on two cores."""
    results = {}
    for kind in ("nlinear", "dlinear"):
        keras.utils.set_random_seed(0)
        epochs = 1 if quick else 10
        # The rate falls to nothing: the constant one circles around the solution, and the best epoch is then luck.
        rate = keras.optimizers.schedules.CosineDecay(2e-3, epochs * steps_per_epoch(64))
        model = duet.build(kind=kind, context=CONTEXT, horizon=HORIZON, rate=rate, clipnorm=1.0)
        results[kind] = fit_forecaster(model, epochs=epochs, batch_size=64, limit_s=110)
    return results


def run_duet(*, quick=False):
    """Duet supervised: at most 0.42 within five minutes, and still falling."""
    keras.utils.set_random_seed(0)
    model = duet.build(
        context=CONTEXT,
        horizon=HORIZON,
        patch=16,
        stride=16,
        width=32,
        heads=4,
        depth=2,
        mix_features=False,
        clipnorm=1.0,
    )
    return {"duet": fit_forecaster(model, epochs=1 if quick else 30, batch_size=64, limit_s=20 if quick else 280)}


# Pre-training over four sets


def four_sets(context=96, horizon=24, stride=8, *, train=True):
    """{name: windows} of 7, 6, 10 and 12 features, each scaled by its own training rows (the first 70 %)."""

    def of(series):
        edge = int(0.7 * len(series))
        scaled = standardise(series, edge)
        return duet.windows(scaled[:edge] if train else scaled[edge:], context, horizon, stride)

    files = [table for _, table in read_arem()]
    edge = int(0.7 * len(files))
    order = np.random.default_rng(0).permutation(len(files))
    kept = [files[i] for i in (order[:edge] if train else order[edge:])]
    fitted = np.concatenate([files[i] for i in order[:edge]])
    parts = []
    for table in kept:
        joined = standardise(np.concatenate([fitted, table]), len(fitted))[len(fitted) :]
        parts.append(duet.windows(joined, context, horizon, stride * 4))
    activity = {key: np.concatenate([part[key] for part in parts]) for key in ("x", "y")}
    return {"transformer": of(read_ett()), "activity": activity, "air": of(read_air()), "market": of(read_market())}


class StepLog(keras.callbacks.Callback):
    """Every term of every step (batch logs are running means: taken apart again)."""

    def __init__(self):
        super().__init__()
        self.steps = []

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append(dict(logs))
        self.model.reset_metrics()


def run_pretrain(*, quick=False, objectives=None, steps=300, precision="float32", sets=None):
    """300 steps over the four sets: nothing non-finite, every objective falling."""
    parts = four_sets()
    parts = {name: part for name, part in parts.items() if sets is None or name in sets}
    data = duet.unify(parts)
    rng = np.random.default_rng(0)
    weight = {d: 1.0 / np.sum(data["x"]["domain"] == d) for d in np.unique(data["x"]["domain"])}
    chance = np.asarray([weight[d] for d in data["x"]["domain"]])
    steps = 30 if quick else steps
    order = rng.choice(len(chance), size=steps * 16, p=chance / chance.sum())
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(precision)
    objectives = objectives or {name: 1.0 for name in duet.OBJECTIVES if name != "forecast"}
    model = duet.build_pretraining(objectives=objectives, clipnorm=1.0)
    keras.config.set_dtype_policy("float32")
    log, start = StepLog(), time.monotonic()
    model.fit(
        take(data["x"], order), data["y"][order], batch_size=16, epochs=1, verbose=0, shuffle=False, callbacks=[log]
    )
    curves = {name: np.asarray([step[name] for step in log.steps]) for name in log.steps[0]}
    edge = max(1, steps // 10)
    summary = {name: [float(curve[:edge].mean()), float(curve[-edge:].mean())] for name, curve in curves.items()}
    finite = all(np.isfinite(curve).all() for curve in curves.values())
    return {"finite": bool(finite), "first and last tenth": summary, "seconds": round(time.monotonic() - start)}, model


def finetune_curves(source, factors, *, quick=False, **options):
    """The curve over the number of labelled windows of ETTh1, later rows held out, for each rate of the encoder."""
    train = duet.unify({"transformer": four_sets()["transformer"]})
    held = duet.unify({"transformer": four_sets(train=False)["transformer"]})
    held, epochs = (held["x"], held["y"]), 1 if quick else 4
    return {
        f"encoder's rate times {factor}": duet.sample_efficiency(
            source, train["x"], train["y"], held, epochs=epochs, encoder_factor=factor, **options
        )
        for factor in factors
    }


def run_finetune(*, quick=False):
    """Pre-trained on the four sets, against from-scratch."""
    _, source = run_pretrain(quick=quick, objectives={"masked": 1.0, "next_patch": 1.0, "order": 0.2}, steps=400)
    return finetune_curves(source, (1.0, 0.1), quick=quick, fractions=(0.05, 0.25, 1.0))


def run_finetune_alone(*, quick=False):
    """Pre-trained on the set itself, against from-scratch, at a quarter of the labels."""
    _, source = run_pretrain(quick=quick, objectives={"masked": 1.0, "next_patch": 1.0}, sets=("transformer",))
    return finetune_curves(source, (1.0, 0.1), quick=quick, fractions=(0.25,), strategies=("none",))


# Moola


def arem_windows(held, steps=64, stride=32):
    """x, y and held-out x, y of AReM, scaled by the training files; `held(place, count)` says which of a class's files
    are held out, always whole."""
    parts = {True: [], False: []}
    files = read_arem()
    for label in range(len(AREM_CLASSES)):
        mine = [item for item in files if item[0] == label]
        for place, item in enumerate(mine):
            parts[held(place, len(mine))].append(item)
    rows = np.concatenate([table for _, table in parts[False]])
    middle, size = rows.mean(axis=0), rows.std(axis=0)

    def cut(part):
        x = [baselines.sliding_windows((table - middle) / size, steps, stride) for _, table in part]
        y = np.concatenate([np.full(len(w), label, "int32") for (label, _), w in zip(part, x, strict=True)])
        x = np.ascontiguousarray(np.concatenate(x), dtype="float32")
        return {"values": x, "mask": np.ones(x.shape[:2], bool)}, y

    return cut(parts[False]), cut(parts[True])


def last_files(place, count):
    """The last 30 % of a class's files."""
    return place >= max(1, round(0.7 * count))


FOLDS = 3
"""Every file is held out once, each third with its neighbours in training."""


def moola_on_arem(held, *, quick):
    """{who: classes predicted} of one split, and the true ones: majority, a forest on simple features, moola twice."""
    from sklearn.ensemble import RandomForestClassifier

    (x, y), (x_held, y_held) = arem_windows(held)
    simple = [np.concatenate([getattr(part["values"], name)(axis=1) for name in ("mean", "std", "min", "max")], axis=1)
              for part in (x, x_held)]  # fmt: skip
    forest = RandomForestClassifier(300, random_state=0).fit(simple[0], y)
    found = {"majority": baselines.majority_class(y, len(y_held)), "forest": forest.predict(simple[1])}
    keras.utils.set_random_seed(0)
    settings = {"features": 6, "units": 48, "scale": False}
    encoder = moola.build_pretraining(mask="patch", **settings)
    encoder.fit(x, epochs=1 if quick else 15, batch_size=64, verbose=0)
    for name in ("scratch", "transferred"):
        keras.utils.set_random_seed(0)
        model, callbacks = moola.build(classes=len(AREM_CLASSES), dropout=0.2, **settings), []
        if name == "transferred":
            assert not moola.transfer(encoder, model).nothing
            callbacks = [moola.unfreeze_after(model, 3)]
        model.fit(x, y, epochs=1 if quick else 25, batch_size=32, verbose=0, callbacks=callbacks)
        found[name] = model.predict(x_held, verbose=0).argmax(axis=1)
    return found, y_held


def run_moola(*, quick=False):
    """AReM with the last files of each class held out: what was recorded last may look like nothing before it."""
    found, y = moola_on_arem(last_files, quick=quick)
    return {name: classified(predicted, y, len(AREM_CLASSES)) for name, predicted in found.items()}


def run_moola_folds(*, quick=False):
    """AReM with every file held out once, in three folds; the figures are of all windows together."""
    folds = [moola_on_arem(lambda place, count, fold=fold: place % FOLDS == fold, quick=quick) for fold in range(FOLDS)]
    y = np.concatenate([part for _, part in folds])
    return {
        name: classified(np.concatenate([found[name] for found, _ in folds]), y, len(AREM_CLASSES))
        for name in folds[0][0]
    }


def run_vowels(*, quick=False):
    """The classifier on Japanese Vowels: nine speakers, 7 to 29 steps, the publisher's split."""
    values, mask, y = read_vowels("TRAIN")
    held_values, held_mask, y_held = read_vowels("TEST")
    middle, size = values[mask].mean(axis=0), values[mask].std(axis=0)
    x = {"values": np.where(mask[..., None], (values - middle) / size, 0).astype("float32"), "mask": mask}
    x_held = {"values": np.where(held_mask[..., None], (held_values - middle) / size, 0).astype("float32"),
              "mask": held_mask}  # fmt: skip
    settings = {"features": 12, "units": 32, "scale": False}
    results = {"majority": classified(baselines.majority_class(y, len(y_held)), y_held, 9)}
    for name in ("scratch", "transferred"):
        keras.utils.set_random_seed(0)
        model, callbacks, start = moola.build(classes=9, dropout=0.2, **settings), [], time.monotonic()
        if name == "transferred":
            encoder = moola.build_pretraining(mask="patch", **settings)
            encoder.fit(x, epochs=1 if quick else 20, batch_size=16, verbose=0)
            results["transfer"] = len(moola.transfer(encoder, model).loaded)
            callbacks = [moola.unfreeze_after(model, 3)]
        model.fit(x, y, epochs=1 if quick else 30, batch_size=16, verbose=0, callbacks=callbacks)
        results[name] = classified(model.predict(x_held, verbose=0).argmax(axis=1), y_held, 9)
        results[name]["seconds"] = round(time.monotonic() - start)
    return results


def classified(predicted, y, classes):
    """Accuracy and the recall of every class."""
    recall = moola.recall_per_class(y, predicted, classes)
    return {"accuracy": round(float(np.mean(predicted == y)), 4), "recall": [round(float(r), 3) for r in recall],
            "recall_min": round(float(np.nanmin(recall)), 4)}  # fmt: skip


# Throughput


def torch_twin(model):
    """Hand-written torch of a supervised Duet: the same function of the same weights, masks and all.

    Returns the module, whose forward pass takes the inputs' tensors, and a training step of it.
    """
    import torch
    from torch import nn
    from torch.nn import functional

    s = model.settings
    width, heads, count = s["width"], s["heads"], model.patches

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.project, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.norm = nn.LayerNorm(width, eps=1e-3)

        def forward(self, tokens, mask):
            shape = tokens.shape
            split = self.project(self.norm(tokens)).view(-1, shape[-2], 3, heads, width // heads).permute(2, 0, 3, 1, 4)
            mixed = functional.scaled_dot_product_attention(*split, attn_mask=mask).transpose(1, 2).reshape(shape)
            return functional.dropout(self.out(mixed), s["dropout"], self.training)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.time, self.across = Attention(), Attention() if s["mix_features"] else None
            self.widen, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
            self.norm = nn.LayerNorm(width, eps=1e-3)

        def forward(self, tokens, over_time, over_features):
            tokens = tokens + self.time(tokens, over_time)
            if self.across is not None:
                tokens = tokens + self.across(tokens.transpose(1, 2), over_features).transpose(1, 2)
            changed = self.narrow(functional.gelu(self.widen(self.norm(tokens))))
            return tokens + functional.dropout(changed, s["dropout"], self.training)

    class Twin(nn.Module):
        def __init__(self):
            super().__init__()
            self.position = nn.Parameter(torch.zeros(count, width))
            self.embed = nn.Linear(2 * s["patch"], width)
            self.blocks = nn.ModuleList([Block() for _ in range(s["depth"])])
            self.norm, self.head = nn.LayerNorm(width, eps=1e-3), nn.Linear(count * width, s["horizon"])

        def forward(self, values, mask=None, feature_mask=None):
            cells = torch.ones_like(values, dtype=torch.bool)
            cells = cells if mask is None else cells & mask[:, :, None]
            cells = cells if feature_mask is None else cells & feature_mask[:, None, :]
            last = torch.where(cells.any(2), torch.arange(values.shape[1]), -1).amax(1, keepdim=True)
            index = torch.arange(s["context"]) + last - s["context"] + 1
            real = ((index >= 0) & (last >= 0))[..., None]
            index = index.clamp(0, values.shape[1] - 1)[..., None].expand(-1, -1, values.shape[2])
            cells = cells.gather(1, index) & real
            values = values.gather(1, index).where(cells, 0.0)
            number = cells.sum(1, keepdim=True).clamp(min=1)
            mean = values.sum(1, keepdim=True) / number
            centred = (values - mean).where(cells, 0.0)
            deviation = torch.sqrt(centred.square().sum(1, keepdim=True) / number + 1e-5)
            patches = (centred / deviation).transpose(1, 2).unfold(2, s["patch"], s["stride"])
            known = cells.transpose(1, 2).unfold(2, s["patch"], s["stride"])
            tokens = self.embed(torch.cat([patches, known.to(patches.dtype)], -1)) + self.position
            tokens = functional.dropout(tokens, s["dropout"], self.training)
            held = known.any(-1)
            over = [torch.where(part.reshape(-1, 1, 1, part.shape[2]), 0.0, -3e38) for part in (held, held.mT)]
            for block in self.blocks:
                tokens = block(tokens, *over)
            tokens = self.norm(tokens).where(held[..., None], 0.0)
            ahead = self.head(tokens.flatten(2)).transpose(1, 2) * deviation + mean
            features = cells.any(1, keepdim=True)
            return ahead.where(features, 0.0), features

    twin = Twin()
    optimizer = torch.optim.Adam(twin.parameters(), 1e-3, eps=1e-7)

    def step(x, y):
        optimizer.zero_grad()
        ahead, features = twin(**x)
        error = (ahead - y).where(features, 0.0).square()
        loss = error.sum() / (features.sum() * y.shape[1]).clamp(min=1)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return twin, step


def share_weights(model, twin):
    """Copy the weights of a Duet into its twin; the order of creation is the same, Keras' kernels lie transposed."""
    import torch

    mine = [keras.ops.convert_to_numpy(v) for v in model.trainable_variables]
    with torch.no_grad():
        for given, (name, wanted) in zip(mine, twin.named_parameters(), strict=True):
            linear = given.ndim == 2 and name != "position"
            wanted.copy_(torch.as_tensor(given.T if linear else given))


def empty_calls(model, x):
    """A function that calls as many layers as a forward pass of the model does; each returns what it was given: what
    Keras asks for being there."""
    from torch.nn.modules.module import register_module_forward_hook

    calls = []
    hook = register_module_forward_hook(lambda module, inputs, output: calls.append(module))
    model(x, training=True)
    hook.remove()
    empty = [keras.layers.Identity(name=f"empty_{i}") for i in range(len(calls))]
    tokens = keras.ops.zeros((len(x["values"]), x["values"].shape[2], model.patches, model.width))

    def run():
        for layer in empty:
            layer(tokens)

    return run


LARGE = {"context": 336, "horizon": 96, "patch": 16, "width": 128, "heads": 8, "depth": 3}
DUETS = {
    "width 32, 32 windows of 7": ({}, 32, 7),
    "width 32, one window of one": ({}, 1, 1),
    "width 128, 32 windows of 7": (LARGE, 32, 7),
}
"""Settings, windows and features of the duets that stand beside their twins. One window of one feature leaves next to
nothing to compute: what is left is what the calls themselves cost."""


def step_of(model, x, y):
    """The training step of `fit` on this batch. (`train_on_batch` looks at every layer before each step.)"""
    model.train_on_batch(x, y)
    return lambda: model.train_function([(x, y)])


def in_turns(runs, turns, warm=2):
    """{name: median milliseconds of processor time} of functions that take turns, so that a busy machine is busy for
    all."""
    spent = {name: [] for name in runs}
    for turn in range(turns + warm):
        for name, run in runs.items():
            start = time.process_time()
            run()
            if turn >= warm:
                spent[name].append(time.process_time() - start)
    return {name: 1e3 * float(np.median(times)) for name, times in spent.items()}


def run_throughput(*, quick=False):
    """Processor milliseconds of a training step: duet, its torch twin and as many Keras layers that do nothing, in
    turns; and moola."""
    import torch

    rng, turns = np.random.default_rng(0), 5 if quick else 60
    results = {}
    for name, (settings, windows, features) in DUETS.items():
        keras.utils.set_random_seed(0)
        model = duet.build(**settings)
        lengths = rng.integers(model.context // 2, model.context + 1, (windows, 1))
        x = {
            "values": rng.normal(size=(windows, model.context, features)).astype("float32"),
            "mask": np.arange(model.context)[None, :] < lengths,
            "feature_mask": np.arange(features)[None, :]
            < rng.integers(features - features // 3, features + 1, (windows, 1)),
        }
        y = rng.normal(size=(windows, model.horizon, features)).astype("float32")
        twin, step = torch_twin(model)
        share_weights(model, twin)
        tensors = {key: torch.as_tensor(value) for key, value in x.items()}, torch.as_tensor(y)
        spent = in_turns(
            {
                "duet": step_of(model, *tensors),
                "torch twin": lambda: step(*tensors),  # noqa: B023
                "empty layers": empty_calls(model, tensors[0]),
            },
            turns,
        )
        results[f"duet, {name}"] = {f"{who} ms": round(figure, 2) for who, figure in spent.items()} | {
            "more ms": round(spent["duet"] - spent["torch twin"], 2),
            "ratio": round(spent["duet"] / spent["torch twin"], 2),
        }
    for name, model, made in (
        ("moola classifier", moola.build(), moola.synthetic(samples=32)),
        ("moola autoencoder", moola.build_pretraining(), moola.synthetic(samples=32, labels=False)),
    ):
        spent = in_turns({name: step_of(model, made["x"], made["y"])}, turns // 2)
        results[name] = {"ms": round(spent[name], 2)}
    return results


RECIPES = {
    "baselines": run_baselines,
    "linear": run_linear,
    "duet": run_duet,
    "pretrain": lambda *, quick=False: run_pretrain(quick=quick)[0],
    "finetune": run_finetune,
    "finetune-alone": run_finetune_alone,
    "moola": run_moola,
    "moola-folds": run_moola_folds,
    "vowels": run_vowels,
    "throughput": run_throughput,
}


EMBEDDED = {"linear": "duet.yaml", "duet": "duet.yaml", "pretrain": "duet_pretrain.yaml", "finetune": "duet.yaml",
            "finetune-alone": "duet.yaml", "moola": "moola.yaml", "moola-folds": "moola.yaml",
            "vowels": "moola.yaml"}  # fmt: skip
"""The run that stands in for a recipe without its data; throughput needs none, baselines are nothing without it."""


def main(arguments=None):
    """Run the named recipes and print their figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="+", choices=[*RECIPES])
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args(arguments)
    for what in chosen.what:
        if what in EMBEDDED and not data_folder().is_dir():
            figures = instead_of(data_folder(), EMBEDDED[what])
        else:
            figures = RECIPES[what](quick=chosen.quick)
        print(what, json.dumps(figures, indent=1))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
