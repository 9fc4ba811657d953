"""Rates and freezing by layer: factors on the optimizer's one rate, and layers that wait before they are trained.

Keras has one rate and decides by `trainable`. A factor is put where an optimizer hands its rate to the update, so that
schedules, plateaus and weight decay go through it. A frozen layer keeps its slots in the optimizer, because a variable
that an optimizer was not built with cannot be trained later. Both are put in place again whenever the model was
compiled anew, also in the middle of `fit`.
"""

from __future__ import annotations

import contextlib
import fnmatch
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import keras

from tsguard.errors import ConfigError, explain

ALWAYS = True
"""In place of a number of epochs: never trained."""


def matched(model: Any, pattern: str) -> list[Any]:
    """The layers whose name or path a pattern such as `encoder` or `block_*` matches."""
    layers = model._flatten_layers(include_self=False, recursive=True)
    return [
        layer
        for layer in layers
        if fnmatch.fnmatchcase(layer.name, pattern) or fnmatch.fnmatchcase(str(layer.path or ""), pattern)
    ]


def require_matches(model: Any, patterns: Iterable[str], place: str) -> None:
    """A ConfigError for patterns that no layer matches; the model is built."""
    lost = [pattern for pattern in patterns if not matched(model, pattern)]
    if lost:
        names = dict.fromkeys(layer.name for layer in model._flatten_layers(include_self=False, recursive=True))
        raise ConfigError(
            explain(
                place,
                received=", ".join(map(repr, lost)),
                expected=f"names or paths of layers, * for any part: {', '.join(names)}",
                todo="Check the spelling, and name the layer in the model's code.",
            )
        )


def freeze_for_good(model: Any, freeze: Mapping[str, bool | int]) -> None:
    """Layers that are never trained, before any optimizer is built: it need not keep slots for them."""
    decided = list(_decided(model, freeze))
    kept = [(layer, layer.trainable) for layer, epochs in decided if epochs is not ALWAYS]
    for layer, epochs in decided:
        if epochs is ALWAYS:
            layer.trainable = False
    for layer, flag in kept:  # named apart from the layer around it
        layer.trainable = flag


