"""Laws of timestamps: padded ones are neutral, ties and long gaps stay finite, and only differences count."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsguard.laws.batches import Batch, Example
from tsguard.laws.ground import Ground, batch_words, finite
from tsguard.laws.law import Law, any_batches, padded_batches
from tsguard.laws.results import Counterexample
from tsguard.laws.structure import Leaves

LOST_STEP = 0.5
"""The share of a time step that rounding may take before the step counts as lost: half of it or more is not the same
step."""


AFAR = 1e6
"""A clock that reads more than this counts from an epoch: no vocabulary is so large."""


def has_timestamps(ground: Ground) -> str | None:
    """These laws need timestamps."""
    if ground.reading.timestamps is None:
        return "no timestamps: declare them with tsguard.Padding(timestamps=name)"
    return None


def padded_stamps_apply(ground: Ground) -> str | None:
    """… and padding."""
    return has_timestamps(ground) or (
        None if ground.reading.padded else "the model has no mask: its batches are not padded"
    )


def _stamps(ground: Ground) -> tuple[str, int]:
    name = ground.reading.timestamps
    assert name is not None
    return name, ground.reading.time[name]


def padded_stamps(ground: Ground, example: Example) -> Counterexample | None:
    """10. Padded timestamps are neutral: zeros, the last one again, or far ahead."""
    name, axis = _stamps(ground)
    batch = ground.batch(example)
    moved_to = np.moveaxis(batch.x[name], axis, 1).copy()
    valid = batch.valid
    for i, keep in enumerate(valid):
        if keep.any() and not keep.all():
            edge = moved_to[i, np.flatnonzero(keep)[-1 if ground.material.right else 0]]
            span = ground.material.scale[name]
            # `ones` the last one again, `data` zeros as most batches are padded, `huge` as far ahead as the data goes.
            other = {"ones": edge, "data": np.zeros_like(edge), "huge": edge + np.asarray(span).astype(edge.dtype)}[
                example.kind
            ]
            moved_to[i, ~keep] = other
    x = {**batch.x, name: np.moveaxis(moved_to, 1, axis)}
    before, after = ground.bench.outputs(batch.x), ground.bench.outputs(x)
    law = NEUTRAL.name
    moved = ground.moved(before, after, valid)
    if moved is None:
        got = ground.bench.gradients(x, ground.projection(batch))
        sick = [path for path, g in got.weights.items() if not np.isfinite(g).all()]
        if not sick:
            return None
        words = (
            f"{batch_words(valid, right=ground.material.right)}; the gradient of `{sick[0]}` is not finite when padded "
        )
        words += f"timestamps are {_stamp_words(example.kind)}."
        where: dict[str, Any] = {"law": law, "phase": "backward", "parameter": sick[0]}
        return Counterexample(
            law,
            "pad-time",
            words,
            batch.x,
            x,
            float("inf"),
            0.0,
            where,
            size=example.size,
            grave=_happens(ground, name, axis, example.kind),
            remedy=_NEUTRAL,
        )
    words = (
        f"{batch_words(valid, right=ground.material.right)}; the output of sample {moved.sample} moved by "
        f"{moved.by:.3g} when padded "
    )
    words += f"timestamps became {_stamp_words(example.kind)}."
    where = {"law": law, "phase": "forward", "sample": moved.sample, "timestep": moved.timestep, "output": moved.output}
    return Counterexample(
        law,
        "pad-time",
        words.replace("moved by inf", "became non-finite"),
        batch.x,
        x,
        moved.by,
        moved.tolerance,
        where,
        size=example.size,
        grave=_happens(ground, name, axis, example.kind),
        remedy=_NEUTRAL,
    )


def _happens(ground: Ground, name: str, axis: int, kind: str) -> bool:
    """Whether the user's own batches are padded in this way; what never happens is a warning, not a fault."""
    stamps = np.moveaxis(ground.reading.rows[name], axis, 1)
    for row, keep in zip(stamps, ground.reading.valid, strict=True):
        if not keep.any() or keep.all():
            continue
        edge, padded = row[np.flatnonzero(keep)[-1 if ground.material.right else 0]], row[~keep]
        if kind == "data" and (padded == 0).any() and np.any(edge != 0):
            return True
        if kind == "ones" and (padded == edge).any():
            return True
        if kind == "huge" and (np.abs(padded - edge) > 0).any() and not (padded == 0).all():
            return True
    return False


