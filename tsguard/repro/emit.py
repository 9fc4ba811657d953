"""From a failing step to three files: repro.py, test_repro.py and README.md.

Where the model cannot be written as code it is imported by its path, and where it has none either, the files say so
instead of pretending.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tsguard import catalogue
from tsguard.backend import preserved, seed_everything
from tsguard.dataset import map_leaves
from tsguard.repro import terms
from tsguard.repro.case import LOGIC, RANGE, Case
from tsguard.repro.code import compiling, graph, shorten
from tsguard.repro.code.arrays import array, plain
from tsguard.repro.code.lines import Lines, NotCode
from tsguard.repro.code.objects import importable
from tsguard.repro.graphs import compile_like, is_graph
from tsguard.repro.script import Script, confirm, one_line, page, render, write

WEIGHTS_MAX = 116
"""Characters of recorded weights that are written into `build`; more of them lie beside the script."""


def emit(case: Case) -> Script:
    """The files of a case, and the arrays beside them where they are too large to be read.

    A model that cannot be written as code is imported by its path; one that has none is made from Keras' own
    configuration; where that fails too there is no script, and `refused` says why.
    """
    if case.fingerprint.code == "nan-hidden":
        return _hidden(case)
    lines = Lines()
    beside: dict[str, Any] = {}
    script = Script()
    phase = visible_phase(case)
    stepwise = _is_stock(case.model, "train_step") and case.fingerprint.phase != "update"
    forward = stepwise and phase == "forward"
    # Where the whole loss fails in the same way, the script asks for the terms themselves.
    named = case.terms if stepwise and case.terms is not None and case.with_(terms=None).fails() else None
    if named is not None:
        case = case.with_(terms=None)
    try:
        model_lines(case, lines, script)
    except NotCode as refused:
        return Script(refused=str(refused))
    arrays = [
        f"{name} = {value(name, part, beside)}"
        for name, part in (("x", case.batch.x), ("y", case.batch.y), ("weight", case.batch.sample_weight))
        if part is not None and (name == "x" or not forward)
    ]
    if forward:
        lines.body = _not_compiled(lines.body)
    unbuilt = not is_graph(case.model)
    gradients = unbuilt or bool(case.model.trainable_variables)
    loss = _loss_code(case, named)
    if loss.count("answers") == 1 and not (gradients and phase == "loss"):
        loss = loss.replace("answers", _ANSWERS)
    weight_lines(case, lines, beside)
    slot_lines(case, lines, beside)
    logged = stepwise or phase == "update" or _in_logs(case)

    def shown(candidate: Case) -> bool:
        return _same_failure(candidate) and (stepwise or phase == "update" or _in_logs(candidate) == logged)

    shorten_sources(case, lines, arrays, beside, shown)
    shared: dict[str, Any] = {
        "title": _title(case),
        "fingerprint": case.fingerprint.words(),
        "phase": phase,
        "slug": re.sub(r"\W+", "_", case.fingerprint.code),
    }
    render(
        script, "repro.py.j2", shared, lines, beside, arrays=arrays, seed=case.seed,
        seeded=(case.weights is None and draws(case)) or case.how_often[0] < case.how_often[1],
        stepwise=stepwise,
        logged=logged,
        bare=case.bare and forward,
        gradients=gradients,
        loss=loss,
        scaled=_scales(case),
        y="y" if case.batch.y is not None else "None",
        parts=", ".join(("x", "y", "weight")[: len(case.batch.parts())]),
    )  # fmt: skip
    return script


_ANSWERS = "model(x, training=True)"


def _loss_code(case: Case, named: Sequence[str] | None) -> str:
    """What the script calls for the loss: all of it, or the terms by their names."""
    y = "y" if case.batch.y is not None else "None"
    weight = "weight" if case.batch.sample_weight is not None else "None"
    if named is None:
        return f"model.compute_loss(x, {y}, answers{'' if weight == 'None' else ', weight'})"
    asked = f"model.loss_terms(x, {y}, answers, {weight})"
    return " + ".join(f"{asked}[{plain(name)}]" for name in named)


def shorten_sources(
    case: Case,
    lines: Lines,
    arrays: list[str],
    beside: Mapping[str, Any],
    still: Callable[[Case], bool],
    *,
    trials: int = shorten.TRIALS,
) -> None:
    """Leave out of copied code what is not needed for the case that it builds to fail still.

    A model that answers goes on to do so: what a check says of one that cannot be called is said of another failure.
    """
    if not any("\n" in text for text in lines.sources.values()):
        return

    def holds(sources: Mapping[str, str]) -> bool:
        try:
            model = _built_again(case, replace(lines, sources=dict(sources)), arrays, beside)
            built = case.with_(model=model, weights=None, slots=None, terms=None)
            return still(built) and (_answers(built) or not answered)
        except Exception:  # code without one of its statements may fail in any way
            return False

    with preserved(case.model), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        answered = _answers(case)
        if holds(lines.sources):
            lines.sources = shorten.shortened(lines.sources, holds, trials=trials)
    shorten.drop_unread(lines, arrays)


def _answers(case: Case) -> bool:
    try:
        with preserved(case.model):
            case.model(map_leaves(keras.ops.convert_to_tensor, case.batch.x))
    except Exception:  # a user's own code may refuse in any way
        return False
    return True


def _same_failure(case: Case) -> bool:
    """Whether one step fails in the same way, under the seed of the script."""
    return case.asked(case.batch)[0] == case.fingerprint


def _in_logs(case: Case) -> bool:
    """Whether what a step of one's own returns shows that something is not finite: it may leave that to nobody."""
    with preserved(case.model), terms.only(case.model, case.terms):
        if case.weights is not None and case.model.built:
            case.model.set_weights(list(case.weights))
        seed_everything(case.seed)
        parts = [part for part in (case.batch.x, case.batch.y, case.batch.sample_weight) if part is not None]
        return not _finite(case.model.train_step(tuple(map_leaves(keras.ops.convert_to_tensor, one) for one in parts)))


