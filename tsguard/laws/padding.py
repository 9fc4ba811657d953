"""Laws of padding: what stands where nothing counts must not count.

Values, gradients, the loss, the amount of padding, samples that are all padding, and the mask itself; over time and over features.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tsguard.laws import tolerance
from tsguard.laws.batches import Batch, Example, Sample
from tsguard.laws.bench import packed
from tsguard.laws.ground import Ground, Moved, batch_words, finite
from tsguard.laws.law import Law, at_layer, not_padded, padded_batches, padded_features, two_widths
from tsguard.laws.results import Counterexample
from tsguard.laws.structure import Leaves
from tsguard.laws.trace import Taps

MASK_EARLIER = (
    "Padded positions must have no influence. Layer `{layer}` mixes positions without the mask: pass `mask=` to it, or use a layer "
    "that takes one (masked pooling, attention_mask), or set padded positions to zero before it."
)


def _words(ground: Ground, valid: Any, moved: Moved, what: str) -> str:
    place = "the pooled output" if moved.timestep is None else f"the output at step {moved.timestep}"
    return (
        f"{batch_words(valid, right=ground.material.right)}; {place} of sample {moved.sample} moved by {moved.by:.3g} "
        f"(tolerance {moved.tolerance:.1g}) when {what}."
    )


def _where(law: str, moved: Moved) -> dict[str, Any]:
    return {"law": law, "phase": "forward", "sample": moved.sample, "timestep": moved.timestep, "output": moved.output}


# ---------------------------------------------------------------------- 1: values


def can_vary(ground: Ground) -> str | None:
    """Law 1 needs positions that can hold other values while the mask stays as it is."""
    reason = not_padded(ground)
    if reason:
        return reason
    kind, leaks = ground.reading.mask_kind, "pad-length" in ground.broken
    if not ground.material.reading.values:
        return "no input holds values over time"
    if max(ground.widths) < 2:
        return "the model takes one step only: nothing can be padded"
    if kind == "declared" and not leaks:
        return "there is no mask: another value at a padded position would be data; the law of more padding speaks for it"
    if kind == "keras" and not ground.can_vary and not leaks:
        return "Masking sets what it masks to zero: no other value can stand there; the law of more padding speaks for it"
    return None


def padded_values(ground: Ground, example: Example) -> Counterexample | None:
    """1. Values at padded positions do not change valid outputs."""
    batch = ground.batch(example)
    x, taps = ground.variant(batch, example, force="pad-length" in ground.broken)
    return _unchanged(ground, example, batch, x, taps, VALUES.name, "only what stands at padded positions changed")


def _unchanged(
    ground: Ground, example: Example, batch: Batch, x: Leaves, taps: Taps | None, law: str, what: str
) -> Counterexample | None:
    before, after = ground.bench.outputs(batch.x), ground.bench.outputs(x, taps=taps)
    moved = ground.moved(before, after, batch.valid)
    if moved is None:
        return None
    words = _words(ground, batch.valid, moved, what)
    return Counterexample(
        law, "pad-leak-value", words, batch.x, x, moved.by, moved.tolerance, _where(law, moved), size=example.size,
        facts={"values": example.kind},
    )  # fmt: skip


def _name_leak(ground: Ground, found: Counterexample) -> Counterexample:
    return at_layer(found, ground.pad_leak_call(), MASK_EARLIER)


def padded_feature_values(ground: Ground, example: Example) -> Counterexample | None:
    """9. Padded features behave like padded time."""
    batch = ground.batch(example)
    x, taps = ground.variant(batch, example, over="features")
    found = _unchanged(ground, example, batch, x, taps, FEATURE_VALUES.name, "only what stands at padded features changed")
    return found


def _has_features(ground: Ground) -> str | None:
    if ground.reading.features is None:
        return "no feature mask: declare it with tsguard.Padding(features=(axis, name of the mask input))"
    return None if ground.material.feature_size > 1 else "there is one feature only: it cannot be padded"


def _name_feature_leak(ground: Ground, found: Counterexample) -> Counterexample:
    return at_layer(found, ground.pad_leak_call(over="features"), MASK_EARLIER.replace("positions", "features"))


# ---------------------------------------------------------------------- 1: NaN and inf


def can_be_nan(ground: Ground) -> str | None:
    """NaN needs a float input that it can stand in without being taken for valid."""
    reason = not_padded(ground)
    if reason:
        return reason
    if ground.reading.unmasked_padding:
        return None
    floats = [n for n in ground.reachable if n not in ground.reading.ids and ground.reading.rows[n].dtype.kind == "f"]
    if not floats or ground.reading.mask_kind == "declared":
        return "no float input can hold NaN at padded positions without changing what is masked"
    return None if max(ground.widths) > 1 else "the model takes one step only: nothing can be padded"


def _poisoned(ground: Ground, batch: Batch, value: float) -> Leaves:
    x = dict(batch.x)
    if ground.reading.unmasked_padding:
        return x  # the user's own padding is NaN already
    for name in ground.reachable:
        if name not in ground.reading.ids and x[name].dtype.kind == "f":
            x[name] = np.where(ground.material.padded_positions(name, batch, "time"), value, x[name]).astype(x[name].dtype)
    return x


def padded_nan(ground: Ground, example: Example) -> Counterexample | None:
    """1. Nor do NaN or inf at padded positions, in the forward pass."""
    batch = ground.batch(example)
    value = float("inf") if example.seed % 2 else float("nan")
    x = _poisoned(ground, batch, value)
    before, after = ground.bench.outputs(batch.x), ground.bench.outputs(x)
    if ground.reading.unmasked_padding:
        before = tuple(np.nan_to_num(b, nan=0.0) if not finite([b]) else b for b in before)
    moved = ground.moved(before, after, batch.valid)
    if moved is None:
        return None
    words = _words(ground, batch.valid, moved, f"padded positions held {value}").replace("moved by inf", "became non-finite")
    return Counterexample(
        NAN.name, "pad-nan-poison", words, batch.x, x, moved.by, moved.tolerance, _where(NAN.name, moved), size=example.size,
        grave=_nan_in_padding(ground),
        remedy="Replace what is padded before the first layer: `ops.where(mask[..., None], x, 0.0)`. Multiplying by the mask does "
        "not help, 0 · NaN is NaN.",
    )  # fmt: skip


def _nan_in_padding(ground: Ground) -> bool:
    """Whether the data at hand holds non-finite values at padded positions."""
    reading = ground.reading
    if reading.unmasked_padding or np.isnan(reading.padding.pad_value):
        return True
    for name in reading.values:
        leaf, axis = reading.rows[name], reading.time[name]
        if leaf.dtype.kind == "f" and leaf.shape[axis] == reading.width:
            moved = np.moveaxis(leaf, axis, 1)
            if not np.isfinite(moved[~reading.valid]).all():
                return True
    return False


def _name_nan(ground: Ground, found: Counterexample) -> Counterexample:
    example = replace(ground.padded_example(), seed=0)
    batch = ground.batch(example)
    x = _poisoned(ground, batch, float("nan"))
    if ground.reading.unmasked_padding:
        first = next((c for c in ground.bench.calls(x) if not _finite_where(c.outputs, batch.valid)), None)
        call = first
    else:
        call = ground.layer_at_fault(batch.x, x, batch.valid)
    named = at_layer(found, call, found.remedy)
    return replace(named, remedy=found.remedy)


def _finite_where(outputs: Any, valid: Any) -> bool:
    return all(
        bool(np.isfinite(o[valid] if o.ndim >= 2 and o.shape[:2] == valid.shape else o).all()) for o in outputs if o.ndim
    )


def padded_nan_backward(ground: Ground, example: Example) -> Counterexample | None:
    """1. … and in any gradient: a recurrent layer is clean forward and NaN backward."""
    batch = ground.batch(example)
    x = _poisoned(ground, batch, float("inf") if example.seed % 2 else float("nan"))
    plain = ground.bench.gradients(batch.x, ground.projection(batch))
    if not finite(list(plain.weights.values())) and not ground.reading.unmasked_padding:
        return None  # not finite without NaN either: another law's business
    after = ground.bench.gradients(x, ground.projection(batch))
    sick = [name for name, g in after.weights.items() if not np.isfinite(g).all()]
    if not sick:
        return None
    law = NAN_BACKWARD.name
    words = (
        f"{batch_words(batch.valid, right=ground.material.right)}; the gradients of {len(sick)} of {len(after.weights)} weights "
        f"became non-finite when padded positions held NaN or inf, `{sick[0]}` among them."
    )
    return Counterexample(
        law, "pad-nan-poison", words, batch.x, x, float("inf"), 0.0, {"law": law, "phase": "backward", "parameter": sick[0]},
        size=example.size, grave=_nan_in_padding(ground), facts={"parameters": sick[:20]},
        remedy="A finite forward pass is not enough: 0 · NaN in the backward pass is NaN. Replace padded values before the first "
        "layer: `ops.where(mask[..., None], x, 0.0)`.",
    )  # fmt: skip


def _name_backward(ground: Ground, found: Counterexample) -> Counterexample:
    """The last layer to be called among those whose weights get NaN: backward it is the first."""
    sick = set(found.facts.get("parameters", ()))
    last = None
    for call in ground.bench.calls(ground.batch(ground.padded_example()).x):
        own = {str(v.path) for v in getattr(call.layer, "_trainable_variables", ())} | (
            {str(v.path) for v in getattr(call.layer, "trainable_variables", ())} if call.kind in _AS_ONE else set()
        )
        if own & sick:
            last = call
    return found if last is None else replace(
        found,
        where={**found.where, "layer": last.path},
        words=f"{found.words} Layer `{last.path}` ({last.kind}) is the first in the backward pass.",
    )


_AS_ONE = ("LSTM", "GRU", "SimpleRNN", "RNN", "Bidirectional", "TimeDistributed", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D")


# ---------------------------------------------------------------------- 2: gradients


def padded_gradients(ground: Ground, example: Example) -> Counterexample | None:
    """2. Gradients with respect to padded inputs are exactly zero."""
    return _gradients_zero(ground, example, "time", GRADIENTS.name)


def padded_feature_gradients(ground: Ground, example: Example) -> Counterexample | None:
    """9. … and with respect to padded features."""
    return _gradients_zero(ground, example, "features", FEATURE_GRADIENTS.name)


def _gradients_zero(ground: Ground, example: Example, over: str, law: str) -> Counterexample | None:
    batch = ground.batch(example)
    x, _ = ground.variant(batch, replace(example, kind="ones"), over=over)
    makers = {} if over == "features" else {
        id(m.layer): ~batch.valid for m in ground.reading.makers if "pad-length" in ground.broken or not m.zeroes
    }
    got = ground.bench.gradients(x, ground.projection(batch), tapped=makers)
    worst, place = 0.0, ""
    for name in ground.reachable if ground.reading.mask_kind != "declared" else ground.reading.values:
        if name in got.inputs:
            there = np.abs(got.inputs[name][ground.material.padded_positions(name, batch, over)])
            if there.size and not there.max() <= worst:
                worst, place = float(np.nan_to_num(there, nan=np.inf).max()), f"input `{name}`"
    for maker in ground.reading.makers:
        gradient = got.tapped.get(id(maker.layer))
        if gradient is not None and gradient.shape[:2] == batch.valid.shape:
            there = np.abs(gradient[~batch.valid])
            if there.size and not there.max() <= worst:
                worst, place = float(np.nan_to_num(there, nan=np.inf).max()), f"what layer `{maker.path}` gives"
    if worst == 0.0:
        return None
    words = (
        f"{batch_words(batch.valid, right=ground.material.right)}; the gradient of the valid outputs with respect to {place} at "
        f"padded {'positions' if over == 'time' else 'features'} is {worst:.3g}, and must be exactly 0."
    )
    where = {"law": law, "phase": "backward"}
    return Counterexample(law, "pad-leak-grad", words, x, {}, worst, 0.0, where, size=example.size)


# ---------------------------------------------------------------------- 3: loss and metrics


def has_padded_targets(ground: Ground) -> str | None:
    """Law 3 needs a loss and targets with a time axis."""
    reason = not_padded(ground)
    if reason:
        return reason
    if not ground.bench.has_loss:
        return "the model is not compiled and no loss was given"
    if not ground.reading.target_time:
        return "the targets have no time axis: none of them is padded"
    return None if max(ground.widths) > 1 else "the model takes one step only: nothing can be padded"


def _other_targets(ground: Ground, batch: Batch, seed: int) -> Leaves:
    rng = np.random.default_rng(seed)
    y = dict(batch.y)
    for name, axis in ground.reading.target_time.items():
        own, leaf = ground.reading.target_rows[name], batch.y[name]
        shape = [1] * leaf.ndim
        shape[0], shape[axis] = batch.valid.shape
        padded = np.broadcast_to(~batch.valid.reshape(shape), leaf.shape)
        if leaf.dtype.kind in "iub" or bool(np.isin(own, (0, 1)).all()):
            pool = np.unique(own)
            other = pool[(np.searchsorted(pool, leaf).clip(0, len(pool) - 1) + 1 + rng.integers(0, max(len(pool) - 1, 1))) % len(pool)]
        else:
            other = leaf + _size(own) * rng.uniform(0.5, 1.5, leaf.shape)
        y[name] = np.where(padded, other, leaf).astype(leaf.dtype)
    return y


def _size(own: Any) -> float:
    return float(np.abs(own[np.isfinite(own)]).max(initial=0.0)) or 1.0


def padded_targets(ground: Ground, example: Example) -> Counterexample | None:
    """3. The loss and the metrics do not change with targets at padded positions."""
    batch = ground.batch(example)
    y = _other_targets(ground, batch, example.seed)
    before, after = ground.loss(batch), ground.loss(batch, y=y)
    allowance = ground.same * max(abs(before), abs(after))
    what, values = "loss", (before, after)
    if _apart(before, after) <= allowance:
        if not getattr(ground.bench.model, "compiled", False) or ground.bench.own_loss is not None:
            return None
        metrics = _moved_metric(ground, batch, y)
        if metrics is None:
            return None
        what, values = metrics
    by = _apart(*values)
    law = TARGETS.name
    words = (
        f"{batch_words(batch.valid, right=ground.material.right)}; the {what} went from {values[0]:.6g} to {values[1]:.6g} when only "
        "targets at padded positions changed."
    )
    return Counterexample(
        law, "pad-leak-loss", words, {**batch.x, **_prefixed(batch.y)}, {**batch.x, **_prefixed(y)}, by, allowance,
        {"law": law, "phase": "loss"}, size=example.size,
        # A metric misleads but does not train; and where no row is padded, nothing has gone wrong yet.
        grave=what == "loss" and not bool(ground.reading.valid.all()),
        remedy="The mean must be over valid positions: pass `sample_weight=mask`, keep the implicit mask up to the output, or "
        "divide the masked sum by the number of valid positions.",
    )  # fmt: skip


def _moved_metric(ground: Ground, batch: Batch, y: Leaves) -> tuple[str, tuple[float, float]] | None:
    structure = ground.reading.targets
    one = ground.bench.metrics(batch.x, packed(structure, batch.y), batch.weight)
    two = ground.bench.metrics(batch.x, packed(structure, y), batch.weight)
    for name, value in one.items():
        if _apart(value, two.get(name, value)) > 16 * ground.same * max(abs(value), 1e-30):
            return f"metric `{name}`", (value, two[name])
    return None


def _apart(one: float, other: float) -> float:
    return float(tolerance.movement(np.array(one), np.array(other)))


def _prefixed(leaves: Leaves) -> Leaves:
    return {f"y[{name}]": leaf for name, leaf in leaves.items()}


def _name_loss(ground: Ground, found: Counterexample) -> Counterexample:
    lost = ground.mask_lost
    if lost is None:
        return found
    words = f"{found.words} Layer `{lost.path}` ({lost.kind}) loses the mask, so the loss cannot see it."
    return replace(found, where={**found.where, "layer": lost.path}, words=words)


# ---------------------------------------------------------------------- 4: more padding


def can_lengthen(ground: Ground) -> str | None:
    """Law 4 needs two widths."""
    reason = not_padded(ground)
    if reason:
        return reason
    if len(ground.reading.widths) < 2:
        return f"the model runs at a width of {ground.reading.width} steps only: padding cannot be added"
    return None


def _second(ground: Ground, example: Example) -> tuple[Batch, Batch]:
    samples = tuple(Sample(min(s.length, example.width), s.row, s.features) for s in example.samples)
    return ground.material.batch(samples, example.width), ground.material.batch(samples, example.more or example.width)


def more_padding(ground: Ground, example: Example) -> Counterexample | None:
    """4. More padding does not change valid outputs or the loss."""
    narrow, wide = _second(ground, example)
    before, after = ground.bench.outputs(narrow.x), ground.bench.outputs(wide.x)
    law = LENGTH.name
    added = example.more - example.width
    moved = ground.moved(before, after, narrow.valid, wide.valid, allowance=ground.noise)
    where: dict[str, Any]
    if moved is not None:
        words = _words(ground, narrow.valid, moved, f"{added} more padded steps were added")
        by, limit, where, grave = moved.by, moved.tolerance, _where(law, moved), True
    else:
        if not ground.bench.has_loss or ground.reading.targets is None:
            return None
        one, two = ground.loss(narrow), ground.loss(wide)
        by, limit = _apart(one, two), ground.noise * max(abs(one), abs(two))
        if by <= limit:
            return None
        words = f"{batch_words(narrow.valid, right=ground.material.right)}; the loss went from {one:.6g} to {two:.6g} when {added} "
        words += "more padded steps were added (the outputs did not move)."
        # With sample weights Keras divides by the number of positions, not by the sum of the weights: a matter of scale.
        where, grave = {"law": law, "phase": "loss"}, narrow.weight is None and "pad-leak-loss" in ground.broken
    return Counterexample(law, "pad-length", words, narrow.x, wide.x, by, limit, where, size=example.size, grave=grave,
                          remedy=_LENGTH_REMEDY)  # fmt: skip


_LENGTH_REMEDY = "The result must be a function of the valid steps. Count positions and means from the mask, not from the array's shape."


def _name_length(ground: Ground, found: Counterexample) -> Counterexample:
    if found.where.get("phase") == "loss":
        return found
    widths = ground.telling_widths if len(ground.telling_widths) > 1 else ground.reading.widths
    narrow_width, wide_width = widths[0], widths[1]
    length = max(narrow_width - 1, 1)
    count = ground.reading.batch_size or 1
    # A full sample has no padding at the narrow width, so that the wide one differs by padding alone.
    samples = (Sample(narrow_width, 0), *(Sample(length, i) for i in range(1, count)))
    narrow, wide = ground.material.batch(samples, narrow_width), ground.material.batch(samples, wide_width)
    call = ground.layer_at_fault(narrow.x, wide.x, narrow.valid, wide.valid, allowance=4 * ground.noise)
    if call is None:
        call = ground.pad_leak_call()
    return at_layer(found, call, _LENGTH_REMEDY)


def more_padding_gradients(ground: Ground, example: Example) -> Counterexample | None:
    """4. … nor gradients."""
    if "pad-length" in ground.broken:
        return None
    narrow, wide = _second(ground, example)
    one = ground.bench.gradients(narrow.x, ground.projection(narrow))
    two = ground.bench.gradients(wide.x, ground.projection(wide))
    law, worst, name = LENGTH_GRADIENTS.name, 0.0, ""
    size = max((tolerance.scale_of(g) for g in one.weights.values()), default=0.0)
    # A gradient is a forward and a backward pass of the same sums: twice the noise, at the size of the largest gradient.
    limit = 2 * ground.noise * size
    for path, gradient in one.weights.items():
        moved = float(tolerance.movement(gradient, two.weights[path]).max(initial=0.0))
        if moved > max(limit, worst):
            worst, name = moved, path
    if not name:
        return None
    words = (
        f"{batch_words(narrow.valid, right=ground.material.right)}; the gradient of `{name}` moved by {worst:.3g} (tolerance "
        f"{limit:.1g}) when {example.more - example.width} more padded steps were added."
    )
    where = {"law": law, "phase": "backward", "parameter": name}
    return Counterexample(law, "pad-length", words, narrow.x, wide.x, worst, limit, where, size=example.size, remedy=_LENGTH_REMEDY)


# ---------------------------------------------------------------------- 5: nothing valid, almost nothing valid


def all_padded(ground: Ground, example: Example) -> Counterexample | None:
    """5. A fully padded sample gives a finite loss and finite gradients, and does not touch the others."""
    batch = ground.batch(example)
    empty = ground.material.batch((Sample(0, example.samples[0].row), *example.samples[1:]), example.width)
    others = batch.valid.copy()
    others[0] = False
    before, after = ground.bench.outputs(batch.x), ground.bench.outputs(empty.x)
    law, grave = ALL_PADDED.name, not bool(ground.reading.valid.any(axis=1).all())
    words = batch_words(empty.valid, right=ground.material.right).replace(", all padded", ", the first sample all padded")
    moved = ground.moved(before, after, others)
    trouble: str | None = None
    where: dict[str, Any] = {"law": law, "phase": "forward"}
    if moved is not None:
        trouble, where = f"the output of sample {moved.sample} moved by {moved.by:.3g}", _where(law, moved)
    pooled = [a for a, axis in zip(after, ground.reading.output_time, strict=True) if axis is None]
    if trouble is None and finite(before) and not finite(pooled):
        trouble, where = "its pooled output is not finite", {**where, "sample": 0}
    if trouble is None and ground.bench.has_loss and ground.reading.targets is not None:
        loss = ground.loss(empty)
        if not np.isfinite(loss) and np.isfinite(ground.loss(batch)):
            trouble, where = f"the loss is {loss}", {**where, "phase": "loss"}
    if trouble is None and finite(before):
        reduce = ground.projection(empty, rows=others | (empty.valid.any() & empty.valid))
        got = ground.bench.gradients(empty.x, reduce)
        sick = [name for name, g in got.weights.items() if not np.isfinite(g).all()]
        if sick:
            trouble, where = f"the gradient of `{sick[0]}` is not finite", {**where, "phase": "backward", "parameter": sick[0]}
    if trouble is None:
        return None
    return Counterexample(
        law, "pad-all-masked", f"{words}; {trouble}.", batch.x, empty.x, moved.by if moved else float("inf"), 0.0, where,
        size=example.size, grave=grave,
        remedy="Divide by max(number of valid steps, 1), and give attention a finite score where every key is masked.",
    )  # fmt: skip


def _name_all_padded(ground: Ground, found: Counterexample) -> Counterexample:
    example = ground.padded_example()
    empty = ground.material.batch((Sample(0, 0), *example.samples[1:]), example.width)
    for call in ground.bench.calls(empty.x):
        if finite(call.inputs) and not finite(call.outputs):
            words = f"{found.words} Layer `{call.path}` ({call.kind}) is the first whose output is not finite."
            return replace(found, where={**found.where, "layer": call.path}, words=words)
    return found


def smallest_batches(ground: Ground, example: Example) -> Counterexample | None:
    """5. Nor does a batch of one, a sequence of one step, a single valid feature."""
    law = SMALLEST.name
    count = ground.reading.batch_size or 1
    for width in sorted({min(ground.reading.widths), max(ground.widths)}):
        for length in (1, width):
            features = 1 if ground.material.feature_size else 0
            batch = ground.material.batch([Sample(length, example.samples[0].row, features)] * count, width)
            if not finite([leaf.astype(float) for leaf in batch.x.values()]):
                continue
            outputs = ground.bench.outputs(batch.x)
            kept = [
                o if axis is None else np.moveaxis(o, axis, 1)[batch.valid]
                for o, axis in zip(outputs, ground.reading.output_time, strict=True)
            ]
            got = ground.bench.gradients(batch.x, ground.projection(batch)) if finite(kept) else None
            sick = [] if got is None else [name for name, g in got.weights.items() if not np.isfinite(g).all()]
            if got is not None and not sick:
                continue
            phase = "backward" if sick else "forward"
            words = f"{batch_words(batch.valid, right=ground.material.right)}: the {'gradients are' if sick else 'output is'} not finite."
            return Counterexample(law, "pad-all-masked", words, batch.x, {}, float("inf"), 0.0, {"law": law, "phase": phase},
                                  size=(count, width, length), remedy="Guard divisions by counts and variances of one value.")  # fmt: skip
    return None


# ---------------------------------------------------------------------- the laws

VALUES = Law("padded values do not change valid outputs", "pad-leak-value", padded_values, can_vary, padded_batches,
             finish=_name_leak)  # fmt: skip
GRADIENTS = Law("padded inputs have no gradient", "pad-leak-grad", padded_gradients, can_vary, padded_batches, 0.4,
                finish=_name_leak)  # fmt: skip
NAN = Law("NaN and inf at padded positions stay there", "pad-nan-poison", padded_nan, can_be_nan, padded_batches, 0.6,
          finish=_name_nan)  # fmt: skip
NAN_BACKWARD = Law("NaN and inf at padded positions reach no gradient", "pad-nan-poison", padded_nan_backward, can_be_nan,
                   padded_batches, 0.4, finish=_name_backward)  # fmt: skip
TARGETS = Law("padded targets do not change the loss", "pad-leak-loss", padded_targets, has_padded_targets, padded_batches, 0.6,
              finish=_name_loss)  # fmt: skip
LENGTH = Law("more padding changes nothing", "pad-length", more_padding, can_lengthen, two_widths, finish=_name_length)
LENGTH_GRADIENTS = Law("more padding changes no gradient", "pad-length", more_padding_gradients, can_lengthen, two_widths, 0.3)
ALL_PADDED = Law("a fully padded sample is harmless", "pad-all-masked", all_padded, not_padded, padded_batches, 0.4,
                 finish=_name_all_padded)  # fmt: skip
SMALLEST = Law("the smallest batches are finite", "pad-all-masked", smallest_batches, not_padded, padded_batches, once=True)
FEATURE_VALUES = Law("padded features do not change valid outputs", "pad-leak-value", padded_feature_values, _has_features,
                     padded_features, finish=_name_feature_leak)  # fmt: skip
FEATURE_GRADIENTS = Law("padded features have no gradient", "pad-leak-grad", padded_feature_gradients, _has_features,
                        padded_features, 0.3, finish=_name_feature_leak)  # fmt: skip
