"""Loops of one's own: what the model was called with, so that its forward and backward pass can be run again.

A hand-written loop has no step function. But its calls of the model are heard, with inputs and generators, and so
are the gradients that came back to the model's outputs. From these the model's own part of the step is run again
under instruments. The loss lies in the loop's own lines, which nobody can run again: of it the autograd graph tells
the operation and the element, not the line; where only its backward pass broke, that it was the loss is all that can
be said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from tsguard.backend import RngState, restore_rng
from tsguard.guard.axes import SAMPLE, Axis, Tag
from tsguard.guard.norms import all_finite
from tsguard.guard.origin import find
from tsguard.guard.outcome import Element, Origin
from tsguard.guard.recorder import RngWatch, StepRecord, _map, _private
from tsguard.guard.replay import Listener, Replay
from tsguard.guard.tensors import tensors_in
from tsguard.guard.trace import Trace

CALLS_MAX = 8
"""Calls of the model that are kept for one step; a loop that calls it more often is followed in its last ones."""

GRAPH_MAX = 2000
"""Nodes of the loss that are looked at."""


@dataclass
class Call:
    """One call of the model, and the gradients that came back to its outputs."""

    args: Any
    kwargs: dict[str, Any]
    rng: RngState
    seeds: list[tuple[Any, torch.Tensor]]
    outputs: list[torch.Tensor] = field(default_factory=list)
    gradients: dict[int, torch.Tensor] = field(default_factory=dict)
    edges: tuple[Any, ...] = ()


class LooseCalls:
    """Hears the calls of one model between two updates."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.calls: list[Call] = []
        self.from_loss: Origin | None = None
        self._rng = RngWatch()
        self._wrapper: Callable[..., Any] | None = None
        self._inside = False

    def arm(self) -> None:
        """Stand in for the instance's `call`."""
        inner = self.model.call

        def call(*args: Any, **kwargs: Any) -> Any:
            if self._inside or not torch.is_grad_enabled():
                return inner(*args, **kwargs)
            self._inside = True
            try:
                heard = self._before(args, kwargs)
                out = inner(*args, **kwargs)
                self._after(heard, out)
                return out
            finally:
                self._inside = False

        if "call" not in self.model.__dict__:
            self.model.__dict__["call"] = self._wrapper = call

    def disarm(self) -> None:
        """Leave the instance as it was."""
        if self._wrapper is not None and self.model.__dict__.get("call") is self._wrapper:
            del self.model.__dict__["call"]
        self._wrapper = None

    def forget(self) -> None:
        """The update is done, or was left out: the next step begins."""
        self.calls, self.from_loss = [], None

    def _before(self, args: Any, kwargs: dict[str, Any]) -> Call:
        seeds = [
            (variable, variable.value.detach().clone())
            for variable in self.model.variables
            if str(variable.path).endswith("seed_generator_state")
        ]
        return Call(_map(tuple(args), _private), _map(dict(kwargs), _private), self._rng.now(), seeds)

    def _after(self, heard: Call, out: Any) -> None:
        heard.outputs = [tensor.detach() for tensor in tensors_in(out)]
        for position, tensor in enumerate(tensors_in(out)):
            if tensor.requires_grad:
                tensor.register_hook(_keep(heard.gradients, position))
        heard.edges = tuple(tensor.grad_fn for tensor in tensors_in(out) if tensor.grad_fn is not None)
        self.calls = [*self.calls, heard][-CALLS_MAX:]

    def on_root(self, root: torch.Tensor, step: int) -> None:
        """Backward is about to start here. Where the loss is bad already, its graph is read while it still stands."""
        if self.from_loss is not None or bool(torch.isfinite(root.detach()).all()):
            return
        if all(all_finite(call.outputs) for call in self.calls):
            size = next((len(tensor) for call in self.calls for tensor in call.outputs if tensor.ndim), None)
            edges = {id(edge) for call in self.calls for edge in call.edges}
            self.from_loss = _in_graph(root, edges, step, size)

    def origin(self, step: int) -> tuple[Origin | None, StepRecord | None]:
        """Where the step that was heard went wrong. The model is left as it was found."""
        if not self.calls:
            return self.from_loss, None
        batch = [(self.calls[0].args[0] if self.calls[0].args else self.calls[0].kwargs,)]
        record = StepRecord(step, 0, step, batch, self.calls[0].rng, None)
        if self.from_loss is not None:
            return self.from_loss, record
        replay = Replay(self.model, None, [], first_step=step)  # type: ignore[arg-type]
        trace, heard = Trace(self.model, batch), Listener()
        with replay.session():
            self.disarm()
            try:
                with trace.listening(), torch.enable_grad():
                    run(self.model, self.calls, heard)
            finally:
                self.arm()
            found = find(trace, heard, record, self.model)
        if found is not None:
            return found, record
        if any(not all_finite([gradient]) for call in self.calls for gradient in call.gradients.values()):
            return _backward_of_the_loss(step), record
        return None, record


