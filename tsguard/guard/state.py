"""One clean state of a model in buffers that are allocated once: weights, optimizer, seed generators, metrics,
flags.

Everything that a training step reads and may change is here, so that the step can be run again from it. Tensors are
copied with one fused call; plain numbers that a user's own classes keep (a step counter in `self.count`) are kept
too, because a fault may hang on them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from tsguard.backend import (
    RngState,
    carried_states,
    is_own,
    outer_optimizers_of,
    plain_attributes,
    restore_rng,
    rng_state,
)
from tsguard.guard.norms import all_finite
from tsguard.guard.packed import Packed, by_dtype

SETTLED = 3
"""Captures after which no new variables are looked for: layers that are made late are made in the first steps."""


def state_variables(model: Any) -> list[Any]:
    """Every Keras variable that a step may read or change, each once."""
    found: dict[int, Any] = {}

    def add(variables: Iterable[Any]) -> None:
        for variable in variables:
            found.setdefault(id(variable), variable)

    add(model.variables)
    add(carried_states(model))
    for optimizer in outer_optimizers_of(model):
        add(optimizer.variables)
    add(metric_variables(model))
    return list(found.values())


def metric_variables(model: Any) -> list[Any]:
    """Variables of the metrics and of the running loss."""
    try:
        return [variable for metric in model.metrics for variable in metric.variables]
    except Exception:  # an own `metrics` property may not work before the first call
        return []


def _own_objects(model: Any) -> list[Any]:
    """Layers, losses and optimizers whose class is not Keras' own."""
    candidates = list(model._flatten_layers(include_self=True, recursive=True))
    for optimizer in outer_optimizers_of(model):
        candidates += [optimizer, getattr(optimizer, "inner_optimizer", None)]
    compile_loss = getattr(model, "_compile_loss", None)
    for loss in getattr(compile_loss, "_flat_losses", None) or ():
        candidates += [loss.loss, getattr(loss.loss, "fn", None)]
    return [thing for thing in candidates if thing is not None and is_own(thing)]


