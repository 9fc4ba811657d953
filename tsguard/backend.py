"""The only place that touches KERAS_BACKEND, global seeds, devices and determinism.

Everything above asks this module, so that "a check leaves the world as it found it" is one promise kept in one place:
`preserved(model)` takes a shallow picture of every Keras object and a bit copy of every variable, and puts both back.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import random
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from tsguard.errors import BackendError, explain

KERAS_SUPPORTED = ((3, 13), (3, 16))
"""The first Keras version that works and the first that is not known to: the ends that the tests ran on."""

_LINE_TO_ADD = (
    'Put `import os; os.environ["KERAS_BACKEND"] = "torch"` above the first `import keras`, '
    "or `export KERAS_BACKEND=torch`."
)


def chosen_backend() -> str | None:
    """The backend that Keras uses or would use, without importing it. None where nothing has been said."""
    if "keras" in sys.modules and hasattr(sys.modules["keras"], "backend"):
        return str(sys.modules["keras"].backend.backend())
    if os.environ.get("KERAS_BACKEND"):
        return os.environ["KERAS_BACKEND"]
    home = Path(os.environ.get("KERAS_HOME", Path("~").expanduser() / ".keras"))
    try:
        return str(json.loads((home / "keras.json").read_text(encoding="utf-8")).get("backend")) or None
    except (OSError, ValueError):
        return None


def require_torch() -> None:
    """Make sure that Keras runs on torch: choose it where nothing was chosen, refuse where something else was."""
    chosen = chosen_backend()
    if "keras" not in sys.modules and not os.environ.get("KERAS_BACKEND") and chosen in (None, "torch", "tensorflow"):
        # keras.json names tensorflow by default, written by Keras itself: that is nobody's choice.
        if chosen != "tensorflow" or importlib.util.find_spec("tensorflow") is None:
            os.environ["KERAS_BACKEND"] = chosen = "torch"
    if chosen != "torch":
        raise BackendError(
            explain(
                "KERAS_BACKEND",
                received=repr(chosen),
                expected="'torch': tsguard watches training on the PyTorch backend only",
                todo=_LINE_TO_ADD,
            )
        )
    installed = metadata.version("keras")
    low, high = KERAS_SUPPORTED
    if not low <= _version(installed) < high:
        raise BackendError(
            explain(
                "keras",
                received=f"version {installed}",
                expected=f">= {_dotted(low)} and < {_dotted(high)}",
                todo=f"pip install 'keras>={_dotted(low)},<{_dotted(high)}'",
            )
        )


def _version(text: str) -> tuple[int, int]:
    major, minor = text.split(".")[:2]
    return int(major), int(minor)


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


def device_name() -> str:
    """The device that Keras computes on: "cpu", "cuda" or "mps"."""
    import torch

    override = os.environ.get("KERAS_TORCH_DEVICE")
    if override:
        return override
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def device_words() -> str:
    """What works on the device at hand and what does not, in one sentence."""
    name = device_name()
    if name.startswith("cuda"):
        import torch

        return f"{torch.cuda.get_device_name()}: everything works; replay is bit-exact only with --deterministic."
    if name == "mps":
        return "Apple GPU (MPS): training and watching work; float64 experiments and bit-exact replay run on the CPU."
    return "CPU: everything works and replays are bit-exact; nothing here measures a GPU."


def seed_everything(seed: int) -> None:
    """One seed for python, numpy, torch (all devices) and Keras."""
    require_torch()
    import keras

    keras.utils.set_random_seed(seed % 2**32)


def make_deterministic(*, enabled: bool = True) -> None:
    """Ask torch for deterministic kernels (an operation that has none raises and names itself)."""
    import torch

    if enabled:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(enabled, warn_only=False)
    torch.backends.cudnn.benchmark = not enabled and torch.backends.cudnn.benchmark


@contextlib.contextmanager
def true_float64() -> Iterator[None]:
    """float64 that stays float64: on torch, Keras' promotion rules otherwise turn float64 and int64 into 32 bits."""
    from keras.src.backend.common import dtypes

    narrowing = dict(dtypes.BIT64_TO_BIT32_DTYPE)
    cached = [fn for fn in vars(dtypes).values() if hasattr(fn, "cache_clear")]
    dtypes.BIT64_TO_BIT32_DTYPE.clear()
    for function in cached:
        function.cache_clear()
    try:
        yield
    finally:
        dtypes.BIT64_TO_BIT32_DTYPE.update(narrowing)
        for function in cached:
            function.cache_clear()


