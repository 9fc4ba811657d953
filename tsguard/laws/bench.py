"""The model on the bench: outputs, loss and gradients of one batch, from the same state every time.

Arrays are fed as `fit` feeds them (floats become `floatx`), and before each call the variables that a call may move
(states of recurrent layers, seed generators) and every global generator are put back, so that two calls differ only
through their batches. Nothing here judges. The whole bench stands inside `backend.preserved`, which puts the rest back
at the end.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsguard import backend
from tsguard.laws import tolerance
from tsguard.laws.structure import Leaves, Structure, unpacked
from tsguard.laws.trace import Call, Taps, mask_of, quiet, to_numpy, tracing

WAKE = 0.1
"""The size of weights that are moved away from zero: that of usual initial weights of layers with a hundred inputs."""

Outputs = tuple[NDArray[np.float64], ...]
LossFunction = Callable[..., Any]


@dataclass(frozen=True)
class Gradients:
    """Gradients of a number with respect to float inputs, to what stands behind a tap, and to the weights."""

    inputs: dict[str, NDArray[np.float64]]
    weights: dict[str, NDArray[np.float64]]
    tapped: dict[int, NDArray[np.float64]]
    value: float


def _between_calls(model: Any) -> list[Any]:
    """What one call may hand on to the next: statistics, seeds, and the states that stateful layers carry."""
    return [*model.non_trainable_variables, *backend.carried_states(model)]


class Bench:
    """Calls one model."""

    def __init__(self, model: Any, loss: LossFunction | None = None) -> None:
        self.model = model
        self.own_loss = loss
        self.structure: Structure | None = None
        self._rng = backend.rng_state()
        self._salt = 0
        self._start = [(v, v.value.detach().clone()) for v in _between_calls(model)]
        self.forwards = 0

    @property
    def dtypes(self) -> set[str]:
        """The dtypes in which the layers compute."""
        return {
            str(layer.compute_dtype) for layer in self.model._flatten_layers() if getattr(layer, "compute_dtype", None)
        }

    @property
    def eps(self) -> float:
        """One unit in the last place at 1, of the coarsest dtype in the model."""
        return tolerance.eps_of(self.dtypes)

    def settle(self) -> None:
        """After the first call: variables that were made by it start from where they are now."""
        known = {id(variable) for variable, _ in self._start}
        for variable in _between_calls(self.model):
            if id(variable) not in known:
                self._start.append((variable, variable.value.detach().clone()))

    def wake(self) -> int:
        """Move weights that are zero throughout a little; how many there were.

        A law holds for all weights. Biases and heads that start at zero hide what depends on them until the first
        update.
        """
        import torch

        generator = torch.Generator().manual_seed(0)
        asleep = [v for v in self.model.trainable_variables if v.value.is_floating_point() and not bool(v.value.any())]
        with torch.no_grad():
            for variable in asleep:
                noise = torch.randn(tuple(variable.shape), generator=generator) * WAKE
                variable.value.copy_(noise.to(variable.value.device, variable.value.dtype))
        return len(asleep)

    def rewind(self) -> None:
        """Back to the state in which every call starts."""
        import torch

        with torch.no_grad():
            for variable, bits in self._start:
                variable.value.copy_(bits)
                if self._salt and "seed_generator" in str(variable.path):
                    variable.value.add_(self._salt)
        backend.restore_rng(self._rng)

    @contextlib.contextmanager
    def seeded(self, seed: int) -> Iterator[None]:
        """While open, each call starts from this seed: the global generators, and for another than 0 the layers'
        own."""
        before = self._rng, self._salt
        try:
            backend.seed_everything(1000 + seed)
            self._rng, self._salt = backend.rng_state(), seed
            yield
        finally:
            self._rng, self._salt = before

    def tensors(self, leaves: Mapping[str, NDArray[Any]], *, gradients: bool = False) -> dict[str, Any]:
        """Leaves as `fit` would hand them to the model."""
        import keras
        import torch

        device = backend.device_name()
        fed = {}
        for name, leaf in leaves.items():
            tensor = torch.as_tensor(np.ascontiguousarray(leaf))
            if tensor.dtype.is_floating_point:
                tensor = tensor.to(getattr(torch, keras.config.floatx()))
            tensor = tensor.clone().to(device)
            fed[name] = tensor.requires_grad_() if gradients and tensor.dtype.is_floating_point else tensor
        return fed

    def raw(
        self, leaves: Mapping[str, NDArray[Any]], *, structure: Structure, training: bool = False
    ) -> tuple[Outputs, tuple[str, ...]]:
        """Outputs with their names."""
        import torch

        self.rewind()
        self.forwards += 1
        with torch.no_grad(), quiet():
            result = self.model(structure.pack(self.tensors(leaves)), training=training)
        named = _named(result, self.model)
        return tuple(to_numpy(t) for t in named.values()), tuple(named)

    def outputs(
        self, leaves: Mapping[str, NDArray[Any]], *, taps: Taps | None = None, training: bool = False
    ) -> Outputs:
        """Outputs of one batch."""
        assert self.structure is not None
        if taps is None:
            return self.raw(leaves, structure=self.structure, training=training)[0]
        with tracing(self.model, taps, record=False):
            return self.raw(leaves, structure=self.structure, training=training)[0]

    def calls(
        self, leaves: Mapping[str, NDArray[Any]], *, taps: Taps | None = None, training: bool = False
    ) -> list[Call]:
        """Every layer call of one pass."""
        assert self.structure is not None
        with tracing(self.model, taps) as calls:
            self.raw(leaves, structure=self.structure, training=training)
        return calls

    @property
    def has_loss(self) -> bool:
        """Whether there is a loss to judge."""
        return self.own_loss is not None or bool(getattr(self.model, "compiled", False))

    def _loss_tensor(self, x: Any, y: Any, predicted: Any, weight: Any) -> Any:
        if self.own_loss is not None:
            return self.own_loss(y, predicted)
        return self.model._compute_loss(x=x, y=y, y_pred=predicted, sample_weight=weight, training=False)

    def loss(
        self,
        leaves: Leaves,
        targets: Any,
        weight: NDArray[Any] | None,
        change: Callable[[int, Any], Any] | None = None,
    ) -> float:
        """The compiled loss (or the one given) of one batch, in inference mode: dropout is no dependence.

        `change(number, output)` may put another prediction in the place of an output.
        """
        import torch

        assert self.structure is not None
        self.rewind()
        self.forwards += 1
        with torch.no_grad(), quiet():
            x = self.structure.pack(self.tensors(leaves))
            predicted = self.model(x, training=False)
            predicted = predicted if change is None else _changed(predicted, change)
            value = self._loss_tensor(x, self._fed(targets), predicted, None if weight is None else self._fed(weight))
        return float(value)

    def metrics(self, leaves: Leaves, targets: Any, weight: NDArray[Any] | None) -> dict[str, float]:
        """The compiled metrics of one batch, from zero."""
        import torch

        assert self.structure is not None
        self.rewind()
        with torch.no_grad(), quiet():
            x = self.structure.pack(self.tensors(leaves))
            predicted = self.model(x, training=False)
            self.model.reset_metrics()
            w = None if weight is None else self._fed(weight)
            logs = self.model.compute_metrics(x, self._fed(targets), predicted, w)
            self.model.reset_metrics()
        return {name: float(value) for name, value in logs.items() if np.ndim(value) == 0 and name != "loss"}

    def _fed(self, value: Any) -> Any:
        import keras

        return keras.tree.map_structure(lambda leaf: self.tensors({"": leaf})[""], value)

    def gradients(
        self,
        leaves: Leaves,
        reduce: Callable[[list[Any]], Any] | None = None,
        *,
        targets: Any = None,
        weight: NDArray[Any] | None = None,
        tapped: Mapping[int, NDArray[np.bool_]] | None = None,
    ) -> Gradients:
        """Gradients of `reduce(outputs)`, or of the loss; a tap adds zero to a layer's output so that one can ask
        there too."""
        import torch

        assert self.structure is not None
        self.rewind()
        self.forwards += 1
        held: dict[int, Any] = {}

        def hold(key: int) -> Callable[[Any, Any], Any]:
            def tap(output: Any, mask: Any) -> Any:
                if mask is None or not output.is_floating_point():
                    return output  # padding is known where the mask is
                zero = torch.zeros_like(output, requires_grad=True)
                held[key] = zero
                total = output + zero
                total._keras_mask = mask
                return total

            return tap

        fed = self.tensors(leaves, gradients=True)
        taps = Taps(outputs={key: hold(key) for key in tapped or ()})
        weights = [v for v in self.model.trainable_variables if v.value.requires_grad]
        with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False), tracing(self.model, taps, record=False):
            x = self.structure.pack(fed)
            result = self.model(x, training=False)
            if reduce is None:
                value = self._loss_tensor(x, self._fed(targets), result, None if weight is None else self._fed(weight))
            else:
                value = reduce(list(_named(result, self.model).values()))
            wanted = {n: t for n, t in fed.items() if t.requires_grad}
            sources = [*wanted.values(), *held.values(), *(v.value for v in weights)]
            if not getattr(value, "requires_grad", False):
                grads: list[Any] = [None] * len(sources)
            else:
                grads = list(torch.autograd.grad(value, sources, allow_unused=True))
        arrays = [np.zeros(tuple(s.shape)) if g is None else to_numpy(g) for s, g in zip(sources, grads, strict=True)]
        first, second = len(wanted), len(wanted) + len(held)
        return Gradients(
            dict(zip(wanted, arrays[:first], strict=True)),
            {str(v.path): a for v, a in zip(weights, arrays[second:], strict=True)},
            dict(zip(held, arrays[first:second], strict=True)),
            float(value.detach()),
        )

    @contextlib.contextmanager
    def other_weights(self, change: Callable[[Any, Any], Any], *, seed: int) -> Iterator[None]:
        """While open, every weight is `change(weight, generator)`."""
        import torch

        weights = [v.value for v in self.model.trainable_variables]
        bits = [weight.detach().clone() for weight in weights]
        generator = torch.Generator().manual_seed(seed)
        try:
            with torch.no_grad():
                for weight, old in zip(weights, bits, strict=True):
                    weight.copy_(change(old.double(), generator).to(weight.dtype))
            yield
        finally:
            with torch.no_grad():
                for weight, old in zip(weights, bits, strict=True):
                    weight.copy_(old)

    def rounding(
        self, leaves: Leaves, terms: int, inexact: Mapping[str, NDArray[np.bool_]], answers: Callable[[Leaves], Outputs]
    ) -> list[float]:
        """How far each answer to this batch goes when every weight and input moves by what a change of order may do.
        Only what is `inexact` moves: a mask, a count or a pad value that is off by a bit says something else."""
        import torch

        size = tolerance.jitter(self.eps, terms)
        rng = np.random.default_rng(0)
        plain = answers(leaves)
        worst = [0.0] * len(plain)

        def jittered(old: Any, generator: Any) -> Any:
            sign = torch.randint(0, 2, tuple(old.shape), generator=generator).to(old.device) * 2 - 1
            return old * (1 + size * sign)

        for draw in range(tolerance.NOISE_DRAWS):
            moved = {
                name: np.where(inexact[name], leaf * (1 + size * rng.choice([-1.0, 1.0], leaf.shape)), leaf).astype(
                    leaf.dtype
                )
                if name in inexact
                else leaf
                for name, leaf in leaves.items()
            }
            with self.other_weights(jittered, seed=draw):
                after_all = answers(moved)
            for number, (before, after) in enumerate(zip(plain, after_all, strict=True)):
                movement = tolerance.movement(before, after)
                movement = movement[np.isfinite(movement)]
                worst[number] = max(worst[number], float(movement.max(initial=0.0)))
        return worst

    def outputs_of_other_weights(self, leaves: Leaves, *, seed: int) -> Outputs:
        """What the model gives with weights that are moved by half of themselves and by `WAKE`."""
        import torch

        def moved(old: Any, generator: Any) -> Any:
            one, two = (torch.randn(tuple(old.shape), generator=generator).to(old.device) for _ in range(2))
            return old * (1 + 0.5 * one) + WAKE * two

        with self.other_weights(moved, seed=seed):
            return self.outputs(leaves)


def _changed(predicted: Any, change: Callable[[int, Any], Any]) -> Any:
    """The structure of predictions with each tensor changed and its implicit mask kept."""
    import keras

    numbers = iter(range(10**6))

    def one(tensor: Any) -> Any:
        other = change(next(numbers), tensor)
        other._keras_mask = mask_of(tensor)
        return other

    return keras.tree.map_structure(one, predicted)


def _named(result: Any, model: Any) -> dict[str, Any]:
    """The outputs as named tensors: by key, by the model's own output names, or by number."""
    import keras

    if isinstance(result, dict):
        return {str(key): value for key, value in result.items() if value is not None}
    flat = [leaf for leaf in keras.tree.flatten(result) if leaf is not None]
    names = list(getattr(model, "output_names", None) or ())
    if len(set(names)) != len(flat):
        names = ["output"] if len(flat) == 1 else [f"output_{i}" for i in range(len(flat))]
    return dict(zip(names, flat, strict=True))


def packed(structure: Structure | None, leaves: Leaves) -> Any:
    """Targets in their structure, or None."""
    return None if structure is None else structure.pack(leaves)


__all__ = ["Bench", "Gradients", "Outputs", "packed", "unpacked"]
