"""A broken law as a case: the two batches of the counterexample, and the output that moved between them.

Most laws say that an output must stay when only something that does not count was changed. Then the script is the
model, both batches and one difference, and needs nothing of ours. What cannot be said so (gradients, masks inside the
model) is asked again through `tsguard.laws`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from tsguard.backend import preserved, seed_everything
from tsguard.dataset import Data, leaves, map_leaves
from tsguard.findings import Finding, Status
from tsguard.repro import emit
from tsguard.repro import script as scripts
from tsguard.repro.case import Batch, Case, Fingerprint, weights_in
from tsguard.repro.code.lines import Lines, NotCode
from tsguard.repro.found import FoundCase
from tsguard.repro.graphs import REFUSALS
from tsguard.repro.passes.narrow import bypass_layers, narrow_layers
from tsguard.repro.passes.plain import forget_weights
from tsguard.repro.reduce import Reduction

ROWS_KEPT = 32
"""Rows of the data that go along where the counterexample itself is too large to be written into the test."""


def law_case(
    findings: Sequence[Finding],
    model: Any,
    data: Data | None,
    *,
    name: str,
    recipe: Any,
    budget_s: float = 30,
    progress: Callable[[str], None] = lambda words: None,
) -> FoundCase | None:
    """The first finding of a law that carries its counterexample; None where there is none."""
    for finding in findings:
        test = next((e.value for e in finding.evidence if e.kind == "source" and e.name == "pytest"), None)
        if test and finding.status in (Status.FAIL, Status.WARN) and model is not None:
            with preserved(model):
                return _case(finding, str(test), model, data, name, recipe, budget_s, progress)
    return None


def _case(
    finding: Finding,
    test: str,
    model: Any,
    data: Data | None,
    name: str,
    recipe: Any,
    budget_s: float,
    progress: Callable[[str], None],
) -> FoundCase:
    first = None if data is None else next(iter(data.batches(1)), None)
    batch = Batch.of(first if first is not None else (np.zeros((1, 1)),)).map(lambda leaf: leaf[:ROWS_KEPT])
    whole = sum(int(np.size(leaf)) for leaf in leaves([data.x, data.y])) if data is not None and data.is_arrays else 0
    weights = tuple(model.get_weights())
    own = Case(model, batch, Fingerprint(finding.code, "law", None, None), recipe=recipe, weights=weights, name=name)
    original = max(whole, batch.size) + weights_in(model, batch)
    asked = (lambda: _asked_script(finding, test, own.with_(weights=None)), lambda: _asked_script(finding, test, own))
    moved = _Moved.of(finding, batch.x)
    if moved is None or not moved.moves(own.with_(batch=Batch(moved.before))):
        written = [e.value for e in finding.evidence if e.kind == "batch" and e.name == "before"]
        shapes = [leaf["shape"] for leaf in written[0].values()] if written else []
        size = sum(int(np.prod(shape)) for shape in shapes) or batch.size
        return FoundCase(finding, name, asked, size, original, prints="broken: …")
    reduction = Reduction(
        own.with_(batch=Batch(moved.before)),
        budget_s=budget_s,
        fails=moved.moves,
        passes=(forget_weights, bypass_layers, narrow_layers, forget_weights),
        progress=progress,
    )
    small = reduction.run()
    return FoundCase(
        finding,
        name,
        (
            lambda: _script(finding, small, moved),
            lambda: _script(finding, small.with_(weights=tuple(small.model.get_weights())), moved),
            lambda: _script(finding, own, moved),
            *asked,
        ),
        size=small.size + moved.changed,
        original_size=original,
        prints=f"{moved.what} moved by …",
        exhausted=reduction.exhausted,
    )


@dataclass(frozen=True)
class _Moved:
    """What must not have moved: one place of one output, or the loss."""

    before: Any
    after: Any
    output: str | None
    sample: int
    timestep: int | None
    tolerance: float
    training: bool

    @classmethod
    def of(cls, finding: Finding, like: Any) -> _Moved | None:
        """From a finding; None where its counterexample does not say it all."""
        held = {e.name: e.value for e in finding.evidence if e.kind in ("batch", "value")}
        before, after = (_arrays(held[side], like) if side in held else None for side in ("before", "after"))
        sample, distance = finding.where.get("sample"), held.get("distance")
        if before is None or after is None or not isinstance(sample, int) or not isinstance(distance, Mapping):
            return None
        law, timestep = str(finding.where.get("law", "")), finding.where.get("timestep")
        return cls(
            before,
            after,
            finding.where.get("output"),
            sample,
            timestep if isinstance(timestep, int) else None,
            float(distance["tolerance"]),
            law.endswith("in training"),
        )

    @property
    def changed(self) -> int:
        """Scalars that differ between the two batches."""
        pairs = zip(leaves(self.before), leaves(self.after), strict=True)
        return sum(int(np.sum(a != b)) if a.shape == b.shape else int(b.size) for a, b in pairs)

    @property
    def what(self) -> str:
        """The place, for a person."""
        step = "" if self.timestep is None else f"step {self.timestep} of "
        return f"the output at {step}sample {self.sample}"

    @property
    def index(self) -> str:
        """The place, in code."""
        return f"[{self.sample}]" if self.timestep is None else f"[{self.sample}, {self.timestep}]"

    def key(self, answers: Any) -> str:
        """How the output is reached among several, in code."""
        if isinstance(answers, Mapping) and self.output in answers:
            return f'["{self.output}"]'
        return ""

    def moves(self, case: Case) -> bool:
        """Whether a model still moves there by more than it may."""
        try:
            with preserved(case.model):
                if case.weights is not None:
                    case.model.set_weights(list(case.weights))
                one, two = (self._at(case.model, side) for side in (self.before, self.after))
        except REFUSALS:
            return False
        return one.shape == two.shape and not bool(np.abs(one - two).max(initial=0.0) <= self.tolerance)

    def _at(self, model: Any, side: Any) -> Any:
        seed_everything(0)
        answers = model(map_leaves(keras.ops.convert_to_tensor, side), training=self.training)
        if isinstance(answers, Mapping):
            answers = answers[self.output] if self.output in answers else next(iter(answers.values()))
        answer = keras.ops.convert_to_numpy(answers)
        return answer[self.sample] if self.timestep is None else answer[self.sample, self.timestep]


def _arrays(written: Mapping[str, Any], like: Any) -> Any:
    """A written batch in the structure in which the model takes it; None where it was too large to be written."""
    if not all(isinstance(leaf, Mapping) and "values" in leaf for leaf in written.values()):
        return None
    held = {
        name: np.array(leaf["values"], dtype=leaf["dtype"]).reshape(leaf["shape"])
        for name, leaf in written.items()
        if not name.startswith("y[")
    }
    if isinstance(like, Mapping):
        return {key: held[key] for key in like} if set(like) <= set(held) else None
    values = list(held.values())
    return values if isinstance(like, list | tuple) else values[0] if len(values) == 1 else None


def _script(finding: Finding, case: Case, moved: _Moved) -> scripts.Script:
    """The model, both batches and their difference."""
    script, lines, beside = scripts.Script(), Lines(), dict[str, Any]()
    try:
        emit.model_lines(case, lines, script)
    except NotCode as refused:
        return scripts.Script(refused=str(refused))
    # Nothing trains here.
    lines.body = [line for line in lines.body if not line.startswith("model.compile(")]
    emit.weight_lines(case, lines, beside)
    before = emit.value("x", moved.before, beside)
    after = emit.value("changed", moved.after, beside)
    if isinstance(moved.before, Mapping):
        same = {key for key in moved.before if np.array_equal(moved.before[key], moved.after[key])}
        other = {key: emit.value(f"changed_{key}", moved.after[key], beside) for key in moved.after if key not in same}
        after = "{**x, " + ", ".join(f'"{key}": {text}' for key, text in other.items()) + "}"
    with preserved(case.model):
        answers = case.model(map_leaves(keras.ops.convert_to_tensor, moved.before))
    title = scripts.one_line(f"{finding.code}: {finding.message}")
    shared = {"title": title, "fingerprint": finding.code, "slug": re.sub(r"\W+", "_", finding.code)}
    scripts.render(
        script, "law.py.j2", shared, lines, beside, arrays=[f"x = {before}", f"changed = {after}"],
        seed=case.seed, seeded=case.weights is None, what=moved.what, place=moved.key(answers) + moved.index,
        tolerance=f"{moved.tolerance:.1g}", training=", training=True" if moved.training else "",
    )  # fmt: skip
    return script


def _asked_script(finding: Finding, test: str, case: Case) -> scripts.Script:
    """The evidence's own test, called with a model that is built beside it."""
    script, lines, beside = scripts.Script(), Lines(), dict[str, Any]()
    try:
        emit.model_lines(replace(case, fingerprint=replace(case.fingerprint, phase="training")), lines, script)
    except NotCode as refused:
        return scripts.Script(refused=str(refused))
    lines.imports.add("from tsguard import Padding, laws")
    emit.weight_lines(case, lines, beside)
    arrays, data = [], "None"
    if "subject.data" in test:
        x, y = (emit.value(key, map_leaves(np.asarray, part), beside, home="np") for key, part in
                (("x", case.batch.x), ("y", case.batch.y)))  # fmt: skip
        arrays, data = [f"x = {x}", f"y = {y}"], "(x, y)"
    body = test[test.index("def test_") :].rstrip()
    title = scripts.one_line(f"{finding.code}: {finding.message}")
    shared = {"title": title, "fingerprint": finding.code, "slug": re.sub(r"\W+", "_", finding.code)}
    lines.imports.add("import types")
    scripts.render(
        script, "law_asked.py.j2", shared, lines, beside, arrays=arrays, seed=case.seed, seeded=True, test=body,
        data=data, test_name=body[len("def ") : body.index("(")], code=[body],
    )  # fmt: skip
    return script
