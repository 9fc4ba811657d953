"""The law of the mask's way: it arrives at the layers that mix steps, and where it does not, the layer that loses it is
named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tsguard.laws.batches import Batch, Example
from tsguard.laws.compare import Moved
from tsguard.laws.ground import Ground, batch_words, fill_masked
from tsguard.laws.law import Law, not_padded, padded_batches
from tsguard.laws.length import can_lengthen
from tsguard.laws.results import Counterexample
from tsguard.laws.structure import Leaves
from tsguard.laws.trace import Call, Taps, mask_of, without_mask


def has_mask(ground: Ground) -> str | None:
    """Laws of the mask need one."""
    reason = not_padded(ground)
    if reason:
        return reason
    if ground.reading.mask_kind not in ("input", "keras"):
        return "the model takes no mask and makes none"
    return None if max(ground.widths) > 1 else "the model takes one step only: nothing can be padded"


def mask_counts(ground: Ground, example: Example) -> Counterexample | None:
    """6. Flipping the mask changes the output; otherwise it got lost."""
    return _input_unused(ground, example) if ground.reading.mask_kind == "input" else _lost_on_the_way(ground, example)


def _input_unused(ground: Ground, example: Example) -> Counterexample | None:
    if not leaks(ground):
        return None  # padded positions are harmless without it, as in a causal model padded to the right
    batch = ground.batch(example)
    x, _ = ground.variant(batch, replace(example, kind="ones"))
    flipped = with_mask(ground, x, np.ones_like(batch.valid))
    everywhere = np.ones_like(batch.valid)
    if ground.moved(ground.bench.outputs(x), ground.bench.outputs(flipped), everywhere) is not None:
        return None
    law = COUNTS.name
    leak = next(ground.broken[c] for c in _LEAKS if c in ground.broken)
    words = (
        f"{batch_words(batch.valid, right=ground.material.right)}; setting the mask input `{ground.reading.mask}` "
        f"to all ones changes "
        "no output at all: nothing in the model uses it."
    )
    return Counterexample(
        law,
        "mask-dropped",
        words,
        x,
        flipped,
        0.0,
        0.0,
        {"law": law, "phase": "forward", "input": ground.reading.mask, "layer": leak.layer},
        size=example.size,
        remedy="Hand the mask to the layers that mix steps: attention, pooling, recurrence.",
    )


_LEAKS = ("pad-leak-value", "pad-length", "pad-leak-grad")


def leaks(ground: Ground) -> bool:
    """Whether padded positions are known to count."""
    return any(code in ground.broken for code in _LEAKS)


def _lost_on_the_way(ground: Ground, example: Example) -> Counterexample | None:
    lost = ground.mask_lost
    if lost is None:
        return _not_taken(ground, example)
    batch = ground.batch(example)
    x, taps = ground.variant(batch, example, force=True)
    plain = ground.bench.outputs(batch.x)
    moved = ground.moved(plain, ground.bench.outputs(x, taps=taps), batch.valid)
    from_here = False
    if moved is None:
        # What is masked may have been replaced on the way (a recurrent layer repeats its last output).
        taps = Taps(arguments={id(lost.layer): _fill_masked_arguments})
        moved = ground.moved(plain, ground.bench.outputs(batch.x, taps=taps), batch.valid)
        from_here = moved is not None
    leak = ground.broken.get("pad-leak-loss")
    loss_sees = leak is not None and leak.where.get("phase") == "loss"
    if moved is None and not loss_sees:
        return None
    effect = f"then moves the output by {moved.by:.3g}" if moved else "then counts in the loss"
    if from_here and not leaks(ground):
        effect += " (today the layers before it put harmless values there)"
    return _dropped(
        ground,
        example,
        batch,
        lost,
        "takes a tensor with a mask and hands on one without, and what is padded " + effect,
        moved,
        grave=leaks(ground) or loss_sees or _missed_later(ground, lost) or not (from_here or _only_zeros(ground, lost)),
    )


def _missed_later(ground: Ground, lost: Call) -> bool:
    """Whether a layer after the loss would have used the mask: then its author counted on it."""
    after = False
    for call in ground.bench.calls(ground.batch(ground.padded_example()).x):
        if after and call.mask_in is None and _takes_mask(call) and call.layer is not ground.bench.model:
            return True
        after = after or call.layer is lost.layer
    return False


def _not_taken(ground: Ground, example: Example) -> Counterexample | None:
    """Every layer hands the mask on, but the one that mixes steps does not take it, or takes it for nothing."""
    if not leaks(ground) and (can_lengthen(ground) is None or ground.can_vary):
        return None  # the laws of leaks were asked, and hold
    batch = ground.batch(example)
    x, taps = ground.variant(batch, example, force=True)
    moved = ground.moved(ground.bench.outputs(batch.x), ground.bench.outputs(x, taps=taps), batch.valid)
    named = ground.broken["pad-length"].layer if "pad-length" in ground.broken else None
    call = ground.pad_leak_call() if moved else None
    if call is None:
        call = next((c for c in ground.bench.calls(batch.x) if c.path == named), None)
    if call is None:
        return None
    if call.mask_in is None:
        how = "gets no mask: it was lost in the code that calls it"
    elif not _takes_mask(call):
        how = "does not take the mask"
    elif _makes_no_difference(ground, batch, call):
        how = "is given the mask and does not use it"
    else:
        return None
    return _dropped(ground, example, batch, call, how, moved, grave=leaks(ground) or not _only_zeros(ground, call))


def _takes_mask(call: Call) -> bool:
    signature = getattr(call.layer, "_call_signature", None)
    return signature is not None and any("mask" in name for name in signature.parameters)


def _makes_no_difference(ground: Ground, batch: Batch, call: Call) -> bool:
    """Whether the layer gives the same without its mask, where padded positions hold something else."""
    fill, strip = _fill_masked_arguments, _strip_masks

    def filled_and_stripped(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return strip(*fill(args, kwargs))

    def given(change: Any) -> Call | None:
        calls = ground.bench.calls(batch.x, taps=Taps(arguments={id(call.layer): change}))
        return next((c for c in calls if c.layer is call.layer), None)

    try:
        with_mask, without = given(fill), given(filled_and_stripped)
    except Exception:  # a layer may refuse to be called without a mask: then it uses it
        return False
    if with_mask is None or without is None:
        return False
    return all(np.array_equal(a, b) for a, b in zip(with_mask.outputs, without.outputs, strict=True))


def _strip_masks(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The call without any mask: attached to the inputs, or named so."""
    bare = tuple(without_mask(value, mask_of(value)) for value in args)
    return bare, {name: None if "mask" in name else value for name, value in kwargs.items()}


