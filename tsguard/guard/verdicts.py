"""What can be said only when a run is over: rises that stayed, clips that were always on, weights that never moved.

Each rule reads what the watch has kept; none needs the model to run again but the last one, which asks it for
predictions on the validation data.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from tsguard import catalogue
from tsguard.backend import preserved
from tsguard.dataset import Data
from tsguard.evidence import Evidence
from tsguard.findings import Finding, Role, Status
from tsguard.guard import every_row, trips
from tsguard.guard.answer import of_trip
from tsguard.guard.watcher import Watcher
from tsguard.probes.spare import is_spare_end
from tsguard.probes.stage import has_own_step

COLLAPSE_STD = 0.05
"""Predictions that spread less than a twentieth of the targets say the same about everything."""

COLLAPSE_STEPS = 50
"""A model that has hardly trained predicts a constant by right."""

VALIDATION_SECONDS = 5.0
"""How long the row of the validation data is looked for that broke its loss."""

SAMPLES = 256
"""Validation samples that are asked: enough for a spread, cheap enough not to be noticed."""


def at_end(watcher: Watcher, logs: dict[str, list[float]]) -> Iterator[Finding]:
    """Every finding of the end of a run."""
    if not _scaled_by_hand(watcher, logs.get("loss") or []):
        yield from _rises(watcher)
    yield from _clip(watcher)
    yield from _learning(watcher)
    yield from _unmoved(watcher)
    yield from _loader(watcher)
    yield from _metrics(logs)


def _scaled_by_hand(watcher: Watcher, told: list[float]) -> bool:
    """Whether what backward starts from rose while the loss that an own step tells fell: the step scales it.

    In Keras' own step the two are one, and the means of epochs may fall while the last steps rise.
    """
    if not has_own_step(watcher.model):
        return False
    losses = watcher.watch.values("loss")
    size = min(trips.RECENT, len(losses))
    if not size or len(told) < 2 or not all(map(math.isfinite, told)):
        return False
    return told[-1] < told[0] and float(np.median(losses[-size:])) > float(np.median(losses[:size]))


def _rises(watcher: Watcher) -> Iterator[Finding]:
    losses = watcher.watch.values("loss")
    points = watcher.watch.series.get("loss", [])
    for rise, trip in watcher.rises:
        passed = not rise.lasting or trips.recovered(losses, rise, points[0][0])
        if passed and trips.of_the_batches(points, rise):
            continue
        if rise.lasting and passed:
            yield catalogue.finding(
                "loss-spike",
                trip.message + " By the end of the run it had come back down.",
                where={"step": trip.step, "epoch": trip.epoch, "batch": trip.batch},
                check="guard",
            )
        else:
            yield of_trip(trip)
    if not watcher.rises and len(losses) >= trips.HISTORY_MIN:
        start, end = losses[: trips.RECENT], losses[-trips.RECENT :]
        first, last = float(np.median(start)), float(np.median(end))
        if first > 0 and last > first * math.exp(trips.RISE):
            yield catalogue.finding(
                "divergence",
                f"The loss ended {last / first:.3g} times as high as it began ({first:.4g} to {last:.4g}): "
                f"every step made "
                "it worse.",
                where={"step": watcher.step - 1, "epoch": watcher.epoch},
                check="guard",
            )


def _clip(watcher: Watcher) -> Iterator[Finding]:
    seen, clipped = watcher.watch.clip_seen, watcher.watch.clipped
    if seen >= trips.CLIP_STEPS and clipped >= trips.CLIP_SHARE * seen:
        yield catalogue.finding(
            "clip-saturated",
            f"At least half of the gradient was clipped in {clipped} of {seen} steps: the clip sets the size of every "
            "update, so that the learning rate and the loss no longer do.",
            where={"step": watcher.step - 1},
            evidence=[Evidence("value", clipped / seen, name="share of clipped steps")],
            check="guard",
        )


def _learning(watcher: Watcher) -> Iterator[Finding]:
    losses = watcher.watch.values("loss")
    # Of rivals each pulls the other's loss back up: neither falls, and both learn. What an own step goes back from may
    # be no price at all but a direction, on either side of zero.
    directed = has_own_step(watcher.model) and bool(losses) and min(losses) < 0 < max(losses)
    if not watcher.stopped and not watcher.watch.rivals and not directed and trips.no_learning(losses):
        yield catalogue.finding(
            "no-learning",
            f"After {len(losses)} steps the loss is where it began ({np.median(losses[:10]):.4g}, now "
            f"{np.median(losses[-10:]):.4g}).",
            where={"step": watcher.step - 1, "epoch": watcher.epoch},
            status=Status.WARN,
            check="guard",
        )


def _cancelled(path: str, still: list[str]) -> bool:
    layer, _, name = path.rpartition("/")
    return name == "bias" and not any(other != path and other.rpartition("/")[0] == layer for other in still)


def _is_spare(model: Any, path: str, still: list[str]) -> bool:
    owner = next(
        (one for one in model._flatten_layers() if any(v.path == path for v in one._trainable_variables)), None
    )

    def has_moved(layer: Any) -> bool:
        return any(v.path not in still for v in layer.trainable_variables)

    return owner is not None and is_spare_end(model, owner, has_moved)


def _unmoved(watcher: Watcher) -> Iterator[Finding]:
    """Trainable weights that hold their first bits after many updates, and got no gradient."""
    if watcher.watched < trips.UNCHANGED_STEPS or watcher.stopped:
        return
    still = watcher.first_bits.unmoved() if watcher.first_bits is not None else []
    # A bias whose kernel moves is cancelled by what follows (a difference, a softmax): it has nothing to learn.
    still = [path for path in still if not _cancelled(path, still)]
    still = [path for path in still if not _is_spare(watcher.model, path, still)]
    if not still:
        return
    all_of_them = len(still) == len(watcher.model.trainable_variables)
    names = ", ".join(f"`{name}`" for name in still[:4]) + (" …" if len(still) > 4 else "")
    yield catalogue.finding(
        "no-learning" if all_of_them else "disconnected-parameters",
        f"{len(still)} trainable weights hold the very bits they began with after {watcher.watched} steps: {names}. "
        + ("No update ever reached the model." if all_of_them else "No gradient that is not 0 reaches them."),
        where={"parameter": still[0], "step": watcher.step - 1},
        status=Status.FAIL if all_of_them else Status.WARN,
        check="guard",
        evidence=[Evidence("value", list(still), name="weights that never changed")],
    )


def _loader(watcher: Watcher) -> Iterator[Finding]:
    share = watcher.watch.data_wait_share
    per_step = watcher.watch.waited / max(watcher.watched, 1)
    if watcher.watched < trips.LOADER_STEPS:
        return
    if share is not None and share > trips.LOADER_SHARE and per_step > trips.LOADER_SECONDS:
        yield catalogue.finding(
            "loader-bound",
            f"{share:.0%} of the time went by between steps (loading data, other callbacks), {1 - share:.0%} in them.",
            evidence=[Evidence("value", share, name="data_wait_share")],
            check="guard",
        )


def _metrics(logs: dict[str, list[float]]) -> Iterator[Finding]:
    loss = logs.get("val_loss", [])
    for name, values in logs.items():
        if name.startswith("val_") and name != "val_loss" and trips.metric_disagrees(loss, values, name):
            yield catalogue.finding(
                "metric-disagrees",
                f"Over {len(values)} epochs val_loss fell from {loss[0]:.4g} to {loss[-1]:.4g} while {name} "
                f"went the wrong "
                f"way, from {values[0]:.4g} to {values[-1]:.4g}.",
                where={"epoch": len(values) - 1},
                check="guard",
            )


def collapse(watcher: Watcher, validation: tuple[Any, Any] | None) -> list[Finding]:
    """Whether the trained model says the same about everything."""
    if validation is None or watcher.watched < COLLAPSE_STEPS or watcher.stopped:
        return []
    x, y = _first(validation[0]), _first(validation[1])
    if x is None:
        return []
    # An own layer may count or draw in every call: asked or not, the model ends with the same bits.
    with preserved(watcher.model), torch.no_grad():
        mode = watcher.model.training
        try:
            predicted = watcher.model(x, training=False)
        finally:
            watcher.model.train(mode)
    if not isinstance(predicted, torch.Tensor) or not isinstance(y, np.ndarray):
        return []
    return _judged(predicted.detach().float().cpu().numpy(), y, watcher.step)


def _first(part: Any) -> Any:
    """The first samples of plain arrays, in whatever nest they come; None where they are something else."""
    if isinstance(part, np.ndarray):
        return part[:SAMPLES]
    if isinstance(part, dict):
        cut = {key: _first(value) for key, value in part.items()}
        return None if any(value is None for value in cut.values()) else cut
    if isinstance(part, (list, tuple)):
        parts = [_first(value) for value in part]
        return None if any(value is None for value in parts) else type(part)(parts)
    return None


def unseen() -> Finding:
    """What a compiled step hides from everybody outside of it."""
    return catalogue.finding(
        "nan-hidden",
        "The step is compiled (jit_compile=True): loss, gradients and weights are looked at after each step. Not seen "
        "are named loss terms, questions about NaN (a hidden NaN), activations and clipping; where something trips, "
        "the operation is looked for by running the step eagerly.",
        status=Status.NOT_RUN,
        role=Role.NOTE,
        remedy="Train a few steps with jit_compile=False to have these looked at too.",
        check="guard under jit_compile",
    )


def validation_fault(
    logs: dict[str, list[float]], validation: tuple[Any, Any] | None, step: int, model: Any = None
) -> list[Finding]:
    """A validation loss that is not finite: best weights, early stopping and checkpoints choose by it."""
    epoch = next((k for k, value in enumerate(logs.get("val_loss", [])) if not math.isfinite(value)), None)
    if epoch is None:
        return []
    for role, part in zip(("input", "output"), validation or (), strict=False):
        for name, value in named_arrays(part):
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                place = np.argwhere(~np.isfinite(value))[0]
                return [
                    catalogue.finding(
                        "data-nonfinite",
                        f"val_loss of epoch {epoch} is not finite because the validation data are not: {role} "
                        f"{name or 'array'}, row {place[0]} (index {tuple(int(i) for i in place)}).",
                        where={
                            "phase": "data", "split": "val", "epoch": epoch, "row": int(place[0]), "step": step - 1,
                            role: name or ("x" if role == "input" else "y"),
                        },
                        check="guard",
                    )
                ]  # fmt: skip
    named = _named_operation(model, validation, epoch, step) if model is not None and validation is not None else None
    if named is not None:
        return [named]
    return [
        catalogue.finding(
            "nonfinite-loss",
            f"val_loss of epoch {epoch} is not finite, though training is, and so are the validation arrays (as far as "
            "they could be looked at): the model gives no finite answer to some validation sample.",
            where={"phase": "loss", "split": "val", "epoch": epoch, "step": step - 1},
            check="guard",
        )
    ]


def _named_operation(model: Any, validation: tuple[Any, Any], epoch: int, step: int) -> Finding | None:
    """The operation that broke on a validation row, with the weights as they are now."""
    try:
        data = Data(*validation)
        if not data.is_arrays:
            return None
        with preserved(model):
            found = every_row.passed(model, data.batches(), seconds=VALIDATION_SECONDS)
        when = f"in the validation of epoch {epoch}"
        return every_row.told(found, split="val", where=when, epoch=epoch, step=max(step - 1, 0))
    except Exception:  # a kind of data that cannot be cut: the loss alone is told
        return None


def named_arrays(part: Any) -> Iterator[tuple[str | None, np.ndarray]]:
    """Every array in a nest, with its name in a dict."""
    if isinstance(part, np.ndarray):
        yield None, part
    elif isinstance(part, dict):
        for key, value in part.items():
            yield from ((str(key), array) for _, array in named_arrays(value))
    elif isinstance(part, (list, tuple)):
        for value in part:
            yield from named_arrays(value)


def _judged(predicted: np.ndarray, y: np.ndarray, step: int) -> list[Finding]:
    classes = predicted.ndim == 2 and predicted.shape[1] > 1 and y.size == len(y) and y.dtype.kind in "iu"
    one_hot = predicted.ndim == 2 and predicted.shape == y.shape and bool(np.isin(y, (0, 1)).all()) and y.shape[1] > 1
    if classes or one_hot:
        chosen = predicted.argmax(axis=1)
        truth = y.reshape(-1) if classes else y.argmax(axis=1)
        present = np.unique(truth)
        if len(np.unique(chosen)) == 1 and len(present) > 1:
            return [
                catalogue.finding(
                    "class-collapse",
                    f"Every one of {len(chosen)} validation samples is given class {int(chosen[0])}, of "
                    f"{len(present)} that "
                    "are there.",
                    where={"step": step - 1},
                    status=Status.WARN,
                    role=Role.SYMPTOM,
                    check="guard",
                )
            ]
        return []
    if predicted.size != y.size or y.dtype.kind != "f" or not np.isfinite(predicted).all():
        return []
    spread = float(y.std())
    ratio = float(predicted.std()) / spread if spread > 0 else None
    if ratio is None or ratio >= COLLAPSE_STD:
        return []
    return [
        catalogue.finding(
            "variance-collapse",
            f"Predictions spread {ratio:.1%} as far as the targets (standard deviation {predicted.std():.3g} against "
            f"{spread:.3g}) on {len(y)} validation samples: they are all but one number.",
            where={"step": step - 1},
            evidence=[Evidence("value", ratio, name="std_ratio")],
            check="guard",
        )
    ]