class StateBuffer:
    """A place for one state of one model, refilled again and again."""

    def __init__(self, model: Any, *, device: str | None = None) -> None:
        self.model = model
        self.device = device
        self.variables: list[Any] = []
        self.sources: list[torch.Tensor] = []
        self.buffers: list[torch.Tensor] = []
        self.packs: list[Packed] = []
        """What the optimizer trains lies in packs of its own: how far it moved is asked of a pack at once."""
        self._single: list[tuple[torch.Tensor, torch.Tensor]] = []
        """Buffer and source of those that are not in a pack."""
        self._judged: tuple[list[Packed], list[torch.Tensor]] = ([], [])
        """What has to be finite: everything but running metrics. Packs of its own, so that a state can be judged before
        it takes the place of the last one."""
        self.rng: RngState | None = None
        self.attributes: list[tuple[Any, dict[str, Any]]] = []
        self.trainable: list[bool] = []
        self._own: list[Any] = []
        self._signature: tuple[int, ...] = ()
        self._quick: tuple[int, bool] = (0, False)
        self._captures = 0
        self.nbytes = 0
        """What the buffers hold."""

    def fits(self) -> bool:
        """Whether the model still has the variables for which the buffers were made."""
        return self._signature == self._sign()

    def seems_to_fit(self) -> bool:
        """The cheap question for every step: still the same optimizer, and as built as it was?"""
        return self._quick == self._sign_quickly()

    def _sign_quickly(self) -> tuple[int, bool]:
        optimizer = getattr(self.model, "optimizer", None)
        return id(optimizer), bool(getattr(optimizer, "built", False))

    def _sign(self) -> tuple[int, ...]:
        weights = self.model.weights
        optimizers = outer_optimizers_of(self.model)
        return (
            len(weights),
            id(weights[0]) if weights else 0,
            *(number for optimizer in optimizers for number in (id(optimizer), len(optimizer.variables))),
        )

    def allocate(self) -> None:
        """Make buffers for the variables as they are now."""
        self.variables, self.sources, self.buffers, self.packs, self._single = [], [], [], [], []
        self._take_in(state_variables(self.model))
        self._own = _own_objects(self.model)

    def _take_in(self, variables: list[Any]) -> None:
        sources = [variable.value.detach() for variable in variables]
        packs, single = self._laid_out(variables, sources)
        places = {id(source): part for pack in packs for source, part in zip(pack.sources, pack.parts, strict=True)}
        places |= {id(source): self._empty(source) for source in single}
        self.packs += packs
        self._single += [(places[id(source)], source) for source in single]
        self.variables += variables
        self.sources += sources
        self.buffers += [places[id(source)] for source in sources]
        running = {id(variable) for variable in metric_variables(self.model)}
        lasting = [s for v, s in zip(self.variables, self.sources, strict=True) if id(v) not in running]
        self._judged = by_dtype([source for source in lasting if source.is_floating_point()])
        held = [*self.buffers, *(pack.whole for pack in self._judged[0])]
        self.nbytes = sum(tensor.numel() * tensor.element_size() for tensor in held)
        self._signature, self._quick = self._sign(), self._sign_quickly()

    def _laid_out(self, variables: list[Any], sources: list[torch.Tensor]) -> tuple[list[Packed], list[torch.Tensor]]:
        """The packs for some variables, and what stays alone."""
        if self.device is not None:
            return [], sources
        trained = {id(variable) for variable in self.model.trainable_variables}
        parts: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
        for variable, source in zip(variables, sources, strict=True):
            parts[id(variable) in trained].append(source)
        (packs, single), (more_packs, more_single) = (by_dtype(part) for part in parts)
        return packs + more_packs, single + more_single

    def source_finite(self) -> bool:
        """Whether what stands in the model now (not in the buffers) is finite."""
        packs, single = self._judged
        with torch.no_grad():
            return all_finite([*(pack.fill().whole for pack in packs), *single])

    def _empty(self, source: torch.Tensor) -> torch.Tensor:
        if self.device is None or str(source.device) == self.device:
            return torch.empty_like(source)
        return torch.empty_like(source, device=self.device, pin_memory=self.device == "cpu")

    def capture(self) -> None:
        """Copy the state as it is now."""
        settled = self._captures >= SETTLED and self.seems_to_fit()
        if not self.buffers or not (settled or self.fits()):
            self.allocate()
        self._captures += 1
        with torch.no_grad():
            _fill(self.packs, self._single)
        self.rng = rng_state()
        self.attributes = [(thing, plain_attributes(thing)) for thing in self._own]
        self.trainable = [variable.trainable for variable in self.variables]

    def extend(self) -> None:
        """Take in variables that were made since (the optimizer's, built at the first update), as they are now."""
        known = {id(variable) for variable in self.variables}
        new = [variable for variable in state_variables(self.model) if id(variable) not in known]
        packs, single = len(self.packs), len(self._single)
        self._take_in(new)
        self.trainable += [variable.trainable for variable in new]
        with torch.no_grad():
            _fill(self.packs[packs:], self._single[single:])

    def restore(self, *, metrics: bool = True) -> None:
        """Put the state back, bit for bit. `metrics=False` leaves running metrics alone."""
        skip = set() if metrics else {id(variable) for variable in metric_variables(self.model)}
        with torch.no_grad():
            for variable, buffer in zip(self.variables, self.buffers, strict=True):
                if id(variable) not in skip:
                    variable.value.copy_(buffer)
        for thing, values in self.attributes:
            for name, value in values.items():
                thing.__dict__[name] = value
        if self.rng is not None:
            restore_rng(self.rng)


def _fill(packs: list[Packed], single: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    for pack in packs:
        pack.fill()
    if single:
        targets, sources = zip(*single, strict=True)
        torch._foreach_copy_(list(targets), list(sources), non_blocking=True)