def _built_again(case: Case, lines: Lines, arrays: list[str], beside: Mapping[str, Any]) -> Any:
    """What the lines build in a space of their own."""
    head = ["from __future__ import annotations", "import keras", "import numpy as np", *sorted(lines.imports)]
    body = [
        *arrays,
        *lines.sources.values(),
        "def build():",
        *(f"    {line}" for line in lines.body),
        "    return model",
    ]
    space: dict[str, Any] = {"__name__": "reproduction", "stored": beside}
    seed_everything(case.seed)
    exec("\n".join([*head, *body]), space)
    model = space["build"]()
    if not model.compiled:
        compile_like(case.model, model, optimizer="sgd")
    return model


def visible_phase(case: Case) -> str:
    """The phase in which the script sees it: what a layer adds to the loss, or what squashes an infinity, hides it."""
    if case.fingerprint.phase != "forward" or not _is_stock(case.model, "train_step"):
        return case.fingerprint.phase
    with preserved(case.model), terms.only(case.model, case.terms):
        if case.weights is not None and case.model.built:
            case.model.set_weights(list(case.weights))
        seed_everything(case.seed)
        parts = (case.batch.x, case.batch.y, case.batch.sample_weight)
        x, y, weight = (map_leaves(keras.ops.convert_to_tensor, part) for part in parts)
        answers = case.model(x, training=True)
        if not _finite(answers):
            return "forward"
        return "backward" if _finite(case.model.compute_loss(x, y, answers, weight)) else "loss"


def _finite(values: Any) -> bool:
    return all(bool(keras.ops.all(keras.ops.isfinite(one))) for one in keras.tree.flatten(values))


def weight_lines(case: Case, lines: Lines, beside: dict[str, Any]) -> None:
    """Lines that put recorded weights in place, inline where they are few, and optimizers of torch that move them."""
    stepping = compiling.torch_optimizers(case.model)
    # What was never called has the weights that its constructor made; those may be all that its optimizer knows.
    if (case.weights or stepping) and not is_graph(case.model) and case.model.built:
        lines.body.append("model(x)")
    if case.weights:  # else they are seeded, or there are none at all
        _recorded_weights(case.weights, lines, beside)
    if stepping:
        lines.imports.add("import torch")
        lines.body += stepping


def _recorded_weights(weights: Sequence[Any], lines: Lines, beside: dict[str, Any]) -> None:
    few = [array(weight) for weight in weights]
    if None not in few and len(f"{few}") <= WEIGHTS_MAX:
        lines.body.append(f"model.set_weights([{', '.join(map(str, few))}])")
        return
    beside.update({f"w{index:03d}": np.asarray(weight) for index, weight in enumerate(weights)})
    lines.body.append(f'model.set_weights([stored[f"w{{i:03d}}"] for i in range({len(weights)})])')


