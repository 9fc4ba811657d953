"""Resume tried out before the run: a few steps in one go, and the same interrupted in the middle and taken up again.

The second way goes through everything that a real resume goes through: a checkpoint on the disk, read back, the batches
before it passed over. Model, optimizer and generators are put back by whoever asks checks.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from typing import Any

import keras
import torch

from tsguard import catalogue
from tsguard.checks.registry import Check, Context
from tsguard.checks.runner import passed
from tsguard.dataset import Data
from tsguard.evidence import Evidence
from tsguard.findings import Finding, Role, Status
from tsguard.store import RunFolder
from tsguard.train import feed, few
from tsguard.train.resume import Checkpoints, Resume, choose, fingerprint, state_tensors, variables_of
from tsguard.train.start import TrainStart

STEPS = 4
"""Steps of the whole; half of them before the interruption, so that both halves draw and both halves update."""
NAME = "resume on a few steps"


def resumed_exactly(context: Context) -> Iterable[Finding]:
    """A finding that names the first variable which differs after a resume; none where every bit agrees."""
    data, model = context.data, context.model
    if data is None or not _can_be_read_again(data):
        yield _not_asked("the data can be read only once")
        return
    fit = {"shuffle": not _is_loader(data.x)}
    fit.update((k, v) for k, v in context.fit.items() if k in few.TAKEN and k not in fit)
    part = _first_rows(data, int(fit.get("batch_size") or data.batch_size))
    began, kept = _Began(part.x), feed.state(data.x)
    failed: list[BaseException] = []
    with tempfile.TemporaryDirectory() as place:
        folder = RunFolder.create(place, "trial")
        try:
            few.fit(model, part, fit, STEPS, [began])
            whole, _ = state_tensors(model)
            if not all(bool(value.isfinite().all()) for value in whole.values()):
                yield _not_asked(f"the weights are not finite after {STEPS} steps")
                return
            marks = fingerprint(model, part, fit)
            keeper = Checkpoints(folder, marks, every=STEPS // 2, source=part.x, failed=failed.append)
            few.fit(model, part, fit, STEPS // 2, [began, keeper])
            keeper.writer.close()
            snapshot, refused = choose(folder, marks)
            if snapshot is None or not snapshot.position.batch:
                reasons = [*map(str, failed), *refused.values()]
                yield _not_asked("; ".join(reasons) or "the data has fewer than three batches")
                return
            _spoil(model)
            few.fit(model, part, fit, STEPS, [Resume(snapshot, list, part.x)])
        finally:
            feed.restore(data.x, kept)
    resumed, _ = state_tensors(model)
    paths = {f"{g}/{i:05d}": v.path for g, variables in variables_of(model) for i, v in enumerate(variables)}
    for name, value in whole.items():
        other = resumed.get(name)
        if not name.startswith("metrics/") and (other is None or not _same_bits(value, other)):
            size = float((value.double() - other.double()).abs().max()) if other is not None else float("inf")
            yield _differs(
                f"{STEPS} steps in one go and {STEPS} with an interruption after {STEPS // 2} differ, first in "
                f"{paths.get(name, name)!r} (by up to {size:.3g}). "
                "A resumed run will not be the run that was interrupted.",
                {"parameter": paths.get(name, name)},
            )
            return
    yield passed(
        "resume-mismatch",
        check=NAME,
        message=f"{STEPS} steps with an interruption after {STEPS // 2} end with the bits of {STEPS} in one go",
    )


CHECK = Check(NAME, ("resume-mismatch",), resumed_exactly, ("model", "data"), 3)


class _Began(keras.callbacks.Callback):
    """Where the first of the fits began once `fit` had built the model; the others begin there again."""

    def __init__(self, source: Any) -> None:
        super().__init__()
        self._source = source
        self._start: TrainStart | None = None
        self._feed: dict[str, Any] = {}

    def on_train_begin(self, logs: Any = None) -> None:
        """Now."""
        if self._start is None:
            self._start, self._feed = TrainStart(self.model), feed.state(self._source)
        else:
            self._start.restore(self.model)
            feed.restore(self._source, self._feed)


def _first_rows(data: Data, batch_size: int) -> Data:
    if not data.is_arrays:
        return data
    x, y, weights = data.take(slice(0, (STEPS + 1) * batch_size))
    return Data(x, y, sample_weight=weights, batch_size=batch_size)


def _can_be_read_again(data: Data) -> bool:
    """Arrays, and what is indexed and knows its length; a DataLoader of torch starts anew each time it is asked."""
    return data.is_arrays or (hasattr(data.x, "__len__") and (hasattr(data.x, "__getitem__") or _is_loader(data.x)))


def _is_loader(source: Any) -> bool:
    return isinstance(source, torch.utils.data.DataLoader)


def _spoil(model: Any) -> None:
    """What a new process does not have: nothing of before may be left to lean on."""
    with torch.no_grad():
        for variable in model.trainable_variables:
            variable.value.add_(1.0)


def _same_bits(left: torch.Tensor, right: torch.Tensor) -> bool:
    return left.shape == right.shape and left.dtype == right.dtype and bool(torch.equal(left, right))


def _differs(words: str, where: dict[str, Any]) -> Finding:
    return catalogue.finding(
        "resume-mismatch", words, status="WARN", where=where, evidence=[Evidence("value", where)], check=NAME
    )


def _not_asked(reason: str) -> Finding:
    return Finding("resume-mismatch", Status.NOT_RUN, Role.NOTE, f"not asked: {reason}", check=NAME)
