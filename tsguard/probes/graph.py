"""What torch's graph says about a step: which tensors the loss depends on, and which operations shape the way.

The graph knows more than the layers do: a tensor that no layer tracks, an activation inside `call`, a softmax inside a
loss all have a node. Nodes are placed in layers by their sequence number.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tsguard.probes.stage import Call, Step

VIEWS = frozenset(
    "View Reshape UnsafeView Squeeze Unsqueeze Expand Permute Transpose T ToCopy Clone Alias AsStrided Detach Slice "
    "Select Contiguous Clamp ClampMin ClampMax Minimum Maximum Index Unbind Split".split()
)
"""Operations that hand values on (or only cap them)."""


@dataclass(frozen=True, slots=True)
class Node:
    """One operation of the graph."""

    op: str
    """Base name: "Softmax", "Relu", "Mul"."""
    node: Any
    sequence: int

    def saved(self, name: str) -> Any:
        """A tensor or number that the operation saved; None where it saved none (or it was freed)."""
        try:
            return getattr(self.node, f"_saved_{name}")
        except (AttributeError, RuntimeError):
            return None


def op_name(node: Any) -> str:
    """ "SoftmaxBackward0" -> "Softmax"."""
    return re.sub(r"Backward\d*$", "", node.name())


def walk(root: Any) -> Iterator[Node]:
    """Every operation that the tensor depends on, each once, nearest first."""
    start = getattr(root, "grad_fn", root)
    waiting, seen = deque([start] if start is not None else []), set()
    while waiting:
        node = waiting.popleft()
        if node in seen:
            continue
        seen.add(node)
        try:
            sequence = int(node._sequence_nr())
        except AttributeError:
            sequence = -1
        yield Node(op_name(node), node, sequence)
        waiting.extend(parent for parent, _ in node.next_functions if parent is not None)


def leaf_tensors(root: Any) -> dict[int, Any]:
    """Every tensor with a gradient that the root depends on, by id."""
    found = {}
    for one in walk(root):
        variable = getattr(one.node, "variable", None)
        if variable is not None and "AccumulateGrad" in one.node.name():
            found[id(variable)] = variable
    return found


def last_operation(tensor: Any) -> Node | None:
    """The operation that shaped a tensor, looking through views, casts and caps."""
    node = getattr(tensor, "grad_fn", None)
    while node is not None:
        op = op_name(node)
        if op not in VIEWS or not node.next_functions or node.next_functions[0][0] is None:
            return Node(op, node, int(node._sequence_nr()))
        node = node.next_functions[0][0]
    return None


def layer_at(step: Step, sequence: int) -> Any:
    """The innermost layer in whose call the operation was made; None outside of every layer."""
    best: Call | None = None
    for call in step.calls:
        if call.first_node <= sequence < call.last_node and (best is None or call.depth > best.depth):
            best = call
    return None if best is None else best.layer
