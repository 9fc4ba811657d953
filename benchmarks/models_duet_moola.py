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
from benchmarks.models_steps import run_throughput
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


DUET_EPOCHS = 5
"""A figure should hang on the recipe and not on the speed of the machine. In ten epochs, which a quick one finishes in
five minutes, the validation loss turns after the seventh (docs/models.md)."""


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
    return {
        "duet": fit_forecaster(model, epochs=1 if quick else DUET_EPOCHS, batch_size=64, limit_s=20 if quick else 280)
    }


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


def evenly(domain, count, *, seed):
    """`count` windows to train on, drawn so that every set is drawn equally often."""
    weight = {d: 1.0 / np.sum(domain == d) for d in np.unique(domain)}
    chance = np.asarray([weight[d] for d in domain])
    return np.random.default_rng(seed).choice(len(chance), size=count, p=chance / chance.sum())


def run_pretrain(*, quick=False, objectives=None, steps=300, precision="float32", sets=None):
    """300 steps over the four sets: nothing non-finite, every objective falling."""
    parts = four_sets()
    parts = {name: part for name, part in parts.items() if sets is None or name in sets}
    data = duet.unify(parts)
    steps = 30 if quick else steps
    order = evenly(data["x"]["domain"], steps * 16, seed=0)
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


DUET_OPTIONS = {
    "plain": {},
    "Huber": {"loss": "huber"},
    "clipped": {"clipnorm": 1.0},
    "Huber, clipped": {"loss": "huber", "clipnorm": 1.0},
    "truncated": {"how": "truncate"},
    "pretext Huber": {"pretext_loss": "huber"},
    "pretext MSE": {"pretext_loss": "mse"},
}
"""What was tried against NaN and outliers, one at a time; "pretext" is training to fill in hidden patches."""
SEEDS = 3


def run_duet_options(*, quick=False):
    """Options of duet on the four sets at once: errors on each set's later windows, of the features that all sets have.

    All are judged by the same two figures on the same windows, whatever they were trained on: the mean over the four
    sets of MSE and MAE, median, smallest and largest of three seeds.
    """
    parts, later = four_sets(), four_sets(train=False)
    held, shared = duet.unify(later), min(part["x"].shape[2] for part in parts.values())
    narrow = {name: part if part.ndim == 1 else part[..., :shared] for name, part in held["x"].items()}
    results = {}
    for name, options in DUET_OPTIONS.items():
        options = dict(options)
        how, pretext = options.pop("how", "pad"), "pretext_loss" in options
        data, x = duet.unify(parts, how=how), narrow if how == "truncate" else held["x"]
        if pretext:
            options["objectives"] = {"masked": 1.0}
        runs = []
        for seed in range(1 if quick else SEEDS):
            keras.utils.set_random_seed(seed)
            model = duet.build(**options)
            order = evenly(data["x"]["domain"], 32 * (20 if quick else 120), seed=seed)
            model.fit(take(data["x"], order), data["y"][order], batch_size=32, verbose=0, shuffle=False)
            gaps = hidden_gaps(model, x) if pretext else forecast_gaps(model, x, held["y"], shared)
            sets = [gaps[held["x"]["domain"] == d] for d in range(len(parts))]
            runs.append([np.mean([np.nanmean(np.abs(part) ** power) for part in sets]) for power in (2, 1)])
        results[name] = {
            kind: [round(float(pick(column)), 4) for pick in (np.median, np.min, np.max)]
            for kind, column in zip(("mse", "mae"), np.asarray(runs).T, strict=True)
        }
        print(name, results[name], flush=True)
    return results


def forecast_gaps(model, x, y, shared):
    """(windows, horizon, shared): forecast minus truth of the features that all sets have."""
    return model.predict(x, batch_size=256, verbose=0)[..., :shared] - y[..., :shared]


def hidden_gaps(model, x):
    """What was filled in minus the truth, NaN where nothing was hidden: (windows, features, patches, steps)."""
    found = model.predict(x, batch_size=256, verbose=0)
    patches, cells, _, _ = model.prepare({name: keras.ops.convert_to_tensor(part) for name, part in x.items()})
    hidden = (found["selected"] > 0.5)[..., None] & keras.ops.convert_to_numpy(cells)
    return np.where(hidden, found["masked"] - keras.ops.convert_to_numpy(patches), np.nan)


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


def by_forest(x, y, x_held):
    """The classes that a random forest on mean, spread and extremes of each window finds."""
    from sklearn.ensemble import RandomForestClassifier

    simple = [np.concatenate([getattr(part["values"], name)(axis=1) for name in ("mean", "std", "min", "max")], axis=1)
              for part in (x, x_held)]  # fmt: skip
    return RandomForestClassifier(300, random_state=0).fit(simple[0], y).predict(simple[1])


def moola_on_arem(held, *, quick):
    """{who: classes predicted} of one split, and the true ones: majority, a forest on simple features, moola twice."""
    (x, y), (x_held, y_held) = arem_windows(held)
    found = {"majority": baselines.majority_class(y, len(y_held)), "forest": by_forest(x, y, x_held)}
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


