"""Gradients: per parameter, per layer, per timestep, and per term of the loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tsguard.probes.graph import Node, op_name, walk
from tsguard.probes.stage import Batch, take_step


def norm(tensor: Any) -> float:
    """The Euclidean norm as a number; 0 for a missing gradient."""
    return 0.0 if tensor is None else float(tensor.detach().double().norm())


@dataclass(frozen=True, slots=True)
class Term:
    """One addend of the loss."""

    norm: float
    """Norm of the gradient that it sends (into the weights that it shares with another term, where that was asked)."""
    meant: float
    """The same, divided by the constant that the term is multiplied by where that is below one: what the user weighs
    down on purpose is not drowned."""
    task: bool
    """Whether it looks at answers (and is not a penalty on weights alone)."""


def term_gradients(
    model: Any, batch: Batch, *, restore: Callable[[], None], shared_only: bool = True
) -> dict[str, Term]:
    """Every addend of the step's loss with the gradient that it sends into shared weights.

    The addends are read off the graph, so that compiled heads, added losses and sums in an own `train_step` are alike:
    for each one, backward is run with the others' gradients stopped at their node.
    """
    import torch

    restore()
    step = take_step(model, batch)
    if step.error is not None or step.root is None or step.root.grad_fn is None:
        return {}
    parts = addends(step.root)
    if len(parts) < 2:
        return {}
    weights = [v.value for v in model.trainable_variables]
    sent: list[list[Any]] = []
    for kept, _ in parts:
        stops = [node.register_prehook(_zeros) for node, _ in parts if node is not kept]
        try:
            sent.append(list(torch.autograd.grad(step.root.mean(), weights, retain_graph=True, allow_unused=True)))
        finally:
            for stop in stops:
                stop.remove()
    reached = [[g is not None and float(g.abs().max()) > 0 for g in row] for row in sent]
    shared = [sum(column) >= 2 or not shared_only for column in zip(*reached, strict=True)]
    names = _term_names(model, parts)
    found: dict[str, Term] = {}
    inside = min((call.first_node for call in step.calls), default=0)
    for name, row, (node, factor) in zip(names, sent, parts, strict=True):
        total = math.sqrt(sum(norm(g) ** 2 for g, keep in zip(row, shared, strict=True) if keep))
        task = any(inside <= one.sequence < step.outside for one in walk(node)) if step.outside else True
        found[name] = Term(total / step.scale, total / (step.scale * min(1.0, abs(factor) or 1.0)), task)
    restore()
    return found


def _zeros(gradients: Any) -> Any:
    return tuple(None if g is None else g * 0 for g in gradients)


_PASS = frozenset({"View", "Reshape", "ToCopy", "Neg", "Squeeze", "Unsqueeze", "Where", "Expand", "Clone", "Alias"})


def addends(root: Any) -> list[tuple[Any, float]]:
    """The terms of a sum, as graph nodes with the constant factor that stands before each."""
    found: list[tuple[Any, float]] = []
    waiting = [(root.grad_fn, 1.0)]  # a stack with the first parent on top: terms come in the order of the sum
    while waiting:
        node, factor = waiting.pop()
        parents = [parent for parent, _ in node.next_functions if parent is not None]
        op = op_name(node)
        one = Node(op, node, 0)
        if op in ("Add", "Sub", "Stack", "Cat") and _is_scalar_node(node, op) and parents:
            waiting.extend((parent, factor) for parent in reversed(parents))
        elif op in ("Sum", "Mean") and parents and op_name(parents[0]) in ("Stack", "Cat") and _few(parents[0]):
            waiting.append((parents[0], factor))
        elif op in ("Mul", "Div") and len(parents) == 1 and _is_scalar_node(node, op):
            constant = _constant(one)
            # A division is a mean's count; only a multiplication is somebody's weight.
            waiting.append((parents[0], factor * constant if op == "Mul" else factor))
        elif op in _PASS and len(parents) == 1 and _is_scalar_node(node, op):
            waiting.append((parents[0], factor))
        else:
            found.append((node, factor))
    return found


def _is_scalar_node(node: Any, op: str) -> bool:
    shapes = [meta.shape for meta in getattr(node, "_input_metadata", ())]
    if op in ("Stack", "Cat"):
        return True
    return bool(shapes) and math.prod(shapes[0]) == 1


def _few(stack: Any) -> bool:
    """A stack of scalars: as many parents as elements."""
    shapes = [meta.shape for meta in getattr(stack, "_input_metadata", ())]
    return bool(shapes) and math.prod(shapes[0]) == len(stack.next_functions)


def _constant(node: Node) -> float:
    for side in ("other", "self"):
        value = node.saved(side)
        if value is None:
            continue
        if isinstance(value, int | float):
            return float(value)
        if hasattr(value, "numel") and value.numel() == 1 and not value.requires_grad:
            return float(value)
    return 1.0


def _term_names(model: Any, parts: list[Any]) -> list[str]:
    """The compiled losses' names where they are exactly the terms; otherwise their number and operation."""
    compiled = [one.name for one in getattr(getattr(model, "_compile_loss", None), "_flat_losses", None) or ()]
    if len(compiled) == len(parts) and len(set(compiled)) == len(compiled):
        return [str(name) for name in compiled]
    return [f"{number}:{op_name(node)}" for number, (node, _) in enumerate(parts, 1)]


def input_gradient(model: Any, batch: Batch, x: Any) -> Any:
    """The gradient of the loss with respect to one floating input leaf, in its shape; None where there is none."""
    import torch

    from tsguard.dataset import exchanged

    probe = x.detach().clone().float().requires_grad_()
    swapped = Batch(exchanged(batch.x, x, probe), batch.y, batch.sample_weight)
    step = take_step(model, swapped, record_calls=False)
    if step.error is not None or step.root is None or step.root.grad_fn is None:
        return None
    (gradient,) = torch.autograd.grad(step.root.float().mean(), [probe], allow_unused=True)
    return gradient
