"""What units do: dead, saturated, uniform. Read off the graph, so that activations inside cells and calls count too."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tsguard.probes.graph import last_operation, layer_at, walk
from tsguard.probes.stage import Step, flat

TANH_FLAT = 0.99
"""Beyond it, tanh's slope is below 0.02: a fiftieth of the gradient passes."""

SIGMOID_FLAT = 0.01
"""Closer than this to 0 or 1, sigmoid's slope is below 0.01, a twenty-fifth of its greatest."""


@dataclass(frozen=True, slots=True)
class Units:
    """How the units of one activation in one layer behave."""

    layer: Any
    op: str
    share: float
    """Dead units of all units (relu), or flat values of all values (tanh, sigmoid)."""
    width: int


def dead_units(steps: Iterable[Step]) -> list[Units]:
    """Per layer: the share of ReLU units that are zero for every sample and position of every step."""
    import torch

    alive: dict[int, Any] = {}
    layers: dict[int, Any] = {}
    for step in steps:
        for one in walk(step.root) if step.root is not None else ():
            if one.op not in ("Relu", "Threshold") or one.sequence >= step.outside > 0:
                continue
            result = one.saved("result")
            if result is None or result.ndim < 2:
                continue
            layer = layer_at(step, one.sequence)
            key = id(layer)
            # A NaN is another matter than a unit that is off.
            fired = torch.any(~(result.detach().reshape(-1, result.shape[-1]) <= 0), dim=0)
            before = alive.get(key)
            alive[key] = fired if before is None or before.shape != fired.shape else before | fired
            layers[key] = layer
    return [
        Units(layers[key], "relu", float((~fired).float().mean()), int(fired.numel())) for key, fired in alive.items()
    ]


def saturated_units(steps: Iterable[Step]) -> list[Units]:
    """Per layer and operation: the share of values on the flat parts of tanh or sigmoid; outputs do not count."""
    found: dict[tuple[int, str], list[tuple[float, int, int]]] = {}
    layers: dict[int, Any] = {}
    for step in steps:
        if step.root is None:
            continue
        outputs = {one.node for one in map(last_operation, flat(step.answer)) if one is not None}
        for one in walk(step.root):
            if one.op not in ("Tanh", "Sigmoid") or one.node in outputs or one.sequence >= step.outside > 0:
                continue
            result = one.saved("result")
            if result is None or result.numel() == 0:
                continue
            value = result.detach().float()
            if one.op == "Tanh":
                flat_share = float((value.abs() > TANH_FLAT).float().mean())
            else:
                flat_share = float(((value < SIGMOID_FLAT) | (value > 1 - SIGMOID_FLAT)).float().mean())
            layer = layer_at(step, one.sequence)
            layers[id(layer)] = layer
            width = int(value.shape[-1]) if value.ndim else 1
            found.setdefault((id(layer), one.op.lower()), []).append((flat_share, value.numel(), width))
    return [
        Units(layers[key], op, sum(s * n for s, n, _ in rows) / sum(n for _, n, _ in rows), rows[0][2])
        for (key, op), rows in found.items()
    ]


CERTAIN = 0.999
"""A probability above which cross entropy has (nearly) no slope left."""


def certain_share(step: Step) -> float:
    """The share of samples whose output is a probability of (nearly) one for some class; 0 where outputs are none."""
    shares = []
    for answer in flat(step.answer):
        last = last_operation(answer)
        if last is None or last.op not in ("Softmax", "Sigmoid"):
            continue
        value = answer.detach().float()
        sure = value.max(-1).values > CERTAIN if last.op == "Softmax" else ((value - 0.5).abs() > CERTAIN - 0.5)
        shares.append(float(sure.float().mean()))
    return max(shares, default=0.0)


@dataclass(frozen=True, slots=True)
class SingleChoice:
    """A softmax over one position: always one."""

    layer: Any
    shape: tuple[int, ...]
    axis: int


def single_choices(step: Step) -> list[SingleChoice]:
    """Softmaxes inside the model that have only one position to choose from, outputs apart."""
    found = []
    outputs = {one.node for one in map(last_operation, flat(step.answer)) if one is not None}
    for one in walk(step.root) if step.root is not None else ():
        if one.op != "Softmax" or one.node in outputs or one.sequence >= step.outside > 0:
            continue
        result, axis = one.saved("result"), one.saved("dim")
        if result is None or axis is None:
            continue
        # torch saves a negative axis as an unsigned number.
        axis = axis - 2**64 if axis > 2**63 else axis
        if result.shape[axis] == 1:
            found.append(SingleChoice(layer_at(step, one.sequence), tuple(result.shape), int(axis)))
    return found


def effective_rank(hidden: Any) -> float:
    """exp(entropy of the normalised singular values) of centred rows (Roy & Vetterli 2007): how many directions
    vary."""
    import torch

    rows = hidden.detach().double().reshape(hidden.shape[0], -1)
    values = torch.linalg.svdvals(rows - rows.mean(0))
    total = float(values.sum())
    if total <= 1e-12 * max(float(rows.abs().max()), 1e-30):
        return 0.0
    share = values / total
    share = share[share > 0]
    return float(torch.exp(-(share * share.log()).sum()))
