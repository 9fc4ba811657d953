"""What a formula may read although nobody compiled it: `val_loss - 2*r2` asks for r2, and this is who measures it.

After an epoch the model is asked for the validation rows (the training rows where none validate), as the report asks it
at the end, and everything is put back (`preserved`): the run goes on bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from tsguard.backend import preserved
from tsguard.dataset import Data
from tsguard.probes.score import every_row, judge, sample
from tsguard.probes.stage import Batch

ANSWERED = frozenset("r2 std_ratio correlation bias2_over_var rmse mae spread accuracy recall_min".split())
"""Metrics of ours that follow from answers and targets alone."""


class Measured(keras.callbacks.Callback):
    """Puts metrics of ours into the epoch's logs where Keras has not. Stands before the callbacks that read the logs.

    `val_r2` is measured on the validation part; plain `r2`, as in the report, on it too where there is one.
    """

    def __init__(self, names: Sequence[str], data: Data, every: int = 1, averages: Any = None) -> None:
        super().__init__()
        self.names, self.every = tuple(names), every
        self.averages = averages
        """The callback that lays averaged weights over the model while it is evaluated, where there is one."""
        self.validates = data.validation is not None
        held = data.validation
        self.data = data if held is None else Data(*held) if isinstance(held, tuple | list) else Data(held)
        self._batch: Batch | None = None

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """One look at the answers, where the logs lack what is asked for."""
        validated = self.validates and not (epoch + 1) % self.every
        wanted = [
            name for name in self.names if name not in (logs or {}) and (validated or not name.startswith("val_"))
        ]
        if logs is None or not wanted:
            return
        with preserved(self.model):
            found = self._measured()
        for name in wanted:
            if (plain := name.removeprefix("val_")) in found:
                logs[name] = found[plain]

    def _measured(self) -> dict[str, float]:
        if self._batch is None:
            repeats = self.data.is_arrays or hasattr(self.data.x, "__len__")
            whole = repeats and (self.validates or self.data.is_arrays)
            self._batch = every_row(self.data) if whole else sample(self.data) if repeats else None
        if self._batch is None:
            return {}
        if self.averages is not None:
            self.averages.on_test_begin()
        judged = judge(self.model, self._batch)
        if self.averages is not None:
            self.averages.on_test_end()
        return {} if judged is None else judged.metrics
