"""From a Case to three files: repro.py, test_repro.py and README.md, and the proof that the script fails by itself.

A success is claimed only after the script has failed in a fresh process. Where the model cannot be written as code it
is imported by its path, and where it has none either, the files say so instead of pretending.
"""

from __future__ import annotations

import json
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
from tsguard.repro.case import Case
from tsguard.repro.code import compiling, graph
from tsguard.repro.code.arrays import array
from tsguard.repro.code.lines import Lines, NotCode
from tsguard.repro.code.objects import importable
from tsguard.repro.graphs import is_graph
from tsguard.store import write_whole

if TYPE_CHECKING:
    from jinja2 import Environment

STORED = 'stored = np.load(os.path.join(os.path.dirname(os.path.abspath(__file__)), "repro.npz"))'
"""The line of a script that opens the arrays beside it."""

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


def emit(case: Case) -> Script:
    """The files of a case, and the arrays beside them where they are too large to be read.

    A model that cannot be written as code is imported by its path; one that has none is made from Keras' own
    configuration; where that fails too there is no script, and `refused` says why.
    """
    lines = Lines()
    beside: dict[str, Any] = {}
    script = Script()
    try:
        model_lines(case, lines, script)
    except NotCode as refused:
        return Script(refused=str(refused))
    arrays = [
        f"{name} = {value(name, part, beside)}"
        for name, part in (("x", case.batch.x), ("y", case.batch.y), ("weight", case.batch.sample_weight))
        if part is not None or name == "y"
    ]
    stock = _is_stock(case.model, "compute_loss")
    if not stock:
        # Keras hands tensors to a loss of the user's own; here they are made by hand.
        given = ", ".join(("x", "y")[: len(case.batch.parts())])
        comma = "," if given == "x" else ""
        arrays.append(f"{given}{comma} = keras.tree.map_structure(keras.ops.convert_to_tensor, ({given}{comma}))")
    stepwise = _is_stock(case.model, "train_step") and case.fingerprint.phase != "update"
    unbuilt = not is_graph(case.model)
    weight_lines(case, lines, beside)
    if case.slots is not None:
        beside.update({f"s{index:03d}": np.asarray(slot) for index, slot in enumerate(case.slots)})
        arrays.append(f"slots = [stored[f's{{i:03d}}'] for i in range({len(case.slots)})]")
    if beside:
        arrays.insert(0, STORED)
    shared: dict[str, Any] = {
        "title": _title(case),
        "fingerprint": case.fingerprint.words(),
        "phase": case.fingerprint.phase,
        "slug": re.sub(r"\W+", "_", case.fingerprint.code),
    }
    render(
        script, "repro.py.j2", shared, lines, beside, arrays=arrays, seed=case.seed,
        seeded=unbuilt or (case.weights is None and _draws(case)),
        stepwise=stepwise,
        gradients=unbuilt or bool(case.model.trainable_variables),
        built=unbuilt or case.slots is not None,
        slots=case.slots is not None,
        weight=", weight" if case.batch.sample_weight is not None else "",
        parts=", ".join(("x", "y", "weight")[: len(case.batch.parts())]),
    )  # fmt: skip
    return script


def render(
    script: Script, template: str, shared: Mapping[str, Any], lines: Lines, beside: Mapping[str, Any], **words: Any
) -> None:
    """Put script, test and arrays into the files."""
    text = (
        _templates()
        .get_template(template)
        .render(
            **shared,
            annotated=lines.annotated,
            imports=sorted(lines.imports),
            sources=list(lines.sources.values()),
            body=lines.body,
            **words,
        )
    )
    script.files["repro.py"] = re.sub(r"\n{4,}", "\n\n\n", text).encode()
    script.files["test_repro.py"] = _templates().get_template("test_repro.py.j2").render(**shared).encode()
    if beside:
        script.files["repro.npz"] = packed(beside)


def weight_lines(case: Case, lines: Lines, beside: dict[str, Any]) -> None:
    """Lines that put recorded weights in place, inline where they are few."""
    if case.weights is None:
        return
    if not is_graph(case.model):
        lines.body.append("model(x)")
    few = [array(weight) for weight in case.weights]
    if None not in few and len(f"{few}") <= graph.CHAIN_MAX:
        lines.body.append(f"model.set_weights([{', '.join(map(str, few))}])")
        return
    beside.update({f"w{index:03d}": np.asarray(weight) for index, weight in enumerate(case.weights)})
    lines.body.append(f"model.set_weights([stored[f'w{{i:03d}}'] for i in range({len(case.weights)})])")


def _draws(case: Case) -> bool:
    """Whether anything in the script is drawn at random: weights, or a failure that some seeds do not have."""
    made = any(layer.variables for layer in case.model._flatten_layers(include_self=False))
    return made or case.how_often[0] < case.how_often[1]


def _is_stock(model: Any, method: str) -> bool:
    import keras

    return getattr(type(model), method) is getattr(keras.Model, method)


