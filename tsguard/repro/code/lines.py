"""A script in the making: what it imports, what is copied into it, and the lines that build its model."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import Any

from tsguard.errors import SubjectError

RESERVED = frozenset(
    "os sys pkgutil json keras np x y weight slots stored build finite stages found model all_terms".split()
)
"""Names that the script itself uses: code that is copied in must not bind them to something else."""


class NotCode(SubjectError):
    """Something that cannot be written as a few lines of code."""


@dataclass
class Lines:
    """A script in the making: imports and copied sources found on the way, and the lines of the model."""

    imports: set[str] = field(default_factory=set)
    sources: dict[str, str] = field(default_factory=dict)
    body: list[str] = field(default_factory=list)
    owner: Any = None
    """The object whose constructor is being written: a lambda in it may close over `self`."""

    @property
    def annotated(self) -> bool:
        """Whether copied code has annotations, which name things that the script does not import."""
        trees = [ast.parse(text) for text in self.sources.values()]
        nodes = [node for tree in trees for node in ast.walk(tree)]
        return any(isinstance(n, ast.AnnAssign) or getattr(n, "annotation", None) or getattr(n, "returns", None)
                   for n in nodes)  # fmt: skip

    def add(self, name: str, text: str) -> None:
        """A definition of the script; one name may stand for one thing only."""
        if name in RESERVED:
            raise NotCode(f"{name!r} is a name that the script itself uses, so code that reads it cannot be copied in.")
        if self.sources.get(name, text) != text:
            raise NotCode(f"{name!r} means two things in the code to be copied; a script has one name for each.")
        self.sources[name] = text
