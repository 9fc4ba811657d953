"""Half precision that the values do not fit into."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from tsguard import catalogue
from tsguard.checks.bench import name_of, set_up
from tsguard.checks.registry import Context, check
from tsguard.findings import Finding
from tsguard.probes import changes
from tsguard.probes.stage import flat


@check("half precision", codes=("precision-overflow",), needs=("model", "data"), cost=3)
def half_precision(context: Context) -> Iterable[Finding]:
    """A step that is not finite in float16 and is in float32."""
    bench = set_up(context)
    layers = list(bench.model._flatten_layers(include_self=True, recursive=True))
    narrow = [layer for layer in layers if str(getattr(layer, "compute_dtype", "")) == "float16"]
    if not narrow or bench.step.error is not None or bench.step.root is None:
        return
    answers = flat(bench.step.answer)
    broken = not all(bool(a.float().isfinite().all()) for a in answers)
    if not broken and math.isfinite(bench.step.loss):
        return
    import keras

    full = keras.dtype_policies.DTypePolicy("float32")
    with changes.attributes([(layer, "_dtype_policy", full) for layer in narrow]):
        wide = bench.again()
    bench.start.restore()
    if wide.error is None and math.isfinite(wide.loss):
        place = next(
            (name_of(c.layer) for c in bench.step.calls if c.output is not None and not all_finite(c.output)), None
        )
        yield catalogue.finding(
            "precision-overflow",
            f"the step is not finite in float16 and has a loss of {wide.loss:.4g} in float32"
            + (f"; the first layer whose output is not finite is {place}" if place else "")
            + ". float16 ends at 65,504 and loses everything below 6e-8. Compute that part in float32, or train in "
            "bfloat16.",
            where={"layer": place, "phase": "forward" if broken else "loss"},
            score=1.0,
        )


def all_finite(structure: Any) -> bool:
    return all(bool(t.float().isfinite().all()) for t in flat(structure) if hasattr(t, "isfinite"))
