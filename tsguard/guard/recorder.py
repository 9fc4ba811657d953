"""The flight recorder: the last clean state, and every batch since.

Once in a while (adapting to about a quarter of a second) the state is copied into buffers that exist already, and the
batches recorded so far are let go. What is recorded stays within a stated memory budget: where batches do not fit the
window is shortened, where the state does not fit the device it goes to pinned host memory, where it fits nowhere
nothing is recorded and the report says so.
"""

from __future__ import annotations

import ctypes
import random
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from tsguard.backend import RngState, _keras_generator
from tsguard.guard.state import StateBuffer

MEMORY_SHARE = 0.10
"""Share of the free memory that the recorder may hold: room enough for a window, little enough to go unnoticed."""

WINDOW_SECONDS = 0.25
"""How long a window lasts by default: short enough that nothing much is lost, long enough that a copy of the state
does not show."""

WINDOW_STEPS_MIN = 24
"""A window is never shorter, unless asked for: copying the state for every slow step would show."""

WINDOW_STEPS_MAX = 64
"""A window is never longer: a replay has to stay short."""


@dataclass
class StepRecord:
    """One step as it came: everything needed, beside the clean state, to run it again."""

    step: int
    epoch: int
    batch: int
    data: Any
    rng: RngState
    learning_rate: torch.Tensor | None
    nbytes: int = 0
    loss: float | None = None
    grad_norm: float | None = None
    applied: bool = True
    at: float = 0.0
    """The time of day at which it began."""
    facts: dict[str, Any] = field(default_factory=dict)


class _Words:
    """The raw words of a Mersenne Twister in memory: comparing them costs a thousandth of asking for its state."""

    def __init__(self, address: int, size: int, ask: Callable[[], Any]) -> None:
        self.address, self.size, self.ask = address, size, ask
        self._seen, self._state = b"", None

    def now(self) -> Any:
        """The state, asked for only where the words are not those of the last time."""
        words = ctypes.string_at(self.address, self.size)
        if words != self._seen:
            self._seen, self._state = words, self.ask()
        return self._state


class RngWatch:
    """The state of every global generator, each step, without paying for those that were not drawn from."""

    def __init__(self) -> None:
        self._python = _python_words()
        self._numpy: _Words | None = None
        self._numpy_generator: Any = None
        self._seed = Unchanged()

    def now(self) -> RngState:
        """Where all generators stand."""
        generator = np.random.mtrand._rand._bit_generator
        if generator is not self._numpy_generator:
            self._numpy_generator = generator
            mersenne = isinstance(generator, np.random.MT19937)
            self._numpy = _Words(generator.ctypes.state_address, 625 * 4, np.random.get_state) if mersenne else None
        legacy = self._numpy.now() if self._numpy is not None else np.random.get_state()
        python = self._python.now() if self._python is not None else random.getstate()
        cuda = tuple(torch.cuda.get_rng_state_all()) if torch.cuda.is_initialized() else ()
        return RngState(python, legacy, torch.get_rng_state(), cuda, self._keras_seed())

    def _keras_seed(self) -> Any:
        generator = _keras_generator()
        return None if generator is None else self._seed.copy(generator.state.value)


class Unchanged:
    """A private copy of one small tensor, made anew only where it was written to since."""

    def __init__(self) -> None:
        self._of: tuple[int, int] | None = None
        self._kept: Any = None
        self._copy: Any = None

    def copy(self, value: torch.Tensor) -> torch.Tensor:
        """The tensor as it is now. What is handed out is never written to."""
        if value.is_inference():  # carries no count of writes
            return value.detach().clone()
        now = (id(value), value._version)
        if self._of != now:
            self._of, self._kept, self._copy = now, value, value.detach().clone()
        return self._copy


def _python_words() -> _Words | None:
    """Where `random` keeps its 624 words and its position. None where that is not certain (another interpreter)."""
    import _random

    inner = getattr(random, "_inst", None)
    head, words = object.__basicsize__, 625 * 4
    if sys.implementation.name != "cpython" or type(inner) is not random.Random:
        return None
    if not head + words <= _random.Random.__basicsize__ <= head + words + 8:
        return None
    found = _Words(id(inner) + head, words, random.getstate)
    position, *state = struct.unpack("=625I", ctypes.string_at(found.address, words))
    return found if (*state, position) == random.getstate()[1] else None


