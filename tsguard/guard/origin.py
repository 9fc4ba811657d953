"""From the trip back to the operation that made the first bad value.

"Finite in, not finite out" alone would accuse every −∞ that attention writes on purpose. So the walk starts at what
tripped (the loss, a gradient, a weight), follows only bad values backwards to whoever wrote them, and ends at
operations whose inputs were all finite, or at data that was bad from the start. An infinity that something absorbed on
the way is never met. Where the walk ends in a deliberate fill, the culprit is the operation that turned that infinity
into a NaN.
"""

from __future__ import annotations

import linecache
import math
from collections.abc import Iterable
from typing import Any

import torch

from tsguard.evidence import Evidence
from tsguard.guard.axes import FEATURE, SAMPLE, TIMESTEP, Tag
from tsguard.guard.mechanism import Mechanism, explain, first_bad, is_fill, operand_values
from tsguard.guard.outcome import Element, Origin
from tsguard.guard.recorder import StepRecord
from tsguard.guard.records import Leaf, OpRecord
from tsguard.guard.replay import Listener
from tsguard.guard.tensors import is_bad
from tsguard.guard.terms import loss_term
from tsguard.guard.trace import Trace

CODES = {
    "forward": "nonfinite-forward",
    "loss": "nonfinite-loss",
    "backward": "nonfinite-backward",
    "update": "nonfinite-update",
}


SELECTIONS = frozenset("where masked_fill minimum maximum clamp clamp_min clamp_max fmin fmax amin amax index".split())
"""Operations that pick among values: what they leave out had no part in the loss, only its slope comes back."""


def find(trace: Trace, heard: Listener, record: StepRecord, model: Any) -> Origin | None:
    """The origin of what went wrong in the traced step, or None where nothing did."""
    start = _start(trace, heard, model)
    if start is None:
        return None
    phase, sources, parameter, hidden_by = start
    producers, leaves, makers = _walk(sources)
    producers = [deeper for producer in producers for deeper in _through_python(trace, producer)]
    real = [producer for producer in producers if not is_fill(producer)]
    data = [(leaf, found) for leaf in leaves if (found := trace.batch.find(leaf.value)) is not None]
    term = loss_term(heard, model)
    if data and not any(producer.index < _first_use(makers, producers) for producer in real):
        return _from_data(trace, record, data, phase, term, hidden_by, model)
    if real:
        chosen = real[0]
        others = tuple(_named(other) for other in real[1:4])
        return _from_operation(trace, record, chosen, term, parameter, hidden_by, others, heard)
    if makers:
        return _from_operation(trace, record, makers[0], term, parameter, hidden_by, (), heard)
    weights = [name for leaf in leaves if (name := _variable_of(leaf, model)) is not None]
    if weights:
        return Origin(
            record.step, "update", None, None, "nonfinite-update",
            f"`{weights[0]}` was not finite before this step began", "unknown", own=False, parameter=weights[0],
            hidden_by=hidden_by,
        )  # fmt: skip
    if producers:
        return _from_operation(trace, record, producers[0], term, parameter, hidden_by, (), heard)
    if leaves:
        return Origin(
            record.step, phase, None, None, CODES.get(phase, "nonfinite-forward"),
            "a constant of the model that is not finite came in", "unknown", own=False, hidden_by=hidden_by,
            loss_term=term,
        )  # fmt: skip
    return None


def _through_python(trace: Trace, producer: OpRecord) -> list[OpRecord]:
    """A number that is not finite may have come by way of Python (a learning rate): then the tensor it was read
    from."""
    if all(not isinstance(value, float) or math.isfinite(value) for _, value, _ in producer.operands):
        return [producer]
    read = [r for r in trace.records if r.name == "local_scalar_dense" and r.bad_in and r.index < producer.index]
    if not read:
        return [producer]
    deeper, _, _ = _walk(read[-1].sources)
    return deeper or [producer]


def _first_use(makers: list[OpRecord], producers: list[OpRecord]) -> int:
    return min((record.index for record in [*makers, *producers]), default=0)


