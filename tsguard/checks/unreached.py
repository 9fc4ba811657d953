"""Rows that are there and that the run never comes to: too few steps an epoch, or too few batches in a loader."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tsguard import catalogue
from tsguard.checks.registry import Context, check
from tsguard.dataset import leaves, length_of, unpack
from tsguard.findings import Finding
from tsguard.probes.generators import held_by

REACHED = 0.5
"""Share of the rows below which the run is one on other data than was handed over: a dropped last batch is far less."""


@check("rows that no step comes to", codes=("data-volume",), needs=("data",), cost=1)
def rows_never_reached(context: Context) -> Iterable[Finding]:
    """Steps × rows of a batch, over the whole run, against the rows of the arrays or of what a loader holds."""
    data, fit = context.data, context.fit
    assert data is not None
    epochs, steps = fit.get("epochs") or 1, fit.get("steps_per_epoch")
    if data.is_arrays:
        rows, size, where = len(data), context.batch_size, "fit.steps_per_epoch"
        said = f"steps_per_epoch={steps} over {epochs} epochs"
        reached = None if not steps else int(steps) * int(epochs) * size
    else:
        held = _rows_held(data.x)
        if held is None or not hasattr(data.x, "__getitem__"):
            return
        size = len(next(leaves(unpack(data.x[0])[0])))
        rows, where, name = held, "data", type(data.x).__name__
        said = f"{name} holds {rows:,} rows and says that an epoch is {len(data.x)} batches of {size}"
        # What draws its rows anew comes to others in every epoch.
        reached = len(data.x) * size * (int(epochs) if held_by(data.x) else 1)
    # An epoch may be told as a few steps on purpose; a run of several that has not come round once is not.
    least = 1.0 if data.is_arrays and int(epochs) > 1 else REACHED
    if reached is None or reached >= least * rows:
        return
    yield catalogue.finding(
        "data-volume",
        f"{said}: the run comes to {reached:,} of {rows:,} rows. Expected a step for every batch of rows; check how "
        "the batches of an epoch are counted (rows // batch size).",
        where={"phase": "data", "config_key": where},
        status="WARN",
        score=0.9,
    )


def _rows_held(loader: Any) -> int | None:
    """Rows of the arrays that a loader keeps as attributes, where there are two of one length at least."""
    if not length_of(loader) or not hasattr(loader, "__dict__"):
        return None
    arrays = [leaf for value in vars(loader).values() for leaf in _arrays_in(value)]
    lengths = [len(leaf) for leaf in arrays]
    longest = max(lengths, default=0)
    return longest if lengths.count(longest) >= 2 else None


def _arrays_in(value: Any) -> list[Any]:
    if not isinstance(value, dict | list | tuple) and not hasattr(value, "shape"):
        return []
    if isinstance(value, list | tuple) and len(value) > 16:
        return []
    return [leaf for leaf in leaves(value) if hasattr(leaf, "shape") and len(leaf.shape) >= 1]


FEW_UPDATES = 20
"""Updates below which no settings have learned anything: momentum alone takes about ten to get going."""

FEW_BATCHES = 2
"""Batches of an epoch up to which the size of a batch is what leaves so few updates."""

MANY_ROWS = 200
"""Rows that could well be dealt into more batches."""


def _accumulated(model: Any) -> int:
    """Batches whose gradients are gathered for one update."""
    optimizer = getattr(model, "optimizer", None)
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return int(getattr(inner, "gradient_accumulation_steps", None) or 1)


@check("hardly any updates", codes=("off-plan",), needs=("data", "arrays"), cost=1)
def hardly_any_updates(context: Context) -> Iterable[Finding]:
    """Batches nearly as large as the data, or gradients gathered for longer than the run: a handful of updates."""
    steps, size = context.planned_steps, context.batch_size
    rows = len(context.data) if context.data is not None else 0
    batches = -(-rows // size)
    gathered = _accumulated(context.model)
    if steps is None or steps // gathered >= FEW_UPDATES or rows < MANY_ROWS:
        return
    epochs, updates = context.fit.get("epochs"), steps // gathered
    if steps >= FEW_UPDATES:
        yield catalogue.finding(
            "off-plan",
            f"gradient_accumulation_steps={gathered} in a run of {steps} steps leaves {updates} updates: the "
            "weights hardly "
            "move at all. Expected some hundred updates; accumulate fewer batches, or train longer.",
            where={"phase": "update", "config_key": "optimizer.gradient_accumulation_steps"},
            status="FAIL" if updates == 0 else "WARN",
            role="cause",
            score=1.0,
        )
        return
    if batches > FEW_BATCHES:
        return
    yield catalogue.finding(
        "off-plan",
        f"a batch holds {min(size, rows):,} of {rows:,} rows: {epochs} epochs are {updates} updates in all, too "
        "few for any "
        "settings to learn. Expected many batches an epoch, or many more epochs.",
        where={"phase": "data", "config_key": "fit.batch_size"},
        status="WARN",
        role="cause",
        remedy="batch_size=32, or as many epochs as make some hundred updates.",
        score=0.9,
    )
