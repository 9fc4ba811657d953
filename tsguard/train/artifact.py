"""What a run leaves behind to be used: the best weights in the model, and the model as one `.keras` file."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import torch

from tsguard.store import RunFolder
from tsguard.train.checkpoint import FOLDER
from tsguard.train.resume import put_back

ARTIFACT = "model.keras"


def checkpoint_mb(folder: RunFolder, stem: str) -> float:
    """Size of a checkpoint on the disk, in MB."""
    return folder.file(f"{FOLDER}/{stem}.safetensors").stat().st_size / 1e6


def put_back_weights(model: Any, tensors: Mapping[str, torch.Tensor]) -> None:
    """A checkpoint's weights, without touching where the optimizer stands; its averages where it averages."""
    mine = {name: tensor for name, tensor in tensors.items() if name.startswith("model/")}
    if not averages(model.optimizer):
        put_back(model, mine)
        return
    # The averages live among the optimizer's own tensors: put those in, average, and take them out again.
    before = [variable.value.detach().clone() for variable in model.optimizer.variables]
    put_back(model, {**mine, **{name: tensor for name, tensor in tensors.items() if name.startswith("optimizer/")}})
    model.optimizer.finalize_variable_values(model.trainable_weights)
    with torch.no_grad():
        for variable, value in zip(model.optimizer.variables, before, strict=True):
            variable.value.copy_(value)


def averages(optimizer: Any) -> bool:
    """Whether an optimizer keeps an average of the weights."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return bool(getattr(inner, "use_ema", False))


def export(model: Any, folder: RunFolder) -> int:
    """Write model.keras; its size in bytes. What Keras cannot export raises, and nothing is left behind."""
    with tempfile.TemporaryDirectory() as place:
        made = Path(place) / ARTIFACT
        keras.saving.save_model(model, made)
        content = made.read_bytes()
    folder.write_bytes(ARTIFACT, content)
    return len(content)