def _start(
    trace: Trace, heard: Listener, model: Any
) -> tuple[str, list[OpRecord | Leaf], str | None, str | None] | None:
    """What is bad, in the order of a step: the loss, then a gradient, then a weight, then what the model hides."""
    if heard.loss is not None and is_bad(heard.loss):
        return "loss", trace.sources_of(heard.loss), None, None
    for output in heard.outputs:
        return "forward", trace.sources_of(output), None, None
    for name, term in heard.terms.items():
        if is_bad(term):
            return (
                "loss",
                trace.sources_of(term),
                None,
                f"the loss is {_shown(heard.loss)} although its term {name} is not finite",
            )
    bad = [(v, g) for v, g in zip(heard.variables, heard.gradients, strict=False) if is_bad(g)]
    hidden = _hidden(trace)
    if bad and hidden is None:
        sources = [source for _, gradient in bad for source in trace.sources_of(gradient)]
        return "backward", sources, str(bad[0][0].path), None
    if hidden is not None:
        return "loss", hidden.sources, None, _hider(hidden)
    for variable in [*model.variables, *getattr(model.optimizer, "variables", ())]:
        value = variable.value.detach()
        if is_bad(value):
            return "update", trace.sources_of(value), str(variable.path), None
    return None


def _shown(loss: torch.Tensor | None) -> str:
    return "unknown" if loss is None else f"{float(loss):.6g}"


def _hidden(trace: Trace) -> OpRecord | None:
    """A test for NaN, or an absorber, whose bad input an operation of this step made (and not the data: that is
    handling)."""
    for ask in trace.asks:
        if not ask.nan_in and ask.name not in ("nan_to_num", "isfinite", "isinf"):
            continue
        producers, _, makers = _walk(ask.sources)
        if any(not is_fill(p) for p in producers) or makers:
            return ask
    return None


def _hider(ask: OpRecord) -> str:
    where = f" in {ask.file}:{ask.line}" if ask.file else (f" in layer {ask.layer}" if ask.layer else "")
    word = {"local_scalar_dense": "a test of its value in Python", "ne": "x != x", "eq": "x == x"}.get(
        ask.name, ask.name
    )
    return f"{word}{where}"


def _walk(sources: Iterable[OpRecord | Leaf]) -> tuple[list[OpRecord], list[Leaf], list[OpRecord]]:
    """Producers (finite in, bad out), leaves (bad from the start) and NaN-makers (∞ in, NaN out) on the slice, in
    order."""
    seen: set[int] = set()
    producers, leaves, makers = [], [], []
    queue = list(sources)
    while queue:
        item = queue.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, Leaf):
            leaves.append(item)
            continue
        if not item.bad_in:
            producers.append(item)
        elif item.nan_out and not item.nan_in:
            makers.append(item)
        queue.extend(item.sources)
    producers.sort(key=lambda record: record.index)
    makers.sort(key=lambda record: record.index)
    return producers, leaves, makers


# -- an operation ---------------------------------------------------------------------------------------------------


def _from_operation(
    trace: Trace, record: StepRecord, chosen: OpRecord, term: str | None, parameter: str | None, hidden_by: str | None,
    others: tuple[str, ...], heard: Listener,
) -> Origin:  # fmt: skip
    index, tag, count = first_bad(chosen)
    mechanism = explain(chosen, index)
    belongs = chosen.forward if chosen.phase == "backward" and chosen.forward is not None else chosen
    phase = chosen.phase if chosen.phase in CODES else "forward"
    if phase in ("forward", "loss") and not hidden_by and _only_slope(trace, chosen, heard):
        phase = "backward"
        mechanism = Mechanism(
            f"{mechanism.words}; the forward pass leaves that value out, but its slope is not finite either, and in "
            "backward 0 · ∞ is NaN",
            mechanism.kind,
        )
    elif phase == "loss" and parameter is not None and trace.turned is not None and chosen.index > trace.turned:
        phase = "backward"  # what a step of one's own does to gradients before it applies them
    if chosen.phase == "backward":
        tag = _backward_tag(chosen, index, tag)
    elif not tag.known:
        index, tag = _input_element(chosen, index, tag)
    element = None if mechanism.kind == "empty" and not index else _element(index, tag, count)
    values = tuple(
        (name, value) for name, value in operand_values(chosen, index if not index or _fits(chosen, index) else None)
    )
    code = _code(mechanism, phase, hidden_by)
    file, line = (
        (chosen.file, chosen.line) if chosen.file and chosen.phase == "backward" else (belongs.file, belongs.line)
    )
    source = linecache.getline(file, line).strip() if file and line else None
    words = mechanism.words + (f"; hidden by {hidden_by}" if hidden_by else "")
    evidence = [Evidence("value", value, name=name, step=record.step) for name, value in values]
    if source:
        evidence.append(Evidence("source", source, name=f"{file}:{line}", step=record.step))
    if chosen.node:
        evidence.append(
            Evidence("value", f"{chosen.name} in {chosen.node}", name="backward operation", step=record.step)
        )
    return Origin(
        record.step, phase, belongs.name, belongs.layer, code, words, mechanism.kind,
        own=bool(belongs.own or (chosen.phase == "backward" and chosen.own)), element=element, values=values,
        loss_term=term if _term_tells(phase, term, belongs, heard) else None,
        file=file, line=line, source=source, parameter=parameter if phase in ("backward", "update") else None,
        hidden_by=hidden_by, others=others, evidence=tuple(evidence),
    )  # fmt: skip