POLICIES = {"float32": "float32", "float16": "mixed_float16", "bfloat16": "mixed_bfloat16"}
"""Keras' dtype policy for a precision in words: variables stay float32 in all of them."""


@contextlib.contextmanager
def precision(name: str | None) -> Iterator[None]:
    """Layers that are made inside compute in this precision; None leaves Keras' own setting. Put back afterwards.

    It holds for the whole of a run, not for the building only: layers may be made as late as in the first call.
    """
    if name is None:
        yield
        return
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(POLICIES[name])
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


@contextlib.contextmanager
def anomaly_mode(*, enabled: bool) -> Iterator[None]:
    """torch's anomaly mode, without its search for NaN: that would raise before the guard can name the operation."""
    if not enabled:
        yield
        return
    import torch

    with torch.autograd.set_detect_anomaly(True, check_nan=False):
        yield


@dataclass(frozen=True, slots=True)
class RngState:
    """Every global generator that a training step can draw from."""

    python: Any
    numpy: Any
    torch: Any
    cuda: tuple[Any, ...]
    keras: Any

    def same_as(self, other: RngState) -> bool:
        """Whether both would draw the same numbers."""
        import numpy as np
        import torch

        def equal(left: Any, right: Any) -> bool:
            if isinstance(left, torch.Tensor):
                return bool(torch.equal(left, right))
            if isinstance(left, np.ndarray):
                return bool(np.array_equal(left, right))
            if isinstance(left, tuple) and isinstance(right, tuple):
                return len(left) == len(right) and all(map(equal, left, right))
            return bool(left == right)

        names = ("python", "numpy", "torch", "cuda", "keras")
        return all(equal(getattr(self, name), getattr(other, name)) for name in names)


def rng_state() -> RngState:
    """Where every global generator stands now."""
    import numpy as np
    import torch

    cuda = tuple(torch.cuda.get_rng_state_all()) if torch.cuda.is_available() else ()
    generator = _keras_generator()
    state = None if generator is None else generator.state.value.detach().clone()
    legacy = np.random.get_state()  # the global generator is what user code draws from
    return RngState(random.getstate(), legacy, torch.get_rng_state(), cuda, state)


def restore_rng(state: RngState) -> None:
    """Put every global generator back to where it stood."""
    import numpy as np
    import torch

    random.setstate(state.python)
    np.random.set_state(state.numpy)
    torch.set_rng_state(state.torch)
    if state.cuda:
        torch.cuda.set_rng_state_all(list(state.cuda))
    generator = _keras_generator()
    if generator is not None:
        if state.keras is None:
            _keras_globals().pop("global_seed_generator", None)
        else:
            with torch.no_grad():
                generator.state.value.copy_(state.keras)


def _keras_globals() -> dict[str, Any]:
    """Keras' own thread-local state: the global seed generator, and the counters behind automatic layer names."""
    from keras.src.backend.common import global_state

    state: dict[str, Any] = global_state.GLOBAL_STATE_TRACKER.__dict__
    return state


def _keras_generator() -> Any:
    if "keras" not in sys.modules:
        return None
    return _keras_globals().get("global_seed_generator")


@contextlib.contextmanager
def attributes(pairs: Iterable[tuple[Any, str, Any]]) -> Iterator[None]:
    """Attributes (methods too) of objects set for a while, past Keras' tracking; what was not there goes again."""
    listed = list(pairs)
    before = [(thing, name, thing.__dict__.get(name, _ABSENT)) for thing, name, _ in listed]
    for thing, name, value in listed:
        thing.__dict__[name] = value
    try:
        yield
    finally:
        for thing, name, value in before:
            if value is _ABSENT:
                thing.__dict__.pop(name, None)
            else:
                thing.__dict__[name] = value


_ABSENT = object()


@contextlib.contextmanager
def preserved(*models: Any) -> Iterator[None]:
    """Whatever happens inside, weights, optimizers, compile state, gradients and every RNG are left as they were found.

    A layer that was not built is not built afterwards; an optimizer that had no slots has none.
    """
    found = AsFound(*models)
    try:
        yield
    finally:
        found.restore()


