"""The files of a reproduction, and the proof that the script fails by itself.

A success is claimed only after the script has failed in a fresh process; for a failing step the same process also asks
the guard's instruments for the fingerprint of what the script has built.
"""

from __future__ import annotations

import ast
import math
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tsguard import provenance
from tsguard.dataset import packed
from tsguard.repro.code.lines import Lines
from tsguard.store import write_whole

if TYPE_CHECKING:
    from jinja2 import Environment

STORED = 'stored = np.load(os.path.join(os.path.dirname(__file__), "repro.npz"))'
"""The line of a script that opens the arrays beside it."""

HEADING, SAID = 109, 340
"""Signs of a heading, and of the words with which a script begins: three lines of them are read."""

WIDE = 116
"""Signs in one of those lines, and in any other that a script would be written in."""

CONFIRM_S = 120
"""A fresh process imports Keras and runs one step; on a busy machine that takes a while."""


@cache
def _templates() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    # Scripts and Markdown: nothing here is HTML, so nothing is escaped. What goes in is code made by `code`.
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


@dataclass
class Script:
    """The files of a reproduction, by name."""

    files: dict[str, bytes] = field(default_factory=dict)
    confirmed: bool = False
    output: str = ""
    refused: str = ""
    """Why there is no script."""

    @property
    def lines(self) -> int:
        """Lines of the script that are code: no blank ones, no docstring."""
        text = self.files["repro.py"].decode()
        body = re.sub(r'""".*?"""', "", text, flags=re.S)
        return sum(1 for line in body.splitlines() if line.strip())


def render(
    script: Script, template: str, shared: Mapping[str, Any], lines: Lines, beside: Mapping[str, Any], **words: Any
) -> None:
    """Put script, test and arrays into the files."""
    arrays = _together(words.pop("arrays"))
    arrays = [STORED, *arrays] if beside else arrays
    imports = set(lines.imports)
    given = [*arrays, *lines.sources.values(), *lines.body, *words.pop("code", ())]
    if any(re.search(r"\bnp\.", text) for text in given):
        imports.add("import numpy as np")
    text = (
        _templates()
        .get_template(template)
        .render(
            **{**shared, "title": textwrap.fill(shared["title"], WIDE, break_long_words=False, break_on_hyphens=False)},
            annotated=lines.annotated,
            arrays=[part for line in arrays for part in folded(line)],
            imports=_joined(imports),
            sources=list(lines.sources.values()),
            built=[part for line in _returning(lines.body) for part in folded(line)],
            **words,
        )
    )
    script.files["repro.py"] = re.sub(r"\n{4,}", "\n\n\n", text).encode()
    test = _templates().get_template("test_repro.py.j2").render(**{**shared, "title": one_line(shared["title"], 70)})
    script.files["test_repro.py"] = test.encode()
    if beside:
        script.files["repro.npz"] = packed(beside)


def folded(line: str) -> list[str]:
    """A line that is too long to be read as several, broken behind commas; itself where that cannot be."""
    parts, rest = [], line
    while len(rest) > WIDE and (place := _break(rest)):
        parts.append(rest[:place].rstrip())
        rest = "    " + rest[place:].lstrip()
    try:
        ast.parse("\n".join([*parts, rest]))
    except SyntaxError:  # within words, or in no bracket
        return [line]
    return [*parts, rest]


def _break(line: str) -> int:
    """Behind which comma a line is broken: one in the fewest brackets, and of these the last that leaves it short."""
    depth, best = 0, (math.inf, 0)
    for place, sign in enumerate(line[: WIDE - 1]):
        depth += (sign in "([{") - (sign in ")]}")
        if sign == "," and place >= WIDE // 3 and depth <= best[0]:
            best = (depth, place + 1)
    return best[1]


def returned(given: str) -> list[str]:
    """The lines of `build` that give some arrays back."""
    line = f"return {given}"
    return folded(line if len(line) <= WIDE else f"return ({given})")


