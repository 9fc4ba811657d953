"""The loss as a function of answers: what does it ask, which answers can the model give, and do the two meet?

Nothing here needs training or a good initialisation. Answers are put in the place of the model's own prediction, and
weights are drawn at random on several scales to see what the output can reach at all; both are invariants of the
program and do not depend on a seed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from tsguard.dataset import leaves, map_leaves
from tsguard.probes.stage import Batch, flat, has_own_step, take_step

WEIGHT_SCALES = (0.3, 1.0, 10.0, 100.0)
"""Multiples of a usual initial scale at which outputs are drawn. A bounded output gains nothing from the last factor of
ten; an unbounded one gains about ten times."""

BOUNDED_GROWTH = 1.2
"""A range that grows by less than this over the last factor of ten in weights counts as bounded."""


@dataclass(frozen=True, slots=True)
class Head:
    """One output of the model with the target and the loss that belong to it."""

    name: str
    index: int
    answer: Any
    target: Any
    loss: Any
    """The Keras loss object; None where none is compiled for this output."""


def heads(model: Any, batch: Batch, answer: Any) -> list[Head]:
    """The model's outputs, each with its target and compiled loss where structures agree."""
    answers = flat(answer)
    targets: list[Any] = _by_output(model, batch.y, answer, len(answers))
    losses: list[Any] = [None] * len(answers)
    compiled = getattr(model, "_compile_loss", None)
    places = {path: number for number, path in enumerate(_paths(answer))}
    names = list(getattr(model, "output_names", None) or ())
    for one in getattr(compiled, "_flat_losses", None) or ():
        number = places.get(tuple(one.path))
        if number is None and len(one.path) == 1 and one.path[0] in names:
            number = names.index(one.path[0])
        if number is None and not one.path and len(answers) == 1:
            number = 0
        if number is not None and number < len(answers):  # an own step may answer with fewer than it compiles for
            losses[number] = one.loss
    if len(names) != len(answers):
        names = ["/".join(map(str, path)) or "output" for path in _paths(answer)]
    return [Head(str(names[i]), i, answers[i], targets[i], losses[i]) for i in range(len(answers))]


def _by_output(model: Any, y: Any, answer: Any, count: int) -> list[Any]:
    if isinstance(y, dict) and isinstance(answer, dict):
        return [y.get(key) for key in answer] if all(hasattr(v, "shape") for v in answer.values()) else flat(y)
    if isinstance(y, dict):
        names = list(getattr(model, "output_names", None) or ())
        if len(names) == count:
            return [y.get(name) for name in names]
    listed = flat(y)
    return listed if len(listed) == count else [None] * count


