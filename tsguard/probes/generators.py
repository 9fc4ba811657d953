"""Generators of random numbers that a thing holds: found where they can be reached, put back, and asked for their seed.

`keras.utils.set_random_seed` reaches the global generators only. A generator of numpy that somebody keeps in an
attribute or a closure is repeatable when it was given a seed; when it was not, its seed is 128 bits from the system.
"""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Iterator
from typing import Any

DEPTH = 4
"""How far attributes, closures and containers are followed."""

FROM_THE_SYSTEM = 2**64
"""Seeds that people write are smaller; what numpy draws from the system is below only once in 2**64 times."""


def held_by(*things: Any) -> list[Any]:
    """Generators within reach of some objects: in attributes, in closures, among the globals of their methods."""
    import numpy as np
    import torch

    kinds = (np.random.Generator, np.random.RandomState, torch.Generator, random.Random)
    found: dict[int, Any] = {}
    seen: set[int] = set()
    waiting = [(thing, 0) for thing in things]
    while waiting:
        thing, depth = waiting.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, kinds):
            found[id(thing)] = thing
        elif depth < DEPTH:
            waiting.extend((one, depth + 1) for one in _within(thing))
    return list(found.values())


def _within(thing: Any) -> Iterator[Any]:
    if isinstance(thing, dict):
        yield from thing.values()
    elif isinstance(thing, list | tuple | set):
        yield from thing if len(thing) <= 1000 else ()
    elif callable(getattr(thing, "__func__", None)):
        yield thing.__func__
    elif hasattr(thing, "__code__"):
        for cell in thing.__closure__ or ():
            with contextlib.suppress(ValueError):  # a cell that nothing was put into yet
                yield cell.cell_contents
        names = thing.__code__.co_names
        yield from (thing.__globals__[name] for name in names if name in thing.__globals__)
    elif not isinstance(thing, type) and not _is_foreign(type(thing)):
        yield from vars(thing).values() if hasattr(thing, "__dict__") else ()
        for kind in type(thing).__mro__:
            if not _is_foreign(kind):
                own = vars(kind).items()
                yield from (one for name, one in own if hasattr(one, "__code__") or not name.startswith("__"))


def _is_foreign(kind: type) -> bool:
    """Whether a class is a library's own: its insides are no business of the user's seed. What a loader of torch holds
    is the user's: data set, sampler, generator."""
    module = str(kind.__module__)
    if module.startswith("torch.utils.data"):
        return False
    return module.split(".")[0] in ("builtins", "keras", "torch", "numpy", "abc", "tsguard")


def unseeded(generators: list[Any]) -> list[Any]:
    """Those of numpy that were made without a seed."""
    return [one for one in generators if (_entropy(one) or 0) >= FROM_THE_SYSTEM]


def _entropy(generator: Any) -> int | None:
    sequence = getattr(getattr(generator, "bit_generator", None), "seed_seq", None)
    entropy = getattr(sequence, "entropy", None)
    return entropy if isinstance(entropy, int) else None


@contextlib.contextmanager
def put_back(generators: list[Any]) -> Iterator[None]:
    """The state of these generators as it was, afterwards."""
    states = [_state(one) for one in generators]
    try:
        yield
    finally:
        for one, state in zip(generators, states, strict=True):
            _restore(one, state)


def _state(generator: Any) -> Any:
    import torch

    if isinstance(generator, torch.Generator):
        return generator.get_state().clone()
    if isinstance(generator, random.Random):
        return generator.getstate()
    bits = getattr(generator, "bit_generator", None)
    return copy.deepcopy(bits.state) if bits is not None else generator.get_state()


def _restore(generator: Any, state: Any) -> None:
    import torch

    if isinstance(generator, torch.Generator):
        generator.set_state(state)
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    elif getattr(generator, "bit_generator", None) is not None:
        generator.bit_generator.state = state
    else:
        generator.set_state(state)
