"""Batches per second from windows of 96 × 12 out of 1 M rows, batch 256, against a naive per-item Dataset; one process.

    python benchmarks/windows.py

The bar is 5 times the naive rate. Rates are medians over alternating rounds, so that a busy machine hurts both alike.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from tsguard.data.loader import torch_loader
from tsguard.data.windows import Windows

ROWS, FEATURES, LENGTH, HORIZON, BATCH = 1_000_000, 12, 96, 1, 256
ROUNDS, BATCHES = 9, 400
RESULT = Path(__file__).parent / "results" / "windows.md"


class Naive(torch.utils.data.Dataset):
    """One window at a time, collated by torch: what a tutorial writes."""

    def __init__(self, values: np.ndarray, *, targets: slice = slice(None)) -> None:
        self.values, self.targets = values, targets

    def __len__(self) -> int:
        return len(self.values) - LENGTH - HORIZON + 1

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        past = torch.from_numpy(self.values[index : index + LENGTH])
        future = torch.from_numpy(self.values[index + LENGTH : index + LENGTH + HORIZON, self.targets])
        return past, future


def rate(make: Callable[[], Iterator]) -> float:
    """Batches per second over a fixed number of batches, the first one left out."""
    iterator = make()
    next(iterator)
    started = time.perf_counter()
    for _ in range(BATCHES):
        next(iterator)
    return BATCHES / (time.perf_counter() - started)


def main() -> None:
    values = np.random.default_rng(0).standard_normal((ROWS, FEATURES)).astype(np.float32)
    windows = Windows(values, length=LENGTH, horizon=HORIZON)
    naive = torch.utils.data.DataLoader(Naive(values), batch_size=BATCH, shuffle=True)
    ours = torch_loader(windows, batch_size=BATCH, seed=0, workers=0)
    assert len(windows) == len(Naive(values))
    x, y = next(iter(ours))
    assert x.shape == (BATCH, LENGTH, FEATURES)
    assert y.shape == (BATCH, HORIZON, FEATURES)
    rates: dict[str, list[float]] = {"naive": [], "tsguard": []}
    for _ in range(ROUNDS):
        rates["naive"].append(rate(lambda: iter(naive)))
        rates["tsguard"].append(rate(lambda: iter(ours)))
    slow, fast = (statistics.median(rates[name]) for name in ("naive", "tsguard"))
    ratios = [b / a for a, b in zip(rates["naive"], rates["tsguard"], strict=True)]
    lines = [
        "# Windows: batches per second",
        "",
        f"{LENGTH} × {FEATURES} out of {ROWS:,} rows, batch {BATCH}, shuffled, one process, {torch.get_num_threads()} "
        f"torch thread(s); median of {ROUNDS} rounds of {BATCHES} batches. `python benchmarks/windows.py`",
        "",
        "| loader | batches/s |",
        "|---|---|",
        f"| per-item `Dataset`, `default_collate` | {slow:.0f} |",
        f"| `tsguard.data.loader.torch_loader` | {fast:.0f} |",
        "",
        f"Ratio: {fast / slow:.1f} (rounds {min(ratios):.1f} to {max(ratios):.1f}); the bar is 5.",
    ]
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