_NEUTRAL = (
    "A padded step must be neutral: compute steps Δt first and set them to 0 where the mask is 0 (or "
    "repeat the last timestamp)."
)


def _stamp_words(kind: str) -> str:
    return {"ones": "the last one again", "data": "zeros", "huge": "far ahead"}[kind]


def _name_stamps(ground: Ground, found: Counterexample) -> Counterexample:
    name, axis = _stamps(ground)
    batch = ground.batch(replace(ground.padded_example(), kind="data"))
    for value in (0.0, ground.material.scale[name] * 2):
        moved_to = np.moveaxis(batch.x[name], axis, 1).copy()
        moved_to[~batch.valid] = np.asarray(value).astype(moved_to.dtype)
        call = ground.layer_at_fault(batch.x, {**batch.x, name: np.moveaxis(moved_to, 1, axis)}, batch.valid)
        if call is not None:
            words = f"{found.words} Layer `{call.path}` ({call.kind}) is the first at which it shows."
            return replace(found, where={**found.where, "layer": call.path}, words=words)
    return found


# ---------------------------------------------------------------------- ties and gaps


def _with_gaps(stamps: NDArray[Any], kind: str, gap: float) -> NDArray[Any]:
    """Timestamps of (batch, steps, …) with every gap zero, some tied, or one as long as the longest in the data."""
    out = stamps.copy()
    if kind == "ones":
        out[:] = out[:, :1]
    elif kind == "data":
        out[:, 1::2] = out[:, : out.shape[1] - 1 : 2][:, : out[:, 1::2].shape[1]]
    else:
        half = out.shape[1] // 2
        out[:, half:] = (out[:, half:].astype(np.float64) + gap).astype(out.dtype)
    return out


def longest_gap(ground: Ground) -> float:
    """The longest step between valid timestamps in the data."""
    name, axis = _stamps(ground)
    stamps = np.moveaxis(ground.reading.rows[name], axis, 1).astype(np.float64)
    gaps = np.diff(stamps, axis=1)
    both = ground.reading.valid[:, 1:] & ground.reading.valid[:, :-1]
    return float(np.abs(gaps[both]).max(initial=0.0))


def finite_gaps(ground: Ground, example: Example) -> Counterexample | None:
    """10. Δt = 0, ties, and the largest Δt of the data keep outputs and gradients finite."""
    name, axis = _stamps(ground)
    batch: Batch = ground.batch(example)
    if not finite(ground.bench.outputs(batch.x)):
        return _not_finite(ground, example, batch, batch.x, "as they are in the data", "forward")
    moved = _with_gaps(np.moveaxis(batch.x[name], axis, 1), example.kind, longest_gap(ground))
    x: Leaves = {**batch.x, name: np.moveaxis(moved, 1, axis)}
    how = {"ones": "all equal", "data": "tied in pairs", "huge": "apart by the longest gap of the data"}[example.kind]
    kept = [
        o if a is None else np.moveaxis(o, a, 1)[batch.valid]
        for o, a in zip(ground.bench.outputs(x), ground.reading.output_time, strict=True)
    ]
    if not finite(kept):
        return _not_finite(ground, example, batch, x, how, "forward")
    got = ground.bench.gradients(x, ground.projection(batch))
    if not finite(list(got.weights.values())):
        return _not_finite(ground, example, batch, x, how, "backward")
    return None


def _not_finite(ground: Ground, example: Example, batch: Batch, x: Leaves, how: str, phase: str) -> Counterexample:
    law = GAPS.name
    words = (
        f"{batch_words(batch.valid, right=ground.material.right)}; "
        f"{'outputs' if phase == 'forward' else 'gradients'} are not finite "
    )
    words += f"when timestamps are {how}."
    return Counterexample(
        law,
        "pad-time",
        words,
        batch.x,
        x,
        float("inf"),
        0.0,
        {"law": law, "phase": phase},
        size=example.size,
        remedy="Bound Re Λ below zero by construction, scale Δt to the data, and use expm1 for small steps.",
    )


def _name_gaps(ground: Ground, found: Counterexample) -> Counterexample:
    after = {name: np.asarray(leaf) for name, leaf in (found.after or found.before).items()}
    for call in ground.bench.calls(after):
        if finite(call.inputs) and not finite(call.outputs):
            words = f"{found.words} Layer `{call.path}` ({call.kind}) is the first whose output is not finite."
            return replace(found, where={**found.where, "layer": call.path}, words=words)
    return found