def _hidden(case: Case) -> Script:
    """A script that watches every operation: what is hidden shows in no result of the step."""
    lines, script, beside = Lines(), Script(), dict[str, Any]()
    if case.fingerprint.op is None:
        return Script(refused="the operation that makes the hidden value is not known")
    # A step of the user's own is made as a whole; of Keras' step only what leads to the value.
    whole = not _is_stock(case.model, "train_step")
    forward = case.fingerprint.phase == "forward" and not whole
    phase = "training" if whole else case.fingerprint.phase
    try:
        model_lines(case.with_(fingerprint=replace(case.fingerprint, phase=phase)), lines, script)
    except NotCode as refused:
        return Script(refused=str(refused))
    weight_lines(case, lines, beside)
    parts = [(name, part) for name, part in (("x", case.batch.x), ("y", case.batch.y)) if part is not None]
    if forward:
        parts = parts[:1]
        lines.body = _not_compiled(lines.body)
    arrays = [f"{name} = {value(name, part, beside)}" for name, part in parts]
    shorten_sources(case, lines, arrays, beside, _same_failure)
    lines.imports.add("from torch.utils._python_dispatch import TorchDispatchMode")
    shared = {
        "title": _title(case), "fingerprint": case.fingerprint.words(), "slug": "nan_hidden",
        "op": case.fingerprint.op,
    }  # fmt: skip
    render(
        script, "hidden.py.j2", shared, lines, beside,
        arrays=arrays, seed=case.seed, seeded=case.weights is None and draws(case),
        asked=_hidden_step(case, [name for name, _ in parts], whole=whole, forward=forward),
    )  # fmt: skip
    return script


def _hidden_step(case: Case, parts: Sequence[str], *, whole: bool, forward: bool) -> str:
    """What is done while every operation is watched."""
    if whole:
        return f"model.train_step(({', '.join(parts)}{',' if len(parts) == 1 else ''}))"
    return "model(x, training=True)" if forward else _loss_code(case, None).replace("answers", _ANSWERS)


def _not_compiled(body: Sequence[str]) -> list[str]:
    return [line for line in body if not line.startswith("model.compile(")]


def slot_lines(case: Case, lines: Lines, beside: dict[str, Any]) -> None:
    """Lines that put the recorded state of the optimizer in place."""
    if case.slots is None:
        return
    beside.update({f"s{index:03d}": np.asarray(slot) for index, slot in enumerate(case.slots)})
    if case.weights is None and not is_graph(case.model):
        lines.body.append("model(x)")
    lines.body += [
        "model.optimizer.build(model.trainable_variables)",
        "for index, variable in enumerate(model.optimizer.variables):",
        '    variable.assign(stored[f"s{index:03d}"])',
    ]


def draws(case: Case) -> bool:
    """Whether anything in the model is drawn at random: weights, or a failure that some seeds do not have."""
    return not is_graph(case.model) or any(layer.variables for layer in case.model._flatten_layers(include_self=False))


def _is_stock(model: Any, method: str) -> bool:
    return getattr(type(model), method) is getattr(keras.Model, method)


def readme(case: Case, script: Script) -> bytes:
    """The page of a failing step."""
    return page(
        script,
        title=_title(case),
        fingerprint=case.fingerprint.words(),
        prints=f"first value that is not finite: {visible_phase(case)}",
        mechanism=case.origin.mechanism if case.origin is not None else "",
        remedy=catalogue.entry(case.fingerprint.code).mend,
        size=case.size,
        original_size=case.original_size,
        exhausted=case.exhausted,
        synthetic="made, wherever the failure does not hang on the measured ones" if case.synthetic else "",
        logic="" if case.logic is None else LOGIC if case.logic else RANGE,
        nearest=case.nearest_healthy,
        often=case.often_in_words,
        terms=", ".join(f"`{name}`" for name in case.terms or ()),
    )


def save(case: Case, folder: Path, *, confirmed_first: bool = True) -> Path:
    """Write the case out; where seeded weights do not fail in a fresh process, with the recorded ones."""
    script = emit(case)
    asked = partial(confirm, folder=folder, fingerprint=case.fingerprint.words(), seed=case.seed)
    if confirmed_first and not script.refused and not asked(script) and case.weights is None:
        heavier = emit(case.with_(weights=tuple(case.model.get_weights())))
        if asked(heavier):
            script = heavier
    script.files["README.md"] = readme(case, script)
    return write(script, folder)


