"""What workers and mixed precision bring to a run: baseline, workers, precision, all, for any run.yaml.

    KERAS_BACKEND=torch python -m benchmarks.pipeline RUN.yaml [--steps 30] [--rounds 5] [--write NAME]

The baseline is one process that loads sample by sample and computes in float32. Arms are interleaved in every round and
ratios taken within it; a workers' start-up is not measured, the first batches of an epoch are. What data cannot do
(a generator has no workers) is said in place of a figure. On a machine without a GPU mixed precision is bfloat16 and
usually slower: Keras casts, and the CPU has no faster path for most operations.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import torch

from tsguard.backend import precision
from tsguard.data.loader import workers_for_machine
from tsguard.dataset import Data, map_leaves
from tsguard.opening import open_run

LOW = "float16" if torch.cuda.is_available() else "bfloat16"


class Samples(torch.utils.data.Dataset):
    """Arrays, one sample at a time, as a loader of one's own would read them."""

    def __init__(self, data: Data) -> None:
        self._data = data

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, row: int) -> Any:
        x, y, _ = self._data.take(row)
        return map_leaves(torch.as_tensor, x), map_leaves(torch.as_tensor, y)


def source(data: Data, batch_size: int, workers: int) -> Any:
    """What `fit` draws from with so many workers; None where it cannot have them."""
    more = {"num_workers": workers, "persistent_workers": workers > 0, "pin_memory": torch.cuda.is_available()}
    if data.is_arrays:
        return torch.utils.data.DataLoader(Samples(data), batch_size=batch_size, shuffle=True, **more)
    if isinstance(data.x, torch.utils.data.DataLoader):
        kept = {name: getattr(data.x, name) for name in ("dataset", "batch_sampler", "collate_fn")}
        return torch.utils.data.DataLoader(**kept, **more)
    if isinstance(data.x, keras.utils.PyDataset):
        data.x.workers, data.x.use_multiprocessing = max(1, workers), False
        return data.x
    return data.x if workers == 0 else None


class Clock(keras.callbacks.Callback):
    """Seconds from the first batch's end on, and when enough batches were made."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self._steps, self.seconds, self._first = steps, 0.0, 0.0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        now = time.perf_counter()
        self._first = self._first or now
        self.seconds = (now - self._first) / max(batch, 1)
        if batch >= self._steps:
            self.model.stop_training = True


def arms(run: Path, batch_size: int | None) -> Iterator[tuple[str, Any, Any]]:
    """(name, model, what it is fed with); None for the latter where the data cannot."""
    workers = max(1, workers_for_machine(in_memory=False))
    for name, many, low in (
        ("baseline", 0, None),
        (f"{workers} workers", workers, None),
        (f"mixed {LOW}", 0, LOW),
        ("all", workers, LOW),
    ):
        opened = open_run(run)
        assert opened.subject.data is not None
        with precision(low):
            model = opened.subject.rebuild()
        size = batch_size or opened.config.settings.train.batch_size or 32
        yield name, model, source(opened.subject.data, size, many)


def main() -> None:
    """Print the table; keep it where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--write", help="Keep the table in benchmarks/results/NAME.md.")
    given = parser.parse_args()
    made = list(arms(given.run, given.batch_size))
    seen: dict[str, list[float]] = {name: [] for name, _, fed in made if fed is not None}
    for round_ in range(-1, given.rounds):  # the first round starts workers and warms up
        for name, model, fed in made:
            if fed is None:
                continue
            clock = Clock(given.steps)
            model.fit(fed, shuffle=False, epochs=1, verbose=0, callbacks=[clock])
            if round_ >= 0:
                seen[name].append(clock.seconds)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {os.cpu_count()} cores"
    lines = [f"{given.run.name}, {given.rounds} rounds of at most {given.steps} steps, {device}", ""]
    lines += ["| arm | ms a step | against the baseline: median | range |", "| --- | --- | --- | --- |"]
    for name, _, fed in made:
        if fed is None:
            lines.append(f"| {name} | | this data cannot have workers | |")
            continue
        ratios = [one / base for one, base in zip(seen[name], seen["baseline"], strict=True)]
        middle = 1000 * statistics.median(seen[name])
        lines.append(
            f"| {name} | {middle:.2f} | {statistics.median(ratios):.2f} | {min(ratios):.2f}–{max(ratios):.2f} |"
        )
    print("\n".join(lines))
    if given.write:
        target = Path(__file__).parent / "results" / f"{given.write}.md"
        command = f"`python -m benchmarks.pipeline {given.run} --steps {given.steps} --rounds {given.rounds}`"
        target.write_text(f"# Workers and precision\n\n{command}\n\n" + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