class AsFound:
    """Models and generators as they were found; to be put back to that as often as is wanted."""

    def __init__(self, *models: Any) -> None:
        import torch

        self._picture = [_Picture(thing) for model in models for thing in _keras_objects(model)]
        copies = {id(variable): variable for model in models for variable in _variables(model)}
        self._values = [_Values(variable) for variable in copies.values()]
        self._torch = TorchStates(*models)
        self._generators = rng_state()
        self._names = {
            key: dict(value) for key, value in _keras_globals().items() if key.startswith("object_name_uids")
        }
        self._grad_enabled = torch.is_grad_enabled()

    def restore(self) -> None:
        """Everything as it was."""
        import torch

        torch.set_grad_enabled(self._grad_enabled)
        for thing in self._picture:
            thing.restore()
        with torch.no_grad():
            for values in self._values:
                values.restore()
        self._torch.restore()
        restore_rng(self._generators)
        current = _keras_globals()
        for key in [key for key in current if key.startswith("object_name_uids")]:
            if key in self._names:
                current[key].clear()
                current[key].update(self._names[key])
            else:
                del current[key]


class _Values:
    """One variable: its flags, its tensor (the same object, with the old bits) and its gradient."""

    def __init__(self, variable: Any) -> None:
        self.variable = variable
        self.attributes = dict(variable.__dict__)
        self.tensor = variable.value
        self.bits = self.tensor.detach().clone()
        self.requires_grad = self.tensor.requires_grad
        self.grad = None if self.tensor.grad is None else self.tensor.grad.detach().clone()

    def restore(self) -> None:
        self.variable.__dict__.update(self.attributes)
        self.tensor.copy_(self.bits)
        self.tensor.requires_grad_(self.requires_grad)
        self.tensor.grad = None if self.grad is None else self.grad.clone()


def optimizers_of(model: Any) -> list[Any]:
    """The compiled optimizer, what it wraps, and those that an own model keeps beside it, alone or in a container."""
    import keras

    found: dict[int, Any] = {}
    for value in [getattr(model, "optimizer", None), *_held_by(model)]:
        if isinstance(value, keras.optimizers.Optimizer):
            found[id(value)] = value
            inner = getattr(value, "inner_optimizer", None)
            if inner is not None:
                found[id(inner)] = inner
    return list(found.values())


def _held_by(model: Any) -> Iterable[Any]:
    """What an own model keeps beside it, alone or in a container."""
    for held in vars(model).values():
        listed = held.values() if isinstance(held, dict) else held if isinstance(held, list | tuple) else [held]
        yield from list(listed)[:MOST_OPTIMIZERS]


PLAIN = (bool, int, float, str, type(None))
"""What is kept of the attributes of a user's own classes: values that cannot be changed in place."""

LEFT_ALONE = ("stop_training", "stop_evaluating")
"""Flags by which callbacks talk to fit: not part of a step."""


class _Kinds(dict[type, bool]):
    """Whether a type is plain, asked once for each: a model has thousands of attributes, of few types."""

    def __missing__(self, kind: type) -> bool:
        self[kind] = issubclass(kind, PLAIN)
        return self[kind]


_IS_PLAIN = _Kinds()


def plain_attributes(thing: Any) -> dict[str, Any]:
    """The attributes of an object that a step of its own may count or scale with."""
    return {
        name: value
        for name, value in getattr(thing, "__dict__", {}).items()
        if _IS_PLAIN[type(value)] and name not in LEFT_ALONE
    }


def is_own(thing: Any) -> bool:
    """Whether the class of an object is neither of Keras nor of torch."""
    return not type(thing).__module__.startswith(("keras.", "builtins", "torch."))


