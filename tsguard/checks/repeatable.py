"""Whether a step can be repeated: the same state and batch must give the same loss."""

from __future__ import annotations

import math
from collections.abc import Iterable

from tsguard import catalogue
from tsguard.checks.bench import set_up
from tsguard.checks.registry import Context, check
from tsguard.findings import Finding


@check("step that differs from itself", codes=("nondeterministic",), needs=("model", "data"), cost=2)
def unrepeatable_step(context: Context) -> Iterable[Finding]:
    """The same batch, weights and generators twice: another loss means a generator that no seed reaches."""
    bench = set_up(context)
    if bench.step.error is not None or bench.step.root is None:
        return
    first, second = bench.again(record_calls=False), bench.again(record_calls=False)
    bench.start.restore()
    if not (math.isfinite(first.loss) and math.isfinite(second.loss)):
        return
    apart = abs(first.loss - second.loss)
    # Threads may add in another order; a thousandth of a per mille is far above that and far below any drawn number.
    if apart > 1e-6 * max(abs(first.loss), 1e-12):
        yield catalogue.finding(
            "nondeterministic",
            f"the same step from the same state gives {first.loss:.8g} and then {second.loss:.8g}: something "
            f"draws from a "
            "generator that no seed reaches (`default_rng()` without a seed, the clock). Draw from "
            "keras.random with a SeedGenerator.",
            where={"phase": "forward"},
            score=0.9,
        )
