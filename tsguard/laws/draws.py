"""Which layers draw random numbers in training.

Dropout, noise and augmentation, Keras' own or the user's, are told from other layers by what they do, not by their
names: each draw, from a SeedGenerator or from a global generator of torch, numpy or Python, is put down to the
innermost layer whose call is running.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from tsguard import backend
from tsguard.laws.bench import Bench
from tsguard.laws.structure import Leaves
from tsguard.laws.trace import Taps

PASSES = 2
"""A layer that draws only now and then is seen in one of two passes, more often than not."""


def drawing_layers(bench: Bench, x: Leaves) -> frozenset[int]:
    """The identities of the layers that draw when this batch is called in training mode."""
    drew: set[int] = set()
    for seed in range(PASSES):
        with bench.seeded(seed), _heard(drew) as around:
            bench.outputs(x, training=True, taps=Taps(around=around))
    return frozenset(drew)


@contextlib.contextmanager
def _heard(drew: set[int]) -> Iterator[Any]:
    """While open, a context for each layer's call that hears whether the layer itself draws."""
    from keras.random import SeedGenerator

    running: list[int] = []
    last = [backend.rng_state()]
    plain = SeedGenerator.next

    def mark() -> None:
        now = backend.rng_state()
        if running and not now.same_as(last[0]):
            drew.add(running[-1])
        last[0] = now

    def drawn(generator: Any, *args: Any, **kwargs: Any) -> Any:
        if running:
            drew.add(running[-1])
        return plain(generator, *args, **kwargs)

    @contextlib.contextmanager
    def around(layer: Any) -> Iterator[None]:
        mark()
        running.append(id(layer))
        try:
            yield
        finally:
            mark()
            running.pop()

    SeedGenerator.next = drawn
    try:
        yield around
    finally:
        SeedGenerator.next = plain