def _term_tells(phase: str, term: str | None, belongs: OpRecord, heard: Listener) -> bool:
    """Whether naming the loss term says something: a fault of the forward pass reaches all terms behind it."""
    return phase == "loss" or (phase == "forward" and (term == belongs.layer or _some_terms_fine(heard)))


def _only_slope(trace: Trace, chosen: OpRecord, heard: Listener) -> bool:
    """Whether a bad value of the forward pass was left out by a selection, so that only the gradient met it."""
    if (heard.loss is not None and is_bad(heard.loss)) or any(map(is_bad, heard.terms.values())):
        return False
    absorbers = [r for r in trace.records if r.bad_in and not r.bad and r.phase in ("forward", "loss")]
    reached = [r for r in absorbers if _reaches(r, chosen)]
    return bool(reached) and all(r.name in SELECTIONS for r in reached)


def _reaches(record: OpRecord, producer: OpRecord) -> bool:
    seen: set[int] = set()
    queue: list[OpRecord | Leaf] = list(record.sources)
    while queue:
        item = queue.pop()
        if item is producer:
            return True
        if id(item) not in seen and isinstance(item, OpRecord):
            seen.add(id(item))
            queue.extend(item.sources)
    return False


def _some_terms_fine(heard: Listener) -> bool:
    """Whether a fault of the forward pass reached only some of the loss terms: then their name says something."""
    bad = [is_bad(value) for value in heard.terms.values()]
    return any(bad) and not all(bad)


def _fits(record: OpRecord, index: tuple[int, ...]) -> bool:
    return bool(record.outputs) and len(index) == record.outputs[0][0].ndim


def _named(record: OpRecord) -> str:
    place = f" in {record.layer}" if record.layer else ""
    return f"{record.name}{place}"


def _code(mechanism: Mechanism, phase: str, hidden_by: str | None) -> str:
    if hidden_by:
        return "nan-hidden"
    if mechanism.kind == "precision":
        return "precision-overflow"
    if mechanism.kind == "empty" and phase == "loss":
        return "loss-empty-selection"
    return CODES[phase]


def _backward_tag(record: OpRecord, index: tuple[int, ...] | None, tag: Tag) -> Tag:
    """A gradient has the shape of the forward tensor that it belongs to, and so its axes mean the same."""
    if index is None or record.forward is None or not record.outputs:
        return tag
    shape = next(
        (tuple(value.shape) for value, _ in record.outputs if value.ndim == len(index) and is_bad(value)), None
    )
    forward = record.forward
    candidates = [*forward.tags_in, *[(tuple(v.shape), t) for v, t in forward.outputs]]
    for known_shape, known in candidates:
        if known_shape == shape:
            return known
    return tag


