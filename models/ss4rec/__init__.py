"""SS4Rec: what a user does next, from what was done and when.

Twice [S5 over real time → dropout → add & norm → Mamba over choices → dropout → add & norm], scored against every item
of the catalogue with the tied embedding. The score at an event uses that event, those before it, and the moment it
asks about.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from models.common import ReadableModel
from models.precise import at_least_float32, precise
from models.ss4rec.layers import S5, Mamba, TimeSteps
from models.ss4rec.ranking import leave_one_out, ranking_metrics, target_ranks, training_windows

_register = keras.saving.register_keras_serializable(package="ss4rec")


@_register
class ValidItems(keras.layers.Layer):
    """Item ids with 0 at padded positions, whatever was written there."""

    def call(self, items, mask):
        return ops.where(ops.cast(mask, "bool"), items, ops.zeros_like(items))

    def compute_output_spec(self, items, mask):
        return keras.KerasTensor(items.shape, items.dtype)


@_register
class Masked(keras.layers.Layer):
    """`[logits, mask]` to logits that carry the mask as their Keras mask, so that the loss knows what is padding."""

    def call(self, inputs):
        return inputs[0]

    def compute_mask(self, inputs, previous=None):
        return ops.cast(inputs[1], "bool")

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs[0].shape, inputs[0].dtype)


@_register
class NextItemLoss(keras.losses.Loss):
    """Cross entropy over all items, the mean over valid events that have a next item (`y > 0`) and a weight.

    Valid is what the Keras mask of the logits says, where they carry one. A batch without such an event has loss zero.
    """

    def __init__(self, name: str = "next_item_loss", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)

    def __call__(self, y_true, y_pred, sample_weight=None):
        mask = getattr(y_pred, "_keras_mask", None)
        y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
        wide = ops.cast(y_pred, at_least_float32(y_pred.dtype))
        weight = ops.cast(y_true > 0, wide.dtype)
        if mask is not None:
            weight = weight * ops.cast(mask, wide.dtype)
        if sample_weight is not None:
            sample_weight = ops.cast(sample_weight, wide.dtype)
            weight = weight * (sample_weight if len(sample_weight.shape) > 1 else ops.expand_dims(sample_weight, -1))
        each = keras.losses.sparse_categorical_crossentropy(y_true, wide, from_logits=True)
        total = ops.sum(weight)
        each = ops.where(weight > 0, each, ops.zeros_like(each))
        return ops.sum(each * weight) / ops.where(total > 0, total, ops.ones_like(total))

    def call(self, y_true, y_pred):
        return self(y_true, y_pred)


@_register
class SS4Rec(ReadableModel):
    """Functional model over `items`, `timestamps` (integers) and `mask` of (batch, events), and `wait` (batch, 1).

    Events may be padded on either side. `wait` is how many seconds after the last event the question is asked. An
    earlier event's question is asked when the next one happens: all that its logits know of the future.
    Output: logits (batch, events, num_items + 1); column 0 stands for no item.
    """

    def __init__(
        self,
        *,
        num_items: int,
        units: int = 64,
        state: int = 32,
        num_blocks: int = 2,
        width: int = 4,
        expand: int = 2,
        dropout: float = 0.2,
        time_unit: float = 3600.0,
        **kwargs: Any,
    ) -> None:
        settings = {
            "num_items": num_items,
            "units": units,
            "state": state,
            "num_blocks": num_blocks,
            "width": width,
            "expand": expand,
            "dropout": dropout,
            "time_unit": time_unit,
        }
        inputs = {
            "items": keras.Input((None,), dtype="int32", name="items"),
            "timestamps": keras.Input((None,), dtype="int64", name="timestamps"),
            "wait": keras.Input((1,), dtype="int64", name="wait"),
            "mask": keras.Input((None,), dtype="bool", name="mask"),
        }
        super().__init__(_network, inputs, settings, **kwargs)

    def explain(self, x, batch_size=None):
        """The state behind the logits of every event: (batch, events, units)."""
        return super().explain(x, batch_size)

    def scores(self, x, batch_size: int = 64) -> np.ndarray:
        """The scores of all items after the last valid event of each row: (rows, num_items + 1)."""
        # Only the last state of a row meets the catalogue; logits of every event would be a hundred times the work.
        states = self.explain(x, batch_size)["state"]
        last = np.where(x["mask"], np.arange(x["mask"].shape[1]), 0).max(axis=1)
        items = ops.convert_to_numpy(self.get_layer("item").embeddings)
        return states[np.arange(len(states)), last].astype(items.dtype) @ items.T

    def rank(self, x, targets, seen=None, k: int = 10) -> dict[str, float]:
        """HR, NDCG and MRR at k of a full ranking."""
        return ranking_metrics(target_ranks(self.scores(x), targets, seen), k)


def _network(inputs, settings):
    units, dropout, mask = settings["units"], settings["dropout"], inputs["mask"]
    embedding = keras.layers.ReversibleEmbedding(
        settings["num_items"] + 1,
        units,
        embeddings_initializer=keras.initializers.RandomNormal(stddev=0.02),
        reverse_dtype=precise(),
        name="item",
    )
    steps = TimeSteps(settings["time_unit"], name="steps")(inputs["timestamps"], inputs["wait"], mask)
    x = embedding(ValidItems(name="valid_items")(inputs["items"], mask))
    x = keras.layers.Dropout(dropout, name="dropout_item")(keras.layers.LayerNormalization(name="norm_item")(x))
    for i in range(settings["num_blocks"]):
        timed = S5(settings["state"], name=f"s5_{i}")(x, steps)
        x = _add_and_norm(x, timed, dropout, f"s5_{i}")
        chosen = Mamba(settings["state"], settings["width"], settings["expand"], name=f"mamba_{i}")(x, mask)
        x = _add_and_norm(x, chosen, dropout, f"mamba_{i}")
    logits = embedding(x, reverse=True)
    return Masked(dtype=logits.dtype, name="logits")([logits, mask]), {"state": x}


def _add_and_norm(x, branch, dropout, name):
    branch = keras.layers.Dropout(dropout, name=f"dropout_{name}")(branch)
    return keras.layers.LayerNormalization(name=f"norm_{name}")(keras.layers.Add(name=f"add_{name}")([x, branch]))


def build(
    *,
    num_items: int = 120,
    units: int = 32,
    state: int = 8,
    num_blocks: int = 2,
    width: int = 4,
    expand: int = 2,
    dropout: float = 0.2,
    time_unit: float = 3600.0,
    learning_rate: float = 3e-3,
) -> SS4Rec:
    """A compiled SS4Rec of a size for `synthetic()`; the published one has units=64, state=32, learning_rate=1e-3."""
    model = SS4Rec(
        num_items=num_items,
        units=units,
        state=state,
        num_blocks=num_blocks,
        width=width,
        expand=expand,
        dropout=dropout,
        time_unit=time_unit,
    )
    model.compile(optimizer=keras.optimizers.Adam(learning_rate), loss=NextItemLoss())
    return model


def interactions(
    *, num_users: int = 192, num_items: int = 120, num_genres: int = 6, longest: int = 50, seed: int = 0
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Items and times of users who watch in sessions: one genre a session, the next in order after a long pause.

    Pauses run from seconds (a sixth of them none at all) to years, as in ratings; within a genre the steps have a
    direction.
    """
    rng = np.random.default_rng(seed)
    per_genre = num_items // num_genres
    histories, times = [], []
    for _ in range(num_users):
        count = int(rng.integers(8, longest + 1))
        long = rng.random(count) < 0.12
        seconds = np.where(rng.random(count) < 0.16, 0, rng.exponential(40, count))
        pauses = np.where(long, np.minimum(rng.lognormal(13, 2, count), 2e8), seconds).astype(np.int64)
        genre, place, items = int(rng.integers(num_genres)), int(rng.integers(per_genre)), []
        for paused in long:
            genre = (genre + int(paused)) % num_genres
            place = (place + int(rng.choice([1, 2, 3], p=[0.6, 0.3, 0.1]))) % per_genre
            items.append(1 + genre * per_genre + place)
        histories.append(np.array(items, np.int32))
        times.append(np.int64(rng.integers(830_000_000, 1_500_000_000)) + np.cumsum(pauses))
    return histories, times


def synthetic(
    *, num_users: int = 192, num_items: int = 120, length: int = 50, validation_share: float = 0.2, seed: int = 0
) -> dict[str, Any]:
    """`interactions` as windows padded on the right; validation is on users that training has not seen."""
    histories, times = interactions(num_users=num_users, num_items=num_items, longest=length, seed=seed)
    split = int((1 - validation_share) * num_users)
    x, y = training_windows(histories[:split], times[:split], length)
    names = {"items": ["item"], "timestamps": ["time"], "wait": ["seconds until the question"]}
    validation = training_windows(histories[split:], times[split:], length)
    return {"x": x, "y": y, "validation_data": validation, "names": names}


__all__ = [
    "S5",
    "Mamba",
    "NextItemLoss",
    "SS4Rec",
    "TimeSteps",
    "build",
    "interactions",
    "leave_one_out",
    "ranking_metrics",
    "synthetic",
    "target_ranks",
    "training_windows",
]
