"""What laws ask, in lines that need Keras alone, by what a counterexample shows.

What moved, what is not finite, what has a gradient and what a layer makes of its mask can be said so. Laws whose
statement needs more (a mask that is lost in code between two layers) are asked through `tsguard.laws`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tsguard.dataset import leaves
from tsguard.findings import Finding
from tsguard.laws.batch import ORDER
from tsguard.laws.polarity import TRUE_VALUES
from tsguard.repro.case import Batch
from tsguard.repro.code.arrays import plain
from tsguard.repro.questions import Found, Question, read_back

SAME = 1e-4
"""Share of the largest answer by which two answers may differ where the law itself names no tolerance."""


def question_of(finding: Finding, test: str, model: Any, like: Batch) -> Question | None:
    """The question of a finding; None where no form fits, or its counterexample was too large to be written."""
    found = read_back(finding, test, model, like)
    return None if found is None else next((asked for form in FORMS if (asked := form(found)) is not None), None)


def _output_moved(found: Found) -> Question | None:
    """One place of an output must not have moved."""
    sample, step = found.where.get("sample"), found.where.get("timestep")
    if found.changed is None or not isinstance(sample, int) or "tolerance" not in found.distance:
        return None
    key = _key(found.answers, found.where.get("output"))
    if key is None:
        return None
    rows = (sample, sample)
    if found.law == ORDER.name:
        rows = (len(next(iter(leaves(found.x)))) - 1 - sample, sample)
    steps = (None, None) if not isinstance(step, int) else (step, _same_step(found, rows, step))
    first, second = (f"[{r}]" if s is None else f"[{r}, {s}]" for r, s in zip(rows, steps, strict=True))
    training = found.law.endswith("in training")
    asked = "at({})" if training else "model({})"
    place = f"step {step} of sample {sample}" if isinstance(step, int) else f"sample {sample}"
    tolerance = f"{float(found.distance['tolerance']):.1g}"
    before, after = asked.format("x"), asked.format("changed")
    lines = [
        f"moved = keras.ops.max(keras.ops.abs({before}{key}{first} - {after}{key}{second}))",
        f"held = moved <= {tolerance}",
    ]
    if training:  # what is drawn must be drawn alike both times
        seeded = ["def at(batch):", "    keras.utils.set_random_seed(0)", "    return model(batch, training=True)"]
        lines = [*seeded, *lines]
    return Question(
        tuple(lines),
        f"the output at {place} moved by {{moved:.3g}}; allowed is {tolerance}",
        {"x": found.x, "changed": found.changed},
    )


def _same_step(found: Found, rows: tuple[int, int], step: int) -> int:
    """The step of the changed batch that is the same valid one: padding may stand before it."""
    one, two = found.valid, found.valid_changed
    if one is None or two is None or not one[rows[0], step]:
        return step
    rank, places = int(one[rows[0], :step].sum()), np.flatnonzero(two[rows[1]])
    return int(places[rank]) if rank < len(places) else step


def _key(answers: Any, output: Any) -> str | None:
    """How the output is reached among several, in code; None where it cannot be told."""
    if isinstance(answers, Mapping):
        return f"[{plain(output)}]" if output in answers else None
    if isinstance(answers, list | tuple):
        number = str(output).removeprefix("output_")
        return f"[{number}]" if number.isdigit() and int(number) < len(answers) else None
    return ""


def _mask_unused(found: Found) -> Question | None:
    """Another mask must change some output."""
    if found.finding.code != "mask-dropped" or "input" not in found.where or found.changed is None or found.own_loss:
        return None
    lines = (
        "pairs = zip(keras.tree.flatten(model(x)), keras.tree.flatten(model(changed)))",
        "held = any(bool(keras.ops.any(one != two)) for one, two in pairs)",
    )
    said = f"another mask `{found.where['input']}` changes an output: {{held}}"
    return Question(lines, said, {"x": found.x, "changed": found.changed})


def _true_values_masked(found: Found) -> Question | None:
    """No step between two that count is masked because of its values."""
    if found.law != TRUE_VALUES.name or not isinstance(found.x, np.ndarray):
        return None
    lines = (
        "masking = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.Masking)]",
        "masks = [layer.compute_mask(x).int() for layer in masking]",
        "inside = [~mask.bool() & (mask.cumsum(1) > 0) & (mask.flip(1).cumsum(1).flip(1) > 0) for mask in masks]",
        "hidden = sum(int(one.sum()) for one in inside)",
        "held = hidden == 0",
    )
    return Question(lines, "{hidden} steps between valid ones are masked", {"x": found.x})


def _mask_lost(found: Found) -> Question | None:
    """What stands at masked steps of what a layer is given must not move what is valid."""
    layer = str(found.where.get("layer", "")).rpartition("/")[2]
    if found.finding.code != "mask-dropped" or not layer or found.changed is not None or not _single(found):
        return None
    asked = f"[layer for layer in model.layers if layer.name == {plain(layer)}]"
    if found.operation:  # of `keras.ops`: its name is given anew wherever the graph is made again
        every = 'getattr(model, "operations", [])'
        asked = f"[one for one in {every} if type(one).__name__ == {plain(found.operation)}]"
    lines = (
        "def filled(given, named):",
        '    mask = named.get("mask", getattr(given, "_keras_mask", None))',
        "    return given if mask is None else keras.ops.where(mask[..., None], given, given + 1.0)",
        "one = model(x)",
        f"asked = {asked}",
        # A mended model may have another layer there: of one that is sound, no layer minds.
        "for layer in asked or model.layers:",
        "    layer.call = lambda given, *more, own=layer.call, **named: own(filled(given, named), *more, **named)",
        f"moved = keras.ops.max(keras.ops.abs(one - model(x)){found.index})",
        f"held = moved <= {SAME:g} * keras.ops.max(keras.ops.abs(one))",
    )
    said = f"other values at masked steps of what `{layer}` is given moved valid outputs by {{moved:.3g}}"
    more = {"valid": found.valid} if found.index else {}
    return Question(lines, said, {"x": found.x, **more})


def _mask_turned(found: Found) -> Question | None:
    """What stands at padded positions must not move what is valid; the law of polarity names no single place."""
    if found.finding.code != "mask-inverted" or found.changed is None or not _single(found):
        return None
    lines = (
        f"one, two = model(x){found.index}, model(changed){found.index}",
        "moved = keras.ops.max(keras.ops.abs(one - two))",
        f"held = moved <= {SAME:g} * keras.ops.max(keras.ops.abs(one))",
    )
    more = {"valid": found.valid} if found.index else {}
    return Question(lines, "valid outputs moved by {moved:.3g}", {"x": found.x, "changed": found.changed, **more})


def _gradient_at_padding(found: Found) -> Question | None:
    """Valid outputs must have no gradient with respect to padded inputs."""
    if found.finding.code != "pad-leak-grad" or isinstance(found.x, list | tuple):
        return None
    if "feature" in found.law:
        return _gradient_at_padded_features(found)
    if not _single(found) or found.valid.all():
        return None
    flags = tuple(found.valid.shape)
    inputs = found.x.items() if isinstance(found.x, Mapping) else [("", found.x)]
    names = [
        f"x[{plain(name)}]" if name else "x"
        for name, leaf in inputs
        if leaf.dtype.kind == "f" and leaf.shape[:2] == flags and name != found.declared.get("mask")
    ]
    if not names:
        return None
    lines = (
        f"reached = [one.requires_grad_() for one in [{', '.join(names)}]]",
        f"keras.ops.sum(keras.ops.square(model(x){found.index})).backward()",
        "there = [keras.ops.abs(one.grad[~valid]) for one in reached if one.grad is not None]",
        "worst = max([keras.ops.max(one) for one in there], default=0)",
        "held = worst == 0",
    )
    return Question(lines, "gradient at padded inputs: {worst:.3g}", {"x": found.x, "valid": found.valid})


def _gradient_at_padded_features(found: Found) -> Question | None:
    mask = found.feature_mask
    if mask is None or not keras.ops.is_tensor(found.answers):
        return None
    size = found.x[mask].shape[-1]
    wide = [name for name, leaf in found.x.items() if leaf.dtype.kind == "f" and leaf.shape[-1] == size]
    names = [name for name in wide if name != mask and found.x[name].ndim > 1]
    if len(names) != 1:
        return None
    flags = f"x[{plain(mask)}]" + "[:, None]" * (found.x[names[0]].ndim - 2)
    lines = (
        f"given = x[{plain(names[0])}].requires_grad_()",
        "keras.ops.sum(keras.ops.square(model(x))).backward()",
        f"worst = keras.ops.max(keras.ops.abs(given.grad) * (1.0 - keras.ops.cast({flags}, given.dtype)))",
        "held = worst == 0",
    )
    return Question(lines, "gradient at padded features: {worst:.3g}", {"x": found.x})


def _loss_counts_padding(found: Found) -> Question | None:
    """Neither targets nor predictions at padded positions may take part in the loss."""
    if found.finding.code != "pad-leak-loss" or found.y is None:
        return None
    if found.other is not None and not equal(found.y, found.other):
        allowed = f"{float(found.distance['tolerance']):.1g}"
        lines: tuple[str, ...] = (
            "one, two = (model.compute_loss(x, targets, model(x)) for targets in (y, other))",
            "moved = keras.ops.abs(one - two)",
            f"held = moved <= {allowed}",
        )
        arrays = {"x": found.x, "y": found.y, "other": found.other}
        return Question(lines, f"the loss moved by {{moved:.3g}}; allowed is {allowed}", arrays, compiled=True)
    arrays, there = {"x": found.x, "y": found.y}, "answers.grad[~valid]"
    if "feature" in found.law and found.feature_mask is not None and keras.ops.is_tensor(found.answers):
        mask = found.feature_mask
        if found.answers.shape[-1] != found.x[mask].shape[-1]:
            return None
        flags = f"x[{plain(mask)}]" + "[:, None]" * (found.answers.ndim - 2)
        there = f"answers.grad * (1.0 - keras.ops.cast({flags}, answers.dtype))"
    elif not _single(found) or not found.index or found.valid.all() or "feature" in found.law:
        return None
    else:
        arrays["valid"] = found.valid
    lines = (
        "answers = model(x)",
        "answers.retain_grad()",
        "model.compute_loss(x, y, answers).backward()",
        f"worst = keras.ops.max(keras.ops.abs({there}))",
        "held = worst == 0",
    )
    return Question(lines, "gradient of the loss at padded predictions: {worst:.3g}", arrays, compiled=True)


def _loss_of_two_lengths(found: Found) -> Question | None:
    """More padding must not change the loss of the same samples."""
    if found.finding.code != "pad-length" or found.where.get("phase") != "loss" or found.changed is None:
        return None
    if found.y is None or found.other is None:
        return None
    allowed = f"{float(found.distance['tolerance']):.1g}"
    lines = (
        "pairs = ((x, y), (changed, other))",
        "one, two = (model.compute_loss(given, wanted, model(given)) for given, wanted in pairs)",
        "moved = keras.ops.abs(one - two)",
        f"held = moved <= {allowed}",
    )
    arrays = {"x": found.x, "changed": found.changed, "y": found.y, "other": found.other}
    said = f"the loss moved by {{moved:.3g}} with more padding; allowed is {allowed}"
    return Question(lines, said, arrays, compiled=True)


def _gradients_of_two_lengths(found: Found) -> Question | None:
    """More padding must not change the gradients of the weights."""
    if found.finding.code != "pad-length" or found.where.get("phase") != "backward" or found.changed is None:
        return None
    if not _single(found):
        return None
    index = "[flags]" if found.index else ""
    pairs = "((x, valid), (changed, valid_changed))" if index else "(x, changed)"
    lines = (
        "grads = []",
        f"for {'given, flags' if index else 'given'} in {pairs}:",
        "    model.zero_grad()",
        f"    keras.ops.sum(model(given){index}).backward()",
        "    grads.append([v.value.grad for v in model.trainable_variables if v.value.grad is not None])",
        "apart = [one - two for one, two in zip(*grads)]",
        "moved, size = (max(float(keras.ops.max(keras.ops.abs(g))) for g in them) for them in (apart, grads[0]))",
        f"held = moved <= {SAME:g} * size",
    )
    arrays = {"x": found.x, "changed": found.changed}
    if index:
        arrays |= {"valid": found.valid, "valid_changed": found.valid_changed}
    return Question(lines, "gradients moved by {moved:.3g} of {size:.3g} with more padding", arrays)


def _not_finite(found: Found) -> Question | None:
    """Valid outputs, or the gradients of the weights, must be finite."""
    if found.distance.get("moved") != float("inf") or not keras.ops.is_tensor(found.answers):
        return None
    if "feature" in found.law:
        if found.feature_mask is None or found.answers_have_features:
            return None  # what stands at padded features of the answers may be anything
    elif found.valid is None:
        return None
    x, flags = (found.x, found.valid) if found.changed is None else (found.changed, found.valid_changed)
    arrays = {"x": x, **({"valid": flags} if found.index else {})}
    if found.where.get("phase") == "forward":
        whole = (f"held = bool(keras.ops.isfinite(model(x){found.index}).all())",)
        return Question(whole, "valid outputs are finite: {held}", arrays)
    if found.where.get("phase") != "backward":
        return None
    lines = (
        f"keras.ops.sum(model(x){found.index}).backward()",
        "pairs = [(v.path, v.value.grad) for v in model.trainable_variables]",
        "sick = [path for path, grad in pairs if grad is not None and not keras.ops.isfinite(grad).all()]",
        "held = not sick",
    )
    return Question(lines, "gradients that are not finite: {sick}", arrays)


def _order_counts(found: Found) -> Question | None:
    """Features in another order must give the same answer, or the same in that order."""
    order = found.order
    if found.finding.code != "feature-order" or order is None or not keras.ops.is_tensor(found.answers):
        return None
    others = "(one, one[..., order])" if found.answers.shape[-1] == len(order) else "(one,)"
    lines = (
        f"order, one, two = {order}, model(x){found.index}, model(changed){found.index}",
        f"moved = min(float(keras.ops.max(keras.ops.abs(two - other))) for other in {others})",
        f"held = moved <= {SAME:g} * float(keras.ops.max(keras.ops.abs(one)))",
    )
    more = {"valid": found.valid} if found.index else {}
    return Question(
        lines, "another order of the features moved the output by {moved:.3g}",
        {"x": found.x, "changed": found.changed, **more},
    )  # fmt: skip


def _other_in_training(found: Found) -> Question | None:
    """What draws random numbers and what takes statistics of the batch apart, training gives what inference gives."""
    key = _key(found.answers, found.where.get("output"))
    if found.finding.code != "train-eval-gap" or "tolerance" not in found.distance or key is None:
        return None
    allowed = f"{float(found.distance['tolerance']):.1g}"
    lines = (
        "noisy = (keras.layers.BatchNormalization, keras.layers.Dropout)",
        "for layer in model._flatten_layers(include_self=False):",
        '    if isinstance(layer, noisy) or (hasattr(layer, "seed_generator") and layer._call_has_training_arg):',
        '        layer.call = lambda *given, own=layer.call, **named: own(*given, **(named | {"training": False}))',
        f"moved = keras.ops.max(keras.ops.abs(model(x){key} - model(x, training=True){key}))",
        f"held = moved <= {allowed}",
    )
    said = f"with its noise switched off, training differs from inference by {{moved:.3g}}; allowed is {allowed}"
    return Question(lines, said, {"x": found.x})


def _single(found: Found) -> bool:
    return keras.ops.is_tensor(found.answers) and found.valid is not None


def equal(one: Any, two: Any) -> bool:
    """Whether two batches hold the same numbers."""
    pairs = zip(leaves(one), leaves(two), strict=True)
    return all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in pairs)


FORMS: Sequence[Callable[[Found], Question | None]] = (
    _order_counts,
    _other_in_training,
    _true_values_masked,
    _mask_unused,
    _mask_lost,
    _mask_turned,
    _gradient_at_padding,
    _loss_counts_padding,
    _loss_of_two_lengths,
    _gradients_of_two_lengths,
    _not_finite,
    _output_moved,
)
"""Tried in turn: the first that a finding fits says what is asked."""
