"""A recurrent layer that reads on through the padding behind what there is, without a mask.

What it hands on is its state after the last step. Where the steps behind are empty, the state has gone through all of
them, the more the shorter the row is: what was read is forgotten over nothing, and how much depends on the length.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from tsguard import catalogue
from tsguard.checks.arrays import inputs
from tsguard.checks.bench import name_of, set_up
from tsguard.checks.registry import Context, check
from tsguard.findings import Finding
from tsguard.probes.data import thinned
from tsguard.probes.stage import flat

LEAST_EMPTY, LEAST_SHARE = 5, 0.25
"""Empty steps at the end of a row that has any (the median), in number and of its steps: over fewer a gate forgets
little."""

PADDED = 0.5
"""Share of the rows that end in empty steps."""

AT_THE_END = 0.95
"""Share of them whose empty steps all stand at the end: where others are empty too, nothing is a value."""


@check("padding read as readings", codes=("mask-dropped",), needs=("model", "data", "arrays"), cost=2)
def reads_on(context: Context) -> Iterable[Finding]:
    """Recurrent layers whose last state goes through empty steps, by the data and by what reaches the layer."""
    import keras

    bench = set_up(context)
    layers = [call.layer for call in bench.step.calls]
    if any(isinstance(layer, keras.layers.Bidirectional) for layer in layers):
        return  # its other half comes to the readings last
    for call in bench.step.calls:
        given = next((t for t in flat(call.inputs) if hasattr(t, "ndim")), None)
        if not isinstance(call.layer, keras.layers.RNN) or given is None or given.ndim != 3:
            continue
        masked = call.kwargs.get("mask") is not None or getattr(given, "_keras_mask", None) is not None
        if masked or call.layer.return_sequences or call.layer.go_backwards:
            continue
        empty = _empty_steps(context, int(given.shape[1]))
        if empty is None:
            continue
        behind = np.logical_and.accumulate(empty[:, ::-1], axis=1).sum(axis=1)
        ends = behind > 0
        alone = empty.sum(axis=1) == behind
        if ends.mean() < PADDED or alone[ends].mean() < AT_THE_END:
            continue
        usual = float(np.median(behind[ends]))
        if usual < max(LEAST_EMPTY, LEAST_SHARE * empty.shape[1]):
            continue
        yield catalogue.finding(
            "mask-dropped",
            f"{name_of(call.layer)} reads all {empty.shape[1]} steps, no mask reaches it, and {ends.mean():.0%} of the "
            f"rows end in empty steps ({usual:.0f} as a rule): its last state has gone through nothing for as long. "
            "Expected padding to be passed over.",
            where={"layer": name_of(call.layer)},
            status="WARN",
            role="cause",
            remedy="Embedding(…, mask_zero=True), or Masking() before the layer; or pad in front of the readings.",
            score=0.9,
        )
        return


def _empty_steps(context: Context, steps: int) -> npt.NDArray[np.bool_] | None:
    """(rows, steps): True where every input that runs along these steps is 0; None where none does."""
    running: list[Any] = []
    for one in inputs(context):
        array = one.array
        if array.ndim in (2, 3) and array.shape[1] == steps and not one.mask and (array.ndim == 3 or one.ids):
            rows = thinned(array)
            running.append(rows.reshape(len(rows), steps, -1))
    if not running or len({len(part) for part in running}) != 1:
        return None
    return np.asarray(~np.concatenate(running, axis=2).any(axis=2))