def readme(case: Case, script: Script) -> bytes:
    """The page of a failing step."""
    return page(
        script,
        title=_title(case),
        fingerprint=case.fingerprint.words(),
        prints=f"first value that is not finite: {case.fingerprint.phase}",
        mechanism=case.origin.mechanism if case.origin is not None else "",
        remedy=catalogue.entry(case.fingerprint.code).mend,
        size=case.size,
        original_size=case.original_size,
        logic=case.logic,
        nearest=case.nearest_healthy,
        often=case.how_often,
    )


def page(
    script: Script,
    *,
    title: str,
    fingerprint: str,
    prints: str,
    size: int,
    original_size: int,
    mechanism: str = "",
    remedy: str = "",
    logic: bool | None = None,
    nearest: str = "",
    often: tuple[int, int] = (1, 1),
) -> bytes:
    """README.md, to paste into a bug report."""
    versions = provenance.versions()
    text = _templates().get_template("README.md.j2").render(
        title=title, fingerprint=fingerprint, prints=prints, mechanism=mechanism, remedy=remedy, logic=logic,
        nearest=nearest, often=often,
        size=f"{size:,}",
        original_size=f"{original_size:,}",
        versions=", ".join(f"{name} {versions[name]}" for name in ("keras", "torch", "numpy") if name in versions),
        device=provenance.gather().device,
        confirmed=script.confirmed,
        refused=script.refused,
    )  # fmt: skip
    return text.encode()


def save(case: Case, folder: Path, *, confirmed_first: bool = True) -> Path:
    """Write the case out; where seeded weights do not fail in a fresh process, with the recorded ones."""
    script = emit(case)
    if confirmed_first and not script.refused and not confirm(script, folder) and case.weights is None:
        heavier = emit(case.with_(weights=tuple(case.model.get_weights())))
        if confirm(heavier, folder):
            script = heavier
    script.files["README.md"] = readme(case, script)
    return write(script, folder)


def write(script: Script, folder: Path) -> Path:
    """All files into a folder, the script last. The path of the script, or of the page that says why there is none."""
    for name in sorted(script.files, key=lambda name: name == "repro.py"):
        write_whole(folder / name, script.files[name])
    return folder / ("README.md" if script.refused else "repro.py")


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


def model_lines(case: Case, lines: Lines, script: Script) -> None:
    exact = case.fingerprint.phase in ("update", "training") or case.slots is not None
    try:
        draft = Lines()
        graph.model(case.model, draft)
        draft.body.append(compiling.compile_line(case.model, draft, exact=exact))
    except NotCode as refused:
        draft = Lines()
        if case.recipe is not None:
            use, args = case.recipe
            module, name = use.split(":")
            draft.imports.add(f"from {module} import {name} as make")
            draft.body.append(f"model = make({', '.join(f'{key}={value!r}' for key, value in args.items())})")
        else:
            _from_configuration(case, draft, script, refused, exact=exact)
    lines.imports, lines.sources, lines.body = draft.imports, draft.sources, draft.body


def _from_configuration(case: Case, lines: Lines, script: Script, refused: NotCode, *, exact: bool) -> None:
    """The model from Keras' own description of it, in a file beside the script; its classes must be importable."""
    import keras

    kinds = [type(layer) for layer in case.model._flatten_layers(include_self=True)]
    if not importable(kinds):
        raise refused
    try:
        described = keras.saving.serialize_keras_object(case.model)
        described.pop("compile_config", None)
        text = json.dumps(described)
        keras.saving.deserialize_keras_object(json.loads(text), safe_mode=False)
    except Exception:  # a model may refuse its own configuration in any way; then the first reason is the one to tell
        raise refused from None
    script.files["repro.json"] = text.encode()
    lines.imports.add("import json")
    lines.body += [
        'path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "repro.json")',
        "model = keras.saving.deserialize_keras_object(json.load(open(path)), safe_mode=False)",
        compiling.compile_line(case.model, lines, exact=exact),
    ]


def value(name: str, given: Any, beside: dict[str, Any]) -> str:
    if given is None:
        return "None"
    if isinstance(given, Mapping):
        return "{" + ", ".join(f"{key!r}: {value(f'{name}_{key}', item, beside)}" for key, item in given.items()) + "}"
    if isinstance(given, list | tuple):
        inner = ", ".join(value(f"{name}_{index}", item, beside) for index, item in enumerate(given))
        return f"[{inner}]"
    text = array(given)
    if text is None:
        key = re.sub(r"\W+", "_", name)
        key = key if key not in beside else f"{key}_{len(beside)}"
        beside[key] = np.asarray(given)
        text = f'stored["{key}"]'
    return text


def _title(case: Case) -> str:
    origin = case.origin
    place = f" in `{origin.layer}`" if origin is not None and origin.layer else ""
    mechanism = f": {origin.mechanism}" if origin is not None and origin.mechanism else ""
    return one_line(f"{case.fingerprint.code}{place}{mechanism}")


def one_line(text: str) -> str:
    """Words that may stand in a docstring: one line, no quotes that end it, no escapes."""
    title = " ".join(text.split()).replace('"', "'").replace("\\", "/")
    return title if len(title) < 160 else title[:157] + "…"
