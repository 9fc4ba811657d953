"""The step seam: the only place where tsguard reaches into a training run.

Outer: `model.train_function`, which sees the batch before the step. Inner: the instance's `optimizer.apply`, which
sees gradients before the update. Between them the step's own loss: `_compute_loss` for the stock `train_step`, the
root of backward for an own one. Both wrappers live in the instances' `__dict__`, call the original with the very
same arguments, and take themselves out: a seam that nobody announced a step to (the callbacks list died with an
exception, so `on_train_end` never came) passes the call through and disarms.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from typing import Any, Protocol

import torch

from tsguard.backend import outer_optimizers_of
from tsguard.errors import TsguardError


class GuardStop(TsguardError):
    """Training was stopped on purpose (policy "raise"): the one exception of an observer that may leave the seam."""


class StepObserver(Protocol):
    """Who listens at the seam. An exception in any of these (but GuardStop) disarms the seam and never reaches fit."""

    def before_step(self, data: Any) -> contextlib.AbstractContextManager[Any] | None:
        """The batch as `train_function` gets it (a list of one), before anything is computed.

        A context manager that comes back is entered around the step.
        """

    def on_loss(self, loss: torch.Tensor) -> None:
        """The step's own total loss, detached and unscaled."""

    def on_term(self, name: str, value: torch.Tensor) -> None:
        """One named part of the loss, detached."""

    def before_update(self, gradients: list[Any], variables: list[Any]) -> bool:
        """Gradients just before `optimizer.apply`. False leaves the update out."""

    def after_update(self, gradients: list[Any], variables: list[Any]) -> None:
        """Just after `optimizer.apply`."""

    def after_step(self, logs: Any) -> Any:
        """What the step returned; the answer is what fit gets."""

    def crashed(self, error: Exception) -> None:
        """Our own mistake: the seam is out of the way already."""


class _Wrapper:
    """A callable in place of another. Copies and pickles of the model get the original, never the wrapper."""

    def __init__(self, seam: StepSeam, inner: Callable[..., Any]) -> None:
        self.seam = seam
        self.inner = inner

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(self.inner, memo)

    def __reduce__(self) -> Any:
        return (_same, (self.inner,))


def _same(value: Any) -> Any:
    return value


class _StepFunction(_Wrapper):
    def __call__(self, data: Any) -> Any:
        return self.seam._step(self.inner, data)


class _Apply(_Wrapper):
    def __call__(self, grads: Any, trainable_variables: Any = None, **kwargs: Any) -> Any:
        return self.seam._apply(self.inner, grads, trainable_variables, kwargs)


class _ComputeLoss(_Wrapper):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.seam._loss(self.inner, args, kwargs)


class _ExtraLoss(_Wrapper):
    def __call__(self, loss: Any) -> Any:
        return self.seam._extra_loss(self.inner, loss)


class _OutputLoss(_Wrapper):
    """One output's compiled loss. It stands in a list of Keras', so that it has to look like what it replaces."""

    def __init__(self, seam: StepSeam, inner: Callable[..., Any], name: str, weight: float | None) -> None:
        super().__init__(seam, inner)
        self.term, self.weight = name, 1.0 if weight is None else weight

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        value = self.inner(*args, **kwargs)
        if self.seam._listening() and isinstance(value, torch.Tensor):
            self.seam._tell(self.seam.observer.on_term, self.term, value.detach() * self.weight)
        return value

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["inner"], name)


class _LossTerms(_Wrapper):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.seam._named_terms(self.inner, args, kwargs)


def _nothing(*_: Any) -> None:
    return None


def original(function: Any) -> Any:
    """What lies below our wrappers, however many there are."""
    while isinstance(function, _Wrapper):
        function = function.inner
    return function