def _input_element(record: OpRecord, index: tuple[int, ...] | None, tag: Tag) -> tuple[tuple[int, ...] | None, Tag]:
    """Where the output says nothing (a sum over all), an input that stands out may: the largest number in it. A NaN is
    made by all of them together."""
    if record.nan_out:
        return index, Tag(())
    known = [
        (value, t) for _, value, t in record.operands if isinstance(value, torch.Tensor) and t.known and value.numel()
    ]
    if not known:
        return index, tag
    value, its = known[0]
    if not value.is_floating_point():
        return index, tag
    flat = int(torch.argmax(torch.nan_to_num(value.double().abs(), nan=float("inf")).flatten()).item())
    place = []
    for size in reversed(value.shape):
        flat, own = divmod(flat, size)
        place.append(own)
    return tuple(reversed(place)), its


def _element(index: tuple[int, ...] | None, tag: Tag, count: int) -> Element | None:
    if index is None:
        return None
    place = tag.place(index)
    return Element(
        index,
        sample=place.get(SAMPLE),
        timestep=place.get(TIMESTEP),
        feature=place.get(FEATURE),
        count=count,
        of=tag.of,
    )


# -- the data -------------------------------------------------------------------------------------------------------


def _from_data(
    trace: Trace, record: StepRecord, data: list[Any], phase: str, term: str | None, hidden_by: str | None, model: Any
) -> Origin:
    """Bad before the step began: which array, which sample, timestep and feature, and whether that place is padding."""
    data.sort(key=lambda pair: ("x", "y", "sample_weight").index(pair[1][0]))
    kind, name, array, tag = data[0][1]
    bad = ~torch.isfinite(array)
    places = bad.nonzero()
    index = tuple(int(i) for i in places[0].tolist())
    place = tag.place(index)
    word = "NaN" if bool(torch.isnan(array).any()) else "an infinity"
    where = "".join(f", {key} {place[key]}" for key in (SAMPLE, TIMESTEP, FEATURE) if key in place)
    title = {
        "x": f"input `{name}`" if name else "the input x",
        "y": f"target `{name}`" if name else "the target y",
    }.get(kind, "the sample weights")
    if kind == "x" and _padded(trace, array, bad):
        words = (
            f"{word} stands at padded positions of {title} ({len(places)} in all, the first at{where[1:]}): a "
            f"mask does not "
            "stop it, because 0 · NaN is NaN"
        )
        code, mechanism = "pad-nan-poison", "padding"
    else:
        words = f"{word} is already in {title} ({len(places)} in all, the first at{where[1:]})"
        code, mechanism = ("nan-hidden" if hidden_by else "data-nonfinite"), "data"
    element = Element(
        index, place.get(SAMPLE), place.get(TIMESTEP), place.get(FEATURE), count=len(places), of=(kind, name)
    )
    return Origin(
        record.step, "data", None, None, code, words, mechanism, own=False, element=element,
        values=((name or kind, float("nan") if word == "NaN" else float(array[index])),), hidden_by=hidden_by,
        input=(name or "x") if kind == "x" else None, output=(name or "y") if kind == "y" else None,
        evidence=(Evidence("value", len(places), name=f"bad values in {title}", step=record.step),),
    )  # fmt: skip


def _padded(trace: Trace, array: torch.Tensor, bad: torch.Tensor) -> bool:
    """Whether every bad position is one that some mask of the step calls padding."""
    if array.ndim < 2:
        return False
    rows = bad.reshape(*bad.shape[:2], -1).any(dim=-1)
    masks = [mask.detach().cpu() for mask in trace.masks]
    masks += [value for kind, _, value in trace.batch.parts if kind == "x" and value is not array and _like_mask(value)]
    for mask in masks:
        if mask.ndim == 3 and mask.shape[-1] == 1:
            mask = mask[..., 0]
        if (
            tuple(mask.shape) == tuple(rows.shape)
            and not bool(mask.bool().all())
            and not bool((rows & mask.bool()).any())
        ):
            return True
    return False


def _like_mask(value: torch.Tensor) -> bool:
    return value.ndim in (2, 3) and bool(((value == 0) | (value == 1)).all())


# -- names ----------------------------------------------------------------------------------------------------------


def _variable_of(leaf: Leaf, model: Any) -> str | None:
    for variable in model.variables:
        value = variable.value.detach()
        if tuple(value.shape) == tuple(leaf.value.shape) and is_bad(value):
            return str(variable.path)
    return None
