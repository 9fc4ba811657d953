"""New data for a trained run: from a file to what the model takes, scaled and masked as in training, and back again.

What training knew about its inputs (the names of the features, the scalers, the padding) is kept in the run's folder.
Files hold data in its own units; what a function of the user's returns is taken as that function made it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tsguard.data.readers import SUFFIXES, read
from tsguard.data.scalers import Scaler
from tsguard.dataset import Data, leaves, map_leaves
from tsguard.errors import ConfigError, explain
from tsguard.padding import Padding
from tsguard.store import RunFolder
from tsguard.subject import Recipe

FILE = "inputs.json"
TABLES = tuple(SUFFIXES)


@dataclass(frozen=True)
class Known:
    """What is known about a run's inputs."""

    names: tuple[str, ...] = ()
    scalers: Mapping[str, Scaler] = field(default_factory=dict)
    padding: Padding | None = None
    makes: str | None = None
    """`data.inputs`: the function that makes inputs of a table."""


def keep(folder: RunFolder, data: Data) -> None:
    """Write names and scalers into the run's folder."""
    foreign = [role for role, one in data.scalers.items() if not isinstance(one, Scaler) or role not in ("x", "y")]
    if foreign:
        raise ConfigError(
            explain(
                "scalers",
                received=", ".join(f"{role}: a {type(data.scalers[role]).__name__}" for role in foreign),
                expected="tsguard.data.scalers.Scaler for x, y or both",
                todo="Make them with tsguard.data.scalers.fit_scaler.",
            )
        )
    scalers = {role: json.loads(one.to_json()) for role, one in data.scalers.items()}
    folder.write_text(FILE, json.dumps({"names": list(data.names), "scalers": scalers}, indent=1))


def kept(folder: RunFolder, *, padding: Padding | None = None, makes: str | None = None) -> Known:
    """Read them back; a run of before has none."""
    file = folder.file(FILE)
    told = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"names": [], "scalers": {}}
    scalers = {role: Scaler.from_json(json.dumps(one)) for role, one in told["scalers"].items()}
    return Known(tuple(told["names"]), scalers, padding, makes)


def inputs_from(name: str, model: Any, known: Known) -> Any:
    """What the model takes, from `module:function`, arrays in a .npy or .npz file, or a table."""
    path = Path(name)
    if ":" in name and not path.exists():
        return Data.of(Recipe(name, {}, "DATA").make()).x
    if path.suffix in (".npy", ".npz"):
        given = _masked(_scaled(_arrays(path), known), model, known)
        _require_fit(given, model, name)
        return given
    if path.suffix.lower() in TABLES or path.is_dir():
        frame = read(path).table.to_pandas()
        if known.makes is not None:
            return Recipe(known.makes, {}, "data.inputs").load()(frame)
        return _masked(_scaled(_of_table(frame, model, known, name), known), model, known)
    raise ConfigError(
        explain(
            name,
            received=f"a name ending in {path.suffix or 'nothing'}",
            expected=f"arrays (.npz or .npy), a table ({', '.join(TABLES)}), or module:function",
            todo="Save the inputs with numpy.savez(file, x=…), or name the function that makes them.",
        )
    )


def in_units(found: Mapping[str, Any], known: Known) -> dict[str, Any]:
    """Predictions in the units of the targets, where their scaler is known."""
    scaler = known.scalers.get("y")
    if scaler is None:
        return dict(found)
    width = len(scaler.names)

    def back(value: Any) -> Any:
        if value.shape[-1:] == (width,):
            return scaler.inverse(value)
        # one target: the last axis is time, as in a forecast of a horizon
        return scaler.inverse(value[..., None])[..., 0] if width == 1 else value

    return {name: back(np.asarray(value)) for name, value in found.items()}


def _arrays(path: Path) -> Any:
    try:
        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False)
        with np.load(path, allow_pickle=False) as file:
            held = {key: file[key] for key in file.files}
    except (OSError, ValueError) as unreadable:
        raise ConfigError(
            explain(
                str(path), received=str(unreadable), expected="an array file that numpy reads", todo="Check the path."
            )
        ) from None
    return held["x"] if set(held) <= {"x", "y", "sample_weight"} and "x" in held else held


