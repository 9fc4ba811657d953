"""A broken law as a case: the counterexample that the search found, around a model that the script builds itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from tsguard.dataset import Data, leaves, map_leaves
from tsguard.findings import Finding, Status
from tsguard.repro import emit
from tsguard.repro.case import Batch, Case, Fingerprint
from tsguard.repro.code.lines import Lines, NotCode
from tsguard.repro.found import FoundCase

ROWS_KEPT = 32
"""Rows of the data that go along where the counterexample itself is too large to be written into the test."""


def law_case(findings: Sequence[Finding], model: Any, data: Data | None, *, name: str, recipe: Any) -> FoundCase | None:
    """The first finding of a law that carries its test; None where there is none."""
    for finding in findings:
        test = next((e.value for e in finding.evidence if e.kind == "source" and e.name == "pytest"), None)
        if test and finding.status in (Status.FAIL, Status.WARN) and model is not None:
            return _case(finding, str(test), model, data, name, recipe)
    return None


def _case(finding: Finding, test: str, model: Any, data: Data | None, name: str, recipe: Any) -> FoundCase:
    first = None if data is None else next(iter(data.batches(1)), None)
    batch = Batch.of(first if first is not None else (np.zeros((1, 1)),)).map(lambda leaf: leaf[:ROWS_KEPT])
    whole = 0 if data is None or not data.is_arrays else sum(int(np.size(leaf)) for leaf in leaves([data.x, data.y]))
    written = [e.value for e in finding.evidence if e.kind == "batch" and e.name == "before"]
    shapes = [leaf["shape"] for leaf in written[0].values()] if written else []
    weights = tuple(model.get_weights())
    own = Case(model, batch, Fingerprint(finding.code, "law", None, None), recipe=recipe)

    def maker(kept: tuple[Any, ...] | None) -> Any:
        return lambda: _script(finding, test, own.with_(weights=kept))

    return FoundCase(
        finding=finding,
        name=name,
        makers=(maker(None), maker(weights)),
        size=sum(int(np.prod(shape)) for shape in shapes) or batch.size,
        original_size=max(whole, batch.size) + sum(int(weight.size) for weight in weights),
        prints="broken: …",
    )


def _script(finding: Finding, test: str, case: Case) -> emit.Script:
    """The evidence's own test, called with a model that is built beside it."""
    script = emit.Script()
    lines = Lines()
    beside: dict[str, Any] = {}
    try:
        emit.model_lines(case, lines, script)
    except NotCode as refused:
        return emit.Script(refused=str(refused))
    lines.imports.add("from tsguard import Padding, laws")
    emit.weight_lines(case, lines, beside)
    arrays: list[str] = []
    data = "None"
    if "subject.data" in test:
        x, y = (emit.value(key, map_leaves(np.asarray, part), beside) for key, part in
                (("x", case.batch.x), ("y", case.batch.y)))  # fmt: skip
        arrays += [f"x = {x}", f"y = {y}"]
        data = "(x, y)"
    if beside:
        arrays.insert(0, emit.STORED)
    body = test[test.index("def test_") :].rstrip()
    title = emit.one_line(f"{finding.code}: {finding.message}")
    shared = {"title": title, "fingerprint": title, "slug": re.sub(r"\W+", "_", finding.code)}
    emit.render(
        script, "law.py.j2", shared, lines, beside, arrays=arrays, seed=case.seed, test=body, data=data,
        test_name=body[len("def ") : body.index("(")],
    )  # fmt: skip
    return script
