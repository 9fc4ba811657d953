"""A Case: a model, one batch and the fingerprint of how they fail together.

The fingerprint (code, phase, operation, kind of layer) is what a reduction must keep: a smaller batch that also
crashes, but elsewhere, is another failure. A Case asks for its fingerprint by running one real training step with the
guard's own instruments, and leaves the model as it was.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import torch

from tsguard.backend import preserved, rng_state, seed_everything
from tsguard.dataset import leaves, map_leaves
from tsguard.evidence import Evidence
from tsguard.guard.investigate import all_finite, weights_finite
from tsguard.guard.origin import find
from tsguard.guard.outcome import GuardOutcome, Origin
from tsguard.guard.recorder import StepRecord
from tsguard.guard.replay import Replay
from tsguard.guard.state import StateBuffer
from tsguard.guard.trace import Trace
from tsguard.repro import often
from tsguard.repro.terms import only

LOGIC = "it fails as well: a fault of logic or data"
RANGE = "it does not fail: a fault of range"


@dataclass(frozen=True)
class Fingerprint:
    """What makes two failures the same failure."""

    code: str
    phase: str
    op: str | None
    layer_kind: str | None

    def words(self) -> str:
        """For a person."""
        place = f" in a {self.layer_kind}" if self.layer_kind else ""
        return f"{self.code}: phase {self.phase}, operation {self.op or 'unknown'}{place}"


@dataclass(frozen=True)
class Batch:
    """One batch in the structure in which the model takes it."""

    x: Any
    y: Any = None
    sample_weight: Any = None

    @classmethod
    def of(cls, data: Any) -> Batch:
        """From what `train_function` was given: a list of one batch, or the batch itself."""
        one = data[0] if isinstance(data, list) and len(data) == 1 else data
        parts = [*one, None, None] if isinstance(one, tuple | list) else [one, None, None]
        x, y, weight = (map_leaves(_array, part) for part in parts[:3])
        return cls(x, y, weight)

    def parts(self) -> tuple[Any, ...]:
        """As Keras takes it."""
        given = (self.x, self.y, self.sample_weight)
        last = max(index for index, part in enumerate(given) if part is not None)
        return given[: last + 1]

    def map(self, function: Any) -> Batch:
        """The same batch with every array changed."""
        return Batch(*(map_leaves(function, part) for part in (self.x, self.y, self.sample_weight)))

    @property
    def samples(self) -> int:
        """How many there are."""
        return int(next(iter(leaves(self.x))).shape[0])

    @property
    def size(self) -> int:
        """Scalars in it."""
        return sum(int(leaf.size) for leaf in leaves([self.x, self.y, self.sample_weight]))


def _array(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().numpy().copy()
    return np.array(value)


@dataclass(frozen=True, repr=False)
class Case:
    """A failure that can be asked for again."""

    model: Any
    batch: Batch
    fingerprint: Fingerprint
    weights: tuple[Any, ...] | None = None
    """The weights that fail; None: those that the seed gives fail as well."""
    slots: tuple[Any, ...] | None = None
    """The optimizer's variables that fail (moments, step count); None: a new optimizer fails as well."""
    seed: int = 0
    name: str = "repro"
    origin: Origin | None = None
    recipe: tuple[str, Mapping[str, Any]] | None = None
    """Import path and arguments of the model, where it came by one and has not been cut since."""
    original_size: int = 0
    nearest_healthy: str = ""
    """The smallest edit that heals it, in words."""
    how_often: tuple[int, int] = (1, 1)
    """In how many of how many runs it fails."""
    synthetic: bool = False
    """Whether made values were asked for in place of measured ones."""
    bare: bool = False
    """Whether loss and targets are not the user's any more: one layer is left, compared with zeros."""
    exhausted: bool = False
    """Whether the budget ended the reduction: then it is the best so far, and could be smaller."""
    terms: tuple[str, ...] | None = None
    """The terms of the model's own `loss_terms` that are kept; None: all of them."""
    fit: Mapping[str, Any] = field(default_factory=dict)
    """Plain arguments of `fit` that a question reads."""
    logic: bool | None = None
    """Whether it survives in float64 (a fault of logic or data) or vanishes there (one of range)."""

    def __repr__(self) -> str:
        shapes = ", ".join(f"{tuple(leaf.shape)}" for leaf in leaves([self.batch.x, self.batch.y]))
        return (
            f"<Case {self.name}: {self.fingerprint.words()}; {self.size:,} of {self.original_size:,} scalars; {shapes}>"
        )

    @property
    def size(self) -> int:
        """Scalars in batch and weights."""
        kept = (*(self.weights or ()), *(self.slots or ()))
        return self.data_size + sum(int(np.size(weight)) for weight in kept)

    @property
    def data_size(self) -> int:
        """Scalars in the batch; the zeros with which a single layer is compared are none of the data."""
        zeros = sum(int(leaf.size) for leaf in leaves(self.batch.y)) if self.bare else 0
        return self.batch.size - zeros

    @property
    def always(self) -> bool:
        """Whether it fails whatever the random numbers are."""
        return self.how_often[0] >= self.how_often[1]

    @property
    def often_in_words(self) -> str:
        """How often it fails, for a person; empty where it always does."""
        return often.words(*self.how_often)

    def fails(self, batch: Batch | None = None) -> bool:
        """Whether one step still fails with the same fingerprint; by chance, whether it does so often enough."""
        return often.enough(lambda seed: self._fails_with(seed, batch), self._seeds, often.needed(*self.how_often))

    def settled(self) -> Case:
        """The same case under the first seed that fails; counted anew where that is a matter of chance."""
        if self.always:
            return self
        failed = [seed for seed in self._seeds if self._fails_with(seed)]
        return self.with_(seed=failed[0], how_often=(len(failed), len(self._seeds))) if failed else self

    @property
    def _seeds(self) -> range:
        return range(self.seed, self.seed + 1) if self.always else range(often.SEEDS_TRIED)

    def _fails_with(self, seed: int, batch: Batch | None = None) -> bool:
        return self.asked(batch or self.batch, seed)[0] == self.fingerprint

    def asked(self, batch: Batch, seed: int | None = None) -> tuple[Fingerprint | None, Origin | None]:
        """What one step with another batch, or under another seed, comes to."""
        return fingerprint_of(
            self.model, batch, self.weights, self.seed if seed is None else seed, slots=self.slots,
            hidden=self.fingerprint.code == "nan-hidden", terms=self.terms,
        )  # fmt: skip

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """What stands beside the failing case, for the finding that it reproduces."""
        told = [("nearest healthy case", self.nearest_healthy), ("how often it fails", self.often_in_words)]
        if self.logic is not None:
            told.append(("in float64", LOGIC if self.logic else RANGE))
        return tuple(Evidence("value", words, name=name) for name, words in told if words)

    def save(self, folder: str | Path, *, confirm: bool = True) -> Path:
        """Write repro.py, test_repro.py and README.md; the path of the script. A fresh process confirms it first."""
        from tsguard.repro import emit

        return emit.save(self, Path(folder), confirmed_first=confirm)

    def with_(self, **changes: Any) -> Case:
        """The same case with parts replaced."""
        return replace(self, **changes)