def _paths(structure: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(structure, dict):
        return [path for key in structure for path in _paths(structure[key], (*prefix, key))]
    if isinstance(structure, list | tuple):
        return [path for i, item in enumerate(structure) for path in _paths(item, (*prefix, i))]
    return [prefix]


class LossOfAnswers:
    """The training loss of one batch with the answers (and targets) swapped for others."""

    def __init__(self, model: Any, batch: Batch, answer: Any) -> None:
        self.model, self.batch, self.answer = model, batch, answer
        self._own_step = has_own_step(model)

    def tensor(self, answers: Iterable[Any], *, y: Any = None) -> Any:
        """The loss as a tensor; None where the model's step does not take its answer from its own call."""
        import torch

        waiting = iter(answers)
        packed = map_leaves(lambda old: _masked_like(next(waiting), old), self.answer)
        target = self.batch.y if y is None else y
        if self._own_step:
            swapped = Batch(self.batch.x, target, self.batch.sample_weight)
            return take_step(self.model, swapped, record_calls=False, answer=packed).root
        self.model._clear_losses()
        with torch.enable_grad():
            return self.model._compute_loss(
                x=self.batch.x, y=target, y_pred=packed, sample_weight=self.batch.weights, training=True
            )

    def __call__(self, answers: Iterable[Any], *, y: Any = None) -> float:
        """The loss as a number; NaN where it cannot be computed."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                value = self.tensor(answers, y=y)
        except Exception:  # a loss may refuse answers (torch's BCE raises on NaN): then it has no value there
            return float("nan")
        return float("nan") if value is None else float(value.detach().float().mean())

    def slopes(self, answers: Iterable[Any], *, y: Any = None) -> list[Any] | None:
        """The gradient of the loss at the given answers; None where the loss has none to give."""
        import torch

        free = [a.detach().float().clone().requires_grad_() for a in answers]
        try:
            value = self.tensor(free, y=y)
            if value is None or not value.requires_grad:
                return None
            return list(torch.autograd.grad(value.float().mean(), free, allow_unused=True))
        except Exception:  # as above: no value, no slope
            return None


def _masked_like(new: Any, old: Any) -> Any:
    from keras.src import backend

    mask = backend.get_keras_mask(old)
    if mask is not None:
        backend.set_keras_mask(new, mask)
    return new


def predict(model: Any, x: Any, *, training: bool = False) -> Any:
    """The model's answer without a gradient."""
    import torch

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Keras warns of (a softmax over one unit) is measured here
        return model(x, training=training) if model._call_has_training_arg else model(x)


TAME = 10.0
"""Inputs beyond this saturate any layer by themselves, and inputs below its inverse open none: they are standardised
where the reach of outputs is asked."""


def tamed(leaf: Any) -> Any:
    """A floating input, standardised per feature where it is far from unit scale."""
    if not leaf.is_floating_point() or leaf.ndim < 2 or 1 / TAME <= float(leaf.abs().max()) <= TAME:
        return leaf
    return standardised(leaf)


def standardised(leaf: Any) -> Any:
    """A floating input with mean 0 and deviation 1 per feature (last axis); features that do not vary become 0."""
    if not leaf.is_floating_point() or leaf.ndim < 2:
        return leaf
    axes = tuple(range(leaf.ndim - 1))
    mean, deviation = leaf.mean(axes, keepdim=True), leaf.std(axes, keepdim=True, correction=0)
    return (leaf - mean) / deviation.clamp(min=1e-6 * float(leaf.abs().max()) + 1e-12)


UNSCALED_MEAN, UNSCALED_DEVIATION = 3.0, 5.0
"""|mean| or deviation of inputs beyond which the usual initialisers (made for mean 0, deviation 1) are off by several
times; standardised data never gets there."""

SMALL_DEVIATION = 0.05
"""… and below which a first layer sees next to nothing."""


def unscaled(leaf: Any) -> bool:
    """Whether a feature (last axis) is far from the size that usual initial weights are made for."""
    if not leaf.is_floating_point() or leaf.numel() < 2:
        return False
    axes = tuple(range(leaf.ndim - 1)) or (0,)
    mean, deviation = leaf.mean(axes).abs(), leaf.std(axes, correction=0)
    return bool((mean > UNSCALED_MEAN).any() or (deviation > UNSCALED_DEVIATION).any()) or bool(
        (deviation < SMALL_DEVIATION).all() and (deviation > 0).any()
    )


def draw_weights(model: Any, scale: float, generator: Any, *, turning: bool = False) -> None:
    """Give every trainable weight a random value: kernels about `scale` times what Glorot would give.

    With `turning`, square kernels are rotations: applied again and again, over time, they neither grow nor fade.
    """
    import torch

    with torch.no_grad():
        for variable in model.trainable_variables:
            value = variable.value
            if not value.is_floating_point():
                continue
            noise = torch.randn(value.shape, generator=generator).to(value)
            if turning and value.ndim == 2 and value.shape[0] == value.shape[1]:
                value.copy_(torch.linalg.qr(noise.float())[0].to(value) * scale)
            elif value.ndim >= 2 and "embedding" not in variable.path:
                fan_in = max(1, int(value[..., 0].numel()))
                value.copy_(noise * (scale / fan_in**0.5))
            elif "bias" in variable.path.split("/")[-1]:
                value.copy_(noise * 0.1 * scale)
            else:
                value.add_(noise * 0.1 * scale)


def opened(answer: Any) -> Any:
    """What stands before a softmax or a sigmoid at the end, up to a constant for each row; other answers as they are.

    A model that is a straight line before it is one behind it as well: it cuts the inputs apart by planes.
    """
    import torch

    value = answer.detach().double()
    within = bool((value > 0).all()) and bool((value < 1).all())
    if within and value.ndim >= 2 and value.shape[-1] > 1 and bool(((value.sum(-1) - 1).abs() < 1e-4).all()):
        logs = value.log()
        return logs - logs.mean(-1, keepdim=True)
    return torch.logit(value) if within else value


@dataclass(frozen=True, slots=True)
class Reach:
    """What one output can be, over random weights."""

    low: float
    high: float
    bounded_below: bool
    bounded_above: bool
    sums_to_one: int | None
    """The axis along which the output sums to one for every weight; None where there is none."""

    @property
    def is_probability(self) -> bool:
        return self.bounded_below and self.bounded_above and self.low >= -1e-3 and self.high <= 1.001

    @property
    def words(self) -> str:
        """The range as text."""
        low = f"{self.low:.3g}" if self.bounded_below else "−∞"
        high = f"{self.high:.3g}" if self.bounded_above else "∞"
        return f"[{low}, {high}]"


def reach(
    model: Any, batch: Batch, *, restore: Callable[[], None], draws: int = 3
) -> tuple[list[Reach], list[list[Any]]]:
    """The range of every output over random weights, and some of the answers seen (at the usual scale)."""
    import torch

    generator = torch.Generator().manual_seed(0)
    x = map_leaves(tamed, batch.x)
    seen: dict[float, list[list[Any]]] = {}

    def draw(scale: float) -> None:
        for _ in range(draws):
            draw_weights(model, scale, generator)
            seen.setdefault(scale, []).append([a.detach().float() for a in flat(predict(model, x))])

    for scale in WEIGHT_SCALES:
        draw(scale)
    places = range(len(seen[1.0][0]))
    # A bounded output of a faint signal opens late: it has not closed yet, and does not grow tenfold either.
    while any(_undecided([(s, row[i]) for s, rows in seen.items() for row in rows]) for i in places):
        draw(10 * max(seen))
        if max(seen) >= LARGEST_SCALE:
            break
    restore()
    return [_reach_of([(s, row[i]) for s, rows in seen.items() for row in rows]) for i in places], seen[1.0]


LARGEST_SCALE = 1e6
"""Weights beyond this leave float32 in a few layers."""

TENFOLD = 4.0
"""Growth over a factor of ten in weights that an unbounded output surpasses; what grows by less has not decided."""


def _undecided(drawn: list[tuple[float, Any]]) -> bool:
    """Whether the last factor of ten still widened the range, and by less than it widens an unbounded one."""
    import torch

    largest = max(scale for scale, _ in drawn)
    ends = []
    for keep in (False, True):
        kept = [t[torch.isfinite(t)] for s, t in drawn if (s == largest) is keep]
        finite = [float(t.abs().max()) for t in kept if t.numel()]
        if not finite:
            return False
        ends.append(max(finite))
    return BOUNDED_GROWTH < ends[1] / max(ends[0], 1e-30) < TENFOLD


def _reach_of(drawn: list[tuple[float, Any]]) -> Reach:
    import torch

    def extreme(scales: tuple[float, ...], side: str) -> float:
        values = [t[torch.isfinite(t)] for s, t in drawn if s in scales]
        kept = [v for v in values if v.numel()]
        if not kept:
            return float("nan")
        return min(float(v.min()) for v in kept) if side == "low" else max(float(v.max()) for v in kept)

    scales = tuple(sorted({scale for scale, _ in drawn}))
    overflowed = _mostly_overflowed([t for s, t in drawn if s == scales[-1]])
    low, high, less = extreme(scales, "low"), extreme(scales, "high"), scales[:-1]
    span = max(abs(extreme(less, "low")), abs(extreme(less, "high")), 1e-6)
    margin = (BOUNDED_GROWTH - 1) * span
    if overflowed and not -1.0 <= low <= high <= 1.0:
        # What grew beyond all numbers showed no end; a sigmoid or tanh behind it would have closed before.
        return Reach(low, high, bounded_below=False, bounded_above=False, sums_to_one=None)
    # A range whose end is reached by many draws alike (0 of a ReLU) is closed there.
    return Reach(
        low=low,
        high=high,
        bounded_below=low >= extreme(less, "low") - margin,
        bounded_above=high <= extreme(less, "high") + margin,
        sums_to_one=_simplex_axis([t for s, t in drawn if s <= 1.0]),
    )


def _mostly_overflowed(tensors: list[Any]) -> bool:
    import torch

    finite = sum(int(torch.isfinite(t).sum()) for t in tensors)
    return bool(2 * finite < sum(t.numel() for t in tensors))


def _simplex_axis(tensors: list[Any]) -> int | None:
    import torch

    shape = tensors[0].shape
    for axis in reversed(range(len(shape))):
        if all(bool(torch.all((t.sum(axis) - 1).abs() < 1e-3)) and float(t.min()) >= 0 for t in tensors):
            return axis
    return None


@dataclass(frozen=True, slots=True)
class Question:
    """What a compiled loss asks: its kind, and whether it takes answers for logits."""

    kind: str
    """sparse, categorical, binary, regression, count, hinge, own"""
    from_logits: bool
    name: str


_KINDS = {
    "sparse_categorical_crossentropy": "sparse",
    "categorical_crossentropy": "categorical",
    "categorical_focal_crossentropy": "categorical",
    "kl_divergence": "categorical",
    "binary_crossentropy": "binary",
    "binary_focal_crossentropy": "binary",
    "mean_squared_error": "regression",
    "mean_absolute_error": "regression",
    "mean_absolute_percentage_error": "regression",
    "mean_squared_logarithmic_error": "regression",
    "huber": "regression",
    "log_cosh": "regression",
    "poisson": "count",
    "hinge": "hinge",
    "squared_hinge": "hinge",
    "categorical_hinge": "hinge",
}


def question(loss: Any) -> Question:
    """The question behind a loss object; an own function is "own" and is judged by what it does."""
    function = getattr(loss, "fn", None)
    name = getattr(function, "__name__", type(loss).__name__)
    ours = str(getattr(function, "__module__", "")).startswith("keras.")
    kwargs = getattr(loss, "_fn_kwargs", None) or {}
    from_logits = bool(kwargs.get("from_logits", getattr(loss, "from_logits", False)))
    return Question(_KINDS.get(name, "own") if ours else "own", from_logits, str(name))


def class_axis(head: Head) -> int | None:
    """The axis of an answer over which its classes lie: where a Keras loss looks for them, or else where its target
    says so (the axis that class numbers lack, or over which shares sum to one); None where nothing tells."""
    asked = None if head.loss is None else question(head.loss)
    if asked is not None and asked.kind != "own":
        axis = getattr(head.loss, "axis", -1)
        return (axis if isinstance(axis, int) else -1) % int(head.answer.ndim)
    if head.target is None:
        return None
    shape, wanted = tuple(head.answer.shape), tuple(head.target.shape)
    if labels_of(head.target) in ("integer", "binary") and shape != wanted:
        able = [
            k for k in range(1, len(shape)) if wanted in (shape[:k] + shape[k + 1 :], (*shape[:k], 1, *shape[k + 1 :]))
        ]
        able = [k for k in able if float(head.target.max()) < shape[k]]
        return able[0] if len(able) == 1 else None
    if shape != wanted or not len(shape) > 1:
        return None
    value = head.target.detach().float()
    able = [k for k in range(1, len(shape)) if shape[k] > 1 and bool(((value.sum(k) - 1).abs() < 1e-4).all())]
    return able[0] if len(able) == 1 and float(value.min()) >= 0 else None


def labels_of(target: Any) -> str:
    """How a target is written: "integer", "binary", "one-hot", "shares" (rows sum to one), "real" or "constant"."""
    import torch

    if target is None or not torch.is_tensor(target):
        return "none"
    value = target.detach().float()
    if not bool(torch.isfinite(value).all()) or value.numel() == 0:
        return "real"
    if value.numel() > 1 and float(value.min()) == float(value.max()):
        return "constant"
    whole = bool(torch.all(value == value.round()))
    wide = value.ndim >= 2 and value.shape[-1] >= 2
    if wide and float(value.min()) >= 0 and bool(torch.all((value.sum(-1) - 1).abs() < 1e-4)):
        return "one-hot" if whole else "shares"
    if whole and set(torch.unique(value).tolist()) <= {0.0, 1.0}:
        return "binary"
    return "integer" if whole else "real"


def chosen(labels: Any, answer: Any) -> Any:
    """Class numbers as one-hot, in the shape of the answer; a number that is no class (one that the loss is told
    to ignore) chooses none."""
    import torch

    units = int(answer.shape[-1])
    index = labels.long().reshape(answer.shape[:-1])
    known = (index >= 0) & (index < units)
    return torch.nn.functional.one_hot(index * known, units).float() * known[..., None]


def shuffled(structure: Any, seed: int) -> Any:
    """The same targets in another order of rows."""
    import torch

    first = next(leaves(structure))
    order = torch.randperm(first.shape[0], generator=torch.Generator().manual_seed(seed)).to(first.device)
    return map_leaves(lambda leaf: leaf[order], structure)
