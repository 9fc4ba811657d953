"""Checkpoints that can be trusted: everything a step reads, verified finite, re-read, and only then given a manifest.

A checkpoint is two files: `<stem>.safetensors` with the bits and `<stem>.json`, written last, with the digest of the
first. Without its manifest a file is a torn write and is passed over; nothing that is not ours is ever deleted.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as decode
from safetensors.torch import save as encode

from tsguard.backend import RngState
from tsguard.errors import StoreError, explain
from tsguard.report import dumps, loads
from tsguard.store import RunFolder, digest

FOLDER = "checkpoints"
SCHEMA = 1


@dataclass(frozen=True)
class Position:
    """Where in a run a checkpoint stands: `batch` is the next batch of `epoch` (0: the epoch has not begun)."""

    epoch: int
    batch: int
    step: int


@dataclass
class Snapshot:
    """One state on its way to the disk, or back from it."""

    position: Position
    tensors: dict[str, torch.Tensor]
    rng: RngState
    epoch_rng: RngState
    """Where the generators stood when the epoch began: the order of its batches hangs on that."""
    must_be_finite: tuple[str, ...] = ()
    fingerprint: Mapping[str, str] = field(default_factory=dict)
    callbacks: list[Any] = field(default_factory=list)
    history: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    feed: dict[str, Any] = field(default_factory=dict)
    """What the data itself remembered when the epoch began: the order that a PyDataset or a sampler holds."""


class NotFiniteError(StoreError):
    """What should have been saved was not finite; nothing was written."""


def save(folder: RunFolder, stem: str, snapshot: Snapshot) -> str:
    """Both files, the manifest last; the name of the checkpoint."""
    poisoned = [name for name in snapshot.must_be_finite if not torch.isfinite(snapshot.tensors[name]).all()]
    if poisoned:
        raise NotFiniteError(
            explain(
                f"checkpoint {stem}",
                received=f"values that are not finite in {', '.join(poisoned[:3])} ({len(poisoned)} tensors)",
                expected="finite weights and optimizer state",
                todo="Nothing was written; the checkpoint before it is still there.",
            )
        )
    tensors = {name: tensor.contiguous() for name, tensor in snapshot.tensors.items()}
    generators = {"rng": rng_to_plain(snapshot.rng, tensors, "rng"), "epoch_rng": {}}
    generators["epoch_rng"] = rng_to_plain(snapshot.epoch_rng, tensors, "epoch_rng")
    tensors.update({f"feed/{name}": value for name, value in snapshot.feed.items() if isinstance(value, torch.Tensor)})
    content = encode(tensors)
    path = folder.write_bytes(f"{FOLDER}/{stem}.safetensors", content)
    expected = digest(content)
    if digest(path.read_bytes()) != expected:
        raise StoreError(
            f"checkpoint {stem}: the file reads back differently than it was written. The disk is failing."
        )
    manifest = {
        "schema": SCHEMA,
        "sha256": expected,
        "epoch": snapshot.position.epoch,
        "batch": snapshot.position.batch,
        "step": snapshot.position.step,
        "fingerprint": dict(snapshot.fingerprint),
        "callbacks": snapshot.callbacks,
        "history": snapshot.history,
        "metrics": snapshot.metrics,
        "feed": {name: value for name, value in snapshot.feed.items() if not isinstance(value, torch.Tensor)},
        **generators,
    }
    folder.write_text(f"{FOLDER}/{stem}.json", dumps(manifest))
    return stem


def load(folder: RunFolder, stem: str) -> Snapshot:
    """Read a checkpoint back; a StoreError that says what is wrong with it."""
    manifest = read_manifest(folder, stem)
    try:
        content = folder.file(f"{FOLDER}/{stem}.safetensors").read_bytes()
    except OSError as missing:
        raise StoreError(f"checkpoint {stem}: its file cannot be read ({missing.strerror}).") from None
    if digest(content) != manifest["sha256"]:
        raise StoreError(
            explain(
                f"checkpoint {stem}",
                received=f"{len(content)} bytes whose digest is not the one in the manifest",
                expected=f"sha256 {manifest['sha256'][:12]}…",
                todo="The file is truncated or damaged; the checkpoint before it is used.",
            )
        )
    tensors = decode(content)
    rng = rng_from_plain(manifest["rng"], tensors, "rng")
    epoch_rng = rng_from_plain(manifest["epoch_rng"], tensors, "epoch_rng")
    feed = dict(manifest.get("feed", {}))
    for name in [name for name in tensors if name.startswith("feed/")]:
        feed[name.removeprefix("feed/")] = tensors.pop(name)
    return Snapshot(
        position=Position(manifest["epoch"], manifest["batch"], manifest["step"]),
        tensors=tensors,
        rng=rng,
        epoch_rng=epoch_rng,
        fingerprint=manifest["fingerprint"],
        callbacks=manifest["callbacks"],
        history=manifest["history"],
        metrics=manifest["metrics"],
        feed=feed,
    )


def read_manifest(folder: RunFolder, stem: str) -> dict[str, Any]:
    try:
        manifest = loads(folder.file(f"{FOLDER}/{stem}.json").read_text(encoding="utf-8"))
        if manifest["schema"] > SCHEMA:
            raise StoreError(
                f"checkpoint {stem}: made by a newer tsguard (schema {manifest['schema']}). Upgrade tsguard."
            )
        return dict(manifest)
    except (OSError, KeyError, TypeError, StoreError) as wrong:
        raise StoreError(f"checkpoint {stem}: its manifest cannot be read ({wrong}).") from None


def stems(folder: RunFolder) -> list[str]:
    """Checkpoints with a manifest, the furthest on last."""
    found = []
    for manifest in (folder.path / FOLDER).glob("*.json"):
        with contextlib.suppress(StoreError):
            fields = read_manifest(folder, manifest.stem)
            found.append((fields["step"], manifest.stat().st_mtime_ns, manifest.stem))
    return [stem for *_, stem in sorted(found)]


def candidates(folder: RunFolder) -> Iterator[tuple[str, Snapshot | StoreError]]:
    """Checkpoints from the furthest on backwards, each read or with the reason why it cannot be."""
    for stem in reversed(stems(folder)):
        try:
            yield stem, load(folder, stem)
        except StoreError as wrong:
            yield stem, wrong


def prune(folder: RunFolder, stems_to_go: Iterable[str]) -> None:
    """Remove checkpoints of this run: the manifest first, so that no manifest ever lacks its file."""
    for stem in stems_to_go:
        for suffix in ("json", "safetensors"):
            folder.remove(f"{FOLDER}/{stem}.{suffix}")


class Writer:
    """Writes snapshots on a thread, one at a time; training waits only if the one before is still being written."""

    def __init__(self, folder: RunFolder, failed: Callable[[BaseException], None]) -> None:
        self.folder = folder
        self.failed = failed
        self._queue: queue.Queue[tuple[str, Snapshot, tuple[str, ...]] | None] = queue.Queue(maxsize=1)
        self._thread = threading.Thread(target=self._work, name="tsguard-checkpoints", daemon=True)
        self._thread.start()

    def write(self, stem: str, snapshot: Snapshot, *, drop: Iterable[str] = ()) -> None:
        """Hand over a snapshot; `drop` names what goes once it is safely there. One at most is on its way."""
        self._queue.join()
        self._queue.put((stem, snapshot, tuple(drop)))

    def flush(self) -> None:
        """Wait until everything handed over is on the disk."""
        self._queue.join()

    def close(self) -> None:
        """Finish and end the thread."""
        self.flush()
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        while True:
            work = self._queue.get()
            try:
                if work is None:
                    return
                stem, snapshot, drop = work
                save(self.folder, stem, snapshot)
                prune(self.folder, drop)
            except Exception as error:  # a checkpoint that fails never ends the training; it is reported
                self.failed(error)
            finally:
                self._queue.task_done()


def rng_to_plain(state: RngState, tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, Any]:
    """Generators as JSON, their bulky parts among the tensors."""
    name, words, position, has_gauss, cached = state.numpy
    tensors[f"{prefix}/torch"] = state.torch
    tensors[f"{prefix}/numpy"] = torch.from_numpy(np.asarray(words, dtype=np.uint32).view(np.uint8).copy())
    tensors[f"{prefix}/python"] = torch.tensor(state.python[1], dtype=torch.int64)
    for index, cuda in enumerate(state.cuda):
        tensors[f"{prefix}/cuda{index}"] = cuda
    if state.keras is not None:
        tensors[f"{prefix}/keras"] = state.keras.clone()
    return {
        "numpy": [name, int(position), int(has_gauss), float(cached)],
        "python": [state.python[0], state.python[2]],
        "cuda": len(state.cuda),
        "keras": state.keras is not None,
    }


def rng_from_plain(plain: Mapping[str, Any], tensors: dict[str, torch.Tensor], prefix: str) -> RngState:
    """The inverse of `rng_to_plain`; takes its parts out of the tensors."""
    words = tensors.pop(f"{prefix}/numpy").numpy().view(np.uint32)
    name, position, has_gauss, cached = plain["numpy"]
    version, gauss = plain["python"]
    return RngState(
        python=(version, tuple(tensors.pop(f"{prefix}/python").tolist()), gauss),
        numpy=(name, words, position, has_gauss, cached),
        torch=tensors.pop(f"{prefix}/torch"),
        cuda=tuple(tensors.pop(f"{prefix}/cuda{index}") for index in range(plain["cuda"])),
        keras=tensors.pop(f"{prefix}/keras") if plain["keras"] else None,
    )