def run(model: Any, calls: list[Call], heard: Listener) -> None:
    """The calls again, then backward from the gradients that came back then; what they give goes into `heard`."""
    for variable in model.trainable_variables:
        variable.value.grad = None
    roots: list[torch.Tensor] = []
    incoming: list[torch.Tensor] = []
    for call in calls:
        restore_rng(call.rng)
        with torch.no_grad():
            for variable, value in call.seeds:
                variable.value.copy_(value)
        outputs = tensors_in(model(*call.args, **call.kwargs))
        bad = next((tensor for tensor in outputs if not all_finite([tensor])), None)
        if bad is not None:
            heard.outputs.append(bad.detach())
            return
        for position, gradient in call.gradients.items():
            if position < len(outputs) and all_finite([gradient]):
                roots.append(outputs[position])
                incoming.append(gradient)
    if roots:
        torch.autograd.backward(roots, incoming)
        heard.variables = [v for v in model.trainable_variables if v.value.grad is not None]
        heard.gradients = [v.value.grad for v in heard.variables]


def _keep(into: dict[int, torch.Tensor], position: int) -> Callable[[torch.Tensor], None]:
    def hook(gradient: torch.Tensor) -> None:
        into[position] = gradient.detach()

    return hook


def _backward_of_the_loss(step: int) -> Origin:
    return Origin(
        step, "backward", None, None, "nonfinite-backward",
        "the loss is finite, but the gradient that it gives to the model's outputs is not. It comes from the loop's "
        "own lines between the model's output and `backward`, which cannot be run again: compile the loss and use "
        "train_on_batch to have the operation named",
        "unknown", own=True,
    )  # fmt: skip


# -- the graph of a loss ----------------------------------------------------------------------------------------------

_FUNCTIONS: dict[str, Callable[..., torch.Tensor]] = {
    "log": torch.log, "log2": torch.log2, "log10": torch.log10, "log1p": torch.log1p, "exp": torch.exp,
    "acos": torch.acos, "asin": torch.asin, "atanh": torch.atanh, "tan": torch.tan,
}  # fmt: skip


def _in_graph(root: torch.Tensor, edges: set[int], step: int, size: int | None) -> Origin | None:
    """The deepest operation between the model's outputs and the loss that made a bad value of finite ones."""
    found: tuple[int, str, torch.Tensor, str] | None = None
    for depth, node in _nodes(root.grad_fn, edges):
        name = node.name().removesuffix("Backward0").removesuffix("Backward1")
        op = "".join("_" + letter.lower() if letter.isupper() else letter for letter in name).lstrip("_")
        made = _made(op, node)
        if made is not None and (found is None or depth > found[0]):
            found = (depth, op, *made)
    if found is None:
        return None
    _, op, value, words = found
    bad = (~torch.isfinite(value)).nonzero()
    index = tuple(int(i) for i in bad[0].tolist())
    tag = Tag((Axis(SAMPLE),)) if value.ndim and len(value) == size else Tag(())
    return Origin(
        step, "loss", op, None, "nonfinite-loss",
        f"{words}. It stands in the loop's own lines between the model's output and `backward`; the line is not known, "
        "because they cannot be run again",
        "singularity", own=True, element=Element(index, sample=tag.place(index).get(SAMPLE), count=len(bad)),
    )  # fmt: skip


def _nodes(root: Any, edges: set[int]) -> Iterator[tuple[int, Any]]:
    seen: set[int] = set()
    queue = [(0, root)]
    while queue and len(seen) < GRAPH_MAX:
        depth, node = queue.pop(0)
        if node is None or id(node) in seen or id(node) in edges:
            continue
        seen.add(id(node))
        yield depth, node
        queue += [(depth + 1, deeper) for deeper, _ in node.next_functions]


def _made(op: str, node: Any) -> tuple[torch.Tensor, str] | None:
    """What an operation made, from what it saved for backward, where that is bad and what went in is not."""
    saved = {name: getattr(node, f"_saved_{name}", None) for name in ("self", "other", "exponent", "result")}
    value, other = saved["self"], saved["other"]
    try:
        if op == "div" and isinstance(other, torch.Tensor) and all_finite([other]) and bool((other == 0).any()):
            top = value if isinstance(value, torch.Tensor) else torch.ones_like(other)
            return top / other, "a division by 0"
        if op in _FUNCTIONS and isinstance(value, torch.Tensor) and all_finite([value]):
            made = _FUNCTIONS[op](value)
            place = (~torch.isfinite(made)).nonzero()
            return (made, f"{op} of {value[tuple(place[0])].item():.6g}") if len(place) else None
        if op == "pow" and isinstance(value, torch.Tensor) and all_finite([value]):
            made = torch.pow(value, saved["exponent"])
            return (
                None
                if all_finite([made])
                else (made, f"a power ({saved['exponent']}) of numbers down to {value.min():.6g}")
            )
        result = saved["result"]
        if op in ("exp", "sqrt", "rsqrt", "reciprocal", "tan") and isinstance(result, torch.Tensor):
            return None if all_finite([result]) else (result, f"{op} gave {_first(result)}")
    except (RuntimeError, TypeError):  # freed, or of a kind that this rule does not know
        return None
    return None


def _first(result: torch.Tensor) -> float:
    return float(result[tuple((~torch.isfinite(result)).nonzero()[0])])
