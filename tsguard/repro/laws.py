"""A broken law as a case: the batches of the counterexample, and a question about them that needs nothing of ours.

What cannot be said in a few lines of Keras (a layer's mask, a loss at two lengths) is asked again through
`tsguard.laws`.
"""

from __future__ import annotations

import re
import textwrap
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from tsguard.backend import preserved
from tsguard.dataset import Data, leaves, map_leaves
from tsguard.findings import Finding, Status
from tsguard.repro import emit
from tsguard.repro import script as scripts
from tsguard.repro.budget import stopwatch
from tsguard.repro.case import Batch, Case, Fingerprint, has_kind, kind_of, weights_in
from tsguard.repro.code.arrays import plain
from tsguard.repro.code.lines import Lines, NotCode
from tsguard.repro.forms import equal, question_of
from tsguard.repro.found import FoundCase
from tsguard.repro.graphs import REFUSALS
from tsguard.repro.passes.narrow import bypass_layers, narrow_layers
from tsguard.repro.passes.plain import forget_weights
from tsguard.repro.questions import Question
from tsguard.repro.reduce import Reduction

ASKED = "broken: …"
"""What a script prints that asks through `tsguard.laws`."""

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
    """The first finding of a law that carries its counterexample; None where there is none.

    Of those that say of one model that padding counts, the first that can be asked in Keras alone.
    """
    broken = [(one, test) for one in findings if one.status in (Status.FAIL, Status.WARN) and (test := test_of(one))]
    if model is None or not broken:
        return None
    alike = [one for one in broken if _of_padding(one[0]) and _of_padding(broken[0][0])] or broken[:1]
    clock = stopwatch()
    found: list[FoundCase] = []
    for finding, test in alike:
        with preserved(model):
            left = max(0.0, budget_s - clock())
            case = _case(finding, test, model, data, name, recipe, left, progress)
        if case.prints != ASKED:
            return case
        found.append(case)
    return found[0]


def test_of(finding: Finding) -> str:
    """The test that a law has written of its counterexample."""
    return next((str(e.value) for e in finding.evidence if e.kind == "source" and e.name == "pytest"), "")


def _of_padding(finding: Finding) -> bool:
    return finding.code.startswith(("pad-", "mask-"))


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
    question = question_of(finding, test, model, batch)
    whole_case = None if question is None else own.with_(batch=Batch(question.arrays["x"]))
    if question is None or whole_case is None or not question.broken(whole_case):
        written = [e.value for e in finding.evidence if e.kind == "batch" and e.name == "before"]
        shapes = [leaf["shape"] for leaf in written[0].values()] if written else []
        size = sum(int(np.prod(shape)) for shape in shapes) or batch.size
        return FoundCase(finding, name, asked, size, original, prints=ASKED)
    place = _Place.of(finding, whole_case)

    def broken(case: Case) -> bool:
        return place.is_in(case) and question.broken(case)

    reduction = Reduction(
        whole_case,
        budget_s=budget_s,
        fails=broken,
        passes=(forget_weights, bypass_layers, narrow_layers, forget_weights),
        progress=progress,
    )
    small = reduction.run()
    return FoundCase(
        finding,
        name,
        (
            lambda: _script(finding, small, question, broken),
            lambda: _script(finding, small.with_(weights=tuple(small.model.get_weights())), question, broken),
            lambda: _script(finding, own, question, broken),
            *asked,
        ),
        size=small.size + question.changed,
        original_size=original,
        prints=question.shown,
        exhausted=reduction.exhausted,
    )


@dataclass(frozen=True)
class _Place:
    """Where a law is broken: a candidate without the layer at fault, or that no longer pools, breaks another one."""

    layer_kind: str | None
    shapes: tuple[tuple[int, ...], ...]
    """Of the outputs, without their last axis, which may be narrowed."""

    @classmethod
    def of(cls, finding: Finding, case: Case) -> _Place:
        layer = finding.where.get("layer")
        return cls(None if layer is None else kind_of(case.model, str(layer)), _shapes(case))

    def is_in(self, case: Case) -> bool:
        try:
            return has_kind(case.model, self.layer_kind) and _shapes(case) == self.shapes
        except REFUSALS:
            return False


