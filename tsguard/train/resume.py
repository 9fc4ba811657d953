"""Exact resume in mid-epoch, through plain `fit`: every step enters the final weights exactly once.

The order of an epoch's batches hangs on the generators at its start, so those are restored first; the batches that were
trained already are consumed without training; then weights, optimizer, metrics and generators are put back to the bit.
These callbacks stand last in the list: what the others did in the same moment is part of what is saved and restored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
import numpy as np
import torch

from tsguard.backend import RngState, carried_states, restore_rng, rng_state
from tsguard.dataset import Data, leaves, length_of
from tsguard.errors import StoreError
from tsguard.report import dumps
from tsguard.store import RunFolder
from tsguard.train import feed
from tsguard.train.checkpoint import NotFiniteError, Position, Snapshot, Writer, candidates, read_manifest, stems
from tsguard.train.formula import Formula
from tsguard.train.record import STEPS_MADE

_SAMPLED_BYTES = 1 << 24
"""How much of an array enters its fingerprint: its ends and an even sample between, 16 MB in all."""


def fingerprint(model: Any, data: Data, fit_arguments: Mapping[str, Any]) -> dict[str, str]:
    """What must be the same for a checkpoint to belong to a run, part by part, so that a refusal can name the part."""
    shapes = [[list(variable.shape), str(variable.dtype)] for variable in model.variables]
    optimizer = keras.saving.serialize_keras_object(model.optimizer)
    kept = {name: fit_arguments.get(name) for name in ("batch_size", "shuffle", "steps_per_epoch", "validation_split")}
    return {
        "model": _digest(dumps(shapes)),
        "optimizer": _digest(dumps(_without_names(optimizer))),
        "data": _data_digest(data),
        "fit": _digest(dumps(kept)),
    }


def _without_names(config: Any) -> Any:
    if isinstance(config, Mapping):
        return {str(k): _without_names(v) for k, v in config.items() if k not in ("name", "shared_object_id")}
    if isinstance(config, list | tuple):
        return [_without_names(item) for item in config]
    return config if isinstance(config, str | int | float | bool) or config is None else str(type(config))


def _data_digest(data: Data) -> str:
    if not data.is_arrays:
        return _digest(f"{type(data.x).__qualname__} of {length_of(data.x)} batches")
    total = hashlib.sha256()
    for leaf in [*leaves(data.x), *leaves(data.y), *leaves(data.sample_weight)]:
        array = np.asarray(leaf)
        total.update(f"{array.shape}{array.dtype}".encode())
        if array.dtype == object:
            continue
        raw = np.ascontiguousarray(array).view(np.uint8).reshape(-1)
        step = max(1, raw.size // _SAMPLED_BYTES)
        total.update(raw[::step].tobytes())
    return total.hexdigest()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def state_tensors(model: Any) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """Every variable of model, optimizer and metrics, copied to the host; and which of them must be finite."""
    tensors: dict[str, torch.Tensor] = {}
    finite: list[str] = []
    for group, variables in variables_of(model):
        for index, variable in enumerate(variables):
            name = f"{group}/{index:05d}"
            tensors[name] = variable.value.detach().to("cpu", copy=True)
            if group != "metrics" and tensors[name].is_floating_point() and getattr(variable, "trainable", True):
                finite.append(name)
    return tensors, tuple(finite)


def variables_of(model: Any) -> list[tuple[str, list[Any]]]:
    """Every variable that a step reads, by group, in an order that does not change."""
    metrics = [variable for metric in model.metrics for variable in metric.variables]
    optimizer = model.optimizer.variables if model.optimizer is not None else []
    carried = carried_states(model)
    return [("model", [*model.variables]), ("carried", carried), ("optimizer", [*optimizer]), ("metrics", metrics)]


def put_back(model: Any, tensors: Mapping[str, torch.Tensor]) -> None:
    """Every variable, bit for bit. Shapes were compared by the fingerprint already."""
    if model.optimizer is not None and not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    with torch.no_grad():
        for group, variables in variables_of(model):
            for index, variable in enumerate(variables):
                name = f"{group}/{index:05d}"
                if name in tensors:
                    variable.value.copy_(tensors[name].to(variable.value.device))


class Checkpoints(keras.callbacks.Callback):
    """Saves every few steps, at every epoch's start and at the end; keeps the last two, and the best by a metric."""

    def __init__(
        self,
        folder: RunFolder,
        marks: Mapping[str, str],
        *,
        every: int = 0,
        keep: int = 3,
        monitor: str = "val_loss",
        mode: str = "min",
        start: Position | None = None,
        others: Callable[[], list[Any]] = list,
        failed: Callable[[BaseException], None] = lambda error: None,
        source: Any = None,
        spared: Iterable[str] = (),
    ) -> None:
        super().__init__()
        self.folder, self.marks, self.every, self.keep = folder, marks, every, keep
        self.monitor, self.sign = (
            Formula.parse(monitor, place="train.checkpoint.monitor"),
            1.0 if mode == "min" else -1.0,
        )
        self.source = source
        self.others = others
        self.writer = Writer(folder, failed)
        self._made = folder.counter(STEPS_MADE)
        begun = start or Position(0, 0, 0)
        # Steps that a resumed run only consumes count, but nothing is saved before it is past its own start.
        self.position = Position(begun.epoch, 0, begun.step - begun.batch)
        self._first_to_save = begun.step + 1
        self.best: list[tuple[float, str]] = []
        self._recent: list[str] = []
        self._mine: set[str] = set()
        self._others_files: set[str] = set()
        self._take_stock(set(spared), begun)
        self._epoch_feed: dict[str, Any] = {}
        self._epoch_rng: RngState | None = None
        self._finished_epoch: tuple[int, dict[str, float]] | None = None

    def _take_stock(self, spared: set[str], begun: Position) -> None:
        """What lies in the folder already: checkpoints of this run are kept and pruned as if made now; others stay."""
        for stem in stems(self.folder):
            manifest = read_manifest(self.folder, stem)
            if stem in spared or dict(manifest["fingerprint"]) != dict(self.marks):
                self._others_files.add(stem)
                continue
            self._mine.add(stem)
            if manifest["step"] <= begun.step:
                self._recent = [*self._recent, stem][-2:]
                self._rank(stem, manifest["metrics"])

    def _rank(self, stem: str, metrics: Mapping[str, float]) -> float | None:
        """Enter a checkpoint into the list of the best; its value, where it has one."""
        if self.monitor.missing(metrics):
            return None
        value = self.monitor.value(metrics)
        if np.isfinite(value):
            self.best = sorted([*self.best, (self.sign * value, stem)])[: self.keep]
        return value

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """The epoch's generators are noted here, and the state between two epochs is saved."""
        self._epoch_rng, self._epoch_feed = rng_state(), feed.state(self.source)
        if self._finished_epoch is not None:
            self.position = Position(epoch, 0, self.position.step)
            self._save_epoch()
        elif self.position.epoch != epoch:
            self.position = Position(epoch, 0, self.position.step)

    def best_stem(self) -> str | None:
        """The best checkpoint by the monitor; the last one where nothing was measured. None before the first."""
        if self.best:
            return self.best[0][1]
        return self._recent[-1] if self._recent else None

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """One step further; saved every `every` steps."""
        self.position = Position(self.position.epoch, batch + 1, self.position.step + 1)
        if self.position.step >= self._first_to_save:
            self._made.value = self.position.step
        if self.every and self.position.step % self.every == 0 and self.position.step >= self._first_to_save:
            self.save_now()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Keep the epoch's metrics for its checkpoint, which is made when the next one begins.

        After the last one `fit` may lay averages over the weights, with which no longer training could go on: its state
        is taken here already.
        """
        self._finished_epoch = (epoch, {k: float(v) for k, v in (logs or {}).items() if np.ndim(v) == 0})
        if self.model.stop_training or epoch + 1 == self.params.get("epochs"):
            self._save_last()

    def on_train_end(self, logs: Any = None) -> None:
        """The last state, where it was not known to be the last, and nothing left unwritten."""
        if self._finished_epoch is not None:
            self._save_last()
        self.writer.flush()

    def _save_last(self) -> None:
        assert self._finished_epoch is not None
        self.position = Position(self._finished_epoch[0] + 1, 0, self.position.step)
        self._epoch_rng, self._epoch_feed = rng_state(), feed.state(self.source)
        self._save_epoch()

    def save_now(self) -> None:
        """A checkpoint of this very moment."""
        self._write(self._free(f"step-{self.position.step:08d}"), {})

    def _save_epoch(self) -> None:
        assert self._finished_epoch is not None
        epoch, metrics = self._finished_epoch
        self._finished_epoch = None
        value = None if self.monitor.missing(metrics) else self.monitor.value(metrics)
        stem = self._free(f"model-{epoch + 1:02d}" + ("" if value is None else f"-{value:.4f}"))
        self._rank(stem, metrics)
        self._write(stem, metrics)

    def _free(self, stem: str) -> str:
        """The name itself, or with a number where a checkpoint that is not ours has it."""
        number, free = 1, stem
        while free in self._others_files:
            number += 1
            free = f"{stem}-{number}"
        return free

    def _write(self, stem: str, metrics: dict[str, float]) -> None:
        self._recent = [*self._recent, stem][-2:]
        keep = {*self._recent, *(kept for _, kept in self.best)}
        drop = sorted(self._mine - keep)
        self._mine = (self._mine | {stem}) & keep
        self.writer.write(stem, self._snapshot(metrics), drop=drop)

    def _snapshot(self, metrics: dict[str, float]) -> Snapshot:
        tensors, finite = state_tensors(self.model)
        now = rng_state()
        history = getattr(self.model, "history", None)
        return Snapshot(
            position=self.position,
            tensors=tensors,
            rng=now,
            epoch_rng=self._epoch_rng or now,
            must_be_finite=finite,
            fingerprint=self.marks,
            callbacks=[_plain_state(callback) for callback in self.others()],
            history={"epoch": list(history.epoch), "history": _plain(history.history)} if history is not None else {},
            metrics=metrics,
            feed=self._epoch_feed,
        )


def _plain_state(callback: Any) -> dict[str, Any]:
    """What a callback counts and remembers, where JSON can hold it; its class, to be sure on the way back."""
    kept = {name: _plain(value) for name, value in vars(callback).items() if _is_plain(value) and name != "params"}
    armed = getattr(callback, "monitor_op", None) is not None
    return {"class": type(callback).__qualname__, "state": kept, "armed": armed}


def _remember(callback: Any, saved: Mapping[str, Any]) -> None:
    """Put a callback's memory back. Keras' monitors flip the sign of min_delta when they first look at a metric, so
    that first look has to come before what was saved after it."""
    if saved["armed"] and getattr(callback, "monitor_op", None) is None and hasattr(callback, "_set_monitor_op"):
        callback._set_monitor_op()
    vars(callback).update(saved["state"])


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(k, str) and _is_plain(v) for k, v in value.items())
    return value is None or isinstance(value, bool | int | float | str | np.generic)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    return value


class Resume(keras.callbacks.Callback):
    """Takes a run up where a snapshot left it. `fit` is to be called with `initial_epoch=snapshot.position.epoch`."""

    def __init__(self, snapshot: Snapshot, others: Callable[[], list[Any]] = list, source: Any = None) -> None:
        super().__init__()
        self.snapshot = snapshot
        self.source = source
        self.others = others
        self.consumed = 0
        self.done = False
        self._inner: Any = None

    def on_train_begin(self, logs: Any = None) -> None:
        """What the other callbacks remember, and the history so far."""
        for callback, saved in zip(self.others(), self.snapshot.callbacks, strict=False):
            if type(callback).__qualname__ == saved["class"]:
                _remember(callback, saved)
        put_back(self.model, self.snapshot.tensors)
        if self.snapshot.position.batch:
            self._inner = self.model.train_function
            self.model.train_function = _Consume(self)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """The generators as they stood when this epoch began; the history that `fit` has just emptied."""
        if self.done or epoch != self.snapshot.position.epoch:
            return
        history = getattr(self.model, "history", None)
        if history is not None and self.snapshot.history:
            history.epoch[:] = self.snapshot.history["epoch"]
            history.history.update(self.snapshot.history["history"])
        restore_rng(self.snapshot.epoch_rng)
        feed.restore(self.source, self.snapshot.feed)
        if self.snapshot.position.batch == 0:
            self._finish()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """After the last batch that was trained already, everything is put back."""
        if not self.done and batch + 1 >= self.snapshot.position.batch:
            self.model.train_function = self._inner
            self._finish()

    def _finish(self) -> None:
        # `fit` has just emptied the metrics for an epoch that begins; in the middle of one they hold its batches.
        begins = self.snapshot.position.batch == 0
        put_back(
            self.model,
            {k: v for k, v in self.snapshot.tensors.items() if not (begins and k.startswith("metrics/"))},
        )
        restore_rng(self.snapshot.rng)
        self.done = True


class _Consume:
    """In place of a step that was trained already: nothing."""

    no_step = True
    """What the guard's seam asks: this is not to be watched, counted or recorded."""

    def __init__(self, resume: Resume) -> None:
        self._resume = resume

    def __call__(self, data: Any) -> Any:
        self._resume.consumed += 1
        return self._resume.model.get_metrics_result()


def choose(folder: RunFolder, marks: Mapping[str, str]) -> tuple[Snapshot | None, dict[str, str]]:
    """The furthest checkpoint that belongs to this run and is whole, and by name why any further one was refused."""
    refused: dict[str, str] = {}
    for stem, found in candidates(folder):
        if isinstance(found, StoreError):
            refused[stem] = str(found)
            continue
        different = sorted(part for part in marks if found.fingerprint.get(part) != marks[part])
        if different:
            refused[stem] = f"checkpoint {stem}: made with other {' and '.join(different)} than this run has."
            continue
        return found, refused
    return None, refused


__all__ = ["Checkpoints", "NotFiniteError", "Resume", "choose", "fingerprint", "put_back", "state_tensors"]