class Recorder:
    """The clean state and the steps since."""

    def __init__(self, model: Any, *, memory_share: float = MEMORY_SHARE, copies: bool = True) -> None:
        self.model = model
        self.copies = copies
        self.memory_share = memory_share
        self.room: StateBuffer | None = None
        """The buffers of the clean state; they hold none before the first capture."""
        self.clean_step = -1
        self.records: list[StepRecord] = []
        self.held = 0
        self.budget = 0
        self.note = ""
        self.spare: Any = None
        """One batch of an earlier window: whether a fault hangs on the data is told by trying another batch."""
        self._rng = RngWatch()
        self._rate = Unchanged()
        self._off = False

    @property
    def clean(self) -> StateBuffer | None:
        """The last clean state."""
        return self.room if self.clean_step >= 0 else None

    @property
    def ready(self) -> bool:
        """Whether there is a clean state to go back to."""
        return self.clean is not None and not self._off

    def capture(self, step: int) -> None:
        """The state now is the clean one, the next step is `step`. Earlier batches are let go."""
        if self.room is None or not self.room.seems_to_fit():
            self.make_room()
        if self.room is None:
            return
        self.room.capture()
        self.clean_step = step
        self.spare = self.records[-1].data if self.records else self.spare
        self.records = []
        self.held = self.room.nbytes + sum(_leaf_bytes(leaf) for leaf in leaves(self.spare))

    def make_room(self) -> None:
        """Lay out the buffers of the clean state, within the budget."""
        self.room = None
        if self._off:
            return
        needed = sum(_tensor_bytes(v.value) for v in self.model.variables)
        optimizer = getattr(self.model, "optimizer", None)
        needed += sum(_tensor_bytes(v.value) for v in (optimizer.variables if optimizer is not None else ()))
        on_device, host = free_memory()
        self.budget = int(self.memory_share * (on_device if on_device is not None else host))
        if on_device is not None and needed > self.budget:
            self.budget = int(self.memory_share * host)
            self.note = f"The clean state ({needed / 1e6:.0f} MB) is kept in pinned host memory."
            if needed <= self.budget:
                self.room = StateBuffer(self.model, device="cpu")
                self.room.allocate()
                return
        if needed > self.budget:
            self._off = True
            self.note = (
                f"Nothing is recorded: the state takes {needed / 1e6:.0f} MB, the budget is {self.budget / 1e6:.0f} MB "
                f"({self.memory_share:.0%} of the free memory)."
            )
            return
        self.room = StateBuffer(self.model)
        self.room.allocate()

    @property
    def full(self) -> bool:
        """Whether another batch would leave the budget: time for a new clean state."""
        last = self.records[-1].nbytes if self.records else 0
        return bool(self.records) and self.held + last > self.budget

    def record(self, data: Any, *, step: int, epoch: int, batch: int) -> StepRecord:
        """Take a step's inputs, before it runs."""
        kept = _map(data, _private) if self.copies else data
        nbytes = sum(_leaf_bytes(leaf) for leaf in leaves(data))
        record = StepRecord(step, epoch, batch, kept, self._rng.now(), self._learning_rate(), nbytes, at=time.time())
        if not self._off:
            self.records.append(record)
            self.held += nbytes
        else:
            self.records = [record]
        return record

    def _learning_rate(self) -> torch.Tensor | None:
        """User callbacks change the rate between steps; a schedule of Keras' follows from `iterations` by itself."""
        optimizer = getattr(self.model, "optimizer", None)
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)
        rate = getattr(optimizer, "_learning_rate", None)
        value = getattr(rate, "value", None)
        return self._rate.copy(value) if isinstance(value, torch.Tensor) else None


def leaves(data: Any) -> list[Any]:
    """The arrays in a nest of tuples, lists and dicts, in a fixed order."""
    if isinstance(data, dict):
        return [leaf for key in sorted(data, key=str) for leaf in leaves(data[key])]
    if isinstance(data, (tuple, list)):
        return [leaf for part in data for leaf in leaves(part)]
    return [] if data is None else [data]


def _map(data: Any, function: Any) -> Any:
    if isinstance(data, dict):
        return type(data)((key, _map(value, function)) for key, value in data.items())
    if isinstance(data, tuple):
        parts = [_map(part, function) for part in data]
        return type(data)(*parts) if hasattr(data, "_fields") else tuple(parts)
    if isinstance(data, list):
        return [_map(part, function) for part in data]
    return function(data)


def _private(leaf: Any) -> Any:
    """A copy nobody else writes into: generators like to reuse their buffers."""
    if isinstance(leaf, torch.Tensor):
        return leaf.detach().clone()
    return leaf.copy() if isinstance(leaf, np.ndarray) else leaf


def _leaf_bytes(leaf: Any) -> int:
    if isinstance(leaf, torch.Tensor):
        return _tensor_bytes(leaf)
    return int(getattr(leaf, "nbytes", 0))


def _tensor_bytes(tensor: torch.Tensor) -> int:
    return int(tensor.numel() * tensor.element_size())


def free_memory() -> tuple[int | None, int]:
    """Free bytes on the device (None on the CPU) and on the host."""
    on_device = torch.cuda.mem_get_info()[0] if torch.cuda.is_available() and torch.cuda.is_initialized() else None
    return on_device, _free_host()


def _free_host() -> int:
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 4 << 30  # a platform without /proc: assume a small machine
