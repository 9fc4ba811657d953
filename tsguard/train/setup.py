"""What `train:` in a run.yaml says about the optimizer, applied to a model that was just built.

Everything here is Keras' own: the optimizer is made again from its configuration with what was declared changed, the
schedules are `CosineDecay` and `ReduceLROnPlateau`, averaging and accumulation are options of the optimizer. Only the
stop on a composite is ours. What a model's own optimizer already says and a setting contradicts is a mistake in words.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import keras

from tsguard.dataset import Data, held_out, length_of
from tsguard.errors import ConfigError, explain
from tsguard.settings import ScheduleSettings, TrainSettings
from tsguard.subject import Subject
from tsguard.train.formula import Formula
from tsguard.train.layers import ByLayer, freeze_for_good, require_matches
from tsguard.train.measured import ANSWERED, Measured
from tsguard.train.validation import ValidationSets

ONE_CYCLE_RISE = 0.3
"""Share of a one-cycle run that the rate rises, where no `warmup_steps` are given: Smith's own and torch's default."""
ONE_CYCLE_START = 25.0
"""The cycle begins at its peak divided by this: torch's default."""


def prepared(subject: Subject, settings: TrainSettings, *, steps: int | None = None) -> Subject:
    """The subject whose models come with these settings, however often one is built."""
    make, steps = subject.make_model, steps or total_steps(settings, subject.data)
    if subject.live is not None:
        if settings.precision is not None:
            raise _mistake(
                "train.precision",
                f"{settings.precision} for a model that has been built already",
                "a function that builds the model, so that it is built in that precision",
                "Pass the function, or set the dtype policy before building.",
            )
        applied(subject.live, settings, steps=steps)
        return subject  # what is copied from it comes with the settings
    return dataclasses.replace(subject, make_model=lambda: applied(make(), settings, steps=steps))


def fit_arguments(settings: TrainSettings, data: Data | None = None) -> dict[str, Any]:
    """What `model.fit` itself is told. Arrays are cut where only a few batches are wanted; other data is left early."""
    told = {
        "epochs": settings.epochs,
        "batch_size": settings.batch_size,
        "steps_per_epoch": settings.steps_per_epoch,
        "validation_split": settings.validation_split,
        "validation_freq": settings.validation_freq,
        # a DataLoader has an order of its own, and Keras warns of every `shuffle=True` beside one
        "shuffle": settings.shuffle and not (data is not None and hasattr(data.x, "batch_sampler")),
        "class_weight": settings.class_weight,
    }
    most = settings.limit_batches
    if most is not None and data is not None and not data.is_arrays:
        told["steps_per_epoch"] = _at_most(most, data.x)
    if most is not None and data is not None and not isinstance(data.validation, tuple | list | type(None)):
        told["validation_steps"] = _at_most(most, data.validation)
    return told


def _at_most(most: int, batches: Any) -> int:
    known = length_of(batches)
    return most if known is None else min(most, known)


def checkpoints(settings: TrainSettings) -> dict[str, Any]:
    """Arguments of `Checkpoints`. What training stops by is what the best is chosen by, unless another is named."""
    kept, stop = settings.checkpoint, settings.stop
    named = {"monitor", "mode"} & kept.model_fields_set
    by = kept if stop is None or named else stop
    return {"every": kept.every, "keep": kept.keep, "monitor": by.monitor, "mode": by.mode}


def applied(model: Any, settings: TrainSettings, *, steps: int | None) -> Any:
    """The same model, its optimizer made again as declared. `steps` is the length of the whole run, where known."""
    if getattr(model, "built", False):  # what is built by its first call is asked when training begins
        require_matches(model, settings.rates, "train.rates")
        require_matches(model, settings.freeze, "train.freeze")
    freeze_for_good(model, settings.freeze)
    old = getattr(model, "optimizer", None)
    if old is None or not _changes(settings):
        return model
    scaled = hasattr(old, "inner_optimizer")
    inner = old.inner_optimizer if scaled else old
    if hasattr(inner, "optimizers"):
        raise _mistake(
            "train", "a model with a MultiOptimizer", "one optimizer", "Set rates, clipping and averaging in the model."
        )
    new: Any = _remade(inner, settings, steps)
    if scaled:
        new = keras.optimizers.LossScaleOptimizer(
            new, initial_scale=old.initial_scale, dynamic_growth_steps=old.dynamic_growth_steps
        )
    # Only the optimizer is exchanged: compiling again would need an own `compile` to take Keras' arguments.
    model.optimizer = new
    model.train_function = None
    compiled = getattr(model, "_compile_config", None)
    if compiled is not None:
        compiled.config["optimizer"] = new
    return model