def _scales(case: Case) -> bool:
    """Whether gradients are taken of a loss that the optimizer makes larger."""
    return case.fingerprint.phase == "backward" and hasattr(case.model.optimizer, "initial_scale")


def model_lines(case: Case, lines: Lines, script: Script, *, asked: Sequence[str] | None = None) -> None:
    """The lines that build the model; of what compiles it only what the lines `asked` read, where they are all."""
    exact = case.fingerprint.phase in ("update", "training", "check") or case.slots is not None or _scales(case)
    # Where a script takes a step apart, no optimizer has a part in it.
    apart = not exact and _is_stock(case.model, "train_step")
    apart = apart or (asked is not None and not _named(asked, r"model\.(fit|train_\w+|optimizer)\b"))
    try:
        draft = Lines()
        graph.model(case.model, draft)
        draft.body += compiling.compile_line(case.model, draft, exact=exact, apart=apart, metrics=asked is None)
    except NotCode as refused:
        draft = Lines()
        if case.recipe is not None:
            use, args = case.recipe
            module, name = use.split(":")
            draft.imports.add(f"from {module} import {name} as make")
            draft.body.append(f"model = make({', '.join(f'{key}={plain(value)}' for key, value in args.items())})")
        else:
            _from_configuration(case, draft, script, refused)
            draft.body += compiling.compile_line(case.model, draft, exact=exact, apart=apart, metrics=asked is None)
    if asked is not None and not _named(asked, r"loss|model\.(fit|train_\w+|optimizer)\b"):
        draft.body = _not_compiled(draft.body)
    if hasattr(case.model, "loss_terms"):
        draft.body += terms.code(case.terms)
    lines.imports, lines.sources, lines.body = draft.imports, draft.sources, draft.body


def _named(lines: Sequence[str], pattern: str) -> bool:
    return any(re.search(pattern, line) for line in lines)


def _from_configuration(case: Case, lines: Lines, script: Script, refused: NotCode) -> None:
    """The model from Keras' own description of it, in a file beside the script; its classes must be importable."""
    kinds = [type(layer) for layer in case.model._flatten_layers(include_self=True)]
    if not importable(kinds):
        raise refused
    try:
        with warnings.catch_warnings():  # Keras warns of a lambda in the loss, which is not written here
            warnings.simplefilter("ignore")
            described = keras.saving.serialize_keras_object(case.model)
        described.pop("compile_config", None)
        text = json.dumps(described)
        keras.saving.deserialize_keras_object(json.loads(text), safe_mode=False)
    except Exception:  # a model may refuse its own configuration in any way; then the first reason is the one to tell
        raise refused from None
    script.files["repro.json"] = text.encode()
    lines.imports.add("import json")
    lines.body += [
        'with open(os.path.join(os.path.dirname(__file__), "repro.json")) as file:',
        "    model = keras.saving.deserialize_keras_object(json.load(file), safe_mode=False)",
    ]


def value(name: str, given: Any, beside: dict[str, Any], *, home: str = "keras.ops") -> str:
    """Code for what the script feeds: tensors, or with `home=\"np\"` arrays; the large ones lie beside it."""
    if given is None:
        return "None"
    if isinstance(given, Mapping):
        return (
            "{"
            + ", ".join(
                f"{plain(key)}: {value(f'{name}_{key}', item, beside, home=home)}" for key, item in given.items()
            )
            + "}"
        )
    if isinstance(given, list | tuple):
        inner = ", ".join(value(f"{name}_{index}", item, beside, home=home) for index, item in enumerate(given))
        return f"[{inner}]"
    text = array(given, home=home)
    if text is None:
        key = re.sub(r"\W+", "_", name)
        key = key if key not in beside else f"{key}_{len(beside)}"
        beside[key] = np.asarray(given)
        text = f'stored["{key}"]' if home == "np" else f'keras.ops.array(stored["{key}"])'
    return text


def _title(case: Case) -> str:
    origin = case.origin
    place = f" in `{origin.layer}`" if origin is not None and origin.layer else ""
    mechanism = f": {origin.mechanism}" if origin is not None and origin.mechanism else ""
    return one_line(f"{case.fingerprint.code}{place}{mechanism}")