def _together(arrays: Sequence[str]) -> list[str]:
    """Arrays that lie beside the script are read in one line."""
    read = [match for line in arrays if (match := re.fullmatch(r'(\w+) = (stored\["\w+"\])', line))]
    if len(read) < 2 or len(read) < len(arrays):
        return list(arrays)
    return [f"{', '.join(one[1] for one in read)} = {', '.join(one[2] for one in read)}"]


def _joined(imports: Iterable[str]) -> list[str]:
    """Import lines, one for each module."""
    names: dict[str, set[str]] = {}
    for line in imports:
        if line.startswith("from "):
            module, _, name = line.removeprefix("from ").partition(" import ")
            names.setdefault(module, set()).add(name)
    plainly = sorted(line for line in imports if not line.startswith("from "))
    return plainly + [f"from {module} import {', '.join(sorted(names[module]))}" for module in sorted(names)]


def _returning(body: list[str]) -> list[str]:
    """The lines of `build`."""
    if not body:
        return []
    if body[-1].startswith("model = "):
        return [*body[:-1], f"return {body[-1].removeprefix('model = ')}"]
    return [*body, "return model"]


def page(
    script: Script,
    *,
    title: str,
    fingerprint: str,
    prints: str,
    size: int,
    original_size: int,
    **more: Any,
) -> bytes:
    """README.md, to paste into a bug report."""
    versions = provenance.versions()
    facts = {
        "mechanism": "",
        "remedy": "",
        "logic": "",
        "nearest": "",
        "often": "",
        "terms": "",
        "exhausted": False,
        "synthetic": "",
        **more,
    }
    text = _templates().get_template("README.md.j2").render(
        title=title, fingerprint=fingerprint, prints=prints,
        size=f"{size:,}",
        original_size=f"{original_size:,}",
        versions=", ".join(f"{name} {versions[name]}" for name in ("keras", "torch", "numpy") if name in versions),
        device=provenance.gather().device,
        confirmed=script.confirmed,
        refused=script.refused,
        needs="tsguard, which asks the question" if b"tsguard" in script.files.get("repro.py", b"") else "",
        **facts,
    )  # fmt: skip
    return text.encode()


def write(script: Script, folder: Path) -> Path:
    """All files into a folder, the script last. The path of the script, or of the page that says why there is none."""
    for name in sorted(script.files, key=lambda name: name == "repro.py"):
        write_whole(folder / name, script.files[name])
    return folder / ("README.md" if script.refused else "repro.py")


def confirm(
    script: Script, folder: Path, *, fingerprint: str = "", seed: int = 0, timeout_s: float = CONFIRM_S
) -> bool:
    """Run the script in a fresh process: exit code 1, and the given fingerprint, are the same failure."""
    for name, content in script.files.items():
        write_whole(folder / name, content)
    environment = {**os.environ, "KERAS_BACKEND": "torch", "PYTHONPATH": os.pathsep.join([os.getcwd(), *_paths()])}
    asked = [str(Path(__file__).with_name("confirming.py")), str(folder / "repro.py"), fingerprint, str(seed)]
    try:
        done = subprocess.run(
            [sys.executable, *asked], capture_output=True, text=True, timeout=timeout_s, env=environment, check=False
        )
    except subprocess.TimeoutExpired:
        script.output = f"the script did not end within {timeout_s:.0f} s"
        return False
    script.output = done.stdout + done.stderr
    script.confirmed = done.returncode == 1 and "Traceback" not in done.stderr
    return script.confirmed


def _paths() -> list[str]:
    return [path for path in sys.path if path and Path(path).is_dir()]


def one_line(text: str, most: int = HEADING) -> str:
    """Words that may stand in a docstring: one line, no quotes that end it, no escapes; cut between two words."""
    # Where a file lies on this machine is nobody's business.
    text = re.sub(r"(?<!\S)(?:/[\w.\-]+)+/([\w.\-]+)", r"\1", text)
    title = " ".join(text.split()).replace('"', "'").replace("\\", "/")
    return title if len(title) <= most else title[: most - 2].rpartition(" ")[0] + " …"