def callbacks(settings: TrainSettings, data: Data | None) -> list[Any]:
    """Keras callbacks for what an optimizer cannot do alone; the rate is recorded first, as the epoch used it."""
    made: list[Any] = [RecordRate()]
    if settings.rates or settings.freeze:
        made.append(ByLayer(settings.rates, settings.freeze))
    averages = keras.callbacks.SwapEMAWeights() if settings.ema is not None else None
    if averages is not None:
        made.append(averages)
    if data is not None and data.validation_sets:
        made.append(
            ValidationSets(
                data.validation_sets,
                main=data.validation,
                every=settings.validation_freq,
                batch_size=settings.batch_size,
                averages=averages,
            )
        )
    asked = asked_for(settings)
    if asked and data is not None:
        made.append(Measured(asked, held_out(data, settings.validation_split), settings.validation_freq, averages))
    if settings.schedule.kind == "plateau":
        schedule = settings.schedule
        made.append(
            Plateau(
                monitor="val_loss" if _validates(settings, data) else "loss",
                factor=schedule.factor,
                patience=schedule.patience,
                min_lr=schedule.floor,
            )
        )
    if settings.stop is not None:
        stop = settings.stop
        made.append(
            Stop(
                stop.monitor,
                mode=stop.mode,
                patience=stop.patience,
                min_delta=stop.min_delta,
                warmup=stop.warmup,
                every=settings.validation_freq,
            )
        )
    return made


def asked_for(settings: TrainSettings) -> tuple[str, ...]:
    """The metrics of ours that stopping or the choice of the best reads, and that need an answer to be known."""
    read = [Formula.parse(settings.checkpoint.monitor, place="train.checkpoint.monitor").names]
    if settings.stop is not None:
        read.append(Formula.parse(settings.stop.monitor, place="train.stop.monitor").names)
    return tuple(dict.fromkeys(n for names in read for n in names if n.removeprefix("val_") in ANSWERED))


def total_steps(settings: TrainSettings, data: Data | None) -> int | None:
    """Steps of the whole run: what a schedule ends with. None where the data does not say how long it is."""
    each = settings.steps_per_epoch or batches_per_epoch(settings, data)
    return None if each is None else each * settings.epochs


def batches_per_epoch(settings: TrainSettings, data: Data | None) -> int | None:
    """Batches that `fit` will draw in one epoch, by Keras' own rules."""
    if data is None:
        return None
    if data.is_arrays:
        share = 0.0 if data.validation is not None else settings.validation_split  # Keras' own rule
        rows = math.floor(len(data) * (1.0 - share))
        return math.ceil(rows / (settings.batch_size or 32))
    return length_of(data.x)


def _validates(settings: TrainSettings, data: Data | None) -> bool:
    return settings.validation_split > 0 or (data is not None and data.validation is not None)


def _changes(settings: TrainSettings) -> bool:
    asked = (settings.learning_rate, settings.accumulate, settings.clip_norm, settings.ema)
    return any(value is not None for value in asked) or settings.schedule.kind not in ("constant", "plateau")


def _remade(inner: Any, settings: TrainSettings, steps: int | None) -> Any:
    config: dict[str, Any] = dict(inner.get_config())
    rate = _rate(config, settings, steps)
    if rate is not None:
        config["learning_rate"] = rate
    if settings.clip_norm is not None:
        own = [name for name in ("clipnorm", "clipvalue") if config.get(name) is not None]
        if own:
            raise _mistake(
                "train.clip_norm",
                f"{settings.clip_norm:g}, and the model's optimizer has {own[0]}={config[own[0]]:g}",
                "one way of clipping",
                f"Remove one of the two: Keras applies only one, and {own[0]} is another thing than a global norm.",
            )
        config["global_clipnorm"] = settings.clip_norm
    if settings.ema is not None:
        config.update(use_ema=True, ema_momentum=settings.ema)
    if settings.accumulate is not None:
        # Keras calls one step no accumulation at all
        config["gradient_accumulation_steps"] = settings.accumulate if settings.accumulate > 1 else None
    try:
        return type(inner).from_config(config)
    except (TypeError, ValueError) as refused:
        raise _mistake(
            "train",
            f"an optimizer of class {type(inner).__qualname__} that cannot be made again ({refused})",
            "one whose from_config takes what its get_config gives and Keras' own options",
            "Set rate, clipping, averaging and accumulation in the model instead.",
        ) from refused


