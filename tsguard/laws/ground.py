"""The ground on which the laws stand: the bench, what was read, material for batches, and the comparison of results.

A law asks here for a changed batch (at padded positions, wherever those can be changed at all), compares outputs where
they count, and has the layer at fault named.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsguard.laws import locate, tolerance
from tsguard.laws.batches import Batch, Example, Material, Sample
from tsguard.laws.bench import Bench, Outputs, packed
from tsguard.laws.compare import Counting, Moved, farthest, feature_axis
from tsguard.laws.draws import drawing_layers
from tsguard.laws.infer import WIDE
from tsguard.laws.reading import Reading
from tsguard.laws.structure import Leaves
from tsguard.laws.trace import Call, Taps, where_shaped

Flags = NDArray[np.bool_]


OTHER_WEIGHTS = 3
"""Draws of other weights: a rectifier that is shut at padded positions for all of them is as good as a constant."""


@dataclass
class Ground:
    """One model under judgement."""

    bench: Bench
    reading: Reading
    material: Material
    broken: dict[str, Any] = field(default_factory=dict)
    """Counterexamples found so far, by code: some laws only make sense once another is broken."""
    until: float = math.inf
    """When the time for all laws is up, on the monotonic clock."""

    # ------------------------------------------------------------------ batches

    @property
    def widths(self) -> tuple[int, ...]:
        """Widths that batches are drawn at: small ones where the model allows it."""
        small = [w for w in self.reading.widths if w <= WIDE]
        return tuple(small or self.reading.widths[:3])

    @property
    def all_widths(self) -> tuple[int, ...]:
        """… and the data's own, where patches and positions look as they do in training."""
        return tuple(sorted({*self.widths, self.reading.width}))

    def batch(self, example: Example) -> Batch:
        """The batch of an example."""
        return self.material.batch(example.samples, example.width)

    @cached_property
    def reachable(self) -> tuple[str, ...]:
        """Inputs whose values at padded positions can be anything without changing what is masked."""
        reading = self.reading
        if reading.mask_kind in ("input", "none", "declared"):
            return reading.values
        if len(reading.inputs.names) == 1:
            # Masking, and Embedding(mask_zero=True), read the mask from these very values.
            return ()
        example = self.padded_example()
        batch = self.batch(example)
        plain = self._born_masks(batch.x)
        disturbed = self.material.disturbed(batch, example)
        free = []
        for name in reading.values:
            masks = self._born_masks({**batch.x, name: disturbed[name]})
            if len(masks) == len(plain) and all(np.array_equal(a, b) for a, b in zip(masks, plain, strict=True)):
                free.append(name)
        return tuple(free)

    def _born_masks(self, x: Leaves) -> list[Flags]:
        makers = {id(maker.layer) for maker in self.reading.makers}
        return [c.mask_out for c in self.bench.calls(x) if id(c.layer) in makers and c.mask_out is not None]

    def padded_example(self, width: int | None = None) -> Example:
        """A plain batch with padding, at a width that no other axis is likely to have."""
        width = width or self.telling_width
        count = self.reading.batch_size or 2
        lengths = [max(width // 2, 1), *([max(width - 1, 1)] * (count - 1))]
        return Example(tuple(Sample(length, i) for i, length in enumerate(lengths)), width, kind="data", seed=1)

    @property
    def telling_width(self) -> int:
        """A width at which the time axis cannot be mistaken for another one."""
        return self.telling_widths[0]

    @cached_property
    def telling_widths(self) -> tuple[int, ...]:
        """The widths that no other axis has, from four steps up; where there are none, the widest."""
        sizes = {size for leaf in self.reading.rows.values() for size in leaf.shape[1:]}
        sizes |= {s for v in self.bench.model.variables for s in tuple(v.shape)}
        good = tuple(w for w in self.reading.widths if w not in sizes and w >= 4)
        return good or (max(self.widths),)

    def variant(
        self, batch: Batch, example: Example, *, over: str = "time", force: bool = False
    ) -> tuple[Leaves, Taps | None]:
        """The batch with something else where nothing counts: in the inputs, and behind the layers that make the mask.

        What Masking zeroes can never be anything else; only `force` changes it, to follow a dependence that is known
        to exist.
        """
        names = self.reading.values if self.reading.mask_kind == "declared" else self.reachable
        disturbed = self.material.disturbed(batch, example, over=over)
        x = {name: disturbed[name] if name in names else leaf for name, leaf in batch.x.items()}
        taps = {}
        if over == "time":
            for maker in self.reading.makers:
                if force or not maker.zeroes:
                    taps[id(maker.layer)] = where_shaped(batch.valid.shape, fill_masked(example.kind, example.seed))
        return x, Taps(outputs=taps) if taps else None

    @cached_property
    def drawing(self) -> frozenset[int]:
        """The layers that draw random numbers in training, by identity."""
        return drawing_layers(self.bench, self.batch(self.padded_example(max(self.widths))).x)

    @property
    def can_vary(self) -> bool:
        """Whether anything at padded positions can be changed while the mask stays."""
        return bool(self.reachable) or any(not maker.zeroes for maker in self.reading.makers)

    def valid_steps(self, x: Leaves) -> Flags | None:
        """Which steps of such a batch are valid, as the model or its mask input says."""
        reading = self.reading
        if not reading.padded or not set(reading.inputs.names) <= set(x):
            return None
        given = {name: x[name] for name in reading.inputs.names}
        if reading.mask is not None:
            rows = np.moveaxis(given[reading.mask], reading.time.get(reading.mask, 1), 1)
            marked = (rows.reshape(*rows.shape[:2], -1) != 0).any(axis=2)
            return np.asarray(marked == bool(reading.mask_is))
        shapes = [(leaf.shape[0], leaf.shape[axis]) for name, axis in reading.time.items() for leaf in (given[name],)]
        return next((mask for mask in self._born_masks(given) if mask.shape in shapes), None) if shapes else None

    # ------------------------------------------------------------------ comparing

    @cached_property
    def noise(self) -> float:
        """The allowance between two shapes, relative to the size of an output (see `tolerance`)."""
        batch = self.batch(self.padded_example(max(self.widths)))
        sizes = [tolerance.scale_of(output) or 1.0 for output in self.bench.outputs(batch.x)]
        return max([self.same, *(limit / size for limit, size in zip(self.rounding(batch), sizes, strict=True))])

    def rounding(self, batch: Batch, answers: Callable[[Leaves], Outputs] | None = None) -> list[float]:
        """How far each output (or other answer) may move on this very batch when its sums are taken in another order.

        Asked where the allowance relative to an output's size is exceeded: a small difference of large numbers rounds
        like the large ones.
        """
        terms = max([max(self.widths), *(max(tuple(v.shape), default=1) for v in self.bench.model.trainable_variables)])
        named = {self.reading.mask, self.reading.timestamps, *(self.reading.features or ())}
        inexact = {
            name: ~self.material.padded_positions(name, batch, "time") if name in self.reading.values else leaf == leaf
            for name, leaf in batch.x.items()
            if leaf.dtype.kind == "f" and name not in named and not bool((leaf == np.round(leaf)).all())
        }
        measured = self.bench.rounding(batch.x, terms, inexact, answers or self.bench.outputs)
        return [tolerance.NOISE_MARGIN * moved for moved in measured]

    @property
    def same(self) -> float:
        """The allowance between two runs of the same program, relative to the size of an output."""
        return tolerance.SAME_PROGRAM_ULPS * self.bench.eps

    def moved(
        self,
        before: Outputs,
        after: Outputs,
        valid: Flags,
        other: Flags | None = None,
        *,
        features: tuple[Flags | None, Flags | None] = (None, None),
        reordered: Batch | None = None,
    ) -> Moved | None:
        """The farthest move at positions that count, if it is more than equal programs may differ by; or programs that
        sum in another order, where the batch is given that is `reordered`."""

        def judged(allowance: float, floors: Sequence[float]) -> Moved | None:
            return farthest(
                before,
                after,
                (Counting(valid, features[0]), Counting(valid if other is None else other, features[1])),
                times=self.reading.output_time,
                names=self.reading.output_names,
                allowance=allowance,
                floors=floors,
            )

        none = [0.0] * len(before)
        if reordered is None:
            return judged(self.same, none)
        return judged(self.noise, none) and judged(self.noise, self.rounding(reordered))

    # ------------------------------------------------------------------ naming the layer

    def layer_at_fault(
        self,
        before: Leaves,
        after: Leaves,
        valid: Flags,
        other: Flags | None = None,
        *,
        taps: Taps | None = None,
        first_taps: Taps | None = None,
        allowance: float | None = None,
        features: Flags | None = None,
        training: bool = False,
    ) -> Call | None:
        """The first layer at which positions that count begin to depend on the others."""
        one = self.bench.calls(before, taps=first_taps, training=training)
        two = self.bench.calls(after, taps=taps, training=training)
        allowance = self.same if allowance is None else allowance
        return locate.first_dependent(one, two, valid, other, allowance=allowance, features=features)

    def pad_leak_call(self, *, over: str = "time", training: bool = False) -> Call | None:
        """Where padded positions get in, on a batch made for the purpose."""
        example = self.padded_example()
        if over == "features":
            samples = tuple(Sample(s.length, s.row, max(self.material.feature_size // 2, 1)) for s in example.samples)
            example = Example(samples, example.width, kind="data", seed=1)
        batch = self.batch(example)
        x, taps = self.variant(batch, example, over=over, force=True)
        valid = batch.valid
        features = batch.features if over == "features" else None
        return self.layer_at_fault(batch.x, x, valid, taps=taps, features=features, training=training)

    @cached_property
    def mask_lost(self) -> Call | None:
        """The layer that takes an implicit mask and does not hand it on."""
        if self.reading.mask_kind != "keras":
            return None
        return locate.mask_lost_at(self.bench.calls(self.batch(self.padded_example()).x))

    # ------------------------------------------------------------------ loss

    @cached_property
    def says_nothing_where_padded(self) -> bool:
        """Whether predictions at padded positions are a constant, as in a model that multiplies them by its mask.

        No other weights give another value there, so a loss that counts them gets no gradient from them.
        """
        batch = self.batch(self.padded_example())
        plain = self.bench.outputs(batch.x)
        timed = [(i, axis) for i, axis in enumerate(self.reading.output_time) if axis is not None]
        for seed in range(OTHER_WEIGHTS):
            other = self.bench.outputs_of_other_weights(batch.x, seed=seed)
            for i, axis in timed:
                before, after = (np.moveaxis(o[i], axis, 1)[~batch.valid] for o in (plain, other))
                if not np.array_equal(before, after):
                    return False
        return bool(timed)

    def loss(self, batch: Batch, *, y: Leaves | None = None, disturb: int = 0, over: str = "time") -> float:
        """The loss of a batch; with `disturb`, of one whose predictions at padded positions are moved."""
        change = None
        if disturb:

            def change(number: int, output: Any) -> Any:
                import torch

                flags = self._padded_output(batch, number, output, over)
                if flags is None:
                    return output
                padded = torch.as_tensor(flags, device=output.device)
                # Halved and moved: still inside (0, 1) for a probability, still a number for anything else.
                return torch.where(padded, output * 0.5 + 0.01 * disturb / (1 + disturb), output)

        return self.bench.loss(batch.x, packed(self.reading.targets, y or batch.y), batch.weight, change)

    def _padded_output(self, batch: Batch, number: int, output: Any, over: str) -> Flags | None:
        """Flags that broadcast over an output, true where it is padded."""
        time = self.reading.output_time[number]
        flags, axis = ~batch.valid, time
        if over == "features":
            assert batch.features is not None
            count = Counting(batch.valid, batch.features)
            flags, axis = ~batch.features, feature_axis(output, output, time, (count, count))
        if axis is None:
            return None
        shape = [1] * output.ndim
        shape[0], shape[axis] = flags.shape
        return flags.reshape(shape)

    def projection(
        self, batch: Batch, seed: int = 0, rows: Flags | None = None, features: Flags | None = None
    ) -> Callable[[list[Any]], Any]:
        """A number that every valid output takes part in, with fixed random weights."""
        valid = batch.valid if rows is None else rows
        axes = self.reading.output_time
        count = Counting(valid, features)

        def weights_of(output: Any, time: int | None) -> NDArray[np.float64]:
            flags = valid if time is not None else np.asarray(valid.any(axis=1))
            rng = np.random.default_rng(seed)
            if time == 1:
                size = output.shape[2:]
                # The same weights for the same step, whatever the width: counted from the side that is not padded.
                per = rng.uniform(0.5, 1.5, (flags.shape[0], 4096 // max(int(np.prod(size)), 1) + 64, *size))
                weights = np.zeros(tuple(output.shape))
                for i, keep in enumerate(flags):
                    weights[i, keep] = per[i][np.arange(int(keep.sum())) % per.shape[1]]
            else:
                shape = [1] * output.ndim
                shape[0] = flags.shape[0]
                if time is not None:
                    shape[time] = flags.shape[1]
                weights = rng.uniform(0.5, 1.5, (1,) * output.ndim) * flags.reshape(shape)
                weights = np.array(np.broadcast_to(weights, tuple(output.shape)))
            along = feature_axis(output, output, time, (count, count))
            if along is not None and features is not None:
                shape = [1] * output.ndim
                shape[0], shape[along] = features.shape
                weights = weights * features.reshape(shape)
            return weights

        def reduce(outputs: list[Any]) -> Any:
            import torch

            total: Any = 0.0
            for output, time in zip(outputs, axes, strict=True):
                w = torch.as_tensor(weights_of(output, time), device=output.device, dtype=torch.float32)
                kept = torch.where(w != 0, output.float(), torch.zeros((), device=output.device))
                total = total + (kept * w).sum()
            return total

        return reduce


def fill_masked(kind: str, seed: int) -> Callable[[Any, Any], Any]:
    """A tap that puts other values at masked positions of a layer's output and keeps the mask."""

    def tap(output: Any, mask: Any) -> Any:
        import torch

        if mask is None:
            return output
        size = float(output.detach().abs().max()) or 1.0
        generator = torch.Generator().manual_seed(seed)
        noise = torch.rand(tuple(output.shape), generator=generator).to(output.device, output.dtype) + 0.5
        factor = {"ones": 1.0, "data": 1.0, "huge": 1e4}.get(kind, 1.0)
        keep = mask.bool().reshape(*mask.shape, *([1] * (output.ndim - mask.ndim)))
        filled = torch.where(keep, output, output + factor * size * noise)
        filled._keras_mask = mask
        return filled

    return tap


def steps(count: int) -> str:
    """ "1 step", "3 steps"."""
    return f"{count} step" if count == 1 else f"{count} steps"


def samples(count: int) -> str:
    """ "1 sample", "3 samples"."""
    return f"{count} sample" if count == 1 else f"{count} samples"


def batch_words(valid: Flags, *, right: bool = True) -> str:
    """A batch in words: how many samples, how wide, and what is padded in the sample that a reader looks at first."""
    count, width = valid.shape
    padded = np.flatnonzero(~valid[0])
    words = f"{samples(count)}, {steps(width)}"
    if not len(padded):
        return words
    if len(padded) == width:
        return f"{words}, all padded"
    ordinal = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
    if len(padded) == 1:
        place = ordinal[padded[0]] if padded[0] < 8 else f"step {padded[0]}"
        return f"{words}, the {place} padded" + (" in the first sample" if count > 1 else "")
    return f"{words}, the {'last' if right else 'first'} {len(padded)} padded" + (
        " in the first sample" if count > 1 else ""
    )


def finite(arrays: Sequence[NDArray[np.float64]]) -> bool:
    """Whether every number is finite."""
    return all(bool(np.isfinite(array).all()) for array in arrays)