def _shapes(case: Case) -> tuple[tuple[int, ...], ...]:
    with preserved(case.model), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        answers = case.model(map_leaves(keras.ops.convert_to_tensor, case.batch.x))
    return tuple(tuple(one.shape)[:-1] for one in keras.tree.flatten(answers))


def _script(finding: Finding, case: Case, question: Question, still: Callable[[Case], bool]) -> scripts.Script:
    """The model, the batches and the question."""
    script, lines, beside = scripts.Script(), Lines(), dict[str, Any]()
    try:
        emit.model_lines(case, lines, script)
    except NotCode as refused:
        return scripts.Script(refused=str(refused))
    if not question.compiled:
        lines.body = [line for line in lines.body if not line.startswith("model.compile(")]
    emit.weight_lines(case, lines, beside)
    arrays = [f"{name} = {_written(name, given, question, beside)}" for name, given in question.arrays.items()]
    emit.shorten_sources(case, lines, arrays, beside, still)
    title = scripts.one_line(f"{finding.code}: {finding.message}", scripts.SAID)
    shared = {"title": title, "fingerprint": finding.code, "slug": re.sub(r"\W+", "_", finding.code)}
    scripts.render(
        script, "law.py.j2", shared, lines, beside, arrays=arrays, seed=case.seed, seeded=case.weights is None,
        asked=question.lines, prints=question.prints,
    )  # fmt: skip
    return script


def _written(name: str, given: Any, question: Question, beside: dict[str, Any]) -> str:
    """An array of the question in code; of a changed batch only the inputs that differ."""
    if name == "changed" and equal(given, question.arrays["x"]):
        return "x"  # asked twice: what is drawn in between is what moves
    if name != "changed" or not isinstance(given, Mapping):
        return emit.value(name, given, beside)
    x = question.arrays["x"]
    other = {key: leaf for key, leaf in given.items() if not np.array_equal(x[key], leaf)}
    words = [f"{plain(key)}: {emit.value(f'changed_{key}', leaf, beside)}" for key, leaf in other.items()]
    return "{**x, " + ", ".join(words) + "}"


def _asked_script(finding: Finding, test: str, case: Case) -> scripts.Script:
    """The evidence's own test, called with a model that is built beside it."""
    script, lines, beside = scripts.Script(), Lines(), dict[str, Any]()
    try:
        emit.model_lines(replace(case, fingerprint=replace(case.fingerprint, phase="training")), lines, script)
    except NotCode as refused:
        return scripts.Script(refused=str(refused))
    lines.imports.add("from tsguard import Padding, laws")
    emit.weight_lines(case, lines, beside)
    arrays = []
    if "subject.data" in test:
        x, y = (emit.value(key, map_leaves(np.asarray, part), beside, home="np") for key, part in
                (("x", case.batch.x), ("y", case.batch.y)))  # fmt: skip
        arrays = [f"x = {x}", f"y = {y}"]
    body = test[test.index("def test_") : test.index("    assert result.outcome")]
    asked = textwrap.dedent(body.partition("\n")[2]).rstrip()
    asked = asked.replace("subject.model()", "model").replace("subject.data", "(x, y)")
    title = scripts.one_line(f"{finding.code}: {finding.message}", scripts.SAID)
    shared = {"title": title, "fingerprint": finding.code, "slug": re.sub(r"\W+", "_", finding.code)}
    words = [*asked.splitlines(), 'held = result.outcome in ("holds", "not-applicable")']
    scripts.render(
        script, "law.py.j2", shared, lines, beside, arrays=arrays, seed=case.seed, seeded=True, asked=words,
        prints="broken: {result.reason}", code=words,
    )  # fmt: skip
    return script