def _rate(config: Mapping[str, Any], settings: TrainSettings, steps: int | None) -> Any:
    """A number or a schedule; None leaves the optimizer's own."""
    schedule = settings.schedule
    if schedule.kind in ("constant", "plateau"):
        return settings.learning_rate
    own = config.get("learning_rate")
    peak = settings.learning_rate
    if peak is None:
        if not isinstance(own, int | float):
            raise _mistake(
                "train.schedule",
                f"{schedule.kind!r} for a model whose optimizer has a schedule of its own",
                "one schedule",
                "Give train.learning_rate, the peak of the new schedule, or remove train.schedule.",
            )
        peak = float(own)
    return _curve(schedule, peak, schedule.steps or steps)


def _curve(schedule: ScheduleSettings, peak: float, steps: int | None) -> Any:
    if steps is None:
        raise _mistake(
            "train.schedule.steps",
            "nothing, and the data does not say how many batches an epoch has",
            "the number of steps until the end of the schedule",
            "Give schedule.steps or train.steps_per_epoch.",
        )
    rise = schedule.warmup_steps
    if schedule.kind == "one_cycle" and not rise:
        rise = round(ONE_CYCLE_RISE * steps)
    if rise >= steps:
        raise _mistake(
            "train.schedule.warmup_steps",
            f"{rise}, of {steps} steps in all",
            "fewer steps than the run has",
            "Warm up for less, or train for longer.",
        )
    if schedule.floor > peak:
        raise _mistake(
            "train.schedule.floor", f"{schedule.floor:g}", f"at most the peak rate {peak:g}", "Lower the floor."
        )
    start = peak / ONE_CYCLE_START if schedule.kind == "one_cycle" else 0.0
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=float(start if rise else peak),  # of an int Keras would make an integer rate
        decay_steps=steps - rise,
        alpha=schedule.floor / peak,
        warmup_target=peak if rise else None,
        warmup_steps=rise,
    )


def _mistake(place: str, received: str, expected: str, todo: str) -> ConfigError:
    return ConfigError(explain(place, received=received, expected=expected, todo=todo))


class RecordRate(keras.callbacks.Callback):
    """Puts the learning rate into the epoch's logs, so that history, trackers and pages have it."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Keras hands one dict to all callbacks; what is put in here the others see."""
        if logs is not None and self.model.optimizer is not None:
            logs["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))


class Plateau(keras.callbacks.ReduceLROnPlateau):
    """Keras' own, which is silent in epochs without validation instead of warning in each."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Only where there is something to judge."""
        if logs and self.monitor in logs:
            super().on_epoch_end(epoch, logs)


class Stop(keras.callbacks.Callback):
    """Ends training when a metric or composite has not improved for `patience` judged epochs.

    A value that is not finite is never an improvement. Epochs before `warmup` are not judged, but a formula that names
    what nobody logs is refused after the first epoch that should have it, not after the warm-up.
    """

    def __init__(
        self,
        monitor: str,
        *,
        mode: str = "min",
        patience: int = 5,
        min_delta: float = 0.0,
        warmup: int = 0,
        every: int = 1,
    ) -> None:
        super().__init__()
        self.formula = Formula.parse(monitor, place="train.stop.monitor")
        self.sign = 1.0 if mode == "min" else -1.0
        self.patience, self.min_delta, self.warmup, self.every = patience, min_delta, warmup, every
        self.best: float | None = None
        self.best_epoch: int | None = None
        self.waited = 0
        self.stopped_epoch: int | None = None

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Judge the epoch."""
        logs = logs or {}
        lacking = self.formula.missing(logs)
        if lacking and all(name.startswith("val_") for name in lacking) and (epoch + 1) % self.every:
            return  # no validation in this epoch
        value = self.formula.value(logs)
        logs.setdefault(self.formula.text, value)
        if epoch < self.warmup:
            return
        ranked = self.sign * value
        if math.isfinite(ranked) and (self.best is None or ranked < self.best - self.min_delta):
            self.best, self.best_epoch, self.waited = ranked, epoch, 0
            return
        self.waited += 1
        if self.waited >= max(1, self.patience):  # as Keras counts
            self.stopped_epoch = epoch
            self.model.stop_training = True
