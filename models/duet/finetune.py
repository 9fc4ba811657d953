"""From a pre-trained duet to a task: what to freeze, which rates, and whether it was worth it against from-scratch."""

from __future__ import annotations

import keras
import numpy as np

from models.duet.data import take
from models.duet.model import Duet
from models.transfer import FreezeSchedule, RatedAdam

STRATEGIES = ("none", "encoder", "gradual")
"""What stays frozen: nothing; the encoder for good (a linear probe); the encoder until `unfreeze_at`."""


def freeze_schedule(model, strategy="gradual", unfreeze_at=2):
    """The callback for a strategy; the heads are trainable throughout."""
    heads = sorted(layer.name for layer in model.layers if layer.weights and layer.name != "encoder")
    stages = {"none": {0: "all"}, "encoder": {0: heads}, "gradual": {0: heads, unfreeze_at: "all"}}
    if strategy not in stages:
        raise ValueError(f"freeze_schedule: received {strategy!r}, expected one of {list(STRATEGIES)}.")
    return FreezeSchedule(stages[strategy])


def finetune(source, x, y, validation_data=None, strategy="gradual", unfreeze_at=2, rate=1e-3, encoder_factor=1.0,
             epochs=5, batch_size=32, verbose=0, **changes):  # fmt: skip
    """Train a model of the pre-trained encoder for forecasting; returns (model, transfer, history).

    The encoder learns `encoder_factor` times as fast as the fresh heads, once it is unfrozen. In a few epochs a factor
    of 0.1 was worse than 1.0 (docs/models.md): it takes long fine-tuning to pay.
    """
    model, transfer = Duet.from_pretrained(source, **changes)
    model.compile(optimizer=RatedAdam(rate, rates={"encoder": encoder_factor}))
    history = model.fit(
        x, y, validation_data=validation_data, epochs=epochs, batch_size=batch_size, verbose=verbose,
        callbacks=[freeze_schedule(model, strategy, unfreeze_at)],
    )  # fmt: skip
    return model, transfer, history.history


def sample_efficiency(
    source, x, y, validation_data, fractions=(0.1, 0.25, 1.0), strategies=STRATEGIES, epochs=5, batch_size=32, seed=0,
    rate=1e-3, encoder_factor=1.0, **changes,
):  # fmt: skip
    """Best validation loss at each share of the labelled windows: a dict of `samples`, `scratch` and each strategy.

    All models have the same architecture, seed, samples (the earliest, so that no later window is used), epochs and
    head rate; they differ in the weights that they start from, the freezing strategy and the encoder's rate.
    """
    rows = []
    for fraction in fractions:
        count = max(1, round(fraction * len(y)))
        part = take(x, np.arange(count)), y[:count]
        row = {"samples": count}
        keras.utils.set_random_seed(seed)
        cold = Duet.from_config({**Duet.from_pretrained(source, **changes)[0].get_config(), "name": "scratch"})
        cold.compile(optimizer=keras.optimizers.Adam(rate))
        scratch = cold.fit(*part, validation_data=validation_data, epochs=epochs, batch_size=batch_size, verbose=0)
        row["scratch"] = min(scratch.history["val_loss"])
        for strategy in strategies:
            keras.utils.set_random_seed(seed)
            _, _, history = finetune(
                source, *part, validation_data, strategy=strategy, epochs=epochs, batch_size=batch_size, rate=rate,
                encoder_factor=encoder_factor, **changes,
            )  # fmt: skip
            row[strategy] = min(history["val_loss"])
        rows.append(row)
    return rows
