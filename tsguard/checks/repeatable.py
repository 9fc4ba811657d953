"""Whether a run can be repeated: the same state and place must give the same step and the same batch.

Every generator within reach is put back before the second time. What differs all the same draws from one that no seed
reaches; and of those that were found, numpy tells whether anybody gave them a seed.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator
from typing import Any

from tsguard import catalogue
from tsguard.backend import restore_rng, rng_state
from tsguard.checks.bench import Bench, set_up
from tsguard.checks.registry import Context, check
from tsguard.dataset import Data, leaves, length_of
from tsguard.findings import Finding
from tsguard.probes.generators import held_by, put_back, unseeded


@check("step that differs from itself", codes=("nondeterministic",), needs=("model", "data"), cost=2)
def unrepeatable_step(context: Context) -> Iterable[Finding]:
    """The same batch, weights and generators twice: another loss means a generator that no seed reaches."""
    bench = set_up(context)
    if bench.step.error is not None or bench.step.root is None:
        return
    own = held_by(bench.model, *bench.model._flatten_layers(include_self=False, recursive=True))
    with put_back(own):
        first = bench.again(record_calls=False)
    with put_back(own):
        second = bench.again(record_calls=False)
    bench.start.restore()
    if not (math.isfinite(first.loss) and math.isfinite(second.loss)):
        return
    apart = abs(first.loss - second.loss)
    # Threads may add in another order; a thousandth of a per mille is far above that and far below any drawn number.
    if apart > 1e-6 * max(abs(first.loss), 1e-12):
        yield catalogue.finding(
            "nondeterministic",
            f"the same step from the same state gives {first.loss:.8g} and then {second.loss:.8g}: something "
            "draws from a generator that no seed reaches (`default_rng()` without a seed, the clock). Draw from "
            "keras.random with a SeedGenerator.",
            where={"phase": "forward"},
            score=0.9,
        )
        return
    yield from _without_a_seed(own, bench, "the model")


def _without_a_seed(generators: list[Any], bench: Bench | None, holder: str) -> Iterator[Finding]:
    """Generators that were made without a seed and that are drawn from."""
    loose = unseeded(generators)
    if not loose:
        return
    if bench is not None:
        before = [copy.deepcopy(one.bit_generator.state) for one in loose]
        with put_back(loose):
            bench.again(record_calls=False)
            drawn = [one.bit_generator.state != state for one, state in zip(loose, before, strict=True)]
        bench.start.restore()
        if not any(drawn):
            return
    yield catalogue.finding(
        "nondeterministic",
        f"{holder} draws from a numpy generator that was made without a seed (`default_rng()`): two runs with one seed "
        "are two different runs. Give it a seed: `default_rng(seed)`.",
        where={"phase": "data" if bench is None else "forward"},
        score=0.9,
    )


@check("batch that differs from itself", codes=("nondeterministic",), needs=("data",), cost=1)
def unrepeatable_batch(context: Context) -> Iterable[Finding]:
    """The same batch of a loader read twice, with every generator put back in between."""
    data = context.data
    assert data is not None
    if data.is_arrays or not hasattr(data.x, "__getitem__") or not length_of(data.x):
        return
    own = held_by(data.x)
    first, second = _read(data, own), _read(data, own)
    same = len(first) == len(second) and all(_equal(a, b) for a, b in zip(first, second, strict=True))
    if not same:
        yield catalogue.finding(
            "nondeterministic",
            f"batch 0 of {type(data.x).__name__} is another one when it is read again with every generator put back: "
            "something draws from a generator that no seed reaches (`default_rng()` without a seed in `__getitem__`, "
            "the clock). Draw from one generator that is given a seed.",
            where={"phase": "data", "batch": 0},
            score=0.9,
        )
        return
    # A loader that holds a generator draws from it: in a batch, or between epochs, which are not begun here.
    yield from _without_a_seed(own, None, type(data.x).__name__)


def _read(data: Data, own: list[Any]) -> list[Any]:
    """The first batch's leaves; generators and the loader's own attributes are put back afterwards."""
    rng, held = rng_state(), dict(vars(data.x)) if hasattr(data.x, "__dict__") else {}
    with put_back(own):
        batch = next(data.batches(1), None)
        # A loader may hand out its own buffer again and again.
        made = [copy.deepcopy(leaf) for leaf in leaves(batch)]
    restore_rng(rng)
    if held:
        vars(data.x).update(held)
    return made


def _equal(a: Any, b: Any) -> bool:
    import numpy as np

    one, other = (np.asarray(v.detach().cpu() if hasattr(v, "detach") else v) for v in (a, b))
    if one.shape != other.shape:
        return False
    return bool(np.array_equal(one, other, equal_nan=one.dtype.kind == "f"))
