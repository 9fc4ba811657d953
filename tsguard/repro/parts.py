"""A finding about data alone that needs more than x and y: the validation part, weights, or arguments of `fit`.

Rows of either part are left out as long as the check still says so, then steps and columns of both parts at once. Where
a few lines of NumPy say what is wrong the script holds them, and the search keeps only what they find wrong as well;
else it asks through `told`. No model takes part.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tsguard.checks.registry import Context, all_checks
from tsguard.dataset import Data, leaves, map_leaves
from tsguard.findings import Finding
from tsguard.repro import emit
from tsguard.repro import script as scripts
from tsguard.repro.asked import finds, written
from tsguard.repro.asked_parts import FORMS, WITHOUT_MODEL
from tsguard.repro.budget import Clock, stopwatch
from tsguard.repro.code.arrays import plain
from tsguard.repro.code.lines import Lines
from tsguard.repro.found import FoundCase
from tsguard.repro.passes.subset import smallest
from tsguard.repro.recheck import OF_AMOUNT, ROWS_FIRST, plain_settings, reads, told
from tsguard.repro.reduce import OutOfTime

if TYPE_CHECKING:
    from tsguard.repro.asked_parts import Form

OURS, HELD = ("x", "y", "weight"), ("held_x", "held_y")
"""What is cut by the rows of the training part, and what by those of the validation part."""

ROWS_MOST = 20_000
"""Rows of either part that a search may begin with: what shows on none of these is not reduced."""


@dataclass(frozen=True)
class Parts:
    """The arrays that a finding is about, by the names that they have in the script."""

    x: Any
    y: Any = None
    weight: Any = None
    held_x: Any = None
    held_y: Any = None
    fit: Mapping[str, Any] = field(default_factory=dict)
    """Plain arguments of `fit`."""

    @classmethod
    def of(cls, data: Data) -> Parts | None:
        """Those of a training; None where some are no arrays."""
        held = data.validation if isinstance(data.validation, tuple | list) else ()
        given = [data.x, data.y, data.sample_weight, *held[:2], None, None][:5]
        arrays = [leaf for part in given for leaf in leaves(part)]
        if not all(isinstance(leaf, np.ndarray) for leaf in arrays):
            return None
        return cls(*given).rows(OURS, range(ROWS_MOST)).rows(HELD, range(ROWS_MOST))

    @property
    def given(self) -> dict[str, Any]:
        """The arrays that are there."""
        return {name: part for name in (*OURS, *HELD) if (part := getattr(self, name)) is not None}

    @property
    def size(self) -> int:
        """Scalars in all of it."""
        return sum(int(leaf.size) for part in self.given.values() for leaf in leaves(part))

    def count(self, names: Sequence[str]) -> int:
        """Rows of a part."""
        held = [leaf for name in names for leaf in leaves(getattr(self, name))]
        return len(held[0]) if held else 0

    def rows(self, names: Sequence[str], some: Sequence[int]) -> Parts:
        """With some rows of one part."""
        index = np.asarray([row for row in some if row < self.count(names)], dtype=int)
        return replace(self, **{name: map_leaves(lambda leaf: leaf[index], getattr(self, name)) for name in names})

    def cut(self, number: int, axis: int, some: Sequence[int]) -> Parts:
        """With some columns (or steps) of one input, in both parts."""

        def shorter(structure: Any) -> Any:
            counted = itertools.count()
            return map_leaves(
                lambda leaf: np.take(leaf, list(some), axis) if next(counted) == number else leaf, structure
            )

        return replace(self, x=shorter(self.x), held_x=shorter(self.held_x))


def parts_case(
    finding: Finding,
    context: Context,
    data: Data,
    *,
    name: str,
    budget_s: float,
    clock: Clock | None = None,
    progress: Callable[[str], None] = lambda words: None,
    loaded: bool = False,
) -> FoundCase | None:
    """The fewest rows and columns of both parts of which a check still says so; None where it does not say it again.

    What was said of a loader (`loaded`) a check may not say of the arrays that it gave: then the lines alone are asked.
    """
    known = {one.name for one in all_checks()}
    validation = None if context.data is None else context.data.validation
    whole = Parts.of(replace(data, validation=validation))
    if whole is None or finding.check not in known or finding.check in OF_AMOUNT:
        return None
    clock = clock or stopwatch()
    deadline = clock() + budget_s
    for settings in plain_settings(context, finding):
        whole = replace(whole, fit=settings.get("fit", {}))
        asked = _Asked(finding, settings, deadline, clock, progress)
        forms = FORMS.get(finding.code, ())
        asked.form = next((form for form in forms if asked.lines(form, whole) is not None), None)
        try:
            alone = asked.form is not None and (loaded or asked.form in WITHOUT_MODEL)
            for by_lines in (False, True) if alone else (False,):
                asked.by_lines = by_lines
                if any(asked.still(some) for some in _beginnings(whole)):
                    return _case(finding, whole, asked, name)
        except OutOfTime:
            break
    return None


def _beginnings(whole: Parts) -> Iterator[Parts]:
    """The first rows of both parts, then more of them: most findings show on few."""
    for count in ROWS_FIRST:
        if count < max(whole.count(OURS), whole.count(HELD)):
            yield whole.rows(OURS, range(count)).rows(HELD, range(count))
    yield whole


def _case(finding: Finding, whole: Parts, asked: _Asked, name: str) -> FoundCase:
    exhausted = False
    try:
        for _ in _smaller(asked):
            pass
    except OutOfTime:
        exhausted = True
    small = asked.best
    plainly = None if asked.form is None else asked.lines(asked.form, small)
    if plainly is not None:
        unread: dict[str, Any] = {name: None for name in small.given if not reads(plainly, name)}
        small = replace(small, **unread)
    return FoundCase(
        finding,
        name,
        (
            *((lambda: _script(finding, small, plainly),) if plainly is not None else ()),
            *(() if asked.by_lines else (lambda: _script(finding, asked.best, _through_the_check(asked)),)),
        ),
        size=small.size,
        original_size=whole.size,
        prints="wrong: …",
        exhausted=exhausted,
        plain=plainly is not None,
    )


def _smaller(asked: _Asked) -> Iterator[None]:
    """Rows, then columns and steps, until nothing more goes."""
    size = None
    while asked.best.size != size:
        size = asked.best.size
        for names in (HELD, OURS):
            start = asked.best
            if start.count(names) > 1:
                smallest(range(start.count(names)), lambda some: asked.still(start.rows(names, some)))  # noqa: B023
            yield
        for number, leaf in enumerate(leaves(asked.best.x)):
            for axis in range(leaf.ndim - 1, 0, -1):
                start = asked.best
                length = list(leaves(start.x))[number].shape[axis]
                if length > 1:
                    smallest(range(length), lambda some: asked.still(start.cut(number, axis, some)))  # noqa: B023
                yield


class _Asked:
    """What a candidate is asked: the lines, where there are any, and the check. Remembers the smallest that fails."""

    def __init__(
        self,
        finding: Finding,
        settings: Mapping[str, Any],
        deadline: float,
        clock: Clock,
        progress: Callable[[str], None],
    ) -> None:
        self.finding, self.settings = finding, settings
        self.deadline, self.clock, self.progress = deadline, clock, progress
        self.form: Form | None = None
        self.by_lines = False
        """Whether the lines alone are asked."""
        self.best: Parts

    def still(self, parts: Parts) -> bool:
        """Whether it is wrong; then it is the best so far."""
        if self.clock() > self.deadline:
            raise OutOfTime
        if self.form is not None and self.lines(self.form, parts) is None:
            return False
        said = self.by_lines or self.said(parts)
        if said:
            self.best = parts
            self.progress(f"reducing: {parts.size:,} scalars left")
        return said

    def said(self, parts: Parts) -> bool:
        """Whether the check says it of some parts."""
        given = parts.given
        validation = tuple(given[name] for name in HELD if name in given)
        words = told(
            self.finding.check, self.finding.code, None, parts.x, parts.y,
            validation=validation or None, sample_weight=parts.weight, **self.settings,
        )  # fmt: skip
        return bool(words)

    def lines(self, form: Form, parts: Parts) -> list[str] | None:
        """The lines of a form, where they find the parts wrong."""
        lines = written(form, self.finding, parts)
        return lines if lines is not None and finds(lines, vars(parts)) else None


def _through_the_check(asked: _Asked) -> list[str]:
    finding, given = asked.finding, asked.best.given
    words = [plain(finding.check), plain(finding.code), "None", *(name for name in ("x", "y") if name in given)]
    if held := [name for name in HELD if name in given]:
        words.append(f"validation=({', '.join(held)}{',' if len(held) == 1 else ''})")
    if "weight" in given:
        words.append("sample_weight=weight")
    words += [f"{key}={plain(value)}" for key, value in asked.settings.items()]
    return ["from tsguard.repro.recheck import told", f"wrong = told({', '.join(words)})"]


def _script(finding: Finding, parts: Parts, lines: list[str]) -> scripts.Script:
    script, beside = scripts.Script(), dict[str, Any]()
    read = {key: emit.value(key, part, beside, home="np") for key, part in parts.given.items() if reads(lines, key)}
    if reads(lines, "fit"):
        read["fit"] = plain({key: value for key, value in parts.fit.items() if reads(lines, key)})
    given = ", ".join(read.values())
    title = scripts.one_line(f"{finding.code}: {finding.message}", scripts.SAID)
    scripts.render(
        script,
        "data.py.j2",
        {"title": title, "fingerprint": finding.code, "slug": re.sub(r"\W+", "_", finding.code)},
        Lines(),
        beside,
        arrays=[],
        returned=scripts.returned(given),
        data=", ".join(read),
        plainly=lines,
        code=(given, *lines),
    )
    return script
