"""The run before it is run: what it will cost, whether that is the plan, and whether its state can be saved.

A few steps are measured on the user's own model and data and extrapolated; the forecast is kept for the page, which
holds it against what happened. Batches and samples are counted by the checks of the data.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from typing import Any

from tsguard import catalogue
from tsguard.backend import device_name, restore_rng, rng_state
from tsguard.checks.bench import clear, set_up
from tsguard.checks.outturn import as_number, within
from tsguard.checks.registry import Context, check
from tsguard.checks.step import step_fails
from tsguard.dataset import Data, leaves
from tsguard.evidence import Evidence
from tsguard.findings import Finding, Role, Status
from tsguard.probes.stage import batch_of, get_ready

PROBE_S = 2.0
"""Seconds that the measured steps may take: enough for a median of a small model, little enough for a preflight."""
MOST_STEPS = 30
"""More measured steps than this do not make the median better."""
ROUND_TRIP = 1e-6
"""Outputs after a round trip may differ by this share of their largest: the same bits through the same operations give
none, and what Keras leaves out of a saved state moves outputs by far more."""
FORECAST_SLACK = 2.0
"""A forecast from a few steps is right to within this factor; what lies further outside of a plan is told."""


@check("cost of the run", codes=("off-plan",), needs=("model", "data"), cost=3)
def cost_of_the_run(context: Context) -> Iterable[Finding]:
    """Measure a few steps; forecast duration, peak memory and price; compare with the plan where it is comparable."""
    data = context.data
    batch = None if data is None else first_batch(data)
    if data is None or batch is None:
        yield _not_asked("off-plan", "the data can be read only once, and a measured step would use a batch up")
        return
    clear(context)  # their memory is not the run's
    try:
        step_s = _seconds_per_step(context.model, batch, min(PROBE_S, context.budget_s / 4))
    except Exception as error:  # other rows than those that the bench is set up on: a label that no unit stands for
        yield _not_asked("off-plan", "the first batch cannot be trained on")
        if set_up(context, count=1).step.error is None:  # else it was told already
            yield step_fails(error, where={"phase": "loss", "row": 0}, what="the first batch")
        return
    forecast = _forecast(context, step_s)
    context.facts["forecast"] = forecast
    on_other_machine = bool(context.declared.get("gpu_used")) and not device_name().startswith("cuda")
    if on_other_machine:
        yield Finding(
            "off-plan",
            Status.PASS,
            Role.NOTE,
            "the plan is for a GPU and this machine has none: its forecast is not compared with the plan",
        )
        return
    for name in ("duration_min", "peak_mb"):
        planned, value = context.declared.get(name), forecast.get(name)
        if planned is None or value is None or _possible(name, planned, value):
            continue
        yield catalogue.finding(
            "off-plan",
            f"{name} is forecast as {value:.3g}, and {planned} was declared ({1000 * step_s:.1f} ms a step, measured).",
            status=Status.WARN,
            where={"config_key": f"plan.{name}"},
            evidence=[Evidence("value", dict(forecast), name="forecast")],
        )


@check("state that is not saved", codes=("checkpoint-roundtrip",), needs=("model", "data"), cost=3)
def state_that_is_not_saved(context: Context) -> Iterable[Finding]:
    """Build the model again, give it every variable of this one, and ask both the same."""
    data, model, subject = context.data, context.model, context.subject
    batch = None if data is None else first_batch(data)
    if batch is None or subject is None:
        yield _not_asked("checkpoint-roundtrip", "the data can be read only once")
        return
    x = batch[0]
    first = _answers(model, x)
    if not _same(first, _answers(model, x)):
        yield _not_asked("checkpoint-roundtrip", "the model answers differently each time it is asked")
        return
    try:
        copy = subject.rebuild()
        _answers(copy, x)  # builds what is built by the first call
    except Exception as reason:  # own layers without get_config: nothing to compare, and no fault of a training script
        yield _not_asked("checkpoint-roundtrip", f"the model cannot be built again ({type(reason).__name__}: {reason})")
        return
    shapes = [[(v.path, tuple(v.shape)) for v in one.variables] for one in (model, copy)]
    if [shape for _, shape in shapes[0]] != [shape for _, shape in shapes[1]]:
        yield catalogue.finding(
            "checkpoint-roundtrip",
            f"built again, the model has {len(shapes[1])} variables of other shapes than the {len(shapes[0])} it had: "
            "a checkpoint does not fit. Expected the same variables in the same order.",
            evidence=[Evidence("value", {"before": _words(shapes[0]), "after": _words(shapes[1])})],
        )
        return
    for mine, theirs in zip(model.variables, copy.variables, strict=True):
        theirs.assign(mine)
    second = _answers(copy, x)
    if not _same(first, second):
        size = max(_largest(a, b) for a, b in zip(first, second, strict=True))
        yield catalogue.finding(
            "checkpoint-roundtrip",
            f"with all of its {len(shapes[0])} variables saved and loaded, the model's outputs change by up to "
            f"{size:.3g}. Something that the outputs hang on is not among the variables.",
            evidence=[Evidence("value", {"largest difference": size}, name="outputs")],
        )


def first_batch(data: Data) -> tuple[Any, Any, Any] | None:
    """The first batch, where reading it uses nothing up."""
    if data.is_arrays or (hasattr(data.x, "__getitem__") and hasattr(data.x, "__len__")):
        return next(data.batches(1), None)
    return None


def _seconds_per_step(model: Any, batch: tuple[Any, Any, Any], seconds: float) -> float:
    """Median of a few steps after one that warms up."""
    # As `fit` packs it: an own train_step that takes (x, y) gets two, where train_on_batch always hands over three.
    first = batch_of(batch)
    get_ready(model, first)
    model.make_train_function()
    taken: list[float] = []
    deadline = time.perf_counter() + seconds
    for number in range(MOST_STEPS + 1):
        begun = time.perf_counter()
        model.train_function([first.packed])
        _wait_for_device()
        ended = time.perf_counter()
        if number:
            taken.append(ended - begun)
        if taken and ended > deadline:
            break
    return sorted(taken)[len(taken) // 2]


def _wait_for_device() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _forecast(context: Context, step_s: float) -> dict[str, float]:
    found = {"steps_per_s": 1 / step_s, "peak_mb": _peak_mb(), "weights_mb": _weights_mb(context.model)}
    if batches := context.batches_per_epoch:
        minutes = batches * (context.fit.get("epochs") or 1) * step_s / 60
        found.update(batches_per_epoch=float(batches), duration_min=minutes)
        if (price := context.declared.get("price_per_hour")) is not None:
            found["cost"] = minutes / 60 * float(price)
    return found


def _peak_mb() -> float:
    import torch

    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated() / 1e6)
    import resource

    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)


def _weights_mb(model: Any) -> float:
    return float(sum(v.value.numel() * v.value.element_size() for v in model.variables) / 1e6)


def _possible(name: str, planned: Any, value: float) -> bool:
    """Whether the truth may lie inside the plan, the forecast being right to within its slack."""
    number = as_number(planned)
    if number is not None:
        low = number / FORECAST_SLACK if name != "peak_mb" else -math.inf
        return low <= value <= number * FORECAST_SLACK
    return any(within(name, planned, value * factor) for factor in (1 / FORECAST_SLACK, 1.0, FORECAST_SLACK))


def _answers(model: Any, x: Any) -> list[Any]:
    """Outputs in inference on one batch, from generators that stand where they stood."""
    import keras
    import torch

    generators = rng_state()
    seeds = [(v, v.value.detach().clone()) for v in model.variables if "seed_generator" in v.path]
    with torch.no_grad():
        tensors = [keras.ops.convert_to_numpy(leaf) for leaf in leaves(model.predict_on_batch(x))]
        for variable, value in seeds:
            variable.value.copy_(value)
    restore_rng(generators)
    return tensors


def _same(left: list[Any], right: list[Any]) -> bool:
    import numpy as np

    return len(left) == len(right) and all(
        a.shape == b.shape
        and np.allclose(
            a, b, rtol=0, atol=ROUND_TRIP * max(1.0, float(np.nanmax(np.abs(a), initial=0.0))), equal_nan=True
        )
        for a, b in zip(left, right, strict=True)
    )


def _largest(left: Any, right: Any) -> float:
    import numpy as np

    if left.shape != right.shape:
        return math.inf
    return float(np.nanmax(np.abs(left.astype("float64") - right.astype("float64")), initial=0.0))


def _words(shapes: list[tuple[str, tuple[int, ...]]]) -> list[str]:
    return [f"{path} {list(shape)}" for path, shape in shapes[:50]]


def _not_asked(code: str, reason: str) -> Finding:
    return Finding(code, Status.NOT_RUN, Role.NOTE, f"not asked: {reason}")
