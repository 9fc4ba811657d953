"""Copied code without the statements that the failure does not need.

A choice (`if`) is decided, and a statement goes, where the same failure comes back without it; a definition or an
import goes where nothing names it any more. What a function returns stays: a script looks at that.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tsguard.repro.code.lines import Lines
from tsguard.repro.code.sources import globals_read

TRIALS = 60
"""Statements that are tried: each costs a model and a step, and a reduced case has few."""


def shortened(
    sources: Mapping[str, str], holds: Callable[[Mapping[str, str]], bool], *, trials: int = TRIALS
) -> dict[str, str]:
    """The sources without statements that need not be there, the last first: what is read goes after what reads it.

    What a choice holds is looked through once it is decided.
    """
    kept, left = dict(sources), trials
    for smaller in (_without_a_statement, _decided, _without_a_statement):
        for name in reversed(list(kept)):
            place = 0
            while left and place < len(found := smaller(kept[name])):
                left -= 1
                candidate = {**kept, name: found[place]}
                if _may_stand(candidate[name], kept[name]) and holds(candidate):
                    kept = candidate
                else:
                    place += 1
    return kept


def _may_stand(source: str, before: str) -> bool:
    """Whether code is code, and reads nothing from around it that it did not read before."""
    try:
        return not _reads(source) - _reads(before)
    except SyntaxError:  # a string over several lines may be cut wrong
        return False


def _decided(source: str) -> list[str]:
    """The source with one of its choices decided, either way."""
    found, rows = [], source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.IfExp):
            whole = ast.get_source_segment(source, node) or ""
            for branch in (node.body, node.orelse):
                # The same words say the same elsewhere: decided once, they are decided everywhere.
                found.append(source.replace(whole, ast.get_source_segment(source, branch) or whole))
        if isinstance(node, ast.If) and rows[node.lineno - 1].lstrip().startswith("if "):
            for body in (node.body, node.orelse):
                if body and body[0].lineno > node.lineno and isinstance(body[0], ast.stmt):
                    first, last = _rows(body[0])[0] - 1, body[-1].end_lineno or body[-1].lineno
                    inner = [row[body[0].col_offset - node.col_offset :] for row in rows[first:last]]
                    found.append("\n".join([*rows[: node.lineno - 1], *inner, *rows[node.end_lineno :]]))
    return found


def _without_a_statement(source: str) -> list[str]:
    rows = source.splitlines()
    return ["\n".join([*rows[: first - 1], *rows[last:]]) for first, last in _statements(source)]


def _reads(source: str) -> set[str]:
    """The names that code reads from around it: a local name that is gone must not become one of the script's."""
    return globals_read(compile(source, "copied", "exec"))


def _statements(source: str) -> list[tuple[int, int]]:
    """First and last lines of the statements that could go: later ones first, and what holds others before them."""
    found = []
    for node in ast.walk(ast.parse(source)):
        for body in (getattr(node, field, None) for field in ("body", "orelse")):
            if isinstance(body, list) and len(body) > 1 and not isinstance(node, ast.Module):
                rows = [_rows(one) for one in body]
                for place, (one, (first, last)) in enumerate(zip(body, rows, strict=True)):
                    # What shares a line with a neighbour (`a; b`) cannot go by itself.
                    alone = sum(a <= last and first <= b for a, b in rows) == 1
                    unreached = any(isinstance(before, ast.Return) for before in body[:place])
                    if alone and (unreached or not isinstance(one, ast.Return)):
                        found.append((first, last))
    return sorted(found, key=lambda lines: (-lines[1], lines[0]))


def _rows(one: Any) -> tuple[int, int]:
    marks = [mark.lineno for mark in getattr(one, "decorator_list", ())]
    return min([one.lineno, *marks]), one.end_lineno or one.lineno


def drop_unread(lines: Lines, also: Iterable[str] = ()) -> None:
    """No definition and no import that nothing names."""
    while True:
        texts = {**lines.sources, "": "\n".join([*lines.body, *also])}
        idle = [name for name in lines.sources
                if not any(_names(name, text) for other, text in texts.items() if other != name)]  # fmt: skip
        for name in idle:
            del lines.sources[name]
        if not idle:
            break
    text = "\n".join([*lines.sources.values(), *lines.body, *also])
    lines.imports = {line for line in lines.imports if any(_names(name, text) for name in _bound(line))}


def _names(name: str, text: str) -> bool:
    return re.search(rf"\b{re.escape(name)}\b", text) is not None


def _bound(line: str) -> list[str]:
    """What an import binds."""
    [node] = ast.parse(line).body
    assert isinstance(node, ast.Import | ast.ImportFrom)
    return [one.asname or one.name.split(".")[0] for one in node.names]