# ---------------------------------------------------------------------- only differences count


def shifted(ground: Ground, example: Example) -> Counterexample | None:
    """10. Shifting all timestamps by a constant does not change the output, unless their dtype cannot hold them."""
    name, axis = _stamps(ground)
    batch = ground.batch(example)
    stamps = batch.x[name]
    if not np.isfinite(stamps.astype(np.float64)).all():
        return None
    valid_stamps = np.moveaxis(stamps, axis, 1)[batch.valid]
    # Towards zero, never away from it: the shifted timestamps are at least as easy to hold as the user's own.
    start = valid_stamps.min()
    if start == 0:
        return None
    flags = np.broadcast_to(
        np.expand_dims(batch.valid, tuple(range(2, stamps.ndim))), np.moveaxis(stamps, axis, 1).shape
    )
    lower = np.where(flags, np.moveaxis(stamps, axis, 1) - start, np.moveaxis(stamps, axis, 1))
    if ground.material._repeats_last(ground.reading.rows[name], ground.reading.time[name]):
        lower = np.moveaxis(stamps, axis, 1) - start
    x: Leaves = {**batch.x, name: np.moveaxis(lower, 1, axis).astype(stamps.dtype)}
    for other in companions(ground):
        x[other] = (batch.x[other] - start).astype(batch.x[other].dtype)
    moved = ground.moved(ground.bench.outputs(batch.x), ground.bench.outputs(x), batch.valid, reordered=batch)
    lost = steps_lost(np.moveaxis(stamps, axis, 1), batch.valid)
    if moved is None or lost == 0:
        # Moved though every step survives its dtype: the model uses the time of day, not only differences.
        return None
    law = SHIFT.name
    words = (
        f"{batch_words(batch.valid, right=ground.material.right)}; the output of sample {moved.sample} moved by "
        f"{moved.by:.3g} when all "
        f"timestamps were shifted by {-float(start):.10g}: as floats of the size "
        f"{float(np.abs(valid_stamps).max()):.3g} they lose "
        f"{lost} of their time steps."
    )
    where = {"law": law, "phase": "data", "sample": moved.sample, "timestep": moved.timestep, "input": name}
    return Counterexample(
        law,
        "data-precision",
        words,
        batch.x,
        x,
        moved.by,
        moved.tolerance,
        where,
        size=example.size,
        remedy="Keep timestamps in int64, subtract first, and cast the differences.",
    )


def companions(ground: Ground) -> tuple[str, ...]:
    """Other inputs that hold times of the same clock, such as the time of the target: a shift moves them too."""
    name, axis = _stamps(ground)
    reading = ground.reading
    own = np.moveaxis(reading.rows[name], axis, 1)[reading.valid]
    low, high = own.min(), own.max()
    span = max(high - low, 1)
    found = []
    for other, along in reading.time.items():
        leaf = reading.rows[other]
        if (
            other in (name, reading.mask)
            or leaf.dtype != reading.rows[name].dtype
            or leaf.shape[along] != reading.width
        ):
            continue
        times = np.moveaxis(leaf, along, 1)[reading.valid]
        # Far from zero, where neither ids nor quantities are found by chance.
        if low > AFAR and low - span <= times.min() and times.max() <= high + span:
            found.append(other)
    return tuple(found)


def steps_lost(stamps: NDArray[Any], valid: NDArray[np.bool_]) -> int:
    """How many steps between neighbours change by half of themselves or more once the timestamps are float32."""
    exact = np.diff(stamps.astype(np.float64), axis=1)
    rounded = np.diff(stamps.astype(np.float32).astype(np.float64), axis=1)
    both = valid[:, 1:] & valid[:, :-1]
    off = np.abs(rounded - exact)[both] >= LOST_STEP * np.abs(exact)[both]
    return int((off & (exact[both] != 0)).sum())


NEUTRAL = Law(
    "padded timestamps are neutral",
    "pad-time",
    padded_stamps,
    padded_stamps_apply,
    padded_batches,
    0.6,
    finish=_name_stamps,
)
GAPS = Law(
    "ties and long gaps stay finite", "pad-time", finite_gaps, has_timestamps, padded_batches, 0.3, finish=_name_gaps
)
SHIFT = Law("only differences of timestamps count", "data-precision", shifted, has_timestamps, any_batches, 0.4)
