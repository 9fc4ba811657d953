"""A fit that ends after a few batches, whatever its data is: what trials before a run are made of."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from tsguard.dataset import Data
from tsguard.train.feed import Afresh

TAKEN = ("batch_size", "shuffle", "class_weight")
"""What such a fit takes over of the arguments of the real one."""


def fit(
    model: Any,
    data: Data,
    arguments: Mapping[str, Any],
    batches: int,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> None:
    """Train for so many batches of one epoch, with the taken arguments of the real fit; a batch's size for arrays."""
    given = {key: arguments[key] for key in TAKEN if arguments.get(key) is not None}
    if not data.is_arrays:
        given.pop("batch_size", None)
    model.stop_training = False
    with contextlib.suppress(_Enough):
        model.fit(
            data.x,
            data.y,
            sample_weight=data.sample_weight,
            epochs=1,
            verbose=0,
            callbacks=[Afresh(), *callbacks, _After(batches)],
            **given,
        )


class _Enough(Exception):
    """Ends a fit."""


class _After(keras.callbacks.Callback):
    """Ends it once the others have seen the last batch."""

    def __init__(self, batches: int) -> None:
        super().__init__()
        self._batches = batches

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """One less."""
        self._batches -= 1
        if self._batches <= 0:
            raise _Enough