def _decided(model: Any, values: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    """(layer, value): of several patterns that match a layer the last one holds."""
    found: dict[int, tuple[Any, Any]] = {}
    for pattern, value in values.items():
        for layer in matched(model, pattern):
            found[id(layer)] = (layer, value)
            for inner in layer._flatten_layers(include_self=False, recursive=True):
                found[id(inner)] = (inner, value)
    return iter(found.values())


def factors(model: Any, rates: Mapping[str, float]) -> dict[int, float]:
    """Factor by the id of a variable."""
    return {
        id(variable): factor
        for layer, factor in _decided(model, rates)
        for variable in [*layer._trainable_variables, *layer._non_trainable_variables]
    }


def with_factors(optimizer: Any, by_variable: Mapping[int, float]) -> None:
    """Give an optimizer a factor on its rate for some variables, once."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    held = vars(inner).get("_tsguard_factors")
    if held is not None:
        held.by_variable = dict(by_variable)
        return
    held = inner._tsguard_factors = SimpleNamespace(by_variable=dict(by_variable))

    def of(variable: Any) -> float:
        return float(held.by_variable.get(id(variable), 1.0))

    step = "_parallel_update_step" if hasattr(inner, "_parallel_update_step") else "update_step"
    if step == "update_step":
        single = inner.update_step
        inner.update_step = lambda gradient, variable, rate: single(gradient, variable, rate * of(variable))
    else:
        _in_groups(inner, of)
    decay: Callable[[list[Any]], None] = inner._apply_weight_decay

    def decayed(variables: Iterable[Any]) -> None:
        for factor, group in _grouped(variables, of):
            with _rate_times(inner, factor):
                decay(group)

    inner._apply_weight_decay = decayed


def _in_groups(inner: Any, of: Callable[[Any], float]) -> None:
    """An update of all variables at once becomes one for each factor; what is common to all of them moves once."""
    together = inner._parallel_update_step
    common = [variable for variable in (getattr(inner, "_u_product", None),) if variable is not None]  # Nadam's

    def update(grads: list[Any], variables: list[Any], rate: Any) -> None:
        by_variable = {id(variable): gradient for variable, gradient in zip(variables, grads, strict=True)}
        before = [variable.value.clone() for variable in common]
        for factor, group in _grouped(variables, of):
            for variable, value in zip(common, before, strict=True):
                variable.assign(value)
            together([by_variable[id(variable)] for variable in group], group, rate * factor)

    inner._parallel_update_step = update


def _grouped(variables: Iterable[Any], of: Callable[[Any], float]) -> list[tuple[float, list[Any]]]:
    groups: dict[float, list[Any]] = {}
    for variable in variables:
        groups.setdefault(of(variable), []).append(variable)
    return list(groups.items())


@contextlib.contextmanager
def _rate_times(inner: Any, factor: float) -> Iterator[None]:
    """Weight decay asks the optimizer for its rate."""
    plain = inner._get_current_learning_rate
    inner._get_current_learning_rate = lambda: plain() * factor
    try:
        yield
    finally:
        del inner._get_current_learning_rate


class ByLayer(keras.callbacks.Callback):
    """Applies `train.rates` and `train.freeze` while `fit` runs, and records the rate of each in the epoch's logs.

    `release` gives every layer back as trainable as it was; call it when the run is over, however it ended.
    """

    def __init__(self, rates: Mapping[str, float], freeze: Mapping[str, bool | int]) -> None:
        super().__init__()
        self.rates, self.freeze = dict(rates), dict(freeze)
        self._prepared: Any = None
        self._epoch = 0
        self._flags: list[tuple[Any, bool]] = []

    def on_train_begin(self, logs: Any = None) -> None:
        """Names that match nothing are said before the first step."""
        require_matches(self.model, self.rates, "train.rates")
        require_matches(self.model, self.freeze, "train.freeze")
        freeze_for_good(self.model, self.freeze)
        self._prepare()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Whatever is to be frozen in this epoch."""
        self._epoch = epoch
        self.release()
        self._freeze()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """A model that was compiled since has an optimizer that knows nothing of this."""
        if self.model.optimizer is not self._prepared:
            self.release()
            self._prepare()
            self._freeze()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """The rate by pattern. Layers are given back: an average is laid over all weights that the optimizer knows."""
        self.release()
        if logs is not None and self.model.optimizer is not None:
            rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
            for pattern in {**self.rates, **self.freeze}:
                waits = self._still(self.freeze.get(pattern, False))
                logs[f"learning_rate/{pattern}"] = 0.0 if waits else rate * self.rates.get(pattern, 1.0)

    def on_train_end(self, logs: Any = None) -> None:
        """What was never trained is judged as such by those who look at the end."""
        self._freeze()

    def release(self) -> None:
        """Every layer as trainable as before this epoch."""
        for owner, flag in self._flags:
            owner.trainable = flag
        self._flags = []

    def _still(self, frozen: Any) -> bool:
        """Whether what is frozen for so many epochs, always or never is so now."""
        return frozen if isinstance(frozen, bool) else self._epoch < frozen

    def _prepare(self) -> None:
        optimizer = self._prepared = self.model.optimizer
        if optimizer is None:
            return
        if self.freeze and not optimizer.built:
            optimizer.build(self.model.trainable_variables)
        if self.rates:
            with_factors(optimizer, factors(self.model, self.rates))

    def _freeze(self) -> None:
        waiting = [layer for layer, epochs in _decided(self.model, self.freeze) if self._still(epochs)]
        free = [layer for layer, epochs in _decided(self.model, self.freeze) if not self._still(epochs)]
        if not waiting:
            return
        everything = [layer for one in waiting for layer in one._flatten_layers(include_self=True, recursive=True)]
        variables = [variable for layer in everything for variable in layer._trainable_variables]
        # Layers first and outermost first: setting one sets all below it, variables too.
        self._flags = [*[(layer, layer.trainable) for layer in everything], *[(v, v.trainable) for v in variables]]
        kept = [(layer, layer.trainable) for layer in free]
        for layer in waiting:
            layer.trainable = False
        for layer, flag in kept:  # named apart from the layer around it
            layer.trainable = flag


__all__ = ["ByLayer", "factors", "freeze_for_good", "matched", "require_matches", "with_factors"]