class TorchStates:
    """What optimizers and schedules of torch, which an own step may drive, know: to be put back."""

    def __init__(self, *models: Any) -> None:
        import torch

        kinds = (torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler)
        held = {id(one): one for model in models for one in _held_by(model) if isinstance(one, kinds)}
        self._optimizers = [
            (one, _entries(one), [{k: v for k, v in group.items() if k != "params"} for group in one.param_groups])
            for one in held.values()
            if isinstance(one, kinds[0])
        ]
        self._schedules = [(one, dict(vars(one))) for one in held.values() if isinstance(one, kinds[1])]

    def restore(self) -> None:
        """States, groups and counters as they were; the tensors are the same objects."""
        import torch

        for optimizer, known, groups in self._optimizers:
            optimizer.state.clear()
            for weight, entries in known.items():
                optimizer.state[weight] = {}
                for key, (value, bits) in entries.items():
                    if torch.is_tensor(value):
                        with torch.no_grad():
                            value.copy_(bits)
                    optimizer.state[weight][key] = value
            for group, settings in zip(optimizer.param_groups, groups, strict=False):
                group.update(settings)
        for schedule, settings in self._schedules:
            vars(schedule).update(settings)


def _entries(optimizer: Any) -> dict[Any, dict[str, tuple[Any, Any]]]:
    """What an optimizer of torch knows of each weight: the very value and its bits."""
    return {
        weight: {key: (value, _bits(value)) for key, value in known.items()}
        for weight, known in optimizer.state.items()
    }


def _bits(value: Any) -> Any:
    """A copy of a tensor; other values as they are."""
    return value.detach().clone() if hasattr(value, "detach") else value


def outer_optimizers_of(model: Any) -> list[Any]:
    """The same without those that another wraps: an update is made by each of these once."""
    found = optimizers_of(model)
    wrapped = {id(getattr(optimizer, "inner_optimizer", None)) for optimizer in found}
    return [optimizer for optimizer in found if id(optimizer) not in wrapped]


MOST_OPTIMIZERS = 64
"""Entries of a container that are looked at: nobody keeps more optimizers in one."""


def carried_states(model: Any) -> list[Any]:
    """The states of stateful recurrent layers, which Keras does not count among a model's variables."""
    found: list[Any] = []
    for layer in model._flatten_layers(include_self=False):
        states = getattr(layer, "states", None)
        found += [one for one in (states if isinstance(states, list | tuple) else ()) if hasattr(one, "value")]
    return found


def _variables(model: Any) -> Iterable[Any]:
    yield from model.variables
    yield from carried_states(model)
    for optimizer in optimizers_of(model):
        yield from optimizer.variables
    for metric in _metrics(model):
        yield from metric.variables


def _metrics(model: Any) -> list[Any]:
    try:
        return list(model.metrics)
    except Exception:  # an own `metrics` property may fail before the first call; nothing is there to preserve then
        return []


def _keras_objects(model: Any) -> Iterable[Any]:
    yield from model._flatten_layers(include_self=True, recursive=True)
    yield from optimizers_of(model)
    yield from _metrics(model)
    for name in ("_compile_loss", "_compile_metrics", "_loss_tracker"):
        if getattr(model, name, None) is not None:
            yield getattr(model, name)


class _Picture:
    """The attributes of one object, one level deep: enough to undo a build, a compile or a changed flag."""

    def __init__(self, thing: Any) -> None:
        self.thing = thing
        self.attributes = dict(thing.__dict__)
        self.contents = {
            name: (value, _plain(value))
            for name, value in self.attributes.items()
            if isinstance(value, (dict, list, set))
        }
        # Keras' tracker locks an object once it is built; undoing a build has to unlock it too.
        tracker = self.attributes.get("_tracker")
        self.tracker = None if tracker is None else (dict(tracker.__dict__), _deeper(tracker.stored_ids))

    def restore(self) -> None:
        now = self.thing.__dict__
        now.clear()
        now.update(self.attributes)
        for container, content in self.contents.values():
            _refill(container, content)
        if self.tracker is not None:
            attributes, stored = self.tracker
            self.thing._tracker.__dict__.update(attributes)
            for name, ids in stored.items():
                _refill(self.thing._tracker.stored_ids[name], ids)


def _plain(value: Any) -> Any:
    """A copy without the tracking that Keras wraps around containers."""
    for kind in (dict, list, set):
        if isinstance(value, kind):
            return kind(value)
    raise TypeError(type(value))


def _deeper(stored: dict[str, set[int]]) -> dict[str, set[int]]:
    return {name: set(ids) for name, ids in stored.items()}


def _refill(container: Any, content: Any) -> None:
    """Give a container its old content in place: others hold references to it."""
    kind: Any = next(kind for kind in (dict, list, set) if isinstance(container, kind))
    kind.clear(container)
    (kind.extend if kind is list else kind.update)(container, content)