def _of_table(frame: Any, model: Any, known: Known, name: str) -> Any:
    """Rows, or all windows of the length that the model takes, of the columns that it was trained on."""
    names = known.names or tuple(str(c) for c in frame.select_dtypes("number").columns)
    lacking = [column for column in names if column not in frame.columns]
    shapes = list(shapes_of(model).values())
    values = [shape for shape in shapes if len(shape) >= 2 and shape[-1] == len(names)]
    if lacking or len(values) != 1 or len(values[0]) > 3 or (len(values[0]) == 3 and values[0][1] is None):
        raise ConfigError(
            explain(
                name,
                received=f"a table without {', '.join(lacking)}" if lacking else f"a table of {', '.join(names)}",
                expected=f"the columns of one input of the model, whose inputs are {shapes}",
                todo="Return `names` from the data function, or name a function in data.inputs that takes the table.",
            )
        )
    rows = frame[list(names)].to_numpy(dtype="float32")
    if len(values[0]) == 2:
        return rows
    length = int(values[0][1])
    if len(rows) < length:
        raise ConfigError(
            explain(name, received=f"{len(rows)} rows", expected=f"at least one window of {length}", todo="Give more.")
        )
    return np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(rows, length, axis=0).swapaxes(1, 2))


def _require_fit(x: Any, model: Any, name: str) -> None:
    """A ConfigError for arrays of other shapes than the model's inputs, which a built graph alone tells for sure."""
    tensors = getattr(model, "inputs", None) or ()
    shapes = {str(tensor.name): tuple(tensor.shape) for tensor in tensors}
    if isinstance(x, Mapping):
        pairs = [(x[key].shape, shapes[key]) for key in x if key in shapes]
    else:
        pairs = [(x.shape, shape) for shape in shapes.values()] if len(shapes) == 1 and hasattr(x, "shape") else []
    if all(_agree(given, wanted) for given, wanted in pairs):
        return
    raise ConfigError(
        explain(
            name,
            received=f"arrays of shapes {', '.join(str(tuple(given)) for given, _ in pairs)}",
            expected=f"the model's inputs: {', '.join(str(wanted) for _, wanted in pairs)} (None: any number)",
            todo="Give what the model was trained on, samples first.",
        )
    )


def _agree(given: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    if len(wanted) == len(given) + 1 and wanted[-1] == 1:  # Keras itself adds the axis of a single feature
        wanted = wanted[:-1]
    return len(given) == len(wanted) and all(
        size is None or own == size for own, size in zip(given[1:], wanted[1:], strict=True)
    )


def shapes_of(model: Any) -> dict[str, tuple[Any, ...]]:
    """The shapes of a model's inputs by name; of a subclassed model those that it was built with."""
    tensors = getattr(model, "inputs", None)
    if tensors:
        return {str(tensor.name): tuple(tensor.shape) for tensor in tensors}
    built = next(iter((getattr(model, "_build_shapes_dict", None) or {}).values()), ())
    if isinstance(built, Mapping):
        return {str(name): tuple(shape) for name, shape in built.items()}
    return {"x": tuple(built)} if built else {}


def _scaled(x: Any, known: Known) -> Any:
    scaler = known.scalers.get("x")
    if scaler is None:
        return x
    width = len(scaler.names)
    change: Callable[[Any], Any] = lambda leaf: (  # noqa: E731
        scaler.transform(leaf) if leaf.ndim > 1 and leaf.shape[-1] == width and leaf.dtype.kind == "f" else leaf
    )
    return map_leaves(change, x)


def _masked(x: Any, model: Any, known: Known) -> Any:
    """A model that takes a mask gets one: every position of data that nobody has padded is valid."""
    padding = known.padding
    shapes = shapes_of(model)
    names = list(shapes)
    wanted = [] if padding is None else [padding.mask, padding.features[1] if padding.features else None]
    missing = [one for one in wanted if one in names and not (isinstance(x, Mapping) and one in x)]
    if not missing:
        return x
    held = dict(x) if isinstance(x, Mapping) else {next(n for n in names if n not in wanted): x}
    values = next(leaves(held))
    for one in missing:
        free = [axis for axis, size in enumerate(shapes[one])][1:]
        kept_axes = values.shape[1 : 1 + len(free)] if one == (padding.mask if padding else None) else values.shape[-1:]
        held[one] = np.ones((len(values), *kept_axes), dtype=_mask_dtype(model, names.index(one)))
    return held


def _mask_dtype(model: Any, index: int) -> str:
    return str(getattr(model.inputs[index], "dtype", "bool"))
