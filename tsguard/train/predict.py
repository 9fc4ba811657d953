"""A trained run put to use: one of its checkpoints in the model that its configuration builds, asked about new data."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tsguard.dataset import Data, leaves
from tsguard.errors import ConfigError, StoreError, explain
from tsguard.settings import TrainSettings
from tsguard.store import RunFolder
from tsguard.train.artifact import put_back_weights
from tsguard.train.checkpoint import load, read_manifest, stems
from tsguard.train.formula import Formula
from tsguard.train.setup import checkpoints


def chosen(folder: RunFolder, wanted: str, settings: TrainSettings) -> str:
    """The name of a checkpoint: "best" by what training was judged by, "last", or a name."""
    there = stems(folder)
    if not there or wanted not in ("best", "last", *there):
        raise StoreError(
            explain(
                str(folder.path),
                received=f"checkpoint {wanted!r}",
                expected=f"best, last, or one of: {', '.join(there) or 'none, the run left no checkpoint'}",
                todo="Name one of these, or train the run first.",
            )
        )
    if wanted != "best":
        return there[-1] if wanted == "last" else wanted
    by = checkpoints(settings)
    formula, sign = Formula.parse(by["monitor"]), 1.0 if by["mode"] == "min" else -1.0
    ranked = []
    for stem in there:
        metrics = read_manifest(folder, stem)["metrics"]
        if not formula.missing(metrics) and np.isfinite(value := formula.value(metrics)):
            ranked.append((sign * value, stem))
    return min(ranked)[1] if ranked else there[-1]


def answers(model: Any, folder: RunFolder, stem: str, x: Any) -> dict[str, Any]:
    """Predictions by output name; a StoreError where the checkpoint is not this model's."""
    snapshot = load(folder, stem)
    model.predict(_first(x), verbose=0)  # builds what is built by the first call
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    held = [tuple(t.shape) for name, t in sorted(snapshot.tensors.items()) if name.startswith("model/")]
    mine = [tuple(variable.shape) for variable in model.variables]
    if held != mine:
        raise StoreError(
            explain(
                f"checkpoint {stem}",
                received=f"{len(held)} tensors of other shapes than the {len(mine)} variables of the model",
                expected="the model that was trained",
                todo="The model's code has changed since; go back to the commit that the run's report names.",
            )
        )
    put_back_weights(model, snapshot.tensors)
    return _by_name(model, model.predict(x, verbose=0))


def _first(x: Any) -> Any:
    if Data(x).is_arrays:
        return Data(x).take(slice(0, 1))[0]
    return next(Data(x).batches(1))[0]


def _by_name(model: Any, found: Any) -> dict[str, Any]:
    if isinstance(found, Mapping):
        return {str(name): np.asarray(value) for name, value in found.items()}
    values = [np.asarray(value) for value in leaves(found)]
    names = list(getattr(model, "output_names", None) or ())
    if len(values) == 1:
        return {"prediction": values[0]}
    if len(names) != len(values):
        names = [f"output_{number}" for number in range(len(values))]
    return dict(zip(names, values, strict=True))


def file_of(found: Mapping[str, Any], target: Path) -> bytes:
    """The predictions as .npz, or as Parquet with one column per component of each output."""
    stream = io.BytesIO()
    if target.suffix == ".npz":
        np.savez_compressed(stream, **found)
        return stream.getvalue()
    if target.suffix != ".parquet":
        raise ConfigError(
            explain(
                "--to", received=str(target), expected="a name ending in .npz or .parquet", todo="Change the ending."
            )
        )
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {}
    for name, value in found.items():
        flat = value.reshape(len(value), -1)
        places = list(np.ndindex(value.shape[1:])) if value.ndim > 1 and flat.shape[1] > 1 else [()]
        for place, column in zip(places, flat.T, strict=True):
            columns["_".join([name, *map(str, place)])] = column
    pq.write_table(pa.table(columns), stream)
    return stream.getvalue()
