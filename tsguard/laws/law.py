"""A law: a name, a code, when it applies, which batches to try, and a judge that answers with a counterexample or
None."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st

from tsguard.laws.batches import KINDS, Example, examples
from tsguard.laws.compare import Moved
from tsguard.laws.ground import Ground, batch_words
from tsguard.laws.results import Counterexample
from tsguard.laws.structure import Leaves
from tsguard.laws.trace import Call

JudgeOn = Callable[[Ground, Example], Counterexample | None]
Applies = Callable[[Ground], str | None]
"""The reason why a law does not apply, or None where it does."""


class NotAsked(Exception):
    """Raised by a judge that finds out on the way that the law cannot be asked here; its words say why."""


@dataclass(frozen=True)
class Law:
    """What must hold of every batch."""

    name: str
    code: str
    judge: JudgeOn
    applies: Applies
    batches: Callable[[Ground], st.SearchStrategy[Example]]
    share: float = 1.0
    """Of the profile's examples: less for laws that take gradients or wide batches."""
    finish: Callable[[Ground, Counterexample], Counterexample] | None = None
    """Once, for the smallest counterexample: names the layer, runs an experiment."""
    once: bool = False
    """A law about the model or its data as such: judged on one batch, nothing to search."""


def padded_batches(ground: Ground) -> st.SearchStrategy[Example]:
    """Batches whose first sample has padding, filled with each kind of value."""
    return examples(ground.material, widths=ground.widths, kinds=KINDS)


def padded_batches_of_any_width(ground: Ground) -> st.SearchStrategy[Example]:
    """… at the data's own width too."""
    return examples(ground.material, widths=ground.all_widths, kinds=KINDS)


def two_widths(ground: Ground) -> st.SearchStrategy[Example]:
    """Batches at two widths; the narrower one may have no padding at all."""
    return examples(ground.material, widths=ground.all_widths, padded=False, more=True)


def any_batches(ground: Ground) -> st.SearchStrategy[Example]:
    """Batches with or without padding."""
    return examples(ground.material, widths=ground.widths, padded=False)


def neighbours(ground: Ground) -> st.SearchStrategy[Example]:
    """Batches of two samples or more."""
    return examples(ground.material, widths=ground.widths, padded=False, least=2)


def padded_features(ground: Ground) -> st.SearchStrategy[Example]:
    """Batches whose samples have fewer valid features than there are."""
    return examples(ground.material, widths=ground.widths, kinds=KINDS, padded=False, features=True)


def not_padded(ground: Ground) -> str | None:
    """Why laws of padding do not apply, if they do not."""
    reading = ground.reading
    if not reading.time:
        return "no input has a time axis; declare it with tsguard.Padding(inputs={name: axis}) if one has"
    if reading.mask_kind != "none":
        return None
    if reading.declared:
        return "the model has no mask for steps and no row ends in the pad value: time is not padded"
    return "the model has no mask and no tsguard.Padding was declared: its batches are not padded"


def at_layer(counterexample: Counterexample, call: Call | None, remedy: str) -> Counterexample:
    """The counterexample with the layer at fault in its place, words and remedy."""
    if call is None:
        return counterexample
    return replace(
        counterexample,
        where={**counterexample.where, "layer": call.path},
        words=f"{counterexample.words} Layer `{call.path}` ({call.kind}) is the first whose valid positions depend on "
        "the others.",
        remedy=remedy.format(layer=call.path),
    )


def moved_words(ground: Ground, valid: Any, moved: Moved, what: str) -> str:
    place = "the pooled output" if moved.timestep is None else f"the output at step {moved.timestep}"
    return (
        f"{batch_words(valid, right=ground.material.right)}; {place} of sample {moved.sample} moved by {moved.by:.3g} "
        f"(tolerance {moved.tolerance:.1g}) when {what}."
    )


def moved_place(law: str, moved: Moved) -> dict[str, Any]:
    return {"law": law, "phase": "forward", "sample": moved.sample, "timestep": moved.timestep, "output": moved.output}


def output_moved(
    law: str, code: str, words: str, before: Leaves, after: Leaves, moved: Moved, example: Example, **more: Any
) -> Counterexample:
    """The counterexample of an output that moved between two batches."""
    place = moved_place(law, moved)
    return Counterexample(law, code, words, before, after, moved.by, moved.tolerance, place, size=example.size, **more)
