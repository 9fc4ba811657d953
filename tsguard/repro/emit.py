"""From a Case to three files: repro.py, test_repro.py and README.md, and the proof that the script fails by itself.

A success is claimed only after the script has failed in a fresh process. Where the model cannot be written as code it
is imported by its path, and where it has none either, the files say so instead of pretending.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tsguard import catalogue, provenance
from tsguard.dataset import packed
from tsguard.repro import code
from tsguard.repro.case import Case
from tsguard.store import write_whole

if TYPE_CHECKING:
    from jinja2 import Environment

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

    @property
    def lines(self) -> int:
        """Lines of the script that are code: no blank ones, no docstring."""
        text = self.files["repro.py"].decode()
        body = re.sub(r'""".*?"""', "", text, flags=re.S)
        return sum(1 for line in body.splitlines() if line.strip())


def emit(case: Case) -> Script:
    """The three files, and the arrays beside them where they are too large to be read."""
    lines = code.Lines()
    arrays: list[str] = []
    beside: dict[str, Any] = {}
    _model_lines(case, lines, beside)
    for name, value in (("x", case.batch.x), ("y", case.batch.y), ("weight", case.batch.sample_weight)):
        arrays.append(f"{name} = {_value(name, value, beside)}")
    if case.weights is not None:
        beside.update({f"w{index:03d}": np.asarray(weight) for index, weight in enumerate(case.weights)})
        lines.body.append(f"model.set_weights([stored[f'w{{i:03d}}'] for i in range({len(case.weights)})])")
    if beside:
        arrays.insert(0, 'stored = np.load(os.path.join(os.path.dirname(os.path.abspath(__file__)), "repro.npz"))')
    if case.batch.sample_weight is None:
        arrays.pop()
    title = _title(case)
    stepwise = type(case.model).train_step is _stock_step()
    shared: dict[str, Any] = {
        "title": title,
        "fingerprint": case.fingerprint.words(),
        "phase": case.fingerprint.phase,
        "slug": re.sub(r"\W+", "_", case.fingerprint.code),
    }
    script = Script()
    text = _templates().get_template("repro.py.j2").render(
        **shared,
        imports=sorted(lines.imports),
        sources=list(lines.sources.values()),
        arrays=arrays,
        body=lines.body,
        seed=case.seed,
        stepwise=stepwise,
        weight="weight" if case.batch.sample_weight is not None else "None",
        parts=", ".join(("x", "y", "weight")[: len(case.batch.parts())]),
    )  # fmt: skip
    script.files["repro.py"] = text.encode()
    script.files["test_repro.py"] = _templates().get_template("test_repro.py.j2").render(**shared).encode()
    if beside:
        script.files["repro.npz"] = packed(beside)
    return script


def readme(case: Case, script: Script) -> bytes:
    """The page to paste into a bug report."""
    versions = provenance.versions()
    text = _templates().get_template("README.md.j2").render(
        title=_title(case),
        phase=case.fingerprint.phase,
        fingerprint=case.fingerprint.words(),
        mechanism=case.origin.mechanism if case.origin is not None else "",
        remedy=catalogue.entry(case.fingerprint.code).mend,
        original_size=f"{case.original_size:,}",
        size=f"{case.size:,}",
        logic=case.logic,
        nearest=case.nearest_healthy,
        versions=", ".join(f"{name} {versions[name]}" for name in ("keras", "torch", "numpy") if name in versions),
        device=provenance.gather().device,
        confirmed=script.confirmed,
    )  # fmt: skip
    return text.encode()


def save(case: Case, folder: Path, *, confirmed_first: bool = True) -> Path:
    """Write the case out; where seeded weights do not fail in a fresh process, with the recorded ones."""
    script = emit(case)
    if confirmed_first and not confirm(script, folder) and case.weights is None:
        heavier = emit(case.with_(weights=tuple(case.model.get_weights())))
        if confirm(heavier, folder):
            script = heavier
    return write(case, script, folder)


def write(case: Case, script: Script, folder: Path) -> Path:
    """All files into a folder, the script last."""
    files = {**script.files, "README.md": readme(case, script)}
    for name in sorted(files, key=lambda name: name == "repro.py"):
        write_whole(folder / name, files[name])
    return folder / "repro.py"


def confirm(script: Script, folder: Path, *, timeout_s: float = CONFIRM_S) -> bool:
    """Run the script in a fresh process: exit code 1 is the same failure."""
    for name, content in script.files.items():
        write_whole(folder / name, content)
    environment = {**os.environ, "KERAS_BACKEND": "torch", "PYTHONPATH": os.pathsep.join([os.getcwd(), *_paths()])}
    try:
        done = subprocess.run(
            [sys.executable, str(folder / "repro.py")],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        script.output = f"the script did not end within {timeout_s:.0f} s"
        return False
    script.output = done.stdout + done.stderr
    script.confirmed = done.returncode == 1 and "Traceback" not in done.stderr
    return script.confirmed


def _paths() -> list[str]:
    return [path for path in sys.path if path and Path(path).is_dir()]


def _model_lines(case: Case, lines: code.Lines, beside: dict[str, Any]) -> None:
    try:
        draft = code.Lines()
        code.model(case.model, draft)
        optimizer = type(getattr(case.model.optimizer, "inner_optimizer", case.model.optimizer)).__name__.lower()
        draft.body.append(f'model.compile(optimizer="{optimizer}", loss={code.loss(case.model, draft)})')
        lines.imports, lines.sources, lines.body = draft.imports, draft.sources, draft.body
    except code.NotCode:
        if case.recipe is None:
            raise
        use, args = case.recipe
        module, name = use.split(":")
        lines.imports.add(f"from {module} import {name} as make")
        lines.body.append(f"model = make({', '.join(f'{key}={value!r}' for key, value in args.items())})")


def _value(name: str, value: Any, beside: dict[str, Any]) -> str:
    if value is None:
        return "None"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {_value(f'{name}_{key}', item, beside)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        inner = ", ".join(_value(f"{name}_{index}", item, beside) for index, item in enumerate(value))
        return f"[{inner}]"
    text = code.array(value)
    if text is None:
        key = re.sub(r"\W+", "_", name)
        beside[key] = np.asarray(value)
        text = f'stored["{key}"]'
    return text


def _title(case: Case) -> str:
    origin = case.origin
    place = f" in `{origin.layer}`" if origin is not None and origin.layer else ""
    mechanism = f": {origin.mechanism.splitlines()[0]}" if origin is not None and origin.mechanism else ""
    title = f"{case.fingerprint.code}{place}{mechanism}".replace('"""', "'''").replace("\\", "/")
    return title if len(title) < 160 else title[:157] + "…"


def _stock_step() -> Any:
    import keras

    return keras.Model.train_step
