"""What is installed, which device, what would not work, and what to install: found out without changing anything."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from importlib import metadata
from typing import Any

from tsguard.backend import KERAS_SUPPORTED, chosen_backend
from tsguard.errors import TsguardError
from tsguard.provenance import PACKAGES

EXTRAS = {
    "jax": ("comparison of backends (`backend-mismatch`)", "pip install jax"),
    "tensorboard": ("the TensorBoard tracker", "pip install tensorboard"),
    "wandb": ("the W&B tracker", "pip install wandb"),
    "onnx": ("export to ONNX and its parity check", "pip install onnx onnxruntime onnxscript"),
}


def examine() -> dict[str, Any]:
    """Facts as a dict, and the same as lines for a person."""
    lines = [f"python {platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores"]
    usable = sys.version_info >= (3, 11)
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
            lines.append(f"✓ {name} {versions[name]}")
        except metadata.PackageNotFoundError:
            versions[name] = None
            usable = False
            lines.append(f"✕ {name} is missing: pip install {name}")
    low, high = (".".join(map(str, end)) for end in KERAS_SUPPORTED)
    lines.append(f"  Keras is supported from {low} up to, not including, {high}")
    backend, device = chosen_backend(), None
    try:
        from tsguard.backend import device_name, device_words, require_torch

        require_torch()
        device = device_name()
        lines.append(f"✓ Keras backend torch; {device_words()}")
    except (TsguardError, ImportError) as wrong:
        usable = False
        lines.append(f"✕ {wrong}")
    missing = {}
    for name, (use, command) in EXTRAS.items():
        if importlib.util.find_spec(name) is None:
            missing[name] = command
            lines.append(f"○ {name} is not installed: without it there is no {use.removeprefix('the ')}. {command}")
    free_gb = shutil.disk_usage(".").free / 1e9
    lines.append(f"{'✓' if free_gb > 1 else '✕'} {free_gb:.1f} GB free on the disk of this folder")
    lines.append("ready" if usable else "not ready: mend what is marked ✕")
    return {
        "usable": usable,
        "python": platform.python_version(),
        "versions": versions,
        "backend": backend,
        "device": device,
        "missing_extras": missing,
        "free_gb": round(free_gb, 1),
        "lines": lines,
    }