def fingerprint_of(
    model: Any,
    batch: Batch,
    weights: tuple[Any, ...] | None,
    seed: int,
    *,
    slots: tuple[Any, ...] | None = None,
    hidden: bool = False,
    terms: tuple[str, ...] | None = None,
) -> tuple[Fingerprint | None, Origin | None]:
    """Run one step; None where it is healthy. Shapes that do not fit are healthy too: no step, no failure."""
    try:
        with warnings.catch_warnings(), only(model, terms):
            # A remark of Keras on a model that was cut is no answer, not even where a user turns remarks into errors.
            warnings.simplefilter("ignore")
            return _step(model, batch, weights, seed, slots, hidden)
    except Exception:  # a candidate may break a user's model in any way; a crash is never the failure that is sought
        return None, None


def _step(
    model: Any,
    batch: Batch,
    weights: tuple[Any, ...] | None,
    seed: int,
    slots: tuple[Any, ...] | None,
    hidden: bool,  # noqa: FBT001 - private
) -> tuple[Fingerprint | None, Origin | None]:
    with preserved(model):
        seed_everything(seed)
        data = tuple(map_leaves(_tensor, part) for part in batch.parts())
        model.train_function = None
        model.make_train_function()
        if not model.built or any(not layer.built for layer in model._flatten_layers(include_self=True)):
            model(data[0])
        if model.optimizer is not None and not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        if weights is not None:
            model.set_weights(list(weights))
        if slots is not None:
            for variable, value in zip(model.optimizer.variables, slots, strict=True):
                variable.assign(value)
        seed_everything(seed)
        clean = StateBuffer(model)
        clean.capture()
        record = StepRecord(0, 0, 0, [data], rng_state(), None)
        replay = Replay(model, clean, [record], first_step=0)
        done, heard = replay.run(record, allow=all_finite)
        finite_loss = done.loss is None or np.isfinite(done.loss)
        if not hidden and finite_loss and all_finite(heard.gradients, heard.variables) and weights_finite(model):
            return None, None
        clean.restore()
        trace = Trace(model, record.data)
        _, heard = replay.run(record, allow=all_finite, eager=True, around=trace.listening)
        origin = find(trace, heard, record, model)
        # Asked before a model that was not built is so again: its layers' paths go with it.
        kind = None if origin is None else kind_of(model, origin.layer)
    if origin is None:
        return None, None
    return Fingerprint(origin.code, origin.phase, origin.op, kind), origin


