"""Trainings that die by kill −9 at random steps and are taken up again, against the same never killed.

    python -m tests.train.job FOLDER EPOCHS EVERY KILLS PROGRAM…

A PROGRAM names what is special about a training. Every attempt is a process of its own; FOLDER/<run>/end.npy holds
every weight and every slot of the optimizer at the end.
"""

import json
import os
import random
import signal
import sys
import traceback
from pathlib import Path

os.environ["KERAS_BACKEND"] = "torch"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import keras
import numpy as np
import torch

from tsguard.backend import precision, seed_everything
from tsguard.checks.registry import Context
from tsguard.dataset import Data
from tsguard.errors import Interrupted
from tsguard.gate import Gate
from tsguard.guarded import Guard
from tsguard.settings import TrainSettings
from tsguard.store import RunFolder
from tsguard.subject import Subject
from tsguard.train.session import Session
from tsguard.train.setup import callbacks, checkpoints, prepared

torch.set_num_threads(1)


class Shuffled(keras.utils.PyDataset):
    """Keeps an order of its own, stirred after every epoch from the global generator."""

    def __init__(self, x, y, **kwargs):
        super().__init__(**kwargs)
        self.x, self.y, self.order = x, y, np.arange(len(x))

    def __len__(self):
        return len(self.x) // 8

    def __getitem__(self, index):
        rows = self.order[index * 8 : index * 8 + 8]
        return self.x[rows], self.y[rows]

    def on_epoch_end(self):
        np.random.shuffle(self.order)


def program(name):
    """Settings and data of a program."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(48, 5)).astype("float32")
    y = (x[:, :1] - x[:, 1:2] ** 2).astype("float32")
    data = {"x": x, "y": y, "validation": (x[:16], y[:16])}
    settings = {"batch_size": 8}
    if name == "float16":
        settings.update(precision="float16", learning_rate=0.01)
    elif name == "accumulate":
        settings.update(accumulate=4, ema=0.9, clip_norm=1.0, schedule={"kind": "one_cycle"}, learning_rate=0.05)
    elif name == "averaged":
        settings.update(ema=0.8, learning_rate=0.01)
    elif name == "plateau":
        settings.update(
            schedule={"kind": "plateau", "patience": 1}, stop={"monitor": "val_loss - 0*loss", "patience": 9}
        )
    elif name == "dataset":
        data = {"x": Shuffled(x, y), "validation": (x[:16], y[:16])}
    elif name == "workers":
        data = {"x": Shuffled(x, y, workers=2), "validation": (x[:16], y[:16])}
    elif name == "carried":
        data["x"] = np.repeat(x[:, None], 4, axis=1)
        data["validation"] = (data["x"][:16], y[:16])
    elif name == "loader":
        pairs = torch.utils.data.TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
        order = torch.Generator().manual_seed(5)
        data = {"x": torch.utils.data.DataLoader(pairs, batch_size=8, shuffle=True, generator=order)}
    return settings, data


def build_carried():
    """A layer that goes on from the batch before."""
    inputs = keras.Input(batch_shape=(8, 4, 5))
    model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.GRU(6, stateful=True, use_cudnn=False)(inputs)))
    model.compile("adam", "mse", metrics=["mae"])
    return model


def build():
    """Dropout draws, batch statistics move, and Adam remembers."""
    model = keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(1, dtype="float32"),
        ]
    )
    model.compile("adam", "mse", metrics=["mae"])
    return model


class Die(keras.callbacks.Callback):
    """Sends this process a signal after a number of batches."""

    def __init__(self, after, number):
        super().__init__()
        self._left, self._number = after, number

    def on_train_batch_end(self, batch, logs=None):
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), self._number)


def session(folder, name, *, epochs, every, kill_at=0, resume=False, number=signal.SIGKILL):
    """The session of a program, preflight and judgement left out."""
    chosen, data = program(name)
    settings = TrainSettings(epochs=epochs, **chosen)
    seed_everything(7)
    subject = prepared(
        Subject(make_model=build_carried if name == "carried" else build, data=Data(**data), seed=7, name=name),
        settings,
    )
    made = callbacks(settings, subject.data)
    if kill_at:
        made.append(Die(kill_at, number))
    kept = RunFolder.open(folder) if (Path(folder) / "run.json").exists() else None
    if kept is None:
        kept = RunFolder.create(Path(folder).parent, Path(folder).name)
        os.rename(kept.path, folder)
        kept = RunFolder.open(folder)
    fit = {"epochs": epochs, "batch_size": None if name in ("dataset", "workers", "loader") else 8, "verbose": 0}
    return Session(
        context=Context(subject=subject, data=subject.data),
        gate=Gate(),
        folder=kept,
        guard=Guard(folder=kept, diagnose=False, repro=False, write=False),
        fit_arguments={k: v for k, v in fit.items() if v is not None},
        write=lambda report: report,
        callbacks=tuple(made),
        preflight=False,
        diagnose=False,
        resume=resume,
        checkpoint={**checkpoints(settings), "every": every},
        restore_best=settings.stop is not None,
    )


def end_state(model):
    """Everything that a step reads, as one array of bits."""
    state = [*model.variables, *model.optimizer.variables]
    return np.concatenate([np.ravel(v.numpy()).astype("float64") for v in state])


def attempt(folder, name, **options):
    """One process, forked from this one so that Keras is imported once; how it ended."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            with precision(program(name)[0].get("precision")):
                one = session(folder, name, **options)
                one.run()
                np.save(Path(folder) / "end.npy", end_state(one.context.model))
            code = 0
        except Interrupted as stopped:
            code = 128 + stopped.number
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if ended == 70:
        raise SystemExit(70)
    return ended


def torture(folder, name, *, epochs, every, kills, seed):
    """Kill a run at random steps until it was killed often enough, then let it end; compare with one never killed."""
    chance = random.Random(seed)
    plain, killed = Path(folder) / f"{name}-plain", Path(folder) / f"{name}-killed"
    attempt(str(plain), name, epochs=epochs, every=0)
    done = 0
    for _ in range(4 * kills):
        after = chance.randint(1, 9) if done < kills else 0
        ended = attempt(str(killed), name, epochs=epochs, every=every, kill_at=after, resume=True)
        done += ended == -signal.SIGKILL
        if ended == 0:
            break
    left, right = (np.load(place / "end.npy") for place in (plain, killed))
    events = [json.loads(line) for line in (killed / "events.jsonl").read_text().splitlines()]
    return {
        "program": name,
        "kills": done,
        "recomputed": [event["count"] for event in events if event.get("kind") == "recomputed"],
        "resumed": sum(event.get("kind") == "resume" for event in events),
        "different": int((left != right).sum()) if left.shape == right.shape else -1,
        "values": int(left.size),
    }


def main():
    """FOLDER EPOCHS EVERY KILLS PROGRAM…: one line of JSON each."""
    folder, epochs, every, kills, *names = sys.argv[1:]
    for number, name in enumerate(names):
        found = torture(folder, name, epochs=int(epochs), every=int(every), kills=int(kills), seed=number)
        sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