class StepSeam:
    """The interception of one model's training steps, armed for as long as one `fit` (or `watching`) lasts."""

    def __init__(self, model: Any, observer: StepObserver) -> None:
        self.model = model
        self.observer = observer
        self.armed = False
        self.in_step = False
        self._announced = False
        self._free_running = False
        self._outer: _StepFunction | None = None
        self._placed: list[tuple[Any, str, _Wrapper]] = []
        self._optimizer: Any = None
        self._compile_loss: Any = None
        self._extra_losses = 0
        self._pass_through = False
        self.updating: Any = None
        """The optimizer whose `apply` is being called."""
        self._backward: Any = None
        self._loose: Any = None

    # -- arming ---------------------------------------------------------------------------------------------------

    @property
    def compiled(self) -> bool:
        """Whether torch.compile runs the step: then nothing inside it can be listened to without changing it."""
        return bool(getattr(self.model, "jit_compile", False))

    @property
    def own_step(self) -> bool:
        """Whether the model brings its own `train_step`."""
        from keras.src.backend.torch.trainer import TorchTrainer

        return type(self.model).train_step is not TorchTrainer.train_step or "train_step" in self.model.__dict__

    def arm(self, *, free_running: bool = False) -> None:
        """Take the step function. `free_running`: nobody will announce steps (train_on_batch, loops of one's own)."""
        self.disarm()
        self._free_running = free_running
        self.armed = True
        self._wrap_step()
        self._wrap_inner()
        self._wrap_outputs()
        if free_running:
            self._backward = torch.autograd.backward
            torch.autograd.backward = self._loose = self._listening_backward(self._backward)

    def disarm(self) -> None:
        """Put everything back that is still ours. What another has put on top of it stays, and passes through us."""
        self.armed = False
        self._announced = False
        if self._outer is not None and self.model.__dict__.get("train_function") is self._outer:
            self.model.__dict__["train_function"] = self._outer.inner
        self._outer = None
        for owner, name, wrapper in self._placed:
            if owner.__dict__.get(name) is wrapper:
                del owner.__dict__[name]
        self._placed = []
        self._unwrap_outputs()
        self._optimizer = None
        if self._loose is not None and torch.autograd.backward is self._loose:
            torch.autograd.backward = self._backward
        self._loose = None

    def announce(self) -> None:
        """A step of this fit is about to come. Mends what a recompilation inside fit took away."""
        if not self.armed:
            return
        if getattr(self.model.__dict__.get("train_function"), "no_step", False):
            return  # a batch that is passed over, not a step
        self._announced = True
        if self.model.__dict__.get("train_function") is not self._outer:
            self._wrap_step()
        if self._optimizer is not self.model.optimizer or self._compile_loss is not self.model._compile_loss:
            self._wrap_inner()
        self._wrap_outputs()

    def retake(self) -> None:
        """Take everything back after a replay, which needed the same places."""
        if not self.armed:
            return
        if self.model.__dict__.get("train_function") is not self._outer:
            self._wrap_step()
        self._unwrap_outputs()
        self._wrap_inner()
        self._wrap_outputs()

    def _wrap_outputs(self) -> None:
        """Name the compiled losses of several outputs. Keras makes their list in the first step."""
        losses = getattr(self._compile_loss, "_flat_losses", None)
        if self.compiled or not losses or len(losses) < 2 or isinstance(losses[0].loss, _Wrapper):
            return
        for index, entry in enumerate(losses):
            wrapper = _OutputLoss(self, entry.loss, entry.name, entry.loss_weights)
            losses[index] = entry._replace(loss=wrapper)

    def _unwrap_outputs(self) -> None:
        losses = getattr(self._compile_loss, "_flat_losses", None) or []
        for index, entry in enumerate(losses):
            if isinstance(entry.loss, _OutputLoss):
                losses[index] = entry._replace(loss=original(entry.loss))

    def _wrap_step(self) -> None:
        self.model.__dict__["train_function"] = original(self.model.__dict__.get("train_function"))
        self.model.make_train_function()
        self._outer = _StepFunction(self, original(self.model.train_function))
        self.model.__dict__["train_function"] = self._outer

    def _wrap_inner(self) -> None:
        for owner, name, wrapper in self._placed:
            if owner.__dict__.get(name) is wrapper:
                del owner.__dict__[name]
        self._placed = []
        self._optimizer, self._compile_loss = self.model.optimizer, self.model._compile_loss
        if self.compiled:
            return
        for optimizer in outer_optimizers_of(self.model):
            self._place(optimizer, "apply", _Apply)
        self._place(self.model, "_compute_loss", _ComputeLoss)
        self._place(self.model, "_aggregate_additional_loss", _ExtraLoss)
        if callable(getattr(self.model, "loss_terms", None)):
            self._place(self.model, "loss_terms", _LossTerms)

    def _place(self, owner: Any, name: str, kind: type[_Wrapper]) -> None:
        if isinstance(owner.__dict__.get(name), _Wrapper):  # left behind by a fit that died: never nest
            del owner.__dict__[name]
        if name in owner.__dict__:  # the user's own patch: leave it where it is
            return
        wrapper = kind(self, getattr(owner, name))
        owner.__dict__[name] = wrapper
        self._placed.append((owner, name, wrapper))

    # -- the calls ------------------------------------------------------------------------------------------------

    @property
    def step_function(self) -> Callable[[Any], Any]:
        """The plain step, without anyone listening: what a replay runs."""
        inner = self._outer.inner if self._outer is not None else None
        if inner is None:
            self.model.make_train_function()
            inner = original(self.model.train_function)

        def plain(data: Any) -> Any:
            before, self._pass_through = self._pass_through, True
            try:
                return inner(data)
            finally:
                self._pass_through = before

        return plain

    def _step(self, inner: Callable[[Any], Any], data: Any) -> Any:
        if self._pass_through or self.in_step:
            return inner(data)
        if not self.armed or not (self._announced or self._free_running):
            self.disarm()
            return inner(data)
        self._announced = False
        self._extra_losses = 0
        around = self._tell(self.observer.before_step, data)
        self.in_step = True
        try:
            with around if around is not None and not self.compiled else contextlib.nullcontext():
                logs = self._run_own(inner, data) if self.own_step and not self.compiled else inner(data)
        except BaseException:
            self.disarm()
            raise
        finally:
            self.in_step = False
        return self._tell(self.observer.after_step, logs, otherwise=logs)

    def _run_own(self, inner: Callable[[Any], Any], data: Any) -> Any:
        """An own train_step: its loss is whatever backward starts from."""
        backward = torch.autograd.backward
        torch.autograd.backward = self._listening_backward(backward)
        try:
            return inner(data)
        finally:
            torch.autograd.backward = backward

    def _listening_backward(self, backward: Callable[..., Any]) -> Callable[..., Any]:
        for_loose = not self.in_step

        def listening(tensors: Any, *args: Any, **kwargs: Any) -> Any:
            if self._pass_through or for_loose == self.in_step:
                return backward(tensors, *args, **kwargs)
            roots = [tensors] if isinstance(tensors, torch.Tensor) else list(tensors)
            scale = self._scale()
            for root in roots:
                if isinstance(root, torch.Tensor) and root.numel() == 1:
                    if for_loose:
                        self._tell(getattr(self.observer, "on_root", _nothing), root)
                    value = root.detach().reshape(())
                    self._tell(self.observer.on_loss, value if scale is None else value / scale)
            return backward(tensors, *args, **kwargs)

        return listening

    def _scale(self) -> Any:
        optimizer = self._optimizer
        if optimizer is None or not hasattr(optimizer, "dynamic_scale"):
            return None
        scale = optimizer.dynamic_scale
        return scale.value.detach() if optimizer.built and scale is not None else optimizer.initial_scale

    def _listening(self) -> bool:
        return self.in_step and self.armed and not self._pass_through

    def _loss(self, inner: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not self._listening():
            return inner(*args, **kwargs)
        self._extra_losses = 0
        loss = inner(*args, **kwargs)
        if not self.own_step and isinstance(loss, torch.Tensor):
            self._tell(self.observer.on_loss, loss.detach())
        return loss

    def _extra_loss(self, inner: Callable[[Any], Any], loss: Any) -> Any:
        value = inner(loss)
        if self._listening() and isinstance(value, torch.Tensor):
            self._tell(self.observer.on_term, f"add_loss/{self._extra_losses}", value.detach())
            self._extra_losses += 1
        return value

    def _named_terms(self, inner: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        terms = inner(*args, **kwargs)
        if self._listening() and isinstance(terms, dict):
            for name, value in terms.items():
                if isinstance(value, torch.Tensor):
                    self._tell(self.observer.on_term, str(name), value.detach())
        return terms

    def _apply(self, inner: Callable[..., Any], grads: Any, variables: Any, kwargs: dict[str, Any]) -> Any:
        if not self.armed or self._pass_through or not (self.in_step or self._free_running):
            return inner(grads, variables, **kwargs)
        grads = list(grads)
        optimizer = getattr(inner, "__self__", self._optimizer)
        known = list(variables if variables is not None else optimizer._trainable_variables)
        self.updating = optimizer
        if not self._tell(self.observer.before_update, grads, known, otherwise=True):
            return None
        result = inner(grads, variables, **kwargs)
        self._tell(self.observer.after_update, grads, known)
        return result

    def _tell(self, method: Callable[..., Any], *args: Any, otherwise: Any = None) -> Any:
        if not self.armed:
            return otherwise
        try:
            return method(*args)
        except GuardStop:
            self.disarm()
            raise
        except Exception as error:  # a watcher's own mistake must never cost the run
            self.disarm()
            self.observer.crashed(error)
            return otherwise