def _dropped(
    ground: Ground, example: Example, batch: Batch, call: Call, how: str, moved: Moved | None, *, grave: bool
) -> Counterexample:
    law = COUNTS.name
    words = f"{batch_words(batch.valid, right=ground.material.right)}; layer `{call.path}` ({call.kind}) {how}."
    return Counterexample(
        law,
        "mask-dropped",
        words,
        batch.x,
        moved=moved.by if moved else 0.0,
        tolerance=moved.tolerance if moved else 0.0,
        where={"law": law, "phase": "forward", "layer": call.path},
        size=example.size,
        # Where no row of the data is padded, a mask that gets lost has done no harm yet.
        grave=grave and not bool(ground.reading.valid.all()),
        remedy=f"Set `supports_masking = True` on `{call.path}` if it may pass the mask on, use a layer that keeps "
        "it, or take the mask before it (`layer.compute_mask`) and hand it to the layers after it.",
    )


def _fill_masked_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The call with other values at masked positions of its inputs."""
    fill = fill_masked("data", 1)
    return tuple(fill(value, mask_of(value)) if mask_of(value) is not None else value for value in args), kwargs


def _only_zeros(ground: Ground, asked: Call) -> bool:
    """Whether padded positions hold exact zeros where this layer reads them: then a sum over them is still right."""
    batch = ground.batch(ground.padded_example())
    call = next((c for c in ground.bench.calls(batch.x) if c.layer is asked.layer), None)
    if call is None:
        return False
    inputs = [a for a in call.inputs if a.ndim >= 2 and a.shape[:2] == batch.valid.shape]
    return all(bool((a[~batch.valid] == 0).all()) for a in inputs)


def with_mask(ground: Ground, x: Leaves, valid: Any) -> Leaves:
    """The inputs with a mask input that says what is valid."""
    reading = ground.reading
    assert reading.mask is not None
    name = reading.mask
    return {**x, name: ground.material.mask_leaf(reading.rows[name], reading.time.get(name, 1), valid)}


COUNTS = Law("the mask reaches the layers that need it", "mask-dropped", mask_counts, has_mask, padded_batches, 0.4)