def _tensor(value: Any) -> Any:
    return keras.ops.convert_to_tensor(value)


def kind_of(model: Any, path: str | None) -> str | None:
    """The class of the layer at a path: names change when layers are cut out, kinds do not."""
    if path is None:
        return None
    for layer in model._flatten_layers(include_self=True, recursive=True):
        if path in (layer.path, layer.name):
            return type(layer).__name__
    return None


def has_kind(model: Any, kind: str | None) -> bool:
    """Whether a model still holds a layer of a kind; always where none is known."""
    layers = model._flatten_layers(include_self=True, recursive=True)
    return kind is None or any(type(layer).__name__ == kind for layer in layers)


def from_outcome(outcome: GuardOutcome, *, name: str) -> Case | None:
    """The bad step of a guarded run: the state right before it and its batch. None where nothing was recorded."""
    trip, replay = outcome.trip, outcome.replay
    if trip is None or replay is None or not replay.records:
        return None
    step = outcome.origin.step if outcome.origin is not None else trip.step
    record = next((record for record in replay.records if record.step == step), replay.records[-1])
    with replay.session():
        replay.until(record.step)
        weights = tuple(outcome.model.get_weights())
        slots = tuple(np.array(keras.ops.convert_to_numpy(v)) for v in outcome.model.optimizer.variables)
    return from_batch(outcome.model, Batch.of(record.data), weights=weights, slots=slots, name=name, known_to_fail=True)


def from_batch(
    model: Any,
    batch: Batch,
    *,
    weights: tuple[Any, ...] | None,
    name: str,
    seed: int = 0,
    slots: tuple[Any, ...] | None = None,
    known_to_fail: bool = False,
    hidden: bool = False,
) -> Case | None:
    """A Case from one step that fails, under the first seed under which it does; None where it fails under none.

    Args:
        known_to_fail: It did once: then two seeds that are healthy do not say that it always is.
        hidden: Also look for a value that is not finite and is hidden before it reaches the loss.
    """
    answers: list[tuple[Fingerprint | None, Origin | None]] = []
    for tried in range(seed, seed + often.SEEDS_TRIED):
        answers.append(fingerprint_of(model, batch, weights, tried, slots=slots, hidden=hidden))
        same = {answer[0] for answer in answers}
        if tried > seed and len(same) == 1 and not (known_to_fail and same == {None}):
            break  # two seeds agree: nothing random decides
    number = next((index for index, (found, _) in enumerate(answers) if found is not None), None)
    if number is None:
        return None
    found, origin = answers[number]
    assert found is not None
    failed = (sum(answer[0] == found for answer in answers), len(answers))
    case = Case(
        model=model, batch=batch, fingerprint=found, weights=weights, slots=slots, seed=seed + number, name=name,
        origin=origin, how_often=failed,
    )  # fmt: skip
    return case.with_(original_size=batch.size + weights_in(model, batch))


def weights_in(model: Any, batch: Batch) -> int:
    """Scalars in the weights of a model, also of one that is not built yet."""
    if model.built and all(layer.built for layer in model._flatten_layers(include_self=True)):
        return sum(int(np.prod(weight.shape)) for weight in model.weights)
    with preserved(model):
        model(map_leaves(_tensor, batch.x))
        return sum(int(np.prod(weight.shape)) for weight in model.weights)
