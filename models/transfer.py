"""From one model to the next: what was carried over, what is trainable when, and how fast each part learns."""

from __future__ import annotations

from dataclasses import dataclass, field

import keras
from keras import ops

from models.common import register


@dataclass(frozen=True)
class Transfer:
    """What a transfer of weights did, tensor by tensor."""

    loaded: tuple[str, ...] = ()
    """Target tensors that now hold the source's values."""
    not_loaded: dict[str, str] = field(default_factory=dict)
    """Target tensors that stayed as they were, with the reason."""
    unused: dict[str, str] = field(default_factory=dict)
    """Source tensors that went nowhere, with the reason."""

    @property
    def nothing(self):
        """True where not one tensor was loaded: the pre-training had no influence at all (`transfer-nothing`)."""
        return not self.loaded

    def __str__(self):
        lines = [f"loaded {len(self.loaded)}, not loaded {len(self.not_loaded)}, unused {len(self.unused)}"]
        lines += [f"  loaded      {name}" for name in self.loaded]
        lines += [f"  not loaded  {name}: {why}" for name, why in self.not_loaded.items()]
        lines += [f"  unused      {name}: {why}" for name, why in self.unused.items()]
        return "\n".join(lines)

    def __add__(self, other):
        return Transfer(
            self.loaded + other.loaded, {**self.not_loaded, **other.not_loaded}, {**self.unused, **other.unused}
        )


def copy_weights(source, target):
    """Copy every tensor of layer `source` into the one of `target` at the same place below it, where shapes agree."""
    given, wanted = _tensors(source), _tensors(target)
    loaded, not_loaded, unused = [], {}, {}
    for name, variable in wanted.items():
        if name not in given:
            not_loaded[variable.path] = f"the source has no tensor {name!r}"
        elif tuple(given[name].shape) != tuple(variable.shape):
            shapes = f"shape {tuple(given[name].shape)} in the source, {tuple(variable.shape)} here"
            not_loaded[variable.path] = shapes
            unused[given[name].path] = shapes
        else:
            variable.assign(ops.convert_to_numpy(given[name].value))
            loaded.append(variable.path)
    unused.update({given[name].path: f"the target has no tensor {name!r}" for name in given if name not in wanted})
    return Transfer(tuple(loaded), not_loaded, unused)


def _tensors(layer):
    """Trainable and other weights by their path below the layer; generators' seeds are state, not weights."""
    depth = len(layer.path.split("/"))
    return {"/".join(variable.path.split("/")[depth:]): variable for variable in layer.weights}


def recompile(model, optimizer=None):
    """Compile again with the model's own settings, so that the optimizer knows what is trainable now.

    Keras' optimizer fixes its variables when it is first used; a layer unfrozen later raises "Unknown variable". The
    moments and the step count of the variables that stay are carried over, and `fit` may be under way.
    """
    old = model.optimizer
    inner = getattr(old, "inner_optimizer", old)
    new = optimizer or inner.__class__.from_config(inner.get_config())
    settings = model.get_compile_config() or {}
    kept = {key: settings[key] for key in ("loss", "loss_weights", "weighted_metrics", "metrics") if key in settings}
    kept = {key: keras.saving.deserialize_keras_object(value) for key, value in kept.items()}
    model.compile(
        optimizer=new, run_eagerly=model.run_eagerly, jit_compile=model.jit_compile, auto_scale_loss=True, **kept
    )
    fresh = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    model.optimizer.build(model.trainable_variables)
    if inner.built and type(inner) is type(fresh):
        _carry_state(inner, fresh)
    if model.optimizer is not fresh and hasattr(old, "dynamic_scale"):
        model.optimizer.dynamic_scale.assign(old.dynamic_scale.value)
    model.make_train_function(force=True)


def _carry_state(old, new):
    """Copy the optimizer variables that both have, matched by their paths."""
    state = {variable.path.split("/", 1)[-1]: variable for variable in old.variables}
    for variable in new.variables:
        before = state.get(variable.path.split("/", 1)[-1])
        if before is not None and tuple(before.shape) == tuple(variable.shape):
            variable.assign(ops.convert_to_numpy(before.value))


class FreezeSchedule(keras.callbacks.Callback):
    """What is trainable from which epoch on: `FreezeSchedule({0: ["head"], 10: "all"})`.

    The names are those of the model's own layers. At every epoch's beginning the schedule compares what should be
    trainable with what the optimizer knows, and recompiles where they differ: so it holds after a recompilation by
    someone else, and after a resumption in the middle.
    """

    def __init__(self, schedule):
        super().__init__()
        if 0 not in schedule:
            raise ValueError(
                f"FreezeSchedule: received epochs {sorted(schedule)}, expected what holds from epoch 0 on."
            )
        self.schedule = dict(schedule)

    def on_epoch_begin(self, epoch, logs=None):
        stage = max(start for start in self.schedule if start <= epoch)
        apply_freeze(self.model, self.schedule[stage])


def apply_freeze(model, trainable):
    """Make exactly the named sublayers trainable ("all": every one); recompile if the optimizer must learn of it."""
    parts = {layer.name: layer for layer in model.layers if layer.weights}
    names = list(parts) if trainable == "all" else list(trainable)
    unknown = sorted(set(names) - set(parts))
    if unknown:
        raise ValueError(f"freeze: {model.name!r} has no layer {unknown}; its layers with weights are {sorted(parts)}.")
    for name, layer in parts.items():
        layer.trainable = name in names
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        return
    known = getattr(optimizer, "inner_optimizer", optimizer)
    tracked = {id(variable) for variable in getattr(known, "_trainable_variables", ())}
    if known.built and tracked != {id(variable) for variable in model.trainable_variables}:
        recompile(model)


@register
class RatedAdam(keras.optimizers.Adam):
    """Adam with a rate for each part of the model: `RatedAdam(1e-3, rates={"encoder": 0.1})`.

    The factor of the longest key found in a variable's path counts; 1 where none is found.
    """

    def __init__(self, learning_rate=1e-3, rates=None, **kwargs):
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.rates = dict(rates or {})

    def factor(self, path):
        """The factor on the learning rate of the variable at this path."""
        parts = f"/{path}/"
        found = [key for key in self.rates if f"/{key}/" in parts]
        return self.rates[max(found, key=len)] if found else 1.0

    def update_step(self, gradient, variable, learning_rate):
        super().update_step(gradient, variable, learning_rate * self.factor(variable.path))

    def get_config(self):
        return {**super().get_config(), "rates": self.rates}