def run_arem_files(*, quick=False):
    """Why one class of AReM is missed when its last files are held out: the mean of the fifth feature in each file, and
    what a forest takes the held-out windows of that class for."""
    means = {name: [] for name in AREM_CLASSES}
    for label, table in read_arem():
        means[AREM_CLASSES[label]].append(round(float(table[:, 4].mean()), 1))
    missed = "bending1"
    held = [last_files(place, len(means[missed])) for place in range(len(means[missed]))]
    (x, y), (x_held, y_held) = arem_windows(last_files)
    mine = by_forest(x, y, x_held)[y_held == AREM_CLASSES.index(missed)]
    return {
        f"{missed}, trained on": [mean for mean, out in zip(means[missed], held, strict=True) if not out],
        f"{missed}, held out": [mean for mean, out in zip(means[missed], held, strict=True) if out],
        "sitting": means["sitting"],
        f"{missed}, held-out windows": len(mine),
        "the forest takes them for": {AREM_CLASSES[c]: int(np.sum(mine == c)) for c in np.unique(mine)},
    }


def vowels():
    """(x, y) of training and of test, in units of the training steps' mean and deviation."""
    values, mask, _ = train = read_vowels("TRAIN")
    middle, size = values[mask].mean(axis=0), values[mask].std(axis=0)

    def scaled(values, mask, y):
        return {"values": np.where(mask[..., None], (values - middle) / size, 0).astype("float32"), "mask": mask}, y

    return scaled(*train), scaled(*read_vowels("TEST"))


LABELLED = 10
"""Labelled utterances of each of nine speakers: as few as the effort had that moola comes from (89 in all)."""
MOOLA_OPTIONS = {
    "from scratch": {},
    "not clipped": {"clipnorm": None},
    "time warp": {"augment": {"warp": 0.12, "jitter": 0.0, "scaling": 0.0}},
    "jitter": {"augment": {"warp": 0.0, "jitter": 0.03, "scaling": 0.0}},
    "scaling": {"augment": {"warp": 0.0, "jitter": 0.0, "scaling": 0.1}},
    "all three": {"augment": {"warp": 0.12, "jitter": 0.03, "scaling": 0.1}},
    "random mask": {"encoder": {"mask": "random"}},
    "block mask": {"encoder": {"mask": "block"}},
    "patch mask": {"encoder": {"mask": "patch"}},
    "patch mask, MSE": {"encoder": {"mask": "patch", "loss": "mse"}},
}
"""Beside from scratch: gradients not clipped; four copies, augmented; an encoder taught on all utterances."""


def run_moola_options(*, quick=False):
    """Options of moola with 90 labelled utterances of Japanese Vowels; the encoders read all 270 without labels.

    Accuracy and lowest recall on the publisher's test, median, smallest and largest of three seeds. Every option takes
    about as many steps: four times the windows, a quarter of the epochs.
    """
    (x_all, y_all), (x_held, y_held) = vowels()
    order = np.concatenate([np.flatnonzero(y_all == speaker)[:LABELLED] for speaker in range(9)])
    settings, epochs, results = {"features": 12, "units": 32, "scale": False}, 1 if quick else 40, {}
    for name, options in MOOLA_OPTIONS.items():
        runs = []
        for seed in range(1 if quick else SEEDS):
            x, y, rounds, callbacks = take(x_all, order), y_all[order], epochs, []
            if "augment" in options:
                values, mask = moola.augment(x["values"], x["mask"], copies=4, seed=seed, **options["augment"])
                x, y, rounds = {"values": values, "mask": mask}, np.tile(y, 4), max(1, epochs // 4)
            keras.utils.set_random_seed(seed)
            model = moola.build(classes=9, dropout=0.2, clipnorm=options.get("clipnorm", 1.0), **settings)
            if "encoder" in options:
                encoder = moola.build_pretraining(**options["encoder"], **settings)
                encoder.fit(x_all, epochs=1 if quick else 20, batch_size=16, verbose=0)
                assert not moola.transfer(encoder, model).nothing
                callbacks = [moola.unfreeze_after(model, 3)]
            model.fit(x, y, epochs=rounds, batch_size=16, verbose=0, callbacks=callbacks)
            found = classified(model.predict(x_held, verbose=0).argmax(axis=1), y_held, 9)
            runs.append([found["accuracy"], found["recall_min"]])
        results[name] = {
            kind: [round(float(pick(column)), 3) for pick in (np.median, np.min, np.max)]
            for kind, column in zip(("accuracy", "recall_min"), np.asarray(runs).T, strict=True)
        }
        print(name, results[name], flush=True)
    return results


def run_vowels(*, quick=False):
    """The classifier on Japanese Vowels: nine speakers, 7 to 29 steps, the publisher's split."""
    (x, y), (x_held, y_held) = vowels()
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


RECIPES = {
    "baselines": run_baselines,
    "linear": run_linear,
    "duet": run_duet,
    "pretrain": lambda *, quick=False: run_pretrain(quick=quick)[0],
    "finetune": run_finetune,
    "finetune-alone": run_finetune_alone,
    "duet-options": run_duet_options,
    "moola": run_moola,
    "moola-folds": run_moola_folds,
    "moola-options": run_moola_options,
    "arem-files": run_arem_files,
    "vowels": run_vowels,
    "throughput": run_throughput,
}


EMBEDDED = {"linear": "duet.yaml", "duet": "duet.yaml", "pretrain": "duet_pretrain.yaml", "finetune": "duet.yaml",
            "finetune-alone": "duet.yaml", "duet-options": "duet.yaml", "moola": "moola.yaml",
            "moola-folds": "moola.yaml", "moola-options": "moola.yaml", "vowels": "moola.yaml"}  # fmt: skip
"""The run that stands in for a recipe without its data; throughput needs none; baselines and files are nothing
without it."""


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
